"""What every bridge must pass beside `ModelChecks`, against plain NumPy: one user, one item."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from model_checks import (
    ModelChecks,
    Run,
    naive_biases,
    naive_calibration,
    numpy_state,
    pairs_of_both_kinds,
    tiny_pair,
    write_world,
)

from dataset_tools.synthetic import planted_features
from recbole_cdr_mm.errors import ConfigError


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Floor of items, of users, and item weights, by id: what a user is scored with.

    Made without the target ratings of a fold, or of none.
    """

    item_floor: dict[int, float]
    user_floor: dict[int, float]
    item_e: dict[int, np.ndarray]
    without_fold: int | None = None


class Reference:
    """A bridge's base models, floors and scores again, one user and one item at a time."""

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.pair = run, run.config, run.dataset.pair
        self.state = numpy_state(run)
        self.source = source = run.dataset.rated_source
        mean, user_bias, item_bias = naive_biases(source)
        self.source_bias = user_bias
        self.centred = [
            float(r) - mean - user_bias[u] - item_bias[i]
            for u, i, r in zip(source.user, source.item, source.rating, strict=True)
        ]
        self.features = {}
        domains = ("source", "target")
        for domain, (ids, matrix) in zip(domains, planted_features(tiny_pair(), 4), strict=True):
            rated = set(self.pair.item_tokens[self.pair.items(domain)])
            by_token = dict(zip(ids, matrix.astype(np.float64), strict=True))
            self.features[domain] = {t: row for t, row in by_token.items() if t in rated}

    def layer(self, name: str, x: np.ndarray) -> np.ndarray:
        """A linear layer."""
        return self.state[f"{name}.weight"] @ x + self.state.get(f"{name}.bias", 0.0)

    def text(self, item: int, layer: str, domains: tuple[str, ...]) -> np.ndarray:
        """The projected text of an item; `domains` are those whose texts the layer reads."""
        domain = "source" if item <= self.pair.n_source_items else "target"
        token = self.pair.item_tokens[item]
        if token not in self.features[domain]:
            return self.state[f"{layer}.missing"]
        read = np.concatenate([np.array([*self.features[d].values()]) for d in domains])
        scale = np.sqrt(np.mean(read**2))
        return self.layer(f"{layer}.linear", self.features[domain][token] / scale)

    def source_vector(self, user: int) -> np.ndarray:
        """u^s."""
        return self.state["source.users.embedding"][user]

    def item_vector(self, item: int) -> np.ndarray:
        """v of an item in its own domain's base model."""
        is_source = item <= self.pair.n_source_items
        domain = "source" if is_source else "target"
        parts = self.config["pretrain_item_features"]
        vector = np.zeros(self.config["embedding_size"])
        if parts in ("id", "both"):
            row = item if is_source else item - self.pair.n_source_items
            vector = vector + self.state[f"{domain}.items.embedding"][row]
        if parts in ("text", "both"):
            vector = vector + self.text(item, f"{domain}.items.text", (domain,))
        return vector

    def weigh(self, vector: np.ndarray) -> np.ndarray:
        """v on MF, h * v on GMF."""
        return vector * self.state.get("target.linear.weight", np.ones((1, 1)))[0]

    def target_row(self, user: int) -> int:
        """The user's row in the target model's tables."""
        return user if user <= self.pair.n_overlapped else user - self.pair.n_source_only

    def intercept(self, item: int) -> float:
        """Mean and bias of a target item."""
        row = item - self.pair.n_source_items
        return self.state["target.mean"] + self.state["target.items.bias"][row]

    def view(self, without_fold: int | None = None) -> View:
        """What a cold-start user meets; or one who is simulated, without their fold's ratings."""
        target_items = range(self.pair.n_source_items + 1, self.pair.n_items)
        if not self.config["start_from_floor"] or self.config["eval_task"] == "ranking":
            return View(
                {i: self.intercept(i) for i in target_items},
                {},
                {i: self.weigh(self.item_vector(i)) for i in target_items},
            )
        a, b, c, fold = naive_calibration(self.run)
        rows = self.run.dataset.split.train
        if without_fold is not None:
            rows = rows.where(fold[rows.user] != without_fold)
        mean, user_bias, item_bias = naive_biases(rows)
        floor = {i: a + b * (mean + item_bias.get(i, 0.0)) for i in target_items}
        item_e = {}
        for i in target_items:
            raters = [n for n in range(len(rows)) if rows.item[n] == i]
            u = np.array(
                [
                    self.state["target.users.embedding"][self.target_row(rows.user[n])]
                    for n in raters
                ]
            ).reshape(-1, self.config["embedding_size"])
            rest = [rows.rating[n] - mean - user_bias[rows.user[n]] - item_bias[i] for n in raters]
            gram = u.T @ u + self.config["item_vector_shrinkage"] * np.eye(u.shape[1])
            item_e[i] = np.linalg.solve(gram, u.T @ np.array(rest))
        user_floor = {u: c * bias for u, bias in self.source_bias.items()}
        return View(floor, user_floor, item_e, without_fold)

    def cold(self, view: View, user_e: np.ndarray, user: int, item: int) -> float:
        """Floor plus the product of Eq. 7."""
        return self.floor(view, user, item) + user_e @ self.item_weight(view, item)

    def floor(self, view: View, user: int, item: int) -> float:
        """What the product is added to."""
        return view.item_floor[item] + view.user_floor.get(user, 0.0)

    def item_weight(self, view: View, item: int) -> np.ndarray:
        """What a bridged vector is multiplied with."""
        return view.item_e[item]

    def warm(self, user: int, item: int) -> float:
        """The target model's own score."""
        u = self.target_row(user)
        bias = self.state["target.users.bias"][u]
        vector = self.state["target.users.embedding"][u]
        return self.intercept(item) + bias + vector @ self.weigh(self.item_vector(item))


