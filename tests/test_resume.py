"""A run that is killed goes on to the same numbers; what does not fit is refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from model_checks import (
    TINY,
    changed,
    command_line,
    result_of,
    tiny_pair,
    with_target_ratings,
    write_world,
)

from recbole_cdr_mm import run
from recbole_cdr_mm.checkpoint import load_checkpoint
from recbole_cdr_mm.quick_start import main
from recbole_cdr_mm.trainer import build_trainer

# Kills its own process at the end of the third epoch of a stage, before that epoch is kept.
KILLED = """
import os, signal, sys
from recbole_cdr_mm import compat
compat.apply()
from recbole_cdr_mm.quick_start import main
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

stage_name, arguments = sys.argv[1], sys.argv[2:]
train = StagedTrainer._train_one_epoch

def train_and_die(trainer, stage, training, report):
    train(trainer, stage, training, report)
    if stage.name == stage_name and report.epochs == 3:
        os.kill(os.getpid(), signal.SIGKILL)

StagedTrainer._train_one_epoch = train_and_die
sys.exit(main(arguments))
"""
FLOOR = {"model": "MetaMMCDR", **TINY, "learning_rate": 0.03, "stopping_step": 2, "epochs": 6}
META = {**FLOOR, "start_from_floor": False, "simulate_cold_users": False}
SMALL = {"model": "TargetMF", **TINY, "epochs": 2}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def only_checkpoint(folder: Path) -> Path:
    """The one file in the folder of checkpoints."""
    (file,) = (folder / "saved").iterdir()
    return file


@pytest.fixture(scope="module")
def whole(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run that nobody killed."""
    return result_of(data_path, tmp_path_factory.mktemp("whole"), **META)


