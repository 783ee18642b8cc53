"""Made-up folders of benchmarks: runs with predictions, and their metrics by plain NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

K = 20
VERSIONS = {"recbole_cdr_mm": "0.1.0", "torch": "2.13.0"}
Columns = dict[str, np.ndarray]


def run_of(label: str, seed: int = 1, **fields: Any) -> dict[str, Any]:
    """The fields of a run; `fields` win."""
    run = {
        "label": label,
        "model": label.split(" ")[0],
        "kind": "cross-domain",
        "dataset": "pair",
        "eval_task": "rating",
        "test_user_ratio": 0.2,
        "seed": seed,
        "preset": "default",
        "base_model": None,
        "variant": None,
        "trials": None,
        "config": {"seed": seed, "split_seed": seed},
        **fields,
    }
    parts = ("label", "dataset", "eval_task", "test_user_ratio", "preset", "base_model", "seed")
    key = "-".join(str(run[part]) for part in parts)
    return {"key": "".join(c if c.isalnum() or c in ".-_" else "_" for c in key), **run}


class Folder:
    """A benchmark's folder in the making.

    Args:
        out: The folder.
        n_users: Test users of each seed.
        n_rows: Test rows of each user.
        overlapped: Users that they are drawn from.
    """

    def __init__(self, out: Path, n_users: int = 40, n_rows: int = 6, overlapped: int = 60) -> None:
        self.out = out
        self.n_users, self.n_rows, self.overlapped = n_users, n_rows, overlapped
        self.runs: list[dict[str, Any]] = []
        (out / "runs").mkdir(parents=True)

    def split(self, run: Mapping[str, Any]) -> Columns:
        """The test rows and test users of a run's seed, the same for every model."""
        seed = run["seed"]
        rng = np.random.default_rng([seed, 7])
        drawn = np.sort(rng.permutation(self.overlapped)[: self.n_users])
        users = np.array([f"u{user:04d}" for user in drawn])
        n = self.n_users * self.n_rows
        return {
            "user": np.repeat(users, self.n_rows),
            "item": np.array([f"i{i}" for i in rng.integers(0, 300, n)]),
            "rating": rng.integers(1, 6, n).astype(np.float32),
            "item_ratings": rng.integers(0, 30, n),
            "users": users[::-1].copy(),  # in another order than the rows
            "history_length": rng.integers(1, 9, self.n_users),
            "generosity": rng.normal(size=self.n_users).astype(np.float32),
            "mainstream": rng.random(self.n_users).astype(np.float32),
        }

    def rating(
        self,
        run: dict[str, Any],
        scale: float,
        valid: float | None = None,
        *,
        noise: int = 9,
        **result: Any,
    ) -> Columns:
        """Add a run whose errors have about this size.

        Args:
            run: Its fields.
            scale: Standard deviation of its errors.
            valid: RMSE on validation users; by default the scale.
            noise: Draws the errors, apart from their size; the same for all models by default.
            result: What its result has else.
        """
        columns = self.split(run)
        error = scale * np.random.default_rng([run["seed"], noise]).normal(
            size=len(columns["user"])
        )
        columns["prediction"] = (columns["rating"] + error).astype(np.float32)
        error = columns["prediction"].astype(float) - columns["rating"]
        test = {"MAE": np.abs(error).mean(), "RMSE": np.sqrt(np.square(error).mean())}
        self.add(run, columns, test, "RMSE", scale if valid is None else valid, **result)
        return columns

    def ranking(
        self, run: dict[str, Any], reach: int, valid: float | None = None, **result: Any
    ) -> Columns:
        """Add a run that ranks the positives of each user somewhere among the first `reach`.

        Args:
            run: Its fields.
            reach: At least `n_rows`; small is good.
            valid: NDCG@10 on validation users; by default 1 / reach.
            result: What its result has else.
        """
        columns = self.split(run)
        rng = np.random.default_rng([run["seed"], 11])
        ranks = np.concatenate(
            [1 + rng.permutation(reach)[: self.n_rows] for _ in range(self.n_users)]
        )
        columns["rank"] = np.where(ranks <= K, ranks, 0)
        columns["recommended"] = np.full((self.n_users, K), "x")
        valid = 1 / reach if valid is None else valid
        self.add(run, columns, ranking_metrics(columns), "NDCG@10", valid, **result)
        return columns

    def add(
        self,
        run: dict[str, Any],
        columns: Columns,
        test: Mapping[str, float],
        valid_metric: str,
        valid: float,
        **result: Any,
    ) -> None:
        self.runs.append(run)
        np.savez_compressed(self.out / "runs" / f"{run['key']}.npz", **columns)
        outcome = {
            **{name: run[name] for name in ("model", "dataset", "preset", "eval_task", "seed")},
            "test_user_ratio": run["test_user_ratio"],
            "data": {
                "source": {"users": 900, "items": 80, "ratings": 5000},
                "target": {"users": 1100, "items": 300, "ratings": 12345},
                "overlapped_users": self.overlapped,
                "test_users": self.n_users,
                "test_ratings": len(columns["user"]),
                "valid_users": 20,
                "unseen_test_items": run["seed"],
                "items_with_text": {"source": 70, "target": 290},
            },
            "rows": {"test": len(columns["user"])},
            "valid": {valid_metric: valid},
            "test": {name: float(value) for name, value in test.items()},
            "stages": [
                _stage("source", 2.0, reused=True),
                _stage("bridge", 3.5, valid_curve=[[0, 1.2], [1, 1.1], [2, 1.15]]),
            ],
            "versions": VERSIONS,
            "config": {**run["config"], "valid_metric": valid_metric},
            **result,
        }
        self._write(run, {"run": run, "result": outcome})

    def failed(self, run: dict[str, Any], **error: str) -> None:
        self.runs.append(run)
        log = f"logs/{run['key']}.log"
        error = {"type": "ValueError", "message": "no", "log": log, **error}
        self._write(run, {"run": run, "error": error})

    def missing(self, run: dict[str, Any]) -> None:
        self.runs.append(run)

    def plan(self, title: str = "Made up") -> Path:
        """Write the plan. Returns the folder."""
        text = json.dumps({"title": title, "runs": self.runs})
        (self.out / "plan.json").write_text(text, encoding="utf-8")
        return self.out

    def _write(self, run: Mapping[str, Any], content: Any) -> None:
        file = self.out / "runs" / f"{run['key']}.json"
        file.write_text(json.dumps(content), encoding="utf-8")


