"""Every model has its file, its properties, its tests and its row in the README."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.property_files import property_files
from recbole_cdr_mm.register import register

ROOT = Path(__file__).resolve().parents[1]
MODELS = find_models()


def test_models_are_found() -> None:
    """An empty list would pass all that follows."""
    assert "MetaMMCDR" in MODELS
    assert len(MODELS) >= 7


def test_every_property_file_has_a_model() -> None:
    assert {path.stem for path in (PROPERTIES / "model").glob("*.yaml")} == MODELS.keys()


def test_a_model_without_its_property_file_is_told_of_it() -> None:
    forgetful = type("Forgetful", (MODELS["TargetMF"],), {})
    with pytest.raises(ConfigError, match=r"model/Forgetful\.yaml: is missing\. It explains keys"):
        property_files(forgetful)


@pytest.mark.parametrize("name", MODELS)
class TestModel:
    def test_file(self, name: str) -> None:
        module = sys.modules[MODELS[name].__module__]
        assert Path(str(module.__file__)).name == f"{name.lower()}.py"
        assert str(module.__doc__).startswith(f"{name}: ")

    def test_docstring_names_source_and_deviations(self, name: str) -> None:
        docstring = MODELS[name].__doc__ or ""
        assert "Source:" in docstring
        assert "Deviations" in docstring

    def test_properties(self, name: str) -> None:
        assert (ROOT / "properties" / "model" / f"{name}.yaml").is_file()

    def test_tests(self, name: str) -> None:
        text = (ROOT / "tests" / f"test_{name.lower()}.py").read_text(encoding="utf-8")
        assert re.search(r"class Test\w+\(.*(Model|Bridge)Checks\)", text)
        assert f'"model": "{name}"' in text

    def test_readme_row(self, name: str) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert any(
            line.startswith("|") and f"`{name}`" in line.split("|")[1]
            for line in readme.splitlines()
        )

    def test_recbole_finds_it(self, name: str) -> None:
        from recbole.utils import get_model, get_trainer

        from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

        register()
        assert get_model(name) is MODELS[name]
        assert get_trainer(MODELS[name].type, name) is StagedTrainer
