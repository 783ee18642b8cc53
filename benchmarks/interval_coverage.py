"""Coverage of the 95% intervals, false alarms and power of the paired test, where truth is known.

    python benchmarks/interval_coverage.py [--repetitions=2000] [--processes=2]

A population of users has heavy-tailed errors and unequal numbers of ratings. A data set is a pool
of them; each seed tests a random share of the pool, so that seeds share users, and moves all of a
model's values by an effect of its own (the training). The effect's size is given in standard errors
that the users of one seed cause. Truth is the mean over all repetitions. `rating` is an RMSE;
`ranking` a value between 0 and 1 that is 0 for 60% of the users.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from scipy import stats

from recbole_cdr_mm import compat

compat.apply()

from recbole_cdr_mm.evaluation.intervals import estimate  # noqa: E402
from recbole_cdr_mm.evaluation.significance import compare  # noqa: E402
from recbole_cdr_mm.evaluation.user_values import UserValues  # noqa: E402


@dataclass(frozen=True)
class World:
    """A way to draw data sets.

    Attributes:
        metric: rating or ranking.
        pool: Users that a seed chooses from.
        ratio: Share of the pool that a seed tests.
        seeds: Seeds.
        effect: Standard deviation of a seed's effect, in standard errors of one seed.
        gain: Share by which the second model's errors are smaller (its values larger).
    """

    metric: str = "rating"
    pool: int = 330
    ratio: float = 0.2
    seeds: int = 3
    effect: float = 1.0
    gain: float = 0.0


Runs = dict[int, UserValues]

# Standard error of one seed's metric by its users: a share of it, times the root of their number.
_RELATIVE_ERROR = {"rating": 0.68, "ranking": 1.82}


def draw(world: World, rng: np.random.Generator) -> tuple[Runs, Runs]:
    """Two models of one data set; equal in the mean where there is no gain."""
    n = world.pool
    # As spread as the users of a real pair: half have 20 ratings or less, some have hundreds.
    count = 1 + np.minimum(np.exp(rng.normal(2.9, 1.6, n)), 600).astype(int)
    scale = np.exp(rng.normal(0, 0.3, n))  # how hard a user is
    likes = (rng.random(n) > 0.6) * rng.beta(1, 3, n)
    users = np.array([f"{u:06d}" for u in range(n)])
    models: tuple[Runs, Runs] = ({}, {})
    tested = max(2, round(n * world.ratio))
    for seed in range(world.seeds):
        chosen = np.sort(rng.permutation(n)[:tested])
        shared = rng.normal(size=(2, n))  # what both models get wrong in the same way
        for place, runs in enumerate(models):
            own = 0.8 * shared[0] + 0.6 * rng.normal(size=n)
            size = _RELATIVE_ERROR[world.metric] / np.sqrt(tested)
            factor = 1 + world.effect * size * rng.normal()
            factor *= 1 + world.gain * place * (1 if world.metric == "ranking" else -1)
            if world.metric == "rating":
                mean_square = scale**2 * np.maximum(1 + own * np.sqrt(2 / count), 0.05)
                total, weight = factor**2 * mean_square * count, count.astype(float)
            else:
                total = factor * likes * np.exp(0.3 * own - 0.045)
                weight = np.ones(n)
            runs[seed] = UserValues(
                users[chosen], total[chosen], weight[chosen], root=world.metric == "rating"
            )
    return models


def over_seeds_alone(runs: Runs) -> tuple[float, float]:
    """The usual interval: Student's, as if the seeds were independent."""
    values = np.array([run.value for run in runs.values()])
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def over_users_alone(runs: Runs) -> tuple[float, float]:
    """A bootstrap over users of all seeds' rows put together, as if there were one seed."""
    user, place = np.unique(
        np.concatenate([run.user for run in runs.values()]), return_inverse=True
    )
    total, weight = (
        np.bincount(place, np.concatenate([getattr(run, part) for run in runs.values()]))
        for part in ("total", "weight")
    )
    pooled = estimate({0: UserValues(user, total, weight, next(iter(runs.values())).root)})
    return pooled.low, pooled.high


