"""Files that appear whole or not at all, whatever ends the command."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
from filelock import FileLock, Timeout

from recbole_cdr_mm.errors import ConfigError

CLOCK = 2.0  # seconds by which the clocks of processes and files may differ
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a neighbour of `path` to write to, which takes its place when all went well.

    Args:
        path: The file to be, or a link to it. Its folder is made where it is missing.

    Yields:
        An empty file in the same folder. After an error it is removed and `path` is as before.

    Raises:
        ConfigError: If the folder cannot be made or written to, or the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    with atomic_folder(path.parent, path.name) as folder:
        (folder / path.name).touch()
        yield folder / path.name


def check_writable(path: Path) -> None:
    """Find out whether a file can be written before it is made, which may take hours.

    Args:
        path: The file to be.

    Raises:
        ConfigError: As of `atomic_path`.
    """
    path = path.resolve() if path.is_symlink() else path
    _refuse_unless_file(path)
    with atomic_folder(path.parent, path.name):
        pass


@contextmanager
def atomic_folder(folder: Path, what: str | None = None) -> Iterator[Path]:
    """Give a hidden folder to write files to, which all move to `folder` when all went well.

    They move in the order of their names, each in one step. What killed processes have left of
    such folders is cleared away.

    Args:
        folder: Where the files shall be. It is made where it is missing.
        what: What is written, for messages.

    Yields:
        An empty folder in `folder`. After an error it is removed and `folder` is as before.

    Raises:
        ConfigError: If the folder cannot be made or written to, the disk is full, or a folder or a
            device has the name of a file.
    """
    what = what or "files"
    with unless_empty(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clear_stale(folder)
            # Host, process and a name of its own: nobody else's is taken for stale or for free.
            owner = f"{socket.gethostname().replace('.', '-')}.{os.getpid()}"
            made = mkdtemp(prefix=f".{what}.{owner}.", suffix=".tmp", dir=folder)
            temporary = folder / Path(made).name  # as the user wrote the folder
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot write `{what}` here ({error.strerror}). "
                "Choose another folder, or allow writing to this one."
            ) from error
        try:
            yield temporary
            files = sorted(temporary.iterdir())
            for file in files:
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
                _refuse_unless_file(folder / file.name)
            for file in files:
                file.replace(folder / file.name)
            temporary.rmdir()
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in LOST:
                where = (
                    folder.parent if folder.suffix == ".tmp" else folder
                )  # of a file in a folder
                raise ConfigError(
                    f"{where}: cannot write {what} ({error.strerror}). Make room, or choose "
                    "another folder. Nothing was written."
                ) from error
            raise


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file, whole or not at all.

    Args:
        path: The file to be. Its folder is made where it is missing.
        content: What JSON can say.

    Raises:
        ConfigError: If the folder cannot be made or written to, or the disk is full.
    """
    with atomic_path(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def unless_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was made meanwhile, and those above it, if they are empty at the end.

    Args:
        folder: A folder that may not be there yet.
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def locked(path: Path, folder_option: str) -> Iterator[None]:
    """Keep other processes from making the same file.

    Args:
        path: The file. Its folder is made where it is missing.
        folder_option: The option that names another folder, for messages.

    Raises:
        ConfigError: If another process holds the lock, or the folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.name.removeprefix('.')}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{path}: another process is at work on it. Wait until it has ended, or choose another "
            f"folder with {folder_option}."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). Allow writing to the folder, or choose "
            f"another one with {folder_option}."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _refuse_unless_file(path: Path) -> None:
    """Leave folders, devices and pipes as they are."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder. Remove it, or name a file.")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is a device or a pipe. Name a file.")


def _clear_stale(folder: Path) -> None:
    """Remove what processes of this host that are no more have left."""
    host = socket.gethostname().replace(".", "-")
    for left in folder.glob(f".*.{glob.escape(host)}.*.tmp"):
        process = left.name.split(".")[-3]
        if process.isdigit() and not _is_owner(int(process), left):
            shutil.rmtree(left, ignore_errors=True)


def _is_owner(process: int, folder: Path) -> bool:
    """Whether a process can have made a folder: it is alive, and no younger."""
    try:
        return psutil.Process(process).create_time() <= folder.stat().st_mtime + CLOCK
    except (psutil.Error, OSError):
        return False
