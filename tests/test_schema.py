from __future__ import annotations

from pathlib import Path

import pytest
from small_pairs import write_lines

from recbole_cdr_mm.property_files import PROPERTIES, RECBOLE_PROPERTIES
from recbole_cdr_mm.schema import Key, read_properties

WITHOUT_EFFECT = PROPERTIES / "without_effect.yaml"  # keys of RecBole's, each with a reason
BOUNDS = PROPERTIES / "recbole_bounds.yaml"  # types, each with the keys of RecBole's that it is for
OURS = sorted({*PROPERTIES.glob("*.yaml"), *PROPERTIES.glob("*/*.yaml")} - {WITHOUT_EFFECT, BOUNDS})


@pytest.mark.parametrize(
    ("type_text", "good", "bad"),
    [
        ("int", [0, -3], [0.0, 1.5, "1", True, None, [1]]),
        ("float", [0, -0.5], ["0.5", False, None, float("nan"), float("inf")]),
        ("bool", [True, False], [0, 1, "True", None]),
        ("str", ["", "a"], [1, True, None, ["a"]]),
        ("list", [[], [1, "a"], (1,)], ["[1]", {1: 2}, None]),
        ("dict", [{}, {"a": 1}], [[], "a", None]),
        ("list of int", [[], [1, 2]], [[1, 2.5], ["1"], [True], 1]),
        ("list of int > 0", [[1]], [[0], [1, -1]]),
        ("int > 0", [1], [0, -1, 1.0, True]),
        ("int >= 0", [0], [-1]),
        ("float < 1", [0.99, -5], [1, 1.5]),
        ("0 < float < 1", [0.5, 1e-9], [0, 0.0, 1, 1.0, "0.5"]),
        ("0 <= float < 1", [0, 0.0, 0.99], [-0.1, 1.0]),
        ("0 <= float <= 1", [0, 1], [1.01, float("nan")]),
        ("-1 <= int < 5", [-1, 4], [-2, 5]),
        ("default | paper", ["default", "paper"], ["papr", "Paper", None, True]),
        ("MSE | BPR | null", ["MSE", None], ["CE", "null"]),
        ("int > 0 or null", [3, None], [0, "null", 2.5]),
        ("bool or str", [True, "a"], [1, None]),
        ("list of str or str", [["a"], "a"], [["a", 1], 1]),
        ("list or int or None", [[1], 1, None], [1.5, "1"]),
        ("a free remark", [1, "a", None, [2]], []),
    ],
)
def test_each_form_of_the_grammar(type_text: str, good: list[object], bad: list[object]) -> None:
    key = Key("key", type_text, "meaning", default=good[0])
    assert [value for value in good if key.problem_with(value)] == []
    assert [value for value in bad if not key.problem_with(value)] == []
    assert all(key.problem_with(value) == f"must be ({type_text})" for value in bad)


def test_null_is_right_where_it_is_the_default() -> None:
    assert Key("key", "int > 0", "", default=None).problem_with(None) is None
    assert Key("key", "int > 0", "", default=1).problem_with(None) == "must be (int > 0)"


def test_reads_values_types_and_meanings(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.yaml",
        "# A comment: (int) of no key.",
        "rate: 1e-3   # (float > 0) of Adam; with a # in it.",
        "free: 1",
        "remark: 1    # no type here",
        "slip: '0'    # (int) a string all the same.",
        "nested:      # (dict) of more.",
        "  inner: 1   # (str) no key of its own.",
    )
    values, keys = read_properties(path)
    assert values == {"rate": 1e-3, "free": 1, "remark": 1, "slip": "0", "nested": {"inner": 1}}
    assert list(keys) == list(values)
    assert keys["rate"] == Key("rate", "float > 0", "of Adam; with a # in it.", 1e-3)
    assert keys["nested"].type_text == "dict"
    # The default is right where the comment is not, so the comment restricts nothing.
    assert [keys[name].type_text for name in ("free", "remark", "slip")] == ["", "", ""]


def test_property_files_are_data_and_nothing_is_built_from_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.yaml", "key: !!python/object/apply:os.getcwd []")
    with pytest.raises(Exception, match="could not determine a constructor"):
        read_properties(path)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_key_of_ours_has_a_type_and_a_meaning(path: Path) -> None:
    if path.parent.name in ("preset", "plan"):  # keys of models and of benchmark.yaml
        return
    for name, key in read_properties(path)[1].items():
        assert key.type_text, f"{path.name}: {name} has no (type), or a default that is not of it"
        assert len(key.meaning) > 3, f"{path.name}: {name} has no meaning"
        nonsense = object()
        assert key.problem_with(nonsense), f"{path.name}: `({key.type_text})` restricts nothing"


def test_recboles_own_comments_are_understood() -> None:
    _, keys = read_properties(RECBOLE_PROPERTIES / "overall.yaml")
    assert keys["epochs"].problem_with("many") == "must be (int)"
    assert keys["use_gpu"].problem_with(1) == "must be (bool)"
    assert keys["gpu_id"].problem_with("0") is None
    _, keys = read_properties(RECBOLE_PROPERTIES / "model" / "NeuMF.yaml")
    assert keys["mlp_hidden_size"].problem_with([64, "32"])


def test_keys_without_effect_have_a_reason_and_no_place_among_ours() -> None:
    reasons, _ = read_properties(WITHOUT_EFFECT)
    assert reasons
    assert all(isinstance(reason, str) and reason for reason in reasons.values())
    explained = {name for path in OURS for name in read_properties(path)[1]}
    assert not explained & set(reasons)
