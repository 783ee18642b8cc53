"""What the values of a configuration must be together; what each must be alone is in `schema`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType
from torch.nn.utils import clip_grad_norm_

from recbole_cdr_mm import ranks
from recbole_cdr_mm.errors import ConfigError, did_you_mean
from recbole_cdr_mm.recbole_models import check_config

# What RecBole's own models read and ours do not.
_NOT_FOR_OURS = {
    "train_neg_sample_args": "they draw one negative a row, evenly over the target items",
    "shuffle": "their rows are always shuffled",
    "worker": "their rows stay in memory",
    "numerical_features": "they read ratings and texts",
}
_WITHOUT_CUT_OFF = ("gauc",)
_INTERVAL = re.compile(r"\s*[\[(]([^,]+),([^,]+)[\])]\s*")
_METRICS = ["Recall", "MRR", "NDCG", "Hit", "MAP", "Precision", "GAUC", "MAE", "RMSE"]


def check_values(config: Any) -> None:
    """Refuse values that do not go together.

    Args:
        config: An `MMConfig` whose values are all there.

    Raises:
        ConfigError: With what is wrong, where it was said, and what to do.
    """
    values = config.final_config_dict
    _check_split(config)
    if config.is_ours:
        _check_ours(config)
    if max(values["nproc"], values["world_size"], ranks.launched_size()) > 1:
        _check_processes(config)
    _check_learner(values)
    _check_task(config)
    _check_negatives(values)
    _check_fields(values)
    _check_filters(values)
    _check_metrics(values)
    if values["log_wandb"] and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "`log_wandb: True` needs the library wandb, which is not installed. Install it, or"
            " leave log_wandb out."
        )


def _check_split(config: Any) -> None:
    values = config.final_config_dict
    task, eval_args = values["eval_task"], config.said("eval_args")
    if eval_args:
        raise ConfigError(
            f"{eval_args.origin}: `eval_args` is set by `eval_task: {task}`, and the split by"
            " test_user_ratio, valid_user_ratio and split_seed. Leave it out."
        )
    if task == "rating" and values["train_neg_sample_args"] is not None:
        raise ConfigError(
            "`train_neg_sample_args` samples rows without a rating; with `eval_task: rating` it"
            " must be null. Leave it out."
        )
    if values["few_shot"] is not None and values["unseen_item_ratio"]:
        raise ConfigError(
            f"`few_shot: {values['few_shot']}` reveals ratings of all items, while those of the"
            f" items that `unseen_item_ratio: {values['unseen_item_ratio']}` draws must stay"
            " hidden. Leave one of them out."
        )


def _check_ours(config: Any) -> None:
    for name, why in _NOT_FOR_OURS.items():
        given = config.given.get(name)
        if given and given.value != config.internal_config_dict[name]:
            raise ConfigError(
                f"{given.origin}: `{name}` is for RecBole's own models, not for those of this"
                f" package: {why}. Leave it out."
            )
    values = config.final_config_dict
    loss_type = values.get("loss_type")
    if loss_type in ("BPR", "CE") and values["eval_task"] == "rating":
        raise ConfigError(
            f"`loss_type: {loss_type}` orders items and predicts no ratings. Leave it out, or give"
            " --eval_task=ranking."
        )


def _check_processes(config: Any) -> None:
    values = config.final_config_dict
    n_here, n_all = values["nproc"], values["world_size"]
    if not config.is_ours:
        raise ConfigError(
            "On a pair RecBole's own models run in one process. Leave `nproc` and `world_size` out,"
            " and torchrun too."
        )
    if values["enable_scaler"]:
        raise ConfigError(
            "`enable_scaler: True` scales the losses of each process by itself. Leave it out, or"
            " run in one process."
        )
    if n_all > 0 and (n_all % n_here or values["group_offset"] % n_here):
        raise ConfigError(
            f"`world_size: {n_all}` and `group_offset: {values['group_offset']}` must be multiples"
            f" of `nproc: {n_here}`, which each machine starts."
        )


def _check_learner(values: dict[str, Any]) -> None:
    for name in ("weight_decay", "clip_grad_norm"):
        if values["learner"] == "sparse_adam" and values[name]:
            raise ConfigError(
                f"`{name}: {values[name]}` needs the gradients of all rows of a table, and"
                " `learner: sparse_adam` has those of a batch. Give reg_weight instead, or"
                " --learner=adam."
            )
    try:
        clip_grad_norm_([], **(values["clip_grad_norm"] or {"max_norm": 1.0}))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"`clip_grad_norm: {values['clip_grad_norm']}` must hold the arguments of torch's"
            " clip_grad_norm_, as {'max_norm': 5.0}: " + f"{error}."
        ) from error


def _check_task(config: Any) -> None:
    values = config.final_config_dict
    task = values["eval_task"]
    if values.get("point_estimate") == "median" and task == "ranking":
        raise ConfigError(
            "`point_estimate: median` is of ratings, and orders no items. Leave it out, or give"
            " --eval_task=rating."
        )
    check_config(config.model_class, values)
    eval_tasks = getattr(config.model_class, "eval_tasks", ("rating", "ranking"))
    if task not in eval_tasks:
        raise ConfigError(
            f"{config.model} does {' and '.join(eval_tasks)} only. Give"
            f" --eval_task={eval_tasks[0]}."
        )


def _check_negatives(values: dict[str, Any]) -> None:
    """`train_neg_sample_args`, of which RecBole's samplers believe anything."""
    given = values["train_neg_sample_args"] or {}
    right = {
        "distribution": lambda value: value in ("none", "uniform", "popularity"),
        "sample_num": lambda value: _is_integer(value) and value > 0,
        "alpha": lambda value: isinstance(value, int | float),
        "dynamic": lambda value: isinstance(value, bool),
        "candidate_num": lambda value: _is_integer(value) and value >= 0,
    }
    for name, value in given.items():
        if name not in right:
            raise ConfigError(
                f"`train_neg_sample_args` has no `{name}`.{did_you_mean(name, right)} It takes"
                f" {', '.join(right)}."
            )
        if not right[name](value):
            raise ConfigError(f"`train_neg_sample_args`: `{name}: {value}` is not possible.")
    if given.get("dynamic") and not given.get("candidate_num"):
        raise ConfigError(
            "`train_neg_sample_args`: `dynamic: True` chooses among candidates. Give a"
            " `candidate_num` above 0."
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_filters(values: dict[str, Any]) -> None:
    """The intervals of RecBole's filters, which passes over what is none."""
    filters = {
        name: values[name] for name in ("user_inter_num_interval", "item_inter_num_interval")
    }
    by_value = values["val_interval"] or {}
    filters |= {f"val_interval` of `{field}": kept for field, kept in by_value.items()}
    for name, intervals in filters.items():
        if intervals is None or (isinstance(intervals, list) and name not in values):
            continue  # a list of values, by which RecBole filters too
        parts = str(intervals).split(";")
        if not all(map(_is_interval, parts)):
            raise ConfigError(
                f"`{name}: {intervals}` is no interval. Give one of the form [5,inf) or (0,3], and"
                " several with a semicolon between them."
            )
        if len(parts) > 1 and name in values:
            raise ConfigError(f"`{name}: {intervals}` must be one interval.")


def _is_interval(text: str) -> bool:
    """Whether RecBole takes a text for an interval that holds anything.

    >>> [_is_interval(text) for text in ("[5,inf)", " (0, 3.5] ", "5", "[b,c]", "[9,2]")]
    [True, True, False, False, False]
    """
    ends = _INTERVAL.fullmatch(text)
    try:
        return ends is not None and float(ends[1]) <= float(ends[2])
    except ValueError:
        return False


def _check_fields(values: dict[str, Any]) -> None:
    names = [f"{kind}_FIELD" for kind in ("USER_ID", "ITEM_ID", "RATING", "TIME", "LABEL")]
    if len({values[name] for name in names}) < len(names):
        raise ConfigError(f"{', '.join(names)} must be five different names.")
    try:
        "".encode(values["encoding"])
    except LookupError as error:
        raise ConfigError(f"`encoding: {values['encoding']}` is none that Python has.") from error
    if not values["field_separator"]:
        raise ConfigError("`field_separator` is empty. Give what stands between two fields.")
    bounds = values["rating_range"]
    is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
    if not is_pair or not float(bounds[0]) < float(bounds[1]):
        raise ConfigError(f"`rating_range: {bounds}` must be [lowest, highest].")


def _check_metrics(values: dict[str, Any]) -> None:
    task, metrics = values["eval_task"], values["metrics"]
    metrics = [metrics] if isinstance(metrics, str) else metrics
    wanted = EvaluatorType.VALUE if task == "rating" else EvaluatorType.RANKING
    for metric in [*metrics, values["valid_metric"].split("@")[0]]:
        if task == "rating" and metric.lower() in ("auc", "logloss"):
            raise ConfigError(f"`{metric}` is for labels of 0 and 1, and these are ratings.")
        if metric.lower() not in metric_types:
            raise ConfigError(f"There is no metric `{metric}`.{did_you_mean(metric, _METRICS)}")
        if metric_types[metric.lower()] != wanted:
            raise ConfigError(
                f"`{metric}` is no metric of `eval_task: {task}`. Choose others, or the other task."
            )
    _check_valid_metric(values, metrics)


def _check_valid_metric(values: dict[str, Any], metrics: Sequence[str]) -> None:
    name, at, k = values["valid_metric"].partition("@")
    topk = values["topk"] if isinstance(values["topk"], list) else [values["topk"]]
    cut = values["eval_task"] == "ranking" and name.lower() not in _WITHOUT_CUT_OFF
    if bool(at) != cut:
        raise ConfigError(
            f"`valid_metric: {values['valid_metric']}` must be `{name}"
            + (f"@K`, with one of topk {topk} as K." if cut else "`, without a cut-off.")
        )
    if name.lower() not in {m.lower() for m in metrics} or (cut and k not in map(str, topk)):
        raise ConfigError(
            f"`valid_metric: {values['valid_metric']}` is not among the metrics {metrics}"
            + (f" at topk {topk}." if cut else ".")
            + " Choose one of them, or add it."
        )
