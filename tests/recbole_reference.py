"""Nine RecBole models on one tiny data set: the same numbers on RecBole's own stack and on ours.

This file runs on both stacks. `python tests/recbole_reference.py` prints the versions and the
metrics as JSON; on RecBole's own stack (Python 3.9, NumPy 1.23, pandas 1.5, torch 1.12) nothing is
patched and our package need not be installed. tests/test_compat.py holds what was printed there.

The data come out of integer arithmetic, since random streams are not promised across releases.
Missing floats, missing tokens and empty sequences are in it, because those are what pandas 3 treats
differently from pandas 1.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

DATASET = "tiny"
USERS = 60
ITEMS = 50

RANKING = {
    "metrics": ["Recall", "NDCG", "MRR", "Precision", "GAUC"],
    "valid_metric": "NDCG@10",
    "topk": [10],
}
LABELED = {
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "eval_args": {"mode": "labeled", "split": {"RS": [0.7, 0.15, 0.15]}},
    "train_neg_sample_args": None,
    "threshold": {"rating": 4},
}
MODELS: dict[str, dict[str, Any]] = {
    "Pop": RANKING,
    # All neighbours. With fewer, np.argpartition chooses among equally similar items at the cut,
    # and NumPy 2 chooses others than NumPy 1.23: ranks then differ, though no similarity does.
    "ItemKNN": {**RANKING, "k": 100, "shrink": 0.5},
    "EASE": {**RANKING, "reg_weight": 10.0},
    "BPR": {**RANKING, "embedding_size": 16},
    "LightGCN": {**RANKING, "embedding_size": 16, "n_layers": 2},
    "NeuMF": {**RANKING, "dropout_prob": 0.0},
    "MultiVAE": {**RANKING, "train_neg_sample_args": None, "dropout_prob": 0.0},
    "FM": LABELED,
    "DeepFM": {**LABELED, "mlp_hidden_size": [16, 16], "dropout_prob": 0.0},
}


def write_atomic_files(data_path: Path) -> None:
    """Write the data set `tiny` with ratings, users and items, some of their values missing.

    Args:
        data_path: The folder that RecBole's `data_path` names; `tiny/` is made in it.
    """
    folder = data_path / DATASET
    folder.mkdir(parents=True)
    inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(1, USERS + 1):
        for item in range(1, ITEMS + 1):
            if (user * 7 + item * 11 + user * item % 13 + item * item % 17) % 4:
                continue
            rating = 1 + (user * 3 + item * 5 + user * item % 7) % 5
            time = "" if (user + item) % 19 == 0 else str(1000 + user * 31 + item * 17)
            inter.append(f"u{user}\ti{item}\t{rating}\t{time}")
    users = ["user_id:token\tage:float\tgroup:token"]
    for user in range(1, USERS + 1):
        age = "" if user % 7 == 0 else str(18 + user * 13 % 50)
        group = "" if user % 11 == 0 else f"g{user % 4}"
        users.append(f"u{user}\t{age}\t{group}")
    items = ["item_id:token\tprice:float\ttags:token_seq\tshape:float_seq"]
    for item in range(1, ITEMS + 1):
        price = "" if item % 5 == 0 else str(item * 29 % 37 / 4)
        tags = "" if item % 6 == 0 else " ".join(f"t{item * n % 9}" for n in range(1, 2 + item % 3))
        shape = "" if item % 8 == 0 else " ".join(str(item * n % 5) for n in range(1, 2 + item % 4))
        items.append(f"i{item}\t{price}\t{tags}\t{shape}")
    for suffix, lines in (("inter", inter), ("user", users), ("item", items)):
        (folder / f"{DATASET}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_config(model: str, folder: Path, **overrides: Any) -> Any:
    """Build RecBole's Config for a short run on the CPU.

    Args:
        model: Name of a RecBole model.
        folder: Where `tiny/` lies; checkpoints go into its `saved/`.
        **overrides: Keys that differ from this module's settings of the model.
    """
    from recbole.config import Config

    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": None,
        "numerical_features": ["age", "price"],
        "normalize_field": ["age", "price"],
        "use_gpu": False,
        "gpu_id": "",
        "seed": 2024,
        "reproducibility": True,
        "epochs": 3,
        "train_batch_size": 128,
        "eval_batch_size": 4096,
        "learning_rate": 0.01,
        "show_progress": False,
        "state": "WARNING",
    }
    return Config(model, DATASET, config_dict={**settings, **MODELS.get(model, {}), **overrides})


def make_trainer(config: Any) -> tuple[Any, tuple[Any, Any, Any]]:
    """Build data set, loaders, model and trainer as RecBole's quick start does, without get_flops.

    Returns:
        The trainer, and the loaders of training, validation and test data.
    """
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    init_seed(config["seed"], config["reproducibility"])
    loaders = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], config["model"])(config, model), loaders


def run_model(model: str, folder: Path, **overrides: Any) -> dict[str, float]:
    """Train a model for three epochs and test its best epoch, read back from the checkpoint.

    Returns:
        Metrics of the test split, rounded by RecBole to four decimals.
    """
    trainer, (train, valid, test) = make_trainer(make_config(model, folder, **overrides))
    trainer.fit(train, valid, verbose=False)
    return {name: round(float(value), 4) for name, value in trainer.evaluate(test).items()}


def versions() -> dict[str, str]:
    """Name the releases that a number depends on."""
    import numpy
    import pandas
    import recbole
    import scipy
    import torch

    modules = {"numpy": numpy, "pandas": pandas, "scipy": scipy, "torch": torch, "recbole": recbole}
    named = {name: str(module.__version__) for name, module in modules.items()}
    return {"python": platform.python_version(), **named}


def main() -> None:
    """Print versions and metrics of all models as JSON."""
    if sys.version_info >= (3, 11):  # noqa: UP036  # this file runs on RecBole's own Python too
        from recbole_cdr_mm import compat

        compat.apply()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole writes log_tensorboard/ where it runs
        write_atomic_files(Path(folder))
        metrics = {model: run_model(model, Path(folder)) for model in MODELS}
    json.dump({"versions": versions(), "metrics": metrics}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
