"""SSCDR, simplified and metric, against NumPy on its own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from bridge_checks import BridgeChecks, Reference
from model_checks import TINY, ModelChecks, Run, numpy_state

METRIC = {"sscdr_form": "metric", "eval_task": "ranking"}


class SemiSupervisedReference(Reference):
    """Mapped vectors of users and items."""

    @property
    def is_metric(self) -> bool:
        return self.config["sscdr_form"] == "metric"

    def place(self, vector: np.ndarray) -> np.ndarray:
        return vector / max(1.0, np.linalg.norm(vector)) if self.is_metric else vector

    def mapped(self, vector: np.ndarray) -> np.ndarray:
        vector = self.place(vector)
        if self.config["mapping_function"] == "mlp":
            vector = np.tanh(self.layer("mapping.hidden", vector))
        return self.place(self.layer("mapping.output", vector))

    def transformed(self, user: int) -> np.ndarray:
        """The mapped vector, averaged with its neighbours'."""
        hops = self.config["neighbour_hops"]
        hops = {None: int(self.is_metric)}.get(hops, hops)
        return self.averaged("user", user, hops)

    def averaged(self, kind: str, node: int, hops: int) -> np.ndarray:
        if hops == 0:
            own = self.source_vector if kind == "user" else self.item_vector
            return self.mapped(own(node))
        source = self.pair.source
        own_column, other_column, other = (
            (source.user, source.item, "item")
            if kind == "user"
            else (source.item, source.user, "user")
        )
        neighbours = other_column[own_column == node]
        vectors = [self.averaged(other, n, hops - 1) for n in neighbours]
        return np.mean([self.averaged(kind, node, hops - 1), *vectors], axis=0)

    def loss(self, user: int, liked: int, other: int) -> float:
        target_e = self.place(self.state["target.users.embedding"][self.target_row(user)])
        distance = np.sum((self.mapped(self.source_vector(user)) - target_e) ** 2)
        if liked == 0:
            return distance
        near, far = (
            np.sum((self.mapped(self.item_vector(i)) - target_e) ** 2) for i in (liked, other)
        )
        hinge = max(0.0, self.config["margin"] + near - far)
        return distance + self.config["unsupervised_weight"] * hinge


