"""From a model's scores to ratings in stars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class RatingScale:
    """The range of ratings, and how a model's scores relate to it.

    Attributes:
        low: Lowest rating.
        high: Highest rating.
        scores_are_labels: Whether scores lie in [0, 1], as those of RecBole's own models do, which
            are trained on labels scaled to it.
        clip: Whether ratings outside the range are clipped to it.
    """

    low: float
    high: float
    scores_are_labels: bool
    clip: bool

    @classmethod
    def of_run(cls, config: Any) -> RatingScale:
        """The scale of the model that an `MMConfig` names."""
        low, high = config["rating_range"]
        return cls(low, high, scores_are_labels=not config.is_ours, clip=config["clip_predictions"])

    def ratings(self, scores: Tensor) -> Tensor:
        """Convert scores (B,) to ratings (B,).

        >>> import torch
        >>> RatingScale(1, 5, scores_are_labels=True, clip=True).ratings(torch.tensor([0.0, 0.5]))
        tensor([1., 3.])
        """
        if self.scores_are_labels:
            scores = self.low + (self.high - self.low) * scores
        return scores.clamp(self.low, self.high) if self.clip else scores
