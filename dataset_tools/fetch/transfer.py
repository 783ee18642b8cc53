"""One file from a server: what has arrived lies in a part file, to which the rest is added."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import requests
import tenacity
from tqdm import tqdm
from urllib3.exceptions import HTTPError, NameResolutionError, ReadTimeoutError

from dataset_tools.fetch.url_table import RemoteFile
from dataset_tools.manifest import read_object
from recbole_cdr_mm.errors import ConfigError, DataFormatError

LONGEST_RETRY_AFTER = 300.0  # seconds
BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=60, jitter=1)
CHUNK = 1 << 16  # bytes read at a time, and lost at most where a connection breaks
UNPACKED = 1 << 22  # bytes unpacked at a time
GZIP_MAGIC = b"\x1f\x8b"
HTML = (b"<!doctype html", b"<html")
RETRIED = (408, 429)  # and all from 500 on
OTHER_URL = "give a table of other URLs with --urls"


class Part:
    """What has arrived of a file.

    Args:
        file: The file to be.
        raw: The folder it will lie in.

    Attributes:
        size: Bytes that have arrived.
        kept: Those of them that an earlier call left.
        total: Bytes of the whole file, as the server said.
    """

    def __init__(self, file: RemoteFile, raw: Path) -> None:
        self.file = file
        self.path = raw / f"{file.name}.part"
        self.size = self.kept = 0
        self._state_path = raw / f"{file.name}.part.json"
        self._state: dict[str, Any] = {}
        self._contents = self._nothing()
        with writing(self.path):
            self._file = self.path.open("ab", buffering=0)
        state = read_object(self._state_path)
        if state.get("url") == file.url:
            self._take_up(state)

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, as the server said."""
        return self._state.get("bytes")

    @property
    def state(self) -> Mapping[str, Any]:
        """URL, validators and size of what this is a part of."""
        return self._state

    @property
    def sha256(self) -> str:
        """Hash of what has arrived."""
        return self._contents.digest.hexdigest()

    def range_headers(self) -> dict[str, str] | None:
        """What asks for the rest, if the file is still the same one; none where that is unknown."""
        validator = _validator(self._state)
        if self.size == 0 or validator is None:
            return None
        return {"Range": f"bytes={self.size}-", "If-Range": validator}

    def reset(self) -> None:
        """Throw away what has arrived."""
        with writing(self.path):
            self._file.truncate(0)
        self.size = self.kept = 0
        self._contents = self._nothing()

    def begin(self, response: requests.Response) -> None:
        """Start anew with the response, the whole file."""
        self.reset()  # before the new state is written: an old part must not seem to belong to it
        self._state = {
            "url": self.file.url,
            "etag": response.headers.get("ETag"),
            "last_modified": response.headers.get("Last-Modified"),
            "bytes": _length(response),
        }
        with writing(self._state_path):
            self._state_path.write_text(json.dumps(self._state), encoding="utf-8")

    def goes_on(self, response: requests.Response) -> bool:
        """Whether a partial response begins where the part ends, and is of the same file."""
        span = re.fullmatch(
            r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "")
        )
        if response.status_code != 206 or span is None:
            return False
        first, last = int(span[1]), int(span[2])
        return (
            first == self.size
            and _length(response) in (None, last - first + 1)
            and (span[3] == "*" or self.total in (None, int(span[3])))
            and response.headers.get("ETag") in (None, self._state["etag"])
        )

    def is_whole(self, response: requests.Response) -> bool:
        """Whether a server that has no more bytes means that all have arrived."""
        return (
            response.status_code == 416
            and self.total is None
            and response.headers.get("Content-Range") == f"bytes */{self.size}"
            and response.headers.get("ETag") in (None, self._state["etag"])
        )

    def write(self, data: bytes) -> None:
        """Append what has arrived."""
        with writing(self.path):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        try:
            self._contents.update(data)
        except zlib.error as error:
            self.refuse(f"is no sound gzip file near byte {self.size:,} ({error})")
        self.size += len(data)

    def check(self) -> None:
        """Refuse what has arrived if it is not the whole file."""
        self.check_size(self.size)
        if self.file.sha256 not in (None, self.sha256):
            self.refuse(f"has the SHA-256 {self.sha256}, but {self.file.sha256} is expected")
        if not self._contents.whole:
            self.refuse(f"is a gzip file that is cut off after {self.size:,} bytes")

    def check_size(self, size: int) -> None:
        """Refuse the file if that is its size and another one is expected."""
        if self.file.bytes not in (None, size):
            self.refuse(f"has {size:,} bytes, but {self.file.bytes:,} are expected")

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for something that is not the file; none of it is kept."""
        self.reset()
        raise DataFormatError(
            f"{self.file.url}: {what}. What had arrived was deleted. Run the command again; if "
            f"that does not help, {OTHER_URL}."
        )

    def move(self, path: Path) -> None:
        """Give the file its own name."""
        with writing(path):
            os.fsync(self._file.fileno())
            self.path.replace(path)
            self._state_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; a part without a byte leaves nothing behind."""
        self._file.close()
        if self.size == 0:
            self.path.unlink(missing_ok=True)
            self._state_path.unlink(missing_ok=True)

    def _take_up(self, state: dict[str, Any]) -> None:
        """Read what an earlier call left; what is damaged counts as nothing."""
        self._state = state
        with suppress(zlib.error), writing(self.path), self.path.open("rb") as file:
            while data := file.read(UNPACKED):
                self._contents.update(data)
            self.size = self.kept = file.tell()

    def _nothing(self) -> _Contents:
        return _Contents(packed=self.file.name.endswith(".gz"))


