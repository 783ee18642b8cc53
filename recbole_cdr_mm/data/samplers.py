"""Negative items for the training rows of RecBole's own models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.sampler import Sampler

from recbole_cdr_mm.errors import ConfigError


class TrainingSampler(Sampler):
    """RecBole's sampler over what training sees, and nothing else.

    With `train_domains: target` negatives are target items: a source item is never a candidate, and
    learning to avoid it teaches nothing. RecBole's own sampler also counts the hidden ratings of
    validation and test users where `distribution: popularity` draws frequent items.

    Args:
        config: The run's configuration.
        train: The training part of a pair.

    Raises:
        ConfigError: If a user has rated all items that negatives could be.
    """

    def __init__(self, config: Any, train: Any) -> None:
        candidates = train.pair.items("target")
        is_target_only = config["train_domains"] == "target"
        self._first = candidates.start if is_target_only else 1
        self._stop = candidates.stop
        arguments = config["train_neg_sample_args"]
        super().__init__(["train"], [train], arguments["distribution"], arguments["alpha"])
        most = max(len(items) for items in self.used_ids["train"])
        if most >= self._stop - self._first:
            raise ConfigError(
                f"A user has rated all {most} items, which leaves none to sample as a negative."
                " Leave such users out with --user_inter_num_interval, or take a larger pair."
            )

    def _uni_sampling(self, sample_num: int) -> NDArray[np.int64]:
        # RecBole seeds NumPy's global stream and draws from it; so must this.
        return np.random.randint(self._first, self._stop, sample_num)  # noqa: NPY002
