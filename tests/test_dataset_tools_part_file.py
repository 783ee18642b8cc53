from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_tools.encode import part_file
from dataset_tools.encode.part_file import resumed_rows
from recbole_cdr_mm.errors import ConfigError

ROWS, COLUMNS, BATCH = 10, 3, 4
RECORD = 4 * COLUMNS + 4
KEY: dict[str, Any] = {"encoder": "e", "fields": ["title"]}
MATRIX = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)


class Source:
    """Makes rows, and remembers which; may fail at a row."""

    def __init__(self, fail_at: int = ROWS) -> None:
        self.fail_at = fail_at
        self.made: list[tuple[int, int]] = []

    def __call__(self, part: slice) -> np.ndarray:
        if part.stop > self.fail_at:
            raise KeyboardInterrupt
        self.made.append((part.start, part.stop))
        return MATRIX[part]


def run(path: Path, source: Source, key: dict[str, Any] = KEY) -> None:
    with resumed_rows(path, key, (ROWS, COLUMNS), BATCH, source, "text") as matrix:
        assert isinstance(matrix, np.memmap)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, MATRIX)
        np.testing.assert_array_equal(matrix[[7, 2]], MATRIX[[7, 2]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "movie" / ".movie.text.part"


@pytest.fixture
def stopped(path: Path) -> Path:
    """A part file of two batches."""
    with pytest.raises(KeyboardInterrupt):
        run(path, Source(fail_at=9))
    assert path.stat().st_size == 8 * RECORD
    return path


def test_all_rows_in_batches(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source()
    run(path, source)
    assert source.made == [(0, 4), (4, 8), (8, 10)]
    assert os.listdir(path.parent) == []
    assert capsys.readouterr().err == ""


def test_goes_on_where_it_stopped(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source()
    run(stopped, source)
    assert source.made == [(8, 10)]
    assert os.listdir(stopped.parent) == []
    assert capsys.readouterr().err == "Goes on after 8 of 10 texts of an earlier run.\n"


@pytest.mark.parametrize(
    ("size", "made"),
    [
        (8 * RECORD - 1, [(4, 8), (8, 10)]),  # half a row
        (7 * RECORD, [(4, 8), (8, 10)]),  # three rows of a batch of four
        (8 * RECORD, [(8, 10)]),
        (4 * RECORD + 5, [(4, 8), (8, 10)]),
        (3, [(0, 4), (4, 8), (8, 10)]),
        (0, [(0, 4), (4, 8), (8, 10)]),
    ],
)
def test_half_a_batch_is_made_again(stopped: Path, size: int, made: list) -> None:
    os.truncate(stopped, size)
    source = Source()
    run(stopped, source)
    assert source.made == made


@pytest.mark.parametrize("content", [b"\0", b"\xff"])
def test_rows_that_never_reached_the_disk_are_made_again(stopped: Path, content: bytes) -> None:
    """After a power cut a file may have its length but not its contents."""
    data = stopped.read_bytes()
    stopped.write_bytes(data[: 5 * RECORD] + content * (3 * RECORD))
    source = Source()
    run(stopped, source)
    assert source.made == [(4, 8), (8, 10)]


def test_a_block_that_failed_keeps_all_rows(path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        resumed_rows(path, KEY, (ROWS, COLUMNS), BATCH, Source(), "text"),
    ):
        raise KeyboardInterrupt
    source = Source()
    run(path, source)
    assert source.made == []  # not even the last batch, which is smaller


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "f"}, "earlier run had other settings: encoder."),
        ({"fields": ["title", "text"]}, "earlier run had other settings: fields."),
        ({"pooling": "sum"}, "earlier run had other settings: pooling."),
    ],
)
def test_another_key_starts_anew(
    stopped: Path, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source()
    run(stopped, source, {**KEY, **change})
    assert source.made[0] == (0, 4)
    assert message in capsys.readouterr().err


def test_other_packages_start_anew(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(part_file.metadata, "version", lambda _: "0")
    source = Source()
    run(stopped, source)
    assert source.made[0] == (0, 4)
    assert "earlier run had other settings: versions." in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_key_that_cannot_be_read_starts_anew(stopped: Path, content: str) -> None:
    stopped.with_name(f"{stopped.name}.json").write_text(content)
    source = Source()
    run(stopped, source)
    assert source.made[0] == (0, 4)


def test_a_key_without_rows_starts_anew(stopped: Path) -> None:
    stopped.unlink()
    source = Source()
    run(stopped, source)
    assert source.made[0] == (0, 4)


def test_the_key_lies_beside_the_rows(stopped: Path) -> None:
    key = json.loads(stopped.with_name(f"{stopped.name}.json").read_text())
    assert {name: key[name] for name in KEY} == KEY
    assert key["versions"]["numpy"] == np.__version__


def test_two_at_once_are_refused(path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dataset_tools.encode.part_file import resumed_rows\n"
        "with resumed_rows(Path(sys.argv[1]), {}, (10, 3), 4, None, 'text'):\n"
        "    pass\n"
    )
    with resumed_rows(path, KEY, (ROWS, COLUMNS), BATCH, Source(), "text"):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert f"ConfigError: {path}: another process is at work on it. Wait" in done.stderr
        with (
            pytest.raises(ConfigError, match="another process is at work on it"),
            resumed_rows(path, {}, (ROWS, COLUMNS), BATCH, Source(), "text"),
        ):
            pass
    run(path, Source())


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"part: cannot be written \(.*\)\. .* --feature_path"):
        run(tmp_path / "file" / ".movie.text.part", Source())


def test_a_full_disk(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(part_file, "SYNC_SECONDS", -1.0)
    with pytest.raises(ConfigError, match=r"cannot write here \(No space left on device\)"):
        run(stopped, Source())


def test_memory_does_not_grow_with_the_rows(path: Path) -> None:
    rows, columns = 20_000, 512  # 41 MB

    def encode(part: slice) -> np.ndarray:
        return np.full((part.stop - part.start, columns), part.start, dtype=np.float32)

    tracemalloc.start()
    with (
        pytest.raises(KeyboardInterrupt),
        resumed_rows(path, KEY, (rows, columns), 64, encode, "text"),
    ):
        raise KeyboardInterrupt
    with resumed_rows(path, KEY, (rows, columns), 64, encode, "text") as matrix:
        assert matrix[-1, -1] == (rows - 1) // 64 * 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