def receive(part: Part, retries: int, timeout: float, sleep: Callable[[float], None]) -> None:
    """Receive what is missing, again and again while that may help.

    Args:
        part: What has arrived of the file.
        retries: How often to try again.
        timeout: How many seconds to wait for a connection, and for the next byte.
        sleep: Waits between two tries, seconds.

    Raises:
        ConfigError: If the file cannot be had, or the part not be written.
        DataFormatError: If what the server sends is not the file.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Passing),
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=_wait,
        sleep=sleep,
        before_sleep=_tell,
        reraise=True,
    )
    try:
        with requests.Session() as session:
            retrying(_try_to_receive, session, part, timeout)
    except _Passing as error:
        raise ConfigError(
            f"{part.file.url}: {error}. Gave up after {retries + 1} "
            f"{'try' if retries == 0 else 'tries'}. Run the command again "
            f"to go on after {part.size:,} bytes, allow more --retries, or {OTHER_URL}."
        ) from error


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds to wait: what the server asks for, or longer from try to try."""
    asked = _failure(state).retry_after
    return BACKOFF(state) if asked is None else min(asked, LONGEST_RETRY_AFTER)


def _tell(state: tenacity.RetryCallState) -> None:
    """Say why it is tried again."""
    part: Part = state.args[1]
    seconds = 0.0 if state.next_action is None else state.next_action.sleep
    reason = f"{part.file.name}: {_failure(state)}"
    tqdm.write(f"{reason}; trying again in {seconds:.0f} s", file=sys.stderr)


def _failure(state: tenacity.RetryCallState) -> _Passing:
    """Why the last try failed."""
    error = None if state.outcome is None else state.outcome.exception()
    assert isinstance(error, _Passing), "only such are tried again"
    return error


class _Passing(Exception):
    """What may be gone at the next try; the server may have said how many seconds to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Contents:
    """Hash of what has arrived of a file and, where it is packed, whether it unpacks."""

    def __init__(self, packed: bool) -> None:
        self.digest = hashlib.sha256()
        self._unpacker = zlib.decompressobj(wbits=31) if packed else None

    def update(self, data: bytes) -> None:
        """Take in the next bytes; `zlib.error` where they cannot follow."""
        self.digest.update(data)
        if self._unpacker is None:
            return
        while data:
            if self._unpacker.eof:
                data = data.lstrip(b"\0")  # padding, which gzip passes over
                if not data:
                    break
                self._unpacker = zlib.decompressobj(wbits=31)
            self._unpacker.decompress(data, UNPACKED)
            data = self._unpacker.unused_data or self._unpacker.unconsumed_tail

    @property
    def whole(self) -> bool:
        """Whether a packed file ends here."""
        return self._unpacker is None or self._unpacker.eof


def _try_to_receive(session: requests.Session, part: Part, timeout: float) -> None:
    """Receive what is missing; tell what may pass from what will not."""
    try:
        _receive(session, part, timeout)
    except (requests.Timeout, ReadTimeoutError) as error:
        raise _Passing(f"nothing arrived for {timeout:g} seconds") from error
    except (requests.ConnectionError, HTTPError) as error:
        cause = _first_cause(error)
        if isinstance(cause, NameResolutionError):
            raise ConfigError(
                f"{part.file.url}: the server's name cannot be resolved. Is there a network? A "
                f"proxy is taken from https_proxy. Or {OTHER_URL}."
            ) from error
        reason = cause.args[0] if cause.args else cause
        raise _Passing(f"the connection failed or broke ({reason})") from error
    except requests.RequestException as error:
        raise ConfigError(
            f"{part.file.url}: cannot be asked for ({error}). Correct the URL or the proxy, or "
            f"{OTHER_URL}."
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    """What lies at the bottom of an error of requests or urllib3, which wrap one another."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _receive(session: requests.Session, part: Part, timeout: float) -> None:
    """Ask for what is missing, and write it to the part."""
    if part.total is not None and part.size == part.total:
        return
    rest = part.range_headers()
    if rest is not None:
        with _ask(session, part.file.url, rest, timeout) as response:
            if part.is_whole(response):
                return
            if response.status_code == 200 or part.goes_on(response):
                _store(response, part)
                return
    with _ask(session, part.file.url, {}, timeout) as response:
        if response.status_code != 200:
            _refuse_status(response)
        _store(response, part)


