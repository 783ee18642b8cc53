"""Where the property files are: in the installed package, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent

# Looked for by place, not by import: so each checkout has its own, whatever is installed.
PROPERTIES = next(
    folder
    for folder in (_PACKAGE / "properties", _PACKAGE.parent / "properties")
    if (folder / "overall.yaml").is_file()
)
