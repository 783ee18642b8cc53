"""Which raw files there are and where: `urls.yaml`, or a table of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from recbole_cdr_mm.errors import ConfigError, did_you_mean

RELEASES = ("2014", "2018", "2023")
KINDS = ("reviews", "meta")  # those that the other commands need


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch; `bytes` and `sha256` say what it must be, where that is known."""

    release: str
    category: str
    kind: str
    url: str
    name: str
    bytes: int | None = None
    sha256: str | None = None


def plan(
    release: str,
    category: Sequence[str] | None = None,
    kind: Sequence[str] = KINDS,
    urls: Path | None = None,
) -> list[RemoteFile]:
    """Look up what is to be fetched.

    Args:
        release: One of `RELEASES`.
        category: Names of categories of the release; by default all.
        kind: Names of kinds of file.
        urls: A table of URLs instead of the packaged one.

    Returns:
        The files, in the order of categories and kinds.

    Raises:
        ConfigError: If a name is unknown, or the table is malformed; names file and key.
    """
    table = _read_table(urls)
    _choose("release", release, table, f"the table of URLs; there are {', '.join(table)}")
    files = table[release]
    categories = list(dict.fromkeys(file.category for file in files.values()))
    kinds = list(dict.fromkeys(file.kind for file in files.values()))
    for name in category or ():
        _choose("category", name, categories, f"release {release}; `--list` shows its categories")
    for name in kind:
        _choose("kind", name, kinds, f"release {release}; there are {', '.join(kinds)}")
    return [
        file
        for chosen in dict.fromkeys(categories if category is None else category)
        for chosen_kind in dict.fromkeys(kind)
        for file in files.values()
        if (file.category, file.kind) == (chosen, chosen_kind)
    ]


def _read_table(path: Path | None) -> dict[str, dict[str, RemoteFile]]:
    """All files of each release, by name."""
    where = "urls.yaml" if path is None else str(path)
    try:
        if path is None:
            text = (
                resources.files("dataset_tools.fetch").joinpath(where).read_text(encoding="utf-8")
            )
        else:
            text = path.read_text(encoding="utf-8")
        table = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror}). Correct --urls.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: is no YAML ({reason}). Correct it.") from error
    releases = _mapping(table, where, known=RELEASES)
    return {name: _read_release(name, value, where) for name, value in releases.items()}


def _read_release(release: str, value: object, where: str) -> dict[str, RemoteFile]:
    """All files of a release, by name."""
    where = f"{where}, `{release}`"
    entries = _mapping(value, where, ("kinds", "categories", "files"), ("kinds", "categories"))
    categories = entries["categories"]
    if not isinstance(categories, list) or not categories:
        raise ConfigError(f"{where}, `categories`: must be a list of names.")
    files: dict[str, RemoteFile] = {}
    for kind, templates in _mapping(entries["kinds"], f"{where}, `kinds`").items():
        url, name = _read_kind(templates, f"{where}, `kinds`, `{kind}`")
        for category in categories:
            if not isinstance(category, str) or not re.fullmatch(r"\w[\w.'&-]*", category):
                raise ConfigError(
                    f"{where}, `categories`: `{category}` cannot be part of a file name."
                )
            file = RemoteFile(
                release=release,
                category=category,
                kind=kind,
                url=url.replace("{category}", category),
                name=name.replace("{category}", category),
            )
            if file.name in files:
                raise ConfigError(
                    f"{where}, `kinds`: two files would be called `{file.name}`, of the kinds "
                    f"`{files[file.name].kind}` and `{kind}`. Give one kind another `name`."
                )
            files[file.name] = file
    return files | _read_known(entries.get("files", {}), f"{where}, `files`", files)


def _read_kind(value: object, where: str) -> tuple[str, str]:
    """Templates of URL and name."""
    templates = _mapping(value, where, ("url", "name"), ("url",))
    for key, template in templates.items():
        if not isinstance(template, str) or re.findall(r"{.*?}", template) != ["{category}"]:
            raise ConfigError(
                f"{where}, `{key}`: must be a text with {{category}} in it, once, and no other "
                "braces."
            )
    url = templates["url"]
    if not re.match(r"https?://[^/]", url):
        raise ConfigError(f"{where}, `url`: `{url}` must begin with http:// or https://.")
    name = templates.get("name", PurePosixPath(urlsplit(url).path).name)
    if PurePosixPath(name).name != name or "\\" in name or "{category}" not in name:
        raise ConfigError(
            f"{where}, `name`: `{name}` must be a plain name with {{category}} in it."
        )
    return url, name


def _read_known(
    value: object, where: str, files: Mapping[str, RemoteFile]
) -> dict[str, RemoteFile]:
    """The files of which it is known what they must be."""
    if value in (None, {}):
        return {}
    known = {}
    for name, entry in _mapping(value, where, known=files).items():
        properties = _mapping(entry, f"{where}, `{name}`", known=("bytes", "sha256"))
        size, sha256 = properties.get("bytes"), properties.get("sha256")
        if size is not None and (type(size) is not int or size <= 0):
            raise ConfigError(f"{where}, `{name}`, `bytes`: `{size}` must be a number above 0.")
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise ConfigError(
                f"{where}, `{name}`, `sha256`: `{sha256}` must be 64 lower-case hexadecimal "
                "digits, in quotes."
            )
        file = files[name]
        known[name] = RemoteFile(
            file.release, file.category, file.kind, file.url, name, size, sha256
        )
    return known


def _mapping(
    value: object,
    where: str,
    known: Iterable[str] | None = None,
    required: Iterable[str] = (),
) -> dict[str, Any]:
    """Refuse what is no mapping, or has keys that it cannot have or lacks those it must."""
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{where}: must have keys with values.")
    entries = {str(key): entry for key, entry in value.items()}
    if known is not None:
        known = list(known)
        for key in entries:
            if key not in known:
                nearest = did_you_mean(key, known)
                raise ConfigError(f"{where}: unknown key `{key}`.{nearest} Correct it.")
    for key in required:
        if key not in entries:
            raise ConfigError(f"{where}: there is no `{key}`. Add it.")
    return entries


def _choose(what: str, name: str, known: Iterable[str], where: str) -> None:
    """Refuse a name that is not among the known ones."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"{what} `{name}` is not in {where}.{did_you_mean(str(name), known)}")
