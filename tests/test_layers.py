"""The arithmetic of each layer against a few lines of plain NumPy, on random small numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_cdr_mm.layers.all_pairs import log_normalisers, score_all_pairs
from recbole_cdr_mm.layers.biased_embedding import BiasedEmbedding
from recbole_cdr_mm.layers.bridge import MetaNetwork, apply_bridge
from recbole_cdr_mm.layers.calibration import fit_calibrated_floor
from recbole_cdr_mm.layers.characteristic_encoder import CharacteristicEncoder, ragged_softmax
from recbole_cdr_mm.layers.initialise import seeded_linear
from recbole_cdr_mm.layers.item_encoder import FeatureProjection
from recbole_cdr_mm.layers.losses import (
    bayesian_personalised_ranking,
    margin_ranking,
    sampled_softmax,
    squared_error,
)
from recbole_cdr_mm.layers.mapping import MappingFunction
from recbole_cdr_mm.layers.neighbourhood import average_over_neighbours
from recbole_cdr_mm.layers.ridge import solve_vectors

Floats = NDArray[np.floating]
K = 3


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(array: Floats) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def numpy(value: Tensor) -> Floats:
    return value.detach().double().numpy()


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


@pytest.fixture
def ratings(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Users 0 to 7 and items 0 to 5, of which user 3 and item 2 have no row."""
    user, item = rng.integers(0, 8, 60), rng.integers(0, 6, 60)
    kept = (user != 3) & (item != 2)
    return user[kept], item[kept], rng.integers(2, 11, kept.sum()) / 2


def test_calibrated_floor(rng: np.random.Generator, ratings: tuple[Floats, ...]) -> None:
    user, item, rating = ratings
    fold = np.array([2, 0, 1, 0, 1, 0, 1, 2])  # users 0 and 7 are in none
    source_bias = rng.standard_normal(8)

    def base_without(f: int) -> Floats:
        rows = fold[user] != f
        mean = rating[rows].mean()
        return mean + np.bincount(item[rows], rating[rows] - mean, 6)

    base = np.array([base_without(f) for f in (0, 1, 9)])  # 9 is nobody's fold
    floor = fit_calibrated_floor(
        torch.from_numpy(user),
        torch.from_numpy(item),
        tensor(rating),
        fold=torch.from_numpy(fold),
        base=torch.from_numpy(base),
        source_bias=torch.from_numpy(source_bias),
    )
    rows = [n for n in range(len(user)) if fold[user[n]] < 2]
    design = np.array([[1, base[fold[user[n]]][item[n]], source_bias[user[n]]] for n in rows])
    a, b, c = np.linalg.solve(design.T @ design, design.T @ rating[rows])
    np.testing.assert_allclose(floor.weights, (a, b, c), rtol=1e-9)
    np.testing.assert_allclose(floor.item, a + b * base, rtol=1e-9)
    np.testing.assert_allclose(floor.user, c * source_bias, rtol=1e-9)


def test_ridge_vectors(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    item = rng.integers(0, 6, 40)
    item = item[item != 4]
    user_e, residual = rng.standard_normal((len(item), K)), rng.standard_normal(len(item))

    def solve() -> Floats:
        given = (tensor(user_e), torch.from_numpy(item), torch.from_numpy(residual))
        return numpy(solve_vectors(*given, n_groups=6, reg_weight=0.7))

    found = solve()
    for i in range(6):
        e, r = user_e[item == i], residual[item == i]
        expected = np.linalg.solve(e.T @ e + 0.7 * np.eye(K), e.T @ r)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
    assert (found[4] == 0).all()
    monkeypatch.setattr("recbole_cdr_mm.layers.ridge._NUMBERS_AT_ONCE", 7 * K**2)
    np.testing.assert_allclose(solve(), found, atol=1e-5)


def test_feature_projection(rng: np.random.Generator) -> None:
    features, known = 20 * rng.standard_normal((5, 4)), np.array([0, 1, 1, 0, 1], dtype=bool)
    features[~known] = 999  # is not read
    layer = FeatureProjection(tensor(features), torch.from_numpy(known), K, generator())
    with torch.no_grad():
        layer.linear.bias.normal_(generator=generator(2))
        layer.missing.normal_(generator=generator(3))
    item = np.array([4, 0, 3, 1, 4])
    scale = np.sqrt((features[known] ** 2).mean())
    weight, bias = numpy(layer.linear.weight), numpy(layer.linear.bias)
    expected = features[item] / scale @ weight.T + bias
    expected[[1, 2]] = numpy(layer.missing)
    found = layer(torch.from_numpy(item))
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)
    found.sum().backward()
    np.testing.assert_allclose(numpy(layer.missing.grad), 2)  # learned, from its two items alone
    assert set(layer.state_dict()) == {"linear.weight", "linear.bias", "missing"}


