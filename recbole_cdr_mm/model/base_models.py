"""Base models: what a bridge transfers between. Each scores pairs of user and item vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_cdr_mm.data.features import ItemFeatures
from recbole_cdr_mm.data.pair import DomainName, Pair
from recbole_cdr_mm.layers.all_pairs import log_normalisers
from recbole_cdr_mm.layers.biased_embedding import BiasedEmbedding
from recbole_cdr_mm.layers.initialise import seeded_linear
from recbole_cdr_mm.layers.item_encoder import FeatureProjection


class UserTable(nn.Module):
    """Vectors and biases of users, found by their ids in the pair.

    Args:
        pair: The pair.
        domain: Whose users; None: all of the pair, for a table that both domains share.
        config: Gives embedding_size (k), embedding_std and use_bias.
        generator: Draws the initial vectors.
    """

    def __init__(
        self,
        pair: Pair,
        domain: DomainName | None,
        config: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_overlapped = pair.n_overlapped
        self.n_skipped = pair.n_source_only if domain == "target" else 0
        n_rows = (
            1 + pair.n_overlapped + pair.n_source_only
            if domain == "source"
            else pair.n_users - self.n_skipped
        )
        size, std = config["embedding_size"], config["embedding_std"]
        self.table = BiasedEmbedding(n_rows, size, std, generator, use_bias=config["use_bias"])

    def row(self, user: Tensor) -> Tensor:
        """Rows of the tables; users of the other domain alone have none."""
        if not self.n_skipped:
            return user
        return torch.where(user > self.n_overlapped, user - self.n_skipped, user)

    def forward(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """User vectors and biases, int64 (B,) to (B, k) and (B,)."""
        return self.table(self.row(user))

    def vectors(self, user: Tensor) -> Tensor:
        """User vectors alone, int64 (B,) to (B, k)."""
        return self(user)[0]


class ItemTable(nn.Module):
    """Vectors and biases of one domain's items: learned, projected from their texts, or the sum.

    Args:
        pair: The pair.
        domain: Whose items.
        config: Gives embedding_size (k), embedding_std, use_bias and pretrain_item_features.
        generator: Draws the initial vectors.
        texts: Text features of the pair's items, with `pretrain_item_features` text or both.

    Source: MetaMMCDR lets the pre-training use the texts but gives no equation; the sum of vector
    and projected text is ours.
    """

    def __init__(
        self,
        pair: Pair,
        domain: DomainName,
        config: Mapping[str, Any],
        generator: torch.Generator,
        texts: ItemFeatures | None = None,
    ) -> None:
        super().__init__()
        ids = pair.items(domain)
        self.offset = ids.start - 1
        n_rows = ids.stop - self.offset
        size, std = config["embedding_size"], config["embedding_std"]
        self.learns_vectors = config["pretrain_item_features"] != "text"
        self.table = BiasedEmbedding(
            n_rows, size * self.learns_vectors, std, generator, use_bias=config["use_bias"]
        )
        self.text: FeatureProjection | None = None
        if texts is not None:
            rows = slice(self.offset, ids.stop)
            features = torch.from_numpy(texts.matrix[rows]).clone()
            known = torch.from_numpy(texts.known[rows]).clone()
            features[0], known[0] = 0, False  # padding; in the target domain a source item is there
            self.text = FeatureProjection(features, known, size, generator)

    @property
    def ids(self) -> Tensor:
        """Ids of all items of the domain, int64 (n,)."""
        table = self.table.rows
        return torch.arange(1, table.num_embeddings, device=table.weight.device) + self.offset

    def row(self, item: Tensor) -> Tensor:
        """Rows of the tables."""
        return item - self.offset

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """Item vectors and biases, int64 (B,) to (B, k) and (B,)."""
        row = self.row(item)
        vector, bias = self.table(row)
        if self.text is not None:
            text = self.text(row)  # (B, k)
            vector = vector + text if self.learns_vectors else text
        return vector, bias

    def vectors(self, item: Tensor) -> Tensor:
        """Item vectors alone, int64 (B,) to (B, k)."""
        return self(item)[0]


class MF(nn.Module):
    """Matrix factorisation of one domain: mean + b_u + b_i + u . v, or u . v without biases.

    Every base model is an intercept and a weight vector of each item, and a vector of each user:
    score = b_u + intercept_i + u . weight_i. What a bridge needs of it is no more than that.

    Args:
        users: Vectors and biases of the users.
        items: Of the domain's items.
        mean: The global mean of the training ratings; read only with `use_bias`.
        config: Gives use_bias.
        generator: Draws initial weights.

    Source: Koren, Bell and Volinsky. "Matrix Factorization Techniques for Recommender Systems."
    Computer, 2009.
    """

    mean: Tensor

    def __init__(
        self,
        users: UserTable,
        items: ItemTable,
        *,
        mean: float,
        config: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.users, self.items = users, items
        self.register_buffer("mean", torch.tensor(mean if config["use_bias"] else 0.0))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs, (B,) and (B,) to (B,)."""
        user_e, user_bias = self.users(user)
        return self.score(user_e, user_bias, item)

    def score(self, user_e: Tensor, user_bias: Tensor, item: Tensor) -> Tensor:
        """Score items for users given by their vectors.

        Args:
            user_e: User vectors (B, k).
            user_bias: User biases (B,).
            item: Item ids (B,).

        Returns:
            Scores (B,).
        """
        return self._score(user_e, user_bias, *self.items(item))

    def _score(
        self, user_e: Tensor, user_bias: Tensor, item_e: Tensor, item_bias: Tensor
    ) -> Tensor:
        product = (self.place(user_e) * self.weigh(item_e)).sum(1)
        return self.offset(user_e, user_bias) + self.intercept_of(item_e, item_bias) + product

    def score_with_norms(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs, and say what a penalty on their rows of the tables counts.

        Each row is looked up once, for in training every look-up is one more gradient to add up.

        Args:
            user: User ids (B,).
            item: Item ids (B,).

        Returns:
            Scores (B,), and squared norms of user vectors, item weights and biases, (B,).
        """
        user_e, user_bias = self.users(user)
        item_e, item_bias = self.items(item)
        norms = (user_e.square() + self.weigh(item_e).square()).sum(1)
        norms = norms + user_bias.square() + item_bias.square()
        return self._score(user_e, user_bias, item_e, item_bias), norms

    def score_all(self, user_e: Tensor, user_bias: Tensor) -> Tensor:
        """Score all items of the domain for users given by their vectors.

        Args:
            user_e: User vectors (b, k).
            user_bias: User biases (b,).

        Returns:
            Scores (b, n).
        """
        intercept, weight = self._all_items()  # (n,), (n, k)
        of_items = torch.addmm(intercept, self.place(user_e), weight.T)
        return of_items + self.offset(user_e, user_bias).unsqueeze(1)

    def log_normalisers(self, user: Tensor) -> Tensor:
        """Logs of sum_i exp(score(u, i)) over all items of the domain, int64 (b,) to (b,)."""
        user_e, user_bias = self.users(user)  # (b, k), (b,)
        intercept, weight = self._all_items()  # (n,), (n, k)
        placed_e = self.place(user_e)

        def scores(users: slice) -> Tensor:
            return torch.addmm(intercept, placed_e[users], weight.T)

        of_items = log_normalisers(scores, len(user), len(intercept))  # (b,)
        return self.offset(user_e, user_bias) + of_items

    def _all_items(self) -> tuple[Tensor, Tensor]:
        """Intercepts (n,) and weights (n, k) of all items of the domain, each looked up once."""
        item_e, item_bias = self.items(self.items.ids)  # (n, k), (n,)
        return self.intercept_of(item_e, item_bias), self.weigh(item_e)

    def place(self, vector: Tensor) -> Tensor:
        """Where a vector is moved before it is scored with: nowhere, (B, k) to (B, k)."""
        return vector

    def offset(self, user_e: Tensor, user_bias: Tensor) -> Tensor:
        """The part of a score that is the same for all items, (B, k) and (B,) to (B,)."""
        return user_bias

    def intercept(self, item: Tensor) -> Tensor:
        """The part of a score that is the same for all users, (B,) to (B,)."""
        return self.intercept_of(*self.items(item))

    def intercept_of(self, item_e: Tensor, item_bias: Tensor) -> Tensor:
        """The same of items given by their vectors, (B, k) and (B,) to (B,)."""
        return self.mean + item_bias

    def weight(self, item: Tensor) -> Tensor:
        """What a user's vector is multiplied with, (B,) to (B, k)."""
        return self.weigh(self.items.vectors(item))

    def weigh(self, item_e: Tensor) -> Tensor:
        """Item vectors as weights of a user's vector, (B, k) to (B, k)."""
        return item_e

    @property
    def trained(self) -> tuple[nn.Parameter, ...]:
        """The parameters that training moves."""
        return tuple(p for p in self.parameters() if p.requires_grad)


class GMF(MF):
    """Generalised matrix factorisation: mean + b_u + b_i + h . (u * v), with a learned h.

    Source: He et al. "Neural Collaborative Filtering." WWW 2017, Eq. 9, without its sigmoid; it is
    the base model `GMF` of PTUPCDR's public code.

    Deviations: with `gmf_weight: ones` h starts at 1, where GMF is MF; with `uniform` as torch
    draws a linear layer, as in that code.
    """

    def __init__(
        self,
        users: UserTable,
        items: ItemTable,
        *,
        config: Mapping[str, Any],
        generator: torch.Generator,
        **options: Any,
    ) -> None:
        super().__init__(users, items, config=config, generator=generator, **options)
        self.linear = seeded_linear(config["embedding_size"], 1, generator, bias=False)
        if config["gmf_weight"] == "ones":
            nn.init.ones_(self.linear.weight)

    def weigh(self, item_e: Tensor) -> Tensor:
        """H * v, (B, k) to (B, k)."""
        return self.linear.weight * item_e


class MetricSpace(MF):
    """Users and items as points of the unit ball: the score is minus their squared distance.

    -|u - v|^2 = -|u|^2 - |v|^2 + u . 2 v, so intercept and weight of an item are -|v|^2 and 2 v.
    Points outside the unit ball are drawn back to its surface. Biases are not read and stay 0.

    Source: Hsieh et al. "Collaborative Metric Learning." WWW 2017: the base model of SSCDR.
    """

    def place(self, vector: Tensor) -> Tensor:
        """Shorten vectors that are longer than 1 to length 1, (B, k) to (B, k)."""
        return vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp(min=1)

    def offset(self, user_e: Tensor, user_bias: Tensor) -> Tensor:
        """Minus the squared length of the user's vector, (B, k) and (B,) to (B,)."""
        return -self.place(user_e).square().sum(1)

    def intercept_of(self, item_e: Tensor, item_bias: Tensor) -> Tensor:
        """Minus the squared length of the item's vector, (B, k) and (B,) to (B,)."""
        return -self.place(item_e).square().sum(1)

    def weigh(self, item_e: Tensor) -> Tensor:
        """2 v, (B, k) to (B, k)."""
        return 2 * self.place(item_e)


BASE_MODELS = {"MF": MF, "GMF": GMF}
