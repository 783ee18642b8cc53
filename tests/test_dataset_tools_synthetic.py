"""What is planted is there, and can be found from the ratings and texts alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from atomic_files import read_ratings

from dataset_tools import synthetic
from dataset_tools.atomic import read_items
from dataset_tools.feature_store import content_hash, item_texts, read_store
from dataset_tools.synthetic import (
    WORLDS,
    SyntheticPair,
    make_dataset,
    make_pair,
    planted_features,
    write_pair,
    write_planted_features,
)
from recbole_cdr_mm.errors import ConfigError

PLANTED = ("one_linear_map", "two_groups", "no_signal")


@pytest.fixture(scope="module", params=PLANTED)
def pair(request: pytest.FixtureRequest) -> SyntheticPair:
    return make_pair(request.param, seed=11)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    return make_dataset(tmp_path_factory.mktemp("demo"), "demo")


def codes(pair: SyntheticPair, inter: pd.DataFrame, items: pd.DataFrame) -> tuple[np.ndarray, ...]:
    """Rows of users and of items, and the ratings."""
    user = pd.Index(pair.users).get_indexer(inter["user_id"])
    item = pd.Index(items["item_id"]).get_indexer(inter["item_id"])
    assert min(user.min(), item.min()) >= 0
    return user, item, inter["rating"].to_numpy()


def r_squared(actual: np.ndarray, inputs: np.ndarray) -> float:
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    fitted = inputs @ np.linalg.lstsq(inputs, actual, rcond=None)[0]
    return 1 - ((actual - fitted) ** 2).sum() / ((actual - actual.mean(0)) ** 2).sum()


def history_groups(pair: SyntheticPair) -> np.ndarray:
    """The group that most of a user's source texts tell, for overlapped users."""
    user, item, _ = codes(pair, pair.source_inter, pair.source_items)
    second = np.bincount(user, pair.source_item_groups[item]) / np.bincount(user)
    return (second[: pair.n_overlapped] > 0.5).astype(int)


def test_users_are_in_the_domains_that_they_should_be_in(pair: SyntheticPair) -> None:
    source, target = (set(f["user_id"]) for f in (pair.source_inter, pair.target_inter))
    assert len(pair.users) == len(set(pair.users)) == 1400
    assert source & target == set(pair.users[:1000])
    assert source - target == set(pair.users[1000:1200])
    assert target - source == set(pair.users[1200:])
    for inter in (pair.source_inter, pair.target_inter):
        assert set(inter.groupby("user_id").size()) == {40}
        assert not inter.duplicated(["user_id", "item_id"]).any()


def test_planted_signal_is_most_of_the_variance_and_rarely_clipped(pair: SyntheticPair) -> None:
    for inter, items, users, vectors in (
        (pair.source_inter, pair.source_items, pair.source_user_vectors, pair.source_item_vectors),
        (pair.target_inter, pair.target_items, pair.target_user_vectors, pair.target_item_vectors),
    ):
        user, item, rating = codes(pair, inter, items)
        signal = (users[user] * vectors[item]).sum(1)
        assert np.corrcoef(signal, rating)[0, 1] ** 2 > 0.85
        assert np.mean((rating <= 1) | (rating >= 5)) < 0.01


def test_target_vectors_are_what_the_world_says(pair: SyntheticPair) -> None:
    source, target = pair.source_user_vectors, pair.target_user_vectors
    mapped = np.einsum("uk,ukl->ul", source, pair.maps[pair.groups])
    explained = r_squared(target, source)
    if pair.structure == "no_signal":
        assert not pair.maps.any()
        assert explained < 0.02
    else:
        np.testing.assert_allclose(mapped, target, atol=1e-12)
        np.testing.assert_allclose(pair.maps[0] @ pair.maps[0].T, np.eye(4), atol=1e-12)
    if pair.structure == "one_linear_map":
        assert explained > 0.999
    if pair.structure == "two_groups":
        assert explained < 0.05  # one map for all finds next to nothing
        assert np.array_equal(pair.maps[1], -pair.maps[0])


