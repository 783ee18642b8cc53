from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.cli import main
from dataset_tools.encode import image_files
from dataset_tools.encode.image_encoder import ImageEncoder
from dataset_tools.encode.image_files import read_image
from dataset_tools.feature_store import matrix_hash, read_store
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.errors import ConfigError, DataFormatError

RATED = ["a.1", "b", "c", "d"]
DESCRIBED = "e"


def save_tiny_vit(folder: Path, *, pooler: bool = True) -> Path:
    """A vision transformer of two layers, with weights of a fixed seed, and its processor."""
    import torch
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A domain `cd` of five items, and a pair `movie_and_cd` that it belongs to."""
    folder = tmp_path / "data"
    for name in ("cd", "movie"):
        inter = pd.DataFrame({"user_id": "u", "item_id": RATED, "rating": 4.0})
        write_inter(folder / name / f"{name}.inter", inter)
    write_items(folder / "cd" / "cd.item", pd.DataFrame({"item_id": [DESCRIBED], "title": ["X"]}))
    (folder / "movie_and_cd").mkdir()
    (folder / "movie_and_cd" / "movie_and_cd.yaml").write_text(
        "source_dataset: movie\ntarget_dataset: cd\n"
    )
    return folder


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Images of four of the five items, and files that are none of theirs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("e.png", (40, 30)), ("b.JPEG", (32, 32)), ("a.1.webp", (7, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    moving = [Image.new("P", (20, 20), color) for color in (1, 2)]
    moving[0].save(folder / "c.gif", save_all=True, append_images=moving[1:])
    (folder / "other.png").write_text("of no item, and no image")
    (folder / "d.txt").write_text("no image")
    return folder


def run(data_path: Path, images: Path, encoder: Path, *options: str) -> None:
    told = [f"--images={images}", f"--encoder={encoder}", f"--data_path={data_path}"]
    main(["image", "--dataset=cd", "--device=cpu", *told, *options])


def refused(
    capsys: pytest.CaptureFixture[str], data_path: Path, images: Path, encoder: Path, *options: str
) -> str:
    """Run the command, which must end with one error and make no store."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(data_path, images, encoder, *options)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert not list(data_path.rglob("cd.image.*"))
    *_, error = captured.err.splitlines()  # transformers may have shown how it loads
    return error


