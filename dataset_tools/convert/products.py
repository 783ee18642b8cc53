"""Amazon's product metadata of any release to titles and texts.

A line of 2014 is a Python literal, a line of 2018 and 2023 is JSON. Neither is ever evaluated as
code. What buyers say of a product, its average rating among it, is not read: it would tell test
ratings.
"""

from __future__ import annotations

import ast
import contextlib
import html
import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from string import Formatter
from typing import Any

import orjson

from dataset_tools.convert.domain_writer import ItemRow
from dataset_tools.convert.problems import Fault
from dataset_tools.convert.raw_file import Block, RawFile
from recbole_cdr_mm.errors import ConfigError, did_you_mean

TEMPLATE = "Brand: {brand}.|Category: {categories}.|{features}|{description}"
FIELDS = ("title", "brand", "categories", "features", "description")

ASIN = re.compile(rb"\{'asin': '([^'\\]+)'")  # stands first in 2014
TOKENS = re.compile(  # a string that does not close takes all that is left: none is tried twice
    r"""(?:[^"'\\]++|'[^"'\\]*+')++"""  # a run of plain strings and what stands between them
    r"""|'(?:[^'\\]++|\\.)*+(?:'|\Z)|"(?:[^"\\]++|\\.)*+(?:"|\Z)""",
    re.DOTALL,
)
COMMENTS = tuple(
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for begin, end in (
        (r"<script\b", r"</script\s*>"),
        (r"<style\b", r"</style\s*>"),
        (r"<!--", r"-->"),
    )
)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
STORE = re.compile(r"^Visit Amazon's (.+) Page$")
PAGE_CODE = "getTime"  # some titles of 2018 are code of the page that they were taken from


class Template:
    """How the fields of a product become its text.

    Args:
        text: Parts between `|`, each with fields in braces. A part of which a field is empty is
            left out. What is short stands first by default, for encoders cut long texts.

    Raises:
        ConfigError: If a field is not one of `FIELDS`, or there is none.

    >>> Template("Category: {categories}.|{description}")({"description": "A tale."})
    'A tale.'
    """

    def __init__(self, text: str = TEMPLATE) -> None:
        self.parts = []
        try:
            for part in text.split("|"):
                fields = [field for field in Formatter().parse(part) if field[1] is not None]
                if any(spec or how for _, _, spec, how in fields):
                    raise ValueError("between braces stands the name of a field alone")
                self.parts.append((part, [str(name) for _, name, _, _ in fields]))
        except ValueError as error:
            raise ConfigError(
                f"template `{text}`: {error}. Double a brace that is text."
            ) from error
        names = [name for _, names in self.parts for name in names]
        for name in names:
            if name not in FIELDS:
                raise ConfigError(
                    f"template: `{name}` is not one of {', '.join(FIELDS)}."
                    f"{did_you_mean(name, FIELDS)}"
                )
        if not names:
            raise ConfigError(f"template `{text}` names none of {', '.join(FIELDS)}, in braces.")

    def __call__(self, fields: dict[str, str]) -> str:
        """The text of a product."""
        parts = (
            part.format_map(fields)
            for part, names in self.parts
            if all(fields.get(name) for name in names)
        )
        return clean_text(" ".join(parts))


@dataclass(frozen=True)
class Products:
    """The products of a metadata file that have a rating, as titles and texts; an `ItemSource`.

    Attributes:
        file: The file.
        template: How a text is made.
    """

    file: RawFile
    template: Template

    def rows(self, wanted: Set[str]) -> Iterator[ItemRow]:
        """Items, titles and texts of the wanted items, in the order of the file.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        with contextlib.closing(self.file.blocks()) as blocks:
            for line in (line for block in blocks for line in block.lines()):
                row = self._describe(line, wanted)
                if row is not None:
                    yield row

    def _describe(self, line: Block, wanted: Set[str]) -> ItemRow | None:
        """Item, title and text of a line; None of one that is not wanted or was reported."""
        data = line.data.strip()
        if data.endswith(b"}"):  # slow to parse, and most have no rating
            asin = ASIN.match(data)
            if asin is not None and asin[1].decode("utf-8", "replace") not in wanted:
                return None
        try:
            return self._row(parse_product(data), wanted)
        except ProductError as error:
            fault = Fault(error.kind, str(error))
        except RecursionError:
            fault = Fault("nested too deeply", "is nested too deeply")
        self.file.report(line, fault)
        return None

    def _row(self, product: dict[str, Any], wanted: Set[str]) -> ItemRow | None:
        item = product.get("parent_asin") or product.get("asin")
        if not isinstance(item, str) or not item:
            raise ProductError("no id", "there is no `asin` and no `parent_asin`")
        if item not in wanted:
            return None
        fields = product_fields(product)
        return item, fields["title"], self.template(fields)


class ProductError(Exception):
    """What is wrong with a line of metadata."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def parse_product(line: bytes) -> dict[str, Any]:
    """Read a line of metadata, JSON or a Python literal; never as code.

    Raises:
        ProductError: If it is neither, or no mapping.

    >>> parse_product(b'{"asin": "B1", "title": null}') == parse_product(
    ...     b"{'asin': 'B1', 'title': None}")
    True
    """
    try:
        product = orjson.loads(line)
    except orjson.JSONDecodeError:
        product = _parse_slowly(line)
    if not isinstance(product, dict):
        raise ProductError("no product", "is no mapping of fields to values")
    return product


