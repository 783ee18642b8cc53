"""Metadata to titles and texts: fields of each release, cleaning, literals that are never run."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_amazon import (
    SECRETS,
    faulty_line,
    json_line,
    metadata,
    product,
    refusal,
    review,
    small_blocks,
    write,
)

from dataset_tools.atomic import read_items
from dataset_tools.convert.amazon import convert
from dataset_tools.convert.products import ProductError, clean_text, parse_product
from recbole_cdr_mm.errors import ConfigError

ITEM = "B000000001"
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
TRICKY = st.text(
    st.sampled_from("'\"\\{}[]:,nx# \t\n\r\0\u00e9\u2028\ud83d\U0001f3b5None"), max_size=12
)


def literal_line(fields: Mapping[str, Any]) -> bytes:
    return repr(dict(fields)).encode() + b"\n"


def items_of(folder: Path, *lines: bytes, **options: Any) -> list[dict[str, str]]:
    """The items that metadata gives, for ratings of three items."""
    ratings = b"".join(json_line(review(item_id=f"B00000000{number}")) for number in (1, 2, 3))
    meta = write(folder / "m.json", b"".join(lines))
    convert(write(folder / "r.json", ratings), "cd", folder, meta=meta, **options)
    return read_items(folder / "cd" / "cd.item").to_dict("records")


def described(folder: Path, fields: dict[str, Any], **options: Any) -> tuple[str, str]:
    """Title and text of a product, the same of a literal and of JSON."""
    found = set()
    for line in (
        literal_line({"asin": ITEM, **fields}),
        json_line({"parent_asin": ITEM, **fields}),
    ):
        item = items_of(folder, line, **options)[0]
        assert item["item_id"] == ITEM
        found.add((item["title"], item["text"]))
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("fields", "title", "text"),
    [
        (
            {
                "title": "Up",
                "brand": "Pixar",
                "categories": [["Films", "Family"], ["Films", "Cartoons"]],
                "feature": ["Two discs.", "Wide."],
                "description": "A tale.",
            },
            "Up",
            "Brand: Pixar. Category: Films, Family, Cartoons. Two discs. Wide. A tale.",
        ),
        ({"category": ["Films", "Family"], "description": ["A", "tale."]}, "",
         "Category: Films, Family. A tale."),
        ({"store": "Pixar Store", "features": ["Wide."]}, "", "Brand: Pixar Store. Wide."),
        ({"store": "Shop", "author": {"name": "Ann", "about": ["Wrote."]}}, "", "Brand: Ann."),
        ({"store": "Shop", "author": "Ann Oak"}, "", "Brand: Shop."),
        ({"brand": "Real", "store": "Shop", "author": {"name": "Ann"}}, "", "Brand: Real."),
        ({"brand": "Visit Amazon's Ann Oak Page"}, "", "Brand: Ann Oak."),
        ({"brand": "Visit Amazon's Ann Oak"}, "", "Brand: Visit Amazon's Ann Oak."),
        ({"title": "var aPageStart = (new Date()).getTime();", "brand": "B"}, "", "Brand: B."),
        ({"title": "var aPageStart = now;", "brand": "B"}, "var aPageStart = now;", "Brand: B."),
        ({"title": None, "description": [], "brand": ""}, "", ""),
        ({"title": "Rock &amp; Roll", "description": "&amp;lt;3 &quot;"}, "Rock & Roll", '<3 "'),
        ({"title": "Rock &amp;amp; Roll", "brand": "&amp;"}, "Rock & Roll", "Brand: &."),
        ({"description": "a<br />b <b>c</b> <i class='x'>d</i>"}, "", "a b c d"),
        ({"description": "a <script type='x'>b < c</script> d<style>e</style>"}, "", "a d"),
        ({"description": "a <!-- b --> c"}, "", "a c"),
        ({"description": "a < b, c > d, <3"}, "", "a < b, c > d, <3"),
        ({"title": "a\tb\nc\r\nd  e", "description": "x\0y\u2028z"}, "a b c d e", "x y z"),
        ({"title": '"Heroes" \\ \'x\'', "brand": '"Q"'}, "'Heroes\" \\ 'x'", 'Brand: "Q".'),
        ({"categories": [["A", ["B", "A"]], "C"]}, "", "Category: A, B, C."),
        ({"description": "half \ud83d of it"}, "", "half ? of it"),
    ],
)  # fmt: skip
def test_fields_of_every_release_become_title_and_text(
    tmp_path: Path, fields: dict[str, Any], title: str, text: str
) -> None:
    assert described(tmp_path, fields) == (title, text)


def test_template_says_what_the_text_is(tmp_path: Path) -> None:
    fields = {"title": "Up", "brand": "Pixar", "description": "A tale."}
    for template, text in (
        ("{title} by {brand}.|{description}", "Up by Pixar. A tale."),
        ("{description}|By {brand} in {categories}.|{title}", "A tale. Up"),
        ("{{{brand}}}", "{Pixar}"),
        ("{features}", ""),
    ):
        assert described(tmp_path, fields, template=template)[1] == text
    for template, message in (
        ("{brnad}", "template: `brnad` is not one of title, .* Did you mean `brand`"),
        ("no field", "template `no field` names none of"),
        ("{brand", "Double a brace that is text"),
        ("{average_rating}", "`average_rating` is not one of"),
        ("{}", "names none of|is not one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            described(tmp_path, fields, template=template)


def test_items_stand_in_the_order_of_the_metadata_each_once(tmp_path: Path) -> None:
    def line(item: int, title: str, release: str) -> bytes:
        content = product(f"B00000000{item}", title, "", release)
        return literal_line(content) if release == "2014" else json_line(content)

    for release in ("2014", "2018", "2023"):
        lines = [line(3, "three", release), line(9, "unrated", release), line(1, "one", release)]
        found = items_of(tmp_path, *lines, line(3, "again", release))
        assert [(item["item_id"], item["title"]) for item in found] == [
            ("B000000003", "three"),
            ("B000000001", "one"),
            ("B000000002", ""),
        ]
        assert {item["text"] for item in found} == {""}


def test_more_products_than_are_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_tools.convert.domain_writer.PART", 7)
    small_blocks(monkeypatch, 200)
    items = pd.DataFrame({"item_id": [f"B{number:09d}" for number in range(50)]})
    items = items.assign(title=items["item_id"] + " x", text="")
    ratings = b"".join(json_line(review(item_id=item)) for item in [*items["item_id"], "B1"])
    meta = write(tmp_path / "m", metadata(items, "2014"))
    converted = convert(write(tmp_path / "r", ratings), "cd", tmp_path, meta=meta)
    assert (converted.items, converted.with_text) == (51, 50)
    found = read_items(tmp_path / "cd" / "cd.item")
    assert found.to_dict("records")[:50] == items.to_dict("records")
    assert found.to_dict("records")[50:] == [{"item_id": "B1", "title": "", "text": ""}]


def test_without_metadata_there_is_no_item_file(tmp_path: Path) -> None:
    convert(write(tmp_path / "r", json_line(review())), "cd", tmp_path)
    assert sorted(path.name for path in (tmp_path / "cd").iterdir()) == [
        "cd.inter",
        "cd.manifest.json",
    ]


def test_counts_of_ratings_stay_out_whatever_the_template(tmp_path: Path) -> None:
    fields = {"average_rating": 4.321, "rating_number": 98765, "summary": "Tellsall"}
    fields |= {"details": {"Best Sellers Rank": 98765}, "salesRank": {"Music": 98765}}
    title, text = described(
        tmp_path,
        {**fields, "title": "Up", "reviewText": "Tellsall"},
        template="{title}|{brand}|{categories}|{features}|{description}",
    )
    assert (title, text) == ("Up", "Up")
    written = b"".join(path.read_bytes() for path in (tmp_path / "cd").iterdir())
    assert not [secret for secret in SECRETS if secret.encode() in written]


def test_an_unrated_product_hides_no_rated_one(tmp_path: Path) -> None:
    text = "x 'asin': 'B000000009' y"
    assert described(tmp_path, {"title": "T", "description": text}) == ("T", text)
    line = repr({"description": text, "asin": ITEM, "title": "T"}).encode() + b"\n"
    assert items_of(tmp_path, line)[0] == {"item_id": ITEM, "title": "T", "text": text}
    assert (
        items_of(tmp_path, json_line({"parent_asin": None, "asin": ITEM, "title": "T"}))[0]["title"]
        == "T"
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.text() | TRICKY,
        st.recursive(
            PLAIN | TRICKY,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5) | TRICKY, inner, max_size=3)
            ),
            max_leaves=12,
        ),
        max_size=6,
    )
)
def test_a_literal_is_read_as_python_reads_it(fields: dict[str, Any]) -> None:
    line = repr({"asin": ITEM, **fields}).encode()
    expected = ast.literal_eval(line.decode())
    assert parse_product(line) == expected == {"asin": ITEM, **fields}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.text() | TRICKY, PLAIN | TRICKY | st.floats(), max_size=6))
def test_json_is_read_as_python_reads_it(fields: dict[str, Any]) -> None:
    for escaped in (True, False):
        line = json.dumps({"asin": ITEM, **fields}, ensure_ascii=escaped)
        found = parse_product(line.encode("utf-8", "replace"))
        expected = json.loads(line.encode("utf-8", "replace").decode())
        assert repr(found) == repr(expected)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(TRICKY | st.text(), TRICKY | st.text())
def test_any_text_stays_in_its_field(tmp_path: Path, title: str, text: str) -> None:
    found = described(tmp_path, {"title": title, "description": text}, template="{description}")
    expected = [
        re.sub('^"+', lambda quotes: "'" * len(quotes[0]), clean_text(value))
        for value in (title, text)
    ]
    assert list(found) == expected
    assert len((tmp_path / "cd" / "cd.item").read_bytes().splitlines()) == 4


CODE = [
    "'title': __import__('os').system('touch ran')",
    "'title': open('ran', 'w')",
    "'title': f'{open(\"ran\", \"w\")}'",
    "'title': (lambda: open('ran', 'w'))()",
    "'title': [open('ran', 'w') for _ in (1,)]",
    "'title': name",
    "'title': 'a'.upper()",
    "'title': 2 ** 9",
    "**{'title': 'x'}",
]


@pytest.mark.parametrize("code", CODE)
def test_code_is_refused_and_not_run(tmp_path: Path, code: str) -> None:
    good = literal_line({"asin": "B000000002", "title": "T"})
    bad = f"{{'asin': '{ITEM}', {code}}}\n".encode()
    assert items_of(tmp_path, good)[0]["title"] == "T"
    reviews_path = write(tmp_path / "r.json", json_line(review()))
    content = good + bad + good
    for name, packing in (("m.json", "plain"), ("m.json.gz", "gzip")):
        message = refusal(
            reviews_path, tmp_path / "none", meta=write(tmp_path / name, content, packing)
        )
        assert "is no plain Python literal (" in message
        assert " and is not run. " in message
        line = faulty_line(message, name, content, packed=packing == "gzip")
        assert line == bad.rstrip()
    assert not Path("ran").exists()
    with pytest.raises(ProductError):
        parse_product(bad)
    assert not Path("ran").exists()


HALF = "{'asin': 'B000000001', 'title': 'It"
BAD = [
    (HALF.encode(), "is no Python literal (unterminated string literal"),
    (b"{'asin': 'B000000001', 'title': 'x'", "is no Python literal ("),
    (b'{"asin": "B000000001", "title": "It', "is no JSON (Unterminated string"),
    (b'{"asin": "B000000001", "title": nil}', "is no JSON (Expecting value"),
    (b"<p>Service Unavailable</p>", "is no Python literal (invalid syntax)"),
    (b"['asin']", "is no mapping of fields to values"),
    (b"5", "is no mapping of fields to values"),
    (b"{'title': 'x'}", "there is no `asin` and no `parent_asin`"),
    (b"{'asin': 5}", "there is no `asin` and no `parent_asin`"),
    (b"{'asin': ''}", "there is no `asin` and no `parent_asin`"),
    (
        b"{'asin': 'B000000001', 'title': 5}",
        "`title` is neither a text nor a list of texts but '5'",
    ),
    (
        b"{'asin': 'B000000001', 'categories': {'a': 1}}",
        "`categories` is neither a text nor a list",
    ),
    (b"{'asin': 'B000000001', 'feature': [5]}", "`feature` is neither a text nor a list"),
    (b"{'asin': 'B000000001', 'title': '\xff'}", "is not UTF-8 ("),
    (b'{"asin": "B000000001", "title": "\xff"}', "is not UTF-8 ("),
    (b"{'asin': 'B000000001', 'title': '\0'}", "has a NUL byte"),
    (
        b'{"asin": "B000000001", "title": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "is nested too deeply",
    ),
    (
        b'{"asin": "B000000001", "title": ' + b"[" * 9999 + b"]" * 9999 + b"}",
        "is nested too deeply",
    ),
    (b"{'asin': 'B000000001', 'price': " + b"[" * 9999 + b"]" * 9999 + b"}", "is no "),
    (b"{'asin': 'B000000001', 'price': " + b"-" * 9999 + b"1}", "is no plain Python literal ("),
    (b"{'asin': 'B000000001', 'price': " + b"9" * 9999 + b"}", "is no Python literal (Exceeds"),
]


@pytest.mark.parametrize(("bad", "what"), BAD)
def test_a_line_that_is_no_product_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes, what: str
) -> None:
    small_blocks(monkeypatch)
    around = b"".join(
        literal_line(product(f"B{number:09d}", 'It\'s "a" title', "text " * 9, "2014"))
        for number in range(50)
    )
    reviews_path = write(tmp_path / "r.json", json_line(review()))
    meta = write(tmp_path / "m.json", around * 2)
    assert convert(reviews_path, "ab", tmp_path, meta=meta).with_text == 1
    for content in (around + bad + b"\n" + around, around + bad):
        write(meta, content)
        message = refusal(reviews_path, tmp_path, meta=meta)
        assert f": {what}" in message
        assert faulty_line(message, "m.json", content) == bad
        converted = convert(reviews_path, "cd", tmp_path, meta=meta, on_error="skip")
        assert list(converted.faults.values()) == [1]
        item = (tmp_path / "cd" / "cd.item").read_bytes()
        assert item == (tmp_path / "ab" / "ab.item").read_bytes()
        for path in (tmp_path / "cd").iterdir():
            path.unlink()
        (tmp_path / "cd").rmdir()
