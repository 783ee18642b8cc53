"""Large text files, plain or packed, read once, in blocks of whole lines.

A block is parsed as one by a columnar engine. Where that fails the block is halved until the faulty
line is alone, which costs some fifteen parses of ever smaller parts; where a line parses and its
values cannot be, its row tells which it is. So a fault is named by file, line and byte, while sound
data never passes through Python line by line.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import polars as pl
from isal import igzip_lib, isal_zlib
from tqdm import tqdm

from dataset_tools.convert.problems import Fault, Problems
from recbole_cdr_mm.errors import DataFormatError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 8 << 20  # bytes of a block
UNPACKED = 1 << 22  # bytes unpacked at a time
PIECE = 1 << 18  # bytes read at a time
LONGEST_LINE = 64 << 20  # bytes; a longer one is no line of any data set
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
UTF8, UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
WINDOW = {zstd.DecompressionParameter.window_log_max: 31}  # the largest there is
T = TypeVar("T")
HTML = (b"<!doctype", b"<html")


@contextmanager
def ahead(items: Generator[T, None, None]) -> Iterator[Iterator[T]]:
    """Give the items while the next one is made on another thread."""

    def follow() -> Iterator[T]:
        pending = worker.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = worker.submit(next, items, None)
            yield item

    with contextlib.closing(items), ThreadPoolExecutor(1) as worker:
        yield follow()


class BadRows(Exception):
    """Lines of which some have another form, though Polars takes them."""


class Form(Protocol):
    """How the lines of a file are to be read."""

    @property
    def header(self) -> bool:
        """Whether the first line names the columns."""

    def parse(self, data: bytes) -> pl.DataFrame:
        """Turn whole lines into a frame with a row for each line that is not blank.

        Raises:
            BadRows: If a line has another form; or an error of Polars.
        """

    def good(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows hold what they must, bool (N,)."""

    def explain(self, line: bytes) -> Fault:
        """Say of one line that does not parse, or whose row is not good, what is wrong."""