def test_gradients_do_not_depend_on_which_thread_is_first(rng: np.random.Generator) -> None:
    """Of the bridge's layers, on histories that are long enough for several threads."""
    features = torch.from_numpy(rng.standard_normal((4000, 8)).astype(np.float32))
    project = FeatureProjection(features, torch.ones(4000, dtype=torch.bool), 32, generator())
    encode = CharacteristicEncoder(32, generator())
    item = torch.from_numpy(rng.integers(0, 4000, 14_000))
    row = torch.from_numpy(np.sort(rng.integers(0, 500, 14_000)))
    aim = torch.from_numpy(rng.standard_normal((500, 32)).astype(np.float32))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        gradients = []
        for _ in range(8):
            project.zero_grad()
            encode.zero_grad()
            (encode(project(item), row, 500) * aim).sum().backward()
            gradients.append(
                [p.grad.clone() for p in (*project.parameters(), *encode.parameters())]
            )
    finally:
        torch.set_num_threads(n_threads)
    for again in gradients[1:]:
        for first, other in zip(gradients[0], again, strict=True):
            assert torch.equal(first, other)


ROW = np.array([0, 0, 0, 2, 2, 4])  # users 1 and 3 have no history


def test_ragged_softmax(rng: np.random.Generator) -> None:
    logit = 5 * rng.standard_normal(len(ROW))
    logit[:2] += 1000  # overflows without the maximum taken off
    found = numpy(ragged_softmax(torch.from_numpy(logit), torch.from_numpy(ROW), 5))
    for user in (0, 2, 4):
        own = np.exp(logit[user == ROW] - logit[user == ROW].max())
        np.testing.assert_allclose(found[user == ROW], own / own.sum(), atol=1e-12)


def test_characteristic_encoder(rng: np.random.Generator) -> None:
    encoder = CharacteristicEncoder(K, generator())
    with torch.no_grad():
        encoder.hidden.bias.normal_(generator=generator(2))
    item_e = rng.standard_normal((len(ROW), K))
    weight, bias = numpy(encoder.hidden.weight), numpy(encoder.hidden.bias)
    logit = relu(item_e @ weight.T + bias) @ numpy(encoder.logit.weight)[0]
    expected = np.zeros((5, K))
    for user in (0, 2, 4):
        own = np.exp(logit[user == ROW])
        expected[user] = own / own.sum() @ item_e[user == ROW]
    given = tensor(item_e).requires_grad_()
    found = encoder(given, torch.from_numpy(ROW), 5)
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)
    assert (found[[1, 3]] == 0).all()  # an empty history
    found[1].sum().backward()
    assert torch.isfinite(given.grad).all()
    nobody = encoder(torch.zeros(0, K), torch.zeros(0, dtype=torch.int64), 2)
    assert nobody.tolist() == [[0.0] * K] * 2


def test_characteristics_do_not_depend_on_the_order_of_a_history(rng: np.random.Generator) -> None:
    encoder = CharacteristicEncoder(K, generator())
    item_e, row = tensor(rng.standard_normal((len(ROW), K))), torch.from_numpy(ROW)
    order = torch.from_numpy(rng.permutation(len(ROW)))
    torch.testing.assert_close(encoder(item_e[order], row[order], 5), encoder(item_e, row, 5))
    alone = encoder(item_e[3:5], torch.zeros(2, dtype=torch.int64), 1)
    torch.testing.assert_close(alone[0], encoder(item_e, row, 5)[2])


