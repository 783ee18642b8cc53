"""The source stage at full size: against a plain step with dense Adam, by rating and by quality.

    python -m dataset_tools synthetic --dataset=movie_cd --task=movie_cd --data_path=DIR
    python benchmarks/source_stage.py --dataset=movie_cd --data_path=DIR

All contenders train on the same 98% of the source ratings and are measured on the rest, clipped to
one to five stars. The plain step is torch.nn.Embedding for all users and items of the pair, torch's
DataLoader, dense Adam, squared errors, 10 numbers a vector and 256 ratings a batch, 512 for tasks
with Book: what public code does. It is timed for a minute, or as long as --seconds says; the stages
run to their end by the trainer.

The bound is what memory allows: each step reads and writes each row that it meets, with two
moments, once, at the bandwidth of copying half a gigabyte, measured in the same run.

    python benchmarks/source_stage.py --sizes=100000,1000000,10000000

times an epoch of random ratings at Book's density instead, to see whether a rating's cost grows:
in batches as a stage takes them, or of --batch_size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measuring import bandwidth, peak_gb
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dataset_tools.commands import name_list
from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import exit_code_of

compat.apply()

from recbole_cdr_mm.config import MMConfig  # noqa: E402
from recbole_cdr_mm.data.dataset import PairDataset  # noqa: E402
from recbole_cdr_mm.data.loader import RowLoader, grown_batch_size  # noqa: E402
from recbole_cdr_mm.data.pair import Pair, Ratings  # noqa: E402
from recbole_cdr_mm.model.base_models import MF, ItemTable, UserTable  # noqa: E402
from recbole_cdr_mm.model.ptupcdr import PTUPCDR  # noqa: E402
from recbole_cdr_mm.register import register  # noqa: E402
from recbole_cdr_mm.stage import Stage  # noqa: E402
from recbole_cdr_mm.trainer import build_trainer  # noqa: E402
from recbole_cdr_mm.trainer.row_adam import RowAdam  # noqa: E402

HELD_OUT = 0.02
BOOK_DENSITY = 14.74, 24.18  # ratings of a user and of an item
CONTENDERS: dict[str, dict[str, Any]] = {
    "default": {},
    "k10": {"embedding_size": 10},
    "batch2048": {"train_batch_size": 2048},
    "adam": {"learner": "adam"},
}


@dataclass
class Measured:
    """What a contender did: ratings a second, and the held-out RMSE by seconds of training."""

    name: str
    size: int
    batch_size: int
    speed: float
    curve: list[tuple[float, float]]


class SourceAlone(PTUPCDR):
    """A bridge that trains nothing but its source model, measured on held-out ratings.

    Attributes:
        held_out: Which source ratings are left out of training.
    """

    held_out: np.ndarray

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """The source stage, on the ratings that are not held out."""
        rows = dataset.pair.source
        test = rows.where(self.held_out)
        return [
            self.pretraining(
                "source",
                self.source,
                rows.where(~self.held_out),
                dataset.pair.items("source"),
                validate=lambda: rmse(self.source, test),
            )
        ]


@torch.no_grad()
def rmse(model: Callable[[Tensor, Tensor], Tensor], rows: Ratings) -> float:
    """Of clipped predictions of rows."""
    user, item = torch.from_numpy(rows.user), torch.from_numpy(rows.item)
    predicted = model(user, item).clamp(1, 5)
    return float((predicted - torch.from_numpy(rows.rating)).square().mean().sqrt())


def plain_step(pair: Pair, held_out: np.ndarray, batch_size: int, seconds: float) -> Measured:
    """Train the plain way for some seconds."""
    torch.manual_seed(0)
    size = 10
    tables = nn.Embedding(pair.n_users, size), nn.Embedding(pair.n_items, size)
    optimiser = torch.optim.Adam([t.weight for t in tables], lr=0.01)

    def score(user: Tensor, item: Tensor) -> Tensor:
        return (tables[0](user) * tables[1](item)).sum(1)

    rows, test = pair.source.where(~held_out), pair.source.where(held_out)
    columns = [torch.from_numpy(c) for c in (rows.user, rows.item, rows.rating)]
    loader = DataLoader(TensorDataset(*columns), batch_size, shuffle=True)
    n_seen, spent, curve = 0, 0.0, [(0.0, rmse(score, test))]
    while spent < seconds:
        start = perf_counter()
        for user, item, rating in loader:
            loss = (score(user, item) - rating).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            n_seen += len(user)
            if spent + perf_counter() - start > seconds:
                break
        spent += perf_counter() - start
        curve.append((spent, rmse(score, test)))
    return Measured("plain step", size, batch_size, n_seen / spent, curve)


def stage(name: str, dataset: str, given: dict[str, Any], held_out: np.ndarray) -> Measured:
    """Run the source stage to its end."""
    config = MMConfig("PTUPCDR", dataset, config_dict=given)
    train = PairDataset(config).build()[0]
    model = SourceAlone(config, train)
    model.held_out = held_out
    trainer = build_trainer(config, model)
    trainer.fit(SimpleNamespace(_dataset=train), saved=False, verbose=False)
    (report,) = trainer.reports
    an_epoch = report.seconds / report.epochs
    curve = [(epoch * an_epoch, score) for epoch, score in report.valid_curve]
    n_rows = report.examples // report.epochs
    size = config["embedding_size"]
    batch_size = model.batch_size("source", n_rows)
    return Measured(name, size, batch_size, report.examples / report.seconds, curve)


def bound(pair: Pair, size: int, batch_size: int) -> float:
    """Ratings a second that memory allows."""
    rows = pair.source
    batch = np.random.default_rng(0).permutation(len(rows))[:batch_size]
    n_met = len(np.unique(rows.user[batch])) + len(np.unique(rows.item[batch]))
    numbers = n_met * (size + 1) * 3 * 2  # vector and bias, and their moments, read and written
    return batch_size * bandwidth() / (4 * numbers)


def compare(dataset: str, given: dict[str, Any], names: Sequence[str], seconds: float) -> None:
    """Measure all contenders and print a table."""
    config = MMConfig("PTUPCDR", dataset, config_dict=given)
    pair = PairDataset(config).pair
    held_out = np.random.default_rng(0).random(len(pair.source)) < HELD_OUT
    plain = plain_step(pair, held_out, 512 if dataset.startswith("book") else 256, seconds)
    stages = [stage(name, dataset, {**given, **CONTENDERS[name]}, held_out) for name in names]
    print(
        "| contender | k | a batch | ratings/s | of the plain step | of the bound | epochs |"
        " s | held-out RMSE, best (after s) | last | s to the plain step's |"
    )
    print("| --- |" + " ---: |" * 10)
    for one in (plain, *stages):
        seconds, last = one.curve[-1]
        best_at, best = min(one.curve, key=lambda point: point[1])
        there = [at for at, error in one.curve if error <= plain.curve[-1][1]]
        print(
            f"| {one.name} | {one.size} | {one.batch_size:,} | {one.speed:,.0f}"
            f" | {one.speed / plain.speed:.1f}"
            f" | {one.speed / bound(pair, one.size, one.batch_size):.0%}"
            f" | {len(one.curve) - 1} | {seconds:.0f} | {best:.4f} ({best_at:.0f}) | {last:.4f}"
            f" | {f'{there[0]:.0f}' if there else 'never'} |"
        )
    print(f"\nPeak memory {peak_gb():.1f} GB.")


def by_size(sizes: Sequence[int], given_batch_size: int | None) -> None:
    """Time an epoch of each number of ratings and print a table."""
    print("| ratings | a batch | s | us/rating | of the first |\n|" + " ---: |" * 5)
    first = None
    for n in sizes:
        batch_size = given_batch_size or grown_batch_size(n, 2048, 32768)
        cost = _cost(n, batch_size)
        first = first or cost
        print(
            f"| {n:,} | {batch_size:,} | {cost * n:.2f} | {1e6 * cost:.2f} | {cost / first:.2f} |",
            flush=True,
        )


def _cost(n: int, batch_size: int) -> float:
    """Seconds a rating of the source stage's step, of the fastest of the epochs in 15 seconds.

    There are three epochs at least: the first one meets tables that are not in memory yet.
    """
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    n_users, n_items = (round(n / density) for density in BOOK_DENSITY)
    law = [(np.arange(count) + 50) ** -0.7 for count in (n_users, n_items)]
    user, item = (rng.choice(len(p), n, p=p / p.sum()) + 1 for p in law)
    empty = Ratings(*(np.empty(0, dtype=t) for t in (np.int64, np.int64, np.float32, float)))
    tokens = np.empty(1 + n_users, dtype=object), np.empty(1 + n_items, dtype=object)
    pair = Pair(empty, empty, *tokens, 0, n_users, n_items, frozenset())
    config = {"embedding_size": 32, "embedding_std": 0.1, "use_bias": True}
    config["pretrain_item_features"] = "id"
    model = MF(
        UserTable(pair, "source", config, generator),
        ItemTable(pair, "source", config, generator),
        mean=3.0,
        config=config,
        generator=generator,
    )
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = True
    columns = {"user": torch.from_numpy(user), "item": torch.from_numpy(item)}
    columns["rating"] = torch.from_numpy(rng.integers(1, 6, n).astype(np.float32))
    loader = RowLoader(columns, batch_size=batch_size, seed=0, name="source")
    optimiser = RowAdam(model.trained, lr=0.005)
    times: list[float] = []
    while len(times) < 3 or sum(times) < 15:
        loader.set_epoch(len(times))
        start = perf_counter()
        for batch in loader:
            optimiser.zero_grad()
            scores, norms = model.score_with_norms(batch["user"], batch["item"])
            ((scores - batch["rating"]).square() + 0.02 * norms).mean().backward()
            optimiser.step()
        times.append(perf_counter() - start)
    return min(times) / n


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dataset", help="a pair of the size of a task")
    parser.add_argument("--data_path", help="the folder that holds it")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the plain step (60)")
    parser.add_argument("--contenders", type=name_list, default=list(CONTENDERS)[:2])
    parser.add_argument("--reg_weight", type=float, default=0.2, help="of the stages (0.2)")
    parser.add_argument("--sizes", type=name_list, help="numbers of ratings")
    parser.add_argument("--batch_size", type=int, help="of --sizes")
    options = parser.parse_args(argv)

    def command() -> None:
        if options.sizes:
            by_size([int(size) for size in options.sizes], options.batch_size)
            return
        register()
        given = {"data_path": options.data_path, "use_gpu": False, "show_progress": False}
        given |= {"state": "WARNING", "reg_weight": options.reg_weight}
        compare(options.dataset, given, options.contenders, options.seconds)

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())
