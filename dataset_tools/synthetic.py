"""Made-up pairs of domains with a known truth: the command `synthetic`, and the tests' worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import yaml

from dataset_tools.atomic import atomic_path, write_inter, write_items
from dataset_tools.feature_store import content_hash, item_texts, write_store
from recbole_cdr_mm.errors import ConfigError, did_you_mean

LOW, HIGH = 1.0, 5.0
OWN_GROUP = 0.9  # share of a user's source items that come from the user's own group
FEATURE_NOISE = 0.5
FIRST_DAY, DAYS, DAY = 1_104_537_600, 3000, 86_400  # 2005 to early 2013, as Amazon's times

MOVIE_GENRES: tuple[dict[str, str], dict[str, str]] = (
    {
        "science fiction": "starship android galaxy laboratory alien colony robot asteroid",
        "horror": "demon graveyard vampire asylum curse werewolf cellar nightmare",
        "action": "explosion commando hijacker missile gunfight mercenary helicopter bomb",
        "crime thriller": "detective murder gangster heist hostage informer sniper alibi",
    },
    {
        "romance": "wedding sweetheart kiss bouquet love-letter bride valentine honeymoon",
        "family": "puppy grandmother birthday treehouse bedtime-story pony kitten picnic",
        "musical": "ballroom chorus dancer songbook spotlight waltz melody rehearsal",
        "period drama": "governess manor inheritance countess garden-party parsonage vicar carriage",
    },
)
CD_GENRES: tuple[dict[str, str], dict[str, str]] = (
    {
        "heavy metal": "guitar-riff double-bass-drum scream distortion thunder amplifier blade fury",
        "techno": "synthesizer drum-machine strobe bassline warehouse sequencer laser loop",
        "punk": "riot safety-pin power-chord squat siren fist mohawk garage",
        "hip hop": "turntable rhyme beatbox sampler street-corner microphone scratch cypher",
    },
    {
        "classical": "string-quartet sonata cello symphony pianist overture nocturne harpsichord",
        "folk": "fiddle ballad acoustic-guitar harvest banjo shepherd meadow lullaby",
        "smooth jazz": "saxophone trumpet candlelight brushed-drum piano-trio lounge serenade ballad",
        "gospel": "choir hymn organ prayer blessing chapel carol psalm",
    },
)
MOODS = ("dark brutal frantic savage".split(), "tender gentle graceful warm".split())
MOVIE_SENTENCES = (
    "A {mood} {genre} film about a {a} and a {b}.",
    "When the {a} is gone, only the {b} is left.",
    "{genre} at its most {mood}: a {a}, a {b} and one long night.",
    "Fans of {genre} will not forget the {a}.",
    "The director turns a {b} into the heart of a {mood} story.",
)
CD_SENTENCES = (
    "A {mood} {genre} album built around a {a} and a {b}.",
    "The title track sets a {a} against a {b}.",
    "{genre} at its most {mood}, from the first {a} to the last {b}.",
    "Listeners of {genre} will know the {a} at once.",
    "Recorded live, with a {b} that makes every song {mood}.",
)


@dataclass(frozen=True)
class World:
    """What is planted; the numbers are standard deviations unless another thing is said."""

    transferred: float  # share of the variance of target user vectors that the source explains
    bias_correlation: float  # of a user's generosity in the two domains
    opposite_maps: bool = False  # whether the second group has the first one's map times -1
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
    "two_groups": World(transferred=1.0, bias_correlation=1.0, opposite_maps=True),
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
        v_i            uniform on the unit sphere; with `genre_share` partly the genre's vector
        u^t          = sqrt(w.transferred) u^s R_g + sqrt(1 - w.transferred) own
        b^t_u        = c b^s_u + sqrt(1 - c^2) b_own,  c = w.bias_correlation
        rating_ui    = clip(round(w.mean + b_i + b_u + w.signal u . v_i + noise e), 1, 5)

    R_g is a rotation, the same for both groups, or R and -R with `opposite_maps`: then the best
    single linear map is 0. `round` only with `integer_ratings`. Users take nine in ten source items
    from those whose text tells their group; vectors and ratings do not depend on the group of an
    item (without `genre_share`), so the ratings alone do not tell a user's group. Target items are
    chosen without regard to groups.

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
    _check_sizes(n_overlapped, n_source_items, source_ratings_per_user)
    _check_sizes(n_overlapped, n_target_items, target_ratings_per_user)
    world = WORLDS[structure]
    rng = np.random.default_rng(seed)
    n_users = n_overlapped + n_source_only + n_target_only
    users = [f"u{number:06d}" for number in rng.permutation(n_users)]
    groups = rng.integers(0, 2, n_users)
    source_vectors = _sphere(rng, n_users, embedding_size) * np.sqrt(embedding_size)  # (U, k)
    own = _sphere(rng, n_users, embedding_size) * np.sqrt(embedding_size)  # (U, k)
    rotation = np.linalg.qr(rng.standard_normal((embedding_size, embedding_size)))[0]
    sign = -1 if world.opposite_maps else 1
    maps = np.sqrt(world.transferred) * np.stack([rotation, sign * rotation])  # (2, k, k)
    target_vectors = np.einsum("uk,ukl->ul", source_vectors, maps[groups])  # (U, k)
    target_vectors += np.sqrt(1 - world.transferred) * own
    generosity = rng.standard_normal((2, n_users)) * world.user_bias
    mix = world.bias_correlation
    biases = (generosity[0], mix * generosity[0] + np.sqrt(1 - mix**2) * generosity[1])

    def observe(ratings: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(ratings) if integer_ratings else ratings, LOW, HIGH)

    parts = {}
    for domain, genres, sentences, letter, n_items, per_user, rows, vectors, preference in (
        (0, MOVIE_GENRES, MOVIE_SENTENCES, "m", n_source_items, source_ratings_per_user,
         np.arange(n_overlapped + n_source_only), source_vectors, OWN_GROUP),
        (1, CD_GENRES, CD_SENTENCES, "c", n_target_items, target_ratings_per_user,
         np.r_[:n_overlapped, n_overlapped + n_source_only : n_users], target_vectors, 0.5),
    ):  # fmt: skip
        items = _make_items(rng, world, n_items, embedding_size, genres, sentences, letter)
        user, item = _choose(rng, world, rows, groups, items.groups, per_user, preference)
        exact = world.mean + items.biases[item] + biases[domain][user]
        exact = exact + world.signal * (vectors[user] * items.vectors[item]).sum(1)
        ratings = observe(exact + noise * rng.standard_normal(len(user)))
        frame = pd.DataFrame(
            {
                "user_id": np.array(users)[user],
                "item_id": items.frame["item_id"].to_numpy()[item],
                "rating": ratings,
                "timestamp": FIRST_DAY + DAY * rng.integers(0, DAYS, len(user)).astype(float),
            }
        )
        parts[domain] = (items, frame, _expect(observe, exact, noise))
    source_items, source_inter, _ = parts[0]
    target_items, target_inter, expected = parts[1]
    return SyntheticPair(
        structure=structure,
        seed=seed,
        n_overlapped=n_overlapped,
        source_inter=source_inter,
        target_inter=target_inter,
        source_items=source_items.frame,
        target_items=target_items.frame,
        users=users,
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
