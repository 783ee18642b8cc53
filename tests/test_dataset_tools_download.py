"""Downloads from a server on the loopback that can misbehave."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from dataset_tools.cli import main
from dataset_tools.fetch.download import Fetched, download
from dataset_tools.fetch.url_table import plan
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.errors import ConfigError, DataFormatError

PACKED = gzip.compress(random.Random(0).randbytes(1_000_000), mtime=0)
OTHER = gzip.compress(random.Random(1).randbytes(1_000_000), mtime=0)
TEXT = b"A1,B001,5.0,20\n" * 40_000
PAGE = b"<!DOCTYPE html><html><title>Moved</title></html>"
HALF = 500_000
FROM_THE_START = f"bytes 0-{len(PACKED) - 1}/{len(PACKED)}"


@dataclass
class Answer:
    """How the server answers; what is not set is as a good server has it."""

    body: bytes = PACKED
    etag: str | None = '"one"'
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)  # in place of, or beside, the right ones
    ranges: bool = True
    stop_after: int | None = None  # bytes of the body, then the connection is closed
    stall: bool = False  # and then it is not closed, either
    chunked: bool = False


class Server(ThreadingHTTPServer):
    """Gives one answer after the other, the last one forever, and keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [Answer()]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing of a client that left."""

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        answer = self.server.next_answer()
        status, first, last = 200, 0, len(answer.body) - 1
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, answer.etag)
        headers: dict[str, str] = {} if answer.etag is None else {"ETag": answer.etag}
        if asked and answer.ranges and same:
            status, first = 206, int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(answer.body)}"
            if first >= len(answer.body):
                status, first = 416, len(answer.body)
                headers["Content-Range"] = f"bytes */{len(answer.body)}"
        body = answer.body[first:]
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body))
        self.send_response(answer.status or status)
        for name, value in (headers | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        sent = body[: answer.stop_after]
        if answer.chunked:
            sent = b"".join(
                b"%x\r\n%s\r\n" % (len(piece), piece)
                for piece in (sent[start : start + 9000] for start in range(0, len(sent), 9000))
            )
            if answer.stop_after is None:
                sent += b"0\r\n\r\n"
        self.wfile.write(sent)
        if answer.stall:
            self.server.stalled.set()
            self.server.released.wait(20)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@dataclass
class Case:
    """A table of the server's URLs, and a folder to fetch to."""

    server: Server
    raw: Path
    urls: Path
    table: dict[str, Any]
    waits: list[float] = field(default_factory=list)

    def fetch(self, **options: Any) -> Fetched:
        """Fetch the one file of a category and a kind, without waiting between tries."""
        self.urls.write_text(yaml.safe_dump(self.table))
        arguments = {"release": "2014", "category": ["CD"], "kind": ["reviews"], "retries": 3}
        arguments |= {"timeout": 5.0, "sleep": self.waits.append, **options}
        (fetched,) = download(raw=self.raw, urls=self.urls, **arguments)
        return fetched

    @property
    def path(self) -> Path:
        return self.raw / "reviews_CD.json.gz"

    @property
    def part(self) -> Path:
        return self.raw / "reviews_CD.json.gz.part"

    def names(self) -> set[str]:
        return {path.name for path in self.raw.iterdir()}

    def leave_part(self) -> int:
        """Have a download break off; give the bytes that it leaves."""
        kept, self.server.answers = self.server.answers, [Answer(stop_after=HALF)]
        with pytest.raises(ConfigError, match="Gave up after 1 try"):
            self.fetch(retries=0)
        self.server.answers = kept
        self.server.requests.clear()
        size = self.part.stat().st_size
        assert 0 < size <= HALF
        assert self.part.read_bytes() == PACKED[:size]
        return size


@pytest.fixture
def case(server: Server, tmp_path: Path) -> Case:
    kinds = {
        "reviews": {"url": f"{server.url}/reviews_{{category}}.json.gz"},
        "ratings": {"url": f"{server.url}/ratings_{{category}}.csv"},
    }
    table = {"2014": {"kinds": kinds, "categories": ["CD", "Books"]}}
    return Case(server, tmp_path / "raw", tmp_path / "urls.yaml", table)


WHOLE = {"reviews_CD.json.gz", "reviews_CD.json.gz.manifest.json"}


