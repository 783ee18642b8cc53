from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dataset_tools import feature_store
from dataset_tools.feature_store import (
    FeatureRows,
    advice,
    check_features,
    content_hash,
    item_texts,
    matrix_hash,
    read_store,
    write_store,
)
from recbole_cdr_mm.errors import ConfigError, DataFormatError

INFO: dict[str, Any] = {
    "encoder": "minilm",
    "revision_or_hash": "sha256:0",
    "pooling": "sum",
    "fields": ["title", "text"],
    "counts": {"items": 3, "with_text": 2, "truncated": 0},
    "content_hash": "0",
}
IDS = ["b", "a"]
MATRIX = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)


def write(folder: Path, ids: list[str] = IDS, matrix: np.ndarray = MATRIX) -> None:
    write_store(folder, "movie", "text", ids, matrix, INFO)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_reads_back(tmp_path: Path, dtype: str) -> None:
    folder = tmp_path / "movie"
    write(folder, matrix=np.asfortranarray(MATRIX.astype(dtype)))
    assert sorted(os.listdir(folder)) == ["movie.text.ids", "movie.text.json", "movie.text.npy"]
    store = read_store(folder, "movie")
    assert isinstance(store.matrix, np.memmap)
    assert store.matrix.flags.c_contiguous
    assert store.matrix.dtype == dtype
    assert store.matrix.tolist() == MATRIX.tolist()
    assert store.ids == IDS
    assert store.info == {**INFO, "dim": 3, "dtype": dtype}


def test_a_store_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path, ids=[], matrix=MATRIX[:0])
    assert read_store(tmp_path, "movie").matrix.shape == (0, 3)


def test_kinds_lie_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path)
    write_store(tmp_path, "movie", "image", ["c"], MATRIX[:1] + 1, INFO)
    assert read_store(tmp_path, "movie", "image").ids == ["c"]
    assert read_store(tmp_path, "movie").ids == IDS


def test_ids_may_hold_other_line_ends(tmp_path: Path) -> None:
    write(tmp_path, ids=["a\x85b", "a\u2028b"])
    assert read_store(tmp_path, "movie").ids == ["a\x85b", "a\u2028b"]


@pytest.mark.parametrize(
    ("ids", "matrix", "message"),
    [
        (["a"], MATRIX, r"has 2 rows, but there are 1 item ids"),
        (["a", "a"], MATRIX, r"line 2: 'a' stands there twice"),
        (["a", ""], MATRIX, r"line 2: '' is no item"),
        (["a", "b\nc"], MATRIX, r"line 2: 'b\\nc' is no item"),
        (IDS, MATRIX.astype(np.float64), r"must be a matrix of float16 or float32, but .*float64"),
        (IDS, MATRIX[0], r"must be a matrix .* has shape \(3,\)"),
        (IDS, np.where(MATRIX == 5, np.float32(np.nan), MATRIX), r"features are not finite"),
        (IDS, np.where(MATRIX == 5, np.float32(np.inf), MATRIX), r"--dtype=float32"),
    ],
)
def test_refuses_to_write_what_is_no_store(
    tmp_path: Path, ids: list[str], matrix: np.ndarray, message: str
) -> None:
    with pytest.raises(DataFormatError, match=message):
        write(tmp_path, ids, matrix)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("end", ["npy", "ids", "json"])
def test_refuses_a_store_without_one_of_its_files(tmp_path: Path, end: str) -> None:
    write(tmp_path)
    (tmp_path / f"movie.text.{end}").unlink()
    with pytest.raises(DataFormatError, match=rf"there is no movie\.text\.{end}\. Make the store"):
        read_store(tmp_path, "movie")


def test_names_all_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"text\.npy and no movie\.text\.ids and no movie"):
        read_store(tmp_path, "movie")


