"""Each mistake of a user ends in one clear line, and beside it the good twin runs.

All go through the command line. What is wrong with a checkpoint is in test_checkpoint.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_pairs import edit_line, write_lines, write_small_pair

from dataset_tools.synthetic import make_pair, write_planted_features
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.quick_start import main

QUICK = ("--show_progress=False", "--epochs=1", "--use_gpu=False", "--result_json=out.json")
MOVIE, CD = Path("dataset/pair_movie/pair_movie"), Path("dataset/pair_cd/pair_cd")
META = ("--model=MetaMMCDR",)


def inter(domain: Path) -> Path:
    return domain.with_suffix(".inter")


def items(domain: Path) -> Path:
    return domain.with_suffix(".item")


def replace(path: Path, pattern: str, by: str) -> None:
    text = path.read_text(encoding="utf-8")
    changed = re.sub(pattern, by, text, flags=re.MULTILINE)
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def run(*arguments: str) -> int:
    """The command line; what is given twice stands for the default."""
    standing = ("--model=GlobalMean", "--dataset=pair", "--state=ERROR", *QUICK)
    given = {a.partition("=")[0]: a for a in standing}
    given |= {a.partition("=")[0]: a for a in arguments}
    return main(list(given.values()))


@pytest.fixture(autouse=True)
def data() -> None:
    write_small_pair(Path("dataset"))


def nothing() -> None:
    """Leave everything as it is."""


@dataclass(frozen=True)
class Mistake:
    """What to do to the files and say on the command line, and the same done right."""

    error: str
    message: str
    bad: Callable[[], object] = nothing
    good: Callable[[], object] = nothing
    with_: tuple[str, ...] = ()
    bad_args: tuple[str, ...] = ()
    good_args: tuple[str, ...] = ()


def drop_texts(domain: Path) -> None:
    """Take title and text from all items."""
    replace(items(domain), r"^([mc]\d+)\t.*$", r"\1\t\t")


def third_rating(text: str) -> None:
    """Replace the rating in line 3, and leave its user, item and time."""
    replace(inter(CD), r"\A(.*\n.*\n\S+\t\S+\t)[^\t]+", rf"\g<1>{text}")


def add_column(domain: Path) -> None:
    """Add a column that nobody asks for."""
    header, *lines = inter(domain).read_text().splitlines()
    write_lines(
        inter(domain), f"{header}\tnote:token_seq", *(f"{line}\tgood one" for line in lines)
    )


MISTAKES = {
    "missing data set": Mistake(
        "DataFormatError",
        r"The domain `pair_cd` of the pair `pair` is missing: there is no dataset/pair_cd/pair_cd\."
        r"inter\. Give the folder .* or make it with: python -m dataset_tools amazon .*"
        r"--dataset=pair_cd --data_path=dataset and then: python -m dataset_tools text .*$",
        bad=lambda: inter(CD).rename("elsewhere"),
    ),
    "missing demo": Mistake(
        "DataFormatError",
        r"or make it with: python -m dataset_tools synthetic --dataset=demo --data_path=dataset "
        r"and then: python -m dataset_tools text --data_path=dataset --dataset=demo "
        r"--encoder=minilm$",
        good=lambda: write_small_pair(Path("dataset"), "demo"),
        with_=("--dataset=demo",),
    ),
    "missing packaged pair": Mistake(
        "DataFormatError",
        r"or make it with: python -m dataset_tools amazon-tasks --tasks=movie_cd --raw=DIR "
        r"--data_path=dataset and then: python -m dataset_tools text --data_path=dataset "
        r"--dataset=movie_cd --encoder=minilm$",
        bad_args=("--dataset=movie_cd",),
    ),
    "unknown pair": Mistake(
        "ConfigError",
        r"`piar` is no pair: `source_dataset` is not set\. .*looked for dataset/piar/piar\.yaml, ",
        bad_args=("--dataset=piar",),
    ),
    "missing column": Mistake(
        "DataFormatError",
        r"pair_cd\.inter, line 1: there is no column `rating`, only .*Did you mean `ratings`\?",
        bad=lambda: edit_line(inter(CD), 1, "rating:", "ratings:"),
        good=lambda: add_column(CD),  # one too many is fine
    ),
    "ragged line": Mistake(
        "DataFormatError",
        r"pair_movie\.inter, line 5: has 3 fields, but the header has 4\.",
        bad=lambda: edit_line(inter(MOVIE), 5, "\tm", " m"),
    ),
    "rating that is no number": Mistake(
        "DataFormatError",
        r"pair_cd\.inter, line 3, field `rating:float`: 'five' is no number\.",
        bad=lambda: third_rating("five"),
        good=lambda: third_rating("4.5"),
    ),
    "rating outside the range": Mistake(
        "DataFormatError",
        r"pair_cd\.inter, line 3, field `rating:float`: 7 is outside 1 to 5\. Set `rating_range`",
        bad=lambda: third_rating("7"),
        good_args=("--rating_range=[1, 7]",),
    ),
    "no overlapped users": Mistake(
        "DataFormatError",
        r"No user is in both domains \(50 source users such as `su\d+`, 50 target users such as `u",
        bad=lambda: replace(inter(MOVIE), r"^u0", "su0"),
        good=lambda: [replace(inter(domain), r"^u0", "su0") for domain in (MOVIE, CD)],
    ),
    "too few users for the ratio": Mistake(
        "ConfigError",
        r"test_user_ratio 0\.01 and valid_user_ratio 0\.1 leave no test user of 40 overlapped",
        bad_args=("--test_user_ratio=0.01",),
        good_args=("--test_user_ratio=0.02",),
    ),
    "too few users for validation": Mistake(
        "ConfigError",
        r"leave no validation user of 40 overlapped users",
        bad_args=("--valid_user_ratio=0.01",),
        good_args=("--valid_user_ratio=0",),
    ),
    "no positives": Mistake(
        "DataFormatError",
        r"The source domain has no rating of positive_threshold 5\.5 or more\. Lower it",
        with_=("--model=Popularity", "--eval_task=ranking"),
        bad_args=("--positive_threshold=5.5",),
        good_args=("--positive_threshold=5",),
    ),
    "no item has a text": Mistake(
        "DataFormatError",
        r"dataset/pair_movie/pair_movie\.item gives no item a title or text, .*--item_features=id",
        bad=lambda: drop_texts(MOVIE),
        good=lambda: drop_texts(MOVIE),
        with_=META,
        good_args=("--item_features=id",),
    ),
    "no texts in the source domain, and no features in the target's": Mistake(
        "DataFormatError",
        r"pair_movie\.item gives no item a title or text \(there is no such file\), so .*=id",
        bad=lambda: [items(MOVIE).unlink(), CD.with_suffix(".text.npy").unlink()],
        with_=META,
    ),
    "features of other texts": Mistake(
        "DataFormatError",
        r"pair_movie\.text\.npy was made from other texts than those of pair_movie\.item: the items"
        r" are the same, their texts are not\. Make it again with: python -m dataset_tools text",
        bad=lambda: replace(items(MOVIE), r" and ", " or "),
        good=lambda: replace(items(MOVIE), r" and ", "  and "),  # blanks are no other text
        with_=META,
    ),
    "features of other items": Mistake(
        "DataFormatError",
        r"\d+ of its \d+ items are not there with a text, and \d+ of \d+ items with a text are",
        bad=lambda: write_planted_features(
            make_pair("demo", n_source_items=40, n_target_items=40), Path("dataset"), "pair", 8
        ),
        with_=META,
    ),
    "missing features": Mistake(
        "DataFormatError",
        r"there is no pair_movie\.text\.npy\. .*Make the text features with: python -m"
        r" dataset_tools text --data_path=dataset --dataset=pair --encoder=minilm$",
        bad=lambda: MOVIE.with_suffix(".text.npy").unlink(),
        with_=META,
    ),
    "no text for the base models": Mistake(
        "DataFormatError",
        r"dataset/pair_cd/pair_cd\.item gives no item a title or text, .*or run with"
        r" --pretrain_item_features=id\.$",
        bad=lambda: drop_texts(CD),
        good=lambda: drop_texts(CD),
        with_=("--model=EMCDR",),
        bad_args=("--pretrain_item_features=both",),
        good_args=("--pretrain_item_features=id",),
    ),
    "images where there are none": Mistake(
        "DataFormatError",
        r"there is no pair_movie\.image\.npy .*Make the image features with: python -m"
        r" dataset_tools image --data_path=dataset --dataset=pair_movie --images=DIR$",
        with_=META,
        bad_args=("--item_features=image",),
        good_args=("--item_features=text",),
    ),
    "texts of target items that nothing trains": Mistake(
        "ConfigError",
        r"`bridge_loss: mapping` compares users' vectors .*Give --target_item_features=id, or",
        with_=(*META, "--target_item_features=text"),
        bad_args=("--bridge_loss=mapping",),
        good_args=("--bridge_loss=task",),
    ),
    "a base model that is none": Mistake(
        "ConfigError",
        r"command line: `base_model: DNN` must be \(MF \| GMF\): dot product, or",
        with_=("--model=EMCDR",),
        bad_args=("--base_model=DNN",),
        good_args=("--base_model=GMF",),
    ),
    "an option of another model": Mistake(
        "ConfigError",
        r"command line: unknown key `item_features`\.",
        bad_args=("--model=PTUPCDR", "--item_features=id"),
        good_args=("--model=MetaMMCDR", "--item_features=id"),
    ),
    "a metric space that shall predict ratings": Mistake(
        "ConfigError",
        r"`sscdr_form: metric` orders items by distance and predicts no ratings\. Give --eval_",
        with_=("--model=SSCDR", "--sscdr_form=metric"),
        good_args=("--eval_task=ranking",),
    ),
    "more ratings revealed than set aside": Mistake(
        "ConfigError",
        r"`few_shot: 4` reveals more ratings of a user than `few_shot_pool: 3` sets aside\. ",
        with_=("--model=PTUPCDR", "--few_shot_pool=3"),
        bad_args=("--few_shot=4",),
        good_args=("--few_shot=3",),
    ),
    "more ratings set aside than the users have": Mistake(
        "ConfigError",
        r"`few_shot_pool: 80` leaves no rating to measure: no test user has more than \d+ target",
        with_=("--model=PTUPCDR", "--few_shot=1"),
        bad_args=("--few_shot_pool=80",),
        good_args=("--few_shot_pool=3",),
    ),
    "a negative number of revealed ratings": Mistake(
        "ConfigError",
        r"command line: `few_shot: -1` must be \(int >= 0 or null\)",
        with_=("--few_shot_pool=3",),
        bad_args=("--few_shot=-1",),
        good_args=("--few_shot=0",),
    ),
    "a start that is none": Mistake(
        "ConfigError",
        r"`few_shot_start: zero` must be \(transformed \| random \| mean \| target\)",
        with_=("--model=EMCDR", "--few_shot=1", "--few_shot_pool=3"),
        bad_args=("--few_shot_start=zero",),
        good_args=("--few_shot_start=mean",),
    ),
    "misspelt key": Mistake(
        "ConfigError",
        r"command line: unknown key `lerning_rate`\. Did you mean `learning_rate`\?",
        bad_args=("--lerning_rate=0.1",),
        good_args=("--learning_rate=0.1",),
    ),
    "misspelt model": Mistake(
        "ConfigError",
        r"There is no model `globalmean`, neither here nor in RecBole\. Did you mean `GlobalM",
        bad_args=("--model=globalmean",),
    ),
    "code for a value": Mistake(
        "ConfigError",
        r"command line: `epochs: __import__\('os'\)\.getpid\(\)` must be \(int",
        bad_args=("--epochs=__import__('os').getpid()",),
    ),
    "misspelt key in a file": Mistake(
        "ConfigError",
        r"my_run\.yaml, line 2: unknown key `split_sed`\. Did you mean `split_seed`\?",
        bad=lambda: write_lines(Path("my_run.yaml"), "seed: 1", "split_sed: 2"),
        good=lambda: write_lines(Path("my_run.yaml"), "seed: 1", "split_seed: 2"),
        with_=("--config_files=my_run.yaml",),
    ),
    "missing file": Mistake(
        "ConfigError",
        r"my_run\.yaml: No such file or directory\. Check --config_files\.",
        good=lambda: write_lines(Path("my_run.yaml"), "seed: 1"),
        with_=("--config_files=my_run.yaml",),
    ),
    "missing GPU": Mistake(
        "ConfigError",
        rf"command line: `gpu_id: {torch.cuda.device_count()}`, but torch .* sees \d+ CUDA device",
        with_=(f"--gpu_id={torch.cuda.device_count()}",),
        bad_args=("--use_gpu=True",),
        good_args=("--use_gpu=False",),
    ),
    "a device for the result": Mistake(
        "ConfigError",
        r"pipe: is a device or a pipe\. Name a file\.",
        bad=lambda: os.mkfifo("pipe"),
        good=lambda: write_lines(Path("pipe"), "what another run left"),
        with_=("--save_predictions=pipe",),
    ),
    "a result that cannot be written": Mistake(
        "ConfigError",
        r"/proc: cannot write `out\.json` here \(.*\)\. Choose another folder",
        bad_args=("--result_json=/proc/out.json",),
    ),
    "a file in the place of the checkpoints": Mistake(
        "ConfigError",
        r"saved: cannot make this folder \(File exists\)\. Remove what is there, run in another",
        bad=lambda: write_lines(Path("saved"), "mine"),
        with_=("--checkpoint_dir=saved",),
    ),
    "no model": Mistake(
        "ConfigError",
        r"There is no model ``, neither here nor in RecBole\. The models here are BiasTransfer, ",
        bad_args=("--model=",),
    ),
    "no pair": Mistake(
        "ConfigError", r"`` is no pair: `source_dataset` is not set\.", bad_args=("--dataset=",)
    ),
    "a path in the place of the pair": Mistake(
        "ConfigError",
        r"`dataset: dataset/pair` is a path\. Give the pair's name, and the folder that holds it",
        bad_args=("--dataset=dataset/pair",),
    ),
    "a key that is there twice": Mistake(
        "ConfigError",
        r"my_run\.yaml, line 3: `seed` stands in line 1 already\. Keep one of them\.",
        bad=lambda: write_lines(Path("my_run.yaml"), "seed: 1", "split_seed: 2", "seed: 3"),
        good=lambda: write_lines(Path("my_run.yaml"), "seed: 1", "split_seed: 2"),
        with_=("--config_files=my_run.yaml",),
    ),
    "a day that there is not": Mistake(
        "ConfigError",
        r"my_run\.yaml: is no YAML: month must be in 1\.\.12",
        bad=lambda: write_lines(Path("my_run.yaml"), "seed: 2020-13-45"),
        good=lambda: write_lines(Path("my_run.yaml"), "seed: 2020"),
        with_=("--config_files=my_run.yaml",),
    ),
    "a filter that is none": Mistake(
        "ConfigError",
        r"`user_inter_num_interval: 5` is no interval\. Give one of the form \[5,inf\) or \(0,3\]",
        bad_args=("--user_inter_num_interval=5",),
        good_args=("--user_inter_num_interval=[5,inf)",),
    ),
    "a filter that keeps nothing": Mistake(
        "ConfigError",
        r"`item_inter_num_interval: \[9,2\]` is no interval",
        bad_args=("--item_inter_num_interval=[9,2]",),
        good_args=("--item_inter_num_interval=[2,900]",),
    ),
    "two filters in the place of one": Mistake(
        "ConfigError",
        r"`user_inter_num_interval: \[1,2\];\[3,90\]` must be one interval",
        bad_args=("--user_inter_num_interval=[1,2];[3,90]",),
        good_args=("--user_inter_num_interval=[1,90]",),
    ),
    "a filter of values that is none": Mistake(
        "ConfigError",
        r"`val_interval` of `rating: 3` is no interval",
        bad_args=("--val_interval={'rating': 3}",),
        good_args=("--val_interval={'rating': '[1,2];(3,5]'}",),
    ),
    "a misspelt column of times": Mistake(
        "ConfigError",
        r"`TIME_FIELD: timestmp`: neither pair_movie nor pair_cd has such a column\.",
        bad_args=("--TIME_FIELD=timestmp",),
        good_args=("--TIME_FIELD=timestamp",),
    ),
    "an encoding of no text": Mistake(
        "ConfigError",
        r"`encoding: rot13` is none that Python has\.",
        bad_args=("--encoding=rot13",),
        good_args=("--encoding=latin-1",),
    ),
    "an encoding of other files": Mistake(
        "DataFormatError",
        r"pair_movie\.item, line 1: is not utf-16\. Set `encoding` in the config",
        bad_args=("--encoding=utf-16",),
    ),
    "no separator": Mistake(
        "ConfigError", r"`field_separator` is empty\.", bad_args=("--field_separator=",)
    ),
    "a library that is not there": Mistake(
        "ConfigError",
        r"`log_wandb: True` needs the library wandb, which is not installed\.",
        bad_args=("--log_wandb=True",),
    ),
    "another argument of gradient clipping": Mistake(
        "ConfigError",
        r"`clip_grad_norm: \{'max_norms': 5\}` must hold the arguments of torch's clip_grad_norm_,",
        with_=("--model=EMCDR", "--learner=adam"),
        bad_args=("--clip_grad_norm={'max_norms': 5}",),
        good_args=("--clip_grad_norm={'max_norm': 5}",),
    ),
    "another argument of negative sampling": Mistake(
        "ConfigError",
        r"`train_neg_sample_args` has no `sample_nun`\. Did you mean `sample_num`\? It takes dist",
        with_=("--model=BPR", "--eval_task=ranking"),
        bad_args=("--train_neg_sample_args={'sample_nun': 2}",),
        good_args=("--train_neg_sample_args={'sample_num': 2}",),
    ),
    "no negatives": Mistake(
        "ConfigError",
        r"`train_neg_sample_args`: `sample_num: 0` is not possible\.",
        with_=("--model=BPR", "--eval_task=ranking"),
        bad_args=("--train_neg_sample_args={'sample_num': 0}",),
    ),
    "no candidates of dynamic negatives": Mistake(
        "ConfigError",
        r"`dynamic: True` chooses among candidates\. Give a `candidate_num` above 0\.",
        with_=("--model=BPR", "--eval_task=ranking"),
        bad_args=("--train_neg_sample_args={'dynamic': True}",),
        good_args=("--train_neg_sample_args={'dynamic': True, 'candidate_num': 2}",),
    ),
    "a negative number of workers": Mistake(
        "ConfigError",
        r"command line: `worker: -1` must be \(int >= 0\)",
        with_=("--model=BPR", "--eval_task=ranking"),
        bad_args=("--worker=-1",),
        good_args=("--worker=0",),
    ),
    "a size that RecBole's model cannot have": Mistake(
        "ConfigError",
        r"GCMC refuses its configuration: .*negative dimension.*\. Correct the key\.",
        with_=("--model=GCMC", "--eval_task=ranking"),
        bad_args=("--class_num=-1",),
        good_args=("--class_num=2",),
    ),
    "layers that RecBole's model cannot be without": Mistake(
        "ConfigError",
        r"NeuMF refuses its configuration: list index out of range\. Correct the key\.",
        with_=("--model=NeuMF", "--eval_task=ranking"),
        bad_args=("--mlp_hidden_size=[]",),
        good_args=("--mlp_hidden_size=[4]",),
    ),
    "more folds than users": Mistake(
        "ConfigError",
        r"simulation_folds 50 needs as many overlapped training users; there are 29\. Lower it",
        with_=META,
        bad_args=("--simulation_folds=50",),
        good_args=("--simulation_folds=29",),
    ),
    "missing folder of the result": Mistake(
        "ConfigError",
        r"`result_json: results/out\.json`: there is no folder results\. Make it, or name another",
        bad_args=("--result_json=results/out.json",),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_ends_in_one_line(mistake: Mistake, capsys: pytest.CaptureFixture[str]) -> None:
    mistake.bad()
    before = set(Path().rglob("*"))
    assert run(*mistake.with_, *mistake.bad_args) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(f"{mistake.error}: ")
    assert re.search(mistake.message, line), line
    assert out == ""
    left = {path for path in set(Path().rglob("*")) - before if path.is_file()}
    # Only RecBole's log may stay: of a run that began, it says with which values.
    assert {path for path in left if path.parts[0] != "log"} == set()


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_its_good_twin_runs(mistake: Mistake, capsys: pytest.CaptureFixture[str]) -> None:
    mistake.good()
    assert run(*mistake.with_, *mistake.good_args) == 0, capsys.readouterr().err
    assert json.loads(Path("out.json").read_text())["test"]


def test_the_real_command_line_says_no_more() -> None:
    """With RecBole's own logging, which writes to stderr."""
    code = "import sys; from recbole_cdr_mm.quick_start import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--model=GlobalMean", "--dataset=pair", *QUICK]
    inter(CD).rename("elsewhere")
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert re.fullmatch(r"DataFormatError: The domain `pair_cd` .*\n", bad.stderr), bad.stderr
    assert not Path("out.json").exists()


