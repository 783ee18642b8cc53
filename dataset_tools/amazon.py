"""Amazon's raw files of the 2014 release to atomic files: the command `amazon`.

The releases of 2018 and 2023 have other columns and are not converted yet.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from dataset_tools.atomic import write_inter, write_items
from recbole_cdr_mm.errors import DataFormatError

ASIN = re.compile(r"""['"]asin['"]: ['"]([^'"]+)['"]""")
TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)
RELEASE = "Is it of the 2014 release? Others are not converted yet."
LOW, HIGH = 1.0, 5.0  # stars

Rating = tuple[str, str, float, float]


@dataclass(frozen=True)
class Converted:
    """What became of raw files, for the summary."""

    users: int
    items: int
    ratings: int
    repeated: int
    with_text: int


def convert(reviews: Path, dataset: str, data_path: Path, meta: Path | None = None) -> Converted:
    """Convert the ratings and the items of one product category.

    Nothing is written before everything is read.

    Args:
        reviews: `reviews_X_5.json.gz` or `ratings_X.csv`, packed or not. Of several ratings of a
            user for an item the last by time counts.
        dataset: The domain to be.
        data_path: The folder of the domains.
        meta: `meta_X.json.gz`, packed or not; without it no `.item` file is written.

    Returns:
        Counts of what was written.

    Raises:
        DataFormatError: If a file is missing, cut off or malformed; names file and line.
        ConfigError: If the domain cannot be written.
    """
    inter, repeated = _read_ratings(reviews)
    tokens = inter["item_id"].unique().tolist()
    items = None if meta is None else _read_meta(meta, tokens)
    folder = data_path / dataset
    write_inter(folder / f"{dataset}.inter", inter)
    if items is not None:
        write_items(folder / f"{dataset}.item", items)
    return Converted(
        users=inter["user_id"].nunique(),
        items=len(tokens),
        ratings=len(inter),
        repeated=repeated,
        with_text=0 if items is None else int(((items["title"] + items["text"]) != "").sum()),
    )


def clean_text(text: str) -> str:
    r"""Free a text from HTML and from what no file can hold.

    >>> clean_text("Rock &amp;amp; Roll<br />\n <b>live</b> &lt;i&gt;again&lt;/i&gt; 3 < 4")
    'Rock & Roll live again 3 < 4'
    """
    text = html.unescape(html.unescape(text))  # some is escaped twice
    text = TAG.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())


def _read_ratings(path: Path) -> tuple[pd.DataFrame, int]:
    """Ratings in file order, without repeated ones, and how many those were."""
    parse = _parse_csv if ".csv" in path.suffixes else _parse_review
    user_of: dict[str, int] = {}
    item_of: dict[str, int] = {}
    users, items, ratings, times = array("q"), array("q"), array("d"), array("d")
    for line, text in _lines(path):
        user, item, rating, time = _parse(path, line, text, parse)
        users.append(user_of.setdefault(user, len(user_of)))
        items.append(item_of.setdefault(item, len(item_of)))
        ratings.append(rating)
        times.append(time)
    if not users:
        raise DataFormatError(f"{path.name}: has no ratings. Download it again.")
    codes = pd.DataFrame({"user": users, "item": items, "rating": ratings, "time": times})
    last = codes.sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last")
    last = last.sort_index()
    frame = pd.DataFrame(
        {
            "user_id": np.array(list(user_of), dtype=object)[last["user"]],
            "item_id": np.array(list(item_of), dtype=object)[last["item"]],
            "rating": last["rating"].to_numpy(),
            "timestamp": last["time"].to_numpy(),
        }
    )
    return frame, len(codes) - len(frame)


def _parse_review(text: str) -> Rating:
    """One line of `reviews_X_5.json`."""
    review = json.loads(text)
    return (
        str(review["reviewerID"]),
        str(review["asin"]),
        float(review["overall"]),
        float(review["unixReviewTime"]),
    )


def _parse_csv(text: str) -> Rating:
    """One line of `ratings_X.csv`."""
    user, item, rating, time = text.split(",")
    if item.startswith("A") and not user.startswith("A"):
        raise ValueError("the item stands before the user, as in the release of 2018")
    return user, item, float(rating), float(time)


def _parse(path: Path, line: int, text: str, parse: Callable[[str], Rating]) -> Rating:
    """Read a rating and check it."""
    try:
        user, item, rating, time = parse(text)
    except KeyError as error:
        _refuse(path, line, f"there is no {error}")
    except (TypeError, ValueError) as error:
        _refuse(path, line, f"is no rating ({error})")
    if not user or not item:
        _refuse(path, line, "user or item is empty")
    if not np.isfinite(time):
        _refuse(path, line, f"a time of {time:g} is none")
    if not LOW <= rating <= HIGH:
        _refuse(path, line, f"a rating of {rating:g} is outside {LOW:g} to {HIGH:g}")
    return user, item, rating, time


def _read_meta(path: Path, tokens: list[str]) -> pd.DataFrame:
    """Title and text of the given items; an item that the file lacks has neither."""
    wanted = set(tokens)
    found: dict[str, tuple[str, str]] = {}
    for line, text in _lines(path):
        asin = ASIN.search(text)
        if asin is None:
            _refuse(path, line, "there is no 'asin'")
        if asin[1] not in wanted:  # parsing is slow, and most products have no kept rating
            continue
        try:
            product = ast.literal_eval(text)
            found[asin[1]] = _describe(product)
        except (AttributeError, TypeError, ValueError, SyntaxError, RecursionError) as error:
            _refuse(path, line, f"is no product ({error})")
    rows = [(token, *found.get(token, ("", ""))) for token in tokens]
    return pd.DataFrame(rows, columns=["item_id", "title", "text"])


def _describe(product: dict[str, Any]) -> tuple[str, str]:
    """Title and text of a product; what is short comes first, for encoders cut long texts.

    >>> _describe({"title": "Up", "description": "A tale.", "categories": [["Films", "Family"]]})
    ('Up', 'Category: Films, Family. A tale.')
    """
    labels = dict.fromkeys(label for path in product.get("categories", ()) for label in path)
    parts = [
        f"Brand: {product['brand']}." if product.get("brand") else "",
        f"Category: {', '.join(labels)}." if labels else "",
        product.get("description") or "",
    ]
    return clean_text(product.get("title") or ""), clean_text(" ".join(parts))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and content of each line of a file, packed or not, that is not blank."""
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for data in file:
                line += 1
                if text := data.decode("utf-8").strip():
                    yield line, text
    except EOFError as error:
        raise DataFormatError(
            f"{path.name}, line {line + 1}: the file is cut off here. Download it again."
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"{path.name}, line {line + 1}: is no sound gzip file ({error}). Download it again."
        ) from error
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataFormatError(f"{path.name}, line {line}: is not utf-8 ({error}).") from error


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise DataFormatError(f"{path.name}, line {line}: {what}. {RELEASE}")
