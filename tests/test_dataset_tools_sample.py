"""A sample is a part of its pair, with the same density and the same share of overlapped users."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_pairs import INTER_HEADER, write_lines, write_small_pair

from dataset_tools.atomic import read_inter, read_items
from dataset_tools.cli import main
from dataset_tools.manifest import describe_file
from dataset_tools.pair import Size, read_rating_range, write_pair_file
from dataset_tools.sample import FEWEST, find_shares, make_sample
from dataset_tools.synthetic import domain_names, make_dataset
from recbole_cdr_mm.errors import ConfigError, UserError

RANGE = (0.0, 10.0)
OVERLAP_TOLERANCE = 0.03  # of the share


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_path = tmp_path_factory.mktemp("synthetic")
    make_dataset(data_path, "demo")
    source, target = domain_names("demo")
    write_pair_file(data_path, "demo", source, target, rating_range=(1.0, 6.0))
    return data_path


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real ratings under a folder that can be written to."""
    data_path = tmp_path_factory.mktemp("real")
    for folder in shared_data.iterdir():
        os.symlink(folder, data_path / folder.name)
    return data_path


def rows_of(data_path: Path, domain: str) -> pd.DataFrame:
    return read_inter(data_path / domain / f"{domain}.inter", rating_range=RANGE)


def files_of(data_path: Path, to: str) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in data_path.glob(f"{to}*/*")}
    return {name.removeprefix(to): data for name, data in found.items()}


def check_sizes(sizes: list[tuple[Size, Size]], ratio: float) -> None:
    for before, after in sizes:
        assert after.density == pytest.approx(before.density, rel=0.05)
        assert after.ratings == pytest.approx(ratio * before.ratings, rel=0.1)
        assert after.overlapped_share == pytest.approx(
            before.overlapped_share, rel=OVERLAP_TOLERANCE
        )
        assert min(after.ratings_per_user, after.ratings_per_item) > 0.95 * FEWEST


def check_rows(data_path: Path, names: tuple[str, str], to: str) -> None:
    """Every row and every item text is one of the original, in the same order."""
    for name, new in zip(names, (f"{to}_source", f"{to}_target"), strict=True):
        original, sample = rows_of(data_path, name), rows_of(data_path, new)
        places = pd.MultiIndex.from_frame(original).get_indexer(pd.MultiIndex.from_frame(sample))
        assert (np.diff(places) > 0).all()
        assert places.min() >= 0
        originals, items = (read_items(data_path / d / f"{d}.item") for d in (name, new))
        kept = originals["item_id"].isin(sample["item_id"])
        pd.testing.assert_frame_equal(items, originals[kept].reset_index(drop=True))
        assert len(items) > 0


def test_of_a_synthetic_pair(synthetic: Path) -> None:
    sizes = make_sample(synthetic, "demo", "little", ratio=0.2)
    check_sizes(sizes, 0.2)
    check_rows(synthetic, domain_names("demo"), "little")
    assert read_rating_range(synthetic, "little") == (1.0, 6.0)
    for _, after in sizes:
        frame = rows_of(synthetic, after.domain)
        counts = (frame["user_id"].nunique(), frame["item_id"].nunique(), len(frame))
        assert counts == (after.users, after.items, after.ratings)


@pytest.mark.parametrize(
    ("pair", "ratio"),
    [
        ("amazon_books_movies", 0.05),
        ("amazon_books_movies", 0.1),
        ("amazon_books_movies", 0.5),
        ("amazon_movies_music", 0.1),
        ("amazon_movies_music", 0.9),
    ],
)
def test_of_real_pairs(real: Path, pair: str, ratio: float) -> None:
    check_sizes(make_sample(real, pair, f"{pair}{ratio}", ratio=ratio), ratio)
    domains = {"amazon_books_movies": ("abm_books", "abm_movies")}
    check_rows(real, domains.get(pair, ("amm_movies", "amm_music")), f"{pair}{ratio}")


def test_popular_items_and_active_users_keep_their_share(real: Path) -> None:
    """What strata are for: who has more ratings than the median is drawn as often as the rest."""
    make_sample(real, "amazon_books_movies", "strata", ratio=0.1)
    for field in ("user_id", "item_id"):
        counts = rows_of(real, "abm_movies").groupby(field).size()
        drawn = rows_of(real, "strata_target")[field].unique()
        above = (counts > counts.median()).mean()
        assert (counts[drawn] > counts.median()).mean() == pytest.approx(above, abs=0.05)


def test_a_seed_decides_every_byte(synthetic: Path) -> None:
    for to, seed in (("one", 3), ("two", 3), ("three", 4)):
        make_sample(synthetic, "demo", to, ratio=0.3, seed=seed)
    one, two, three = (files_of(synthetic, to) for to in ("one", "two", "three"))
    assert len(one) == 7
    for name, data in one.items():
        assert two[name] == data or name.endswith((".yaml", ".json"))
        assert three[name] != data


def test_the_order_of_the_lines_decides_nothing_but_itself(synthetic: Path) -> None:
    make_sample(synthetic, "demo", "straight", ratio=0.3)
    for domain in domain_names("demo"):
        path = synthetic / domain / f"{domain}.inter"
        header, *lines = path.read_text().splitlines()
        write_lines(path, header, *lines[::-1])
    make_sample(synthetic, "demo", "reversed", ratio=0.3)
    for name in ("source", "target"):
        users, items = (
            [set(rows_of(synthetic, f"{to}_{name}")[field]) for to in ("straight", "reversed")]
            for field in ("user_id", "item_id")
        )
        assert users[0] == users[1]
        assert len(items[0] ^ items[1]) < 0.1 * len(items[0])  # those without a rater may differ


