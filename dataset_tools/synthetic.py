"""Made-up pairs of domains with a known truth: the command `synthetic`, and the tests' worlds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.domains import refuse_domain_folder
from dataset_tools.feature_store import content_hash, item_texts, write_store
from dataset_tools.manifest import write_domain_manifest
from dataset_tools.pair import write_pair_file
from dataset_tools.safe_output import atomic_folder
from recbole_cdr_mm.errors import ConfigError, did_you_mean

LOW, HIGH = 1.0, 5.0
FEATURE_NOISE = 0.5
MANY = 1 << 26  # users times items; above it their weights are not laid out for each pair of them
DEVIATES = [NormalDist().inv_cdf((step + 0.5) / 200) for step in range(200)]
FIRST_DAY, DAYS, DAY = 1_104_537_600, 3000, 86_400  # 2005 to early 2013, as Amazon's times

MOODS = ("dark brutal frantic savage".split(), "tender gentle graceful warm".split())


@dataclass(frozen=True)
class Style:
    """How the items of a domain are named and written about; the words tell an item's group."""

    letter: str
    genres: tuple[dict[str, str], dict[str, str]]  # words of each genre, for each group
    sentences: tuple[str, ...]


MOVIE = Style(
    "m",
    (
        {
            "science fiction": "starship cyborg galaxy laboratory comet colony robot meteor",
            "horror": "demon graveyard vampire crypt curse werewolf cellar nightmare",
            "action": "shootout commando hijacker missile gunfight mercenary helicopter bomb",
            "crime thriller": "detective murder gangster heist hostage ransom sniper verdict",
        },
        {
            "romance": "wedding sweetheart kiss bouquet love-letter bride valentine honeymoon",
            "family": "puppy grandmother birthday treehouse bedtime-story pony kitten picnic",
            "musical": "ballroom chorus dancer songbook spotlight waltz melody rehearsal",
            "period drama": "governess manor countess garden-party parsonage vicar carriage duke",
        },
    ),
    (
        "A {mood} {genre} film about a {a} and a {b}.",
        "When the {a} is gone, only the {b} is left.",
        "This is {genre} at its most {mood}: a {a}, a {b} and one long night.",
        "Fans of {genre} will not forget the {a}.",
        "The director turns a {b} into the heart of a {mood} story.",
    ),
)
CD = Style(
    "c",
    (
        {
            "heavy metal": "guitar-riff double-bass-drum thunder blade fury chain dragon scream",
            "techno": "synthesizer drum-machine strobe bassline warehouse sequencer laser loop",
            "punk": "riot safety-pin power-chord squat siren fist mohawk garage",
            "hip hop": "turntable rhyme beatbox sampler street-corner microphone scratch cypher",
        },
        {
            "classical": "string-quartet sonata cello symphony prelude nocturne harpsichord flute",
            "folk": "fiddle ballad steel-guitar harvest banjo shepherd meadow lullaby",
            "smooth jazz": "saxophone trumpet candlelight piano-trio lounge serenade clarinet moon",
            "gospel": "choir hymn pipe-organ prayer blessing chapel carol psalm",
        },
    ),
    (
        "A {mood} {genre} album built around a {a} and a {b}.",
        "The title track sets a {a} against a {b}.",
        "This is {genre} at its most {mood}, from the first {a} to the last {b}.",
        "Listeners of {genre} will know the {a} at once.",
        "Recorded live, with a {b} that makes every song {mood}.",
    ),
)


@dataclass(frozen=True)
class World:
    """What is planted; the numbers are standard deviations unless another thing is said."""

    transferred: float  # share of the variance of target user vectors that the source explains
    bias_correlation: float  # of a user's generosity in the two domains
    opposite_maps: bool = False  # whether the second group has the first one's map times -1
    own_group: float = 0.9  # share of a user's source items that come from the user's own group
    mean: float = 3.0
    signal: float = 0.8
    user_bias: float = 0.1
    item_bias: float = 0.1
    popularity: float = 0.0  # exponent of the power law; 0 makes all items alike
    activity: float = 0.0  # of the logarithm of the number of ratings of a user
    genre_share: float = 0.0  # share of the variance of item vectors that the genre explains
    without_text: float = 0.0  # share of items


