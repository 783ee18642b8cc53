"""A metric as a mean over test users: what intervals and tests are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.register import metrics_dict, smaller_metrics

from recbole_cdr_mm.errors import ConfigError

_ERRORS = {"mae": np.abs, "rmse": np.square}


@dataclass(frozen=True, eq=False)
class UserValues:
    """One metric of one run, cut into its test users' parts.

    Attributes:
        user: Tokens of the users, sorted, (n,).
        total: Sum of each user's errors, or the user's value of a ranking metric, float64 (n,).
        weight: Ratings of each user; 1 for a ranking metric, float64 (n,).
        root: Whether the metric is the square root of the mean.
    """

    user: NDArray[np.str_]
    total: NDArray[np.float64]
    weight: NDArray[np.float64]
    root: bool

    @property
    def value(self) -> float:
        """The metric: sum of totals by sum of weights, and its root where it is one."""
        mean = self.total.sum() / self.weight.sum()
        return float(np.sqrt(mean) if self.root else mean)


def has_user_values(metric: str) -> bool:
    """Whether a metric is a mean over users or over their ratings.

    >>> [has_user_values(name) for name in ("RMSE", "NDCG@10", "NDCG", "ItemCoverage@10")]
    [True, True, False, False]
    """
    name, _, k = metric.partition("@")
    if name.lower() in _ERRORS:
        return metric == name
    return _is_topk(name.lower()) and k.isdecimal() and int(k) > 0


def is_smaller_better(metric: str) -> bool:
    """The direction of a metric, as RecBole has it."""
    return metric.partition("@")[0].lower() in smaller_metrics


def user_values(predictions: Mapping[str, NDArray], metric: str) -> UserValues:
    """Cut a metric into its test users' parts.

    Args:
        predictions: What `save_predictions` wrote (see `prediction_columns`).
        metric: MAE, RMSE, or a ranking metric of RecBole that is a mean over users, as `NDCG@10`.

    Raises:
        ConfigError: If the metric is none of these, or the predictions are of the other task.
    """
    name, _, k = metric.partition("@")
    name = name.lower()
    is_error = name in _ERRORS
    if not has_user_values(metric) or ("prediction" in predictions) is not is_error:
        task = "ratings" if "prediction" in predictions else "rankings"
        raise ConfigError(
            f"`{metric}` is no mean over users of predicted {task}. Choose another, as"
            f" {'RMSE' if 'prediction' in predictions else 'NDCG@10'}."
        )
    users, place = np.unique(predictions["user"], return_inverse=True)
    count = np.bincount(place).astype(np.float64)
    if is_error:
        error = predictions["prediction"].astype(np.float64) - predictions["rating"]
        total = np.bincount(place, weights=_ERRORS[name](error)).astype(np.float64)
        return UserValues(users, total, count, root=name == "rmse")
    hits = _hits(predictions, place, len(users), int(k))
    values = _of_topk(name, hits, count.astype(np.int64))
    return UserValues(users, values, np.ones(len(users)), root=False)


def _is_topk(name: str) -> bool:
    return name in metrics_dict and issubclass(metrics_dict[name], TopkMetric)


def _hits(
    predictions: Mapping[str, NDArray], place: NDArray[np.int64], n_users: int, k: int
) -> NDArray[np.bool_]:
    """Which of the first k places of each user hold a positive, (n, k).

    Raises:
        ConfigError: If fewer places were saved.
    """
    saved = predictions["recommended"].shape[1]
    if k > saved:
        raise ConfigError(f"The first {saved} items of each user were saved; `@{k}` needs more.")
    rank = predictions["rank"]
    hits = np.zeros((n_users, k), dtype=bool)
    seen = (rank > 0) & (rank <= k)
    hits[place[seen], rank[seen] - 1] = True
    return hits


def _of_topk(
    name: str, hits: NDArray[np.bool_], positives: NDArray[np.int64]
) -> NDArray[np.float64]:
    """RecBole's own values of the users at the last of the places, (n,)."""
    k = hits.shape[1]
    # RecBole's metric works out (n, k) values and hands them to `topk_result` to be averaged.
    keep = {"topk_result": lambda self, metric, values: values}
    metric = type(name, (metrics_dict[name],), keep)({"topk": [k], "metric_decimal_place": 6})
    collected = DataStruct()
    collected.set("rec.topk", torch.from_numpy(np.column_stack([hits, positives])))
    values = metric.calculate_metric(collected)
    return np.asarray(values, dtype=np.float64)[:, k - 1]