def test_the_manifest_says_where_it_comes_from(synthetic: Path) -> None:
    ((before, after), _) = make_sample(synthetic, "demo", "told", ratio=0.3, seed=2)
    folder = synthetic / "told_source"
    manifest = json.loads((folder / "told_source.manifest.json").read_text())
    assert manifest["command"] == "sample"
    assert manifest["options"] == {
        "dataset": "demo",
        "to": "told",
        "ratio": 0.3,
        "seed": 2,
        "rating_range": [1.0, 6.0],
    }
    assert manifest["counts"]["before"]["ratings"] == before.ratings
    assert manifest["counts"]["after"]["overlapped"] == after.overlapped
    for key, name, where in (
        ("inputs", "demo_movie", synthetic / "demo_movie"),
        ("outputs", "told_source", folder),
    ):
        files = [where / f"{name}.inter", where / f"{name}.item"]
        assert manifest[key] == [describe_file(file) for file in files]


def test_without_times_and_without_items(tmp_path: Path) -> None:
    make_dataset(tmp_path, "demo", users=300, items=60)
    write_lines(tmp_path / "s_source" / "s_source.item", "item_id:token", "old")
    for domain in domain_names("demo"):
        path = tmp_path / domain / f"{domain}.inter"
        path.with_suffix(".item").unlink()
        write_lines(path, *(line.rpartition("\t")[0] for line in path.read_text().splitlines()))
    make_sample(tmp_path, "demo", "s", ratio=0.5)
    assert not list(tmp_path.glob("s_*/*.item"))
    header = (tmp_path / "s_source" / "s_source.inter").read_text().splitlines()[0]
    assert header == INTER_HEADER.rpartition("\t")[0]


def test_shares_are_moved_no_further_than_needed() -> None:
    even = Size("a", users=1000, items=1000, ratings=20_000, overlapped=400)
    assert find_shares([even, even], 0.09) == pytest.approx((0.3, 0.3))
    few_of_users = Size("b", users=5000, items=1000, ratings=20_000, overlapped=400)
    assert find_shares([even, few_of_users], 0.09) == pytest.approx((0.18, 0.5))
    few_of_items = Size("b", users=1000, items=5000, ratings=20_000, overlapped=400)
    assert find_shares([even, few_of_items], 0.09) == pytest.approx((0.5, 0.18))
    few_overlapped = Size("b", users=1000, items=1000, ratings=20_000, overlapped=25)
    assert find_shares([few_overlapped, even], 0.09) == pytest.approx((0.4, 0.225))


@pytest.mark.parametrize(
    ("overlapped", "ratings", "ratio", "message"),
    [
        (50, 2000, 0.01, r"fewer than 10 overlapped users, .* Give --ratio=0.02 or more"),
        (9, 2000, 0.9, r"a pair of 9 overlapped users .* Take it as it is"),
        (100, 150, 0.5, r"150 ratings in the smaller domain.* Take it as it is"),
    ],
)
def test_refuses_a_pair_that_is_too_small(
    overlapped: int, ratings: int, ratio: float, message: str
) -> None:
    size = Size("a", 100, 100, ratings, overlapped)
    with pytest.raises(ConfigError, match=message):
        find_shares([size, Size("b", 100, 100, 2000, overlapped)], ratio)


def test_the_ratio_that_is_advised_will_do() -> None:
    sizes = [Size("a", 100, 100, 2000, 50), Size("b", 100, 100, 2000, 50)]
    with pytest.raises(ConfigError, match=r"--ratio=0.02 or more"):
        find_shares(sizes, 0.019)
    users, items = find_shares(sizes, 0.02)
    assert users * items == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "ratio must be above 0 and below 1, not 1"),
        ({"ratio": 0.0}, "ratio must be above 0 and below 1, not 0"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"dataset": "pair_cd"}, r"`pair_cd` is a domain\. Give a pair"),
        ({"to": "pair"}, r"to `pair` would write over `pair`"),
        ({"dataset": "other", "to": "other"}, r"to `other` would write over `other`"),
        ({"to": "x"}, r"to `x` would write over `x_target`"),
        ({"ratio": 0.01}, r"ratio 0.01 is too small for a pair of 40 overlapped users"),
        ({"dataset": "pear"}, r"there is no pear/pear.inter"),
    ],
)
def test_refuses_what_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    write_small_pair(tmp_path)
    inter = (tmp_path / "pair_cd" / "pair_cd.inter").read_text()
    write_lines(tmp_path / "x_target" / "x_target.inter", *inter.splitlines())
    write_pair_file(tmp_path, "other", "pair_movie", "x_target")
    if options.get("to") == "x":
        options = {"dataset": "other", **options}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        make_sample(tmp_path, **{"dataset": "pair", "to": "s", **options})  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_command(synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample", "--dataset=demo", "--to=c", f"--data_path={synthetic}", "--ratio=0.5"])
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [
        "domain",
        "demo_movie",
        "c_source",
        "demo_cd",
        "c_target",
        "written",
    ]
    assert "1,500 (76.9% of its users)" in out.splitlines()[1]


def test_writes_over_nothing_of_the_user_s(synthetic: Path) -> None:
    folder = synthetic / "mine"
    folder.mkdir()
    (folder / "mine.yaml").write_text("source_dataset: a\ntarget_dataset: b\nlearning_rate: 0.1\n")
    with pytest.raises(ConfigError, match=r"settings of its own \(learning_rate\)"):
        make_sample(synthetic, "demo", "mine", ratio=0.5)
    taken = synthetic / "new_source"
    taken.mkdir()
    (taken / "new_source.yaml").write_text("source_dataset: a\ntarget_dataset: b\n")
    with pytest.raises(ConfigError, match="`new_source` is a pair"):
        make_sample(synthetic, "demo", "new", ratio=0.5)