def ranking_metrics(columns: Columns) -> dict[str, float]:
    """NDCG@10, Hit@10, MRR@10 and Recall@20 as means over users."""
    found: dict[str, list[float]] = {}
    for user in np.unique(columns["user"]):
        rank = columns["rank"][columns["user"] == user]
        near = rank[(rank > 0) & (rank <= 10)]
        ideal = sum(1 / np.log2(place + 1) for place in range(1, min(10, len(rank)) + 1))
        values = {
            "NDCG@10": sum(1 / np.log2(place + 1) for place in near) / ideal,
            "Hit@10": float(len(near) > 0),
            "MRR@10": 1 / near.min() if len(near) else 0.0,
            "Recall@20": float((rank > 0).mean()),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {
        **{name: float(np.mean(values)) for name, values in found.items()},
        "ItemCoverage@10": 0.25 + columns["rank"].mean() / 1000,
    }


def _stage(name: str, seconds: float, **values: Any) -> dict[str, Any]:
    curve = values.get("valid_curve", [])
    return {
        "name": name,
        "epochs": 2,
        "best_epoch": 1,
        "examples": 10,
        "seconds": seconds,
        "valid_metric": 1.1 if curve else None,
        "losses": [0.5, 0.4],
        "valid_curve": curve,
        "reused": False,
        "examples_per_second": 3.0,
        **values,
    }
