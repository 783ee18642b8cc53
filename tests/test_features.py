from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_pairs import write_lines

from dataset_tools.atomic import read_items
from dataset_tools.feature_store import content_hash, item_texts, read_store, write_store
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.features import ItemFeatures
from recbole_cdr_mm.errors import DataFormatError

# Token, title, text; `same` is an item of both domains, and `bare` has no text.
ITEMS = {
    "movie": [
        ("same", "Up", "A house."),
        ("m2", "Alien", ""),
        ("m1", "", "Rats"),
        ("bare", "", ""),
    ],
    "cd": [
        ("c1", "Kind of Blue", "Jazz"),
        ("same", "Nevermind", "Grunge"),
        ("c2", "Low", "Berlin"),
    ],
}
COMMAND = "python -m dataset_tools text --data_path=dataset --dataset=pair --encoder=minilm"


def feature_of(domain: str, token: str) -> list[float]:
    return [float(domain == "cd"), *(float(ord(letter)) for letter in f"{token:4}"[:4])]


def write_domain(root: Path, name: str) -> None:
    header = "user_id:token\titem_id:token\trating:float"
    rows = [f"u{u}\t{item}\t4" for u in range(5) for item, *_ in ITEMS[name]]
    write_lines(root / name / f"{name}.inter", header, *rows)
    write_item_file(root, name, ITEMS[name])


def write_item_file(root: Path, name: str, items: list[tuple[str, str, str]]) -> None:
    header = "item_id:token\ttitle:token_seq\ttext:token_seq"
    write_lines(root / name / f"{name}.item", header, *map("\t".join, items))


def write_features(
    root: Path, name: str, *, order: int = 1, folder: Path | None = None, **info: Any
) -> None:
    texts = item_texts(read_items(root / name / f"{name}.item"), ["title", "text"])
    ids = list(texts)[::order]
    description = {
        "encoder": "planted",
        "revision_or_hash": "1",
        "pooling": "sum",
        "fields": ["title", "text"],
        "counts": {},
        "content_hash": content_hash(texts.keys(), texts.values()),
    }
    matrix = np.array([feature_of(name, token) for token in ids], dtype=np.float32)
    matrix = matrix[:, : info.pop("width", 5)]
    write_store(folder or root / name, name, "text", ids, matrix, {**description, **info})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    for name in ITEMS:
        write_domain(root, name)
        write_features(root, name)
    write_lines(root / "pair" / "pair.yaml", "source_dataset: movie", "target_dataset: cd")
    return root


def load(**config_dict: Any) -> tuple[PairDataset, ItemFeatures]:
    config_dict["valid_user_ratio"] = 0
    dataset = PairDataset(MMConfig("MetaMMCDR", "pair", config_dict=config_dict))
    return dataset, dataset.features("text", ["source", "target"])


def check(dataset: PairDataset, features: ItemFeatures) -> None:
    pair = dataset.pair
    assert features.matrix.shape == (pair.n_items, 5)
    assert features.matrix.dtype == np.float32
    for item, token in enumerate(pair.item_tokens):
        domain = "movie" if item < pair.items("target").start else "cd"
        has_text = token not in ("[PAD]", "bare")
        assert features.known[item] == has_text
        assert features.matrix[item].tolist() == (
            feature_of(domain, token) if has_text else [0] * 5
        )


def test_features_of_one_domain_are_those_of_both_once_they_are_read(root: Path) -> None:
    dataset, both = load()
    fingerprint = dataset.config["feature_fingerprint"]
    (root / "movie" / "movie.text.npy").unlink()  # is not read again
    for domain in ("source", "target"):
        own = dataset.features("text", [domain])
        assert own.matrix is both.matrix
        ids = dataset.pair.items(domain)
        assert own.known[ids].tolist() == both.known[ids].tolist()
        assert own.known.sum() == both.known[ids].sum()
    assert dataset.config["feature_fingerprint"] == fingerprint


@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_found_by_token_and_domain(root: Path, order: int) -> None:
    for name in ITEMS:
        write_features(root, name, order=order)
    check(*load())


def test_lines_of_the_item_file_may_be_shuffled(root: Path) -> None:
    write_item_file(root, "movie", ITEMS["movie"][::-1])
    check(*load())


def test_stores_may_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    for name in ITEMS:
        for file in (root / name).glob("*.text.*"):
            (tmp_path / "features" / name).mkdir(parents=True, exist_ok=True)
            file.rename(tmp_path / "features" / name / file.name)
    check(*load(feature_path="features"))
    with pytest.raises(DataFormatError, match=f"with: {COMMAND}$"):
        load()
    with pytest.raises(DataFormatError, match=f"with: {COMMAND} --feature_path=nowhere$"):
        load(feature_path="nowhere")


