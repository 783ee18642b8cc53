from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset_tools.check import check_dataset
from dataset_tools.cli import main
from dataset_tools.synthetic import make_dataset
from recbole_cdr_mm.errors import ConfigError, DataFormatError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound pair `p` with text features."""
    folder = tmp_path_factory.mktemp("sound")
    make_dataset(folder, "p", users=1100, items=30, ratings_per_user=5)
    main(["text", "--dataset=p", f"--data_path={folder}", "--encoder=lsa"])
    return folder


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound pair, to be damaged."""
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


def found(data: Path, severity: str = "error", dataset: str = "p") -> list[str]:
    return [
        f"{finding.where}: {finding.what}"
        for finding in check_dataset(data, dataset)
        if finding.severity == severity
    ]


def test_a_sound_pair_has_no_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(data) == []
    fine = found(data, "fine")
    assert any(line.startswith("p: 688 users are in both domains") for line in fine)
    assert any("p_cd.text.npy: " in line and "by lsa" in line for line in fine)
    main(["check", "--dataset=p", f"--data_path={data}"])
    assert "error" not in capsys.readouterr().out


def test_all_faults_are_reported_at_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inter = data / "p_cd" / "p_cd.inter"
    lines = inter.read_text().splitlines()
    lines[3] = "u1\tc1\t9\t1200000000"
    lines[5] = "u1\tc1\tgood\t1200000000"
    lines[7] = "u1\tc1\t4"
    lines[9] = "u1\tc1\t4\t1200000000000"
    lines[11] = "u1\t\t4\t1200000000"
    lines[13] = lines[13].replace("\t", "\t\t", 1)
    inter.write_text("\n".join([*lines, lines[-1]]) + "\n")
    item = data / "p_movie" / "p_movie.item"
    rows = item.read_text().splitlines()
    item.write_text("\n".join([*rows, rows[1], "m99999\ttoo few", 'm99998\t"quoted\ttext']) + "\n")
    errors = found(data)
    for message in (
        "1 x rating out of range; the first: p_cd.inter, line 4, byte ",
        "1 x bad rating; the first: p_cd.inter, line 6, byte ",
        "2 x wrong number of values; the first: p_cd.inter, line 8, byte ",
        "1 x bad time; the first: p_cd.inter, line 10, byte ",
        "1 x bad id; the first: p_cd.inter, line 12, byte ",
        "1 x item twice; the first: p_movie.item, line 32, byte ",
        "1 x wrong number of values; the first: p_movie.item, line 33, byte ",
        "1 x double quote; the first: p_movie.item, line 34, byte ",
    ):
        assert sum(message in error for error in errors) == 1, message
    assert any("1 ratings repeat user and item" in line for line in found(data, "warning"))
    with pytest.raises(SystemExit) as stop:
        main(["check", "--dataset=p", f"--data_path={data}"])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("DataFormatError: p: ")
    assert all(error in captured.out for error in errors)


def change_texts(data: Path) -> None:
    path = data / "p_cd" / "p_cd.item"
    path.write_text(path.read_text().replace("album", "record"))


def drop_matrix(data: Path) -> None:
    (data / "p_cd" / "p_cd.text.npy").unlink()


def cut_matrix(data: Path) -> None:
    path = data / "p_cd" / "p_cd.text.npy"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_matrix(data: Path) -> None:
    path = data / "p_cd" / "p_cd.text.npy"
    matrix = np.load(path)
    matrix[3, 1] = np.nan
    np.save(path, matrix)


def other_space(data: Path) -> None:
    main(["text", "--dataset=p_cd", f"--data_path={data}", "--encoder=lsa", "--fields=title"])


def other_header(data: Path) -> None:
    path = data / "p_cd" / "p_cd.inter"
    path.write_text(path.read_text().replace("rating:float", "stars:float", 1))


def strangers(data: Path) -> None:
    path = data / "p_cd" / "p_cd.inter"
    path.write_text(path.read_text().replace("\nu", "\nx"))


def empty(data: Path) -> None:
    (data / "p_cd" / "p_cd.inter").write_text("")


def no_item(data: Path) -> None:
    path = data / "p_cd" / "p_cd.item"
    path.write_text(path.read_text().replace("item_id:token", "id:token", 1))


def late_bytes(data: Path) -> None:
    """Beyond what is read to see the header."""
    path = data / "p_cd" / "p_cd.item"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:-1]) + rows[-1].replace(b"\t", b"\t\xff", 1))


def lone_carriage_return(data: Path) -> None:
    path = data / "p_cd" / "p_cd.item"
    path.write_bytes(path.read_bytes().replace(b"The ", b"The\r", 1))


def wrong_types(data: Path) -> None:
    path = data / "p_cd" / "p_cd.item"
    path.write_text(path.read_text().replace("item_id:token", "item_id:float", 1))


def short_row(data: Path) -> None:
    path = data / "p_cd" / "p_cd.inter"
    rows = path.read_text().splitlines()
    rows[5] = rows[5].rpartition("\t")[0]
    path.write_text("\n".join(rows) + "\n")


