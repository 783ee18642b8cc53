"""Checkpoints: what comes back, what is refused, and what a killed run leaves."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

import recbole_cdr_mm.checkpoint as checkpoint_module
from recbole_cdr_mm.checkpoint import load_checkpoint, plain_config, save_checkpoint
from recbole_cdr_mm.errors import ConfigError

TABLE = np.array([[0.0, 1.5, 0.0], [2.5, 0.0, 0.0]], dtype=np.float32)


def example() -> dict[str, Any]:
    """A state with a bit of everything that a recommender's checkpoint holds."""
    return {
        "epoch": 3,
        "best_valid_score": -float("inf"),
        "state_dict": nn.Linear(2, 1).state_dict(),
        "other_parameter": {"matrix": sp.csr_matrix(TABLE), "table": TABLE.copy()},
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "EASE.pth"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class TestRoundTrip:
    @pytest.mark.parametrize("format_", ["csr", "csc", "bsr", "coo", "lil", "dok", "dia"])
    @pytest.mark.parametrize("family", [sp.csr_matrix, sp.csr_array])
    def test_sparse(self, path: Path, format_: str, family: Any) -> None:
        matrix = family(TABLE).asformat(format_)
        save_checkpoint(path, {"nested": {"in": [matrix]}})
        again = load_checkpoint(path)["nested"]["in"][0]
        assert type(again) is type(matrix)
        assert again.dtype == np.float32
        np.testing.assert_array_equal(again.toarray(), TABLE)

    def test_order_of_stored_entries(self, path: Path) -> None:
        matrix = sp.csr_matrix((np.array([1.0, 2.0]), np.array([2, 0]), np.array([0, 2])), (1, 3))
        save_checkpoint(path, {"matrix": matrix})
        np.testing.assert_array_equal(load_checkpoint(path)["matrix"].indices, [2, 0])

    @pytest.mark.parametrize(
        "array",
        [
            TABLE,
            np.asfortranarray(TABLE),
            np.arange(4)[::2],
            np.zeros((0, 3)),
            np.array(5, dtype=np.int16),
            np.array(["i1", "i22"]),
            np.array([True, False]),
        ],
    )
    def test_array(self, path: Path, array: np.ndarray) -> None:
        save_checkpoint(path, {"array": array})
        again = load_checkpoint(path)["array"]
        assert type(again) is np.ndarray
        assert again.dtype == array.dtype
        assert again.flags.f_contiguous == array.flags.f_contiguous or array.ndim < 2
        np.testing.assert_array_equal(again, array)

    def test_matrix_stays_a_matrix(self, path: Path) -> None:
        save_checkpoint(path, {"similarity": TABLE.view(np.matrix)})
        again = load_checkpoint(path)["similarity"]
        assert type(again) is np.matrix
        np.testing.assert_array_equal(again, TABLE)

    def test_plain_values(self, path: Path) -> None:
        state = {"a": None, "b": [1, (2.5, "c")], 7: {"d": True, "e": b"f"}, "g": []}
        save_checkpoint(path, state)
        assert load_checkpoint(path) == state

    def test_scalars_of_numpy_become_pythons(self, path: Path) -> None:
        save_checkpoint(path, {"score": np.float64(0.5), "step": np.int64(2), "name": np.str_("x")})
        again = load_checkpoint(path)
        assert [type(value) for value in again.values()] == [float, int, str]

    def test_modules_and_optimisers(self, path: Path) -> None:
        layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.5)
        layer(torch.ones(4, 3)).sum().backward()
        optimiser.step()
        save_checkpoint(path, {"model": layer.state_dict(), "optimiser": optimiser.state_dict()})
        again = load_checkpoint(path, map_location="cpu")
        assert again["model"]._metadata == layer.state_dict()._metadata
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).load_state_dict(again["model"])
        for value, same in zip(
            again["optimiser"]["state"][0].values(),
            optimiser.state[layer[0].weight].values(),
            strict=True,
        ):
            assert torch.equal(value, same)

    def test_zeros_take_no_room(self, path: Path) -> None:
        layer = nn.Linear(1000, 1000)
        nn.init.zeros_(layer.weight)
        moments = {"mean": torch.zeros(1000, 1000), "none": torch.zeros(0, 3)}
        save_checkpoint(path, {"model": layer.state_dict(), "optimizer": moments})
        assert path.stat().st_size < 20_000
        again = load_checkpoint(path)
        assert again["model"]._metadata == layer.state_dict()._metadata
        for found, stored in (
            *zip(again["model"].values(), layer.state_dict().values(), strict=True),
            *zip(again["optimizer"].values(), moments.values(), strict=True),
        ):
            assert torch.equal(found, stored)
            assert found.is_contiguous()
        sparse = torch.zeros(3, 3).to_sparse()
        save_checkpoint(path, {"sparse": sparse})
        assert torch.equal(load_checkpoint(path)["sparse"].to_dense(), sparse.to_dense())
        again["model"]["weight"][0, 0] = 1.0
        assert again["model"]["weight"].sum() == 1.0
        assert not layer.weight.any()

    def test_ordered_dict_with_arrays(self, path: Path) -> None:
        save_checkpoint(path, {"both": OrderedDict(table=TABLE, bias=torch.ones(1))})
        again = load_checkpoint(path)["both"]
        np.testing.assert_array_equal(again["table"], TABLE)

    def test_torch_alone_reads_the_tensors(self, path: Path) -> None:
        save_checkpoint(path, example())
        assert torch.load(path, weights_only=True)["state_dict"]["weight"].shape == (1, 2)

    def test_same_state_gives_same_arrays_file(self, tmp_path: Path) -> None:
        for folder in (tmp_path / "a", tmp_path / "b"):
            save_checkpoint(folder / "x.pth", {"table": TABLE})
        first, second = (
            {name: text for name, text in contents(tmp_path / folder).items() if "npz" in name}
            for folder in "ab"
        )
        assert first == second


