"""The domains that a command works on, and their items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dataset_tools.atomic import read_items
from recbole_cdr_mm.errors import ConfigError, DataFormatError, did_you_mean
from recbole_cdr_mm.packaged import PROPERTIES


def domains_of(data_path: Path, dataset: str) -> list[str]:
    """Find the domains of a data set: both of a pair, or the domain itself.

    Args:
        data_path: The folder of the domains; `<data_path>/<pair>/<pair>.yaml` names a pair's two.
        dataset: A pair, there or packaged, or a domain.

    Returns:
        The names of the domains, the source domain of a pair first.

    Raises:
        ConfigError: If the pair's YAML is malformed.
        DataFormatError: If a domain is not there.
    """
    name = Path(dataset, f"{dataset}.yaml")
    packaged = PROPERTIES / "dataset" / name.name
    for file in (data_path / name, packaged):
        if file.is_file():
            domains = _pair(name.name, read_pair_file(file))
            break
    else:
        domains = [dataset]
    for domain in domains:
        if not (data_path / domain / f"{domain}.inter").is_file():
            there = sorted(
                path.stem for path in data_path.glob("*/*.*") if path.suffix in (".inter", ".yaml")
            )
            what = (
                f"there is no {domain}/{domain}.inter and no pair `{dataset}`"
                if domains == [dataset]
                else f"there is no {domain}/{domain}.inter, of the pair `{dataset}`"
            )
            raise DataFormatError(
                f"{data_path}: {what}.{did_you_mean(domain, there)} "
                "Correct --data_path and --dataset, or convert the data first."
            )
    return domains


def read_pair_file(file: Path) -> dict[str, Any]:
    """Read the settings of a pair's YAML.

    Raises:
        ConfigError: If it is no YAML, or has no settings.
    """
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file.name}: is no YAML ({reason}). Correct it.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{file.name}: a pair needs `source_dataset` and `target_dataset`.")
    return settings


def refuse_pair_folder(data_path: Path, domain: str) -> None:
    """Refuse to put a domain into the folder of a pair, where it would not be found.

    Raises:
        ConfigError: If the folder has the YAML of a pair.
    """
    file = data_path / domain / f"{domain}.yaml"
    if file.exists():
        raise ConfigError(f"`{domain}` is a pair: there is {file}. Take another --dataset.")


def refuse_domain_folder(data_path: Path, pair: str) -> None:
    """Refuse to make a pair of a domain's name, which would hide the domain.

    Raises:
        ConfigError: If the folder has the ratings of a domain, or a file has its name.
    """
    folder = data_path / pair
    if (folder / f"{pair}.inter").exists():
        raise ConfigError(f"`{pair}` is a domain: there is {pair}.inter. Take another name.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file. Take another name, or remove it.")


def items_of(data_path: Path, domain: str) -> set[str]:
    """Find all items of a domain, rated or described.

    Args:
        data_path: The folder of the domains.
        domain: The domain.

    Returns:
        The items.

    Raises:
        DataFormatError: If a file is malformed.
    """
    paths = [data_path / domain / f"{domain}.{end}" for end in ("inter", "item")]
    return {
        item for path in paths if path.is_file() for item in read_items(path, fields=())["item_id"]
    }


def refuse_pair(data_path: Path, dataset: str, why: str, option: str) -> None:
    """Refuse a pair where each domain needs a file or folder of its own.

    Args:
        data_path: The folder of the domains.
        dataset: What should be a domain.
        why: What the file or folder has.
        option: The option that names it, for the commands to run instead.

    Raises:
        ConfigError: If it is a pair.
        DataFormatError: If a domain is not there.
    """
    domains = domains_of(data_path, dataset)
    if domains == [dataset]:
        return
    commands = " and ".join(
        f"`python -m dataset_tools image {option} --dataset={domain} --data_path={data_path}`"
        for domain in domains
    )
    raise ConfigError(
        f"dataset `{dataset}` is a pair, but {why}. Give its domains one at a time, each with its "
        f"own: {commands}."
    )


def _pair(name: str, pair: dict[str, Any]) -> list[str]:
    """The two domains of a pair."""
    keys = ("source_dataset", "target_dataset")
    if not all(isinstance(pair.get(key), str) for key in keys):
        raise ConfigError(f"{name}: a pair needs `source_dataset` and `target_dataset`.")
    domains = [pair[key] for key in keys]
    if domains[0] == domains[1]:
        raise ConfigError(f"{name}: source and target are both `{domains[0]}`. Name two domains.")
    return domains