def test_texts_of_the_history_tell_the_group_and_ratings_do_not(pair: SyntheticPair) -> None:
    groups = pair.groups[: pair.n_overlapped]
    assert np.mean(history_groups(pair) == groups) > 0.99
    user, item, rating = codes(pair, pair.source_inter, pair.source_items)
    counts = np.bincount(user)
    mean = np.bincount(user, rating) / counts
    statistics = np.column_stack([mean, np.bincount(user, rating**2) / counts - mean**2])
    inputs = np.column_stack([statistics, pair.source_user_vectors[: len(statistics)]])
    assert r_squared(pair.groups[: len(statistics), None], inputs) < 0.02
    # Nor do the ratings of an item tell its group; target items are chosen without regard to it.
    item_mean = np.bincount(item, rating) / np.bincount(item)
    item_statistics = np.column_stack([item_mean, pair.source_item_vectors])
    assert r_squared(pair.source_item_groups[:, None], item_statistics) < 0.06
    user, item, _ = codes(pair, pair.target_inter, pair.target_items)
    same = pair.groups[user] == pair.target_item_groups[item]
    assert abs(np.mean(same) - 0.5) < 0.02


def test_noise_floor_is_what_the_truth_leaves(pair: SyntheticPair) -> None:
    assert pair.noise_floor == pytest.approx(0.2, abs=0.005)
    error = pair.target_inter["rating"].to_numpy() - pair.target_expected
    assert np.sqrt(np.mean(error**2)) == pytest.approx(pair.noise_floor)
    assert abs(error.mean()) < 0.01


def test_whole_stars_have_their_own_floor() -> None:
    stars = make_pair("one_linear_map", integer_ratings=True, seed=11)
    assert set(stars.target_inter["rating"]) == {1, 2, 3, 4, 5}
    # Rounding adds the variance 1/12 of a uniform error, less what clipping takes away.
    assert stars.noise_floor == pytest.approx(np.sqrt(0.2**2 + 1 / 12), abs=0.02)
    assert stars.target_expected.min() >= 1
    assert stars.target_expected.max() <= 5


