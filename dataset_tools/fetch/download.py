"""Amazon's raw files from their servers: the command `download`.

The files are large, so a download that broke off goes on where it ended: what has arrived lies in
`<name>.part`, and what it is a part of in `<name>.part.json`. A file takes its own name only when
it is whole and has been checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_tools.fetch.transfer import Part, receive, writing
from dataset_tools.fetch.url_table import KINDS, RemoteFile, plan
from dataset_tools.manifest import MANIFEST, read_object, write_manifest
from dataset_tools.safe_output import locked
from recbole_cdr_mm.errors import ConfigError

RETRIES = 5
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Fetched:
    """What became of a file, for the summary; `received` are the bytes that arrived now."""

    name: str
    bytes: int
    received: int
    status: str
    path: Path


def download(
    release: str,
    category: Sequence[str],
    raw: Path,
    kind: Sequence[str] = KINDS,
    urls: Path | None = None,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
    force: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Fetch raw files, one after the other.

    Args:
        release: One of `RELEASES`.
        category: Names of categories of the release.
        raw: The folder to write to, each file under its own name.
        kind: Names of kinds of file.
        urls: A table of URLs instead of the packaged one.
        retries: How often to try again, for each file, after what may pass.
        timeout: How many seconds to wait for a connection, and for the next byte.
        force: Whether to fetch again what is there already.
        sleep: Waits between two tries, seconds.

    Returns:
        What became of each file, in the order of categories and kinds.

    Raises:
        ConfigError: If an argument cannot be, a file cannot be had or the folder not be written to.
        DataFormatError: If what a server sends is not the file.
    """
    if retries < 0:
        raise ConfigError(f"retries `{retries}` must not be negative.")
    if not timeout > 0:
        raise ConfigError(f"timeout `{timeout:g}` must be more than 0 seconds.")
    return [
        _fetch(file, raw, retries, timeout, force, sleep)
        for file in plan(release, category, kind, urls)
    ]


def _fetch(
    file: RemoteFile,
    raw: Path,
    retries: int,
    timeout: float,
    force: bool,
    sleep: Callable[[float], None],
) -> Fetched:
    """Fetch one file, or what is missing of it."""
    path = raw / file.name
    if not force and _is_there(file, path):
        return Fetched(file.name, path.stat().st_size, 0, "there already", path)
    with locked(path, "--raw"):
        part = Part(file, raw)
        try:
            receive(part, retries, timeout, sleep)
            part.check()
            _finish(part, path)
        finally:
            part.close()
    status = "resumed" if part.kept else "fetched"
    return Fetched(file.name, part.size, part.size - part.kept, status, path)


def _is_there(file: RemoteFile, path: Path) -> bool:
    """Whether the file was fetched before; what else may have its name is not written over."""
    if not path.exists():
        return False
    advice = "Use another --raw folder, or write over it with --force."
    try:
        manifest = read_object(path.with_name(path.name + MANIFEST))
        origin = manifest["options"]
        (output,) = manifest["outputs"]
        size = output["bytes"]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{path}: is there already, but no {path.name}{MANIFEST} says what it is. {advice}"
        ) from None
    for key in ("release", "category", "kind"):
        if origin.get(key) != getattr(file, key):
            raise ConfigError(
                f"{path}: is there already, with {key} {origin.get(key)} instead of "
                f"{getattr(file, key)}. {advice}"
            )
    return bool(path.stat().st_size == size)


def _finish(part: Part, path: Path) -> None:
    """Write the manifest and give the file its name.

    The manifest comes first: a part that is whole is taken up again, while a file without a
    manifest could be anyone's. An old file goes before, or the new manifest would seem to be its.
    """
    file = part.file
    source = {"name": file.url}
    source |= {key: part.state[key] for key in ("etag", "last_modified") if part.state[key]}
    with writing(path):
        path.unlink(missing_ok=True)
        write_manifest(
            path.with_name(path.name + MANIFEST),
            command="download",
            options={
                "release": file.release,
                "category": file.category,
                "kind": file.kind,
                "url": file.url,
            },
            inputs=[source],
            counts={},
            outputs=[{"name": file.name, "bytes": part.size, "sha256": part.sha256}],
        )
    part.move(path)
