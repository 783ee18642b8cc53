"""The encoder of images: a pre-trained vision transformer or the like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dataset_tools.encode.pretrained import finite_rows, load_model, loading
from dataset_tools.options import check_batch_size, check_choice, choose_device
from recbole_cdr_mm.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import BatchFeature, PreTrainedModel

POOLINGS = ("cls", "mean", "pooler")
CLS_WEIGHTS = ("cls_token", "class_embedding", "class_token")  # who has one has a first state


class ImageEncoder:
    """A pre-trained vision encoder.

    Args:
        folder: A name or folder that transformers knows; of a model of texts and images, the part
            that reads images is taken.
        pooling: `cls` takes the last hidden state of the class token, `mean` the mean of all last
            hidden states, `pooler` what the model's own pooler makes of them.
        batch_size: Images a step. Features change with it by rounding only.
        device: `cpu` or `cuda`; by default `cuda` where there is one.

    Attributes:
        dim: Features of an image, d.
        revision_or_hash: A hash of the weights.
        processing: How images are scaled and normalised, as JSON.

    Raises:
        ConfigError: If an option or the encoder cannot be used.

    Source:
        None; the paper reads no images.
    """

    def __init__(
        self,
        folder: str,
        *,
        pooling: str = "cls",
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        check_choice("pooling", pooling, POOLINGS)
        check_batch_size(batch_size)
        self.name = folder
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = choose_device(device)
        self._load()
        self.processing = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        self.dim = self._probe()

    def encode(self, images: Sequence[Image]) -> np.ndarray:
        """Encode a batch of images, each on its own.

        Args:
            images: Images of type RGB and any size, B of them.

        Returns:
            Features, float32 (B, d).

        Raises:
            ConfigError: If the encoder cannot read the images or lacks what `pooling` takes.
        """
        import torch

        batch = self._process(images).to(self.device)
        with torch.inference_mode():
            output = self.model(**batch)
        if self.pooling == "pooler":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise self._lacks("pooler", "cls or mean")
            return finite_rows(self.name, pooled.flatten(1))  # (B, d)
        states = self._tokens(output.last_hidden_state)  # (B, L, d)
        return finite_rows(self.name, states[:, 0] if self.pooling == "cls" else states.mean(1))

    def _tokens(self, states: Tensor) -> Tensor:
        """Lay the states of a grid (B, d, H, W) end to end, as (B, H * W, d)."""
        return states if states.ndim == 3 else states.flatten(2).transpose(1, 2)

    def _process(self, images: Sequence[Image]) -> BatchFeature:
        """Scale and normalise images; gives `pixel_values`, float32 (B, 3, H, W)."""
        try:
            return self.processor(
                [np.asarray(image) for image in images],
                input_data_format="channels_last",  # an image three pixels high is ambiguous
                return_tensors="pt",
            )
        except ValueError as error:
            raise ConfigError(
                f"encoder `{self.name}`: its image processor fails "
                f"({str(error).splitlines()[0].rstrip('.')}). Take another encoder, or "
                "--batch_size=1 if it does not bring images to one size."
            ) from error

    def _load(self) -> None:
        from transformers import AutoImageProcessor

        advice = (
            "Take a local folder or, with a network, a name that transformers knows, of an encoder "
            "whose image processor needs no torchvision."
        )
        with loading(self.name, advice) as options:
            # What torchvision makes of an image is not the same, so it never depends on whether it
            # is installed.
            self.processor = AutoImageProcessor.from_pretrained(self.name, backend="pil", **options)
            self.model, self.revision_or_hash = load_model(
                self.name, options, self.device, _vision_part, pooler=self.pooling == "pooler"
            )
        names = [name.rpartition(".")[2] for name in self.model.state_dict()]
        if self.pooling == "cls" and not set(CLS_WEIGHTS).intersection(names):
            raise self._lacks("class token", "mean or pooler")

    def _lacks(self, what: str, others: str) -> ConfigError:
        return ConfigError(
            f"encoder `{self.name}`: has no {what}, so pooling `{self.pooling}` cannot be. Take "
            f"--pooling={others}."
        )

    def _probe(self) -> int:
        """Count the features of an image by encoding one; configs have many names for it."""
        from PIL import Image

        return self.encode([Image.new("RGB", (64, 64))]).shape[1]


def _vision_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part that reads images, or the model itself."""
    return getattr(model, "vision_model", model)
