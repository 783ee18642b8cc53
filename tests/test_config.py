from __future__ import annotations

import ast
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recbole
import torch
import yaml
from model_checks import model_properties
from recbole.config import Config
from small_pairs import write_lines, write_small_pair

import recbole_cdr_mm
from recbole_cdr_mm.config import MMConfig, find_model
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.given import model_name_of, parse_command_line
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.property_files import RECBOLE_PROPERTIES, recbole_bounds, with_bounds
from recbole_cdr_mm.recbole_models import RECBOLE_MODELS
from recbole_cdr_mm.schema import read_properties

PACKAGE = Path(recbole_cdr_mm.__file__).parent
RECBOLE = Path(recbole.__file__).parent
PAIR = ("source_dataset: movie", "target_dataset: cd")


@pytest.fixture(autouse=True)
def pair_yaml(tmp_path: Path) -> Path:
    """The pair `pair`, found under RecBole's own default of data_path."""
    return write_lines(tmp_path / "dataset" / "pair" / "pair.yaml", *PAIR)


def config(*command_line: str, model: str = "MetaMMCDR", **config_dict: Any) -> MMConfig:
    return MMConfig(model, "pair", config_dict=config_dict, command_line=command_line)


# Precedence


def test_every_layer_wins_over_those_below_it(tmp_path: Path, pair_yaml: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]

    def value(key: str, model: str = "MetaMMCDR", **given: Any) -> Any:
        return MMConfig(model, "pair", **given)[key]

    recbole_overall = read_properties(RECBOLE_PROPERTIES / "overall.yaml")[0]
    assert value("stopping_step") == recbole_overall["stopping_step"]
    assert recbole_overall["metric_decimal_place"] == 4
    assert value("metric_decimal_place") == 6  # our overall.yaml
    assert value("eval_batch_size") == 65536 != recbole_overall["eval_batch_size"]  # eval_task
    assert value("clip_predictions", "GlobalMean") is True
    assert value("learning_rate") == 0.005 != recbole_overall["learning_rate"]  # model
    assert value("learning_rate", "FM") == recbole_overall["learning_rate"]
    assert value("mlp_hidden_size", "NeuMF") == [128, 64]  # RecBole's model
    write_lines(pair_yaml, *PAIR, "learning_rate: 0.2", "eval_batch_size: 7")
    assert value("learning_rate") == 0.2  # pair
    assert value("eval_batch_size") == 7
    write_lines(pair_yaml, *PAIR, "learning_rate: 0.2", "preset: paper")
    assert value("learning_rate") == 0.01  # preset
    assert value("clip_predictions") is False
    assert value("clip_predictions", "BiasTransfer") is True  # no (P) there: not of the preset
    write_lines(files[0], "learning_rate: 0.3", "epochs: 3")
    write_lines(files[1], "learning_rate: 0.4")
    given: dict[str, Any] = {"config_file_list": files}
    assert (value("learning_rate", **given), value("epochs", **given)) == (0.4, 3)
    given["config_dict"] = {"learning_rate": 0.5}
    assert (value("learning_rate", **given), value("epochs", **given)) == (0.5, 3)
    given["command_line"] = ["--learning_rate=0.6"]
    assert (value("learning_rate", **given), value("epochs", **given)) == (0.6, 3)


def test_the_users_preset_and_task_choose_the_layers_below(tmp_path: Path) -> None:
    assert config(preset="paper")["embedding_size"] == 10
    assert config("--preset=default", preset="paper")["embedding_size"] == 32
    ranking = config("--eval_task=ranking")
    assert (ranking["valid_metric"], ranking["topk"]) == ("NDCG@10", [10, 20])
    assert config("--eval_task=ranking", "--valid_metric=Recall@20")["valid_metric"] == "Recall@20"