WORLDS = {
    "one_linear_map": World(transferred=1.0, bias_correlation=1.0),
    # With a larger share of own items a joint factorisation of both domains tells the groups apart
    # without their texts: by turning all item vectors of one group around.
    "two_groups": World(transferred=1.0, bias_correlation=1.0, opposite_maps=True, own_group=0.75),
    "no_signal": World(transferred=0.0, bias_correlation=0.0),
    "demo": World(
        transferred=0.8,
        bias_correlation=0.7,
        opposite_maps=True,
        mean=4.5,
        signal=0.7,
        user_bias=0.5,
        item_bias=0.35,
        popularity=0.8,
        activity=0.5,
        genre_share=0.5,
        without_text=0.05,
    ),
}


@dataclass(frozen=True, eq=False)
class SyntheticPair:
    """Two domains and the truth behind them.

    Users stand in the order of `users`: overlapped ones first, then source-only, then target-only
    ones. Items stand in the order of `source_items` and `target_items`.

    Attributes:
        structure: Key of `WORLDS`.
        seed: What it was made with.
        n_overlapped: How many users are in both domains.
        source_inter: `user_id`, `item_id`, `rating`, `timestamp`.
        target_inter: Likewise.
        source_items: `item_id`, `title`, `text`.
        target_items: Likewise.
        users: The users of both domains.
        groups: Group of each user, 0 or 1 (U,).
        source_user_vectors: u^s (U, k).
        target_user_vectors: u^t (U, k).
        maps: M of each group (2, k, k).
        source_item_vectors: v^s (I, k).
        target_item_vectors: v^t (I, k).
        source_item_groups: Group that an item's text tells, 0 or 1 (I,).
        target_item_groups: Likewise.
        target_expected: Mean of each rating of `target_inter` if noise alone were drawn again.
        noise_floor: RMSE of `target_expected`, which no prediction beats.
    """

    structure: str
    seed: int
    n_overlapped: int
    source_inter: pd.DataFrame
    target_inter: pd.DataFrame
    source_items: pd.DataFrame
    target_items: pd.DataFrame
    users: list[str]
    groups: np.ndarray
    source_user_vectors: np.ndarray
    target_user_vectors: np.ndarray
    maps: np.ndarray
    source_item_vectors: np.ndarray
    target_item_vectors: np.ndarray
    source_item_groups: np.ndarray
    target_item_groups: np.ndarray
    target_expected: np.ndarray
    noise_floor: float