def test_fetches_a_file_and_says_where_it_is_from(case: Case) -> None:
    fetched = case.fetch()
    assert fetched == Fetched(case.path.name, len(PACKED), len(PACKED), "fetched", case.path)
    assert case.path.read_bytes() == PACKED
    assert case.names() == WHOLE
    manifest = json.loads((case.raw / "reviews_CD.json.gz.manifest.json").read_text())
    url = f"{case.server.url}/reviews_CD.json.gz"
    assert manifest["command"] == "download"
    assert manifest["options"] == {
        "release": "2014",
        "category": "CD",
        "kind": "reviews",
        "url": url,
    }
    assert manifest["inputs"] == [{"name": url, "etag": '"one"'}]
    assert manifest["outputs"] == [describe_file(case.path)]
    ((path, headers),) = case.server.requests
    assert path == "/reviews_CD.json.gz"
    assert headers["Accept-Encoding"] == "identity"
    assert case.waits == []


def test_a_whole_file_is_fetched_again_only_by_force(case: Case) -> None:
    case.fetch()
    case.server.answers = [Answer(OTHER, '"two"')]
    again = case.fetch()
    assert (again.received, again.status, again.bytes) == (0, "there already", len(PACKED))
    assert len(case.server.requests) == 1
    assert case.fetch(force=True).status == "fetched"
    assert case.path.read_bytes() == OTHER
    assert case.names() == WHOLE


def test_a_file_that_lost_its_end_is_fetched_again(case: Case) -> None:
    case.fetch()
    case.path.write_bytes(PACKED[:HALF])
    assert case.fetch().status == "fetched"
    assert case.path.read_bytes() == PACKED


def test_an_old_file_does_not_pass_for_the_new_one(case: Case) -> None:
    case.fetch()
    manifest = case.raw / "reviews_CD.json.gz.manifest.json"
    manifest.unlink()
    manifest.mkdir()
    case.server.answers = [Answer(OTHER, '"two"')]
    with pytest.raises(ConfigError, match=r"manifest\.json: is a folder\. Remove it"):
        case.fetch(force=True)
    assert not case.path.exists()
    manifest.rmdir()
    assert case.fetch().received == 0
    assert case.path.read_bytes() == OTHER


def test_a_file_of_someone_else_is_not_written_over(case: Case) -> None:
    case.raw.mkdir()
    case.path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"no reviews_CD\.json\.gz\.manifest\.json says what"):
        case.fetch()
    assert case.path.read_bytes() == b"mine"
    assert case.fetch(force=True).status == "fetched"

    case.table["2018"] = case.table["2014"]
    with pytest.raises(ConfigError, match="with release 2014 instead of 2018"):
        case.fetch(release="2018")


def test_goes_on_after_breaks(case: Case) -> None:
    case.server.answers = [
        Answer(stop_after=400_000),
        Answer(stop_after=300_000),
        Answer(stop_after=0),
        Answer(),
    ]
    fetched = case.fetch()
    assert case.path.read_bytes() == PACKED
    assert (fetched.status, fetched.received) == ("fetched", len(PACKED))
    starts = [int(asked[6:-1]) for asked in case.server.ranges if asked]
    assert len(starts) == 3
    assert 300_000 < starts[0] <= 400_000 < starts[1] == starts[2] <= 700_000
    assert case.server.requests[1][1]["If-Range"] == '"one"'
    assert len(case.waits) == 3
    assert all(1 <= seconds for seconds in case.waits)
    assert case.waits[0] < case.waits[2], "waits get longer"


