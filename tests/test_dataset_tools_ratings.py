"""Rows of ratings: which are refused, which are repeated, which are in the core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from atomic_files import read_ratings
from raw_amazon import (
    faulty_line,
    json_line,
    ratings_csv,
    ratings_frame,
    refusal,
    review,
    reviews,
    small_blocks,
    write,
)

from dataset_tools.convert.amazon import convert
from recbole_cdr_mm.errors import ConfigError

PAIR = ["user_id", "item_id"]


def converted_rows(path: Path, folder: Path, **options: Any) -> pd.DataFrame:
    convert(path, "cd", folder, **options)
    return read_ratings(folder / "cd" / "cd.inter")


def core(ratings: pd.DataFrame, k: int) -> pd.DataFrame:
    while True:
        counts = [ratings.groupby(name)["rating"].transform("size") for name in PAIR]
        kept = ratings[(counts[0] >= k) & (counts[1] >= k)]
        if len(kept) == len(ratings):
            return kept
        ratings = kept


def once(ratings: pd.DataFrame, duplicates: str) -> pd.DataFrame:
    by_time = ratings.sort_values("timestamp", kind="stable")
    keep = "first" if duplicates == "first" else "last"
    kept = by_time.drop_duplicates(PAIR, keep=keep).sort_index()
    if duplicates == "mean":
        means = ratings.groupby(PAIR)["rating"].mean()
        kept = kept.assign(rating=means.loc[list(kept[PAIR].itertuples(index=False))].to_numpy())
    return kept


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_core_is_that_of_a_plain_loop(tmp_path: Path, rng: np.random.Generator, k: int) -> None:
    ratings = ratings_frame(rng, 120, 80, 600).drop_duplicates(PAIR, ignore_index=True)
    path = write(tmp_path / "r.json", reviews(ratings, "2014"))
    expected = core(ratings, k).reset_index(drop=True)
    assert len(expected) == len(ratings) if k < 2 else 0 < len(expected) < len(ratings)
    found = converted_rows(path, tmp_path, k_core=k)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert convert(path, "cd", tmp_path, k_core=k).outside_core == len(ratings) - len(expected)


def test_a_core_without_ratings_is_refused(tmp_path: Path) -> None:
    square = pd.MultiIndex.from_product(
        [["A000000001", "A000000002"], ["B000000001", "B000000002"]]
    )
    ratings = square.to_frame(index=False, name=PAIR).assign(rating=5.0, timestamp=1.4e9)
    path = write(tmp_path / "r.csv", ratings_csv(ratings, "2014"))
    assert convert(path, "ab", tmp_path, k_core=2).ratings == 4
    assert refusal(path, tmp_path, k_core=3) == (
        "r.csv: no rating is left of 4, for no users and items have 3 ratings of one another. "
        "Take a smaller --k_core."
    )


@pytest.mark.parametrize("duplicates", ["last", "first", "mean"])
def test_repeated_ratings_are_merged_as_pandas_does(
    tmp_path: Path, rng: np.random.Generator, duplicates: str
) -> None:
    ratings = ratings_frame(rng, 12, 10, 600)
    assert ratings.duplicated([*PAIR, "timestamp"]).sum() > 20  # the place in the file decides
    expected = once(ratings, duplicates).reset_index(drop=True)
    for release in ("2014", "2018", "2023"):
        path = write(tmp_path / "r.csv", ratings_csv(ratings, release))
        found = converted_rows(path, tmp_path, duplicates=duplicates)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-14)
    assert convert(path, "cd", tmp_path, duplicates=duplicates).repeated == 600 - len(expected)


def test_core_is_taken_of_merged_ratings(tmp_path: Path, rng: np.random.Generator) -> None:
    ratings = ratings_frame(rng, 40, 30, 320)
    path = write(tmp_path / "r.json", reviews(ratings, "2023"))
    found = converted_rows(path, tmp_path, k_core=6)
    expected = core(once(ratings, "last"), 6).reset_index(drop=True)
    assert 0 < len(expected) < len(core(ratings, 6))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_a_repeated_rating_is_named_where_none_is_allowed(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    small_blocks(monkeypatch)
    ratings = ratings_frame(rng, 99, 99, 400).drop_duplicates(PAIR, ignore_index=True)
    good = reviews(ratings, "2014")
    path = write(tmp_path / "r.json", good, packing)
    assert convert(path, "ab", tmp_path, duplicates="error").repeated == 0

    user, item = ratings.loc[7, PAIR]
    again = json_line(review(user_id=user, item_id=item)).replace(b'"A00', b'"\\u004100')
    content = good + again + json_line(review(user_id="A999999999"))
    write(path, content, packing)
    message = refusal(path, tmp_path, duplicates="error")
    assert f": user '{user}' rates item '{item}' a second time. Correct it, or take" in message
    packed = packing == "gzip"
    assert faulty_line(message, "r.json", content, packed=packed) == again.rstrip()


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", json_line(review()))
    for option, message in (
        ({"duplicates": "lats"}, "duplicates `lats` is not one of .* Did you mean `last`"),
        ({"k_core": -1}, "k_core must be 0 or more, not -1"),
        ({"on_error": "skpi"}, "on_error `skpi` is not one of stop, skip. Did you mean `skip`"),
        ({"on_error": "skip", "max_errors": -1}, "max_errors must be 0 or more, not -1"),
        ({"release": "2015"}, "release `2015` is not one of 2014, 2018, 2023"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(path, "cd", tmp_path, **option)
    assert not (tmp_path / "cd").exists()


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"rating": 0}, "a rating of 0 is outside 1 to 5"),
    ({"rating": 6}, "a rating of 6 is outside 1 to 5"),
    ({"rating": 5.0000001}, "a rating of 5.0000001 is outside 1 to 5"),
    ({"rating": float("nan")}, "a rating of nan is outside 1 to 5"),
    ({"rating": 10**400}, "a rating of inf is outside 1 to 5"),
    ({"rating": "5"}, "`overall` is no number but '5'"),
    ({"rating": True}, "`overall` is no number but True"),
    ({"rating": None}, "there is no `overall`"),
    ({"timestamp": 1_400_000_000_000}, "the time 1400000000000 is in ms, not in s"),
    ({"timestamp": -1}, "the time -1 is not between 1990 and 2100 in s"),
    ({"timestamp": 10**400}, "the time inf is not between 1990 and 2100 in s"),
    ({"timestamp": "05 13, 2014"}, "`unixReviewTime` is no number but '05 13, 2014'"),
    ({"user_id": ""}, "the user '' is not an id of Amazon's"),
    ({"user_id": None}, "there is no `reviewerID`"),
    ({"item_id": ""}, "the item '' is not an id of Amazon's"),
    ({"item_id": "B 00000001"}, "the item 'B 00000001' is not an id"),
    ({"user_id": "A00000000\u00e9"}, "the user 'A00000000\u00e9' is not an id"),
    ({"user_id": "A00000000\t"}, r"the user 'A00000000\t' is not an id"),
    ({"user_id": "A00000000\n"}, r"the user 'A00000000\n' is not an id"),
    ({"user_id": "A00000000\0"}, r"the user 'A00000000\x00' is not an id"),
    ({"user_id": "A00000000\ud83d"}, r"the user 'A00000000\ud83d' is not an id"),
    ({"user_id": '"A00000000'}, "the user '\"A00000000' is not an id"),
]


@pytest.mark.parametrize(("fields", "what"), BAD_FIELDS)
def test_a_review_that_cannot_be_is_named(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    what: str,
) -> None:
    small_blocks(monkeypatch)
    around = [reviews(ratings_frame(rng, 30, 20, 60), "2014") for _ in range(2)]
    good, bad = json_line(review()), json_line(review(**fields))
    path = write(tmp_path / "r.json", good.join(around))
    assert convert(path, "ab", tmp_path).read == 121
    content = bad.join(around)
    message = refusal(write(path, content), tmp_path)
    assert f": {what}" in message
    assert "--on_error=skip" in message
    assert faulty_line(message, "r.json", content) == bad.rstrip()


@pytest.mark.parametrize("release", ["2014", "2023"])
def test_a_whole_file_in_another_unit_of_time_is_named(tmp_path: Path, release: str) -> None:
    seconds, milliseconds = 1_400_000_000, 1_400_000_000_000
    right, wrong = (seconds, milliseconds) if release == "2014" else (milliseconds, seconds)
    said = "is in ms, not in s" if release == "2014" else "is in s, not in ms"
    path = write(tmp_path / "r.json", json_line(review(release, timestamp=right)))
    assert converted_rows(path, tmp_path / "ab")["timestamp"].tolist() == [1.4e9]
    write(path, json_line(review(release, timestamp=wrong)))
    assert f"line 1, byte 0: the time {wrong} {said}. " in refusal(path, tmp_path)


GOOD_CSV = "A000000001,B000000001,5.0,1400000000"
BAD_CSV = [
    ("A000000001,B000000001,6.0,1400000000", "a rating of 6 is outside 1 to 5"),
    ("A000000001,B000000001,nan,1400000000", "a rating of nan is outside 1 to 5"),
    ("A000000001,B000000001,,1400000000", "the rating '' is no number"),
    ("A000000001,B000000001,five,1400000000", "the rating 'five' is no number"),
    ('A000000001,B000000001,"5",1400000000', "the rating '\"5\"' is no number"),
    ("A000000001,B000000001, 5,1400000000", "is no rating of the expected form"),
    ("A000000001,B000000001,5.0,1400000000000", "the time 1400000000000 is in ms, not in s"),
    ("A000000001,B000000001,5.0,-1", "the time -1 is not between 1990 and 2100 in s"),
    ("A000000001,B000000001,5.0,\x0c14", "the time 14 is not between 1990 and 2100 in s"),
    ("A000000001,B000000001,5.0,", "the time '' is no number"),
    ("A000000001,B000000001,5.0", "has 3 values, not 4: user_id, item_id, rating, timestamp"),
    ("A000000001,B000000001,5.0,1400000000,", "has 5 values, not 4"),
    ("A000000001,B000000001,5.0,1400000000\rA", "the time '1400000000\\rA' is no number"),
    ("A000000001", "has 1 value, not 4"),
    (",B000000001,5.0,1400000000", "the user '' is not an id"),
    ("A000000001,,5.0,1400000000", "the item '' is not an id"),
    ("A000000001 ,B000000001,5.0,1400000000", "the user 'A000000001 ' is not an id"),
    ("A000000001,B00000000\t,5.0,1400000000", r"the item 'B00000000\t' is not an id"),
    ("A0000\x00001,B000000001,5.0,1400000000", r"the user 'A0000\x00001' is not an id"),
    ("A0000\u00e9001,B000000001,5.0,1400000000", "the user 'A0000\u00e9001' is not an id"),
    (
        "B000000001,A000000001,5.0,1400000000",
        "'B000000001' is an item and 'A000000001' a user: columns stand in the order of 2018, "
        "not of 2014",
    ),
]


@pytest.mark.parametrize(("line", "what"), BAD_CSV)
def test_a_line_of_a_csv_that_cannot_be_is_named(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    what: str,
) -> None:
    small_blocks(monkeypatch, 1024)
    around = [ratings_csv(ratings_frame(rng, 30, 20, 100), "2014") for _ in range(2)]
    path = write(tmp_path / "r.csv", (GOOD_CSV + "\n").encode().join(around))
    assert convert(path, "ab", tmp_path).read == 201
    content = (line + "\n").encode().join(around)
    message = refusal(write(path, content), tmp_path)
    assert f": {what}" in message
    assert faulty_line(message, "r.csv", content) == line.encode()


@pytest.mark.parametrize(("release", "other"), [("2014", "2018"), ("2018", "2014")])
def test_a_csv_in_the_order_of_another_release_is_named(
    tmp_path: Path, rng: np.random.Generator, release: str, other: str
) -> None:
    ratings = ratings_frame(rng, 9, 9, 40)
    path = write(tmp_path / "r.csv", ratings_csv(ratings, release))
    assert convert(path, "ab", tmp_path, release=release).read == 40
    write(path, ratings_csv(ratings, other))
    message = refusal(path, tmp_path, release=release)
    assert message.startswith("r.csv, line 1, byte 0: ")
    assert f"columns stand in the order of {other}, not of {release}" in message

    lines = [ratings_csv(ratings, each).splitlines(keepends=True) for each in (release, other)]
    content = b"".join([*lines[0][:-3], lines[1][-3], *lines[0][-2:]])
    message = refusal(write(path, content), tmp_path)
    assert f"columns stand in the order of {other}, not of {release}" in message
    assert faulty_line(message, "r.csv", content) == lines[1][-3].rstrip()


def test_the_columns_of_2023_are_found_by_their_header(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ratings = ratings_frame(rng, 9, 9, 40)
    lines = [line.split(b",") for line in ratings_csv(ratings, "2023").splitlines()]
    content = b"".join(b",".join([c, a, d, b]) + b"\n" for a, b, c, d in lines)
    found = converted_rows(write(tmp_path / "r.csv", content), tmp_path)
    expected = once(ratings, "last").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    content = content.replace(b"parent_asin", b"asin", 1)
    message = refusal(write(tmp_path / "r.csv", content), tmp_path / "none", release="2023")
    assert message.startswith("r.csv, line 1: the content does not tell the release: rating,user")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"reviewerID": "A1", "asin": "B1", "over', "is no JSON (Unterminated string"),
        (b"[1, 2]", "is no review but another kind of JSON"),
        (b"null", "is no review but another kind of JSON"),
        (json.dumps(review()).encode() * 2, "is no JSON (Extra data"),
        (json.dumps(review()).encode() + b" x", "is no JSON (Extra data"),
        (b"[" + json.dumps(review()).encode() + b"]", "is no review but another kind of JSON"),
        (json.dumps(review()).encode().replace(b"T", b"\xff", 1), "is not UTF-8 ("),
        (json.dumps(review()).encode().replace(b"T", b"\0", 1), "has a NUL byte"),
        (b'{"a": ' + b"[" * 9999 + b"]" * 9999 + b"}", "is no JSON (maximum recursion depth"),
        (b"Bad Gateway", "is no JSON (Expecting value"),
    ],
)
def test_a_line_that_is_no_review_is_named_wherever_it_stands(
    tmp_path: Path, rng: np.random.Generator, line: bytes, what: str
) -> None:
    around = reviews(ratings_frame(rng, 30, 20, 60), "2014")
    good = json.dumps(review()).encode()
    path = write(tmp_path / "r.json", around + good + b"\n" + around)
    assert convert(path, "ab", tmp_path).read == 121
    for content in (around + line + b"\n" + around, around + line):
        message = refusal(write(path, content), tmp_path)
        assert f": {what}" in message
        assert faulty_line(message, "r.json", content) == line