def test_items_without_text_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    dataset, _ = load()
    assert dataset.description["items_with_text"] == {"source": 3, "target": 3}
    assert (
        "movie: 1 of 4 items have no text; they share one learned 'no text' vector." in caplog.text
    )
    assert "cd: " not in caplog.text


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (ITEMS["movie"], None),
        (
            [*ITEMS["movie"][:3], ("bare", "", "Now"), ("m3", "Jaws", "")],
            "0 of its 3 .* 2 of 5 items",
        ),
        (
            [("m2", "Alien", ""), ("m1", "", "Rats")],
            "1 of its 3 items are not there with a text, and 0",
        ),
        (
            [("m1", "Alien", ""), ("m2", "", "Rats"), ITEMS["movie"][0]],
            "the items are the same, their",
        ),
        ([*ITEMS["movie"][:2], ("m1", "", "Rats!")], "the items are the same, their texts are not"),
    ],
)
def test_a_store_of_other_items_or_texts(
    root: Path, items: list[tuple[str, str, str]], message: str | None
) -> None:
    write_item_file(root, "movie", items)
    if message is None:
        load()
        return
    where = "movie.text.npy was made from other texts than those of movie.item"
    with pytest.raises(
        DataFormatError, match=f"{where}: {message}.* Make it again with: {COMMAND}$"
    ):
        load()


def test_ids_that_are_not_those_of_the_description(root: Path) -> None:
    ids = root / "movie" / "movie.text.ids"
    write_lines(ids, *ids.read_text().replace("m1", "m9").split())
    with pytest.raises(
        DataFormatError, match="1 of its 3 items are not there with a text, and 1 of 3"
    ):
        load()


@pytest.mark.parametrize("end", ["npy", "ids", "json"])
def test_a_missing_store_gives_the_command(root: Path, end: str) -> None:
    (root / "cd" / f"cd.text.{end}").unlink()
    with pytest.raises(DataFormatError, match=rf"there is no cd\.text\.{end}\..* with: {COMMAND}$"):
        load()


def test_a_damaged_store_gives_the_command(root: Path) -> None:
    path = root / "cd" / "cd.text.npy"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataFormatError, match=rf"cd\.text\.npy: is damaged.* with: {COMMAND}$"):
        load()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({}, None),
        ({"counts": {"items": 3}}, None),
        ({"encoder": "lsa"}, "movie have encoder planted, those of cd have encoder lsa"),
        ({"revision_or_hash": "2"}, "movie have revision_or_hash 1, those of cd have"),
        ({"pooling": "mean"}, "movie have pooling sum, those of cd have pooling mean"),
        ({"width": 4}, "movie have dim 5, those of cd have dim 4"),
    ],
)
def test_both_domains_need_the_same_encoder(
    root: Path, other: dict[str, Any], message: str | None
) -> None:
    write_features(root, "cd", **other)
    if message is None:
        load()
        return
    with pytest.raises(DataFormatError, match=f"{message}.*again with: {COMMAND}$"):
        load()


def test_a_store_knows_which_fields_it_read(root: Path) -> None:
    for name in ITEMS:
        texts = item_texts(read_items(root / name / f"{name}.item"), ["title"])
        info = json.loads((root / name / f"{name}.text.json").read_text())
        info |= {"fields": ["title"], "content_hash": content_hash(texts.keys(), texts.values())}
        matrix = np.ones((len(texts), 5), dtype=np.float16)
        write_store(root / name, name, "text", list(texts), matrix, info)
    dataset, features = load()
    told = dataset.pair.item_tokens[features.known].tolist()
    assert told == ["m2", "same", "c1", "c2", "same"]  # m1 has a text, but no title
    assert len(read_store(root / "movie", "movie").ids) == 2


@pytest.mark.parametrize("how", ["no file", "empty texts", "no columns"])
def test_a_domain_without_any_text(root: Path, how: str) -> None:
    if how == "no file":
        (root / "movie" / "movie.item").unlink()
    elif how == "empty texts":
        write_item_file(root, "movie", [(item, "", " ") for item, *_ in ITEMS["movie"]])
    else:
        write_lines(root / "movie" / "movie.item", "item_id:token\tyear:float", "m1\t1999")
    with pytest.raises(
        DataFormatError,
        match=r"movie\.item gives no item a title or text.* or run with --item_features=id\.$",
    ):
        load()