def _ask(
    session: requests.Session, url: str, headers: Mapping[str, str], timeout: float
) -> requests.Response:
    """Send a request; only what can be an answer to it comes back."""
    response = session.get(
        url,
        headers={"Accept-Encoding": "identity", **headers},
        stream=True,
        timeout=timeout,
    )
    status = response.status_code
    if status in (200, 206, 416):
        return response
    response.close()
    if status in RETRIED or status >= 500:
        raise _Passing(
            f"the server answers {status} ({response.reason})",
            _seconds(response.headers.get("Retry-After")),
        )
    _refuse_status(response)


def _refuse_status(response: requests.Response) -> NoReturn:
    raise ConfigError(
        f"{response.url}: the server answers {response.status_code} ({response.reason}). Check "
        f"release, category and kind, which --list shows, or {OTHER_URL}."
    )


def _store(response: requests.Response, part: Part) -> None:
    """Write a response to the part."""
    # `response.iter_content` would unpack what a server declares as packed, .gz files too.
    chunks = response.raw.stream(CHUNK, decode_content=False)
    length = _length(response)
    first = next(chunks, b"")
    if response.status_code == 200:
        _check_beginning(response, part.file, first)  # before the part gives way to it
        part.begin(response)
        if length is not None:
            part.check_size(length)
    end = part.total if length is None else part.size + length
    with tqdm(
        desc=part.file.name,
        total=part.total or end,
        initial=part.size,
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        for data in chain([first], chunks):
            if end is not None and part.size + len(data) > end:
                part.refuse(f"is longer than the {end:,} bytes that the server announced")
            part.write(data)
            bar.update(len(data))
    whole = part.total or end
    if whole is not None and part.size < whole:
        raise _Passing(f"the connection broke after {part.size:,} of {whole:,} bytes")


def _check_beginning(response: requests.Response, file: RemoteFile, first: bytes) -> None:
    """Refuse what cannot be the file."""
    packed = file.name.endswith(".gz")
    encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    page = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if first.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(HTML) or (page and encoded):
        what = "is an HTML page"
    elif not first:
        what = "is empty"
    elif packed and not first.startswith(GZIP_MAGIC):
        what = "does not begin as a gzip file does"
    elif encoded and not packed:
        what = f"comes packed ({response.headers['Content-Encoding']}) though it must not"
    else:
        return
    raise DataFormatError(
        f"{response.url}: what the server sends {what}, so it is not {file.name}. Look at the URL "
        f"in a browser; if the files have moved, {OTHER_URL}."
    )


def _length(response: requests.Response) -> int | None:
    """Bytes of the body, as announced."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _seconds(retry_after: str | None) -> float | None:
    """Read how long a server wants us to wait: seconds, or a date.

    >>> _seconds("7"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("soon")
    (7.0, 0.0, None)
    """
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _validator(state: Mapping[str, Any]) -> str | None:
    """What tells whether the file is still the same; a weak ETag does not tell of each byte."""
    etag = state.get("etag") or "W/"
    return state.get("last_modified") if etag.startswith("W/") else etag


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say where and why a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). Make room, allow writing to the "
            "folder or choose another one with --raw. What has arrived is kept."
        ) from error
