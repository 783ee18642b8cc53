"""RecBole 1.2.1 on today's releases: each patch is needed, and none changes a number.

Patches change RecBole for the rest of a process, so each check of this file that applies them runs
in a process of its own, which `python tests/test_compat.py` starts.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import recbole_reference as reference

from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import ConfigError

TESTS = Path(__file__).parent

# Printed by tests/recbole_reference.py on RecBole's own stack: Python 3.9.18, NumPy 1.23.5,
# pandas 1.5.3, SciPy 1.10.1, torch 1.12.1, RecBole 1.2.1, nothing patched.
NATIVE: dict[str, dict[str, float]] = {
    "Pop": {
        "recall@10": 0.225,
        "ndcg@10": 0.0984,
        "mrr@10": 0.0615,
        "precision@10": 0.0233,
        "gauc": 0.4862,
    },
    "ItemKNN": {
        "recall@10": 0.5417,
        "ndcg@10": 0.3453,
        "mrr@10": 0.2875,
        "precision@10": 0.055,
        "gauc": 0.6463,
    },
    "EASE": {
        "recall@10": 0.625,
        "ndcg@10": 0.4309,
        "mrr@10": 0.3717,
        "precision@10": 0.0633,
        "gauc": 0.7475,
    },
    "BPR": {
        "recall@10": 0.2583,
        "ndcg@10": 0.1022,
        "mrr@10": 0.0573,
        "precision@10": 0.0267,
        "gauc": 0.4533,
    },
    "LightGCN": {
        "recall@10": 0.4667,
        "ndcg@10": 0.2426,
        "mrr@10": 0.1744,
        "precision@10": 0.0483,
        "gauc": 0.623,
    },
    "NeuMF": {
        "recall@10": 0.2333,
        "ndcg@10": 0.1098,
        "mrr@10": 0.0722,
        "precision@10": 0.0233,
        "gauc": 0.5013,
    },
    "MultiVAE": {
        "recall@10": 0.5583,
        "ndcg@10": 0.2669,
        "mrr@10": 0.1801,
        "precision@10": 0.0567,
        "gauc": 0.6884,
    },
    "FM": {"auc": 0.4906, "logloss": 0.704},
    "DeepFM": {"auc": 0.5004, "logloss": 0.674},
}


def check_quick_start(folder: Path) -> None:
    from recbole.quick_start import quick_start

    assert "ray" not in sys.modules
    with pytest.raises(ConfigError, match=r"`ray\.tune\.report` needs ray"):
        quick_start.tune.report(recall=0.1)


def check_numpy_aliases(folder: Path) -> None:
    own = np.bool_, np.long
    reference.make_config("BPR", folder)
    assert (np.bool, np.long) == own
    assert (vars(np)["float"], vars(np)["str"]) == (np.float64, np.str_)


def check_dok_update(folder: Path) -> None:
    reference.make_trainer(reference.make_config("LightGCN", folder))


def check_empty_sequences(folder: Path) -> None:
    items = make_data_set(folder).item_feat
    empty = [item % 6 == 0 for item in range(1, reference.ITEMS + 1)]
    tokens = items.set_index("item_id").loc[items["item_id"] > 0, "tags"]
    assert sorted(len(tags) == 0 for tags in tokens) == sorted(empty)


def check_missing_values(folder: Path) -> None:
    dataset = make_data_set(folder, normalize_field=None, numerical_features=[])
    ages = [18 + user * 13 % 50 for user in range(1, reference.USERS + 1) if user % 7]
    users = dataset.user_feat.set_index("user_id")
    seventh = dataset.token2id("user_id", "u7")
    assert not users.isna().any().any()
    assert not dataset.inter_feat.isna().any().any()
    assert users.loc[seventh, "age"] == pytest.approx(np.mean(ages))
    assert users.loc[dataset.token2id("user_id", "u11"), "group"] == 0


def check_agg_len(folder: Path) -> None:
    dataset = make_data_set(folder)
    items = dataset.item_feat.set_index("item_id")
    tags = items.loc[dataset.token2id("item_id", "i4"), "tags"]
    assert list(dataset.field2id_token["tags"][tags]) == ["t4", "t8"]


def check_writeable_tensors(folder: Path) -> None:
    import pandas as pd
    from recbole.data.interaction import Interaction

    dataset = make_data_set(folder)
    for convert in (dataset._dataframe_to_interaction, Interaction):
        frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4]})
        shared = frame.copy(deep=False)  # by pandas' rules, writing to one leaves the other
        convert(frame)["user_id"][0] = 99
        assert shared["user_id"].tolist() == [1, 2]


def check_grad_scaler(folder: Path) -> None:
    trainer, (train, _, _) = reference.make_trainer(reference.make_config("BPR", folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        trainer._train_epoch(train, 0)


def check_checkpoint(folder: Path) -> None:
    import torch

    trainer, (train, valid, test) = reference.make_trainer(reference.make_config("BPR", folder))
    trainer.fit(train, valid, verbose=False)
    checkpoint = torch.load(trainer.saved_model_file, weights_only=True)
    assert json.loads(json.dumps(checkpoint["config"]))["embedding_size"] == 16
    tested = trainer.evaluate(test)
    resumed, _ = reference.make_trainer(reference.make_config("BPR", folder))
    resumed.resume_checkpoint(trainer.saved_model_file)
    assert resumed.start_epoch == checkpoint["epoch"] + 1
    assert resumed.best_valid_score == trainer.best_valid_score
    assert resumed.optimizer.state_dict()["state"].keys() == {0, 1}
    assert resumed.evaluate(test, load_best_model=False) == tested


def check_checkpoint_of_matrices(folder: Path) -> None:
    for name in ("EASE", "ItemKNN", "AsymKNN", "SLIMElastic", "Pop"):
        trainer, (train, valid, test) = reference.make_trainer(
            reference.make_config(name, folder, **reference.RANKING)
        )
        trainer.fit(train, valid, verbose=False)
        before = trainer.model.other_parameter()
        direct = trainer.evaluate(test, load_best_model=False)
        for parameter in before:
            setattr(trainer.model, parameter, None)
        assert trainer.evaluate(test) == direct
        for parameter, value in trainer.model.other_parameter().items():
            assert type(value) is type(before[parameter])
            assert value.dtype == before[parameter].dtype
            assert abs(value - before[parameter]).max() == 0


def check_load_data_and_model(folder: Path) -> None:
    from recbole.quick_start import load_data_and_model

    trainer, (train, valid, test) = reference.make_trainer(reference.make_config("FM", folder))
    trainer.fit(train, valid, verbose=False)
    config, model, _, _, _, test_again = load_data_and_model(trainer.saved_model_file)
    again = type(trainer)(config, model)
    assert config["MODEL_TYPE"] is trainer.config["MODEL_TYPE"]
    assert config["device"] == trainer.config["device"]
    again.eval_collector.data_collect(train)
    tested = trainer.evaluate(test)
    assert again.evaluate(test_again, load_best_model=False) == tested


def check_pretrained_and_modules(folder: Path) -> None:
    # A model whose other parameters are modules, and the second door by which trainers save.
    from recbole.trainer.trainer import PretrainTrainer

    config = reference.make_config("BPR", folder, pretrain_epochs=1, save_step=1)
    trainer, _ = reference.make_trainer(config)
    trainer.model.other_parameter_name = ["user_embedding"]
    pretrainer = PretrainTrainer(config, trainer.model)
    pretrainer.save_pretrained_model(0, str(folder / "pretrained.pth"))
    weights = trainer.model.user_embedding.weight.detach().clone()
    trainer.model.user_embedding.weight.data.zero_()
    checkpoint = compat.load_checkpoint(folder / "pretrained.pth")
    trainer.model.load_state_dict(checkpoint["state_dict"])
    trainer.model.load_other_parameter(checkpoint["other_parameter"])
    assert (trainer.model.user_embedding.weight == weights).all()


def check_anomaly_detection(folder: Path) -> None:
    import torch
    from recbole.utils import get_model

    get_model("SASRec")  # imports all sequential models
    assert not torch.is_anomaly_enabled()


def check_second_call(folder: Path) -> None:
    from recbole.data.dataset import dataset
    from recbole.trainer import trainer

    def parts() -> list[Any]:
        return [dataset.pd, dataset.len, dataset.Dataset._fill_nan, trainer.torch, trainer.amp]

    before = parts()
    names = compat.apply()
    assert [id(part) for part in parts()] == [id(part) for part in before]
    assert set(names) <= {patch.name for patch in compat.PATCHES}
    assert LOGGED == [  # by the first call and this one together
        "recbole_cdr_mm.compat: RecBole 1.2.1 patched for the running releases: " + ", ".join(names)
    ]


def make_data_set(folder: Path, **overrides: Any) -> Any:
    from recbole.data import create_dataset

    return create_dataset(reference.make_config("FM", folder, **overrides))


# Which check fails without which patch, and what its traceback then says.
CHECK_OF_PATCH: dict[str, tuple[Callable[[Path], None], str]] = {
    "quick start without ray": (check_quick_start, "from ray import tune"),
    "NumPy aliases": (check_numpy_aliases, "`np.float_` was removed"),
    "dok_matrix._update": (check_dok_update, "no attribute '_update'"),
    "empty sequences": (check_empty_sequences, "no attribute 'split'"),
    "missing values": (check_missing_values, "assert not users.isna().any().any()"),
    "Series.agg(len)": (check_agg_len, "_remap"),
    "writeable tensors": (check_writeable_tensors, 'assert shared["user_id"].tolist() == [1, 2]'),
    "GradScaler": (check_grad_scaler, "GradScaler(args...)` is deprecated"),
    "plain checkpoints": (check_checkpoint, "Weights only load failed"),
    "load_data_and_model": (check_load_data_and_model, "in load_data_and_model"),
    "anomaly detection": (check_anomaly_detection, "assert not torch.is_anomaly_enabled()"),
}
OTHER_CHECKS = (check_second_call, check_checkpoint_of_matrices, check_pretrained_and_modules)
CHECKS = {
    check.__name__: check
    for check in (*(check for check, _ in CHECK_OF_PATCH.values()), *OTHER_CHECKS)
}
LOGGED: list[str] = []


def run_checks(names: list[str], without: str) -> dict[str, str]:
    """Apply all patches, or all but one, and run checks.

    Returns:
        The traceback of each check, empty where it passed; `skipped` if that one is not needed.
    """
    logging.getLogger().addHandler(handler := logging.Handler())
    handler.emit = lambda record: LOGGED.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: "compat" in record.getMessage())
    logging.getLogger().setLevel(logging.INFO)
    if without and not next(patch for patch in compat.PATCHES if patch.name == without).needed():
        return {"skipped": without}
    compat.PATCHES = tuple(patch for patch in compat.PATCHES if patch.name != without)
    outcome = {}
    for name in names:
        folder = Path(f"{name} without {without}").absolute()
        try:
            compat.apply()
            reference.write_atomic_files(folder)
            CHECKS[name](folder)
            outcome[name] = ""
        except Exception:
            outcome[name] = traceback.format_exc()
    return outcome


def run_forked(names: list[str], without: str) -> dict[str, str]:
    """Do `run_checks` in a copy of this process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(run_checks(names, without)))
    process.start()
    sender.close()  # so that a copy that dies is an EOFError here and no endless wait
    outcome = receiver.recv()
    process.join()
    return outcome