def test_gives_up_after_the_retries_and_goes_on_in_the_next_call(case: Case) -> None:
    size = case.leave_part()
    assert case.names() == {"reviews_CD.json.gz.part", "reviews_CD.json.gz.part.json"}
    fetched = case.fetch()
    assert case.server.ranges == [f"bytes={size}-"]
    assert (fetched.status, fetched.received) == ("resumed", len(PACKED) - size)
    assert case.path.read_bytes() == PACKED
    assert case.names() == WHOLE
    manifest = json.loads((case.raw / "reviews_CD.json.gz.manifest.json").read_text())
    assert manifest["outputs"] == [describe_file(case.path)]


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        pytest.param([Answer(ranges=False)], 1, id="ranges-ignored"),
        pytest.param([Answer(OTHER, '"two"')], 1, id="changed"),
        pytest.param(
            [
                Answer(status=206, ranges=False, headers={"Content-Range": FROM_THE_START}),
                Answer(),
            ],
            2,
            id="wrong-start",
        ),
        pytest.param(
            [Answer(OTHER, headers={"ETag": '"two"'}), Answer(OTHER, '"two"')],
            2,
            id="if-range-ignored",
        ),
        pytest.param([Answer(OTHER[:600_000]), Answer(OTHER)], 2, id="other-total"),
        pytest.param([Answer(b"short"), Answer(OTHER)], 2, id="416"),
    ],
)
def test_starts_anew_where_the_part_does_not_fit(
    case: Case, answers: list[Answer], requests: int
) -> None:
    size = case.leave_part()
    case.server.answers = answers
    expected = answers[-1].body
    fetched = case.fetch(retries=0)
    assert (fetched.status, fetched.received) == ("fetched", len(expected))
    assert case.path.read_bytes() == expected
    assert case.server.ranges == [f"bytes={size}-", None][:requests]


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_range_may_be_shorter_than_asked_but_not_longer_than_it_says(
    case: Case, more: bytes
) -> None:
    size = case.leave_part()
    part = f"bytes {size}-{size + 999}/{len(PACKED)}"
    case.server.answers = [
        Answer(PACKED[: size + 1000] + more, headers={"Content-Range": part}),
        Answer(),
    ]
    assert case.fetch().status == ("fetched" if more else "resumed")
    assert case.server.ranges == [f"bytes={size}-", None if more else f"bytes={size + 1000}-"]
    assert case.path.read_bytes() == PACKED


def test_starts_anew_where_nothing_tells_whether_the_file_changed(case: Case) -> None:
    case.server.answers = [Answer(etag='W/"weak"', stop_after=HALF), Answer(OTHER)]
    case.fetch()
    assert case.server.ranges == [None, None]
    assert case.path.read_bytes() == OTHER


def test_the_date_of_a_file_tells_whether_it_changed(case: Case) -> None:
    dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    case.server.answers = [
        Answer(etag=None, headers=dated, stop_after=HALF),
        Answer(etag=dated["Last-Modified"], headers=dated | {"ETag": 'W/"weak"'}, ranges=False),
    ]
    case.fetch()
    assert case.server.requests[1][1]["If-Range"] == dated["Last-Modified"]
    assert case.path.read_bytes() == PACKED


@pytest.mark.parametrize("damage", ["another URL", "not json", "damaged"])
def test_a_part_that_cannot_be_trusted_is_thrown_away(case: Case, damage: str) -> None:
    case.leave_part()
    state = case.raw / "reviews_CD.json.gz.part.json"
    if damage == "another URL":
        state.write_text(state.read_text().replace("reviews_CD", "reviews_DVD"))
    elif damage == "not json":
        state.write_text(state.read_text()[:-1])
    else:
        case.part.write_bytes(b"x" + case.part.read_bytes()[1:])
    assert case.fetch().status == "fetched"
    assert case.server.ranges == [None]
    assert case.path.read_bytes() == PACKED


def test_a_part_that_is_whole_is_not_asked_for(case: Case) -> None:
    case.leave_part()
    case.part.write_bytes(PACKED)
    fetched = case.fetch()
    assert (fetched.status, fetched.received) == ("resumed", 0)
    assert case.server.requests == []
    assert case.path.read_bytes() == PACKED


def test_a_file_of_unknown_length_is_whole_when_the_server_has_no_more(case: Case) -> None:
    case.server.answers = [Answer(chunked=True, stop_after=len(PACKED)), Answer()]
    fetched = case.fetch()
    assert case.server.ranges == [None, f"bytes={len(PACKED)}-"]
    assert fetched.bytes == len(PACKED)
    assert case.path.read_bytes() == PACKED


def test_a_file_of_unknown_length_is_not_whole_when_the_server_has_another(case: Case) -> None:
    case.server.answers = [Answer(chunked=True, stop_after=HALF), Answer(b"short"), Answer()]
    case.fetch()
    assert case.server.ranges == [None, f"bytes={HALF}-", None]
    assert case.path.read_bytes() == PACKED


def test_a_length_need_not_be_announced(case: Case) -> None:
    case.server.answers = [Answer(chunked=True)]
    assert case.fetch(retries=0).bytes == len(PACKED)
    assert case.path.read_bytes() == PACKED


def test_an_announced_length_that_is_too_long_breaks(case: Case) -> None:
    case.server.answers = [Answer(headers={"Content-Length": str(len(PACKED) + 1)})]
    with pytest.raises(ConfigError, match=r"connection failed or broke.*Gave up after 2 tries"):
        case.fetch(retries=1)
    assert not case.path.exists()
    assert len(case.waits) == 1


