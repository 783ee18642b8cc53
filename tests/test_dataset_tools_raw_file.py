"""Raw files as files: packings, cuts, damage, encodings, blocks; and the disk they go to."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_amazon import (
    faulty_line,
    json_line,
    pack,
    product,
    ratings_csv,
    ratings_frame,
    refusal,
    review,
    reviews,
    small_blocks,
    write,
)

from dataset_tools.atomic import read_inter
from dataset_tools.cli import main
from dataset_tools.convert import raw_file
from dataset_tools.convert.amazon import convert
from recbole_cdr_mm.errors import ConfigError

LIMITED = """\
import resource, sys
from dataset_tools import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
cli.main(sys.argv[2:])
"""


@pytest.fixture
def content(rng: np.random.Generator) -> bytes:
    """JSON lines of about 400 reviews, two to three hundred bytes each."""
    return reviews(ratings_frame(rng, 90, 60, 400).drop_duplicates(["user_id", "item_id"]), "2014")


def rows(path: Path, folder: Path, **options: Any) -> list[list[Any]]:
    convert(path, "cd", folder, **options)
    return read_inter(folder / "cd" / "cd.inter", rating_range=(1, 5)).to_numpy().tolist()


def whole_lines(content: bytes) -> bytes:
    return content[: content.rindex(b"\n") + 1]


@pytest.mark.parametrize("block", [1, 4096, 1 << 20])
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_blocks_of_any_size_give_the_same(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, packing: str, block: int
) -> None:
    expected = rows(write(tmp_path / "r.json", content), tmp_path)
    small_blocks(monkeypatch, block)
    assert len(expected) == content.count(b"\n")
    for changed in (content, content[:-1], b"\n \n" + content.replace(b"\n", b"\n\r\n\n")):
        assert rows(write(tmp_path / "r.json", changed, packing), tmp_path) == expected


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_marks_and_line_ends_of_windows_change_nothing(
    tmp_path: Path, rng: np.random.Generator, packing: str
) -> None:
    ratings = ratings_frame(rng, 30, 20, 60)
    for release in ("2014", "2018", "2023"):
        for plain in (reviews(ratings, release), ratings_csv(ratings, release)):
            expected = rows(write(tmp_path / "r", plain), tmp_path)
            for changed in (b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"), plain[:-1]):
                assert rows(write(tmp_path / "r", changed, packing), tmp_path) == expected


def test_bytes_are_counted_with_the_mark(tmp_path: Path) -> None:
    bad = json_line(review(rating=9))
    for before in (b"", b"\n", json_line(review())):
        marked = b"\xef\xbb\xbf" + before + bad
        message = refusal(write(tmp_path / "r.json", marked), tmp_path)
        assert faulty_line(message, "r.json", marked) == bad.rstrip()
        message = refusal(write(tmp_path / "r.json", marked.replace(b"\n", b"\r\n")), tmp_path)
        assert faulty_line(message, "r.json", marked.replace(b"\n", b"\r\n")) == bad.rstrip()


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_several_packed_files_in_one_are_read_on(
    tmp_path: Path, content: bytes, packing: str
) -> None:
    expected = rows(write(tmp_path / "r.json", content), tmp_path)
    joined = pack(content[:999], packing) + pack(content[999:], packing)
    assert rows(write(tmp_path / "r.json", joined), tmp_path) == expected
    if packing == "gzip":
        padded = pack(content[:999], packing) + b"\0" * 9 + pack(content[999:], packing)
        assert rows(write(tmp_path / "r.json", padded + b"\0" * 512), tmp_path) == expected


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_gzip_file_that_is_cut_off_is_named_by_its_last_line(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    small_blocks(monkeypatch)
    packed = pack(content, "gzip")
    path = write(tmp_path / "r.json.gz", packed)
    assert convert(path, "ab", tmp_path).ratings == content.count(b"\n")

    cut = packed[: int(kept * len(packed))]
    unpacked = zlib.decompressobj(31).decompress(cut)
    message = refusal(write(path, cut), tmp_path)
    assert ": the packed file is cut off in this line, and all that follows is missing. " in message
    line = faulty_line(message, "r.json.gz", unpacked, packed=True)
    assert unpacked.endswith(b"\n" + line)

    expected = rows(write(tmp_path / "plain", whole_lines(unpacked)), tmp_path)
    assert rows(path, tmp_path, on_error="skip", max_errors=1) == expected
    assert convert(path, "cd", tmp_path, on_error="skip").faults == {"cut off": 1}
    message = refusal(path, tmp_path, on_error="skip", max_errors=0)
    assert "That is one fault more than --max_errors=0: 1 x cut off." in message


@pytest.mark.parametrize("kept", [-1, -4, -8, -9])
def test_a_gzip_file_without_its_end_mark_is_named(
    tmp_path: Path, content: bytes, kept: int
) -> None:
    packed = pack(content, "gzip")
    message = refusal(write(tmp_path / "r.json.gz", packed[:kept]), tmp_path)
    assert "cut off in this line" in message
    line = content.count(b"\n") + 1
    assert f"line {line}, byte {len(content)} of the unpacked file" in message
    assert convert(tmp_path / "r.json.gz", "cd", tmp_path, on_error="skip").read == line - 1


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_packed_file_that_is_cut_off_in_its_first_line_is_no_crash(
    tmp_path: Path, packing: str, on_error: str
) -> None:
    packed = pack(json_line(review()), packing)
    assert convert(write(tmp_path / "r", packed), "ab", tmp_path).read == 1
    for kept in (4, 9, 12, 20, len(packed) // 2):
        message = refusal(write(tmp_path / "r", packed[:kept]), tmp_path, on_error=on_error)
        assert message == (
            "r, line 1, byte 0 of the unpacked file: the packed file is cut off in this line, "
            "and all that follows is missing. "
            "Nothing of it can be read; download it again."
        )


def test_a_zstd_file_that_is_cut_off_is_named_by_its_last_line(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    content = reviews(ratings_frame(rng, 9999, 9999, 2500), "2023")
    packed = pack(content, "zstd")
    path = write(tmp_path / "r.jsonl.zst", packed)
    assert convert(path, "ab", tmp_path).read == 2500
    write(path, packed[: len(packed) * 4 // 5])
    message = refusal(path, tmp_path)
    assert ": the packed file is cut off in this line, and all that follows is missing. " in message
    line = faulty_line(message, path.name, content, packed=True)
    number = content.splitlines().index(line)
    assert 1000 < number < 2500
    assert convert(path, "cd", tmp_path, on_error="skip").read == number


def damaged_checksum(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 0xFF]) + packed[-7:]


def damaged_length(packed: bytes) -> bytes:
    return packed[:-1] + bytes([packed[-1] ^ 0xFF])


def damaged_header(packed: bytes) -> bytes:
    return packed[:2] + b"\xff" + packed[3:]


def damaged_body(packed: bytes) -> bytes:
    return packed[:10] + b"\xff" * 9 + packed[19:]


@pytest.mark.parametrize("damage", [damaged_checksum, damaged_length, damaged_header, damaged_body])
def test_a_gzip_file_that_is_damaged_is_named(
    tmp_path: Path, content: bytes, damage: Callable[[bytes], bytes]
) -> None:
    packed = pack(content, "gzip")
    assert convert(write(tmp_path / "r", packed), "ab", tmp_path).read == content.count(b"\n")
    message = refusal(write(tmp_path / "r", damage(packed)), tmp_path)
    assert message.startswith("r, line 1, byte 0 of the unpacked file: the packed file is damaged")

    sound = pack(json_line(review()), "gzip")
    message = refusal(write(tmp_path / "r", sound + damage(packed)), tmp_path)
    begin = f"r, line 2, byte {len(json_line(review()))} of the unpacked file: the packed file is"
    assert message.startswith(f"{begin} damaged here or later or, if its checksum")
    assert refusal(tmp_path / "r", tmp_path, on_error="skip") == message


def test_a_zstd_file_with_something_behind_it_is_named(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "r", pack(content, "zstd") + b"no zstd")
    message = refusal(path, tmp_path)
    assert f"byte {len(content)} of the unpacked file: the packed file is damaged" in message


def test_real_files_that_are_cut_off_are_named_by_their_last_line(
    shared_data: Path, tmp_path: Path
) -> None:
    raw = shared_data / "raw_amazon_2014"
    path = raw / "reviews_Digital_Music_5.json.gz"
    unpacked = zlib.decompressobj(31).decompress(path.read_bytes())
    message = refusal(path, tmp_path)
    assert message.startswith(
        "reviews_Digital_Music_5.json.gz, line 6909, byte 9639465 of the unpacked file: the packed"
    )
    assert unpacked.endswith(b"\n" + faulty_line(message, path.name, unpacked, packed=True))
    kept = rows(path, tmp_path, on_error="skip")
    assert kept == rows(write(tmp_path / "whole.json", whole_lines(unpacked)), tmp_path)
    assert len(kept) == 6908

    meta = raw / "meta_Digital_Music.json.gz"
    unpacked = zlib.decompressobj(31).decompress(meta.read_bytes())
    whole = tmp_path / "whole.json"
    message = refusal(whole, tmp_path / "none", meta=meta)
    assert message.startswith(
        "meta_Digital_Music.json.gz, line 7420, byte 11220740 of the unpacked file: the packed file"
    )
    assert unpacked.endswith(b"\n" + faulty_line(message, meta.name, unpacked, packed=True))
    counts = [
        convert(whole, "cd", tmp_path, meta=file, on_error="skip").with_text
        for file in (meta, write(tmp_path / "m.json", whole_lines(unpacked)))
    ]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html>\n<html><body>503</body></html>",
        b"<html>\n<head><title>404 Not Found</title></head></html>\n",
        b"\xef\xbb\xbf\n  <HTML></HTML>",
    ],
)
def test_a_page_of_a_server_is_named(tmp_path: Path, page: bytes) -> None:
    reviews_path = write(tmp_path / "good.json", json_line(review()))
    for packing in ("plain", "gzip", "zstd"):
        path = write(tmp_path / "r.json.gz", page, packing)
        said = f"r.json.gz, line 1, byte {3 * (page[:1] != b'<')}: is an HTML page, perhaps a "
        said += "server's error message, and no data. Download it again."
        for on_error in ("stop", "skip"):
            assert refusal(path, tmp_path, on_error=on_error) == said
            assert refusal(reviews_path, tmp_path, meta=path, on_error=on_error) == said


def test_an_html_page_in_the_middle_is_a_faulty_line(tmp_path: Path, content: bytes) -> None:
    page = b"<html><body>503</body></html>\n"
    changed = content + page + content
    message = refusal(write(tmp_path / "r.json", changed), tmp_path)
    assert ": is no JSON (Expecting value" in message
    assert faulty_line(message, "r.json", changed) == page.rstrip()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_utf_16_is_named(tmp_path: Path, encoding: str, packing: str) -> None:
    mark = b"\xfe\xff" if encoding.endswith("be") else b""
    changed = mark + json_line(review()).decode().encode(encoding)
    path = write(tmp_path / "r.json", changed, packing)
    assert refusal(path, tmp_path) == "r.json: is UTF-16. Convert it to UTF-8."


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_content_is_named(tmp_path: Path, data: bytes, packing: str) -> None:
    path = write(tmp_path / "empty", data, packing)
    good = write(tmp_path / "good.json", json_line(review()))
    for on_error in ("stop", "skip"):
        assert refusal(path, tmp_path, on_error=on_error) == "empty: is empty. Download it again."
        message = refusal(good, tmp_path, meta=path, on_error=on_error)
        assert message == "empty: is empty. Download it again."


def test_a_file_without_a_sound_line_has_no_ratings(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", b"user_id,parent_asin,rating,timestamp\n")
    assert refusal(path, tmp_path) == "r.csv: has no ratings. Download it again."
    path = write(tmp_path / "r.json", json_line(review(rating=9)))
    message = refusal(path, tmp_path, on_error="skip")
    assert message == "r.json: has no ratings. Download it again."


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", json_line(review()))
    (tmp_path / "folder.gz").mkdir()
    for name, why in (("folder.gz", "Is a directory"), ("none.gz", "No such file or directory")):
        said = f"{tmp_path / name}: cannot be read ({why}). Correct the path."
        assert refusal(tmp_path / name, tmp_path) == said
        assert refusal(good, tmp_path, meta=tmp_path / name) == said


def test_a_line_without_an_end_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 1000)
    good, long = json_line(review()), json_line(review(summary="x" * 3_000_000))
    path = write(tmp_path / "r.json", good + long)
    assert convert(path, "ab", tmp_path).read == 2
    monkeypatch.setattr(raw_file, "LONGEST_LINE", 2 << 20)
    message = refusal(path, tmp_path)
    assert message == f"r.json, line 2, byte {len(good)}: has no end for 2 MB. Is it a text file?"


def test_a_fault_deep_in_a_packed_file_is_named(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    lines = reviews(ratings_frame(rng, 99, 99, 1000), "2023").splitlines(keepends=True)
    for number in (0, 1, 17, 500, 998, 999):
        changed = b"".join([*lines[:number], b'{"half\n', *lines[number + 1 :]])
        for packing in ("gzip", "zstd"):
            message = refusal(write(tmp_path / "r", changed, packing), tmp_path)
            assert f", line {number + 1}, " in message
            assert faulty_line(message, "r", changed, packed=True) == b'{"half'


def test_a_domain_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "r.json", json_line(review()))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path):
        (tmp_path / "cd").unlink(missing_ok=True)
        if folder == tmp_path:
            (tmp_path / "cd").touch()  # where the domain should be
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(
            ConfigError,
            match=r"(cannot be written|cannot write `cd` here) \(.*\)\. .* --data_path|Choose",
        ) as error:
            convert(path, "cd", folder)
        assert len(str(error.value).splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before
        with pytest.raises(SystemExit) as stop:
            main(["amazon", f"--reviews={path}", "--dataset=cd", f"--data_path={folder}"])
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("full", ["cd.inter", "cd.item"])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, rng: np.random.Generator, full: str
) -> None:
    write(tmp_path / "r.json", json_line(review()))
    meta = write(
        tmp_path / "m.json", repr(product("B000000001", "T", "x", "2014")).encode() + b"\n"
    )
    convert(tmp_path / "r.json", "cd", tmp_path, meta=meta)
    before = {path: path.read_bytes() for path in (tmp_path / "cd").iterdir()}
    assert len(before) == 3

    if full == "cd.inter":
        write(tmp_path / "r.json", reviews(ratings_frame(rng, 99, 99, 3000), "2014"))
    else:
        write(meta, repr(product("B000000001", "T", "x" * 90_000, "2014")).encode() + b"\n")
    arguments = ["--reviews=r.json", "--meta=m.json", "--dataset=cd"]
    for data_path in (".", "new"):
        command = [sys.executable, "-B", "-c", LIMITED, "60000", "amazon", *arguments]
        done = subprocess.run(
            [*command, f"--data_path={data_path}"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr == (
            f"ConfigError: {Path(data_path, 'cd')}: cannot write {full} (File too large). "
            "Make room, or choose another folder. Nothing was written.\n"
        )
        assert not (tmp_path / "new").exists()
        assert {path: path.read_bytes() for path in (tmp_path / "cd").iterdir()} == before