def main() -> None:
    """Run all checks with all patches, and each patch's check without it; print what they say.

    Each of these runs has a process of its own, forked from this one, which patches nothing.
    """
    import recbole.trainer  # noqa: F401  # imported once for all

    plan = {patch: [check.__name__] for patch, (check, _) in CHECK_OF_PATCH.items()}
    outcome = {without: run_forked(names, without) for without, names in plan.items()}
    outcome[""] = run_forked(list(CHECKS), "")
    json.dump(outcome, sys.stdout)


def run_script(folder: Path, *command: str) -> Any:
    """Run Python in `folder`, with this checkout importable, and read the JSON that it prints."""
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the checks say, by the patch that was left out; by '' with all patches in place."""
    return run_script(tmp_path_factory.mktemp("checks"), __file__)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What the models of the reference get on the running releases."""
    folder = tmp_path_factory.mktemp("reference")
    return run_script(folder, str(TESTS / "recbole_reference.py"))["metrics"]


@pytest.mark.parametrize("check", CHECKS)
def test_check_passes_with_all_patches(outcome: dict[str, dict[str, str]], check: str) -> None:
    assert outcome[""][check] == ""


def test_every_patch_has_a_check() -> None:
    assert [patch.name for patch in compat.PATCHES] == list(CHECK_OF_PATCH)


