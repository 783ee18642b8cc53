from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.domains import domains_of, items_of, refuse_pair
from dataset_tools.synthetic import make_pair, write_pair
from recbole_cdr_mm.errors import ConfigError, DataFormatError


@pytest.fixture
def pair_path(tmp_path: Path) -> Path:
    """A pair `mc` of the domains `movie` and `cd`."""
    for name in ("movie", "cd"):
        inter = pd.DataFrame({"user_id": ["u"], "item_id": [f"{name}1"], "rating": [4.0]})
        write_inter(tmp_path / name / f"{name}.inter", inter)
    items = pd.DataFrame({"item_id": ["movie1", "movie2"], "title": ["Up", "Alien"]})
    write_items(tmp_path / "movie" / "movie.item", items)
    (tmp_path / "mc").mkdir()
    (tmp_path / "mc" / "mc.yaml").write_text("source_dataset: movie\ntarget_dataset: cd\n")
    return tmp_path


def test_finds_the_domains_of_a_data_set(pair_path: Path) -> None:
    assert domains_of(pair_path, "mc") == ["movie", "cd"]
    assert domains_of(pair_path, "movie") == ["movie"]
    with pytest.raises(
        DataFormatError,
        match=r"there is no movi/movi\.inter and no pair `movi`\. Did you mean `movie`",
    ):
        domains_of(pair_path, "movi")
    with pytest.raises(DataFormatError, match=r"there is no demo_movie/demo_movie\.inter"):
        domains_of(pair_path, "demo")  # a packaged pair whose domains are not there


def test_finds_a_packaged_pair(tmp_path: Path) -> None:
    write_pair(make_pair(n_overlapped=5, n_source_items=40, n_target_items=40), tmp_path, "demo")
    (tmp_path / "demo" / "demo.yaml").unlink()
    assert domains_of(tmp_path, "demo") == ["demo_movie", "demo_cd"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "source_dataset: movie\n",
            r"mc\.yaml: a pair needs `source_dataset` and `target_dataset`",
        ),
        ("- movie\n- cd\n", r"mc\.yaml: a pair needs"),
        ("source_dataset: 'movie\n", r"mc\.yaml: is no YAML"),
    ],
)
def test_refuses_a_malformed_pair(pair_path: Path, content: str, message: str) -> None:
    (pair_path / "mc" / "mc.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        domains_of(pair_path, "mc")


def test_items_are_those_that_are_rated_or_described(pair_path: Path) -> None:
    assert items_of(pair_path, "movie") == {"movie1", "movie2"}
    assert items_of(pair_path, "cd") == {"cd1"}


def test_a_pair_is_told_its_domains(pair_path: Path) -> None:
    refuse_pair(pair_path, "movie", "each has a file", "--images=DIR")
    with pytest.raises(ConfigError) as error:
        refuse_pair(pair_path, "mc", "each has a file", "--images=DIR")
    assert "dataset `mc` is a pair, but each has a file. Give its domains" in str(error.value)
    for domain in ("movie", "cd"):
        command = f"image --images=DIR --dataset={domain} --data_path={pair_path}`"
        assert f"`python -m dataset_tools {command}" in str(error.value)
