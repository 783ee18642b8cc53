"""What a stage of training did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class StageReport:
    """What a stage did, for the log and the result.

    Attributes:
        name: The stage; RecBole's own models have one, `train`.
        epochs: Epochs trained.
        best_epoch: The epoch that counts, from 1; 0 is the state before the first one.
        examples: Training examples seen.
        seconds: Wall time of training, without validation.
        valid_metric: The validation metric of the best epoch; None where nothing was validated.
    """

    name: str
    epochs: int = 0
    best_epoch: int = 0
    examples: int = 0
    seconds: float = 0.0
    valid_metric: float | None = None

    def as_result(self) -> dict[str, Any]:
        """The report as it stands in the result, with the speed."""
        speed = self.examples / self.seconds if self.seconds else 0.0
        return {**asdict(self), "examples_per_second": speed}
