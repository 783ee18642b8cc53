"""What a domain or a pair holds, and what the floors reach on it: the command `stats`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from dataset_tools.atomic import read_items
from dataset_tools.biases import fit_biases
from dataset_tools.domains import domains_of
from dataset_tools.feature_store import item_texts
from dataset_tools.histograms import draw_histograms
from dataset_tools.pair import (
    Domain,
    Size,
    overlapped_users,
    read_domains,
    read_rating_range,
    sizes_of,
)
from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.packaged import PROPERTIES

FOLDS = 5
FEW_VALIDATION_USERS = 50  # with fewer, one split says little about which settings are best
CLEAR = 2  # standard errors

Errors = dict[str, tuple[float, float]]  # MAE and RMSE of each floor


@dataclass(frozen=True)
class DomainStats(Size):
    """What a domain holds.

    Attributes:
        mean_rating: Of all ratings.
        first_year: Of the first rating, in UTC; None without timestamps.
        last_year: Likewise of the last one.
        items_with_text: Rated items with a title or a text; None without an `.item` file.
    """

    mean_rating: float
    first_year: int | None
    last_year: int | None
    items_with_text: int | None


@dataclass(frozen=True)
class Estimate:
    """Mean over folds and its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        """For a table."""
        return f"{self.mean:.4f} ± {self.error:.4f}"


@dataclass(frozen=True)
class Floors:
    """What floors reach on overlapped users whose target ratings are hidden.

    Attributes:
        users_per_fold: How many users are hidden at a time, the fewest of any fold.
        validation_users: How many the default split has.
        mae: Of each floor, by its name.
        rmse: Likewise.
        gain: How far the RMSE of BiasTransfer is below that of ItemMean, fold by fold.
    """

    users_per_fold: int
    validation_users: int
    mae: dict[str, Estimate]
    rmse: dict[str, Estimate]
    gain: Estimate


@dataclass(frozen=True)
class Stats:
    """What there is to know about a domain or a pair.

    Attributes:
        domains: The domain, or source and target.
        floors: For a pair with enough overlapped users.
        verdict: For a pair, whether it is worth it.
        histograms: Where they were drawn to.
    """

    domains: list[DomainStats]
    floors: Floors | None
    verdict: list[str]
    histograms: Path


def make_stats(
    data_path: Path,
    dataset: str,
    *,
    out: Path | None = None,
    json: Path | None = None,
    rating_range: tuple[float, float] | None = None,
) -> Stats:
    """Count, measure the floors and draw histograms: the command `stats`.

    Args:
        data_path: The folder of the domains.
        dataset: A domain or a pair.
        out: Where `<dataset>.stats.png` goes; by default the data set's own folder.
        json: A file for all figures.
        rating_range: Lowest and highest rating; by default the pair's own, or that of stars.

    Raises:
        ConfigError: If the pair's YAML is malformed, or a folder cannot be written to.
        DataFormatError: If a domain is missing or malformed, or no user is in both.
    """
    names = domains_of(data_path, dataset)
    rating_range = rating_range or read_rating_range(data_path, dataset)
    domains = read_domains(data_path, names, rating_range)
    words = [_words(data_path, domain) for domain in domains]
    described = [
        _describe(domain, size, counts)
        for domain, size, counts in zip(domains, sizes_of(domains), words, strict=True)
    ]
    floors, verdict = None, []
    if len(domains) == 2:
        source, target = domains
        floors = measure_floors(source, target, rating_range)
        verdict = judge(described[0].overlapped, floors)
    picture = (out or data_path / dataset) / f"{dataset}.stats.png"
    draw_histograms(picture, domains, words)
    stats = Stats(described, floors, verdict, picture)
    if json is not None:
        _write_json(json, dataset, rating_range, stats)
    return stats


def measure_floors(
    source: Domain, target: Domain, rating_range: tuple[float, float], *, seed: int = 0
) -> Floors | None:
    """Measure the floors on overlapped users, each hidden once, in `FOLDS` folds.

    Args:
        source: The source domain.
        target: The target domain, with users in the same table.
        rating_range: Predictions are clipped to it.
        seed: Draws the folds.

    Returns:
        Means over the folds; None with fewer overlapped users than folds.
    """
    users = np.flatnonzero(overlapped_users([source, target]))
    if len(users) < FOLDS:
        return None
    source_biases = fit_biases(
        source.user,
        source.item,
        source.rating,
        n_users=len(source.users),
        n_items=len(source.items),
        **_arguments("BiasTransfer"),
    )
    users = np.random.default_rng(seed).permutation(users)
    folds: list[Errors] = []
    for fold in tqdm(range(FOLDS), unit="fold", desc="floors", disable=None):
        hidden = np.zeros(len(target.users), dtype=bool)
        hidden[users[fold::FOLDS]] = True
        folds.append(floor_errors(target, source_biases.user, hidden, rating_range))
    mae, rmse = (
        {name: _estimate([fold[name][metric] for fold in folds]) for name in folds[0]}
        for metric in (0, 1)
    )
    return Floors(
        users_per_fold=len(users) // FOLDS,
        validation_users=validation_users(len(users)),
        mae=mae,
        rmse=rmse,
        gain=_estimate([fold["ItemMean"][1] - fold["BiasTransfer"][1] for fold in folds]),
    )