def test_advice_is_that_of_the_kind(tmp_path: Path) -> None:
    for kind in ("text", "image"):
        with pytest.raises(DataFormatError) as error:
            read_store(tmp_path, "movie", kind)
        assert str(error.value).endswith(f". {advice(kind)}")
        assert f"`python -m dataset_tools {kind}`" in str(error.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("b\n", r"movie\.text\.npy: has 2 rows, but there are 1 item ids"),
        ("b\na\nc\n", r"has 2 rows, but there are 3 item ids"),
        ("b\nb\n", r"item ids, line 2: 'b' stands there twice"),
    ],
)
def test_refuses_ids_that_do_not_fit(tmp_path: Path, ids: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "movie.text.ids").write_text(ids)
    with pytest.raises(DataFormatError, match=message):
        read_store(tmp_path, "movie")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"movie\.text\.json: is no JSON"),
        ("[]", r"movie\.text\.json: says nothing of `encoder`, `revision_or_hash`"),
        (json.dumps({**INFO, "dtype": "float32"}), r"says nothing of `dim`"),
        (json.dumps({**INFO, "dim": 4, "dtype": "float32"}), r"float32 with 3 columns, but .* 4\."),
        (json.dumps({**INFO, "dim": 3, "dtype": "float16"}), r"but .* says float16 with 3\."),
    ],
)
def test_refuses_a_description_that_does_not_fit(
    tmp_path: Path, content: str, message: str
) -> None:
    write(tmp_path)
    (tmp_path / "movie.text.json").write_text(content)
    with pytest.raises(DataFormatError, match=message):
        read_store(tmp_path, "movie")


def test_refuses_a_cut_or_pickled_matrix(tmp_path: Path) -> None:
    write(tmp_path)
    npy = tmp_path / "movie.text.npy"
    npy.write_bytes(npy.read_bytes()[:-4])
    with pytest.raises(DataFormatError, match=r"movie\.text\.npy: is damaged or no matrix"):
        read_store(tmp_path, "movie")
    np.save(npy, np.array([["x"], [None]], dtype=object))
    with pytest.raises(DataFormatError, match=r"movie\.text\.npy: is damaged or no matrix"):
        read_store(tmp_path, "movie")


def test_a_half_killed_write_leaves_the_old_store_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, matrix=MATRIX + 1)
    assert read_store(tmp_path, "movie").matrix.tolist() == MATRIX.tolist()
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("replaced", [0, 1, 2])
def test_a_crash_between_the_files_leaves_no_store_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: int
) -> None:
    write(tmp_path)
    replace = Path.replace
    done = []

    def crash(path: Path, target: Path) -> Path:
        if len(done) == replaced:
            raise OSError("the machine stops here")
        done.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="stops here"):
        write(tmp_path, ids=["c", "d"], matrix=MATRIX + 1)
    with pytest.raises(DataFormatError, match=r"there is no movie\.text\.json"):
        read_store(tmp_path, "movie")


def test_hash_depends_on_pairs_and_not_on_their_order() -> None:
    texts = {"a": "one", "b": "two", "c": ""}
    whole = content_hash(texts.keys(), texts.values())
    assert content_hash(["b", "a"], ["two", "one"]) == whole
    for ids, other in (
        (["a", "b"], ["two", "one"]),
        (["a", "b"], ["one", "two "]),
        (["a"], ["one"]),
        (["a", "b"], ["on", "etwo"]),
        (["aone", "b"], ["1", "two"]),
    ):
        assert content_hash(ids, other) != whole


def test_hash_is_what_it_says() -> None:
    import hashlib

    expected = hashlib.sha256("1:a2:é1:b1:x".encode()).hexdigest()
    assert content_hash(["b", "a"], ["x", "é"]) == expected