class TestSSCDR(BridgeChecks):
    config: ClassVar = {"model": "SSCDR", **TINY, "select_epoch": "last"}
    solves = ("one_linear_map",)
    expected_to_fail = ("two_groups",)
    reference = SemiSupervisedReference
    transformed = SemiSupervisedReference.transformed
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "supervised_alone": {"unsupervised_weight": 0.0},
        "small_margin": {"margin": 0.001},
        "mlp": {"mapping_function": "mlp"},
        "two_hops": {"neighbour_hops": 2},
        "paper": {"preset": "paper"},
    }

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"unsupervised_weight": 0.3, "margin": 2.0},
            {"positive_threshold": 5},
            {"preset": "paper"},
            METRIC,
        ],
    )
    def test_loss(self, data_path: Path, values: dict[str, Any]) -> None:
        run = self.build(data_path, **{"embedding_std": 1.0, "learning_rate": 0.03, **values}).fit()
        reference = SemiSupervisedReference(run)
        stage = run.model.stages(run.dataset, None)[-1]
        users = []
        for batch in stage.training.loader:
            columns = [batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")]
            expected = [reference.loss(*row) for row in zip(*columns, strict=True)]
            assert stage.training.loss(batch).item() == pytest.approx(np.mean(expected), rel=1e-4)
            users += columns[0]
        training = np.intersect1d(run.dataset.pair.overlapped_users, run.dataset.split.train.user)
        assert sorted(users) == training.tolist()

    def test_what_is_drawn(self, data_path: Path) -> None:
        run = self.build(data_path, positive_threshold=5)
        source = run.dataset.pair.source
        liked = set(
            zip(source.user[source.rating >= 5], source.item[source.rating >= 5], strict=True)
        )
        rated = set(zip(source.user.tolist(), source.item.tolist(), strict=True))
        has_liked = {user for user, _ in liked}
        stage = run.model.stages(run.dataset, None)[-1]
        drawn: list[list[int]] = []
        for epoch in range(2):
            stage.training.loader.set_epoch(epoch)
            for batch in stage.training.loader:
                columns = [batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")]
                for user, item, other in zip(*columns, strict=True):
                    assert (user, item) in liked if user in has_liked else item == 0
                    assert (user, other) not in rated
                    assert 1 <= other <= run.dataset.pair.n_source_items
                drawn.append(sorted(zip(*columns, strict=True)))
        assert drawn[0] != drawn[1]
        assert {user for user, *_ in drawn[0]} - has_liked, "nobody is without a liked item"

    def test_ranking_by_a_dot_product_takes_bpr(self, data_path: Path) -> None:
        run = self.build(data_path, eval_task="ranking").fit()
        batch = next(iter(run.model.stages(run.dataset, None)[0].training.loader))
        items = batch["item_id"], batch["neg_item_id"].squeeze(1)
        scores = [run.model.source(batch["user_id"], item) for item in items]
        margins = (scores[0] - scores[1]).detach().numpy()
        base = run.model.source
        losses = run.model.losses_of_scores(base, base.log_normalisers, batch).detach().numpy()
        np.testing.assert_allclose(losses, np.log1p(np.exp(-margins)), rtol=1e-4)

    @pytest.mark.parametrize(
        ("bad", "match"),
        [
            ({"sscdr_form": "metric"}, "predicts no ratings. Give --eval_task=ranking"),
            ({**METRIC, "base_model": "GMF"}, "`base_model: GMF` is for `sscdr_form: simplified`"),
            ({**METRIC, "loss_type": "BPR"}, "`loss_type: BPR` is for `sscdr_form: simplified`"),
            ({**METRIC, "loss_type": "CE"}, "`loss_type: CE` is for `sscdr_form: simplified`"),
            ({"margin": 0}, "`margin: 0` must be"),
            ({"unsupervised_weight": -1}, "`unsupervised_weight: -1` must be"),
            ({"neighbour_hops": -1}, "`neighbour_hops: -1` must be"),
            ({"sscdr_form": "metrc"}, "`sscdr_form: metrc` must be"),
            ({"bridge_loss": "task"}, "unknown key `bridge_loss`"),
        ],
    )
    def test_bad_values(self, tmp_path: Path, bad: dict[str, Any], match: str) -> None:
        self.refuses(tmp_path, bad, match)


class TestSSCDRMetric(ModelChecks):
    config: ClassVar = {"model": "SSCDR", **TINY, **METRIC, "select_epoch": "last"}

    @pytest.mark.parametrize("hops", [None, 0, 2])
    def test_orders_by_distance(self, data_path: Path, hops: int | None) -> None:
        run = self.build(
            data_path, neighbour_hops=hops, embedding_std=1.0, learning_rate=0.03
        ).fit()
        reference = SemiSupervisedReference(run)
        items = np.arange(run.dataset.pair.n_source_items + 1, run.dataset.pair.n_items)
        points = np.array([reference.place(reference.item_vector(i)) for i in items])
        for user in run.dataset.split.test_users[:5]:
            scores = run.scores(np.full(len(items), user), items)
            own = reference.transformed(user)
            distances = ((own - points) ** 2).sum(1)
            np.testing.assert_allclose(
                scores, own @ own - distances, rtol=1e-4, atol=1e-4
            )  # the user's own length changes no order
        assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-6

    def test_pretraining_is_a_hinge_on_distances(self, data_path: Path) -> None:
        run = self.build(data_path, embedding_std=1.0, reg_weight=0.0).fit()
        reference = SemiSupervisedReference(run)
        stage = run.model.stages(run.dataset, None)[0]
        batch = next(iter(stage.training.loader))
        losses = []
        columns = [batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")]
        for u, i, (j,) in zip(*columns, strict=True):
            user, near, far = (
                reference.place(vector)
                for vector in (
                    reference.source_vector(u),
                    reference.item_vector(i),
                    reference.item_vector(j),
                )
            )
            losses.append(max(0.0, 1.0 + np.sum((user - near) ** 2) - np.sum((user - far) ** 2)))
        assert stage.training.loss(batch).item() == pytest.approx(np.mean(losses), rel=1e-4)

    def test_has_no_biases(self, trained: Run) -> None:
        state = numpy_state(trained)
        biases = {name: state[name] for name in state if name.endswith(".bias")}
        assert {"source.users.bias", "source.items.bias", "target.users.bias"} <= biases.keys()
        assert not any(bias.any() for bias in biases.values())