def test_the_paper_takes_larger_batches_for_tasks_with_book() -> None:
    batches = ["source_batch_size", "target_batch_size", "meta_batch_size", "map_batch_size"]
    for dataset, sizes in (
        ("movie_cd", [256, 256, 128, 64]),
        ("book_movie", [512, 512, 512, 128]),
        ("book_cd", [512, 512, 512, 128]),
    ):
        paper = MMConfig("MetaMMCDR", dataset, config_dict={"preset": "paper"})
        assert [paper[key] for key in batches] == sizes
        assert paper["per_dataset"] is None


def test_a_pair_of_ones_own_stands_before_a_packaged_one(tmp_path: Path) -> None:
    assert MMConfig("FM", "movie_cd")["source_dataset"] == "amazon-movie"
    write_lines(tmp_path / "dataset" / "movie_cd" / "movie_cd.yaml", *PAIR)
    assert MMConfig("FM", "movie_cd")["source_dataset"] == "movie"
    assert MMConfig("FM", "movie_cd", config_dict={"data_path": "x"})["data_path"] == "x/movie_cd"


def test_a_pair_may_be_given_without_a_file_of_its_own(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "mine.yaml", *PAIR, "model: GlobalMean", "dataset: mine")
    named = MMConfig(config_file_list=[file])
    assert (named.model, named.dataset, named["target_dataset"]) == ("GlobalMean", "mine", "cd")
    assert named.data_root == Path("dataset")


# What is refused


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: 3", None),
        ("lerning_rate: 0.1", r"unknown key `lerning_rate`\. Did you mean `learning_rate`\?$"),
        ("zzz: 0.1", r"unknown key `zzz`\. MetaMMCDR has no such key\. Leave it out\.$"),
        ("mlp_hidden_size: [8]", r"unknown key `mlp_hidden_size`\."),  # a key of other models
        ("epochs: 2.5", r"`epochs: 2\.5` must be \(int > 0\): of each stage"),
        ("epochs: 0", r"`epochs: 0` must be \(int > 0\)"),
        ("epochs: true", r"`epochs: True` must be \(int > 0\)"),
        ("learning_rate: '0.1'", r"`learning_rate: 0\.1` must be \(float > 0\)"),
        ("test_user_ratio: 1", r"`test_user_ratio: 1` must be \(0 < float < 1\)"),
        ("valid_user_ratio: -0.1", r"`valid_user_ratio: -0\.1` must be \(0 <= float < 1\)"),
        ("use_bias: 1", r"`use_bias: 1` must be \(bool\)"),
        ("history_length: all", r"`history_length: all` must be \(int > 0 or null\)"),
        ("item_features: texts", r"`item_features: texts` must be \(id \| text \| both"),
        ("preset: papr", r"`preset: papr` must be \(default \| paper\)"),
        ("eval_task: rank", r"`eval_task: rank` must be \(rating \| ranking\)"),
        ("rating_range: [1, five]", r"`rating_range: \[1, 'five'\]` must be \(list of float\)"),
        ("seed: -1", r"`seed: -1` must be \(0 <= int < 4294967296\)"),
        ("source_dataset: [a]", r"`source_dataset: \['a'\]` must be \(str or null\)"),
        ("eval_args: {mode: full}", r"`eval_args` is set by `eval_task: rating`, and the split by"),
    ],
)
@pytest.mark.parametrize("where", ["file", "pair"])
def test_a_bad_line_of_a_file_is_named_by_file_and_number(
    tmp_path: Path, pair_yaml: Path, where: str, line: str, message: str | None
) -> None:
    if where == "pair":
        file = write_lines(pair_yaml, *(p for p in PAIR if p[:10] != line[:10]), "", line)
    else:
        file = write_lines(tmp_path / "my_run.yaml", "# mine", "topk: [5]", "", line)
    number = len(file.read_text().splitlines())
    files = [] if where == "pair" else [file]
    if message is None:
        assert MMConfig("MetaMMCDR", "pair", files)["epochs"] == 3
        return
    with pytest.raises(ConfigError, match=rf"^{file.name}, line {number}: {message}"):
        MMConfig("MetaMMCDR", "pair", files)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=3", None),
        ("--lerning_rate=0.1", r"unknown key `lerning_rate`\. Did you mean `learning_rate`\?"),
        ("--epochs=many", r"`epochs: many` must be \(int > 0\)"),
        ("--epochs=3=3", r"`epochs: 3=3` must be"),
        ("--seed=True", r"`seed: True` must be \(0 <= int < 4294967296\)"),
        ("--resume", r"`--resume` is not of the form --key=value\."),
        ("epochs=3", r"`epochs=3` is not of the form --key=value\."),
        ("3", r"`3` is not of the form --key=value\."),
    ],
)
def test_a_bad_argument_is_named(argument: str, message: str | None) -> None:
    if message is None:
        assert config(argument)["epochs"] == 3
        return
    with pytest.raises(ConfigError, match=rf"^command line: {message}"):
        config(argument)