def kill(data_path: Path, folder: Path, stage: str, values: dict[str, Any]) -> None:
    """Run until the third epoch of a stage."""
    command = [sys.executable, "-c", KILLED, stage, *command_line(data_path, folder, **values)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


class TestKilled:
    @pytest.mark.parametrize("stage", ["source", "target", "bridge"])
    def test_goes_on_to_the_same_result(
        self, data_path: Path, tmp_path: Path, whole: dict[str, Any], stage: str
    ) -> None:
        kill(data_path, tmp_path, stage, META)
        assert not (tmp_path / "result.json").exists()
        progress = load_checkpoint(only_checkpoint(tmp_path))["progress"]
        last = progress["reports"][-1]
        assert (last["name"], last["epochs"]) == (stage, 2)
        assert result_of(data_path, tmp_path, **META, resume=True) == whole

    def test_remembers_the_floor_that_has_to_be_beaten(
        self, data_path: Path, tmp_path: Path
    ) -> None:
        whole = result_of(data_path, tmp_path / "whole", **FLOOR)
        kill(data_path, tmp_path, "bridge", FLOOR)
        progress = load_checkpoint(only_checkpoint(tmp_path))["progress"]
        assert {"user", "rating", "prediction"} <= progress["start"].keys()
        assert result_of(data_path, tmp_path, **FLOOR, resume=True) == whole

    def test_something_was_at_stake(self, whole: dict[str, Any]) -> None:
        """The bridge's best epoch lies before the kill, and its last one after it."""
        bridge = whole["stages"][-1]
        assert 0 < bridge["best_epoch"] < 3 < bridge["epochs"]


class TestResume:
    def test_without_a_checkpoint_begins_at_the_start(
        self, data_path: Path, tmp_path: Path, whole: dict[str, Any]
    ) -> None:
        assert result_of(data_path, tmp_path, **META, resume=True) == whole

    def test_finished_run(self, data_path: Path, tmp_path: Path) -> None:
        first = result_of(data_path, tmp_path, **SMALL)
        before = load_checkpoint(only_checkpoint(tmp_path))
        assert result_of(data_path, tmp_path, **SMALL, resume=True) == first
        after = load_checkpoint(only_checkpoint(tmp_path))
        assert not changed(before["state_dict"], after["state_dict"])
        assert before["progress"] == after["progress"]

    @pytest.mark.parametrize("own", ["missing", "unfinished"])
    def test_by_path(self, data_path: Path, tmp_path: Path, own: str) -> None:
        """The named file counts, whatever lies where the run keeps its own."""
        first = result_of(data_path, tmp_path, **SMALL)
        checkpoint = only_checkpoint(tmp_path)
        elsewhere = shutil.move(checkpoint, tmp_path / "elsewhere.pth")
        if own == "unfinished":
            other = result_of(data_path, tmp_path / "other", **{**SMALL, "reg_weight": 5.0})
            assert other["test"] != first["test"]
            shutil.move(only_checkpoint(tmp_path / "other"), checkpoint)
        assert result_of(data_path, tmp_path, **SMALL, resume=elsewhere) == first

    def test_without_resume_begins_at_the_start(self, data_path: Path, tmp_path: Path) -> None:
        first = result_of(data_path, tmp_path, **SMALL)
        only_checkpoint(tmp_path).write_bytes(b"whatever was here before")
        assert result_of(data_path, tmp_path, **SMALL) == first

    def test_moved_data_and_device_do_not_matter(self, data_path: Path, tmp_path: Path) -> None:
        first = result_of(data_path, tmp_path, **SMALL)
        moved = shutil.copytree(data_path, tmp_path / "moved")
        resumed = result_of(moved, tmp_path, **SMALL, resume=True, show_progress=True, worker=0)
        assert resumed == first


class TestTwoAtATime:
    """Runs of one configuration on two folders of data, which keep one checkpoint."""

    @pytest.fixture
    def interleaved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Have the other one train between a run's training and its measurement."""
        other = write_world(tiny_pair(seed=1), tmp_path / "other")

        def after_training(values: dict[str, Any]) -> None:
            def build(config: Any, model: Any) -> Any:
                trainer = build_trainer(config, model)
                train = trainer.fit

                def fit(*arguments: Any, **options: Any) -> Any:
                    outcome = train(*arguments, **options)
                    monkeypatch.setattr(run, "build_trainer", build_trainer)
                    result_of(other, tmp_path, **values)
                    return outcome

                trainer.fit = fit
                return trainer

            monkeypatch.setattr(run, "build_trainer", build)

        return after_training

    def test_our_models_measure_what_they_trained(
        self, data_path: Path, tmp_path: Path, interleaved: Any
    ) -> None:
        alone = result_of(data_path, tmp_path / "alone", **SMALL)
        interleaved(SMALL)
        assert result_of(data_path, tmp_path, **SMALL) == alone

    def test_recboles_are_not_measured_in_the_others_state(
        self, data_path: Path, tmp_path: Path, interleaved: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        values = {"model": "BPR", "eval_task": "ranking", "epochs": 2, "embedding_size": 4}
        interleaved(values)
        assert main(command_line(data_path, tmp_path, **values)) == 2
        assert "another run has left its model here. Give" in capsys.readouterr().err


def test_an_older_runs_last_epoch_is_thrown_away(data_path: Path, tmp_path: Path) -> None:
    """It is no epoch of the run that begins anew, and shall not be gone on from."""
    values = {"model": "BPR", "eval_task": "ranking", "epochs": 2, "embedding_size": 4}
    result_of(data_path, tmp_path, **values)
    (last,) = (tmp_path / "saved").glob("*.last.pth")
    (kept,) = set((tmp_path / "saved").glob("*.pth")) - {last}
    begun = []

    def train(trainer: Any, *arguments: Any, **options: Any) -> Any:
        begun.append(last.exists())
        raise KeyboardInterrupt

    with patch("recbole.trainer.Trainer._train_epoch", train):
        main(command_line(data_path, tmp_path, **values))
    assert begun == [False]
    assert kept.exists()


class TestRefused:
    """Each with exit code 2 and one error; nothing is trained, written or thrown away."""

    @pytest.fixture
    def trained(self, data_path: Path, tmp_path: Path) -> Path:
        result_of(data_path, tmp_path, **SMALL)
        (tmp_path / "result.json").unlink()
        return shutil.copy(only_checkpoint(tmp_path), tmp_path / "other.pth")

    @pytest.fixture
    def refuse(self, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def refused(text: str, *, data: Path = data_path, **values: Any) -> None:
            before = contents(tmp_path / "saved")
            capsys.readouterr()
            assert main(command_line(data, tmp_path, **{**SMALL, **values})) == 2
            error = capsys.readouterr().err
            assert error.startswith("ConfigError: ")
            assert error.count("\n") == 1
            assert text in error
            assert not (tmp_path / "result.json").exists()
            assert contents(tmp_path / "saved") == before

        return refused

    def test_other_model(self, data_path: Path, tmp_path: Path, trained: Path, refuse: Any) -> None:
        refuse(
            "other.pth: is a checkpoint of model TargetMF, not of MetaMMCDR. Name the right file,"
            " or leave `resume` out.",
            model="MetaMMCDR",
            resume=trained,
        )

    def test_other_data_set(self, tmp_path: Path, trained: Path, refuse: Any) -> None:
        data = write_world(tiny_pair(seed=1), tmp_path / "data", "other_pair")
        refuse(
            "other.pth: is a checkpoint of dataset tiny, not of other_pair. Name the right file",
            data=data,
            dataset="other_pair",
            resume=trained,
        )

    def test_other_value(self, trained: Path, refuse: Any) -> None:
        refuse(
            "other.pth: was trained with other values of learning_rate (0.005 there, 0.1 here)."
            " Give the same, or leave `resume` out.",
            learning_rate=0.1,
            resume=trained,
        )

    def test_other_split(self, trained: Path, refuse: Any) -> None:
        refuse(
            "other.pth: was trained on other ratings, or another split of them, than tiny has now."
            " Bring the same files and split_seed back, or leave `resume` out.",
            split_seed=3,
            resume=trained,
        )

    @pytest.mark.parametrize("by_path", [True, False])
    def test_changed_ratings(
        self, tmp_path: Path, trained: Path, refuse: Any, by_path: bool
    ) -> None:
        pair = tiny_pair()
        other = with_target_ratings(pair, lambda r: r % 5 + 1, {pair.users[0]})
        refuse(
            "was trained on other ratings, or another split of them, than tiny has now.",
            data=write_world(other, tmp_path / "data"),
            resume=trained if by_path else True,
        )

    def test_changed_features(self, data_path: Path, tmp_path: Path, refuse: Any) -> None:
        meta = {**META, "epochs": 1, "feature_path": tmp_path / "features"}
        shutil.copytree(data_path, tmp_path / "features")
        result_of(data_path, tmp_path, **meta)
        (tmp_path / "result.json").unlink()
        (store,) = (tmp_path / "features").rglob("*_movie.text.npy")
        np.save(store, -np.load(store))
        refuse("was trained on other side features than tiny has now.", **meta, resume=True)

    @pytest.mark.parametrize("by_path", [True, False])
    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
    def test_damaged(
        self, tmp_path: Path, trained: Path, refuse: Any, by_path: bool, damage: str
    ) -> None:
        file = trained if by_path else only_checkpoint(tmp_path)
        content = bytearray(file.read_bytes())
        with zipfile.ZipFile(file) as archive:
            tensor = max(archive.infolist(), key=lambda entry: entry.file_size)
            values = archive.read(tensor)
        content[content.index(values, tensor.header_offset) + len(values) // 2] ^= 1
        parts = {"cut": content[: len(content) // 2], "flipped": content, "empty": b""}
        file.write_bytes(parts[damage])
        refuse(file.name, resume=trained if by_path else True)

    def test_missing(self, tmp_path: Path, trained: Path, refuse: Any) -> None:
        trained.unlink()
        refuse(
            "other.pth: there is no such checkpoint. Correct the path or train first.",
            resume=trained,
        )

    def test_folder(self, tmp_path: Path, trained: Path, refuse: Any) -> None:
        refuse("there is no such checkpoint", resume=tmp_path / "saved")

    def test_no_checkpoint(self, tmp_path: Path, trained: Path, refuse: Any) -> None:
        trained.write_text("user_id:token\n", encoding="utf-8")
        refuse("other.pth", resume=trained)

    def test_checkpoint_of_something_else(self, trained: Path, refuse: Any) -> None:
        torch.save({"state_dict": {}}, trained)
        refuse("other.pth", resume=trained)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