def alone(encoder: Path, path: Path) -> Mapping[str, np.ndarray]:
    """What the model makes of one image, for each way of pooling."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(encoder, backend="pil")
    model = AutoModel.from_pretrained(encoder).eval()
    with torch.inference_mode(), Image.open(path) as image:
        output = model(**processor(image.convert("RGB"), return_tensors="pt"))
    states = output.last_hidden_state[0].numpy()  # (L, d)
    return {"cls": states[0], "mean": states.mean(0), "pooler": output.pooler_output[0].numpy()}


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_rows_are_those_of_images_encoded_one_by_one(
    data_path: Path, images: Path, vit: Path, pooling: str, batch_size: int
) -> None:
    run(data_path, images, vit, f"--pooling={pooling}", f"--batch_size={batch_size}")
    store = read_store(data_path / "cd", "cd", "image")
    assert store.ids == ["a.1", "b", "c", "e"]
    assert store.matrix.shape == (4, 16)
    for item, row in zip(store.ids, store.matrix, strict=True):
        (path,) = images.glob(f"{item}.*")
        expected = alone(vit, path)[pooling]
        assert np.abs(row - expected).max() < 1e-6 * np.linalg.norm(expected)


def test_a_store_its_manifest_and_a_table(
    data_path: Path, images: Path, vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data_path, images, vit, "--batch_size=3")
    folder = data_path / "cd"
    store = read_store(folder, "cd", "image")
    assert store.info == {
        "encoder": str(vit),
        "revision_or_hash": ImageEncoder(str(vit)).revision_or_hash,
        "pooling": "cls",
        "fields": [],
        "counts": {"items": 5, "with_image": 4, "broken": 0},
        "content_hash": matrix_hash(store.ids, store.matrix),
        "dim": 16,
        "dtype": "float32",
    }
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "domain"
    assert row.split() == ["cd", "5", "4", "0", "16", str(folder)]
    stored = [f"cd.image.{end}" for end in ("ids", "json", "manifest.json", "npy")]
    assert sorted(os.listdir(folder)) == [*stored, "cd.inter", "cd.item"]  # no part is left

    manifest = json.loads((folder / "cd.image.manifest.json").read_text())
    assert manifest["command"] == "image"
    assert manifest["options"] == {
        "dataset": "cd",
        "encoder": str(vit),
        "pooling": "cls",
        "batch_size": 3,
        "device": "cpu",
        "dtype": "float32",
        "on_error": "stop",
    }
    files = [describe_file(images / name) for name in ("a.1.webp", "b.JPEG", "c.gif", "e.png")]
    listing = "".join(f"{file['name']}\0{file['sha256']}\0" for file in files)
    assert manifest["inputs"] == [
        {
            "name": "images",
            "files": 4,
            "bytes": sum(file["bytes"] for file in files),
            "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        }
    ]
    assert manifest["counts"] == store.info["counts"]
    outputs = [folder / f"cd.image.{end}" for end in ("npy", "ids", "json")]
    assert manifest["outputs"] == [describe_file(path) for path in outputs]


def test_half_precision_and_a_store_elsewhere(
    data_path: Path, images: Path, vit: Path, tmp_path: Path
) -> None:
    run(data_path, images, vit)
    run(data_path, images, vit, "--dtype=float16", f"--feature_path={tmp_path / 'features'}")
    whole = read_store(data_path / "cd", "cd", "image")
    half = read_store(tmp_path / "features" / "cd", "cd", "image")
    np.testing.assert_array_equal(half.matrix, whole.matrix.astype(np.float16))
    assert half.info["content_hash"] == matrix_hash(half.ids, half.matrix)


def test_goes_on_after_an_error(
    data_path: Path,
    images: Path,
    vit: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that turns out broken costs no work, if it is then left out."""
    (images / "c.gif").write_bytes((images / "c.gif").read_bytes()[:20])
    error = refused(capsys, data_path, images, vit, "--batch_size=1")
    assert error.startswith(f"DataFormatError: {images / 'c.gif'}: is no sound image (")
    assert "Replace or remove it; --on_error=skip leaves such files out." in error
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "write_store", interrupt)
        with pytest.raises(RuntimeError, match="the machine stops here"):
            run(data_path, images, vit, "--batch_size=1", "--on_error=skip")
    assert capsys.readouterr().err.endswith("Goes on after 2 of 4 images of an earlier run.\n")
    # All rows are there now, one of them empty, which `stop` does not pass over.
    error = refused(capsys, data_path, images, vit, "--batch_size=1")
    assert f"{images / 'c.gif'}: is no sound image (as an earlier call has found)" in error

    run(data_path, images, vit, "--batch_size=1", "--on_error=skip")
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split()[:5] == ["cd", "5", "3", "1", "16"]
    assert captured.out.splitlines()[2] == "left out 1 broken images; the first: c.gif"
    store = read_store(data_path / "cd", "cd", "image")
    assert store.ids == ["a.1", "b", "e"]
    assert store.info["counts"] == {"items": 5, "with_image": 3, "broken": 1}
    assert store.info["content_hash"] == matrix_hash(store.ids, store.matrix)


def interrupt(*_: object) -> None:
    raise RuntimeError("the machine stops here")


def test_other_images_start_anew(
    data_path: Path,
    images: Path,
    vit: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "write_store", interrupt)
        with pytest.raises(RuntimeError, match="the machine stops here"):
            run(data_path, images, vit)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(images / "e.png")
    run(data_path, images, vit)
    assert "earlier run had other settings: files." in capsys.readouterr().err


def test_all_images_broken(
    data_path: Path, tmp_path: Path, vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "b.png").write_text("no image")
    with pytest.raises(SystemExit):
        run(data_path, tmp_path / "broken", vit, "--on_error=skip")
    assert "b.png: is no sound image" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 and no more", b"text"])
def test_files_that_are_no_sound_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.jpg"
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=r"b\.jpg: is no sound image \(.+\)\. Replace or"):
        read_image(path)


@pytest.mark.parametrize("end", ["jpg", "png", "webp", "gif", "bmp"])
def test_images_that_are_cut(tmp_path: Path, rng: np.random.Generator, end: str) -> None:
    path = tmp_path / f"b.{end}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    assert (read_image(path).size, read_image(path).mode) == ((64, 64), "RGB")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFormatError, match="is no sound image"):
        read_image(path)


def test_images_are_read_upright_and_in_colour(tmp_path: Path) -> None:
    image = Image.new("L", (2, 3), 7)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "b.png", exif=exif)
    read = read_image(tmp_path / "b.png")
    assert (read.size, read.getpixel((0, 0))) == ((3, 2), (7, 7, 7))


