from __future__ import annotations

import gzip
import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.cli import main
from dataset_tools.feature_store import matrix_hash, read_store
from dataset_tools.manifest import describe_file

DIM = 4096
RECORD_SIZE = 10 + 4 * DIM
RATED = ["B000000001", "B000000002", "B000000003"]
DESCRIBED = "B000000004"  # has a title but no rating
OTHER = "B999999999"


def features(number: int) -> np.ndarray:
    """Features of one image, float32 (d,), in which every number says where it stands."""
    return (np.arange(DIM) / 8 + number).astype(np.float32)


def record(asin: str | bytes, row: np.ndarray) -> bytes:
    name = asin.encode("latin-1") if isinstance(asin, str) else asin
    return name + row.astype("<f4").tobytes()


GOOD = record(OTHER, features(9)) + record(RATED[1], features(2)) + record(RATED[0], features(1))


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A domain `cd` of four items, and a pair `movie_and_cd` that it belongs to."""
    folder = tmp_path / "data"
    for name in ("cd", "movie"):
        inter = pd.DataFrame({"user_id": ["u", "v", "u"], "item_id": RATED, "rating": [4.0] * 3})
        write_inter(folder / name / f"{name}.inter", inter)
    items = pd.DataFrame([(DESCRIBED, "Heroes", "")], columns=["item_id", "title", "text"])
    write_items(folder / "cd" / "cd.item", items)
    (folder / "movie_and_cd").mkdir()
    (folder / "movie_and_cd" / "movie_and_cd.yaml").write_text(
        "source_dataset: movie\ntarget_dataset: cd\n"
    )
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image_features_CD.b"
    path.write_bytes(GOOD)
    return path


def run(
    file: Path, data_path: Path, *options: str, dataset: str = "cd"
) -> tuple[list[str], np.ndarray, dict]:
    """Run the command and open its store."""
    files = [f"--features={file}", f"--data_path={data_path}"]
    main(["image", *files, f"--dataset={dataset}", *options])
    store = read_store(data_path / dataset, dataset, "image")
    return store.ids, store.matrix, store.info


def refused(
    capsys: pytest.CaptureFixture[str],
    file: Path,
    data_path: Path,
    *options: str,
    dataset: str = "cd",
) -> str:
    """Run the command, which must end with one error and leave all files as they were."""
    before = snapshot(data_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(file, data_path, *options, dataset=dataset)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert snapshot(data_path) == before
    return captured.err


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [False, True])
def test_keeps_the_items_of_the_domain(
    file: Path, data_path: Path, packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    content = GOOD + record(DESCRIBED, features(4))
    file.write_bytes(gzip.compress(content) if packed else content)  # the name does not tell
    ids, matrix, info = run(file, data_path)
    assert ids == [RATED[1], RATED[0], DESCRIBED]
    np.testing.assert_array_equal(matrix, [features(2), features(1), features(4)])
    assert isinstance(matrix, np.memmap)
    assert info == {
        "encoder": "amazon-2014",
        "revision_or_hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "pooling": "none",
        "fields": [],
        "counts": {"items": 4, "with_image": 3, "records": 4},
        "content_hash": matrix_hash(ids, matrix),
        "dim": DIM,
        "dtype": "float32",
    }
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "domain"
    assert row.split() == ["cd", "4", "3", "4", "4,096", str(data_path / "cd")]
    assert sorted(os.listdir(data_path / "cd")) == [
        "cd.image.ids",
        "cd.image.json",
        "cd.image.manifest.json",
        "cd.image.npy",
        "cd.inter",
        "cd.item",
    ]
    manifest = json.loads((data_path / "cd" / "cd.image.manifest.json").read_text())
    assert manifest["command"] == "image"
    assert manifest["options"] == {"dataset": "cd", "dtype": "float32"}
    assert manifest["inputs"] == [describe_file(file)]
    assert manifest["counts"] == info["counts"]
    outputs = [data_path / "cd" / f"cd.image.{end}" for end in ("npy", "ids", "json")]
    assert manifest["outputs"] == [describe_file(path) for path in outputs]


def test_half_precision(file: Path, data_path: Path) -> None:
    _, matrix, info = run(file, data_path, "--dtype=float16")
    assert info["dtype"] == matrix.dtype.name == "float16"
    np.testing.assert_array_equal(matrix, [features(2).astype("f2"), features(1).astype("f2")])


def test_a_store_elsewhere(file: Path, data_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    before = snapshot(data_path)
    options = [f"--features={file}", "--dataset=movie", f"--data_path={data_path}"]
    main(["image", *options, f"--feature_path={out}"])
    assert read_store(out / "movie", "movie", "image").ids == [RATED[1], RATED[0]]
    assert snapshot(data_path) == before


def test_a_second_run_takes_the_place_of_the_first(file: Path, data_path: Path) -> None:
    run(file, data_path)
    file.write_bytes(record(RATED[2], features(3)))
    ids, matrix, _ = run(file, data_path)
    assert ids == [RATED[2]]
    np.testing.assert_array_equal(matrix, [features(3)])


@pytest.mark.parametrize("packed", [False, True])
def test_more_records_than_a_block(file: Path, data_path: Path, packed: bool) -> None:
    """The last record of one block, the first of the next one, and the last of all."""
    places = {255: RATED[0], 256: RATED[1], 600: RATED[2]}
    content = b"".join(record(places.get(i, f"A{i:09}"), features(i)) for i in range(601))
    file.write_bytes(gzip.compress(content, 1) if packed else content)
    ids, matrix, info = run(file, data_path)
    assert ids == RATED
    np.testing.assert_array_equal(matrix, [features(255), features(256), features(600)])
    assert info["counts"]["records"] == 601


def test_memory_does_not_grow_with_the_file(data_path: Path, file: Path) -> None:
    records = 4096
    tokens = [f"C{i:09}" for i in range(records)]
    inter = pd.DataFrame({"user_id": "u", "item_id": tokens, "rating": 4.0})
    write_inter(data_path / "cd" / "cd.inter", inter)
    with file.open("wb") as out:
        for token in tokens:
            out.write(record(token, features(1)))
    tracemalloc.start()
    ids = run(file, data_path)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids == tokens
    assert peak < 40e6 < file.stat().st_size  # 67 MB in the file and as much in the store


def test_an_item_twice_with_the_same_features_counts_once(file: Path, data_path: Path) -> None:
    file.write_bytes(GOOD + record(RATED[1], features(2)) + record(RATED[2], features(3)))
    ids, matrix, info = run(file, data_path)
    assert ids == [RATED[1], RATED[0], RATED[2]]
    np.testing.assert_array_equal(matrix, [features(2), features(1), features(3)])
    assert info["counts"] == {"items": 4, "with_image": 3, "records": 5}


def test_an_item_twice_with_other_features(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(GOOD + record(RATED[1], features(3)))
    assert (
        f"DataFormatError: image_features_CD.b, record 4, byte {3 * RECORD_SIZE:,}: "
        "'B000000002' stands in an earlier record with other features."
    ) in refused(capsys, file, data_path)
    file.write_bytes(GOOD + record(OTHER, features(3)))  # not of the domain
    assert len(run(file, data_path)[0]) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite(
    file: Path, data_path: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = features(3)
    bad[-1] = value
    file.write_bytes(GOOD + record(RATED[2], bad))
    for dtype in ("float16", "float32"):
        assert (
            f"DataFormatError: image_features_CD.b, record 4, byte {3 * RECORD_SIZE:,}: "
            "the features of 'B000000003' are not finite. Download the file again."
        ) in refused(capsys, file, data_path, f"--dtype={dtype}")
    file.write_bytes(GOOD + record(OTHER, bad))  # not of the domain
    run(file, data_path)


@pytest.mark.parametrize("sign", [1, -1])
def test_features_that_half_precision_cannot_hold(
    file: Path, data_path: Path, sign: int, capsys: pytest.CaptureFixture[str]
) -> None:
    large = features(3)
    large[7] = sign * 70000
    file.write_bytes(GOOD + record(RATED[2], large))
    assert (
        "ConfigError: dtype `float16` cannot hold features as large as 70000, those of "
        "'B000000003'. Take --dtype=float32."
    ) in refused(capsys, file, data_path, "--dtype=float16")
    assert run(file, data_path)[1][2, 7] == sign * 70000
    large[7] = sign * 65504
    file.write_bytes(GOOD + record(RATED[2], large))
    assert run(file, data_path, "--dtype=float16")[1][2, 7] == sign * 65504


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (3 * RECORD_SIZE - 1, "record 3, byte 32,788: the file ends after 16,393 of the record's"),
        (
            2 * RECORD_SIZE + 5,
            "record 3, byte 32,788: the file ends after 5 of the record's 16,394",
        ),
        (11, "record 1, byte 0: the file ends after 11 of the record's 16,394 bytes. Is it"),
        (0, "image_features_CD.b: is empty. Download it again."),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut(
    file: Path,
    data_path: Path,
    keep: int,
    message: str,
    packed: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(file, data_path)
    content = GOOD[:keep]
    file.write_bytes(gzip.compress(content) if packed else content)
    assert message in refused(capsys, file, data_path)


def test_a_packed_file_that_is_cut_or_damaged(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, DIM)).astype(np.float32)
    content = b"".join(record(f"A{i:09}", row) for i, row in enumerate(rows))
    packed = gzip.compress(content + GOOD, 1)
    file.write_bytes(packed)
    run(file, data_path)

    file.write_bytes(packed[:-100])
    assert (
        f"DataFormatError: image_features_CD.b, record 257, byte {256 * RECORD_SIZE:,}: "
        "the packed file ends here or soon after. Download it again."
    ) in refused(capsys, file, data_path)
    file.write_bytes(packed[:-8] + b"\0" * 8)
    assert "record 257, byte 4,196,864: here or soon after is no sound gzip file (CRC" in refused(
        capsys, file, data_path
    )
    file.write_bytes(packed[:10] + b"\xff" * 100 + packed[110:])
    assert "record 1, byte 0: here or soon after is no sound gzip file (Error -3" in refused(
        capsys, file, data_path
    )


@pytest.mark.parametrize(
    "asin", [b"B00000000\xe9", b"B00000000 ", b"B00000000\0", b"B00000000\n", b"B00000000\x7f"]
)
def test_an_asin_that_is_none(
    file: Path, data_path: Path, asin: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(GOOD + record(asin, features(3)))
    assert (
        f"DataFormatError: image_features_CD.b, record 4, byte {3 * RECORD_SIZE:,}: {asin!r} is "
        "no asin of ten characters. Is it image_features_X.b of the 2014 release?"
    ) in refused(capsys, file, data_path)
    file.write_bytes(GOOD + record(b"B00000000~", features(3)))
    run(file, data_path)


def test_another_kind_of_file(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('{"reviewerID": "A1", "asin": "B001"}\n' * 1000)
    assert "Is it image_features_X.b of the 2014 release?" in refused(capsys, file, data_path)
    file.write_bytes(GOOD[1:])
    assert "record 1, byte 0: b'999999999\\x00' is no asin" in refused(capsys, file, data_path)


def test_a_file_of_another_category(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(record(OTHER, features(9)) + record("B888888888", features(8)))
    assert (
        "DataFormatError: image_features_CD.b: has no item of `cd`: there it is for example "
        "'B999999999', here 'B000000001'. Take the file of this domain's category."
    ) in refused(capsys, file, data_path)
    file.write_bytes(record(OTHER, features(9)) + record(RATED[0], features(8)))
    assert run(file, data_path)[0] == [RATED[0]]


def test_files_that_are_not_there(
    file: Path, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    missing = file.with_name("image_features_DC.b")
    error = refused(capsys, missing, data_path, f"--feature_path={out}")
    assert f"DataFormatError: {missing}: there is no such file. Correct --features." in error
    assert "there is no such file" in refused(capsys, tmp_path, data_path)
    error = refused(capsys, file, data_path, f"--feature_path={out}", dataset="cds")
    assert (
        f"DataFormatError: {data_path}: there is no cds/cds.inter and no pair `cds`. "
        "Did you mean `cd`?" in error
    )
    assert not out.exists()


def test_a_pair_is_told_its_domains(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, file, data_path, dataset="movie_and_cd")
    assert "ConfigError: dataset `movie_and_cd` is a pair, but a file has the images of" in error
    for domain in ("movie", "cd"):
        assert (
            "`python -m dataset_tools image --features=image_features_X.b "
            f"--dataset={domain} --data_path={data_path}`"
        ) in error


def test_a_type_that_is_none(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, file, data_path, "--dtype=float8")
    assert "ConfigError: dtype `float8` is not one of float16, float32." in error


def test_a_folder_that_cannot_be(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, file, data_path, f"--feature_path={file}")
    assert f"ConfigError: {file / 'cd'}: cannot write here (Not a directory). Choose" in error


def test_an_error_leaves_the_old_store_whole(
    file: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(file, data_path)
    file.write_bytes(record(RATED[0], features(5)) + b"B")
    refused(capsys, file, data_path)
    store = read_store(data_path / "cd", "cd", "image")
    assert store.ids == before[0]
    assert matrix_hash(store.ids, store.matrix) == before[2]["content_hash"]


def test_the_hash_finds_an_edited_matrix(file: Path, data_path: Path) -> None:
    _, matrix, info = run(file, data_path)
    edited = np.array(matrix)
    edited[1, -1] = np.nextafter(edited[1, -1], np.float32(0))
    np.save(data_path / "cd" / "cd.image.npy", edited)
    store = read_store(data_path / "cd", "cd", "image")
    assert matrix_hash(store.ids, store.matrix) != info["content_hash"]
    assert json.loads((data_path / "cd" / "cd.image.json").read_text()) == info