def product_fields(product: dict[str, Any]) -> dict[str, str]:
    """Find a product's `FIELDS` under the names that the releases give them; cleaned.

    Raises:
        ProductError: If a field is neither a text nor a list of texts.

    >>> product = {"title": "Up", "description": ["A", "tale."], "category": ["Films", "Family"]}
    >>> product_fields(product)["categories"], product_fields(product)["description"]
    ('Films, Family', 'A tale.')
    """
    author = product.get("author")
    maker = author.get("name") if isinstance(author, dict) else None
    categories = product.get("categories") or product.get("category")
    title = _text(product, "title")
    return {
        "title": "" if PAGE_CODE in title else title,
        "brand": STORE.sub(
            r"\1", _text(product, "brand") or _clean(maker) or _text(product, "store")
        ),
        "categories": ", ".join(dict.fromkeys(map(clean_text, _strings("categories", categories)))),
        "features": _text(product, "feature") or _text(product, "features"),
        "description": _text(product, "description"),
    }


def clean_text(text: str) -> str:
    r"""Free a text from HTML and from what no file can hold.

    >>> clean_text("Rock &amp;amp; Roll<br />\n <b>live</b> &lt;i&gt;again&lt;/i&gt; 3 < 4")
    'Rock & Roll live again 3 < 4'
    """
    if "&" in text:
        text = html.unescape(html.unescape(text))  # some is escaped twice
    if "<" in text:
        for comment, end in COMMENTS:
            text = _without(text, comment, end)
        text = TAG.sub(" ", text)
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").split())


def _without(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Cut out what stands from each beginning to the next end; one without an end stays."""
    kept, place = [], 0
    while (first := begin.search(text, place)) and (last := end.search(text, first.end())):
        kept += [text[place : first.start()], " "]
        place = last.end()
    return "".join(kept) + text[place:]


def _parse_slowly(line: bytes) -> Any:
    """Read JSON with NaN or half characters, as Python writes it, or a Python literal.

    A literal is read by way of JSON where that is the same: three times faster.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProductError("not UTF-8", f"is not UTF-8 ({error})") from error
    if "\0" in text:
        raise ProductError("NUL byte", "has a NUL byte")
    if text.startswith('{"'):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ProductError("no JSON", f"is no JSON ({error})") from error
    try:
        return orjson.loads(TOKENS.sub(_to_json, text))
    except (ValueError, SyntaxError):
        pass
    try:
        return ast.literal_eval(text)
    except SyntaxError as error:
        raise ProductError("no literal", f"is no Python literal ({error.msg})") from error
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        what = str(error).partition(" on line")[0] or type(error).__name__
        raise ProductError("code", f"is no plain Python literal ({what}) and is not run") from error


def _to_json(match: re.Match[str]) -> str:
    """Write a string token, or a run without double quotes and backslashes, as JSON."""
    token = match[0]
    if '"' not in token and "\\" not in token:
        return token.replace("'", '"')
    return json.dumps(ast.literal_eval(token))


def _text(product: dict[str, Any], key: str) -> str:
    """A field as one clean text."""
    return clean_text(" ".join(_strings(key, product.get(key))))


def _clean(value: object) -> str:
    return clean_text(value) if isinstance(value, str) else ""


def _strings(key: str, value: object) -> list[str]:
    """The texts of a field: of none, one, or a list, which may be nested."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _strings(key, part)]
    raise ProductError(
        "bad field", f"`{key}` is neither a text nor a list of texts but {str(value)[:40]!r}"
    )
