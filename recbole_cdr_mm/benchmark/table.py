"""One table of some results: `python -m recbole_cdr_mm.benchmark table A.json B.json ...`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_cdr_mm.errors import ConfigError

_ROW_KEYS = (
    "split_seed test_user_ratio valid_user_ratio unseen_item_ratio overlap_ratio few_shot"
    " few_shot_pool positive_threshold user_inter_num_interval item_inter_num_interval val_interval"
).split()
SMALLER_IS_BETTER = ("MAE", "RMSE", "LogLoss")


def compare(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Put results side by side.

    Args:
        results: Results of `run_recbole_mm`, all measured on the same rows.

    Returns:
        A row for each result: model, preset, the keys of the configuration in which runs of the
        same model and preset differ, test metrics and seconds of training. The best value of the
        metric that chose the epochs first.

    Raises:
        ConfigError: If the results are of different tasks or different test rows, which no table
            may put side by side.
    """
    first = results[0]
    for result in results:
        for key in ("eval_task", "dataset", "data", "rows"):
            if result[key] != first[key]:
                raise ConfigError(
                    f"{result['model']} and {first['model']} differ in `{key}`:"
                    f" {_what_differs(result, first, key)}. Compare runs on the same rows only."
                )
    rows = [
        {
            "model": result["model"],
            "preset": result["preset"],
            "differs in": _difference(result, results),
            **result["test"],
            "seconds": sum(stage["seconds"] for stage in result["stages"]),
        }
        for result in results
    ]
    metric = first["config"]["valid_metric"]
    table = pd.DataFrame(rows).sort_values(
        metric, ascending=metric in SMALLER_IS_BETTER, ignore_index=True
    )
    return table if table["differs in"].any() else table.drop(columns="differs in")


def _what_differs(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> str:
    """The keys that draw the rows, where they differ; else the values themselves."""
    drawn = [
        f"`{name}` {one['config'].get(name)} and {other['config'].get(name)}"
        for name in _ROW_KEYS
        if one["config"].get(name) != other["config"].get(name)
    ]
    return ", ".join(drawn) or f"{one[key]} and {other[key]}"


def _difference(result: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """The keys, with this run's values, in which runs of one model and preset differ."""
    same = [r["config"] for r in results if (r["model"], r["preset"]) == _kind(result)]
    keys = sorted(key for config in same for key in config)
    differing = [k for k in dict.fromkeys(keys) if len({str(c.get(k)) for c in same}) > 1]
    return " ".join(f"{k}={result['config'].get(k)}" for k in differing)


def _kind(result: Mapping[str, Any]) -> tuple[str, str]:
    return result["model"], result["preset"]


def print_table(paths: Sequence[Path]) -> None:
    """Print the table of result files.

    Raises:
        ConfigError: If a file holds no result, or they cannot be compared.
    """
    results = [_read(path) for path in paths]
    table = compare(results)
    data = results[0]["data"]
    print(
        f"{results[0]['dataset']}, {data['test_users']:,} test users,"
        f" {results[0]['rows']['test']:,} test ratings in use"
    )
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["data"], result["rows"], result["test"], result["stages"], result["config"]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Name a file of --result_json.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no result of run_recbole_mm.py ({error!r}).") from error
    return dict(result)