def factorise(
    user: np.ndarray, item: np.ndarray, residual: np.ndarray, shape: tuple[int, int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """User and item vectors by alternating ridge regressions; users without a rating get 0."""
    rng = np.random.default_rng(0)
    vectors = [np.zeros((shape[0], size)), rng.standard_normal((shape[1], size))]
    for _ in range(20):
        for side, rows, others in ((0, user, item), (1, item, user)):
            inputs = vectors[1 - side][others]
            grams = np.zeros((shape[side], size, size)) + 0.1 * np.eye(size)
            np.add.at(grams, rows, inputs[:, :, None] * inputs[:, None, :])
            sums = np.zeros((shape[side], size))
            np.add.at(sums, rows, inputs * residual[:, None])
            vectors[side] = np.linalg.solve(grams, sums[:, :, None])[:, :, 0]
    return vectors[0], vectors[1]


def test_what_is_planted_can_be_learned(pair: SyntheticPair) -> None:
    """Cold-start users' ratings from the rest of the ratings and the histories' texts.

    A map per group, a single map and no map at all are told apart in each world as they should be.
    """
    size, n_users = 6, len(pair.users)  # four are planted, and each kind of bias needs one
    user, item, rating = codes(pair, pair.source_inter, pair.source_items)
    shape = (n_users, len(pair.source_items))
    source, _ = factorise(user, item, rating - rating.mean(), shape, size)
    user, item, rating = codes(pair, pair.target_inter, pair.target_items)
    test = user < 200  # users stand in random order
    shape = (n_users, len(pair.target_items))
    mean = rating[~test].mean()
    target, vectors = factorise(user[~test], item[~test], rating[~test] - mean, shape, size)
    groups = history_groups(pair)

    def error(signs: np.ndarray) -> float:
        known = np.arange(200, pair.n_overlapped)
        inputs = source[: pair.n_overlapped] * signs[:, None]
        mapping = np.linalg.lstsq(inputs[known], target[known], rcond=None)[0]
        predicted = mean + ((inputs[user[test]] @ mapping) * vectors[item[test]]).sum(1)
        return float(np.sqrt(np.mean((rating[test] - predicted) ** 2)))

    none = float(np.sqrt(np.mean((rating[test] - mean) ** 2)))
    single, by_text = error(np.ones(pair.n_overlapped)), error(1 - 2.0 * groups)
    if pair.structure == "one_linear_map":
        assert single < 0.35 * none
        assert by_text > 0.95 * none
    elif pair.structure == "two_groups":
        assert by_text < 0.35 * none
        assert single > 0.95 * none
    else:
        assert min(single, by_text) > 0.98 * none


@pytest.mark.parametrize("structure", WORLDS)
def test_a_seed_decides_every_byte(tmp_path: Path, structure: str) -> None:
    small = {"n_overlapped": 30, "n_source_items": 60, "n_target_items": 60}
    for folder, seed in (("one", 5), ("two", 5), ("three", 6)):
        made = make_pair(structure, seed=seed, **small)  # type: ignore[arg-type]
        write_pair(made, tmp_path / folder, "p")
        write_planted_features(made, tmp_path / folder, "p", 8)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 13
    for file in files:
        one, two, three = ((tmp_path / f / file).read_bytes() for f in ("one", "two", "three"))
        assert one == two
        if file.suffix not in (".yaml", ".ids"):
            assert one != three


def test_a_pair_reads_back(tmp_path: Path) -> None:
    made = make_pair("two_groups", n_overlapped=30, seed=1)
    assert write_pair(made, tmp_path, "p") == ("p_movie", "p_cd")
    text = (tmp_path / "p" / "p.yaml").read_text()
    assert text == "source_dataset: p_movie\ntarget_dataset: p_cd\n"
    for name, inter, items in (
        ("p_movie", made.source_inter, made.source_items),
        ("p_cd", made.target_inter, made.target_items),
    ):
        read = read_ratings(tmp_path / name / f"{name}.inter")
        pd.testing.assert_frame_equal(read, inter, check_dtype=False, check_exact=True)
        read = read_items(tmp_path / name / f"{name}.item")
        pd.testing.assert_frame_equal(read, items, check_dtype=False)


def test_planted_features_tell_the_group_in_both_domains_alike(tmp_path: Path) -> None:
    made = make_pair("demo", n_overlapped=30, seed=2)
    (source_ids, source), (target_ids, target) = planted_features(made, 16)
    assert source.dtype == np.float32
    assert source.shape == (len(source_ids), 16)
    told = (made.source_items["text"] != "").to_numpy()
    assert source_ids == made.source_items["item_id"][told].tolist()
    assert len(source_ids) < len(told)
    group = made.source_item_groups[told]
    direction = source[group == 0].mean(0) - source[group == 1].mean(0)
    told = (made.target_items["text"] != "").to_numpy()
    assert np.mean((target @ direction < 0) == made.target_item_groups[told]) > 0.99

    write_pair(made, tmp_path, "p")
    write_planted_features(made, tmp_path, "p", 16)
    store = read_store(tmp_path / "p_cd", "p_cd")
    assert store.ids == target_ids
    assert np.array_equal(store.matrix, target)
    texts = item_texts(read_items(tmp_path / "p_cd" / "p_cd.item"), store.info["fields"])
    assert content_hash(texts.keys(), texts.values()) == store.info["content_hash"]
    assert set(texts) == set(target_ids)


def test_demo_looks_like_amazon(demo: SyntheticPair) -> None:
    assert demo.n_overlapped == 1500
    assert 0.1 * 0.8 * demo.n_overlapped > 50  # validation users, at 20% test users
    total = len(demo.source_inter) + len(demo.target_inter)
    assert 55_000 < total < 65_000
    for inter, items in (
        (demo.source_inter, demo.source_items),
        (demo.target_inter, demo.target_items),
    ):
        stars = inter["rating"].value_counts(normalize=True)
        assert set(stars.index) <= {1, 2, 3, 4, 5}
        assert stars[5] > 0.4
        assert stars.index[0] == 5
        popular = inter["item_id"].value_counts()
        assert popular.iloc[: len(items) // 10].sum() > 0.3 * len(inter)
        assert 0.02 < np.mean(items["text"] == "") < 0.1
    means = [f.groupby("user_id")["rating"].mean() for f in (demo.source_inter, demo.target_inter)]
    assert pd.concat(means, axis=1).dropna().corr().iloc[0, 1] > 0.3  # generosity goes along
    assert demo.noise_floor < 0.7 * demo.target_inter["rating"].std()


def test_all_of_the_truth_has_its_docstring() -> None:
    for field in fields(SyntheticPair):
        assert f"        {field.name}: " in (SyntheticPair.__doc__ or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "two_group"}, r"`two_group` is not one of .* Did you mean `two_groups`\?"),
        ({"n_overlapped": 0}, r"There must be an overlapped user .* not 0 overlapped"),
        ({"n_source_only": -1}, r"no negative number of users, not 10 overlapped, -1 source-only"),
        ({"source_ratings_per_user": 301}, r"ratings_per_user must be 1 to 300, .* not 301"),
        ({"target_ratings_per_user": 0}, r"ratings_per_user must be 1 to 300, .* not 0"),
    ],
)
def test_refuses_what_cannot_be(options: dict[str, object], message: str) -> None:
    make_pair(n_overlapped=10)  # what each of them is one step from
    with pytest.raises(ConfigError, match=message):
        make_pair(**{"n_overlapped": 10, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("overlap", [0.0, 1.1])
def test_refuses_an_overlap_that_is_no_share(tmp_path: Path, overlap: float) -> None:
    with pytest.raises(ConfigError, match="overlap must be above 0 and at most 1"):
        make_dataset(tmp_path, "demo", overlap=overlap)
    assert make_dataset(tmp_path, "demo", users=20, items=20, overlap=1.0).n_overlapped == 20


def test_large_pairs_are_drawn_as_small_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of drawing give the same shares; with half of all items drawn, order matters."""
    options = dict(n_overlapped=600, n_source_items=40, source_ratings_per_user=20, seed=3)
    few = make_pair("demo", **options)
    monkeypatch.setattr(synthetic, "MANY", 0)
    many = make_pair("demo", **options)
    assert not many.source_inter.duplicated(["user_id", "item_id"]).any()
    own, popular, activity = [], [], []
    for pair in (few, many):
        inter = pair.source_inter
        group_of_item = dict(
            zip(pair.source_items["item_id"], pair.source_item_groups, strict=True)
        )
        group_of_user = dict(zip(pair.users, pair.groups, strict=True))
        same = inter["user_id"].map(group_of_user) == inter["item_id"].map(group_of_item)
        own.append(same.mean())
        counts = inter["item_id"].value_counts()
        popular.append(counts.to_numpy()[:5] / 800)
        activity.append(inter["user_id"].value_counts().quantile([0.1, 0.5, 0.9]).to_numpy())
    # Which items are popular differs between the pairs; how popular they are, and all else, not.
    assert own[0] == pytest.approx(own[1], abs=0.04)
    assert popular[0] == pytest.approx(popular[1], abs=0.08)
    assert activity[0] == pytest.approx(activity[1], rel=0.1)


def test_drawing_again_is_a_weighted_draw_without_putting_back(rng: np.random.Generator) -> None:
    weights = np.array([[4.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 5.0]])
    groups = np.repeat([0, 1], 20_000)
    users, items = synthetic._draw_again(rng, weights, groups, np.full(40_000, 2))
    assert (np.bincount(users) == 2).all()
    for group in (0, 1):
        share = weights[group] / weights[group].sum()
        # first, or second behind another one
        expected = share + [
            sum(share[j] * share[i] / (1 - share[j]) for j in range(4) if j != i) for i in range(4)
        ]
        drawn = np.bincount(items[groups[users] == group], minlength=4) / 20_000
        assert drawn == pytest.approx(expected, abs=0.015)
