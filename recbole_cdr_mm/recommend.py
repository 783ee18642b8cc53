"""What a trained model recommends to users, by their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_cdr_mm.errors import ConfigError, did_you_mean
from recbole_cdr_mm.quick_start import load_data_and_model


def recommend(
    model_file: str | Path,
    users: str | Iterable[str],
    k: int = 10,
    config_dict: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The target items that a trained model, ours or RecBole's, scores highest for each user.

    Items that the user has rated in the training part are left out, and so are source items. With
    `unseen_item_ratio` the unseen items alone are ranked, as they were when it was measured.

    Args:
        model_file: A checkpoint that a run has left in `checkpoint_dir`.
        users: Tokens of users of either domain, or one.
        k: How many items for each; fewer where there are no more.
        config_dict: Where things are now, if they have moved: data_path, feature_path, gpu_id.

    Returns:
        Rows `user`, `rank` (from 1), `item` and `score`, users in the order given. After
        `eval_task: rating` a score is a rating in stars.

    Raises:
        UserError: As of `load_data_and_model`, or if a user is in neither domain, or k below 1.
    """
    if k < 1:
        raise ConfigError(f"k is {k}. Ask for one item or more.")
    config, model, dataset, *_ = load_data_and_model(model_file, config_dict)
    from recbole.data.interaction import Interaction  # can be imported only now

    from recbole_cdr_mm.evaluation.rating import RatingScale

    scale = RatingScale.of_run(config)
    train = dataset.split.train
    tables = []
    for token in [users] if isinstance(users, str) else users:
        user = _id_of(token, dataset)
        known = train.item[train.user == user]
        items = torch.from_numpy(np.setdiff1d(dataset.split.candidates, known))
        pairs = {dataset.uid_field: torch.full_like(items, user), dataset.iid_field: items}
        with torch.no_grad():
            scores = model.predict(Interaction(pairs).to(config["device"])).flatten().cpu()
        best = scores.argsort(descending=True, stable=True)[:k]
        if config["eval_task"] == "rating":
            scores = scale.ratings(scores)
        columns = {
            "user": token,
            "rank": np.arange(1, len(best) + 1),
            "item": dataset.pair.item_tokens[items[best]],
            "score": scores[best],
        }
        tables.append(pd.DataFrame(columns))
    if not tables:
        return pd.DataFrame(columns=["user", "rank", "item", "score"])
    return pd.concat(tables, ignore_index=True)


def _id_of(token: str, dataset: Any) -> int:
    ids = dataset.field2token_id[dataset.uid_field]
    if token not in ids or not ids[token]:
        raise ConfigError(
            f"There is no user `{token}` in the pair {dataset.dataset_name}."
            f"{did_you_mean(token, list(ids))}"
        )
    return int(ids[token])
