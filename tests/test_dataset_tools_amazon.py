"""The command `amazon`: raw files of every release to the same domain, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from atomic_files import read_ratings
from raw_amazon import (
    RELEASES,
    SECRETS,
    json_line,
    metadata,
    pack,
    ratings_csv,
    ratings_frame,
    refusal,
    review,
    reviews,
    small_blocks,
    write,
)

from dataset_tools.atomic import read_items
from dataset_tools.cli import main
from dataset_tools.convert.amazon import convert
from recbole_cdr_mm.errors import DataFormatError

PACKINGS = ("plain", "gzip", "zstd")
TITLES = [
    'It\'s "in" \\ here',
    "'quoted'",
    'Say "no"',
    "a < b, 3 > 2",
    "\u4e2d\u6587 Caf\u00e9 \U0001f3b5",
    "",
    "\\n",
]


def every_form(ratings: pd.DataFrame, items: pd.DataFrame) -> list[tuple[str, bytes, bytes]]:
    """Release, ratings and metadata in all forms that there are."""
    return [
        (release, write_ratings(ratings, release), metadata(items, release))
        for release in RELEASES
        for write_ratings in (reviews, ratings_csv)
    ]


def check_round_trip(folder: Path, ratings: pd.DataFrame, items: pd.DataFrame) -> None:
    """Each form gives the same bytes, and the rows that it was made of."""
    files = set()
    for number, (release, ratings_file, meta_file) in enumerate(every_form(ratings, items)):
        converted = convert(
            write(folder / "r.json.gz", ratings_file, PACKINGS[number % 3]),
            "cd",
            folder,
            meta=write(folder / "m.json.gz", meta_file, PACKINGS[(number + number // 3) % 3]),
        )
        assert converted.options["release"] == release
        assert (converted.ratings, converted.items) == (len(ratings), ratings["item_id"].nunique())
        assert converted.users == ratings["user_id"].nunique()
        files.add(tuple((folder / "cd" / f"cd.{end}").read_bytes() for end in ("inter", "item")))
    assert len(files) == 1
    found = read_ratings(folder / "cd" / "cd.inter")
    pd.testing.assert_frame_equal(found, ratings, check_dtype=False)
    rated = items[items["item_id"].isin(ratings["item_id"])].reset_index(drop=True)
    found = read_items(folder / "cd" / "cd.item")
    pd.testing.assert_frame_equal(found, rated, check_dtype=False)
    assert converted.with_text == ((rated["title"] != "") | (rated["text"] != "")).sum()


def made_domain(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    ratings = ratings_frame(rng, 60, 40, 400).drop_duplicates(["user_id", "item_id"])
    items = pd.DataFrame({"item_id": [f"B{item:09d}" for item in range(45)]})
    items["title"] = [TITLES[number % len(TITLES)] for number in range(45)]
    items["text"] = [" ".join(TITLES[number % 5 : number % 4 + 1]) for number in range(45)]
    items.loc[3, ["title", "text"]] = ""
    return ratings.reset_index(drop=True), items


@pytest.mark.parametrize("block", [999, 8 << 20])
def test_all_releases_of_a_made_domain_give_the_same_files(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    small_blocks(monkeypatch, block)
    check_round_trip(tmp_path, *made_domain(rng))


@pytest.mark.parametrize("domain", ["small_movies", "small_music", "amm_music", "abm_books"])
def test_all_releases_of_a_real_domain_give_the_same_files(
    shared_data: Path, tmp_path: Path, domain: str
) -> None:
    folder = shared_data / domain
    ratings = read_ratings(folder / f"{domain}.inter")
    if domain == "abm_books":
        assert "timestamp" not in ratings
        ratings["timestamp"] = 1.4e9
    check_round_trip(tmp_path, ratings, read_items(folder / f"{domain}.item"))


@pytest.mark.parametrize("name", ["r.csv.gz", "reviews.json", "x"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_content_tells_the_release_and_the_packing(
    tmp_path: Path, rng: np.random.Generator, name: str, packing: str
) -> None:
    told = [
        convert(write(tmp_path / name, content, packing), "cd", tmp_path).options["release"]
        for _, content, _ in every_form(*made_domain(rng))
    ]
    assert told == ["2014", "2014", "2018", "2018", "2023", "2023"]


def test_the_user_may_say_the_release_where_ids_do_not_tell(tmp_path: Path) -> None:
    content = b"mine,yours,5,1400000000\n"
    path = write(tmp_path / "r.csv", content)
    for release, row in (("2014", "mine\tyours\t5"), ("2018", "yours\tmine\t5")):
        convert(path, release, tmp_path, release=release)
        assert row in (tmp_path / release / f"{release}.inter").read_text()
    assert "line 1: the content does not tell the release: mine" in refusal(path, tmp_path)
    assert "the content does not tell" in refusal(path, tmp_path, release="2023")


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("said", RELEASES)
def test_a_release_that_disagrees_with_the_content_is_refused(
    tmp_path: Path, rng: np.random.Generator, number: int, said: str
) -> None:
    ratings, items = made_domain(rng)
    release, content, _ = every_form(ratings, items)[number]
    path = write(tmp_path / "r", content)
    same_form = number in (0, 2) and said in ("2014", "2018")  # reviews of 2018 look like 2014's
    if release == said or same_form:
        assert convert(path, "cd", tmp_path, release=said).options["release"] == said
        return
    message = refusal(path, tmp_path, release=said)
    if number >= 4 or number in (0, 2):
        assert message.startswith(f"r, line 1: is of {release}, not of ")
    elif said == "2023":  # which has a header
        assert message.startswith("r, line 1: the content does not tell the release: ")
    else:  # either order can be read
        assert message.startswith("r, line 1, byte 0: ")
        assert f"stand in the order of {release}, not of {said}" in message


def test_neither_reviews_nor_counts_of_ratings_reach_the_output(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for release, ratings_file, meta_file in every_form(*made_domain(rng)):
        if b"Tellsall" in ratings_file:
            assert (b"98765" in meta_file) == (release == "2023")
        reviews_path = write(tmp_path / "r", ratings_file)
        template = "{title} {description}|{brand}|{features}|{categories}"
        convert(
            reviews_path, "cd", tmp_path, meta=write(tmp_path / "m", meta_file), template=template
        )
        written = b"".join(path.read_bytes() for path in sorted((tmp_path / "cd").iterdir()))
        assert "Caf\u00e9".encode() in written
        assert not [secret for secret in SECRETS if secret.encode() in written]


def with_faults(lines: list[bytes], faults: dict[int, bytes]) -> bytes:
    """Lines with a faulty one before each given place."""
    return b"".join(faults.get(number, b"") + line for number, line in enumerate(lines))


FAULTS = {
    3: b"{'never': 'ends\n",
    50: json_line(review(rating=9)),
    51: json_line(review(rating=0)),
    200: b'{"reviewerID": "A1"\n',
    300: json_line(review(user_id="")),
}
META_FAULTS = {0: b"<p>\n", 20: b"{'asin': 'B000000001', 'title': open('x')}\n"}
COUNTS = {"rating out of range": 2, "no JSON": 2, "bad id": 1, "no literal": 1, "code": 1}


@pytest.mark.parametrize("packing", PACKINGS)
def test_skip_leaves_out_the_faulty_lines_and_counts_them(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packing: str,
) -> None:
    small_blocks(monkeypatch)
    ratings, items = made_domain(rng)
    sound = reviews(ratings, "2014"), metadata(items, "2014")
    faulty = (
        with_faults(sound[0].splitlines(keepends=True), FAULTS),
        with_faults(sound[1].splitlines(keepends=True), META_FAULTS),
    )
    files = []
    for content in (sound, faulty):
        for name, data in zip(("r.json", "m.json"), content, strict=True):
            write(tmp_path / name, data, packing)
        arguments = [f"--reviews={tmp_path / 'r.json'}", f"--meta={tmp_path / 'm.json'}"]
        arguments += ["--dataset=cd", f"--data_path={tmp_path}", "--on_error=skip"]
        main(["amazon", *arguments, "--max_errors=7"])
        files.append([(tmp_path / "cd" / f"cd.{end}").read_bytes() for end in ("inter", "item")])
    assert files[0] == files[1]
    manifest = json.loads((tmp_path / "cd" / "cd.manifest.json").read_text())
    assert manifest["counts"]["faults"] == COUNTS
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "out of range" in line] == [
        f"cd: left out 2 x rating out of range; the first: r.json, line 52, byte "
        f"{faulty[0].index(FAULTS[50])}{'' if packing == 'plain' else ' of the unpacked file'}: "
        "a rating of 9 is outside 1 to 5."
    ]
    assert sum(line.startswith("cd: left out ") for line in printed) == len(COUNTS)

    for name in ("r.json", "m.json"):
        before = {path: path.read_bytes() for path in (tmp_path / "cd").iterdir()}
        assert sorted(path.name for path in before) == ["cd.inter", "cd.item", "cd.manifest.json"]
        with pytest.raises(SystemExit) as stop:
            main(["amazon", *arguments, f"--max_errors={6 if name == 'm.json' else 4}"])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"DataFormatError: {name}, line ")
        assert "That is one fault more than --max_errors=" in error
        assert "2 x rating out of range" in error
        assert len(error.splitlines()) == 1
        assert {path: path.read_bytes() for path in (tmp_path / "cd").iterdir()} == before


def test_skip_counts_are_those_of_the_result(tmp_path: Path, rng: np.random.Generator) -> None:
    lines = reviews(made_domain(rng)[0], "2014").splitlines(keepends=True)
    path = write(tmp_path / "r.json", with_faults(lines, FAULTS))
    converted = convert(path, "cd", tmp_path, on_error="skip")
    assert converted.faults == {"rating out of range": 2, "no JSON": 2, "bad id": 1}
    assert converted.read == len(lines)
    message = refusal(path, tmp_path)
    assert message.startswith("r.json, line 4, byte ")
    assert message.endswith("again. With --on_error=skip such lines are left out.")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described(*paths: Path) -> list[dict[str, Any]]:
    return [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    ]


@pytest.mark.parametrize("packing", PACKINGS)
def test_manifest_says_what_was_read_and_written(
    tmp_path: Path, rng: np.random.Generator, packing: str
) -> None:
    ratings, items = made_domain(rng)
    path = write(tmp_path / "r.json", reviews(ratings, "2018"), packing)
    meta = write(tmp_path / "m.json", metadata(items, "2018"), packing)
    converted = convert(path, "cd", tmp_path / "a", meta=meta, k_core=2)
    folder = tmp_path / "a" / "cd"
    text = (folder / "cd.manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["command"] == "amazon"
    assert manifest["options"]["k_core"] == 2
    assert manifest["options"]["release"] == "2018"
    assert manifest["inputs"] == described(path, meta)
    assert manifest["outputs"] == described(folder / "cd.inter", folder / "cd.item")
    assert manifest["counts"]["ratings"] == converted.ratings < len(ratings)
    assert str(tmp_path) not in text

    convert(path, "cd", tmp_path / "b", meta=meta, k_core=2)
    for name in ("cd.inter", "cd.item", "cd.manifest.json"):
        assert (tmp_path / "b" / "cd" / name).read_bytes() == (folder / name).read_bytes()


def test_a_damaged_file_is_refused_with_skip_too(tmp_path: Path) -> None:
    """What a wrong checksum vouches for may be wrong in any line."""
    sound = pack(json_line(review()) + json_line(review(item_id="B000000002")), "gzip")
    path = write(tmp_path / "r.json.gz", sound)
    assert convert(path, "cd", tmp_path, on_error="skip").read == 2
    path.write_bytes(sound[:-8] + bytes(4) + sound[-4:])
    with pytest.raises(DataFormatError, match=r"if its checksum alone is wrong, before"):
        convert(path, "dc", tmp_path, on_error="skip")
    assert not (tmp_path / "dc").exists()


def test_a_killed_conversion_is_made_good_by_the_next(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ratings = ratings_frame(rng, 50_000, 15_000, 200_000)
    path = write(tmp_path / "r.csv.gz", ratings_csv(ratings, "2014"), "gzip")
    items = pd.DataFrame({"item_id": sorted(ratings["item_id"].unique())})
    items = items.assign(title='It\'s "in" \\ here', text="'quoted' \"text\" \u00e9 " * 9)
    meta = write(tmp_path / "m.json.gz", metadata(items, "2014"), "gzip")
    convert(path, "cd", tmp_path / "whole", meta=meta)

    folder = tmp_path / "killed" / "cd"
    arguments = ["--reviews=r.csv.gz", "--meta=m.json.gz", "--dataset=cd", "--data_path=killed"]
    command = [sys.executable, "-m", "dataset_tools", "amazon", *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not list(folder.glob(".*.tmp/cd.inter")) and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = [path.name for path in folder.iterdir()]
    assert [name.split(".")[-3] for name in left] == [str(process.pid)]

    convert(path, "cd", tmp_path / "killed", meta=meta)
    assert sorted(os.listdir(folder)) == ["cd.inter", "cd.item", "cd.manifest.json"]
    for file in folder.iterdir():
        assert sha256(file) == sha256(tmp_path / "whole" / "cd" / file.name)


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "raw_amazon_2014"
    for name, domain, count in (
        ("reviews_Movies_and_TV_5.first999.json", "movie", 999),
        ("ratings_Amazon_Instant_Video.part.csv", "video", 20245),
    ):
        assert convert(raw / name, domain, tmp_path).ratings == count
        rows = read_ratings(tmp_path / domain / f"{domain}.inter")
        if name.endswith("csv"):
            names = ["user_id", "item_id", "rating", "timestamp"]
            expected = pd.read_csv(raw / name, names=names)
        else:
            lines = [json.loads(line) for line in (raw / name).read_text().splitlines()]
            fields = ["reviewerID", "asin", "overall", "unixReviewTime"]
            expected = pd.DataFrame(lines)[fields].set_axis(rows.columns, axis=1)
        pd.testing.assert_frame_equal(rows, expected, check_dtype=False)


def test_a_release_that_no_one_can_tell_is_no_crash(tmp_path: Path) -> None:
    good = json_line(review())
    for first in (b'{"cut\n', b'{"cut\n[]\n', b'{"cut\n5\n', b'{"a":' + b"[" * 99999 + b"\n"):
        path = write(tmp_path / "r.json", first + good)
        with pytest.raises(DataFormatError, match=r"r\.json, line 1, byte 0: is no JSON"):
            convert(path, "cd", tmp_path)
        assert convert(path, "cd", tmp_path, on_error="skip").read == 1
    path = write(tmp_path / "r.json", json_line({"title": "no review"}))
    assert 'the content does not tell the release: {"title"' in refusal(path, tmp_path / "none")


def test_a_spoiled_first_line_does_not_hide_the_release(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ratings, items = made_domain(rng)
    for release, content, _ in every_form(ratings, items):
        lines = content.splitlines(keepends=True)
        first = 1 if lines[0].startswith(b"user_id,") else 0
        for spoil in (b"{}", b"x", b"", lines[first].replace(b'"', b"", 1).rstrip()):
            lines[first] = spoil[:-1] + b"{\n"
            path = write(tmp_path / "r", b"".join(lines))
            converted = convert(path, "cd", tmp_path, on_error="skip")
            assert converted.options["release"] == release
            assert converted.read == len(ratings) - 1