def test_an_announced_length_that_is_too_short_is_found_out(case: Case) -> None:
    case.server.answers = [Answer(headers={"Content-Length": str(HALF)})]
    with pytest.raises(DataFormatError, match="is a gzip file that is cut off after 500,000 bytes"):
        case.fetch()
    assert case.names() == set()


def test_more_than_was_announced_is_refused(case: Case) -> None:
    case.leave_part()
    end = len(PACKED) - 1
    right = f"bytes {case.part.stat().st_size}-{end}/{len(PACKED)}"
    case.server.answers = [
        Answer(PACKED + b"\0more", chunked=True, headers={"Content-Range": right})
    ]
    with pytest.raises(DataFormatError, match=rf"longer than the {len(PACKED):,} bytes"):
        case.fetch()
    assert case.names() == set()


def test_waits_as_the_server_asks_but_not_for_ever(case: Case) -> None:
    case.server.answers = [
        Answer(status=503, headers={"Retry-After": "7"}),
        Answer(status=429, headers={"Retry-After": "86400"}),
        Answer(status=500, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Answer(),
    ]
    case.fetch()
    assert case.waits == [7.0, 300.0, 0.0]
    assert case.path.read_bytes() == PACKED


@pytest.mark.parametrize("status", [403, 404, 410, 304])
def test_an_answer_that_will_not_change_ends_at_once(case: Case, status: int) -> None:
    size = case.leave_part()
    case.server.answers = [Answer(status=status)]
    with pytest.raises(ConfigError) as error:
        case.fetch()
    assert f"{case.server.url}/reviews_CD.json.gz: the server answers {status} (" in str(
        error.value
    )
    assert "--urls" in str(error.value)
    assert len(case.server.requests) == 1
    assert case.part.stat().st_size == size, "what has arrived is kept"


def test_a_server_that_is_not_there_is_tried_again(case: Case) -> None:
    case.table["2014"]["kinds"]["reviews"]["url"] = "http://127.0.0.1:1/reviews_{category}.json.gz"
    with pytest.raises(ConfigError, match="the connection failed"):
        case.fetch()
    assert len(case.waits) == 3
    assert case.names() == set()


def test_a_server_that_falls_silent_is_left(case: Case) -> None:
    case.server.answers = [Answer(stop_after=HALF, stall=True), Answer()]
    case.fetch(timeout=0.3)
    assert case.path.read_bytes() == PACKED
    assert case.server.ranges[1] is not None

    case.server.answers = [Answer(stop_after=HALF, stall=True)]
    with pytest.raises(ConfigError, match=r"nothing arrived for 0\.3 seconds"):
        case.fetch(category=["Books"], timeout=0.3, retries=0)


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        ("reviews", Answer(PAGE), "is an HTML page, so it is not reviews_CD.json.gz"),
        ("ratings", Answer(b"\n <HTML>"), "is an HTML page, so it is not ratings_CD.csv"),
        ("reviews", Answer(TEXT), "does not begin as a gzip file does"),
        ("ratings", Answer(b""), "is empty"),
        (
            "ratings",
            Answer(PACKED, headers={"Content-Encoding": "gzip"}),
            "comes packed (gzip) though it must not",
        ),
        (
            "reviews",
            Answer(
                gzip.compress(PAGE),
                headers={"Content-Encoding": "gzip", "Content-Type": "text/html"},
            ),
            "is an HTML page",
        ),
        ("reviews", Answer(PACKED[:HALF] + PACKED[HALF + 9 :]), "is no sound gzip file near byte"),
        ("reviews", Answer(PACKED + b"more"), "is no sound gzip file near byte"),
    ],
)
def test_what_is_not_the_file_is_not_kept(
    case: Case, kind: str, answer: Answer, message: str
) -> None:
    case.server.answers = [answer]
    with pytest.raises(DataFormatError) as error:
        case.fetch(kind=[kind])
    assert message in str(error.value)
    assert str(error.value).startswith(f"{case.server.url}/{kind}_CD.")
    assert case.names() == set()
    assert len(case.server.requests) == 1


def test_an_error_page_does_not_cost_what_has_arrived(case: Case) -> None:
    size = case.leave_part()
    case.server.answers = [Answer(PAGE, etag='"page"')]
    with pytest.raises(DataFormatError, match="is an HTML page"):
        case.fetch()
    case.server.answers = [Answer()]
    assert case.fetch().received == len(PACKED) - size