def test_a_bad_key_or_value_of_the_dict_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^config_dict: unknown key `epoch`\. Did you mean `ep"):
        config(epoch=3)
    with pytest.raises(ConfigError, match=r"^config_dict: `epochs: -1` must be \(int > 0\)"):
        config(epochs=-1)
    assert (
        config(epochs="3")["epochs"] == 3
    )  # RecBole parses strings, hyperparameter search gives them


def test_an_argument_given_twice() -> None:
    assert config("--epochs=3", "--epochs=3")["epochs"] == 3
    with pytest.raises(ConfigError, match="`--epochs` is given twice with different values"):
        config("--epochs=3", "--epochs=4")


def test_values_may_contain_equal_signs_and_look_like_numbers() -> None:
    assert parse_command_line(["--result_json=a=b.json"])["result_json"].value == "a=b.json"
    assert config("--result_json=run=1/a=b.json")["result_json"] == "run=1/a=b.json"
    assert config("--source_dataset=2014")["source_dataset"] == "2014"
    assert config("--source_dataset=1e5")["source_dataset"] == "1e5"
    assert MMConfig("FM", "demo", command_line=["--data_path=2014"]).data_root == Path("2014")
    assert config("--history_length=null")["history_length"] is None
    assert config("--use_bias=false")["use_bias"] is False


@pytest.mark.parametrize("code", ["__import__('os').getpid()", "2+2", "[x for x in (1,)]"])
def test_nothing_is_evaluated_as_code(code: str) -> None:
    for given in ({"command_line": [f"--epochs={code}"]}, {"config_dict": {"epochs": code}}):
        with pytest.raises(ConfigError, match=f"`epochs: {re.escape(code)}` must be"):
            MMConfig("MetaMMCDR", "pair", **given)
    assert config(f"--result_json={code}")["result_json"] == code


def test_tags_in_files_build_nothing(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "a.yaml", f"epochs: !!python/object/apply:os.mkdir ['{tmp_path}/x']"
    )
    with pytest.raises(
        ConfigError, match=r"a\.yaml: is no YAML: could not determine a constructor"
    ):
        MMConfig("MetaMMCDR", "pair", [file])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3", None),
        ("", None),
        ("# nothing", None),
        ("- epochs: 3", r"must hold `key: value` lines"),
        ("epochs", r"must hold `key: value` lines"),
        ("epochs: [3", r"is no YAML: while parsing"),
        ("\tepochs: 3", r"is no YAML: while scanning"),
        (b"epochs: \xff", r"is no YAML: 'utf-8' codec can't decode"),
        (None, r"No such file or directory\. Check --config_files"),
    ],
)
def test_config_files_that_are_none(
    tmp_path: Path, content: str | bytes | None, message: str | None
) -> None:
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    if message is None:
        assert MMConfig("MetaMMCDR", "pair", [file])["epochs"] == (3 if content[:1] == "e" else 20)
        return
    with pytest.raises(ConfigError, match=re.escape(str(file)) + ": " + message):
        MMConfig("MetaMMCDR", "pair", [file])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MetaMMCDR", None),
        ("NeuMF", None),
        ("LightGCN", None),
        ("metammcdr", r"There is no model `metammcdr`, .* Did you mean `MetaMMCDR`\? The models"),
        ("MetaMMCDRR", r"Did you mean `MetaMMCDR`\?"),
        ("bpr", r"Did you mean `BPR`\?"),
        ("LigthGCN", r"Did you mean `LightGCN`\?"),
        ("Qwrtzp", r"nor in RecBole\. The models here are BiasTransfer, "),
        ("foo.bar", r"There is no model `foo\.bar`"),
        ("", r"There is no model ``"),
        ("SASRec", r"^SASRec is one of RecBole's sequential models; a pair runs with its general"),
        ("KGAT", r"^KGAT is one of RecBole's knowledge-based models"),
        ("XGBOOST", r"^XGBOOST is one of RecBole's decision-tree models"),
    ],
)
def test_models_are_found_by_name(name: str, message: str | None) -> None:
    if message is None:
        named = config("--eval_task=ranking", model=name)
        assert named.model_class.__name__ == find_model(name).__name__ == name
        return
    with pytest.raises(ConfigError, match=message):
        MMConfig(None, "pair", config_dict={"model": name})


def test_a_model_may_be_given_as_a_class() -> None:
    assert MMConfig(find_models()["TargetMF"], "pair")["cold_user"] == "mean"
    assert MMConfig(find_model("BPR"), "pair", config_dict={"eval_task": "ranking"}).model == "BPR"
    with pytest.raises(ConfigError, match="SASRec is one of RecBole's sequential models"):
        MMConfig(find_model("SASRec"), "pair")


def test_neither_model_nor_data_set_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^No model is named\. Give --model=NAME\.$"):
        MMConfig(None, "pair")
    with pytest.raises(ConfigError, match=r"^No dataset is named\. Give --dataset=NAME\.$"):
        MMConfig("FM")


@pytest.mark.parametrize("name", ["movi_cd", "qqq"])
def test_an_unknown_pair_says_where_it_was_looked_for(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MMConfig("GlobalMean", name)
    text = str(caught.value)
    assert f"`{name}` is no pair: `source_dataset` is not set." in text
    assert (
        f"looked for {Path('dataset', name, name)}.yaml, and among the packaged pairs book_cd"
        in text
    )
    assert ("Did you mean `movie_cd`?" in text) == (name == "movi_cd")


def test_half_a_pair_and_a_misspelt_one(pair_yaml: Path) -> None:
    write_lines(pair_yaml, PAIR[0])
    with pytest.raises(ConfigError, match="`pair` is no pair: `target_dataset` is not set"):
        config()
    write_lines(pair_yaml, PAIR[0], "targt_dataset: cd")
    with pytest.raises(
        ConfigError, match=r"line 2: unknown key `targt_dataset`\. Did you mean `target_"
    ):
        config()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eval_task": "ranking", "metrics": ["NDCG", "GAUC"], "valid_metric": "GAUC"}, None),
        ({"metrics": "MAE", "valid_metric": "mae"}, None),
        ({"metrics": ["NDCG"]}, r"`NDCG` is no metric of `eval_task: rating`\. Choose others"),
        ({"metrics": ["RMSE", "NDGC"]}, r"no metric `NDGC`\. Did you mean `NDCG`\?"),
        ({"metrics": []}, r"`valid_metric: RMSE` is not among the metrics \[\]"),
        ({"metrics": ["MAE"]}, r"`valid_metric: RMSE` is not among the metrics \['MAE'\]"),
        ({"valid_metric": "NDCG@10"}, r"`NDCG` is no metric of `eval_task: rating`"),
        ({"valid_metric": "RMSE@10"}, r"`valid_metric: RMSE@10` must be `RMSE`, without a cut-off"),
        ({"eval_task": "ranking", "metrics": ["RMSE"]}, r"`RMSE` is no metric of `eval_task: rank"),
        (
            {"eval_task": "ranking", "topk": [5]},
            r"`valid_metric: NDCG@10` is not among .* at topk \[5\]",
        ),
        (
            {"eval_task": "ranking", "valid_metric": "NDCG"},
            r"must be `NDCG@K`, with one of topk \[",
        ),
        ({"eval_task": "ranking", "valid_metric": "NDCG@x"}, r"is not among .* at topk \[10, 20\]"),
        (
            {"eval_task": "ranking", "valid_metric": "MAP@10"},
            r"`valid_metric: MAP@10` is not among",
        ),
        ({"eval_task": "ranking", "topk": [0, 10]}, r"topk must be a positive integer"),
        ({"rating_range": [5, 1]}, r"`rating_range: \[5, 1\]` must be \[lowest, highest\]"),
        ({"rating_range": [1, 3, 5]}, r"`rating_range: \[1, 3, 5\]` must be \[lowest, highest\]"),
        (
            {"train_neg_sample_args": {"distribution": "uniform"}},
            r"`train_neg_sample_args` samples rows without a rating",
        ),
    ],
)
def test_metrics_and_task_must_fit(given: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert config(**given)["valid_metric"] == given["valid_metric"]
        return
    with pytest.raises(ConfigError, match=message):
        config(**given)


def test_a_task_that_the_model_cannot_do() -> None:
    with pytest.raises(
        ConfigError, match=r"Popularity does ranking only\. Give --eval_task=ranking"
    ):
        config(model="Popularity")
    assert config("--eval_task=ranking", model="Popularity")["eval_task"] == "ranking"


def test_recboles_own_models_know_no_preset() -> None:
    with pytest.raises(ConfigError, match=r"`preset: paper` is for this package's models; FM is"):
        config("--preset=paper", model="FM")
    assert config("--preset=default", model="FM")["train_domains"] == "both"


# Device, arguments, environment


def test_a_gpu_that_is_not_there() -> None:
    found = torch.cuda.device_count()
    message = rf"^command line: `gpu_id: {found}`, but torch .* sees {found} CUDA device\(s\)\. "
    with pytest.raises(ConfigError, match=message):
        config(f"--gpu_id={found}")
    assert config()["device"].type == ("cuda" if found else "cpu")
    assert config(f"--gpu_id={found}", "--use_gpu=False")["device"] == torch.device("cpu")


@pytest.mark.gpu
def test_a_gpu_that_is_there() -> None:
    assert config("--gpu_id=0")["device"] == torch.device("cuda", 0)
    assert config("--gpu_id=0", "--use_gpu=False")["device"] == torch.device("cpu")


def test_reads_no_arguments_but_those_handed_over_and_leaves_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--epochs=3", "--no_such_key=1", "bare"])
    before = dict(os.environ)
    assert config()["epochs"] == 20
    assert config("--epochs=4", "--use_gpu=False")["epochs"] == 4
    assert dict(os.environ) == before


def test_model_name_of_follows_the_precedence(tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / "a.yaml", "model: A"),
        write_lines(tmp_path / "b.yaml", "model: B"),
        write_lines(tmp_path / "c.yaml", "epochs: 1"),
    ]
    assert model_name_of(None, None, None, []) is None
    assert model_name_of(None, files, None, ["--epochs=1"]) == "B"
    assert model_name_of(None, files, {"model": "C"}, []) == "C"
    assert model_name_of(None, files, {"model": "C"}, ["--model=D"]) == "D"
    assert model_name_of("E", files, {"model": "C"}, ["--model=D"]) == "E"