def make_pair(
    structure: str = "two_groups",
    *,
    n_overlapped: int = 1000,
    n_source_only: int = 200,
    n_target_only: int = 200,
    n_source_items: int = 300,
    n_target_items: int = 300,
    source_ratings_per_user: int = 40,
    target_ratings_per_user: int = 40,
    embedding_size: int = 4,
    noise: float = 0.2,
    integer_ratings: bool = False,
    seed: int = 0,
) -> SyntheticPair:
    """Make a pair of domains in which it is known what the source says about the target.

    For user u of group g, item i of a domain, k = `embedding_size` and `w` of `WORLDS[structure]`:

        u^s, own       uniform on the sphere of radius sqrt(k)
        v_i          = sqrt(w.genre_share) genre + sqrt(1 - w.genre_share) own, of length 1 each
        u^t          = sqrt(w.transferred) u^s R_g + sqrt(1 - w.transferred) own
        b^t_u        = c b^s_u + sqrt(1 - c^2) b_own,  c = w.bias_correlation
        rating_ui    = clip(round(w.mean + b_i + b_u + w.signal u . v_i + noise e), 1, 5)

    R_g is a rotation, the same for both groups, or R and -R with `opposite_maps`: then the best
    single linear map is 0. `round` only with `integer_ratings`. Users take most of their source
    items (`w.own_group`) from those whose text tells their group; vectors and ratings do not depend
    on the group of an item (without `genre_share`), so the ratings alone do not tell a user's
    group. Target items are chosen without regard to groups.

    Args:
        structure: `one_linear_map`, `two_groups`, `no_signal` (the target knows nothing of the
            source, nor do its user biases) or `demo` (something of all, with skewed stars).
        n_overlapped: Users in both domains.
        n_source_only: Users in the source domain only.
        n_target_only: Users in the target domain only.
        n_source_items: Items of the source domain.
        n_target_items: Items of the target domain.
        source_ratings_per_user: Ratings of each user there; the median, with `activity`.
        target_ratings_per_user: Likewise.
        embedding_size: k.
        noise: Standard deviation of what nothing explains.
        integer_ratings: Whether ratings are whole stars.
        seed: Decides everything that is drawn.

    Raises:
        ConfigError: If `structure` is unknown, or a number cannot be.
    """
    if structure not in WORLDS:
        raise ConfigError(
            f"structure `{structure}` is not one of {', '.join(WORLDS)}."
            f"{did_you_mean(structure, WORLDS)}"
        )
    _check_sizes(n_overlapped, n_source_only, n_target_only)
    _check_ratings(source_ratings_per_user, n_source_items)
    _check_ratings(target_ratings_per_user, n_target_items)
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}.")
    world = WORLDS[structure]
    rng = np.random.default_rng(seed)
    n_users = n_overlapped + n_source_only + n_target_only
    users = np.array([f"u{number:06d}" for number in rng.permutation(n_users)])
    groups = rng.integers(0, 2, n_users)
    source_vectors, own = np.sqrt(embedding_size) * sphere(rng, (2, n_users, embedding_size))
    rotation = np.linalg.qr(rng.standard_normal((embedding_size, embedding_size)))[0]
    second = -rotation if world.opposite_maps else rotation
    maps = np.sqrt(world.transferred) * np.stack([rotation, second])  # (2, k, k)
    target_vectors = np.einsum("uk,ukl->ul", source_vectors, maps[groups])  # (U, k)
    target_vectors += np.sqrt(1 - world.transferred) * own
    source_biases, own_biases = world.user_bias * rng.standard_normal((2, n_users))
    share = world.bias_correlation
    target_biases = share * source_biases + np.sqrt(1 - share**2) * own_biases
    source_items = _make_items(rng, world, MOVIE, n_source_items, embedding_size)
    target_items = _make_items(rng, world, CD, n_target_items, embedding_size)

    def observe(exact: np.ndarray, deviates: np.ndarray | float) -> np.ndarray:
        ratings = exact + noise * deviates
        return np.clip(np.rint(ratings) if integer_ratings else ratings, LOW, HIGH)

    def rate(
        items: _Items, user: np.ndarray, item: np.ndarray, vectors: np.ndarray, biases: np.ndarray
    ) -> tuple[pd.DataFrame, np.ndarray]:
        exact = world.mean + biases[user] + items.biases[item]
        exact += world.signal * (vectors[user] * items.vectors[item]).sum(1)
        days = rng.integers(0, DAYS, len(user))
        columns = {
            "user_id": users[user],
            "item_id": items.frame["item_id"].to_numpy()[item],
            "rating": observe(exact, rng.standard_normal(len(user))),
            "timestamp": (FIRST_DAY + DAY * days).astype(np.float64),
        }
        expected = np.zeros(len(user))
        for deviate in DEVIATES:
            expected += observe(exact, deviate) / len(DEVIATES)
        return pd.DataFrame(columns), expected

    in_source = np.arange(n_users) < n_overlapped + n_source_only
    in_target = ~in_source | (np.arange(n_users) < n_overlapped)
    chosen = _choose(
        rng, world, in_source, source_items, source_ratings_per_user, groups, world.own_group
    )
    source_inter, _ = rate(source_items, *chosen, source_vectors, source_biases)
    chosen = _choose(rng, world, in_target, target_items, target_ratings_per_user, groups, 0.5)
    target_inter, expected = rate(target_items, *chosen, target_vectors, target_biases)
    return SyntheticPair(
        structure=structure,
        seed=seed,
        n_overlapped=n_overlapped,
        source_inter=source_inter,
        target_inter=target_inter,
        source_items=source_items.frame,
        target_items=target_items.frame,
        users=users.tolist(),
        groups=groups,
        source_user_vectors=source_vectors,
        target_user_vectors=target_vectors,
        maps=maps,
        source_item_vectors=source_items.vectors,
        target_item_vectors=target_items.vectors,
        source_item_groups=source_items.groups,
        target_item_groups=target_items.groups,
        target_expected=expected,
        noise_floor=float(np.sqrt(np.mean((target_inter["rating"] - expected) ** 2))),
    )


