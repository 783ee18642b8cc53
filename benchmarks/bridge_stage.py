"""The bridge's stage and evaluation at full size: against bridges of padded histories, row by row.

    python -m dataset_tools synthetic --dataset=movie_cd --task=movie_cd --data_path=DIR
    python benchmarks/bridge_stage.py --dataset=movie_cd --data_path=DIR

The plain way is a characteristic encoder and a meta network of the same sizes, in plain torch: each
row of a batch has its user's history, padded to the longest of the batch or cut to its last 20
items, as public code has it, and a bridge of its own; the same net is asked for each test row. It
is timed for --seconds each, on random vectors and texts, for speed alone. Our models are trained by
the trainer for three epochs of the bridge after one of each base model, and measured by it.

The bound is what memory allows: each id and rating of the histories that a batch needs is read
once, each item's vector or text and each user's bridge once forward and once backward (bridges are
written, too), at the bandwidth of copying half a gigabyte, measured in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from measuring import bandwidth, peak_gb
from torch import Tensor, nn

from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import exit_code_of

compat.apply()

from recbole_cdr_mm.config import MMConfig  # noqa: E402
from recbole_cdr_mm.data.history import Histories  # noqa: E402
from recbole_cdr_mm.data.pair import Ratings  # noqa: E402
from recbole_cdr_mm.register import register  # noqa: E402
from recbole_cdr_mm.run import Parts, assemble  # noqa: E402
from recbole_cdr_mm.stage import Stage  # noqa: E402
from recbole_cdr_mm.trainer import build_trainer  # noqa: E402

PLAIN_BATCH = 256
BATCHES = 20  # of which the bound is worked out
SIZE, HIDDEN = 32, 50  # of vectors, and of the meta network's hidden layer, as in the defaults
MODELS = ("PTUPCDR", "MetaMMCDR")


@dataclass
class Measured:
    """Rows a second, in training and in evaluation."""

    name: str
    training: float
    evaluation: float


class PlainBridge(nn.Module):
    """Scores rows by a bridge for each, of padded histories."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, SIZE)
        self.logit = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 1))
        self.meta = nn.Sequential(nn.Linear(SIZE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SIZE**2))

    def forward(self, history: Tensor, is_there: Tensor, user_e: Tensor, item_e: Tensor) -> Tensor:
        """Scores of rows, (B, L, d), (B, L), (B, k) and (B, k) to (B,)."""
        vectors = self.project(history)  # (B, L, k)
        logit = self.logit(vectors).squeeze(2).masked_fill(~is_there, -1e9)  # (B, L)
        characteristic = (logit.softmax(1).unsqueeze(2) * vectors).sum(1)  # (B, k)
        bridge = self.meta(characteristic).view(-1, SIZE, SIZE)  # (B, k, k)
        return (torch.bmm(user_e.unsqueeze(1), bridge).squeeze(1) * item_e).sum(1)


