"""What RecBole's metrics know of the training data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct

from recbole_cdr_mm import ranks
from recbole_cdr_mm.errors import ConfigError


class ColdStartCollector(Collector):
    """RecBole's collector, for metrics of what is recommended: the split's candidates.

    ItemCoverage, GiniIndex, AveragePopularity and TailPercentage ask for the number of items or for
    how often each is in training. Here these are the target items, those without a training rating
    among them, and no source items; with `unseen_item_ratio` the unseen items alone. RecBole 1.2.1
    itself ends such metrics with an AttributeError, since it moves all that it collected to the
    CPU, numbers too.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._of_training: dict[str, Any] = {}

    def data_collect(self, train_data: Any) -> None:
        """Note number and popularity of the candidates.

        Args:
            train_data: RecBole's loader of the training part.

        Raises:
            ConfigError: If there are fewer candidates than `topk` recommends.
        """
        pair, split = train_data._dataset.pair, train_data._dataset.split
        items = split.candidates
        if self.config["eval_task"] == "ranking" and max(self.topk) > len(items):
            kind = "unseen" if len(split.unseen_items) else "target"
            raise ConfigError(
                f"`topk: {self.topk}` recommends more than the {len(items)} {kind} items. Give less"
                + (", or raise unseen_item_ratio." if kind == "unseen" else ".")
            )
        counts = np.bincount(split.train.item, minlength=pair.n_items)[items]
        users = np.bincount(split.train.user)
        self._of_training = {
            "data.num_items": len(items),
            "data.num_users": int(np.count_nonzero(users)),
            "data.count_items": dict(zip(items.tolist(), counts, strict=True)),
            "data.count_users": {user: users[user] for user in np.flatnonzero(users)},
        }

    def get_data_struct(self) -> DataStruct:
        """What was collected, by all processes of the run, as RecBole's metrics take it."""
        struct = super().get_data_struct()
        collected = ranks.gathered(struct._data_dict)
        if len(collected) > 1:
            for name in {name: None for part in collected for name in part}:
                struct.set(name, torch.cat([part[name] for part in collected if name in part]))
        for name, value in self._of_training.items():
            struct.set(name, value)
        return struct
