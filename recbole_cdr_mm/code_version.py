"""Which code computes: a hash by which outcomes of another version are told apart."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path

import dataset_tools
import recbole_cdr_mm
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.packaged import PROPERTIES

# What only starts runs, or works on their results, changes none.
_APART = ("benchmark", "parallel", "tune")
_LIBRARIES = ("recbole", "torch", "numpy", "scipy", "pandas")


@functools.cache
def code_version() -> str:
    """A hash of this package's code and defaults, and of the libraries that compute.

    Changes of the benchmark and of searches do not change it, for they change no run.
    """
    package = Path(recbole_cdr_mm.__file__).parent
    files = [
        *(file for file in package.rglob("*.py") if _computes(file.relative_to(package))),
        *Path(dataset_tools.__file__).parent.glob("*.py"),
        *(file for file in PROPERTIES.rglob("*.yaml") if file.name != "benchmark.yaml"),
    ]
    releases = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    hashes = sorted(f"{file.name} {describe_file(file)['sha256']}" for file in files)
    return hashlib.sha256("\n".join([*releases, *hashes]).encode()).hexdigest()[:12]


def _computes(file: Path) -> bool:
    return file.parts[0] not in _APART
