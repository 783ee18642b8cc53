from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dataset_tools.atomic import read_items, write_inter, write_items
from dataset_tools.cli import main
from dataset_tools.encode import text as text_module
from dataset_tools.encode.text import encode_dataset
from dataset_tools.encode.text_encoders import minilm_folder
from dataset_tools.feature_store import content_hash, item_texts, read_store
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.errors import ConfigError, DataFormatError

# What rounding may change where sums are taken in another order: of the length of a row.
TOLERANCE = 2e-6


@pytest.fixture
def pair_path(tmp_path: Path) -> Path:
    """A pair of which most texts stand in both domains."""
    frames = {
        "movie": [("m1", "Up", "A tale"), ("m2", "", ""), ("m3", "Alien", "A starship")],
        "cd": [("c1", "Up", "A tale"), ("c2", "Alien", "A starship"), ("c3", "Waltz", "A ball")],
    }
    for name, rows in frames.items():
        write_domain(tmp_path, name, {item: " | ".join(cells) for item, *cells in rows})
        items = pd.DataFrame(rows, columns=["item_id", "title", "text"])
        write_items(tmp_path / name / f"{name}.item", items)
    (tmp_path / "mc").mkdir()
    (tmp_path / "mc" / "mc.yaml").write_text("source_dataset: movie\ntarget_dataset: cd\n")
    return tmp_path


def write_domain(data_path: Path, name: str, texts: Mapping[str, str]) -> None:
    """A domain of items with these texts, all of them rated by one user."""
    inter = pd.DataFrame({"user_id": "u", "item_id": list(texts), "rating": 4.0})
    write_inter(data_path / name / f"{name}.inter", inter)
    items = pd.DataFrame({"item_id": list(texts), "text": list(texts.values())})
    write_items(data_path / name / f"{name}.item", items)


def random_texts(rng: np.random.Generator, lengths: Sequence[int]) -> dict[str, str]:
    """Texts of so many words."""
    words = "whale storm love ghost piano winter murder garden empire dance".split()
    return {f"i{row}": " ".join(rng.choice(words, size)) for row, size in enumerate(lengths)}


