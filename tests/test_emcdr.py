"""EMCDR against NumPy on its own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from bridge_checks import BridgeChecks, Reference
from model_checks import TINY


def transformed(reference: Reference, user: int) -> np.ndarray:
    """f(u^s) of one user."""
    vector = reference.source_vector(user)
    if reference.config["mapping_function"] == "mlp":
        vector = np.tanh(reference.layer("mapping.hidden", vector))
    return reference.layer("mapping.output", vector)


class TestEMCDRLinear(BridgeChecks):
    config: ClassVar = {"model": "EMCDR", **TINY, "select_epoch": "last"}
    solves = ("one_linear_map",)
    expected_to_fail = ("two_groups",)
    transformed = staticmethod(transformed)
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "mapping": {},
        "task": {"bridge_loss": "task"},
        "mlp": {"mapping_function": "mlp"},
        "mlp_of_size_3": {"mapping_function": "mlp", "mapping_hidden_size": 3},
        "paper": {"preset": "paper"},
        "paper_task": {"preset": "paper", "bridge_loss": "task"},
    }

    def test_size_of_the_mlp(self, data_path: Path) -> None:
        sizes = {
            given: self.build(
                data_path, mapping_function="mlp", mapping_hidden_size=given
            ).model.mapping.hidden.weight.shape[0]
            for given in (None, 3)
        }
        assert sizes == {None: 2 * TINY["embedding_size"], 3: 3}

    def test_all_users_share_one_map(self, data_path: Path) -> None:
        run = self.build(data_path, preset="paper").fit()
        users = run.dataset.split.test_users
        source = np.array([Reference(run).source_vector(u) for u in users])
        found = np.array([transformed(Reference(run), u) for u in users])
        mapping, *_ = np.linalg.lstsq(source, found, rcond=None)
        np.testing.assert_allclose(source @ mapping, found, atol=1e-5)


class TestEMCDRMLP(BridgeChecks):
    config: ClassVar = {
        "model": "EMCDR",
        **TINY,
        "mapping_function": "mlp",
        "base_model": "GMF",
        "select_epoch": "last",
    }
    solves = ("one_linear_map",)
    transformed = staticmethod(transformed)


@pytest.mark.parametrize("bad", [{"mapping_function": "cubic"}, {"mapping_hidden_size": 0}])
def test_bad_values(tmp_path: Path, bad: dict[str, Any]) -> None:
    TestEMCDRLinear.refuses(tmp_path, bad, match=f"`{next(iter(bad))}: ")