# What looks like a mistake and is none


@pytest.mark.parametrize("task", ["rating", "ranking"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_users_without_a_positive_in_the_source_domain(task: str, preset: str) -> None:
    def load() -> PairDataset:
        return PairDataset(MMConfig("GlobalMean", "pair"))

    dataset = load()
    cold = [*dataset.split.test_users, *dataset.split.valid_users, dataset.split.train.user[0]]
    for user in dataset.pair.user_tokens[cold]:
        replace(inter(MOVIE), rf"^({user}\t\S+)\t\S+", r"\1\t1")
    histories = load().histories(positive_only=True)
    assert histories.start.diff()[cold].tolist() == [0] * len(cold)
    assert run(*META, f"--eval_task={task}", f"--preset={preset}") == 0
    result = json.loads(Path("out.json").read_text())
    assert all(0 <= value < 5 for value in result["test"].values())


def test_no_validation_user_has_a_positive(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = PairDataset(MMConfig("GlobalMean", "pair"))
    for user in dataset.pair.user_tokens[dataset.split.valid_users]:
        replace(inter(CD), rf"^({user}\t\S+)\t\S+", r"\1\t1")
    ranking = ("--model=Popularity", "--eval_task=ranking")
    assert run(*ranking) == 2
    assert (
        "The validation part has no rating of positive_threshold 4 or more."
        in capsys.readouterr().err
    )
    assert run(*ranking, "--positive_threshold=1") == run(*ranking, "--valid_user_ratio=0") == 0


@pytest.mark.parametrize("model", ["PTUPCDR", "EMCDR", "SSCDR"])
def test_no_overlapped_training_user_has_a_positive(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = PairDataset(MMConfig("GlobalMean", "pair")).pair
    split = PairDataset(MMConfig("GlobalMean", "pair")).split
    training = set(pair.overlapped_users) - {*split.test_users, *split.valid_users}
    for user in pair.user_tokens[sorted(training)]:
        replace(inter(CD), rf"^({user}\t\S+)\t\S+", r"\1\t1")
    ranking = (f"--model={model}", "--eval_task=ranking")
    assert run(*ranking) == 2
    text = "No overlapped training user has a target rating of positive_threshold 4 or more"
    assert text in capsys.readouterr().err
    assert run(*ranking, "--positive_threshold=1") == 0


def test_items_without_text_are_counted_and_run(caplog: pytest.LogCaptureFixture) -> None:
    lines = items(MOVIE).read_text().splitlines()[1:]
    without = sum(not line.split("\t")[2] for line in lines)
    assert 0 < without < len(lines)
    assert run(*META, "--state=INFO") == 0
    message = f"pair_movie: {without} of {len(lines)} items have no text; they share one learned"
    assert message in caplog.text
    with_text = json.loads(Path("out.json").read_text())["data"]["items_with_text"]
    assert with_text["source"] == len(lines) - without
