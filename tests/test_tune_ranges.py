"""Range files: what each kind of range means, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from small_pairs import write_lines

from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.property_files import PROPERTIES
from recbole_cdr_mm.schema import Key
from recbole_cdr_mm.tune.ranges import Range, check_ranges, read_ranges

PACKAGED = sorted((PROPERTIES / "tune").glob("*.hyper"))
WITHOUT_HYPERPARAMETERS = {"GlobalMean", "Popularity"}


def only_range(tmp_path: Path, line: str) -> Range:
    (found,) = read_ranges(write_lines(tmp_path / "a.hyper", line)).values()
    return found


def draw(found: Range, n: int = 300) -> list[Any]:
    """Values as a search gets them at random."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask({"x": found.distribution}) for _ in range(n)]
    return [found.value(trial.params["x"]) for trial in trials]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestKinds:
    def test_choice(self, tmp_path: Path) -> None:
        found = only_range(tmp_path, "key choice ['text', 2, 0.5, None, True, [64, 32]]")
        values = ["text", 2, 0.5, None, True, [64, 32]]
        assert found.ends == values
        drawn = draw(found)
        assert all(value in drawn for value in values)
        assert all(value in values for value in drawn)

    def test_choice_of_lists_as_recboles_files_have_them(self, tmp_path: Path) -> None:
        found = only_range(tmp_path, "mlp_hidden_size choice ['[64, 64, 64]','[128, 128]']")
        assert found.ends == [[64, 64, 64], [128, 128]]

    def test_uniform(self, tmp_path: Path) -> None:
        found = only_range(tmp_path, "key uniform -1.5, 4")
        assert found.ends == [-1.5, 4]
        drawn = draw(found)
        assert all(-1.5 <= value <= 4 for value in drawn)
        assert np.mean(drawn) == pytest.approx(1.25, abs=0.3)

    def test_bounds_of_log_uniform_are_exponents_of_e(self, tmp_path: Path) -> None:
        found = only_range(tmp_path, "learning_rate loguniform -8, 0")
        assert found.ends == pytest.approx([math.exp(-8), 1.0])
        logs = np.log(draw(found))
        assert ((logs >= -8 - 1e-9) & (logs <= 1e-9)).all()
        assert np.mean(logs) == pytest.approx(-4, abs=0.4)  # as many below e^-4 as above

    @pytest.mark.parametrize(
        ("text", "multiples"),
        [
            ("5,40,5", [5, 10, 15, 20, 25, 30, 35, 40]),
            ("1,9,4", [4, 8]),
            ("0,3,1", [0, 1, 2, 3]),
            ("-3,3,3", [-3, 0, 3]),
        ],
    )
    def test_grid_of_whole_numbers(self, tmp_path: Path, text: str, multiples: list[int]) -> None:
        found = only_range(tmp_path, f"key quniform {text}")
        drawn = draw(found)
        assert sorted(set(drawn)) == multiples
        assert all(type(value) is int for value in drawn)
        assert found.ends == [multiples[0], multiples[-1]]

    def test_grid_of_fractions(self, tmp_path: Path) -> None:
        found = only_range(tmp_path, "key quniform 0.05,0.3,0.1")
        assert sorted(set(draw(found))) == pytest.approx([0.1, 0.2, 0.3])

    @pytest.mark.parametrize(
        ("line", "inside", "outside"),
        [
            ("key choice [1, 0.5, None, 'a']", [1, 1.0, 0.5, None, "a"], [True, "b", 2]),
            ("key choice [True, [1]]", [True, [1]], [1, [2]]),
            ("key uniform 0,2", [0, 1.5, 2], [-0.1, 2.1, None, True, "1"]),
            ("key quniform 2,6,2", [2, 4.0, 6], [3, 8, 0, None]),
            ("key quniform 0.1,0.5,0.1", [0.1, 0.3, 0.5], [0.25, 0.6]),
            ("key loguniform 0,1", [1, 2, math.e], [0.9, 2.8]),
        ],
    )
    def test_what_lies_inside(
        self, tmp_path: Path, line: str, inside: list[Any], outside: list[Any]
    ) -> None:
        found = only_range(tmp_path, line)
        for value in inside:
            parameter = found.parameter(value)
            assert found.value(parameter) == value
            study = optuna.create_study()
            study.enqueue_trial({"x": parameter})  # a warning, if Optuna does not think so
            assert study.ask({"x": found.distribution}).params == {"x": parameter}
        assert [value for value in outside if found.parameter(value) is not None] == []