def equation_1(texts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The sum over each text's own tokens of the last hidden states, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    model = AutoModel.from_pretrained(minilm_folder()).eval()
    sums = {}
    with torch.inference_mode():
        for item, text in texts.items():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            states = model(**tokens).last_hidden_state[0]  # (L, d), with [CLS] and [SEP]
            sums[item] = states[1:-1].double().sum(0).numpy()
    return sums


def check_equation_1(data_path: Path, texts: dict[str, str]) -> float:
    """Compare stored rows with Eq. 1 in two orders, without and with padding; give the error."""
    expected = equation_1(texts)
    errors = []
    for number, (order, batch_size) in enumerate(((1, 1), (1, 4), (-1, 1), (-1, 4), (1, 3))):
        name = f"domain{number}"
        write_domain(data_path, name, dict(list(texts.items())[::order]))
        encode_dataset(data_path, name, "minilm", batch_size=batch_size, device="cpu")
        store = read_store(data_path / name, name)
        assert sorted(store.ids) == sorted(texts)
        for item, row in zip(store.ids, store.matrix, strict=True):
            error = np.abs(row - expected[item]).max() / np.linalg.norm(expected[item])
            errors.append(float(error))
    return max(errors)


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of all files of a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_stored_rows_are_equation_1_to_the_digit(tmp_path: Path, rng: np.random.Generator) -> None:
    texts = random_texts(rng, [1, 2, 3, 7, 19, 40, 300])  # the last one is cut
    assert check_equation_1(tmp_path, texts) < TOLERANCE


def test_stored_rows_of_real_texts_are_equation_1_to_the_digit(
    shared_data: Path, tmp_path: Path
) -> None:
    items = read_items(shared_data / "amm_music" / "amm_music.item")
    texts = item_texts(items, ["title", "text"])
    by_length = sorted(texts, key=lambda item: len(texts[item]))
    places = np.linspace(0, len(by_length) - 1, 10).astype(int)
    ten = {by_length[place]: texts[by_length[place]] for place in places}
    assert check_equation_1(tmp_path, ten) < TOLERANCE
    manifest = json.loads((tmp_path / "domain0" / "domain0.text.manifest.json").read_text())
    assert 0 < manifest["counts"]["truncated"] < 10


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_killed_command_goes_on_and_the_files_are_the_same(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    texts = random_texts(rng, rng.integers(5, 40, size=300).tolist())
    for run in ("whole", "killed"):
        write_domain(tmp_path / run, "movie", dict(list(texts.items())[:200]))
        write_domain(tmp_path / run, "cd", dict(list(texts.items())[150:]))
        (tmp_path / run / "mc").mkdir()
        (tmp_path / run / "mc" / "mc.yaml").write_text(
            "source_dataset: movie\ntarget_dataset: cd\n"
        )

    def options(run: str) -> list[str]:
        told = ["--encoder=minilm", "--batch_size=1", "--device=cpu", f"--dtype={dtype}"]
        return ["text", "--dataset=mc", f"--data_path={tmp_path / run}", *told]

    main(options("whole"))
    assert "Goes on" not in capsys.readouterr().err

    part = tmp_path / "killed" / "movie" / ".mc.text.part"
    row = 4 * 384 + 4
    process = subprocess.Popen(
        [sys.executable, "-m", "dataset_tools", *options("killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 120
    while not (part.is_file() and part.stat().st_size > 30 * row):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("*.npy"))
    there = part.stat().st_size // row

    main(options("killed"))
    found = re.search(r"Goes on after (\d+) of 300 texts", capsys.readouterr().err)
    assert found is not None
    assert 30 <= int(found[1]) == there < 300  # not from the first text
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def test_other_settings_start_anew(pair_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A call that ends in an error keeps its rows; only one of the same settings takes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "write_store", stop)
        with pytest.raises(KeyboardInterrupt):
            encode_dataset(pair_path, "mc", "minilm")
    part = pair_path / "movie" / ".mc.text.part"
    kept = {path: path.read_bytes() for path in (part, part.with_name(f"{part.name}.json"))}
    assert len(kept[part]) == 3 * (4 * 384 + 4)
    path = pair_path / "cd" / "cd.item"
    item = path.read_text()
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"dtype": "float16"}, item, "Goes on after 3 of 3 texts of an earlier run.\n"),
        ({"batch_size": 2}, item, "earlier run had other settings: batch_size.\n"),
        ({"pooling": "mean"}, item, "other settings: pooling.\n"),
        ({"max_length": 9}, item, "other settings: max_length.\n"),
        ({"fields": ["text", "title"]}, item, "other settings: fields, texts, tokens.\n"),
        ({}, item.replace("Waltz", "Polka"), "other settings: texts, tokens.\n"),
    ]
    for options, content, message in cases:
        for file, rows in kept.items():
            file.write_bytes(rows)
        path.write_text(content)
        capsys.readouterr()
        encode_dataset(pair_path, "mc", "minilm", **options)
        assert capsys.readouterr().err.endswith(message)
        assert not part.exists()


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_another_encoder_or_tokeniser_starts_anew(
    pair_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(minilm_folder(), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "write_store", stop)
        with pytest.raises(KeyboardInterrupt):
            encode_dataset(pair_path, "cd", str(folder))
    tokeniser = folder / "tokenizer.json"
    content = json.loads(tokeniser.read_text())
    words = content["model"]["vocab"]
    words["tale"], words["ball"] = words["ball"], words["tale"]
    tokeniser.write_text(json.dumps(content))
    capsys.readouterr()
    encode_dataset(pair_path, "cd", str(folder))
    assert "earlier run had other settings: tokens." in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["lsa", "minilm"])
def test_encodes_both_domains_of_a_pair(pair_path: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "features"
    summaries = encode_dataset(pair_path, "mc", encoder, feature_path=out)
    movie, cd = (read_store(out / name, name) for name in ("movie", "cd"))
    assert movie.ids == ["m1", "m3"]
    assert cd.ids == ["c1", "c2", "c3"]
    assert movie.matrix.tolist() == cd.matrix[:2].tolist()  # one space, identical texts once
    assert movie.info["counts"] == {"items": 3, "with_text": 2, "truncated": 0}
    assert movie.info["encoder"] == encoder
    assert movie.info["fields"] == ["title", "text"]
    assert movie.info["revision_or_hash"] == cd.info["revision_or_hash"]
    texts = item_texts(read_items(pair_path / "movie" / "movie.item"), ["title", "text"])
    assert movie.info["content_hash"] == content_hash(texts.keys(), texts.values())
    assert [(s.name, s.items, s.with_text) for s in summaries] == [("movie", 3, 2), ("cd", 3, 3)]
    assert not (pair_path / "movie" / "movie.text.npy").exists()
    ends = ["text.ids", "text.json", "text.manifest.json", "text.npy"]
    assert sorted(os.listdir(out / "movie")) == [f"movie.{end}" for end in ends]  # no part is left
    assert sorted(os.listdir(out / "cd")) == [f"cd.{end}" for end in ends]


def test_a_manifest_says_what_was_read_told_and_written(pair_path: Path) -> None:
    encode_dataset(pair_path, "mc", "minilm", batch_size=2, device="cpu", dtype="float16")
    folder = pair_path / "movie"
    manifest = json.loads((folder / "movie.text.manifest.json").read_text())
    assert manifest["command"] == "text"
    assert manifest["options"] == {
        "dataset": "movie",
        "encoder": "minilm",
        "pooling": "sum",
        "fields": ["title", "text"],
        "max_length": 256,
        "batch_size": 2,
        "device": "cpu",
        "dtype": "float16",
    }
    items = [pair_path / name / f"{name}.item" for name in ("movie", "cd")]
    assert manifest["inputs"] == [describe_file(path) for path in items]
    assert manifest["counts"] == {"items": 3, "with_text": 2, "truncated": 0}
    outputs = [folder / f"movie.text.{end}" for end in ("npy", "ids", "json")]
    assert manifest["outputs"] == [describe_file(path) for path in outputs]


def test_encodes_one_domain_beside_it(pair_path: Path) -> None:
    encode_dataset(pair_path, "cd", "lsa", dtype="float16", fields=["title"])
    store = read_store(pair_path / "cd", "cd")
    assert store.info["fields"] == ["title"]
    assert store.matrix.dtype == np.float16
    assert not (pair_path / "movie" / "movie.text.npy").exists()


@pytest.mark.parametrize("encoder", ["lsa", "minilm"])
def test_shuffled_lines_give_the_same_rows(pair_path: Path, encoder: str) -> None:
    encode_dataset(pair_path, "mc", encoder)
    before = read_store(pair_path / "cd", "cd")
    rows = dict(zip(before.ids, before.matrix.tolist(), strict=True))
    path = pair_path / "cd" / "cd.item"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(lines[::-1]))
    encode_dataset(pair_path, "mc", encoder)
    after = read_store(pair_path / "cd", "cd")
    assert after.ids == before.ids[::-1]
    assert after.info["content_hash"] == before.info["content_hash"]
    assert {item: row.tolist() for item, row in zip(after.ids, after.matrix, strict=True)} == rows


def test_a_domain_without_text_beside_one_with(pair_path: Path) -> None:
    (pair_path / "movie" / "movie.item").unlink()
    summaries = encode_dataset(pair_path, "mc", "lsa")
    assert [s.with_text for s in summaries] == [0, 3]
    store = read_store(pair_path / "movie", "movie")
    assert store.matrix.shape == (0, summaries[1].dim)


def test_a_pair_without_any_text(pair_path: Path) -> None:
    for name in ("movie", "cd"):
        (pair_path / name / f"{name}.item").unlink()
    with pytest.raises(
        DataFormatError, match=r"No item of `movie` or `cd` has a text in .*--item_features=id"
    ):
        encode_dataset(pair_path, "mc", "lsa")


def test_options_that_do_not_fit(pair_path: Path) -> None:
    before = hashes(pair_path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"fields": ["titel"]}, r"no column `titel` in movie\.item or cd\.item"),
        ({"dtype": "float8"}, r"dtype `float8` is not one of float16, float32"),
        ({"pooling": "sum"}, r"encoder `lsa` has no option --pooling"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            encode_dataset(pair_path, "mc", "lsa", **options)
    assert hashes(pair_path) == before


def test_an_encoder_that_is_not_there(tmp_path: Path, pair_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder `minlm`: .* Did you mean `minilm`\?"):
        encode_dataset(pair_path, "mc", "minlm")
    with pytest.raises(ConfigError, match=r"encoder `.*movie`: transformers cannot load it"):
        encode_dataset(pair_path, "mc", str(tmp_path / "movie"))
    with pytest.raises(ConfigError, match=r"encoder `bert-base-uncased`: .* --encoder=minilm"):
        encode_dataset(pair_path, "mc")
    assert not list(tmp_path.rglob("*.npy"))


def test_half_precision_that_overflows_leaves_all_stores_as_they_were(
    monkeypatch: pytest.MonkeyPatch, pair_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode_dataset(pair_path, "mc", "lsa")
    before = hashes(pair_path)

    def large(*_: object) -> np.ndarray:  # but for the first text, which both domains have
        return np.array([[1, 0], [1, 0], [0, -70000]], dtype=np.float32)

    monkeypatch.setattr("dataset_tools.encode.text_encoders.LsaEncoder.encode", large)
    monkeypatch.setattr("dataset_tools.encode.text_encoders.LSA_SIZE", 2)
    with pytest.raises(ConfigError, match=r"features as large as 70000\. Take --dtype=float32"):
        encode_dataset(pair_path, "mc", "lsa", dtype="float16")
    after = hashes(pair_path)
    assert {name: value for name, value in after.items() if "part" not in name} == before
    encode_dataset(pair_path, "mc", "lsa", dtype="float32")
    assert capsys.readouterr().err == "Goes on after 3 of 3 texts of an earlier run.\n"
    assert read_store(pair_path / "cd", "cd").matrix.min() == -70000


@pytest.mark.parametrize("title", ["the", "whale"])
def test_lsa_needs_words(pair_path: Path, title: str) -> None:
    path = pair_path / "movie" / "movie.item"
    header = "item_id:token\ttitle:token_seq\n"
    path.write_text(f"{header}m1\t{title}\nm2\t{title}\n")
    with pytest.raises(DataFormatError, match=r"`lsa`: the texts, 1 in all, cannot be used \("):
        encode_dataset(pair_path, "movie", "lsa")
    path.write_text(f"{header}m1\tthe white whale\nm2\twhale\n")
    assert encode_dataset(pair_path, "movie", "lsa")[0].dim == 2


def test_lsa_needs_no_torch_and_import_needs_nothing_heavy(pair_path: Path) -> None:
    (pair_path / "none").mkdir()
    (pair_path / "none" / "torch.py").write_text("raise ImportError('there is no torch')")
    code = (
        f"import sys; sys.path.insert(0, {str(pair_path / 'none')!r})\n"
        "import dataset_tools.cli as cli\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'recbole'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"cli.main(['text', '--data_path={pair_path}', '--dataset=mc', '--encoder=lsa'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert read_store(pair_path / "cd", "cd").ids == ["c1", "c2", "c3"]
