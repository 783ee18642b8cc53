"""What a command read, was told and wrote: `<output>.manifest.json` beside the output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm import __version__

MANIFEST = ".manifest.json"


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file, for `inputs` or `outputs` of a manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return {"name": path.name, "bytes": file.tell(), "sha256": digest.hexdigest()}


def write_manifest(
    path: Path,
    command: str,
    options: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
) -> None:
    """Write a manifest; equal inputs and options give equal bytes, so it holds no time and no path.

    Args:
        path: The file to be, `<output>.manifest.json`; replaced in one step.
        command: The command of `python -m dataset_tools`.
        options: What it was told, defaults included; paths by their last part.
        inputs: What it read, as `describe_file` has it.
        counts: What became of it.
        outputs: What it wrote, likewise.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    content = {
        "command": command,
        "version": __version__,
        "options": {
            key: value.name if isinstance(value, Path) else value for key, value in options.items()
        },
        "inputs": list(inputs),
        "counts": dict(counts),
        "outputs": list(outputs),
    }
    with atomic_path(path) as file:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_domain_manifest(
    folder: Path,
    domain: str,
    command: str,
    options: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Any],
) -> None:
    """Write the manifest of a domain whose files are all that the folder holds.

    Args:
        folder: Where the files are and the manifest will be, `<domain>.manifest.json`.
        domain: The domain.
        command: See `write_manifest`, as for the others.
        options: Likewise.
        inputs: Likewise.
        counts: Likewise.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    outputs = [describe_file(path) for path in sorted(folder.iterdir())]
    write_manifest(folder / f"{domain}{MANIFEST}", command, options, inputs, counts, outputs)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, as a manifest is; what is none, or is not there, is empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