class TestFiles:
    def test_without_arrays_there_is_one_file(self, path: Path) -> None:
        save_checkpoint(path, {"epoch": 1})
        assert [file.name for file in path.parent.iterdir()] == ["EASE.pth"]

    def test_arrays_of_the_last_save_only(self, path: Path) -> None:
        other = path.with_name("EASE.pth.mine.npz")
        other.write_bytes(b"not ours")
        for epoch in range(3):
            save_checkpoint(path, {"table": TABLE + epoch})
        assert len(list(path.parent.glob("EASE.pth.*.npz"))) == 2
        assert other.exists()
        np.testing.assert_array_equal(load_checkpoint(path)["table"], TABLE + 2)

    def test_checkpoints_side_by_side(self, tmp_path: Path) -> None:
        for name in ("a.pth", "b.pth"):
            save_checkpoint(tmp_path / name, {"table": TABLE, "name": name})
        assert load_checkpoint(tmp_path / "a.pth")["name"] == "a.pth"
        np.testing.assert_array_equal(load_checkpoint(tmp_path / "a.pth")["table"], TABLE)

    def test_renamed_checkpoint_finds_its_arrays(self, path: Path) -> None:
        save_checkpoint(path, {"table": TABLE})
        best = path.rename(path.with_name("best.pth"))
        np.testing.assert_array_equal(load_checkpoint(best)["table"], TABLE)

    def test_string_as_path(self, path: Path) -> None:
        save_checkpoint(str(path), {"epoch": 1})
        assert load_checkpoint(str(path)) == {"epoch": 1}


class TestKilled:
    """A run is killed at each write: the old checkpoint is whole, and nothing else lies about."""

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("function", [(np, "savez"), (torch, "save"), (os, "fsync")])
    def test_half_way(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        function: tuple[Any, str],
        first: bool,
    ) -> None:
        if not first:
            save_checkpoint(path, example())
        before = contents(path.parent)

        def write_half(*arguments: Any, **_: Any) -> None:
            for target in arguments:
                if isinstance(target, Path):
                    target.write_bytes(b"half")
                elif hasattr(target, "write"):
                    target.write(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(*function, write_half)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {**example(), "epoch": 4, "more": TABLE + 1})
        assert contents(path.parent) == before

    def test_between_the_two_files(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Killed for good, so that no clean-up runs: the new arrays stay, the old pair is read.
        save_checkpoint(path, {"table": TABLE})
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module.Path, "unlink", lambda *_, **__: None)
            patch.setattr(torch, "save", lambda *_: pytest.fail("killed"))
            with pytest.raises(pytest.fail.Exception):
                save_checkpoint(path, {"table": TABLE + 1})
        np.testing.assert_array_equal(load_checkpoint(path)["table"], TABLE)
        save_checkpoint(path, {"table": TABLE + 2})
        assert len(list(path.parent.glob("*.npz"))) == 1