@pytest.mark.parametrize(
    "body", [PACKED + OTHER, PACKED + bytes(512), gzip.compress(bytes(50_000_000))]
)
def test_packed_files_may_have_members_padding_and_be_packed_tightly(
    case: Case, body: bytes
) -> None:
    case.server.answers = [Answer(body, headers={"Content-Encoding": "x-gzip"})]
    case.fetch()
    assert case.path.read_bytes() == body


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"bytes": len(TEXT)}, None),
        ({"sha256": hashlib.sha256(TEXT).hexdigest()}, None),
        ({"bytes": len(TEXT) + 1}, "has 600,000 bytes, but 600,001 are expected"),
        (
            {"bytes": len(TEXT), "sha256": "0" * 64},
            f"has the SHA-256 {hashlib.sha256(TEXT).hexdigest()}, but {'0' * 64} is expected",
        ),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_table_may_say_what_a_file_must_be(
    case: Case, known: dict[str, Any], message: str | None, chunked: bool
) -> None:
    case.table["2014"]["files"] = {"ratings_CD.csv": known}
    case.server.answers = [Answer(TEXT, stop_after=HALF), Answer(TEXT, chunked=chunked)]
    if message is None:
        assert case.fetch(kind=["ratings"]).bytes == len(TEXT)
        return
    with pytest.raises(DataFormatError) as error:
        case.fetch(kind=["ratings"])
    assert message in str(error.value)
    assert case.names() == set()


def test_two_downloads_of_a_file_do_not_mix(case: Case) -> None:
    case.server.answers = [Answer(stop_after=HALF, stall=True), Answer()]
    errors: list[Exception] = []

    def first() -> None:
        try:
            case.fetch()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert case.server.stalled.wait(5)
    with pytest.raises(ConfigError, match="another process is at work on it"):
        case.fetch()
    assert len(case.server.requests) == 1
    case.server.released.set()
    thread.join()
    assert errors == []
    assert case.path.read_bytes() == PACKED


def test_the_lock_is_one_that_other_processes_see(case: Case) -> None:
    case.raw.mkdir()
    with FileLock(case.raw / ".reviews_CD.json.gz.lock"):
        with pytest.raises(ConfigError, match="another process is at work on it"):
            case.fetch()
    assert case.fetch().status == "fetched"


def test_a_folder_that_cannot_be_written_to(case: Case) -> None:
    case.raw.write_bytes(b"a file")
    with pytest.raises(
        ConfigError, match=r"reviews_CD\.json\.gz: cannot be written \(File exists\)"
    ):
        case.fetch()
    assert case.server.requests == []


