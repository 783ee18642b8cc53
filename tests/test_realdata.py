"""Numbers on the real ratings that are known from elsewhere: counts, and the floor of floors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_checks import run_mm


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the real ratings is read only."""
    return str(tmp_path_factory.mktemp("saved"))


def test_floor_on_books_and_movies(shared_data: Path, checkpoints: str) -> None:
    """BiasTransfer's error there was found by other code than this, on other draws of users."""
    results = [
        run_mm(
            shared_data,
            "amazon_books_movies",
            model="BiasTransfer",
            split_seed=split_seed,
            checkpoint_dir=checkpoints,
        )
        for split_seed in (2020, 2021, 2022)
    ]
    data = results[0]["data"]
    assert data["source"] == {"users": 1426, "items": 723, "ratings": 31504}
    assert data["target"] == {"users": 8077, "items": 7541, "ratings": 181116}
    assert data["items_with_text"] == {"source": 310, "target": 6871}
    assert data["overlapped_users"] == 1330
    assert data["test_users"] == 266
    assert len({result["data"]["test_ratings"] for result in results}) == 3
    for metric, known in (("MAE", 0.726), ("RMSE", 0.939)):
        assert np.mean([result["test"][metric] for result in results]) == pytest.approx(
            known, abs=0.02
        )


def test_bridge_on_the_small_pair(shared_data: Path, checkpoints: str) -> None:
    floor, bridge = (
        run_mm(shared_data, "amazon_small", checkpoint_dir=checkpoints, **values)
        for values in (
            {"model": "BiasTransfer"},
            {"model": "MetaMMCDR", "item_features": "id", "epochs": 5},
        )
    )
    assert bridge["data"] == floor["data"]
    assert bridge["data"]["source"] == {"users": 239, "items": 1968, "ratings": 3639}
    assert bridge["data"]["target"] == {"users": 1579, "items": 381, "ratings": 4155}
    assert bridge["data"]["overlapped_users"] == 200
    assert bridge["data"]["items_with_text"] == {"source": 1968, "target": 381}
    assert bridge["test"]["RMSE"] < 1.1 * floor["test"]["RMSE"]
