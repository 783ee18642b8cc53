"""Pairs of the sizes of Table 1: sizes, skew, and what is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataset_tools import full_size
from dataset_tools.atomic import read_inter, read_items
from dataset_tools.cli import main
from dataset_tools.feature_store import read_store
from dataset_tools.full_size import FEATURE_SIZE, STARS, FullSizePair, make_task

SMALL = {
    "amazon-movie": {"items": 300, "users": 900, "ratings": 20_000},
    "amazon-cd": {"items": 400, "users": 700, "ratings": 15_000},
    "amazon-book": {"items": 500, "users": 800, "ratings": 16_000},
    "movie_cd": {"overlapped users": 500},
    "book_movie": {"overlapped users": 300},
    "book_cd": {"overlapped users": 200},
}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def small(data_path: Path) -> FullSizePair:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "TABLE_1", SMALL)
        return make_task(data_path, "small", task="movie_cd", seed=3)


def inter(data_path: Path, domain: str) -> pd.DataFrame:
    return read_inter(data_path / domain / f"{domain}.inter", rating_range=(1, 5))


def test_sizes_are_those_of_the_table(data_path: Path, small: FullSizePair) -> None:
    users = []
    for domain, of in (("small_movie", "amazon-movie"), ("small_cd", "amazon-cd")):
        rows = inter(data_path, domain)
        found = rows["item_id"].nunique(), rows["user_id"].nunique(), len(rows)
        assert found == tuple(SMALL[of].values())
        assert small.counts[domain] == SMALL[of]
        assert not rows.duplicated(["user_id", "item_id"]).any()
        assert rows["item_id"].value_counts().min() >= 5
        assert rows["user_id"].value_counts().min() >= 5
        users.append(set(rows["user_id"]))
    assert len(users[0] & users[1]) == small.n_overlapped == 500


def test_some_are_far_more_popular_and_more_active(data_path: Path, small: FullSizePair) -> None:
    rows = inter(data_path, "small_movie")
    for column in ("item_id", "user_id"):
        count = rows[column].value_counts()
        assert count.max() > 3 * count.median()


def test_stars_are_skewed_as_amazons(data_path: Path, small: FullSizePair) -> None:
    rating = inter(data_path, "small_cd")["rating"].to_numpy()
    shares = [np.mean(rating == star) for star in range(1, 6)]
    np.testing.assert_allclose(shares, STARS, atol=1e-3)


def test_texts_tell_the_group_of_items_and_their_features_too(
    data_path: Path, small: FullSizePair
) -> None:
    items = read_items(data_path / "small_cd" / "small_cd.item")
    assert items["title"].nunique() == 400
    store = read_store(data_path / "small_cd", "small_cd", "text")
    assert store.matrix.shape == (400, FEATURE_SIZE)
    assert list(store.ids) == items["item_id"].tolist()
    told = items["text"].str.contains("metal|techno|punk|hip hop", regex=True).to_numpy()
    direction = np.asarray(store.matrix)[told].mean(0)
    assert (((np.asarray(store.matrix) @ direction) > 0) == told).mean() > 0.99


def test_most_of_a_users_source_items_are_of_one_group(
    data_path: Path, small: FullSizePair
) -> None:
    """Of own group three in four; in the target domain both alike."""
    purity = []
    for domain, words in (
        ("small_movie", "fiction|horror|action|thriller"),
        ("small_cd", "metal|techno|punk|hip hop"),
    ):
        items = read_items(data_path / domain / f"{domain}.item").set_index("item_id")
        rows = inter(data_path, domain)
        told = items["text"].str.contains(words, regex=True)[rows["item_id"]].to_numpy()
        share = pd.Series(told.astype(float)).groupby(rows["user_id"].to_numpy()).mean()
        count = rows["user_id"].value_counts()[share.index]
        purity.append(np.abs(share[count >= 20] - 0.5).mean())
    assert purity[0] == pytest.approx(0.25, abs=0.05)
    assert purity[1] < 0.12


def test_no_prediction_beats_the_noise_floor(data_path: Path, small: FullSizePair) -> None:
    rows = inter(data_path, "small_cd")
    by_item = rows.groupby("item_id")["rating"].transform("mean")
    of_items = np.sqrt(((rows["rating"] - by_item) ** 2).mean())
    assert 0.5 < small.noise_floor["small_cd"] < of_items < rows["rating"].std()


def test_same_seed_same_files(data_path: Path, tmp_path: Path, small: FullSizePair) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "TABLE_1", SMALL)
        make_task(tmp_path, "small", task="movie_cd", seed=3)
        make_task(tmp_path, "other", task="book_cd", feature_size=2)
    for name in ("small_cd/small_cd.inter", "small_movie/small_movie.text.npy"):
        assert (tmp_path / name).read_bytes() == (data_path / name).read_bytes()
    assert (tmp_path / "other_book" / "other_book.inter").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task=movies_cds"], "movies_cds"),
        (["--task=movie_cd", "--users=5"], "leave out --users"),
        (["--task=movie_cd", "--seed=-1"], "seed must be 0 or more"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["synthetic", "--dataset=big", f"--data_path={tmp_path}", *options])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_papers_first_task_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["synthetic", "--dataset=big", f"--data_path={tmp_path}", "--task=movie_cd"])
    out = capsys.readouterr().out
    assert "50,052" in out
    assert "1,097,592" in out
    assert "18,031 overlapped users" in out
