"""What both point estimates and the intervals of predicted distributions are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from torch import Tensor

POINT_ESTIMATES = ("mean", "median")


def measure_estimates(
    columns: Mapping[str, Tensor], level: float, evaluator: Evaluator
) -> dict[str, dict[str, Any]]:
    """Measure the estimates of rows.

    Args:
        columns: `rating`, `mean`, `median`, `low`, `high` and `probability` of each row, (N,).
        level: What the intervals hold at least.
        evaluator: RecBole's, with the run's metrics.

    Returns:
        For `mean` and `median` the metrics. For `interval` the `level`; the `probability` that the
        model gives the intervals, on average, and the `coverage`, the share of the ratings in
        them, which it should equal; and the mean `width`, from lowest to highest value.
    """
    rating, low, high = (columns[name] for name in ("rating", "low", "high"))
    measured: dict[str, dict[str, Any]] = {}
    for name in POINT_ESTIMATES:
        struct = DataStruct()
        struct.set("rec.score", columns[name].cpu())
        struct.set("data.label", rating.cpu())
        measured[name] = dict(evaluator.evaluate(struct))
    measured["interval"] = {
        "level": level,
        "probability": columns["probability"].double().mean().item(),
        "coverage": ((low <= rating) & (rating <= high)).double().mean().item(),
        "width": (high - low).double().mean().item(),
    }
    return measured
