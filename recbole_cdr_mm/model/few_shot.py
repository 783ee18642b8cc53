"""Cold-start users whose vectors are their own: what the initialisation stage trains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_cdr_mm.layers.biased_embedding import BiasedEmbedding
from recbole_cdr_mm.layers.ridge import solve_vectors

SMALLEST_SHRINKAGE = 1e-6  # keeps the target-only start defined where nothing is shrunk


class FewShotUsers(nn.Module):
    """Vectors and biases of some users: a start, and what training adds to it.

    The start is kept apart from what is trained, so that a stage can prepare it again when it is
    resumed, and so that training can be shrunk towards it.

    Args:
        users: Ids of the users, int64 (n,).
        n_users: Users of the pair with the padding row, U.
        embedding_size: k.
        use_bias: Whether the bias is trained too.

    Attributes:
        users: Their ids, int64 (n,).

    Source: MetaMMCDR, Algorithm 1, step 4: the transformed vector is the initial one.

    Deviations: only the user's own vector and bias are trained. The items' stay, for everybody
    else's vectors were fitted to them.
    """

    users: Tensor
    row: Tensor
    start_e: Tensor
    start_bias: Tensor
    keeps_floor: Tensor

    def __init__(
        self, users: NDArray[np.int64], n_users: int, embedding_size: int, *, use_bias: bool
    ) -> None:
        super().__init__()
        n_rows = 1 + len(users)
        self.register_buffer("users", torch.from_numpy(users), persistent=False)
        self.register_buffer("row", torch.zeros(n_users, dtype=torch.int64))
        self.register_buffer("start_e", torch.zeros(n_rows, embedding_size))
        self.register_buffer("start_bias", torch.zeros(n_rows))
        self.register_buffer("keeps_floor", torch.tensor(True))
        self.offset = BiasedEmbedding(
            n_rows, embedding_size, 0.0, torch.Generator(), use_bias=use_bias
        )

    @property
    def trained(self) -> tuple[nn.Parameter, ...]:
        """The parameters that training moves."""
        return tuple(self.parameters())

    def begin(self, start_e: Tensor, start_bias: Tensor, *, keeps_floor: bool) -> None:
        """Take the users over.

        Args:
            start_e: Their vectors (n, k).
            start_bias: Their biases (n,).
            keeps_floor: Whether they start from the floor that knows their source ratings; else
                from that of a user of whom nothing is known.
        """
        self.start_e[1:], self.start_bias[1:] = start_e, start_bias
        self.keeps_floor.fill_(keeps_floor)
        self.row[self.users] = torch.arange(1, 1 + len(self.users), device=self.row.device)

    def forward(self, user: Tensor, user_e: Tensor) -> tuple[Tensor, Tensor]:
        """Put the own vectors of its users in the place of others.

        Args:
            user: User ids, int64 (B,).
            user_e: Vectors of those that are not taken over, (B, k); their biases are 0.

        Returns:
            Vectors (B, k) and biases (B,).
        """
        row = self.row[user]  # (B,)
        offset_e, offset_bias = self.offset(row)  # (B, k), (B,)
        own_e, own_bias = self.start_e[row] + offset_e, self.start_bias[row] + offset_bias
        taken = row > 0
        return torch.where(taken.unsqueeze(1), own_e, user_e), torch.where(taken, own_bias, 0.0)

    def floor_user(self, user: Tensor) -> Tensor:
        """Whose floor users start from, int64 (B,) to (B,): their own or, as 0, nobody's."""
        return torch.where((self.row[user] > 0) & ~self.keeps_floor, 0, user)

    def squared_offsets(self, user: Tensor) -> Tensor:
        """Squared distances from the start, of vector and bias together, (B,) to (B,)."""
        return self.offset.rows(self.row[user]).square().sum(1)


def fit_users(
    place: Tensor,
    item_e: Tensor,
    residual: Tensor,
    *,
    n_users: int,
    shrinkage: float,
    use_bias: bool,
) -> tuple[Tensor, Tensor]:
    """What revealed ratings say of users by themselves: a ridge regression for each of them.

    Args:
        place: Which of the users each revealed row belongs to, int64 (N,).
        item_e: Weights of the rows' items (N, k).
        residual: What a user's vector and bias have to explain of each row, (N,).
        n_users: Number of users, n.
        shrinkage: Ridge penalty on vector and bias, in ratings.
        use_bias: Whether there is a bias; without one it is 0.

    Returns:
        Vectors (n, k) and biases (n,); zeros without a revealed rating.
    """
    one = torch.full((len(item_e), 1), float(use_bias), device=item_e.device)
    solved = solve_vectors(
        torch.cat([item_e, one], dim=1).double(),  # (N, k + 1); nearly singular if not shrunk
        place,
        residual,
        n_groups=n_users,
        reg_weight=max(shrinkage, SMALLEST_SHRINKAGE),
    ).to(item_e.dtype)
    return solved[:, :-1], solved[:, -1]
