"""What a stage of training did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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
        losses: The mean training loss of each epoch.
        valid_curve: Epochs trained and validation metric, of each validation.
        reused: Whether another run did all this, and its outcome was taken over.
    """

    name: str
    epochs: int = 0
    best_epoch: int = 0
    examples: int = 0
    seconds: float = 0.0
    valid_metric: float | None = None
    losses: list[float] = field(default_factory=list)
    valid_curve: list[list[float]] = field(default_factory=list)
    reused: bool = False

    def validated(self, score: float) -> None:
        """Note the validation metric of the state after the last epoch."""
        self.valid_curve.append([self.epochs, float(score)])

    def as_result(self) -> dict[str, Any]:
        """The report as it stands in the result, with the speed."""
        speed = self.examples / self.seconds if self.seconds else 0.0
        return {**asdict(self), "examples_per_second": speed}