@pytest.fixture
def small_disk() -> Iterator[Callable[[], None]]:
    """Files cannot grow as long as `PACKED`; gives what makes room again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(PACKED) - 9, before[1]))

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield make_room
    make_room()


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    case: Case, small_disk: Callable[[], None]
) -> None:
    with pytest.raises(
        ConfigError, match=r"part: cannot be written \(File too large\)\. Make room"
    ):
        case.fetch()
    small_disk()
    assert case.part.read_bytes() == PACKED[:-9]
    assert case.fetch().received == 9
    assert case.path.read_bytes() == PACKED


def test_an_interrupt_keeps_what_has_arrived(case: Case) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    case.server.answers = [Answer(stop_after=HALF), Answer()]
    with pytest.raises(KeyboardInterrupt):
        case.fetch(sleep=interrupt)
    assert case.fetch().status == "resumed"
    assert case.path.read_bytes() == PACKED


def arguments(case: Case, *more: str) -> list[str]:
    case.urls.write_text(yaml.safe_dump(case.table))
    options = ["--release=2014", "--category=CD", f"--raw={case.raw}", f"--urls={case.urls}"]
    return ["download", *options, *more]


def test_a_killed_process_leaves_a_part_that_can_be_gone_on_with(case: Case) -> None:
    case.server.answers = [Answer(stop_after=HALF, stall=True), Answer()]
    command = [sys.executable, "-m", "dataset_tools", *arguments(case, "--kind=reviews")]
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)})
    try:
        assert case.server.stalled.wait(10)
        deadline = time.monotonic() + 5
        while not case.part.exists() or case.part.stat().st_size < HALF - (1 << 16):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    size = case.part.stat().st_size
    assert size <= HALF
    assert not case.path.exists()

    main(arguments(case, "--kind=reviews"))
    assert case.server.ranges == [None, f"bytes={size}-"]
    assert describe_file(case.path)["sha256"] == hashlib.sha256(PACKED).hexdigest()
    assert WHOLE <= case.names()


def test_the_command_says_what_it_did(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    size = case.leave_part()
    case.server.answers = [Answer(), Answer(TEXT)]
    main(arguments(case, "--kind=reviews,ratings"))
    out, err = capsys.readouterr()
    header, reviews, ratings = out.splitlines()
    assert header.split() == ["file", "bytes", "fetched", "now", "status", "written", "to"]
    whole, rest = f"{len(PACKED):,}", f"{len(PACKED) - size:,}"
    assert reviews.split() == ["reviews_CD.json.gz", whole, rest, "resumed", str(case.path)]
    csv = case.raw / "ratings_CD.csv"
    assert ratings.split() == ["ratings_CD.csv", "600,000", "600,000", "fetched", str(csv)]
    assert err == ""
    assert csv.read_bytes() == TEXT

    case.server.requests.clear()
    main(arguments(case, "--kind=reviews,ratings"))
    out = capsys.readouterr().out
    assert [line.split()[2:5] for line in out.splitlines()[1:]] == [["0", "there", "already"]] * 2
    assert case.server.requests == []
    main(arguments(case, "--kind=ratings", "--force"))
    assert "600,000  fetched" in capsys.readouterr().out


def test_tells_why_it_tries_again(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.server.answers = [Answer(status=503, headers={"Retry-After": "0"}), Answer()]
    main(arguments(case, "--kind=reviews"))
    assert capsys.readouterr().err == (
        "reviews_CD.json.gz: the server answers 503 (Service Unavailable); trying again in 0 s\n"
    )
    case.server.answers = [Answer(status=503, headers={"Retry-After": "0"})]
    with pytest.raises(SystemExit) as stop:
        main(arguments(case, "--kind=ratings", "--retries=2"))
    assert stop.value.code == 2
    *tries, last = capsys.readouterr().err.splitlines()
    assert len(tries) == 2
    assert last.startswith(f"ConfigError: {case.server.url}/ratings_CD.csv: the server answers 503")


def test_the_bar_starts_where_the_part_ends(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.leave_part()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    case.fetch()
    shown = terminal.getvalue().split("\r")
    percent = [int(bar.split("|")[0].split()[-1].removesuffix("%")) for bar in shown if "|" in bar]
    assert 45 <= percent[0] <= 50
    assert percent[-1] == 100


def test_lists_without_fetching(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.table["2014"]["files"] = {"ratings_CD.csv": {"bytes": 1234, "sha256": "a" * 64}}
    case.urls.write_text(yaml.safe_dump(case.table))
    options = ["--release=2014", f"--urls={case.urls}", "--kind=ratings", "--list"]
    main(["download", *options])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    url = f"{case.server.url}/ratings_"
    assert rows == [
        ["file", "kind", "bytes", "hash", "URL"],
        ["ratings_CD.csv", "ratings", "1,234", "known", f"{url}CD.csv"],
        ["ratings_Books.csv", "ratings", "unknown", "unknown", f"{url}Books.csv"],
    ]
    main(["download", *options, "--category=Books"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert case.server.requests == []


def test_goes_through_a_proxy_of_the_environment(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", case.server.url)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    url = "http://files.invalid/data/reviews_{category}.json.gz"
    case.table["2014"]["kinds"]["reviews"]["url"] = url
    main(arguments(case, "--kind=reviews"))
    assert [path for path, _ in case.server.requests] == [url.replace("{category}", "CD")]
    assert case.path.read_bytes() == PACKED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--category=CD"], "arguments are required: --release"),
        (["--release=2014"], "arguments are required: --category, --raw. --list shows what"),
        (
            ["--release=2015", "--list"],
            "release `2015` is not in the table of URLs; there are 2014, 2018, 2023. Did",
        ),
        (
            ["--release=2014", "--list", "--category=Books,CDs_and_Vynil"],
            "category `CDs_and_Vynil` is not in release 2014; `--list` shows its categories. "
            "Did you mean `CDs_and_Vinyl`?",
        ),
        (
            ["--release=2023", "--list", "--kind=review"],
            "kind `review` is not in release 2023; there are reviews, ratings, ratings_5core, "
            "meta. Did you mean `reviews`?",
        ),
        (
            ["--release=2014", "--category=Books", "--raw=raw", "--retries=-1"],
            "retries `-1` must not be negative",
        ),
        (
            ["--release=2014", "--category=Books", "--raw=raw", "--timeout=0"],
            "timeout `0` must be more than 0 seconds",
        ),
        (["--release=2014", "--list", "--urls=no.yaml"], "no.yaml: cannot be read (No such file"),
    ],
)
def test_mistakes_end_with_one_message(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["download", *options])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("raw").exists()


GOOD_TABLE = """
2014:
  kinds:
    reviews: {url: "https://host/a/{category}.json.gz?key=1"}
    ratings: {url: "https://host/b/{category}.json.gz", name: "r_{category}.json.gz"}
  categories: [CD, Books]
  files: {r_CD.json.gz: {bytes: 5}}
