"""Whatever bytes a raw file holds, a conversion succeeds or says in one line what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_amazon import (
    RELEASES,
    json_line,
    metadata,
    pack,
    ratings_csv,
    ratings_frame,
    review,
    reviews,
    small_blocks,
    write,
)

from dataset_tools.convert import raw_file
from dataset_tools.convert.amazon import convert
from dataset_tools.convert.domain_writer import Converted
from recbole_cdr_mm.errors import DataFormatError

MARK = b"\xef\xbb\xbf"
PIECES = [MARK, b"\xff", b"\0", b"\t", b" ", b"\n", b"\n\n", b"\r\n", b"\r", b"{}\n"]
PIECES += rb""", ,,, " ' { } [ ] : \ \ud83d 1e999 - NaN null""".split()

quick = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def base_ratings() -> pd.DataFrame:
    return ratings_frame(np.random.default_rng(1), 9, 6, 12)


def base_items() -> pd.DataFrame:
    items = pd.DataFrame({"item_id": [f"B{number:09d}" for number in range(6)]})
    return items.assign(title='It\'s "a" \\ title', text="text <b>of</b> &amp; caf\u00e9")


RATINGS = {
    f"{release} {form.__name__}": form(base_ratings(), release)
    for release in RELEASES
    for form in (reviews, ratings_csv)
}
META = {release: metadata(base_items(), release) for release in RELEASES}


@st.composite
def spoiled(draw: st.DrawFn, good: dict[str, bytes]) -> tuple[str, bytes]:
    """A good file and its name, with a few cuts, flips and insertions."""
    name = draw(st.sampled_from(sorted(good)))
    return name, draw(spoiling(good[name]))


@st.composite
def spoiling(draw: st.DrawFn, data: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "remove", "double"]))
        if how == "cut":
            data = data[:place]
        elif how == "flip" and place < len(data):
            flipped = bytes([data[place] ^ draw(st.integers(1, 255))])
            data = data[:place] + flipped + data[place + 1 :]
        elif how == "insert":
            piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=5))
            data = data[:place] + piece + data[place:]
        elif how == "remove":
            data = data[:place] + data[place + draw(st.integers(1, 40)) :]
        else:
            data = data[:place] + data[max(place - draw(st.integers(1, 150)), 0) :]
    return data


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks for a small file."""
    small_blocks(monkeypatch, 700)
    monkeypatch.setattr("dataset_tools.safe_output.os.fsync", lambda _: None)


def result(folder: Path, on_error: str, meta: Path | None) -> Converted | None:
    """What a conversion gives, or None where it is refused."""
    try:
        most = 10**9 if on_error == "skip" else None
        (folder / "cd" / "cd.item").unlink(missing_ok=True)
        return convert(folder / "r", "cd", folder, meta=meta, on_error=on_error, max_errors=most)
    except DataFormatError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert message.startswith("r" if meta is None else ("r", "m"))
    return None


def survives(folder: Path, ratings: bytes, meta: bytes | None = None) -> Converted | None:
    """Convert with `stop` and with `skip`; give the result of the latter if there is one."""
    write(folder / "r", ratings)
    meta_path = None if meta is None else write(folder / "m", meta)
    stopped, skipped = (result(folder, on_error, meta_path) for on_error in ("stop", "skip"))
    if stopped is not None:  # then there is nothing to skip
        assert skipped is not None
        assert (stopped.faults, stopped.read) == ({}, skipped.read)
    elif skipped is not None:
        assert sum(skipped.faults.values()) > 0
    return skipped


def lines_of(content: bytes) -> list[bytes]:
    return [line for line in content.removeprefix(MARK).split(b"\n") if line.strip()]


def check_counts(content: bytes, skipped: Converted | None, *, header: bool) -> None:
    """Each line is a row or a fault."""
    if skipped is None:
        return
    if header:
        content = content.partition(b"\n")[2]
    assert skipped.read + sum(skipped.faults.values()) == len(lines_of(content))


@quick
@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))
@example(b"\x1f\x8b")
@example(b"\x28\xb5\x2f\xfd")
@example(b'{"\n5\n')
@example(b'{"\n' + json_line(review(rating=10**400)))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    survives(tmp_path, data)
    survives(tmp_path, json_line(review()), data)


@settings(quick, max_examples=120)
@given(spoiled(RATINGS))
@example(("2014 reviews", json_line(review(item_id="\ud83d")) + json_line(review())))
@example(("2014 reviews", json_line(review()).replace(b"Tellsall", b"\\ud83d")))
def test_spoiled_ratings(tmp_path: Path, file: tuple[str, bytes]) -> None:
    name, data = file
    check_counts(data, survives(tmp_path, data), header=name == "2023 ratings_csv")


@quick
@given(st.data(), st.sampled_from(sorted(RATINGS)))
def test_spoiled_lines(tmp_path: Path, data: st.DataObject, name: str) -> None:
    """A line is spoiled, the others stay: they are all kept."""
    lines = RATINGS[name].splitlines(keepends=True)
    header = name == "2023 ratings_csv"
    place = data.draw(st.integers(int(header), len(lines) - 1))
    line = data.draw(spoiling(lines[place]))
    line = line.removeprefix(MARK) if place == 0 else line
    content = b"".join([*lines[:place], line.rstrip(b"\n") + b"\n", *lines[place + 1 :]])
    skipped = survives(tmp_path, content)
    assert skipped is not None
    assert skipped.read >= len(lines) - 1 - header
    check_counts(content, skipped, header=header)


@quick
@given(spoiled(META))
@example(("2018", json_line({"asin": "B000000001", "title": json.loads("[" * 500 + "]" * 500)})))
def test_spoiled_metadata(tmp_path: Path, file: tuple[str, bytes]) -> None:
    skipped = survives(tmp_path, RATINGS["2014 ratings_csv"], file[1])
    if skipped is not None:
        assert (skipped.read, skipped.items) == (12, base_ratings()["item_id"].nunique())
        item_file = (tmp_path / "cd" / "cd.item").read_bytes()
        assert item_file.count(b"\n") == skipped.items + 1


@quick
@given(st.data(), st.sampled_from(["gzip", "zstd"]), st.sampled_from(sorted(RATINGS)))
def test_spoiled_packed_files(tmp_path: Path, data: st.DataObject, packing: str, name: str) -> None:
    survives(tmp_path, data.draw(spoiling(pack(RATINGS[name], packing))))
    meta = data.draw(spoiling(pack(META["2014"], packing)))
    survives(tmp_path, RATINGS["2018 ratings_csv"], meta)


@settings(quick, max_examples=40)
@given(st.data(), st.sampled_from(["gzip", "zstd"]))
def test_a_spoiled_file_packed_is_as_bad_as_it_is_plain(
    tmp_path: Path, data: st.DataObject, packing: str
) -> None:
    content = data.draw(spoiled(RATINGS))[1]
    plain = survives(tmp_path, content)
    if content[:2] != raw_file.GZIP and content[:4] != raw_file.ZSTD:
        packed = survives(tmp_path, pack(content, packing))
        assert (plain and (plain.read, plain.faults)) == (packed and (packed.read, packed.faults))