@dataclass
class Plain:
    """The plain way on a pair's rows.

    Attributes:
        histories: Of all users.
        vectors: What is read of each item, (I, d).
        last: How many items of a history are read at most; None: all.
        seconds: For which training and evaluation are timed.
    """

    histories: Histories
    vectors: Tensor
    last: int | None
    seconds: float

    def measure(self, name: str, train: Ratings, test: Ratings) -> Measured:
        """Time training on one part's rows, and evaluation on another's."""
        torch.manual_seed(0)
        model = PlainBridge(self.vectors.shape[1])
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        embeddings = [torch.randn(n, SIZE) for n in (len(self.histories.start), len(self.vectors))]

        def score(user: Tensor, item: Tensor) -> Tensor:
            return model(*self._padded(user), embeddings[0][user], embeddings[1][item])

        def step(user: Tensor, item: Tensor, rating: Tensor) -> None:
            optimiser.zero_grad()
            (score(user, item) - rating).square().mean().backward()
            optimiser.step()

        def ask(user: Tensor, item: Tensor, rating: Tensor) -> None:
            with torch.no_grad():
                score(user, item)

        return Measured(name, self._rows_a_second(train, step), self._rows_a_second(test, ask))

    def _padded(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Padded histories (B, L, d), and what of them is there, (B, L)."""
        start, end = self.histories.start[user], self.histories.start[user + 1]
        if self.last is not None:
            start = torch.maximum(start, end - self.last)
        place = start.unsqueeze(1) + torch.arange(int((end - start).max()))  # (B, L)
        is_there = place < end.unsqueeze(1)
        item = self.histories.item[place.clamp(max=len(self.histories.item) - 1)]
        return self.vectors[item * is_there], is_there

    def _rows_a_second(self, rows: Ratings, work: Callable[..., None]) -> float:
        columns = [torch.from_numpy(c) for c in (rows.user, rows.item, rows.rating)]
        n, start = 0, perf_counter()
        while perf_counter() - start < self.seconds:
            drawn = torch.randint(len(rows), (PLAIN_BATCH,))
            work(*(column[drawn] for column in columns))
            n += PLAIN_BATCH
        return n / (perf_counter() - start)


def train(model: str, given: dict[str, Any]) -> tuple[Measured, Parts, list[Tensor]]:
    """Train and measure a model; gives the users of some of its batches' rows, too."""
    config = MMConfig(model, config_dict={**given, "meta_epochs": 3})
    parts = assemble(config)
    prepared: list[float] = []
    stages = parts.model.stages(parts.train_data._dataset, None)
    parts.model.stages = lambda *_: [_timed(stage, prepared) for stage in stages]
    trainer = build_trainer(config, parts.model)
    trainer.fit(parts.train_data, None, saved=False, verbose=False)
    report = trainer.reports[-1]
    start = perf_counter()
    trainer.evaluate(parts.test_data, load_best_model=False)
    asked = len(parts.pair.split.test) / (perf_counter() - start)
    trained = report.examples / (report.seconds - prepared[-1])
    batches = [batch["user_id"] for batch in islice(stages[-1].training.loader, BATCHES)]
    return Measured(model, trained, asked), parts, batches


def _timed(stage: Stage, prepared: list[float]) -> Stage:
    """The stage, with a note of how long its preparation takes, which is no training."""
    prepare = stage.prepare

    def timed() -> None:
        start = perf_counter()
        if prepare is not None:
            prepare()
        prepared.append(perf_counter() - start)

    return dataclasses.replace(stage, prepare=timed)


def bound(histories: Histories, batches: Iterable[Tensor], width: int, *, backward: bool) -> float:
    """Rows a second that memory allows, in training or, without `backward`, in evaluation.

    Args:
        histories: Of all users.
        batches: The users of the rows of each batch.
        width: Numbers that are read of an item.
        backward: Whether gradients are written.
    """
    n_bytes, n_rows = 0.0, 0
    for user in batches:
        users = torch.unique(user)
        item, _, _ = histories.of(users)
        n_bytes += 12 * len(item)  # its id and rating
        n_bytes += 4 * width * len(torch.unique(item)) * (1 + backward)
        n_bytes += 4 * SIZE**2 * len(users) * 2 * (1 + backward)
        n_rows += len(user)
    return n_rows * bandwidth() / n_bytes


def compare(dataset: str, data_path: str, seconds: float) -> None:
    """Measure all ways and print a table."""
    given = {"dataset": dataset, "data_path": data_path, "use_gpu": False, "state": "WARNING"}
    given |= {"show_progress": False, "source_epochs": 1, "target_epochs": 1}
    ours = [train(model, given) for model in MODELS]
    pair, split = ours[-1][1].pair.pair, ours[-1][1].pair.split
    histories = ours[-1][1].pair.histories()
    rows = split.train.where(split.train.user <= pair.n_overlapped)
    texts = torch.from_numpy(ours[-1][1].pair.features("text", ["source", "target"]).matrix)
    vectors = torch.randn(pair.n_items, SIZE)
    longest = int(histories.start.diff().max())
    print(f"{len(rows):,} ratings of training; the longest history has {longest:,} items.\n")
    head = ["training, rows/s", "of the plain", "of the bound"]
    head += [name.replace("training", "test") for name in head]
    print("| items' | way | " + " | ".join(head) + " |\n| --- | --- |" + " ---: |" * len(head))
    asked = torch.from_numpy(split.test.user).split(65_536)[:BATCHES]
    for read, features, (one, _, batches) in zip(
        ("vectors", "texts"), (vectors, texts), ours, strict=True
    ):
        plain = Plain(histories, features, None, seconds).measure("padded", rows, split.test)
        cut = Plain(histories, features, 20, seconds).measure("last 20", rows, split.test)
        width = features.shape[1]
        bounds = [
            bound(histories, batches, width, backward=True),
            bound(histories, asked, width, backward=False),
        ]
        for way in (plain, cut, one):
            cells = [
                f"{speed:,.0f} | {speed / base:.1f} | {speed / limit:.1%}"
                for speed, base, limit in zip(
                    (way.training, way.evaluation),
                    (plain.training, plain.evaluation),
                    bounds,
                    strict=True,
                )
            ]
            print(f"| {read} | {way.name} | {' | '.join(cells)} |", flush=True)
    print(f"\nPeak memory {peak_gb():.1f} GB.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="a pair of the size of a task")
    parser.add_argument("--data_path", required=True, help="the folder that holds it")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each plain way (20)")
    options = parser.parse_args(argv)

    def command() -> None:
        register()
        compare(options.dataset, options.data_path, options.seconds)

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())
