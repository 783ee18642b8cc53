"""The split: first ratings, items that nobody has rated, fewer overlapped users."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import SOLVED, TINY, build_run, planted_rmse, run_mm, tiny_pair, write_world
from small_pairs import COLUMNS, frame, in_tokens, random_pair, rows_of

from recbole_cdr_mm.data.history import build_histories
from recbole_cdr_mm.data.links import keep_links
from recbole_cdr_mm.data.pair import Pair, join_domains
from recbole_cdr_mm.data.split import ColdStartSplit, FewShot, split_cold_start
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.ranking import Candidates

RATIOS = {"test_user_ratio": 0.3, "valid_user_ratio": 0.2, "split_seed": 1}
N_UNSEEN = 28  # a quarter of the target items of `tiny_pair` that somebody has rated
PARTS = ("train", "valid", "test", "aside", "revealed")
Predictions = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def split_of(pair: Pair, unseen_item_ratio: float = 0.0, **given: Any) -> ColdStartSplit:
    return split_cold_start(pair, **{**RATIOS, **given}, unseen_item_ratio=unseen_item_ratio)


def same(one: ColdStartSplit, two: ColdStartSplit) -> bool:
    return all(
        np.array_equal(getattr(getattr(one, part), name), getattr(getattr(two, part), name))
        for part in PARTS
        for name in COLUMNS
    )


def cold_users(split: ColdStartSplit) -> list[list[int]]:
    return [split.test_users.tolist(), split.valid_users.tolist()]


class TestFewShot:
    def test_an_item_that_is_rated_again_is_not_both_set_aside_and_measured(
        self, rng: np.random.Generator
    ) -> None:
        pair = random_pair(rng, 50)
        again = np.sort(np.r_[: len(pair.target), : len(pair.target) : 2])
        pair = dataclasses.replace(pair, target=pair.target.in_order(again))
        split = split_of(pair, few_shot=FewShot(2, 3))
        aside = set(zip(split.aside.user.tolist(), split.aside.item.tolist(), strict=True))
        for part in (split.valid, split.test):
            measured = set(zip(part.user.tolist(), part.item.tolist(), strict=True))
            assert measured
            assert not measured & aside


# Unseen items


class TestUnseenItems:
    def test_none_are_the_split_as_it_is(self, rng: np.random.Generator) -> None:
        pair = random_pair(rng, 50)
        split = split_of(pair)
        assert same(split, split_cold_start(pair, **RATIOS))
        assert split.unseen_items.tolist() == []
        assert split.candidates.tolist() == list(range(*pair.items("target").indices(pair.n_items)))
        measured = rows_of(split.train) | rows_of(split.valid) | rows_of(split.test)
        assert measured == rows_of(pair.target)

    def test_nobodys_rating_of_them_is_in_training_and_nothing_else_is_measured(
        self, rng: np.random.Generator
    ) -> None:
        pair = random_pair(rng, 50)
        whole = split_of(pair)
        for ratio, n_unseen in ((0.1, 1), (0.3, 4), (0.9, 13)):  # of 14 target items
            split = split_of(pair, ratio)
            unseen = set(split.unseen_items.tolist())
            assert len(unseen) == n_unseen
            assert unseen == set(split.candidates.tolist())
            assert unseen < set(range(pair.items("target").start, pair.n_items))
            assert cold_users(split) == cold_users(whole)
            kept = {row for row in rows_of(whole.train) if row[1] not in unseen}
            assert rows_of(split.train) == kept != rows_of(whole.train)
            for part in ("valid", "test"):
                measured = {row for row in rows_of(getattr(whole, part)) if row[1] in unseen}
                assert rows_of(getattr(split, part)) == measured
            assert split.unseen_test_items == len(set(split.test.item.tolist()))

    def test_fewer_are_among_more_and_split_seed_alone_draws_them(
        self, rng: np.random.Generator
    ) -> None:
        pair, other = random_pair(rng, 50), random_pair(rng, 50)
        drawn = [set(split_of(pair, r).unseen_items) for r in (0.1, 0.2, 0.5, 0.9)]
        assert all(few < more for few, more in pairwise(drawn))
        again = split_of(other, 0.5, test_user_ratio=0.4, valid_user_ratio=0.5)
        assert set(again.unseen_items) == drawn[2]
        assert set(split_of(pair, 0.5, split_seed=2).unseen_items) != drawn[2]

    @pytest.mark.parametrize(
        ("ratio", "what"),
        [(0.01, "unseen"), (0.07, None), (0.96, None), (0.99, "to train on")],
    )
    def test_too_few_items_for_the_ratio(
        self, rng: np.random.Generator, ratio: float, what: str | None
    ) -> None:
        pair = random_pair(rng, 50)
        if what is None:
            assert len(split_of(pair, ratio).unseen_items) in (1, 13)
            return
        message = rf"^unseen_item_ratio {ratio} leaves no item {what} of 14 target items\. Change"
        with pytest.raises(ConfigError, match=message):
            split_of(pair, ratio)

    def test_nobody_has_rated_one_that_is_measured(self) -> None:
        """Of two items one is unseen. Everybody rates `x`, and some rate `y`, too."""
        users = [f"u{n}" for n in range(10)]
        source = frame(*((user, "s", 4, 1) for user in users))
        everybody = [(user, "x", 5, 1) for user in users]

        def pair_of(seed: int, *kinds: str) -> Pair:
            first = join_domains(source, frame(*everybody))
            split = split_of(first, split_seed=seed)
            cold = {"test": split.test_users, "validation": split.valid_users}
            warm = np.setdiff1d(first.overlapped_users, np.concatenate(list(cold.values())))
            ids = np.concatenate([{**cold, "training": warm}[kind] for kind in kinds])
            rows = [(user, "y", 3, 2) for user in first.user_tokens[ids]]
            return join_domains(source, frame(*everybody, *rows))

        everyone, seen = ("test", "validation", "training"), set()
        for seed in range(8):
            split = split_of(pair_of(seed, *everyone), 0.5, split_seed=seed)
            unseen = "y" if split.unseen_items[0] == 3 else "x"
            seen.add(unseen)
            for kind in ("test", "validation") if unseen == "y" else ():
                others = [other for other in everyone if other != kind]
                message = (
                    rf"^unseen_item_ratio 0\.5 leaves no rating to measure: none of \d {kind}"
                    rf" users has rated one of the 1 unseen items\. Raise it, take more {kind} user"
                )
                with pytest.raises(ConfigError, match=message):
                    split_of(pair_of(seed, *others), 0.5, split_seed=seed)
            if unseen == "y":  # without validation users they need none
                given = {"split_seed": seed, "valid_user_ratio": 0}
                split_of(pair_of(seed, "test", "training"), 0.5, **given)
            else:
                message = "leaves no rating to train on: all training users' .* of the 1 unseen it"
                with pytest.raises(ConfigError, match=message):
                    split_of(pair_of(seed, "test", "validation"), 0.5, split_seed=seed)
        assert seen == {"x", "y"}

    def test_they_alone_are_candidates(self, rng: np.random.Generator) -> None:
        pair = random_pair(rng)
        split = split_of(pair, 0.3)
        users = torch.tensor([2, 1])
        scores = torch.ones(2, pair.n_items)
        scores = Candidates(pair, split, torch.device("cpu")).only(scores, users)
        for row in scores:
            assert torch.isfinite(row).nonzero().ravel().tolist() == split.unseen_items.tolist()

    def test_few_shot_reveals_what_must_stay_hidden(self, data_path: Path) -> None:
        build_run(data_path, model="EMCDR", few_shot=0)
        build_run(data_path, model="EMCDR", unseen_item_ratio=0.2)
        message = r"^`few_shot: 0` reveals .* `unseen_item_ratio: 0\.2` draws must stay hidden\."
        with pytest.raises(ConfigError, match=message):
            build_run(data_path, model="EMCDR", few_shot=0, unseen_item_ratio=0.2)

    @pytest.mark.parametrize("train_domains", ["both", "target"])
    def test_recboles_rows_hold_none_of_them(self, data_path: Path, train_domains: str) -> None:
        values = {"model": "FM", "unseen_item_ratio": 0.25, "train_domains": train_domains}
        run = build_run(data_path, **values)
        split, data = run.dataset.split, run.dataset.description
        train = set(run.dataset.inter_feat["item_id"].tolist())
        assert not train & set(split.unseen_items.tolist())
        assert data["unseen_items"] == len(split.unseen_items) == N_UNSEEN
        assert (data["test_ratings"], data["valid_ratings"]) == (len(split.test), len(split.valid))
        assert data["test_users_left_out"] == 12 - len(set(split.test.user.tolist()))
        text = f"unseen items: {N_UNSEEN}, without a rating in training; they alone"
        assert text in str(run.dataset)
        before = build_run(data_path, **{**values, "unseen_item_ratio": 0.0})
        assert before.config["data_fingerprint"] != run.config["data_fingerprint"]

    def test_no_more_are_recommended_than_there_are(self, data_path: Path) -> None:
        values = {"model": "Popularity", "eval_task": "ranking", "unseen_item_ratio": 0.1}
        values |= {"topk": [5, 11], "valid_metric": "NDCG@5"}
        assert run_mm(data_path, **values)["test"]["Recall@11"] == 1  # all of them
        message = r"`topk: \[5, 12\]` recommends more than the 11 unseen items\. .* unseen_item_ra"
        with pytest.raises(ConfigError, match=message):
            run_mm(data_path, **{**values, "topk": [5, 12]})


def measured(data_path: Path, tmp_path: Path, **values: Any) -> tuple[dict[str, Any], Predictions]:
    """The result of a run, and what it predicted."""
    file = tmp_path / "predictions.npz"
    result = run_mm(data_path, **values, save_predictions=str(file))
    with np.load(file, allow_pickle=False) as saved:
        return result, dict(saved)


QUICK = {"BPR": {"epochs": 1}, "NeuMF": {"epochs": 1}, "FM": {"epochs": 1}, "MetaMMCDR": TINY}


@pytest.mark.parametrize(
    ("model", "task"),
    [
        *((model, "ranking") for model in ("EASE", "ItemKNN", "BPR", "FM", "TargetMF")),
        *((model, "rating") for model in ("NeuMF", "CalibratedTransfer", "MetaMMCDR")),
    ],
)
def test_every_kind_of_model_runs_on_unseen_items(
    data_path: Path, tmp_path: Path, model: str, task: str
) -> None:
    values = {"model": model, "eval_task": task, **QUICK.get(model, {})}
    result, rows = measured(data_path, tmp_path, **values, unseen_item_ratio=0.25)
    split = build_run(data_path, **values, unseen_item_ratio=0.25).dataset.split
    pair = build_run(data_path, **values).dataset.pair
    unseen = set(pair.item_tokens[split.unseen_items])
    assert (rows["item_ratings"] == 0).all()
    assert set(rows["item"]) <= unseen
    assert len(rows["item"]) == result["rows"]["test"]
    if task == "ranking":
        assert set(rows["recommended"].ravel()) <= unseen
    assert all(np.isfinite([*result[part].values()]).all() for part in ("valid", "test"))


@pytest.mark.parametrize("model", ["Popularity", "ItemMean"])
def test_counting_ratings_orders_unseen_items_at_random(data_path: Path, model: str) -> None:
    run = build_run(data_path, model=model, eval_task="ranking", unseen_item_ratio=0.25).fit()
    recalls = []
    for seed in range(40):
        run.config["seed"] = seed
        recalls.append(run.evaluate()["recall@10"])
    assert np.mean(recalls) == pytest.approx(10 / N_UNSEEN, abs=4 * np.std(recalls) / 40**0.5)
    assert np.std(recalls) > 0


@pytest.mark.slow
def test_nothing_is_learned_of_an_unseen_item(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model that has found the planted item vectors has none for them."""
    base = tmp_path_factory.getbasetemp()
    ratios = {}
    for unseen in (0.0, 0.2):
        floor, cmf = (
            planted_rmse(base, "one_linear_map", model=model, unseen_item_ratio=unseen)
            for model in ("BiasTransfer", "CMF")
        )
        ratios[unseen] = cmf / floor
    assert ratios[0.0] < SOLVED
    assert ratios[0.2] > 0.97


