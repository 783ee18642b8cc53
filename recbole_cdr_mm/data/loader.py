"""Training rows that stay on the device and are shuffled by seed and epoch alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_cdr_mm import ranks

# Batches of an epoch, where they grow with the rows.
_BATCHES_OF_ROWS = 256
_BATCHES_OF_USERS = 24


def grown_batch_size(
    n_rows: int, batch_size: int, largest: int | None, *, of_users: bool = False
) -> int:
    """How many rows a batch has: more where an epoch would be of very many batches.

    Models become as good as with small batches by as many epochs, each of them faster
    (benchmarks/RESULTS.md).

    Args:
        n_rows: Rows of an epoch.
        batch_size: What a batch has at least.
        largest: What it grows to at most; None: it does not.
        of_users: Whether a user's rows come together. Then a batch has fewer users, and an epoch of
            24 batches is long enough; else it is one of 256.

    >>> [grown_batch_size(n, 2048, 32768) for n in (100, 1_697_533, 8_898_041)]
    [2048, 6631, 32768]
    >>> [grown_batch_size(n, 2048, 32768, of_users=True) for n in (100, 188_377)]
    [2048, 7850]
    """
    batches = _BATCHES_OF_USERS if of_users else _BATCHES_OF_ROWS
    return max(batch_size, min(-(-n_rows // batches), largest or 0))


class RowLoader:
    """Batches of rows, in an order that depends on the seed, the name and the epoch only.

    So a resumed run sees the same batches as one that was never stopped, without any state of a
    random generator in the checkpoint. In a run of several processes each sees its share of them.

    Args:
        columns: Tensors of one length (N,), by field name.
        batch_size: Rows a batch; the last one may be smaller.
        seed: The run's `seed`.
        name: The stage, so that two stages do not share a stream.
        together: A column whose values are shuffled in place of the rows: those of one value follow
            each other, and at most one value is cut at the end of a batch. None: the rows are.
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor],
        *,
        batch_size: int,
        seed: int,
        name: str,
        together: str | None = None,
    ) -> None:
        self._columns = dict(columns)
        self._batch_size = batch_size
        self._groups: Tensor | None = None  # (N,), numbered from 0
        if together is not None:
            self._groups = torch.unique(self._columns[together], return_inverse=True)[1]
        self._stream = zlib.crc32(f"{seed}/{name}".encode())
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    @property
    def n_rows(self) -> int:
        """Rows of one pass."""
        return len(next(iter(self._columns.values())))

    def __len__(self) -> int:
        return -(-self.n_rows // self._batch_size)

    def __iter__(self) -> Iterator[Interaction]:
        self.generator = torch.Generator().manual_seed(self._stream * 100_003 + self._epoch)
        order = self._shuffled()
        if ranks.rank():  # the same order in all processes, but other draws for other rows
            self.generator.manual_seed(self._stream * 100_003 + self._epoch + (ranks.rank() << 40))
        for batch in order.split(self._batch_size):
            rows = ranks.share(batch)
            columns = self._columns.items()
            yield Interaction({name: column.index_select(0, rows) for name, column in columns})

    def _shuffled(self) -> Tensor:
        """An order of the rows, int64 (N,)."""
        device = next(iter(self._columns.values())).device
        if self._groups is None:
            return torch.randperm(self.n_rows, generator=self.generator).to(device)
        n_groups = int(self._groups.max()) + 1
        turn = torch.randperm(n_groups, generator=self.generator).to(device)  # of each group
        return turn[self._groups].argsort(stable=True)


class DrawingLoader:
    """The batches of another loader, with columns that are drawn anew in each epoch.

    Args:
        rows: The loader of the rows.
        draw: Draws columns for a batch, by the loader's own generator: negative items, for one.
    """

    def __init__(
        self,
        rows: RowLoader,
        draw: Callable[[Interaction, torch.Generator], Mapping[str, Tensor]],
    ) -> None:
        self._rows, self._draw = rows, draw
        self.set_epoch = rows.set_epoch

    @property
    def n_rows(self) -> int:
        """Rows of one pass."""
        return self._rows.n_rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Interaction]:
        for batch in self._rows:
            for field, column in self._draw(batch, self._rows.generator).items():
                batch[field] = column
            yield batch