# Property files and code


def _sources(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def _keys(*files: Path) -> set[str]:
    return {key for file in files for key in read_properties(file)[1]}


def _subscripts(folder: Path) -> Iterator[tuple[str, str]]:
    """Each literal key of `config[...]` or `something.config[...]`, with its file."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                name = getattr(node.value, "id", getattr(node.value, "attr", ""))
                if name == "config" and isinstance(node.slice.value, str):
                    yield node.slice.value, path.name


MODEL_FILES = ("model", "shared", "preset")


def test_every_key_is_read_somewhere() -> None:
    def quoted(folder: Path) -> set[str]:
        return set(re.findall(r"""["'](\w+)["']""", _sources(folder)))

    stages = set(re.findall(r'(?:pretraining|loader|max_epochs)\(\s*"(\w+)"', _sources(PACKAGE)))
    of_stages = {f"{stage}_{key}" for stage in stages for key in ("epochs", "batch_size")}
    of_models = _keys(*(f for kind in MODEL_FILES for f in PROPERTIES.glob(f"{kind}/*.yaml")))
    others = _keys(*PROPERTIES.glob("*.yaml"), *PROPERTIES.glob("eval_task/*.yaml"))
    others -= _keys(PROPERTIES / "recbole_bounds.yaml")  # types
    assert len(of_models) > 20 < len(others)
    assert of_models - of_stages - quoted(PACKAGE) == set()
    assert others - quoted(PACKAGE) - quoted(RECBOLE) - {"config_files"} == set()


def test_every_key_that_code_reads_exists() -> None:
    known = _keys(*PROPERTIES.rglob("*.yaml"), RECBOLE_PROPERTIES / "overall.yaml")
    known |= _keys(RECBOLE_PROPERTIES / "dataset" / "sample.yaml")
    of_recboles_models = _keys(*(RECBOLE_PROPERTIES / "model").glob("*.yaml"))
    derived = {
        *("model", "dataset", "device", "single_spec", "local_rank", "MODEL_TYPE", "eval_type"),
        "data_fingerprint",
        "feature_fingerprint",
        "lower_fingerprint",
    }
    read = list(_subscripts(PACKAGE))
    assert len(read) > 60
    unknown = {(key, file) for key, file in read if key not in known | derived}
    # One module looks after RecBole's own models.
    assert unknown - {(key, "recbole_models.py") for key in of_recboles_models} == set()


MODELS = ["BPR", "DeepFM", *find_models()]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_reads_no_key_that_its_config_lacks(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole's Config gives None for a missing key, so a slip would pass unseen."""
    from recbole_cdr_mm.quick_start import run_recbole_mm

    missing: Counter[str] = Counter()
    get = Config.__getitem__

    def recording(self: Config, key: str) -> Any:
        if key not in self and sys._getframe(1).f_globals["__name__"].startswith("recbole_cdr_mm"):
            missing[key] += 1
        return get(self, key)

    write_small_pair(tmp_path / "dataset")
    monkeypatch.setattr(Config, "__getitem__", recording)
    tasks = getattr(find_models().get(model), "eval_tasks", ("rating", "ranking"))
    quick = {"epochs": 1, "show_progress": False, "state": "ERROR", "use_gpu": False}
    for task in {"BPR": ["ranking"], "DeepFM": ["rating"]}.get(model, tasks):
        result = run_recbole_mm(
            model, "pair", config_dict={**quick, "eval_task": task}, saved=False
        )
        assert result["test"]
    # RecBole's own models choose their domains; ours read both.
    assert set(missing) <= {"train_domains"}


def test_the_paper_preset_is_what_the_models_mark() -> None:
    paper = read_properties(PROPERTIES / "preset" / "paper.yaml")[0]
    paper.pop("per_dataset")
    marked: set[str] = set()
    for model in find_models():
        values, keys = model_properties(model)
        for name, key in keys.items():
            mark = re.search(r"\(P\) (\S+)$", key.meaning)
            if mark:
                marked.add(name)
                assert paper.get(name, "absent") == yaml.safe_load(mark[1]), f"{model}: {name}"
            else:
                assert paper.get(name, values[name]) == values[name], f"{model}: {name} has no (P)"
    assert {"embedding_size", "select_epoch"} <= marked
    explained = _keys(*PROPERTIES.glob("*/*.yaml"), PROPERTIES / "overall.yaml")
    assert set(paper) - explained == set()
    assert set(read_properties(PROPERTIES / "preset" / "default.yaml")[0]) == set()


# Keys of RecBole's that do nothing on a pair


WITHOUT_EFFECT = read_properties(PROPERTIES / "without_effect.yaml")[0]


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_key_without_effect_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"`{name}` has no effect on a pair: {WITHOUT_EFFECT[name]}")
    ):
        config(f"--{name}=9")


def test_a_key_without_effect_may_have_its_default() -> None:
    assert config("--normalize_all=None", save_dataset=False)["save_dataset"] is False


# Bounds of RecBole's keys


@pytest.mark.parametrize(
    ("model", "given", "bound"),
    [
        ("LightGCN", "--n_layers=-1", "`n_layers: -1` must be (int >= 0)"),
        ("BPR", "--embedding_size=0", "`embedding_size: 0` must be (int > 0)"),
        (
            "NeuMF",
            "--mlp_hidden_size=[64,0]",
            "`mlp_hidden_size: [64,0]` must be (list of int > 0)",
        ),
        ("DeepFM", "--dropout_prob=1.0", "`dropout_prob: 1.0` must be (0 <= float < 1)"),
        ("EASE", "--reg_weight=-250", "`reg_weight: -250` must be (float >= 0)"),
    ],
)
def test_values_that_recboles_models_cannot_mean(model: str, given: str, bound: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(bound)):
        config(given, model=model)


def test_each_bound_is_of_some_model_of_recboles_whose_default_keeps_it() -> None:
    kept = set()
    for model in RECBOLE_MODELS:
        file = RECBOLE_PROPERTIES / "model" / f"{model}.yaml"
        for name, key in read_properties(file)[1].items() if file.exists() else ():
            if name in recbole_bounds() and with_bounds(key).type_text == recbole_bounds()[name]:
                kept.add(name)
    assert kept == set(recbole_bounds())


# What would run and mean nothing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_dataset": "movie"}, "source and target domain are both `movie`"),
        ({"model": "TargetMF", "loss_type": "BPR"}, "`loss_type: BPR` orders items"),
        ({"model": "PTUPCDR", "loss_type": "CE"}, "`loss_type: CE` orders items"),
        ({"model": "CMF", "loss_type": "XE"}, r"must be \(MSE \| BPR \| CE \| null\)"),
        ({"model": "CMF", "ce_negatives": 0}, r"must be \(int > 0 or null\)"),
        ({"model": "FM", "metrics": ["AUC"]}, "`AUC` is for labels of 0 and 1"),
        ({"LABEL_FIELD": "rating"}, "must be five different names"),
        ({"encoding": "utf-99"}, "`encoding: utf-99` is none that Python has"),
        ({"gpu_id": "0,1", "use_gpu": True}, "names 2 GPU\\(s\\) for 1 process"),
        ({"shuffle": False}, "`shuffle` is for RecBole's own models"),
        ({"learning_rate": -1}, r"must be \(float > 0\)"),
        ({"model": "FM", "train_batch_size": 0}, r"must be \(int > 0\)"),
        ({"learner": "adamm"}, r"must be \(sparse_adam \| adam \| adamw"),
    ],
)
def test_what_would_mean_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**given)


def test_what_differs_from_it_in_one_thing_is_taken() -> None:
    for loss_type in ("MSE", "BPR", "CE"):
        taken = config(model="TargetMF", loss_type=loss_type, eval_task="ranking")
        assert taken["loss_type"] == loss_type
    assert (
        config(model="FM", metrics=["MAE"], valid_metric="MAE", shuffle=False)["shuffle"] is False
    )


def test_the_batch_size_of_the_user_wins_over_the_preset() -> None:
    assert config(preset="paper")["source_batch_size"] == 256
    assert config("--train_batch_size=7", preset="paper")["source_batch_size"] is None


def test_the_batch_size_of_the_user_does_not_grow() -> None:
    assert config()["largest_batch_size"] == 32768
    assert config("--train_batch_size=7")["largest_batch_size"] is None
    assert config("--train_batch_size=7", "--largest_batch_size=9")["largest_batch_size"] == 9


def test_a_pair_cannot_move_itself(pair_yaml: Path) -> None:
    write_lines(pair_yaml, *PAIR, "data_path: elsewhere")
    with pytest.raises(
        ConfigError, match=r"pair.yaml, line 3: `data_path` says where this file is"
    ):
        config()
