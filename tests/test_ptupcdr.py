"""PTUPCDR against NumPy on its own parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from bridge_checks import BridgeChecks, PersonalisedReference
from model_checks import TINY


class TestPTUPCDR(BridgeChecks):
    # Slower, three epochs would not move all of the attention.
    config: ClassVar = {"model": "PTUPCDR", **TINY, "learning_rate": 0.05, "select_epoch": "last"}
    solves = ("one_linear_map",)
    expected_to_fail = ("two_groups",)
    reference = PersonalisedReference
    transformed = PersonalisedReference.transformed
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "mapping": {"bridge_loss": "mapping"},
        "not_rating_aware": {"rating_aware": False},
        "positive": {"history": "positive"},
        "last_three": {"history_length": 3},
        "paper": {"preset": "paper"},
    }


class TestPTUPCDRPaper(BridgeChecks):
    config: ClassVar = {"model": "PTUPCDR", **TINY, "preset": "paper", "base_model": "GMF"}
    reference = PersonalisedReference
    transformed = PersonalisedReference.transformed