class PersonalisedReference(Reference):
    """Eq. 2-5, one user at a time."""

    def history_vector(self, item: int) -> np.ndarray:
        """What the encoder reads of a source item."""
        return self.item_vector(item)

    def characteristic(self, user: int) -> np.ndarray:
        """Eq. 2-3."""
        places = list(np.flatnonzero(self.source.user == user))
        if self.config["history"] == "positive":
            threshold = self.config["positive_threshold"]
            places = [n for n in places if self.source.rating[n] >= threshold]
        if self.config["history_length"] is not None:
            places = places[-self.config["history_length"] :]
        if not places:
            return np.zeros(self.config["embedding_size"])
        vectors, logits = [], []
        for n in places:
            v = self.history_vector(self.source.item[n])
            if self.config["rating_aware"]:
                v = v + self.layer("rating_gate", np.concatenate([v, self.centred[n] * v]))
            hidden = np.maximum(self.layer("characteristic_encoder.hidden", v), 0)
            vectors.append(v)
            logits.append(self.layer("characteristic_encoder.logit", hidden).item())
        weights = np.exp(logits) / np.exp(logits).sum()
        return (weights[:, None] * vectors).sum(0)

    def transformed(self, user: int) -> np.ndarray:
        """Eq. 4-5."""
        k = self.config["embedding_size"]
        hidden = np.maximum(self.layer("meta_network.hidden", self.characteristic(user)), 0)
        bridge = self.layer("meta_network.output", hidden).reshape(k, k)
        return self.source_vector(user) @ bridge


class BridgeChecks(ModelChecks):
    """The arithmetic of a bridge.

    Attributes:
        reference: The class that computes its scores again.
        transformed: u_hat of a user, from a reference.
        variants: Options, by name, under which its scores are compared.
    """

    reference: ClassVar[type[Reference]] = Reference
    transformed: ClassVar[Callable[[Any, int], np.ndarray]]
    variants: ClassVar[dict[str, dict[str, Any]]] = {"default": {}}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        super().pytest_generate_tests(metafunc)
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants)

    @classmethod
    def refuses(cls, tmp_path: Path, bad: dict[str, Any], match: str) -> None:
        """A value is refused, and the default in its place is not."""
        data_path = write_world(tiny_pair(), tmp_path)
        cls.build(data_path)
        with pytest.raises(ConfigError, match=match):
            cls.build(data_path, **bad)

    @classmethod
    def fit_variant(cls, data_path: Path, variant: str, **values: Any) -> Run:
        return cls.build(
            data_path, **{"learning_rate": 0.03, **cls.variants[variant], **values}
        ).fit()

    @pytest.mark.parametrize("base_model", ["MF", "GMF"])
    def test_scores(self, data_path: Path, variant: str, base_model: str) -> None:
        run = self.fit_variant(data_path, variant, base_model=base_model)
        reference, warm = self.reference(run), set(run.dataset.split.train.user.tolist())
        user, item = pairs_of_both_kinds(run)
        view = reference.view()
        bridged = {u: type(self).transformed(reference, u) for u in {*user.tolist()} - warm}
        expected = [
            reference.warm(u, i) if u in warm else reference.cold(view, bridged[u], u, i)
            for u, i in zip(user.tolist(), item.tolist(), strict=True)
        ]
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-4, atol=1e-4)
        largest = max(np.abs(vector).max() for vector in bridged.values())
        assert bool(largest > 1e-3) is run.model.floor.takes_bridge, "a bridge that is still 0"

    def test_variants_differ(self, data_path: Path) -> None:
        """Else a key that nobody reads would pass."""
        seen = []
        for variant in self.variants:
            run = self.fit_variant(data_path, variant)
            users = torch.from_numpy(run.dataset.split.test_users)
            with torch.no_grad():
                seen.append((run.config["eval_task"], run.model.transform(users).numpy()))
        for first, (task, vectors) in enumerate(seen):
            for other_task, other in seen[first + 1 :]:
                assert (
                    task != other_task
                    or vectors.shape != other.shape
                    or np.abs(vectors - other).max() > 1e-4
                )