def test_bridges_and_what_they_map(rng: np.random.Generator) -> None:
    network = MetaNetwork(K, 7, generator(), start_at_zero=False)
    with torch.no_grad():
        for bias in (network.hidden.bias, network.output.bias):
            bias.normal_(generator=generator(2))
    characteristic, user_e = rng.standard_normal((4, K)), rng.standard_normal((4, K))
    w1, b1 = numpy(network.hidden.weight), numpy(network.hidden.bias)
    w2, b2 = numpy(network.output.weight), numpy(network.output.bias)
    bridge = network(tensor(characteristic))
    bridged = numpy(apply_bridge(tensor(user_e), bridge))
    for p, u, found, mapped in zip(characteristic, user_e, numpy(bridge), bridged, strict=True):
        flat = w2 @ relu(w1 @ p + b1) + b2
        rows = [flat[row * K : (row + 1) * K] for row in range(K)]  # Eq. 4, row by row
        np.testing.assert_allclose(found, rows, atol=1e-5)
        np.testing.assert_allclose(mapped, sum(u[row] * rows[row] for row in range(K)), atol=1e-4)


def test_bridges_may_start_at_zero_and_still_learn(rng: np.random.Generator) -> None:
    network = MetaNetwork(K, 7, generator(), start_at_zero=True)
    bridge = network(tensor(rng.standard_normal((4, K))))
    assert (bridge == 0).all()
    (bridge * tensor(rng.standard_normal((4, K, K)))).sum().backward()
    assert (network.output.weight.grad != 0).any()


def test_losses(rng: np.random.Generator) -> None:
    first, second = rng.standard_normal((2, 9))
    found = squared_error(tensor(first), tensor(second))
    np.testing.assert_allclose(found, (first - second) ** 2, rtol=1e-5)
    found = bayesian_personalised_ranking(tensor(first), tensor(second))
    np.testing.assert_allclose(found, np.log1p(np.exp(second - first)), rtol=1e-5)
    far = bayesian_personalised_ranking(torch.tensor([-500.0]), torch.tensor([500.0]))
    assert far.item() == pytest.approx(1000)
    found = margin_ranking(tensor(first), tensor(second), 0.7)
    np.testing.assert_allclose(found, np.maximum(0, 0.7 - first + second), rtol=1e-5)
    assert 0 < (found == 0).sum() < 9


def test_sampled_softmax(rng: np.random.Generator) -> None:
    positive, negative = rng.standard_normal(9), rng.standard_normal((4, 9))
    found = sampled_softmax(tensor(positive), tensor(negative))
    share = np.exp(positive) / (np.exp(positive) + np.exp(negative).sum(0))
    np.testing.assert_allclose(found, -np.log(share), rtol=1e-5)
    one = sampled_softmax(tensor(positive), tensor(negative[:1]))
    pairs = bayesian_personalised_ranking(tensor(positive), tensor(negative[0]))
    torch.testing.assert_close(one, pairs)
    far = sampled_softmax(torch.tensor([-500.0]), torch.tensor([[500.0], [500.0]]))
    assert far.item() == pytest.approx(1000 + np.log(2), rel=1e-6)


