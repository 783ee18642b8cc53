"""Whatever bytes a table, an atomic file or a feature store holds, a command says what is wrong."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from raw_amazon import small_blocks
from test_dataset_tools_fuzz import quick, spoiling

from dataset_tools.check import check_dataset
from dataset_tools.convert import table
from dataset_tools.encode import image
from dataset_tools.feature_store import write_store
from dataset_tools.fetch.url_table import plan
from recbole_cdr_mm.errors import UserError

RATINGS = b"user_id,item_id,rating,timestamp\n" + b"".join(
    b'u%d,"item, %d",%d,%d\n' % (user, item, 1 + (user + item) % 5, 1_200_000_000 + user)
    for user in range(6)
    for item in range(5)
)
ITEMS = b"item_id,title,plot\n" + b"".join(
    b'"item, %d","The ""film""\nno. %d",Nothing happens.\n' % (item, item) for item in range(5)
)
INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + b"".join(
    b"u%d\ti%d\t%d\t12%08d\n" % (user, user % 4, 1 + user % 5, user) for user in range(12)
)
ITEM = b"item_id:token\ttitle:token_seq\ttext:token_seq\n" + b"".join(
    b"i%d\tThe film\tNothing happens.\n" % item for item in range(4)
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 300)
    monkeypatch.setattr("dataset_tools.safe_output.os.fsync", lambda _: None)


def convert(folder: Path, ratings: bytes, items: bytes = ITEMS) -> None:
    """Convert with `stop` and `skip`; each ends well or with one line."""
    (folder / "r").write_bytes(ratings)
    (folder / "i").write_bytes(items)
    for on_error in ("stop", "skip"):
        try:
            made = table.convert(
                folder / "r",
                "d",
                folder,
                items=folder / "i",
                title="title",
                text=["plot"],
                on_error=on_error,
            )
        except UserError as error:
            message = str(error)
        else:
            message = "fine"
            assert made.ratings == made.read - made.repeated
            assert on_error == "skip" or not made.faults
        assert len(message.splitlines()) == 1


def parquet() -> bytes:
    content = io.BytesIO()
    pl.read_csv(RATINGS).write_parquet(content)
    return content.getvalue()


@quick
@given(spoiling(RATINGS))
@example(b"")
@example(b'user_id,item_id,rating\n"')
def test_spoiled_ratings(tmp_path: Path, data: bytes) -> None:
    convert(tmp_path, data)


@quick
@given(spoiling(ITEMS))
@example(b"item_id,title,plot\n" + b'"' * 9)
def test_spoiled_items(tmp_path: Path, data: bytes) -> None:
    convert(tmp_path, RATINGS, data)


@quick
@given(spoiling(parquet()))
def test_spoiled_parquet(tmp_path: Path, data: bytes) -> None:
    convert(tmp_path, data)


@quick
@given(spoiling(INTER), spoiling(ITEM))
def test_check_reports_whatever_is_there(tmp_path: Path, inter: bytes, item: bytes) -> None:
    folder = tmp_path / "d"
    folder.mkdir(exist_ok=True)
    (folder / "d.inter").write_bytes(inter)
    (folder / "d.item").write_bytes(item)
    findings = check_dataset(tmp_path, "d")
    assert findings
    assert all(len(finding.what.splitlines()) == 1 for finding in findings)


@quick
@given(st.sampled_from(["npy", "ids", "json"]), st.data())
def test_check_reports_a_spoiled_store(tmp_path: Path, end: str, data: st.DataObject) -> None:
    folder = tmp_path / "d"
    folder.mkdir(exist_ok=True)
    (folder / "d.inter").write_bytes(INTER)
    (folder / "d.item").write_bytes(ITEM)
    info = dict.fromkeys(("encoder", "revision_or_hash", "pooling", "counts", "content_hash"), "x")
    matrix = np.ones((4, 3), dtype=np.float32)
    write_store(folder, "d", "text", ["i0", "i1", "i2", "i3"], matrix, {**info, "fields": ["text"]})
    file = folder / f"d.text.{end}"
    file.write_bytes(data.draw(spoiling(file.read_bytes())))
    findings = check_dataset(tmp_path, "d")
    assert any(finding.where == "d.text.npy" for finding in findings)


@quick
@given(spoiling(b"B000000001" + np.ones(4096, dtype="<f4").tobytes()))
def test_spoiled_image_features(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "d"
    folder.mkdir(exist_ok=True)
    (folder / "d.inter").write_bytes(INTER.replace(b"\ti1\t", b"\tB000000001\t"))
    (tmp_path / "f.b").write_bytes(data)
    with contextlib.suppress(UserError):
        assert image.store_images(tmp_path / "f.b", "d", tmp_path).with_image == 1


TABLE = {
    "2014": {
        "kinds": {"reviews": {"url": "http://h/r_{category}.gz"}},
        "categories": ["Books", "CDs"],
        "files": {"r_Books.gz": {"bytes": 12, "sha256": "0" * 64}},
    }
}


@quick
@given(spoiling(yaml.safe_dump(TABLE).encode()))
def test_spoiled_url_tables(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "urls.yaml").write_bytes(data)
    with contextlib.suppress(UserError):
        assert plan("2014", ["Books"], ["reviews"], tmp_path / "urls.yaml")