@dataclass(frozen=True)
class Block:
    """Whole lines; `line` counts from 1 and `byte` from 0 in the unpacked file."""

    data: bytes
    line: int
    byte: int

    def halves(self) -> tuple[Block, Block] | None:
        """Cut it at a line end near the middle; a single line has no halves."""
        cut = self.data.find(b"\n", len(self.data) // 2) + 1
        if cut in (0, len(self.data)):
            cut = self.data.rfind(b"\n", 0, len(self.data) - 1) + 1
        if cut == 0:
            return None
        first = self.data[:cut]
        return (
            Block(first, self.line, self.byte),
            Block(self.data[cut:], self.line + first.count(b"\n"), self.byte + cut),
        )

    @property
    def is_blank(self) -> bool:
        """Whether all lines are blank."""
        return not self.data or self.data.isspace()

    @property
    def count(self) -> int:
        """How many lines there are, blank ones too."""
        return self.data.count(b"\n") + (not self.data.endswith(b"\n"))

    def without_header(self) -> Block:
        """The lines behind the first that is not blank."""
        first = next(self.lines())
        cut = first.byte - self.byte + len(first.data) + 1
        return Block(self.data[cut:], first.line + 1, self.byte + cut)

    def lines(self) -> Iterator[Block]:
        """Each line that is not blank, by itself and without its end."""
        line, byte = self.line, self.byte
        for data in self.data.split(b"\n"):
            if data and not data.isspace():
                yield Block(data, line, byte)
            line, byte = line + 1, byte + len(data) + 1


class RawFile:
    """A text file: plain, gzip or zstd by its content, whatever its name says.

    Args:
        path: The file.
        problems: Where faults go.

    Raises:
        DataFormatError: If the file is missing, cannot be read, is empty, an HTML page or UTF-16.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self._packed = False
        self._damage = ""  # what is wrong with the packed file
        self._fault: Fault | None = None  # what ended the file early,
        self._end = Block(b"", 1, 0)  # and where
        with self._open():
            pass

    def head(self, lines: int = 100) -> list[bytes]:
        """The first lines that are not blank, at least one, to tell what the file is.

        Raises:
            DataFormatError: If a packed file is cut off or damaged before the first line ends.
        """
        found: list[bytes] = []
        with self._open() as content:
            for block in self._cut(content, 1 << 16):
                found += [line.data for line in block.lines()]
                if len(found) >= lines:
                    break
        if self._fault is not None and not found:
            raise DataFormatError(
                f"{self.where(self._end)}: {self._fault.what}. Nothing of it can be read; "
                "download it again."
            )
        return found[:lines]

    def blocks(self) -> Generator[Block, None, None]:
        """All blocks in order, while the next one is read, unpacked and hashed.

        Raises:
            DataFormatError: As `Problems.report` does, where a packed file is cut off or damaged.
        """
        with (
            self._open() as content,
            ahead(self._cut(content, BLOCK)) as blocks,
            tqdm(
                total=self._size,
                desc=self.path.name,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            for block in blocks:
                yield block
                bar.update(self._raw.count - bar.n)
        if self._fault is not None:
            self.report(self._end, self._fault)

    def frames(self, form: Form) -> Generator[pl.DataFrame, None, None]:
        """Rows of all sound lines; faulty ones are reported.

        Yields:
            Frames in file order.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        for frame, good, block in self._parsed(form):
            if good.all():
                yield frame
                continue
            lines = list(block.lines())
            for row in (~good).arg_true():
                self.report(lines[row], form.explain(lines[row].data.rstrip(b"\r")))
            yield frame.filter(good)

    def second(self, form: Form, user: str, item: str) -> str:
        """Name the place of the second rating of a user for an item, which there is."""
        again = RawFile(self.path, Problems("skip", sys.maxsize))  # faults were reported before
        seen = 0
        for frame, good, block in again._parsed(form):
            same = (frame["user_id"] == user) & (frame["item_id"] == item) & good
            rows = same.arg_true().to_list()
            if seen + len(rows) > 1:
                return self.where(list(block.lines())[rows[1 - seen]])
            seen += len(rows)
        return self.path.name

    def report(self, block: Block, fault: Fault) -> None:
        """Report a fault of the first line of a block.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        self.problems.report(self.where(block), fault)

    def where(self, block: Block) -> str:
        """Name the place of the first line of a block."""
        unpacked = " of the unpacked file" if self._packed else ""
        return f"{self.path.name}, line {block.line}, byte {block.byte}{unpacked}"

    def description(self) -> dict[str, Any]:
        """Name, size in bytes and SHA-256 as they were read, for a manifest; after all blocks."""
        return {
            "name": self.path.name,
            "bytes": self._raw.count,
            "sha256": self._raw.digest.hexdigest(),
        }

    def _parsed(self, form: Form) -> Iterator[tuple[pl.DataFrame, pl.Series, Block]]:
        """Rows, which of them are good, and the lines that they stand for."""
        header = form.header
        with contextlib.closing(self.blocks()) as blocks:
            for block in blocks:
                if header and not block.is_blank:
                    block, header = block.without_header(), False
                yield from self._parse(block, form)

    def _parse(self, block: Block, form: Form) -> Iterator[tuple[pl.DataFrame, pl.Series, Block]]:
        """Parse a block, in halves where that fails, down to the line that is at fault."""
        if block.is_blank:
            return
        try:
            frame = form.parse(block.data)
            good = form.good(frame)
            if not (len(frame) == block.count and good.all()):
                if len(frame) != sum(1 for _ in block.lines()):  # a double quote takes lines along
                    raise BadRows
            yield frame, good, block
            return
        except (BadRows, pl.exceptions.PolarsError):
            halves = block.halves()
        if halves is None:
            self.report(block, form.explain(block.data.rstrip(b"\r\n")))
            return
        for half in halves:
            yield from self._parse(half, form)

    @contextmanager
    def _open(self) -> Iterator[Iterator[bytes]]:
        """The unpacked content, in small pieces."""
        try:
            with self.path.open("rb") as raw:
                self._size = os.fstat(raw.fileno()).st_size
                self._raw = _HashedFile(raw)
                file = io.BufferedReader(self._raw, PIECE)
                magic = file.peek(4)[:4]
                if not magic:
                    raise DataFormatError(f"{self.path.name}: is empty. Download it again.")
                self._packed = magic.startswith(GZIP) or magic == ZSTD
                if magic.startswith(GZIP):
                    yield _unpack_gzip(file)
                elif magic == ZSTD:
                    yield _read(zstd.open(file, options=WINDOW))  # type: ignore[arg-type]
                else:
                    yield _read(file)
        except OSError as error:
            raise DataFormatError(
                f"{self.path}: cannot be read ({error.strerror or error}). Correct the path."
            ) from error

    def _cut(self, content: Iterator[bytes], size: int) -> Generator[Block, None, None]:
        """Cut the content into blocks of about `size` bytes."""
        self._fault, self._damage = None, ""
        line, byte, rest = 1, 0, b""
        for number, piece in enumerate(self._pieces(content, size)):
            if number == 0:
                byte = self._check_begin(piece)
                piece = piece[byte:]
            end = piece.rfind(b"\n") + 1
            if end:
                block = Block(b"".join((rest, memoryview(piece)[:end])), line, byte)
                yield block
                line += block.data.count(b"\n")
                byte += len(block.data)
                rest = piece[end:]
            else:
                rest += piece
            if len(rest) > LONGEST_LINE:
                raise DataFormatError(
                    f"{self.path.name}, line {line}, byte {byte}: has no end for "
                    f"{LONGEST_LINE >> 20} MB. Is it a text file?"
                )
        self._end = Block(rest, line, byte)
        if self._damage:  # no faulty line: what was read before may be wrong
            raise DataFormatError(
                f"{self.where(self._end)}: the packed file is damaged here or later or, if its "
                f"checksum alone is wrong, before ({self._damage}). Download it again."
            )
        if rest and self._fault is None:
            yield self._end

    def _pieces(self, content: Iterator[bytes], size: int) -> Iterator[bytes]:
        """The content in pieces of `size` bytes or a little more; at least one, which may be empty.

        What was unpacked before a fault is given first.
        """
        parts: list[bytes] = []
        total = 0
        try:
            for part in content:
                parts.append(part)
                total += len(part)
                if total >= size:
                    yield b"".join(parts)
                    parts, total = [], 0
        except EOFError:
            self._fault = Fault(
                "cut off",
                "the packed file is cut off in this line, and all that follows is missing",
                "Get it again",
            )
        except (igzip_lib.IsalError, zstd.ZstdError) as error:  # type: ignore[misc]
            self._damage = str(error)
        yield b"".join(parts)

    def _check_begin(self, data: bytes) -> int:
        """Refuse what is no data; give the length of the byte order mark."""
        if data.startswith(UTF16):
            raise DataFormatError(f"{self.path.name}: is UTF-16. Convert it to UTF-8.")
        mark = len(UTF8) if data.startswith(UTF8) else 0
        if data[mark : mark + 1000].lstrip().lower().startswith(HTML):
            raise DataFormatError(
                f"{self.path.name}, line 1, byte {mark}: is an HTML page, perhaps a server's error "
                "message, and no data. Download it again."
            )
        if not (self._fault or self._damage or data[mark:].strip()):
            raise DataFormatError(f"{self.path.name}: is empty. Download it again.")
        return mark


def _read(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file."""
    while part := file.read1(max(BLOCK, PIECE)):  # type: ignore[attr-defined]
        yield part


def _unpack_gzip(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a gzip file of one or more members, up to the very byte where it is cut off.

    Raises:
        EOFError: If it is cut off, after all that can be unpacked.
        IsalError: If it is damaged.
    """
    unpacker = isal_zlib.decompressobj(31)
    while packed := file.read(PIECE):
        while packed:
            if unpacker.eof:
                packed = packed.lstrip(b"\0")  # padding between and behind members is allowed
                if not packed:
                    break
                unpacker = isal_zlib.decompressobj(31)
            yield unpacker.decompress(packed, UNPACKED)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if not unpacker.eof:
        raise EOFError


class _HashedFile(io.RawIOBase):
    """A file that counts and hashes what is read of it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        self.count += count
        return count