"""


def test_a_good_table(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(GOOD_TABLE)
    files = plan("2014", ["CD"], ["ratings", "reviews"], path)
    assert [(file.url, file.name, file.bytes) for file in files] == [
        ("https://host/b/CD.json.gz", "r_CD.json.gz", 5),
        ("https://host/a/CD.json.gz?key=1", "CD.json.gz", None),
    ]


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("2014:", "2104:", "t.yaml: unknown key `2104`. Did you mean `2014`?"),
        ("kinds:", "kind:", "t.yaml, `2014`: unknown key `kind`. Did you mean `kinds`?"),
        ("  categories: [CD, Books]\n", "", "t.yaml, `2014`: there is no `categories`. Add it"),
        ("[CD, Books]", "CD", "t.yaml, `2014`, `categories`: must be a list"),
        ("[CD, Books]", "[../CD]", "`categories`: `../CD` cannot be part of a file name"),
        ("{url: ", "{urls: ", "`kinds`, `reviews`: unknown key `urls`. Did you mean `url`?"),
        ("/a/{category}", "/a/{categry}", "`reviews`, `url`: must be a text with {category}"),
        ('"https://host/a', '"ftp://host/a', "must begin with http:// or https://"),
        ('"r_{category}', '"../{category}', "`name`: `../{category}.json.gz` must be a plain name"),
        (
            ', name: "r_{category}.json.gz"',
            "",
            "two files would be called `CD.json.gz`, of the kinds",
        ),
        ("{r_CD", "{CDs", "`files`: unknown key `CDs.json.gz`. Did you mean `CD.json.gz`?"),
        ("bytes: 5", "size: 5", "`files`, `r_CD.json.gz`: unknown key `size`."),
        ("bytes: 5", "bytes: five", "`bytes`: `five` must be a number above 0"),
        ("bytes: 5", "sha256: 5", "`sha256`: `5` must be 64 lower-case hexadecimal digits"),
        ("categories: [CD", "categories: [[CD", "t.yaml: is no YAML (while parsing"),
    ],
)
def test_bad_tables(tmp_path: Path, good: str, bad: str, message: str) -> None:
    path = tmp_path / "t.yaml"
    assert good in GOOD_TABLE
    path.write_text(GOOD_TABLE.replace(good, bad, 1))
    with pytest.raises(ConfigError) as error:
        plan("2014", urls=path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("release", "categories", "name", "url"),
    [
        (
            "2014",
            24,
            "reviews_CDs_and_Vinyl_5.json.gz",
            "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
            "reviews_CDs_and_Vinyl_5.json.gz",
        ),
        (
            "2018",
            29,
            "CDs_and_Vinyl_5.json.gz",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/"
            "CDs_and_Vinyl_5.json.gz",
        ),
        (
            "2023",
            34,
            "CDs_and_Vinyl.jsonl.gz",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/"
            "CDs_and_Vinyl.jsonl.gz",
        ),
    ],
)
def test_the_packaged_table(release: str, categories: int, name: str, url: str) -> None:
    assert len(plan(release)) == 2 * categories
    reviews, meta = plan(release, ["CDs_and_Vinyl"])
    assert (reviews.name, reviews.url) == (name, url)
    assert meta.name.startswith("meta_CDs_and_Vinyl.json")
    ratings = plan(release, kind=["ratings"])
    hashes = {file.sha256 for file in ratings}
    assert None not in hashes
    assert len(hashes) == categories, "a hash stands at two files"
