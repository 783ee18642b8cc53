"""What is installed, what it costs to import, and whether the project's papers agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest
import yaml

import recbole_cdr_mm

ROOT = Path(__file__).resolve().parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


WHERE = "from recbole_cdr_mm.packaged import PROPERTIES; print(PROPERTIES)"
PYPROJECT = tomllib.loads(read("pyproject.toml"))


def pins(text: str) -> dict[str, str]:
    """All `name==version` in a text, by normalised name.

    >>> pins("a==1 B_c==2.0\\n# d>=3")
    {'a': '1', 'b-c': '2.0'}
    """
    found = re.findall(r"([\w.-]+)==([\w.+-]+)", text)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def files_below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: a build folder in the checkout would leak into the next wheel."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("recbole_cdr_mm", "dataset_tools", "properties", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", f"--wheel-dir={target}", source], check=True)
    (built,) = target.glob("*.whl")
    return built


def test_wheel_holds_the_code_and_the_properties_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    expected = {
        f"{package}/{name}"
        for package in ("recbole_cdr_mm", "dataset_tools")
        for name in files_below(ROOT / package, "*.py")
    }
    folders = {"properties": "recbole_cdr_mm/properties"}
    folders |= {package: package for package in ("recbole_cdr_mm", "dataset_tools")}
    for folder, installed in folders.items():
        for pattern in ("*.yaml", "*.hyper", "*.html"):
            expected |= {f"{installed}/{name}" for name in files_below(ROOT / folder, pattern)}
    expected |= {"recbole_cdr_mm/properties/__init__.py"}
    assert "dataset_tools/fetch/urls.yaml" in expected
    assert names == expected


def test_wheel_finds_its_properties_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S leaves out site-packages, and with it an editable install.
    command = [sys.executable, "-S", "-c", WHERE]
    out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert (Path(out.strip()) / "overall.yaml").is_file()
    assert Path(out.strip()).is_relative_to(tmp_path)


def test_checkout_has_its_own_properties_whatever_is_installed(tmp_path: Path) -> None:
    for name in ("recbole_cdr_mm", "properties"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", WHERE]
    out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert Path(out.strip()) == tmp_path / "properties"


def test_installed_package_finds_its_properties() -> None:
    packaged = resources.files("recbole_cdr_mm.properties")
    assert packaged.joinpath("overall.yaml").is_file()


@pytest.mark.parametrize("name", sorted(PYPROJECT["project"]["scripts"]))
def test_console_script_names_a_function(name: str) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name=name)
    assert script.value == PYPROJECT["project"]["scripts"][name]
    assert callable(script.load())


@pytest.mark.parametrize("package", ["recbole_cdr_mm", "dataset_tools"])
def test_import_has_no_side_effects(package: str) -> None:
    code = f"""
import json, logging, os, random, sys, warnings

def state():
    return [dict(os.environ), random.getstate(), warnings.filters[:], logging.root.handlers[:],
            logging.root.level, sorted(logging.root.manager.loggerDict)]

before = state()
import {package}
print(json.dumps([state() == before, sorted(sys.modules)]))
"""
    command = [sys.executable, "-c", code]
    # An empty environment: what this process has imported may have changed ours already.
    out = subprocess.run(command, env={}, check=True, capture_output=True).stdout
    unchanged, modules = json.loads(out)
    assert unchanged
    assert package in modules
    assert not {"torch", "recbole", "numpy", "pandas", "transformers"} & set(modules)


def test_version_is_in_the_changelog() -> None:
    version = recbole_cdr_mm.__version__
    assert metadata.version("recbole-cdr-mm") == version
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    readme = read("README.md")
    assert re.findall(r"^make .*$", read(".ci/run"), re.MULTILINE) == ["make lint", "make test"]
    assert re.search(r"^\s*make test\b", readme, re.MULTILINE)
    for target in re.findall(r"^(\w+):.*## ", read("Makefile"), re.MULTILINE):
        assert f"make {target}" in readme


def test_readme_and_makefile_install_the_same_releases() -> None:
    readme = pins(read("README.md"))
    for name, version in pins(read("Makefile")).items():
        assert readme[name] == version


def test_pins_agree() -> None:
    pinned = pins(read("constraints.txt"))
    for name, version in pins(read("Makefile")).items():
        assert pinned[name] == version

    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    (ruff,) = [hook["rev"] for hook in hooks if hook["repo"].endswith("/ruff-pre-commit")]
    assert ruff == f"v{pinned['ruff']}"

    project = PYPROJECT["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name = re.split(r"[<>=]", requirement)[0].lower()
        assert name in pinned, f"constraints.txt does not pin {name}"


def test_every_module_has_its_place_in_the_order_of_imports() -> None:
    (layers,) = [
        contract["layers"]
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    placed = set(re.findall(r"recbole_cdr_mm\.(\w+)", " ".join(layers)))
    there = {
        path.stem
        for path in (ROOT / "recbole_cdr_mm").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert there - {"__init__", "__main__"} <= placed