@pytest.mark.parametrize("patch", CHECK_OF_PATCH)
def test_check_fails_without_its_patch(outcome: dict[str, dict[str, str]], patch: str) -> None:
    check, message = CHECK_OF_PATCH[patch]
    if "skipped" in outcome[patch]:
        pytest.skip(f"the running releases do not need the patch `{patch}`")
    assert message in outcome[patch][check.__name__]


def test_there_are_nine_models_of_both_kinds() -> None:
    assert list(NATIVE) == list(reference.MODELS)
    assert len(NATIVE) == 9


@pytest.mark.parametrize("model", NATIVE)
def test_model_has_the_metrics_of_its_own_stack(
    metrics: dict[str, dict[str, float]], model: str
) -> None:
    assert metrics[model] == NATIVE[model]


def test_import_changes_nothing(tmp_path: Path) -> None:
    code = """
import json, logging, os, random, sys
import numpy as np, pandas as pd, scipy.sparse as sp, torch, torch.utils.tensorboard
def state():
    return [sorted(vars(np)), sorted(vars(sp.dok_matrix)), sorted(vars(torch)), dict(os.environ),
            str(logging.getLogger().handlers), logging.getLogger().level, str(random.getstate()),
            str(np.random.get_state()), torch.get_rng_state().tolist(), os.listdir()]
before = state()
import recbole_cdr_mm.compat
print(json.dumps({"same": state() == before, "recbole": "recbole" in sys.modules}))
"""
    assert run_script(tmp_path, "-c", code) == {"same": True, "recbole": False}


class TestRecBoleIsChecked:
    @pytest.fixture(autouse=True)
    def never_applied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compat, "_applied", None)
        monkeypatch.setattr(compat, "PATCHES", ())

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "recbole", None)
        remedy = r"not installed.*pip install --no-deps recbole==1\.2\.1"
        with pytest.raises(ConfigError, match=remedy):
            compat.apply()

    @pytest.mark.parametrize("version", ["1.2.0", "1.2.10"])
    def test_another_release(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        self.pretend(monkeypatch, version)
        with pytest.raises(ConfigError, match=rf"RecBole {version} found, 1\.2\.1 needed.*pip"):
            compat.apply()

    def test_the_right_release(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretend(monkeypatch, "1.2.1")
        assert compat.apply() == []

    def pretend(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        recbole = ModuleType("recbole")
        recbole.__version__ = version  # type: ignore[attr-defined]
        recbole.__file__ = "recbole/__init__.py"
        monkeypatch.setitem(sys.modules, "recbole", recbole)


if __name__ == "__main__":
    main()