def test_comments_and_empty_lines(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.hyper", "# all of it", "", "a uniform 0,1  # to one", "  b\tchoice\t[1,  2]"
    )
    ranges = read_ranges(path)
    assert list(ranges) == ["a", "b"]
    assert (ranges["a"].text, ranges["a"].origin) == ("uniform 0,1", "a.hyper, line 3")
    assert ranges["b"].ends == [1, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("key uniform", "line 1: `key uniform` is not of the form `key kind range`"),
        ("key unifrom 0,1", "there is no kind of range `unifrom`. Did you mean `uniform`?"),
        ("key uniform 0", "`uniform 0` is not of the form `uniform low,high`"),
        ("key uniform 0,1,2", "`uniform 0,1,2` is not of the form `uniform low,high`"),
        ("key uniform a,b", "`uniform a,b` is not of the form"),
        ("key uniform 0,inf", "`uniform 0,inf` is not of the form"),
        ("key uniform 1,0", "`uniform 1,0`: the first bound must be below the second"),
        ("key loguniform 2,2", "the first bound must be below the second"),
        ("key loguniform -9000,0", "are exponents of e, and these are out of reach"),
        ("key loguniform 0,9000", "are exponents of e, and these are out of reach"),
        ("key quniform 0,1", "`quniform 0,1` is not of the form `quniform low,high,q`"),
        ("key quniform 0,9,0", "q, the last number, must be above 0"),
        ("key quniform 1,2,5", "no multiple of 5.0 lies between them"),
        ("key choice []", "`choice []` must name the values as a list"),
        ("key choice 1", "`choice 1` must name the values as a list"),
        ("key choice [a]", "`choice [a]` must name the values as a list"),
        ("key choice [1, 1]", "`choice [1, 1]` names a value twice"),
        ("key choice __import__('os').getcwd()", "must name the values as a list"),
        ("# nothing", "holds no range, so that there is nothing to tune"),
    ],
)
def test_malformed_lines(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        only_range(tmp_path, line)
    assert "a.hyper" in str(error.value)
    assert message in str(error.value)


def test_a_key_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.hyper", "a uniform 0,1", "a uniform 0,2")
    with pytest.raises(ConfigError, match=r"a.hyper, line 2: `a` has a range already"):
        read_ranges(path)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.hyper: No such file or directory. Name"):
        read_ranges(tmp_path / "none.hyper")
    (tmp_path / "binary.hyper").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary.hyper: is no text"):
        read_ranges(tmp_path / "binary.hyper")


KEYS = {
    key.name: key
    for key in (
        Key("size", "int > 0", "vectors.", 32),
        Key("share", "0 < float < 1", "of users.", 0.5),
        Key("form", "linear | mlp", "of the map.", "linear"),
        Key("length", "int > 0 or null", "of histories.", None),
        Key("split_seed", "int >= 0", "of the split.", 2020),
    )
}


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("size quniform 8,64,8", "size uniform 8,64", "For whole numbers write `quniform low"),
        ("size quniform 8,64,8", "size loguniform 2,4", "For whole numbers write `quniform low"),
        ("size choice [8, 16]", "size choice [8, 0]", "`size: 0` must be (int > 0): vectors."),
        ("size choice [8, 16]", "sise choice [8, 16]", "Model has no key `sise`. Did you mean"),
        ("share uniform 0.1,0.9", "share uniform 0,0.9", "`share: 0.0` must be (0 < float < 1)"),
        ("share loguniform -3,-1", "share loguniform -3,1", "must be (0 < float < 1)"),
        ("form choice ['mlp']", "form choice ['mpl']", "`form: mpl` must be (linear | mlp)"),
        ("length choice [None, 5]", "length choice [None, 'all']", "must be (int > 0 or null)"),
        ("size choice [8]", "split_seed choice [1, 2]", "`split_seed` decides what is measured"),
        ("share uniform 0.1,0.2", "given uniform 0,1", "`given` is tuned, and --given sets it"),
    ],
)
def test_refuses_what_a_model_cannot_run_with(
    tmp_path: Path, good: str, bad: str, message: str
) -> None:
    keys = {**KEYS, "given": Key("given", "float", "by the user.", 0.0)}
    check_ranges("Model", [only_range(tmp_path, good)], keys, ["given"])
    with pytest.raises(ConfigError) as error:
        check_ranges("Model", [only_range(tmp_path, bad)], keys, ["given"])
    assert str(error.value).startswith("a.hyper, line 1: ")
    assert message in str(error.value)


def test_every_model_with_hyperparameters_has_a_file() -> None:
    models = {path.name.partition(".")[0] for path in PACKAGED}
    assert models == find_models().keys() - WITHOUT_HYPERPARAMETERS


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_packaged(path: Path) -> None:
    """Known keys, allowed values, and the defaults among them, so that they are the first trial."""
    ranges = read_ranges(path)
    model, _, eval_task = path.stem.partition(".")
    for task in [eval_task] if eval_task else find_models()[model].eval_tasks:
        config = MMConfig(model, "demo", config_dict={"eval_task": task})
        check_ranges(model, ranges.values(), config.keys, [])
        assert [key for key, r in ranges.items() if r.parameter(config[key]) is None] == []