def test_images_as_small_as_can_be(vit: Path) -> None:
    """Three pixels high could be taken for three colours."""
    encoder = ImageEncoder(str(vit), device="cpu")
    sizes = [(1, 1), (3, 3), (5, 3), (3, 5), (1, 9)]
    rows = encoder.encode([Image.new("RGB", size, (10, 200, 30)) for size in sizes])
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], atol=1e-5)  # all of one colour


def test_two_files_of_one_item(
    data_path: Path, images: Path, vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (9, 9)).save(images / "b.png")
    error = refused(capsys, data_path, images, vit)
    assert (
        f"DataFormatError: {images}: there are two files of the item 'b', b.JPEG and b.png. Keep"
    ) in error


def test_folders_without_images(
    data_path: Path, tmp_path: Path, vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "none"
    error = refused(capsys, data_path, folder, vit)
    assert f"DataFormatError: {folder}: there is no such folder. Correct --images." in error
    folder.mkdir()
    error = refused(capsys, data_path, folder, vit)
    assert "has no image of an item of `cd`; there is no image at all. Name the files" in error
    (folder / "z.png").touch()
    error = refused(capsys, data_path, folder, vit)
    assert "there is for example z.png. Name the files <item>.jpg or <item>.jpeg or" in error
    assert "as a.1.jpg." in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pooling=maen"], "pooling `maen` is not one of cls, mean, pooler. Did you mean `mean`"),
        (["--on_error=skpi"], "on_error `skpi` is not one of stop, skip. Did you mean `skip`?"),
        (["--dtype=float8"], "dtype `float8` is not one of float16, float32."),
        (["--batch_size=0"], "batch_size must be 1 or more, not 0."),
        (["--device=gpu"], "device `gpu` is not one of cpu, cuda."),
        (["--dataset=movie_and_cd"], "is a pair, but a folder has the images of one domain"),
        (["--encoder=nobody/nothing"], "encoder `nobody/nothing`: transformers cannot load it ("),
        (["--features=x.b"], "give one of --images=DIR, a folder of image files, and --features="),
    ],
)
def test_options_that_do_not_fit(
    data_path: Path,
    images: Path,
    vit: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(capsys, data_path, images, vit, *options)


def test_features_have_no_options_of_images(
    data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [f"--data_path={data_path}", "--dataset=cd"]
    for options, message in (
        (["--features=x.b", "--pooling=cls"], "--pooling goes with --images, not with --features."),
        ([], "image: give one of --images=DIR"),
    ):
        with pytest.raises(SystemExit):
            main(["image", *told, *options])
        assert message in capsys.readouterr().err


def test_an_encoder_without_a_pooler(tmp_path: Path) -> None:
    folder = save_tiny_vit(tmp_path / "vit", pooler=False)
    ImageEncoder(str(folder))
    with pytest.raises(ConfigError, match=r"no weights for `pooler\..*, or another --pooling"):
        ImageEncoder(str(folder), pooling="pooler")


def test_a_model_of_texts_and_images_gives_its_part_for_images(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 32}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 9},
        vision_config={**small, "image_size": 32, "patch_size": 8},
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    encoder = ImageEncoder(str(tmp_path), pooling="pooler", device="cpu")
    image = Image.new("RGB", (40, 50), (10, 200, 30))
    with torch.inference_mode():
        pixels = encoder.processor(image, return_tensors="pt")
        expected = model.vision_model(**pixels).pooler_output.numpy()
    np.testing.assert_allclose(encoder.encode([image]), expected, atol=1e-6)


def test_an_encoder_whose_states_are_a_grid(tmp_path: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    torch.manual_seed(0)
    ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ).save_pretrained(tmp_path)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has no class token, .* Take --pooling=mean or pooler"):
        ImageEncoder(str(tmp_path))
    image = Image.new("RGB", (40, 40), (10, 200, 30))
    mean = ImageEncoder(str(tmp_path), pooling="mean", device="cpu").encode([image])
    pooler = ImageEncoder(str(tmp_path), pooling="pooler", device="cpu").encode([image])
    assert mean.shape == (1, 16)
    np.testing.assert_allclose(mean, pooler, atol=1e-5)  # this pooler takes the mean


def test_a_processor_that_needs_torchvision(tmp_path: Path, vit: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    processor = {"image_processor_type": "PPOCRV5ServerRecImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ConfigError, match=r"torchvision.* whose image processor needs no torchv"):
        ImageEncoder(str(tmp_path))
