"""Ratings and items as Amazon's raw files of each release, in any packing; and faults in them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dataset_tools.convert import raw_file
from dataset_tools.convert.amazon import convert
from dataset_tools.convert.raw_file import zstd
from recbole_cdr_mm.errors import DataFormatError

RELEASES = ("2014", "2018", "2023")
SECRETS = ("Tellsall", "4.321", "98765")  # of a test rating; no output may hold them
PLACE = re.compile(r"(?P<file>\S+), line (?P<line>\d+), byte (?P<byte>\d+)(?P<packed>.*?): ")


def ratings_frame(rng: np.random.Generator, users: int, items: int, ratings: int) -> pd.DataFrame:
    """Ratings of made-up ids of Amazon's form; some rate an item more than once."""
    return pd.DataFrame(
        {
            "user_id": [f"A{user:09d}" for user in rng.integers(users, size=ratings)],
            "item_id": [f"B{item:09d}" for item in rng.integers(items, size=ratings)],
            "rating": rng.integers(1, 6, size=ratings).astype(float),
            "timestamp": 1_400_000_000.0 + rng.integers(50, size=ratings),
        }
    )


def review(release: str = "2014", **changes: object) -> dict[str, Any]:
    """One review."""
    fields = {
        "user_id": "A000000001",
        "item_id": "B000000001",
        "rating": 5.0,
        "timestamp": 1_400_000_000,
        **changes,
    }
    user, item, rating, time = (
        fields.pop(name) for name in ("user_id", "item_id", "rating", "timestamp")
    )
    if release == "2023":
        line = {"rating": rating, "title": "Tellsall", "text": 'Tellsall, it\'s "good"\\ \u00e9'}
        line |= {"images": [], "asin": "B0VARIANT0", "parent_asin": item, "user_id": user}
        return {**line, "timestamp": time, "helpful_vote": 0, "verified_purchase": True, **fields}
    line = {"reviewerID": user, "asin": item, "reviewerName": 'J. "Tellsall"', "helpful": [0, 1]}
    line |= {"reviewText": "Tellsall\n\tit's 'good'\\ \u00e9", "overall": rating}
    line |= {"summary": "Tellsall", "unixReviewTime": time, "reviewTime": "05 13, 2014"}
    return {**line, **({"verified": True} if release == "2018" else {}), **fields}


def json_line(fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def reviews(ratings: pd.DataFrame, release: str) -> bytes:
    """Ratings as the JSON lines of a release."""
    factor = 1000 if release == "2023" else 1
    return b"".join(
        json_line(
            review(release, user_id=user, item_id=item, rating=stars, timestamp=int(time * factor))
        )
        for user, item, stars, time in ratings.itertuples(index=False)
    )


def ratings_csv(ratings: pd.DataFrame, release: str) -> bytes:
    """Ratings as the lines between commas of a release."""
    order = ["user_id", "item_id", "rating", "timestamp"]
    if release == "2018":
        order[:2] = order[1::-1]
    if release == "2023":
        ratings = ratings.assign(timestamp=ratings["timestamp"] * 1000)
    ratings = ratings.astype({"timestamp": np.int64})[order]
    header = release == "2023" and ["user_id", "parent_asin", "rating", "timestamp"]
    return ratings.to_csv(header=header, index=False, quoting=csv.QUOTE_NONE).encode()


def product(item: str, title: str, text: str, release: str) -> dict[str, Any]:
    """One product; its text is its description."""
    if release == "2014":
        fields = {"asin": item, "title": title, "description": text, "price": 9.99}
        fields = {key: value for key, value in fields.items() if value}
        return {**fields, "related": {"also_bought": ["B0UNRELATE"]}, "salesRank": {"Music": 3}}
    texts = text.split(" ", 1) if text else []
    if release == "2018":
        return {"category": [], "description": texts, "title": title, "brand": "", "asin": item}
    counts = {"average_rating": 4.321, "rating_number": 98765, "features": [], "categories": []}
    return {"title": title or None, **counts, "description": texts, "parent_asin": item}


def metadata(items: pd.DataFrame, release: str) -> bytes:
    """Items as the metadata of a release: Python literals or JSON."""
    write = repr if release == "2014" else json.dumps
    return b"".join(
        write(product(item, title, text, release)).encode() + b"\n"
        for item, title, text in items[["item_id", "title", "text"]].itertuples(index=False)
    )


def pack(content: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(content, 1, mtime=0)
    return zstd.compress(content) if packing == "zstd" else content


def write(path: Path, content: bytes, packing: str = "plain") -> Path:
    """Write a file in a packing, whatever its name says."""
    path.write_bytes(pack(content, packing))
    return path


def small_blocks(monkeypatch: pytest.MonkeyPatch, block: int = 4096) -> None:
    """Make blocks of a few lines, so that a small file has several."""
    monkeypatch.setattr(raw_file, "BLOCK", block)
    monkeypatch.setattr(raw_file, "PIECE", max(block // 8, 64))


def refusal(path: Path, folder: Path, **options: Any) -> str:
    """What a conversion is refused with: one line, and nothing is left behind."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataFormatError) as refused:
        convert(path, "cd", folder, **options)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
    return message


def faulty_line(message: str, file: str, content: bytes, *, packed: bool = False) -> bytes:
    """The line that a message names, found by its byte and checked against its number."""
    place = PLACE.match(message)
    assert place is not None, message
    assert place["file"] == file
    assert place["packed"] == (" of the unpacked file" if packed else "")
    stream = io.BytesIO(content)
    stream.seek(int(place["byte"]))
    before = content[: int(place["byte"])]
    assert before.endswith(b"\n") or before in (b"", b"\xef\xbb\xbf")
    assert before.count(b"\n") + 1 == int(place["line"])
    return stream.readline().rstrip(b"\r\n")