def write_pair(
    pair: SyntheticPair, data_path: Path, name: str, options: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """Write both domains as atomic files with manifests, and the YAML that makes them a pair.

    Args:
        pair: The pair.
        data_path: The folder of the domains.
        name: The pair; its domains are `<name>_movie` and `<name>_cd`.
        options: What else than its structure and seed it was made with, for the manifests.

    Returns:
        The names of source and target domain.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    source, target = domain_names(name)
    frames = {
        source: (pair.source_inter, pair.source_items),
        target: (pair.target_inter, pair.target_items),
    }
    counts = {
        domain: {
            "users": inter["user_id"].nunique(),
            "items": len(items),
            "ratings": len(inter),
        }
        for domain, (inter, items) in frames.items()
    }
    options = {"structure": pair.structure, "seed": pair.seed, **(options or {})}
    write_domains(data_path, name, frames, counts, options)
    return source, target


def write_domains(
    data_path: Path,
    name: str,
    frames: Mapping[str, tuple[Any, Any]],
    counts: Mapping[str, Mapping[str, int]],
    options: Mapping[str, Any],
) -> None:
    """Write two domains with manifests, and the YAML that makes them a pair.

    Args:
        data_path: The folder of the domains.
        name: The pair.
        frames: Of each domain, source first, what `write_inter` and `write_items` take.
        counts: Of each domain, for its manifest.
        options: What they were made with, for the manifests.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    refuse_domain_folder(data_path, name)
    for domain, (inter, items) in frames.items():
        with atomic_folder(data_path / domain, domain) as folder:
            write_inter(folder / f"{domain}.inter", inter)
            write_items(folder / f"{domain}.item", items)
            write_domain_manifest(
                folder, domain, "synthetic", dict(options), inputs=[], counts=dict(counts[domain])
            )
    write_pair_file(data_path, name, *frames)


def domain_names(name: str) -> tuple[str, str]:
    """Names of the source and the target domain of a pair that `write_pair` writes."""
    return f"{name}_movie", f"{name}_cd"


def planted_features(
    pair: SyntheticPair, dim: int
) -> tuple[tuple[list[str], np.ndarray], tuple[list[str], np.ndarray]]:
    """Text features without an encoder: what the text tells of an item, and noise.

    Args:
        pair: The pair.
        dim: d, size of the features.

    Returns:
        For source and target the items that have a text and their features, float32 (I, d): one
        direction, the same in both domains, times 1 or -1 by the item's group, and noise.
    """
    rng = np.random.default_rng([pair.seed, dim])
    direction = rng.standard_normal(dim)
    features = []
    for items, groups in (
        (pair.source_items, pair.source_item_groups),
        (pair.target_items, pair.target_item_groups),
    ):
        matrix = np.where(groups == 0, 1, -1)[:, None] * direction  # (I, d)
        matrix = matrix + FEATURE_NOISE * rng.standard_normal(matrix.shape)
        told = (items["text"] != "").to_numpy()
        features.append((items["item_id"][told].tolist(), matrix[told].astype(np.float32)))
    return features[0], features[1]


def write_planted_features(pair: SyntheticPair, data_path: Path, name: str, dim: int) -> None:
    """Write `planted_features` as the text feature stores of both domains.

    Args:
        pair: The pair.
        data_path: The folder of the domains.
        name: The pair, as given to `write_pair`.
        dim: d, size of the features.
    """
    for domain, items, (ids, matrix) in zip(
        domain_names(name),
        (pair.source_items, pair.target_items),
        planted_features(pair, dim),
        strict=True,
    ):
        write_planted_store(data_path / domain, domain, items, ids, matrix, pair.seed)


def write_planted_store(
    folder: Path, domain: str, items: pd.DataFrame, ids: list[str], matrix: np.ndarray, seed: int
) -> None:
    """Write planted features of a domain's items as its text feature store.

    Args:
        folder: Of the domain.
        domain: Its name.
        items: All its items, with their texts.
        ids: The items that have features.
        matrix: Their features, float32 (I, d).
        seed: What they were made with.
    """
    texts = item_texts(items, ["title", "text"])
    info = {
        "encoder": "planted",
        "revision_or_hash": f"seed {seed}",
        "pooling": "none",
        "fields": ["title", "text"],
        "counts": {"items": len(items), "with_text": len(ids), "truncated": 0},
        "content_hash": content_hash(texts.keys(), texts.values()),
    }
    write_store(folder, domain, "text", ids, matrix, info)


def make_dataset(
    data_path: Path,
    dataset: str,
    *,
    users: int = 2400,
    items: int = 800,
    overlap: float = 0.625,
    ratings_per_user: int = 14,
    structure: str = "demo",
    seed: int = 0,
) -> SyntheticPair:
    """Make a pair and write it: the command `synthetic`.

    Args:
        data_path: The folder of the domains.
        dataset: The pair; its domains are `<dataset>_movie` and `<dataset>_cd`.
        users: Users in all.
        items: Items of each domain.
        overlap: Share of the users that are in both domains; the rest is in one of them.
        ratings_per_user: Ratings of a user in a domain.
        structure: What is planted, a key of `WORLDS`.
        seed: Decides everything that is drawn.

    Returns:
        The pair.

    Raises:
        ConfigError: If a number or the structure cannot be, or a folder cannot be written to.
    """
    if not 0 < overlap <= 1:
        raise ConfigError(f"overlap must be above 0 and at most 1, not {overlap:g}.")
    n_overlapped = round(users * overlap)
    n_source_only = (users - n_overlapped) // 2
    pair = make_pair(
        structure,
        n_overlapped=n_overlapped,
        n_source_only=n_source_only,
        n_target_only=users - n_overlapped - n_source_only,
        n_source_items=items,
        n_target_items=items,
        source_ratings_per_user=ratings_per_user,
        target_ratings_per_user=ratings_per_user,
        noise=0.5 if structure == "demo" else 0.2,
        integer_ratings=structure == "demo",
        seed=seed,
    )
    sizes = {"users": users, "items": items, "overlap": overlap}
    write_pair(pair, data_path, dataset, {**sizes, "ratings_per_user": ratings_per_user})
    return pair


@dataclass(frozen=True, eq=False)
class _Items:
    """Items of a domain and the truth behind them."""

    frame: pd.DataFrame
    groups: np.ndarray
    vectors: np.ndarray
    biases: np.ndarray


def _check_sizes(n_overlapped: int, n_source_only: int, n_target_only: int) -> None:
    """Refuse a pair without overlapped users."""
    if n_overlapped < 1 or n_source_only < 0 or n_target_only < 0:
        raise ConfigError(
            "There must be an overlapped user and no negative number of users, not "
            f"{n_overlapped} overlapped, {n_source_only} source-only, {n_target_only} target-only."
        )


def _check_ratings(ratings_per_user: int, n_items: int) -> None:
    """Refuse more ratings of a user than there are items, for each item is rated once."""
    if not 1 <= ratings_per_user <= n_items:
        raise ConfigError(
            f"ratings_per_user must be 1 to {n_items}, the number of items, not {ratings_per_user}."
        )


def sphere(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw vectors of length 1, all directions alike."""
    vectors = rng.standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _make_items(
    rng: np.random.Generator, world: World, style: Style, n_items: int, embedding_size: int
) -> _Items:
    """Draw items: group, genre, vector, bias and what is written about them."""
    groups = rng.integers(0, 2, n_items)
    genres = rng.integers(0, len(style.genres[0]), n_items)
    centres = sphere(rng, (2, len(style.genres[0]), embedding_size))
    vectors = np.sqrt(world.genre_share) * centres[groups, genres]  # (I, k)
    vectors += np.sqrt(1 - world.genre_share) * sphere(rng, (n_items, embedding_size))
    rows = []
    bar = tqdm(zip(groups, genres, strict=True), total=n_items, unit="item", disable=None)
    for number, (group, genre) in enumerate(bar):
        title, text = describe(rng, style, group, genre)
        silent = rng.random() < world.without_text
        rows.append(
            (f"{style.letter}{number:05d}", "" if silent else title, "" if silent else text)
        )
    frame = pd.DataFrame(rows, columns=["item_id", "title", "text"])
    return _Items(frame, groups, vectors, world.item_bias * rng.standard_normal(n_items))


def describe(rng: np.random.Generator, style: Style, group: int, genre: int) -> tuple[str, str]:
    """Write a title and a text of three sentences in the words of a genre."""
    name, words = list(style.genres[group].items())[genre]
    first, *others = (word.replace("-", " ") for word in rng.permutation(words.split()))
    sentences = []
    for row in sorted(rng.permutation(len(style.sentences))[:3]):
        sentences.append(
            style.sentences[row].format(
                mood=rng.choice(MOODS[group]), genre=name, a=others.pop(), b=others.pop()
            )
        )
    return f"The {rng.choice(MOODS[group])} {first}".title(), " ".join(sentences)


def _choose(
    rng: np.random.Generator,
    world: World,
    present: np.ndarray,
    items: _Items,
    ratings_per_user: int,
    groups: np.ndarray,
    own_group: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw which user rates which items, each at most once: rows of users and of items.

    The items with the highest log-weight plus Gumbel noise are a weighted draw without putting
    back. Where users and items are many, the same draw is made by putting back and drawing again.
    """
    ranks = rng.permutation(len(items.groups)) + 1
    popularity = -world.popularity * np.log(ranks)
    weights = np.log([[own_group, 1 - own_group], [1 - own_group, own_group]])
    by_group = popularity + weights[:, items.groups]  # (2, I)
    if int(present.sum()) * len(ranks) > MANY:
        many = np.flatnonzero(present)
        factors = np.exp(world.activity * rng.standard_normal(len(many)))
        counts = np.rint(ratings_per_user * factors).clip(1, len(ranks)).astype(np.int64)
        owners, items_of = _draw_again(rng, np.exp(by_group), groups[many], counts)
        return many[owners], items_of
    users, chosen = [], []
    for user in np.flatnonzero(present):
        factor = np.exp(world.activity * rng.standard_normal())
        count = int(np.clip(round(ratings_per_user * factor), 1, len(ranks)))
        keys = by_group[groups[user]] + rng.gumbel(size=len(ranks))
        chosen.append(np.sort(np.argsort(-keys, kind="stable")[:count]))
        users.append(np.full(count, user))
    return np.concatenate(users), np.concatenate(chosen)


def _draw_again(
    rng: np.random.Generator, weights: np.ndarray, groups: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each user's items by weight, and again for those that the user has already.

    Args:
        rng: Draws.
        weights: Of each item for each group (2, I).
        groups: Of each user (U,).
        counts: Different items of each user (U,).

    Returns:
        Users and items (N,), sorted.
    """
    ends = np.cumsum(weights, axis=1)  # (2, I)
    n_items = weights.shape[1]
    drawn = np.empty(0, dtype=np.int64)
    missing = counts
    while missing.any():
        owner = np.repeat(np.arange(len(counts)), missing)
        point = rng.random(len(owner)) * ends[groups[owner], -1]
        item = np.empty(len(owner), dtype=np.int64)
        for group in (0, 1):
            own = groups[owner] == group
            item[own] = np.searchsorted(ends[group], point[own], side="right")
        drawn = np.union1d(drawn, owner * n_items + item.clip(max=n_items - 1))
        missing = counts - np.bincount(drawn // n_items, minlength=len(counts))
    return drawn // n_items, drawn % n_items