def odd_manifest(data: Path) -> None:
    (data / "p_cd" / "p_cd.manifest.json").write_text('{"options": null, "outputs": [5]}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (late_bytes, "p_cd.item: p_cd.item, line 31: is not utf-8"),
        (lone_carriage_return, "p_cd.item: p_cd.item, line "),
        (wrong_types, "`item_id:float` must be `item_id:token`"),
        (short_row, "1 x wrong number of values; the first: p_cd.inter, line 6, byte "),
        (odd_manifest, "p_cd.manifest.json: is no manifest"),
        (change_texts, "p_cd.text.npy: was made of other texts than those of the .item file"),
        (drop_matrix, "there is no p_cd.text.npy"),
        (cut_matrix, "p_cd.text.npy: is damaged or no matrix"),
        (spoil_matrix, "p_cd.text.npy: 1 rows have numbers that are not finite"),
        (other_space, "p: the text features differ in `revision_or_hash`"),
        (
            other_header,
            "there is no `rating:float`, only user_id:token, item_id:token, stars:float",
        ),
        (strangers, "p: no user is in both domains: p_movie has for example 'u0000"),
        (empty, "p_cd.inter: is empty or has no header"),
        (no_item, "p_cd.item, line 1: there is no `item_id:token`"),
    ],
)
def test_a_fault(data: Path, damage: Callable[[Path], None], message: str) -> None:
    assert not any(message in error for error in found(data))
    damage(data)
    assert any(message in error for error in found(data)), found(data)


def test_changed_outputs_and_missing_texts_are_warnings(data: Path) -> None:
    ratings = data / "r.csv"
    ratings.write_text("user_id,item_id,rating\nu1,c1,4\nu2,c2,5\n")
    main(["csv", f"--ratings={ratings}", "--dataset=d", f"--data_path={data}"])
    assert found(data, "warning", "d") == [
        "d.inter: has no timestamps: file order stands in for time",
        "d.item: is not there: items have no texts",
    ]
    with (data / "d" / "d.inter").open("a") as file:
        file.write("u3\tc1\t1\n")
    assert "d.manifest.json: d.inter was changed after it was made" in found(data, "warning", "d")
    (data / "d" / "d.manifest.json").write_text("{}")
    assert found(data, "error", "d") == ["d.manifest.json: is no manifest (KeyError('outputs'))"]


def test_the_range_of_ratings_is_that_of_the_manifest(data: Path) -> None:
    ratings = data / "r.csv"
    ratings.write_text("user_id,item_id,rating\nu1,c1,8\nu2,c2,5\n")
    for name in ("d", "e"):
        options = ["--rating_range=1,10", f"--dataset={name}", f"--data_path={data}"]
        main(["csv", f"--ratings={ratings}", *options])
    assert found(data, "error", "d") == []
    main(["pair", "--dataset=de", "--source=d", "--target=e", f"--data_path={data}"])
    assert "rating_range:\n- 1.0\n- 10.0\n" in (data / "de" / "de.yaml").read_text()
    assert found(data, "error", "de") == []
    (data / "d" / "d.manifest.json").unlink()
    assert any("rating out of range" in error for error in found(data, "error", "d"))
    assert not [
        finding
        for finding in check_dataset(data, "d", rating_range=(1, 10))
        if finding.severity == "error"
    ]


def test_names_with_the_letters_of_patterns(data: Path) -> None:
    shutil.copytree(data / "p_cd", data / "a[1]")
    for path in (data / "a[1]").iterdir():
        path.rename(path.with_name(path.name.replace("p_cd", "a[1]")))
    (data / "a[1]" / "a[1].text.npy").write_bytes(b"broken")
    assert any("a[1].text.npy: is damaged" in error for error in found(data, "error", "a[1]"))


def test_a_folder_of_features_that_is_not_there(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: there is no such folder"):
        check_dataset(data, "p", feature_path=data / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("source_dataset: p_cd\ntarget_dataset: p_cd\n", "source and target are both `p_cd`"),
        ("source_dataset: p_cd\n  target: x\n", r"p\.yaml: is no YAML \(.*\)"),
        ("- p_cd\n", "a pair needs `source_dataset`"),
    ],
)
def test_a_pair_that_is_none(data: Path, content: str, message: str) -> None:
    (data / "p" / "p.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        check_dataset(data, "p")
    assert len(str(error.value).splitlines()) == 1


def test_a_data_set_that_is_not_there(data: Path) -> None:
    with pytest.raises(
        DataFormatError,
        match=r"there is no p_dc/p_dc\.inter and no pair `p_dc`\. Did you mean `p_cd`",
    ):
        check_dataset(data, "p_dc")


def test_real_pairs_are_sound(shared_data: Path) -> None:
    for name in ("amazon_books_movies", "amazon_movies_music", "amazon_small"):
        assert found(shared_data, "error", name) == []