@pytest.mark.parametrize("block", [1, 2, 1024])
def test_hash_of_rows_depends_on_pairs_and_not_on_their_order(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    ids = ["b", "a", "c"]
    matrix = np.float32([[1, 2], [3, 4], [5, 6]])
    whole = matrix_hash(ids, matrix)
    monkeypatch.setattr(feature_store, "BLOCK", block)
    assert matrix_hash(ids, matrix) == whole
    assert matrix_hash(ids, np.asfortranarray(matrix)) == whole
    assert matrix_hash(["c", "b", "a"], matrix[[2, 0, 1]]) == whole
    for other_ids, other in (
        (["a", "b", "c"], matrix),
        (["b", "a", "d"], matrix),
        (ids[:2], matrix[:2]),
        (ids, matrix + np.float32([[0, 0], [0, 0], [0, 1]])),
        (ids, matrix.astype(np.float16)),
        (ids, matrix.view(np.float16)),
    ):
        assert matrix_hash(other_ids, other) != whole


def test_hash_of_rows_is_what_it_says() -> None:
    import hashlib

    rows = np.float32([[1, 2], [3, 4]])
    data = b"float32 2 1:a" + rows[1].tobytes() + "2:é".encode() + rows[0].tobytes()
    assert matrix_hash(["é", "a"], rows) == hashlib.sha256(data).hexdigest()


def test_features_are_checked_in_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "BLOCK", 1)
    write(tmp_path)
    for row in (0, 1):
        bad = MATRIX.copy()
        bad[row, 2] = np.nan
        with pytest.raises(DataFormatError, match="features are not finite"):
            write(tmp_path, matrix=bad)


def test_files_are_those_of_numpy(tmp_path: Path) -> None:
    for matrix in (MATRIX, MATRIX.astype(np.float16), MATRIX[:0]):
        write(tmp_path, ids=IDS[: len(matrix)], matrix=matrix)
        np.save(tmp_path / "other.npy", matrix)
        stored = (tmp_path / "movie.text.npy").read_bytes()
        assert stored == (tmp_path / "other.npy").read_bytes()


@pytest.mark.parametrize("block", [1, 2, 1024])
def test_rows_may_be_taken_and_cast_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(feature_store, "BLOCK", block)
    matrix = np.float32([[1, 2], [70000, 4], [5, 6.0001]])
    ids = ["c", "a", "c2"]
    rows = FeatureRows(matrix, np.array([2, 0, 2]), "float16")
    taken = matrix[[2, 0, 2]].astype(np.float16)
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (3, (3, 2), 2, np.float16)
    write_store(tmp_path, "movie", "text", ids, rows, INFO)
    np.testing.assert_array_equal(read_store(tmp_path, "movie").matrix, taken)
    assert matrix_hash(ids, rows) == matrix_hash(ids, taken)


def test_rows_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    write(tmp_path)
    for number, fits in ((65504, True), (65505, False), (-65505, False), (-65504, True)):
        matrix = np.float32([[1, 2], [3, number]])
        check_features("movie", FeatureRows(matrix))
        rows = FeatureRows(matrix, dtype="float16")
        if fits:
            check_features("movie", rows)
            continue
        with pytest.raises(ConfigError, match=r"`float16` cannot hold features as large as 65505"):
            check_features("movie", rows)
        with pytest.raises(ConfigError, match=r"Take --dtype=float32"):
            write_store(tmp_path, "movie", "text", IDS, rows, INFO)
        assert read_store(tmp_path, "movie").matrix.tolist() == MATRIX.tolist()


def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    shape = (20_000, 512)  # 41 MB
    matrix = np.memmap(tmp_path / "rows", np.float32, "w+", shape=shape)
    rows = FeatureRows(matrix, np.arange(len(matrix))[::-1], "float16")
    ids = [str(row) for row in range(len(matrix))]
    tracemalloc.start()
    check_features("movie", rows)
    write_store(tmp_path, "movie", "text", ids, rows, INFO)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


def test_texts_of_items() -> None:
    items = pd.DataFrame(
        {
            "item_id": list("abcd"),
            "title": ["Up", " What's  Up?", "", ""],
            "text": ["A\u00a0tale.", "", "Alone", " "],
        }
    )
    assert item_texts(items, ["title", "text"]) == {
        "a": "Up. A tale.",
        "b": "What's Up?",
        "c": "Alone",
    }
    assert item_texts(items, ["text", "plot"]) == {"a": "A tale.", "c": "Alone"}
    assert item_texts(items, ["text", "title"])["a"] == "A tale. Up"