# Fewer links


def with_links(pair: Pair, ratio: float, **given: Any) -> tuple[Pair, ColdStartSplit]:
    return keep_links(pair, split_of(pair, **given), ratio, RATIOS["split_seed"])


def linked(pair: Pair) -> set[str]:
    return set(pair.user_tokens[pair.overlapped_users])


class TestLinks:
    def test_all_of_them_are_the_pair_as_it_is(self, rng: np.random.Generator) -> None:
        pair = random_pair(rng, 50)
        split = split_of(pair)
        again, split_again = with_links(pair, 1.0)
        assert same(split, split_again)
        assert cold_users(split) == cold_users(split_again)
        assert again.user_tokens.tolist() == pair.user_tokens.tolist()
        for domain in ("source", "target"):
            for name in COLUMNS:
                was, now = (getattr(getattr(p, domain), name) for p in (pair, again))
                np.testing.assert_array_equal(was, now)

    @pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
    def test_every_rating_stays_with_its_token(
        self, rng: np.random.Generator, ratio: float
    ) -> None:
        pair = random_pair(rng, 50)  # 15 test users, 7 validation users, 28 others
        split = split_of(pair, few_shot=FewShot(2, 4))
        few, few_split = with_links(pair, ratio, few_shot=FewShot(2, 4))
        for domain in ("source", "target"):
            was, now = (in_tokens(p, getattr(p, domain)) for p in (pair, few))
            assert was == now
        for part in PARTS:
            was = in_tokens(pair, getattr(split, part))
            assert was == in_tokens(few, getattr(few_split, part))
        for kind in ("test_users", "valid_users"):
            was = pair.user_tokens[getattr(split, kind)].tolist()
            assert was == few.user_tokens[getattr(few_split, kind)].tolist()
            assert set(getattr(few_split, kind)) <= set(few.overlapped_users)
        assert few.n_overlapped == 15 + 7 + round(ratio * 28)
        assert few.statistics() == pair.statistics()
        assert few.n_users == pair.n_users + 28 - round(ratio * 28)

    def test_a_person_without_a_link_is_two_users(self, rng: np.random.Generator) -> None:
        pair = random_pair(rng, 50)
        few, split = with_links(pair, 0.5)
        unlinked = linked(pair) - linked(few)
        assert len(unlinked) == 14
        ends = [1, 1 + few.n_overlapped, 1 + few.n_overlapped + few.n_source_only, few.n_users]
        ranges = [few.user_tokens[start:stop].tolist() for start, stop in pairwise(ends)]
        assert all(tokens == sorted(tokens) for tokens in ranges)
        assert set(ranges[1]) == {"s0", "s1", "s2"} | unlinked
        assert set(ranges[2]) == {"t0", "t1"} | unlinked
        assert few.source.user.max() < ends[2]
        assert not set(few.target.user) & set(range(ends[1], ends[2]))
        assert set(split.train.user) == {
            *np.setdiff1d(few.overlapped_users, np.concatenate(cold_users(split))),
            *range(ends[2], ends[3]),
        }
        for ratings in (few.source, few.target, split.train):
            assert (np.lexsort((ratings.time, ratings.user)) == np.arange(len(ratings))).all()
        histories = (build_histories(p.source, p.n_users) for p in (pair, few))
        was, now = (
            h.of(torch.from_numpy(users))[0].tolist()
            for h, users in zip(
                histories, (split_of(pair).test_users, split.test_users), strict=True
            )
        )
        assert was == now

    def test_fewer_are_among_more_and_split_seed_alone_draws_them(
        self, rng: np.random.Generator
    ) -> None:
        pair, other = random_pair(rng, 50), random_pair(rng, 50)
        kept = [linked(with_links(pair, ratio)[0]) for ratio in (0.1, 0.2, 0.5, 1.0)]
        assert all(few < more for few, more in pairwise(kept))
        assert linked(with_links(other, 0.2)[0]) == kept[1]
        assert linked(keep_links(pair, split_of(pair), 0.2, 2)[0]) != kept[1]
        # Unseen items are drawn in a stream of their own.
        assert linked(with_links(pair, 0.2, unseen_item_ratio=0.3)[0]) == kept[1]

    def test_no_link_is_left(self, rng: np.random.Generator) -> None:
        pair = random_pair(rng, 50)
        with_links(pair, 0.02)  # 0.56 of a user
        message = r"^overlap_ratio 0\.01 keeps the link of none of 28 overlapped training users"
        with pytest.raises(ConfigError, match=message):
            with_links(pair, 0.01)

    def test_the_result_counts_the_links_that_are_known(self, data_path: Path) -> None:
        values = {"model": "BiasTransfer"}
        whole = run_mm(data_path, **values)
        few = run_mm(data_path, **values, overlap_ratio=0.25)
        # 12 test users, 5 validation users, a quarter of the 43 others
        assert whole["data"]["overlapped_users"] == 60
        assert few["data"]["overlapped_users"] == 12 + 5 + 11
        assert {**few["data"], "overlapped_users": 60} == whole["data"]
        assert few["rows"] == whole["rows"]
        fingerprints = [each["config"]["data_fingerprint"] for each in (whole, few)]
        assert fingerprints[0] != fingerprints[1]
        # A source bias and target biases: nothing in it is of one person in both domains.
        assert few["test"] == pytest.approx(whole["test"], abs=1e-6)

    @pytest.mark.parametrize("model", ["EASE", "FM", "CMF", "SSCDR", "PTUPCDR", "TargetMF"])
    def test_the_same_rows_are_measured_whatever_is_known(
        self, data_path: Path, tmp_path: Path, model: str
    ) -> None:
        tiny = {"FM": {"epochs": 1}, "EASE": {}}.get(model, TINY)
        values = {"model": model, "eval_task": "ranking", **tiny}
        _, whole = measured(data_path, tmp_path, **values)
        _, few = measured(data_path, tmp_path, **values, overlap_ratio=0.2)
        for column in ("user", "item", "rating", "item_ratings", "users", "history_length"):
            np.testing.assert_array_equal(whole[column], few[column])
        assert (whole["rank"] != few["rank"]).any() or model == "TargetMF"


@pytest.mark.parametrize(
    ("key", "good", "bad", "bounds"),
    [
        ("unseen_item_ratio", (0, 0.9), (1, -0.1, None), r"0 <= float < 1"),
        ("overlap_ratio", (1, 0.1), (0, 1.1, None), r"0 < float <= 1"),
    ],
)
def test_bounds(
    data_path: Path, key: str, good: tuple[float, ...], bad: tuple[float, ...], bounds: str
) -> None:
    def build(value: Any) -> None:
        build_run(data_path, model="GlobalMean", **{key: value})

    for value in good:
        build(value)
    for value in bad:
        with pytest.raises(ConfigError, match=rf"`{key}: {value}` must be \({bounds}\)"):
            build(value)


@pytest.mark.slow
def test_a_mapping_needs_overlapped_users(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    few, more, all_links = (
        planted_rmse(base, "one_linear_map", model="EMCDR", overlap_ratio=ratio)
        for ratio in (0.02, 0.1, 1.0)
    )
    assert all_links < more < few