def intervals_of(world: World, seed: int) -> list[tuple[float, float, float]]:
    """Mean and interval of one data set: ours, over seeds alone, over users alone."""
    runs, _ = draw(world, np.random.default_rng([seed, 1]))
    ours = estimate(runs)
    found = [(ours.mean, ours.low, ours.high)]
    if world.seeds > 1:
        found.append((ours.mean, *over_seeds_alone(runs)))
        found.append((ours.mean, *over_users_alone(runs)))
    return found


def p_value_of(world: World, seed: int) -> float:
    """The paired test's p on one data set."""
    return compare(*draw(world, np.random.default_rng([seed, 2]))).p_bootstrap


def coverage(world: World, repetitions: int, run: Callable[..., Iterable]) -> list[float]:
    """Share of data sets whose interval holds the truth, for each kind of interval."""
    found = np.array(list(run(partial(intervals_of, world), range(repetitions), chunksize=50)))
    truth = found[:, 0, 0].mean()
    return [
        float(np.mean((one[:, 1] <= truth) & (truth <= one[:, 2])))
        for one in np.moveaxis(found, 1, 0)
    ]


def alarms(world: World, repetitions: int, run: Callable[..., Iterable]) -> list[float]:
    """Share of data sets in which the test says that the models differ, at 5% and 1%."""
    p = np.array(list(run(partial(p_value_of, world), range(repetitions), chunksize=50)))
    return [float(np.mean(p < level)) for level in (0.05, 0.01)]


def table(title: str, head: list[str], rows: Iterable[list[object]]) -> None:
    """Print a Markdown table, row by row."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        cells = (f"{100 * cell:.1f}%" if isinstance(cell, float) else str(cell) for cell in row)
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    n = options.repetitions
    print(f"{n} data sets a row: a coverage of 95% is known to {1.96 * (0.0475 / n) ** 0.5:.1%}.")
    with ProcessPoolExecutor(options.processes) as pool:
        grid = list(product(("rating", "ranking"), (0.2, 0.8), (0, 1, 2)))
        sizes = (2, 3, 5, 10)
        table(
            "Coverage of the 95% intervals (in brackets: Student's over the seeds alone; a"
            " bootstrap over the users alone)",
            ["metric", "ratio", "effect of a seed", *(f"{s} seeds" for s in sizes)],
            (
                [metric, str(ratio), str(effect)]
                + [
                    "{:.1%} ({:.1%}; {:.1%})".format(
                        *coverage(World(metric, 330, ratio, s, effect), n, pool.map)
                    )
                    for s in sizes
                ]
                for metric, ratio, effect in grid
            ),
        )
        table(
            "Coverage with one seed, which knows nothing of a seed's effect",
            ["metric", "users tested", "effect 0", "effect 1"],
            (
                [metric, str(users)]
                + [coverage(World(metric, 2 * users, 0.5, 1, e), n, pool.map)[0] for e in (0, 1)]
                for metric, users in product(("rating", "ranking"), (10, 20, 50, 200, 1000))
            ),
        )
        table(
            "Coverage with few users and 3 seeds, effect 1",
            ["metric", "users tested by each seed", "ratio 0.2", "ratio 0.8"],
            (
                [metric, str(users)]
                + [
                    coverage(World(metric, round(users / r), r, 3, 1), n, pool.map)[0]
                    for r in (0.2, 0.8)
                ]
                for metric, users in product(("rating", "ranking"), (10, 20, 50))
            ),
        )
        table(
            "False alarms of the paired test between two models that are equal",
            ["metric", "ratio", "effect of a seed", "seeds", "at 5%", "at 1%"],
            (
                [
                    metric,
                    str(ratio),
                    str(effect),
                    str(s),
                    *alarms(World(metric, 330, ratio, s, effect), n, pool.map),
                ]
                for metric, ratio, effect, s in product(
                    ("rating", "ranking"), (0.2, 0.8), (0, 1), (1, 3, 5)
                )
                if s > 1 or effect == 0
            ),
        )
        table(
            "Power of the paired test: one model's errors are 3% smaller, its ranks 10% better",
            ["metric", "ratio", "seeds", "at 5%", "at 1%"],
            (
                [
                    metric,
                    str(ratio),
                    str(s),
                    *alarms(World(metric, 330, ratio, s, 0.2, gain), n, pool.map),
                ]
                for (metric, gain), ratio, s in product(
                    (("rating", 0.03), ("ranking", 0.1)), (0.2, 0.8), (1, 3, 5)
                )
            ),
        )


if __name__ == "__main__":
    main()