@pytest.mark.parametrize("at_once", [1, 13, 1000])  # one user, two, and all of them
def test_log_normalisers(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("recbole_cdr_mm.layers.all_pairs._SCORES_AT_ONCE", at_once)
    user_e, item_e = rng.standard_normal((5, K)), rng.standard_normal((6, K))
    given = [tensor(array).requires_grad_() for array in (user_e, item_e)]
    most = 0

    def scores(users: slice) -> Tensor:
        nonlocal most
        found = given[0][users] @ given[1].T
        most = max(most, found.numel())
        return found

    found = log_normalisers(scores, 5, 6)
    assert most <= max(at_once, 6)
    share = np.exp(user_e @ item_e.T)
    np.testing.assert_allclose(numpy(found), np.log(share.sum(1)), rtol=1e-5)
    weight = rng.standard_normal(5)
    (found * tensor(weight)).sum().backward()
    share *= (weight / share.sum(1))[:, None]
    np.testing.assert_allclose(given[0].grad, share @ item_e, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(given[1].grad, share.T @ user_e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_score_all_pairs(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("recbole_cdr_mm.layers.all_pairs._SCORES_AT_ONCE", at_once)
    user, item = torch.tensor([3, 1]), torch.tensor([5, 2, 7])
    found = score_all_pairs(lambda u, i: 10 * u + i, user, item)
    assert found.tolist() == [[35, 32, 37], [15, 12, 17]]


def test_initial_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    one = BiasedEmbedding(500, K, 0.1, generator(), use_bias=True)
    linear = seeded_linear(50, 30, generator())
    torch.manual_seed(2)
    two = BiasedEmbedding(500, K, 0.1, generator(), use_bias=True)
    other = BiasedEmbedding(500, K, 0.1, generator(2), use_bias=True)
    assert torch.equal(one.rows.weight, two.rows.weight)
    assert torch.equal(linear.weight, seeded_linear(50, 30, generator()).weight)
    assert not torch.equal(one.rows.weight, other.rows.weight)
    assert (one.rows.weight[0] == 0).all()
    assert (one.rows.weight[:, K:] == 0).all()
    assert one.rows.weight[1:, :K].std().item() == pytest.approx(0.1, rel=0.1)
    for parameter in linear.parameters():  # uniform, as torch draws it
        assert 0.9 < parameter.abs().max().item() * np.sqrt(50) <= 1
        assert parameter.std().item() * np.sqrt(50) == pytest.approx(np.sqrt(1 / 3), rel=0.2)
    assert seeded_linear(4, 2, generator(), bias=False).bias is None


@pytest.mark.parametrize("size", [K, 0])
@pytest.mark.parametrize("use_bias", [True, False])
def test_biased_embedding(size: int, use_bias: bool) -> None:
    table = BiasedEmbedding(9, size, 0.1, generator(), use_bias=use_bias)
    other = BiasedEmbedding(9, size, 0.1, generator(), use_bias=not use_bias)
    rows = numpy(table.rows.weight)
    assert rows.shape == (9, size + use_bias)
    vector, bias = table(torch.tensor([3, 0, 3]))
    np.testing.assert_array_equal(vector.detach(), rows[[3, 0, 3], :size])
    assert torch.equal(vector, other(torch.tensor([3, 0, 3]))[0])
    assert bias.tolist() == [0.0, 0.0, 0.0]
    assert table.rows.weight.requires_grad == bool(size or use_bias)
    if use_bias:
        with torch.no_grad():
            table.rows.weight[3, size] = 7.0
        assert table(torch.tensor([3, 0, 3]))[1].tolist() == [7.0, 0.0, 7.0]


@pytest.mark.parametrize("start_at_zero", [True, False])
def test_layers_draw_nothing_of_their_own(start_at_zero: bool) -> None:
    def parameters(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        own = generator()
        network = MetaNetwork(K, 5, own, start_at_zero=start_at_zero)
        return [*network.parameters(), *CharacteristicEncoder(K, own).parameters()]

    for first, second in zip(parameters(1), parameters(2), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("hidden_size", [None, 5])
def test_mapping_function(rng: np.random.Generator, hidden_size: int | None) -> None:
    mapping = MappingFunction(K, hidden_size, generator(), start_at_zero=False)
    vector = rng.standard_normal((4, K))
    expected = vector
    if hidden_size is None:
        assert [name for name, _ in mapping.named_parameters()] == ["output.weight"]
    else:
        expected = np.tanh(vector @ numpy(mapping.hidden.weight).T + numpy(mapping.hidden.bias))
    expected = expected @ numpy(mapping.output.weight).T
    if hidden_size is not None:
        expected = expected + numpy(mapping.output.bias)
    np.testing.assert_allclose(numpy(mapping(tensor(vector))), expected, atol=1e-5)
    zero = MappingFunction(K, hidden_size, generator(), start_at_zero=True)
    assert (zero(tensor(vector)) == 0).all()


def test_average_over_neighbours(rng: np.random.Generator) -> None:
    user, item = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 1, 2, 0])  # user 1 has no rating
    user_e, item_e = rng.standard_normal((3, K)), rng.standard_normal((4, K))
    expected_users, expected_items = user_e, item_e
    for hops in range(4):
        found = average_over_neighbours(
            tensor(user_e),
            tensor(item_e),
            torch.from_numpy(user),
            torch.from_numpy(item),
            hops=hops,
        )
        np.testing.assert_allclose(numpy(found), expected_users, atol=1e-5)
        was_user, was_item = expected_users, expected_items
        of_user = [[was_user[u], *was_item[item[user == u]]] for u in range(3)]
        of_item = [[was_item[i], *was_user[user[item == i]]] for i in range(4)]
        expected_users = np.array([np.mean(rows, axis=0) for rows in of_user])
        expected_items = np.array([np.mean(rows, axis=0) for rows in of_item])