def floor_errors(
    target: Domain,
    source_bias: NDArray[np.float64],
    hidden: NDArray[np.bool_],
    rating_range: tuple[float, float],
) -> Errors:
    """MAE and RMSE of the floors on users whose target ratings are hidden.

    They are the models of these names with the hyperparameters of their property files.

    Args:
        target: The target domain.
        source_bias: Biases of the users in the source domain, (U,).
        hidden: Whose target ratings are predicted from those of all others, (U,).
        rating_range: Predictions are clipped to it.
    """
    is_hidden = hidden[target.user]
    train, test = target.where(~is_hidden), target.where(is_hidden)
    biases = {
        model: fit_biases(
            train.user,
            train.item,
            train.rating,
            n_users=len(train.users),
            n_items=len(train.items),
            **_arguments(model),
        )
        for model in ("ItemMean", "BiasTransfer")
    }
    item_mean, transfer = biases["ItemMean"], biases["BiasTransfer"]
    predicted = {
        "GlobalMean": np.full(len(test.user), item_mean.mean),
        "ItemMean": item_mean.mean + item_mean.item[test.item],
        "BiasTransfer": transfer.mean + transfer.item[test.item] + source_bias[test.user],
    }
    errors = {}
    for name, prediction in predicted.items():
        difference = np.clip(prediction, *rating_range) - test.rating
        errors[name] = (
            float(np.abs(difference).mean()),
            float(np.sqrt(np.square(difference).mean())),
        )
    return errors


def judge(overlapped: int, floors: Floors | None) -> list[str]:
    """Say in a sentence or two whether a pair is worth it.

    Args:
        overlapped: Its overlapped users.
        floors: What the floors reach; None where the users are too few.
    """
    if floors is None:
        return [
            f"Too small: of {overlapped} overlapped users some must be left to train on, some to "
            "validate on and some to test."
        ]
    gain, below = floors.gain, floors.gain.mean / floors.rmse["ItemMean"].mean
    if gain.mean > CLEAR * gain.error:
        first = (
            f"Worth it: the source domain tells how new users rate. It takes {gain.mean:.4f} ± "
            f"{gain.error:.4f} ({below:.1%}) off ItemMean's RMSE even as plain BiasTransfer."
        )
    elif gain.mean < -CLEAR * gain.error:
        first = (
            f"Doubtful: BiasTransfer is worse than ItemMean, which knows nothing of the user, by "
            f"an RMSE of {-gain.mean:.4f} ± {gain.error:.4f}."
        )
    else:
        first = (
            f"Doubtful: what BiasTransfer takes off ItemMean's RMSE, {gain.mean:.4f} ± "
            f"{gain.error:.4f}, may be chance."
        )
    sentences = [
        f"{first} There are {overlapped:,} overlapped users, {floors.users_per_fold:,} a fold."
    ]
    if floors.validation_users < FEW_VALIDATION_USERS:
        sentences.append(
            f"Warning: the default split has {floors.validation_users} validation users, fewer "
            f"than {FEW_VALIDATION_USERS}. Choose settings over several --split_seed, and report "
            "means over them."
        )
    return sentences


def _describe(domain: Domain, size: Size, words: NDArray[np.int64] | None) -> DomainStats:
    years: list[int | None] = [None, None]
    if domain.time is not None:
        ends = (domain.time.min(), domain.time.max())
        # Times in milliseconds, by mistake, are in years that datetime does not have.
        seconds = np.floor(ends).astype("datetime64[s]")
        years = (1970 + seconds.astype("datetime64[Y]").astype(np.int64)).tolist()
    return DomainStats(
        **asdict(size),
        mean_rating=float(domain.rating.mean()),
        first_year=years[0],
        last_year=years[1],
        items_with_text=None if words is None else len(words),
    )


def _words(data_path: Path, domain: Domain) -> NDArray[np.int64] | None:
    """Words of the text of each rated item that has one; None without an `.item` file."""
    path = data_path / domain.name / f"{domain.name}.item"
    if not path.is_file():
        return None
    items = read_items(path)
    texts = item_texts(items[items["item_id"].isin(domain.items)], items.columns[1:])
    return np.array([len(text.split()) for text in texts.values()], dtype=np.int64)


def _arguments(model: str) -> dict[str, Any]:
    """Arguments of `fit_biases` for a floor, as its property file has them."""
    file = PROPERTIES / "model" / f"{model}.yaml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {
        "rounds": defaults.get("bias_rounds", 1),
        "item_shrinkage": defaults["item_shrinkage"],
        "user_shrinkage": defaults.get("user_shrinkage", 0.0),
    }


def validation_users(overlapped: int) -> int:
    """Validation users of the default split."""
    file = PROPERTIES / "overall.yaml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8"))
    rest = overlapped - round(defaults["test_user_ratio"] * overlapped)
    return round(defaults["valid_user_ratio"] * rest)


def _estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error."""
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def _write_json(path: Path, dataset: str, rating_range: tuple[float, float], stats: Stats) -> None:
    domains = [
        {
            **asdict(domain),
            "density": domain.density,
            "ratings_per_user": domain.ratings_per_user,
            "ratings_per_item": domain.ratings_per_item,
        }
        for domain in stats.domains
    ]
    content = {
        "dataset": dataset,
        "rating_range": rating_range,
        "domains": domains,
        "floors": stats.floors and asdict(stats.floors),
        "verdict": stats.verdict,
    }
    with atomic_path(path) as file:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
