from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dataset_tools.atomic import read_inter, read_items
from recbole_cdr_mm.data import loading_cache
from recbole_cdr_mm.data.loading_cache import LoadingCache

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu2\té\t4\t7\nu1\ti\t4.5\t0.125\n"
)
ITEM = "item_id:token\ttitle:token_seq\ttext:token_seq\né\tUp\tA bee\ni\t\t\n"
OPTIONS = {"rating_range": (1.0, 5.0)}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loading_cache, "_SMALLEST", 0)
    (tmp_path / "a.inter").write_text(INTER, encoding="utf-8")
    (tmp_path / "a.item").write_text(ITEM, encoding="utf-8")
    return tmp_path


class Counted:
    """A reader that counts how often it reads."""

    def __init__(self, read: Callable[..., pd.DataFrame]) -> None:
        self.read, self.times = read, 0

    def __call__(self, *args: Any, **options: Any) -> pd.DataFrame:
        self.times += 1
        return self.read(*args, **options)


def test_what_is_kept_is_what_was_read(files: Path) -> None:
    cache, read = LoadingCache(str(files / "cache")), Counted(read_inter)
    for times in (1, 1):
        frame = cache.ratings(files / "a.inter", OPTIONS, read)
        pd.testing.assert_frame_equal(frame, read_inter(files / "a.inter", rating_range=(1, 5)))
        assert read.times == times


def test_texts_are_kept(files: Path) -> None:
    cache, read = LoadingCache(str(files / "cache")), Counted(read_items)
    first, again = (cache.texts(files / "a.item", ["title"], {}, read) for _ in range(2))
    assert read.times == 1
    assert first.items == again.items == {"é"}
    both = cache.texts(files / "a.item", ["title", "text"], {}, read)
    assert first.content_hash == again.content_hash != both.content_hash
    assert read.times == 2


def test_an_item_file_without_a_text_is_kept(files: Path) -> None:
    (files / "a.item").write_text("item_id:token\ttitle:token_seq\ni\t\n", encoding="utf-8")
    cache = LoadingCache(str(files / "cache"))
    for _ in range(2):
        assert cache.texts(files / "a.item", ["title"], {}, read_items).items == set()


def test_other_contents_and_other_options_are_read_anew(files: Path) -> None:
    cache, read = LoadingCache(str(files / "cache")), Counted(read_inter)
    cache.ratings(files / "a.inter", OPTIONS, read)
    (files / "a.inter").write_text(INTER.replace("4.5", "3.5"), encoding="utf-8")
    assert cache.ratings(files / "a.inter", OPTIONS, read)["rating"].tolist() == [4.0, 3.5]
    wider = cache.ratings(files / "a.inter", {"rating_range": (0.0, 9.0)}, read)
    assert read.times == 3
    assert len(wider) == 2
    assert len(list((files / "cache").iterdir())) == 2  # one of each way of reading


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no more", None])
def test_a_damaged_file_is_made_anew(files: Path, damage: bytes | None) -> None:
    cache, read = LoadingCache(str(files / "cache")), Counted(read_inter)
    frame = cache.ratings(files / "a.inter", OPTIONS, read)
    (kept,) = (files / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    pd.testing.assert_frame_equal(cache.ratings(files / "a.inter", OPTIONS, read), frame)
    assert read.times == 2
    assert kept.read_bytes() == whole


def test_a_folder_that_cannot_be_made_is_a_warning(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        frame = LoadingCache(str(files / "a.item")).ratings(files / "a.inter", OPTIONS, read_inter)
    assert len(frame) == 2
    assert "What was read of a.inter is not kept for later" in caplog.text


@pytest.mark.parametrize("smallest", [0, 1 << 20])
def test_nothing_is_kept_of_small_files_or_without_a_folder(
    files: Path, monkeypatch: pytest.MonkeyPatch, smallest: int
) -> None:
    monkeypatch.setattr(loading_cache, "_SMALLEST", smallest)
    folder = False if smallest == 0 else str(files / "cache")
    LoadingCache(folder).ratings(files / "a.inter", OPTIONS, read_inter)
    assert not (files / "cache").exists()


def test_the_users_cache_folder_is_the_default(
    monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(files / "home"))
    LoadingCache(True).ratings(files / "a.inter", OPTIONS, read_inter)
    (kept,) = files.rglob("home/**/*.npz")
    assert np.load(kept)["floats:rating"].tolist() == [4.0, 4.5]
