"""Image files to a feature store: `image --images=DIR`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_tools.convert.problems import ON_ERROR
from dataset_tools.domains import items_of, refuse_pair
from dataset_tools.encode.image_encoder import ImageEncoder
from dataset_tools.encode.part_file import resumed_rows
from dataset_tools.feature_store import (
    DTYPES,
    FeatureRows,
    matrix_hash,
    store_paths,
    write_store,
)
from dataset_tools.manifest import MANIFEST, describe_file, write_manifest
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import DataFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_ENCODER = "google/vit-base-patch16-224-in21k"
FILE_ENDS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass(frozen=True)
class EncodedImages:
    """What became of a domain's images, for the summary."""

    items: int
    with_image: int
    broken: tuple[str, ...]
    dim: int
    folder: Path


def encode_images(
    images: Path,
    dataset: str,
    data_path: Path,
    *,
    encoder: str = DEFAULT_ENCODER,
    feature_path: Path | None = None,
    dtype: str = "float32",
    on_error: str = "stop",
    **options: Any,
) -> EncodedImages:
    """Encode the images of a domain's items, those of its `.inter` and its `.item` file.

    What a killed call has encoded lies in a hidden part file in the folder of the store, and the
    next call goes on from there. Items without a file get no row.

    Args:
        images: A folder with files `<item>.jpg` or with another of `FILE_ENDS`, at most one of an
            item. Other files are not read.
        dataset: The domain.
        data_path: The folder of the domains.
        encoder: A name or folder of a vision encoder that transformers knows.
        feature_path: Where the store goes, to `<feature_path>/<domain>/`; without it, beside the
            domain.
        dtype: Of the stored features, `float16` or `float32`.
        on_error: `stop` at the first file that is no sound image, or `skip` such files.
        **options: Of `ImageEncoder`.

    Returns:
        Counts of what was read and stored.

    Raises:
        ConfigError: If an option or the encoder cannot be used, `dataset` is a pair, the store
            cannot be written, or another process encodes the same images.
        DataFormatError: If the domain, the folder or all images are missing, an item has two
            files, or, with `stop`, a file is no sound image.
    """
    check_choice("dtype", dtype, DTYPES)
    check_choice("on_error", on_error, ON_ERROR)
    refuse_pair(data_path, dataset, "a folder has the images of one domain", "--images=DIR")
    items = items_of(data_path, dataset)
    found = _find_files(images, items, dataset)
    files = list(found.values())
    model = ImageEncoder(encoder, **options)
    settings = {
        "encoder": encoder,
        "pooling": model.pooling,
        "batch_size": model.batch_size,
        "device": model.device,
    }
    source = _describe_files(images, files)
    key = {
        **settings,
        "revision_or_hash": model.revision_or_hash,
        "processing": model.processing,
        "files": source["sha256"],
    }
    folder = (feature_path or data_path) / dataset
    with resumed_rows(
        folder / f".{dataset}.image.part",
        key,
        (len(files), model.dim),
        model.batch_size,
        lambda part: _encode(model, files[part], on_error),
        "image",
    ) as matrix:
        broken = np.isnan(matrix[:, 0])  # rows that `_encode` could not make
        _check_broken(files, broken, on_error)
        ids = [item for item, skip in zip(found, broken, strict=True) if not skip]
        rows = FeatureRows(matrix, np.flatnonzero(~broken), dtype)
        counts = {"items": len(items), "with_image": len(ids), "broken": int(broken.sum())}
        info = {
            "encoder": encoder,
            "revision_or_hash": model.revision_or_hash,
            "pooling": model.pooling,
            "fields": [],
            "counts": counts,
            "content_hash": matrix_hash(ids, rows),
        }
        write_store(folder, dataset, "image", ids, rows, info)
        write_manifest(
            folder / f"{dataset}.image{MANIFEST}",
            "image",
            {"dataset": dataset, **settings, "dtype": dtype, "on_error": on_error},
            [source],
            counts,
            [describe_file(path) for path in store_paths(folder, dataset, "image")],
        )
    names = tuple(file.name for file, skip in zip(files, broken, strict=True) if skip)
    return EncodedImages(len(items), len(ids), names, model.dim, folder)


def read_image(path: Path) -> Image:
    """Read an image file; of one that moves, the first picture.

    Args:
        path: The file.

    Returns:
        The image upright, of type RGB.

    Raises:
        DataFormatError: If it is no sound image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise _broken_image(path, "it is of no known kind") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _broken_image(path, str(error).partition("\n")[0]) from error


def _broken_image(path: Path, why: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: is no sound image ({why.rstrip('.')}). Replace or remove it; --on_error=skip "
        "leaves such files out."
    )


def _find_files(images: Path, items: set[str], dataset: str) -> dict[str, Path]:
    """Find the image file of each item that has one, sorted by the items."""
    if not images.is_dir():
        raise DataFormatError(f"{images}: there is no such folder. Correct --images.")
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in FILE_ENDS)
    found: dict[str, Path] = {}
    for path in files:
        if path.stem not in items:
            continue
        if path.stem in found:
            raise DataFormatError(
                f"{images}: there are two files of the item {path.stem!r}, "
                f"{found[path.stem].name} and {path.name}. Keep one of them."
            )
        found[path.stem] = path
    if not found:
        there = f"there is for example {files[0].name}" if files else "there is no image at all"
        raise DataFormatError(
            f"{images}: has no image of an item of `{dataset}`; {there}. Name the files "
            f"<item>{' or <item>'.join(FILE_ENDS)}, as {min(items)}{FILE_ENDS[0]}."
        )
    return dict(sorted(found.items()))


def _describe_files(images: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Name, number, size and hash of all files, for the manifest and for the key of the rows."""
    digest = hashlib.sha256()
    size = 0
    for path in files:
        file = describe_file(path)
        size += file["bytes"]
        digest.update(f"{file['name']}\0{file['sha256']}\0".encode())
    return {"name": images.name, "files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def _encode(model: ImageEncoder, files: Sequence[Path], on_error: str) -> np.ndarray:
    """Features of image files, float32 (B, d); not a number for those that are skipped."""
    features = np.full((len(files), model.dim), np.nan, dtype=np.float32)  # (B, d)
    sound = {}
    for row, path in enumerate(files):
        try:
            sound[row] = read_image(path)
        except DataFormatError:
            if on_error == "stop":
                raise
    if sound:
        features[list(sound)] = model.encode(list(sound.values()))
    return features


def _check_broken(files: Sequence[Path], broken: np.ndarray, on_error: str) -> None:
    """Refuse files that an earlier call skipped and this one should not; or none but such files."""
    if broken.any() and (on_error == "stop" or broken.all()):
        raise _broken_image(files[int(broken.argmax())], "as an earlier call has found")