class TestRefused:
    def test_what_cannot_be_saved_says_where(self, path: Path) -> None:
        save_checkpoint(path, example())
        before = contents(path.parent)
        for value in (object(), nn.Linear(1, 1), {1, 2}, np.array([None])):
            with pytest.raises(TypeError, match=r"^other\.1: a checkpoint cannot hold"):
                save_checkpoint(path, {"other": [TABLE, value]})
        assert contents(path.parent) == before

    def test_missing(self, path: Path) -> None:
        with pytest.raises(ConfigError, match=r"EASE\.pth: there is no such checkpoint"):
            load_checkpoint(path)

    @pytest.mark.parametrize("suffix", [".pth", ".npz"])
    @pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
    def test_damaged(self, path: Path, suffix: str, damage: str) -> None:
        save_checkpoint(path, example())
        load_checkpoint(path)
        file = next(file for file in path.parent.iterdir() if file.suffix == suffix)
        good = file.read_bytes()
        place = good.index(TABLE.tobytes() if suffix == ".npz" else b"state_dict")
        file.write_bytes(
            {
                "cut": good[: len(good) // 2],
                "flip": good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :],
                "empty": b"",
                "text": b"model: EASE\n",
            }[damage]
        )
        with pytest.raises(ConfigError, match=rf"{suffix}: damaged, or not written by this"):
            load_checkpoint(path)

    def test_arrays_missing(self, path: Path) -> None:
        save_checkpoint(path, example())
        next(path.parent.glob("*.npz")).unlink()
        with pytest.raises(ConfigError, match=r"EASE\.pth: its arrays should lie beside it"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        "content",
        [
            {"state_dict": {}},
            [1, 2],
            {"recbole_cdr_mm": 1},
            {"recbole_cdr_mm": {"format": 2, "arrays": None}},
        ],
    )
    def test_not_ours(self, path: Path, content: Any) -> None:
        torch.save(content, path)
        with pytest.raises(ConfigError, match=r"EASE\.pth: damaged, or not written by this"):
            load_checkpoint(path)

    def test_nothing_is_executed(self, path: Path, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        for write in (torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))):
            write({"recbole_cdr_mm": Bomb()}, path)
            with pytest.raises(ConfigError, match=r"EASE\.pth"):
                load_checkpoint(path)
        np.savez(path.with_name("b.npz"), table=np.array([Bomb()], dtype=object))
        torch.save({"recbole_cdr_mm": {"format": 1, "arrays": "b.npz"}}, path)
        with pytest.raises(ConfigError, match=r"b\.npz"):
            load_checkpoint(path)
        assert not (tmp_path / "exploded").exists()

    def test_arrays_of_another_folder(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        np.savez(tmp_path / "x.npz", table=TABLE)
        torch.save({"recbole_cdr_mm": {"format": 1, "arrays": "../x.npz"}}, folder / "y.pth")
        with pytest.raises(ConfigError, match=r"should lie beside it in `x\.npz`"):
            load_checkpoint(folder / "y.pth")


class Colour(Enum):
    RED = 1


class Size(IntEnum):
    SMALL = 1


def test_plain_config_is_json() -> None:
    values = {
        "enum": Colour.RED,
        "small": Size.SMALL,
        "device": torch.device("cpu"),
        "numbers": (np.float32(0.5), np.int64(2), {3}),
        "nested": {"split": {"RS": [0.8, 0.1, 0.1]}, 5: None},
        "class": Colour,
    }
    assert plain_config(values) == {
        "enum": 1,
        "small": 1,
        "device": "cpu",
        "numbers": [0.5, 2, [3]],
        "nested": {"split": {"RS": [0.8, 0.1, 0.1]}, "5": None},
        "class": f"<enum '{Colour.__name__}'>",
    }
