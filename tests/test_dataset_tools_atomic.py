from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dataset_tools import atomic
from dataset_tools.atomic import (
    read_inter,
    read_items,
    read_link,
    write_inter,
    write_items,
)
from dataset_tools.safe_output import atomic_folder, atomic_path
from recbole_cdr_mm.errors import ConfigError, DataFormatError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = "u1\ti1\t4\t100\nu2\ti1\t4.5\t200\n"


def write(tmp_path: Path, content: str | bytes, name: str = "movie.inter") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: object) -> pd.DataFrame:
    return read_inter(path, **{"rating_range": (1, 5), **options})  # type: ignore[arg-type]


def test_reads_ratings(tmp_path: Path) -> None:
    frame = read(write(tmp_path, HEADER + ROWS))
    assert list(frame.columns) == ["user_id", "item_id", "rating", "timestamp"]
    assert frame.to_numpy().tolist() == [["u1", "i1", 4.0, 100.0], ["u2", "i1", 4.5, 200.0]]
    assert frame["rating"].dtype == frame["timestamp"].dtype == np.float64


def test_columns_may_stand_in_any_order_and_others_are_left_out(tmp_path: Path) -> None:
    content = "rating:float\tnote:token_seq\titem_id:token\tuser_id:token\n3\tgood one\ti\tu\n"
    frame = read(write(tmp_path, content))
    assert frame.to_dict("records") == [{"user_id": "u", "item_id": "i", "rating": 3.0}]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, "who:token;what:token;stars:float;when:float\nu;i;9;1\n")
    frame = read_inter(
        path,
        user_field="who",
        item_field="what",
        rating_field="stars",
        time_field="when",
        rating_range=(1, 10),
        separator=";",
    )
    assert frame.to_dict("records") == [{"who": "u", "what": "i", "stars": 9.0, "when": 1.0}]


def test_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, (HEADER + "é\ti\t4\t1\n").encode("latin-1"))
    assert read(path, encoding="latin-1")["user_id"].tolist() == ["é"]
    with pytest.raises(DataFormatError, match=r"movie\.inter, line 2: is not utf-8\. Set `enc"):
        read(path)


@pytest.mark.parametrize("rows", ["NA\tnull\t4\t1\n", "007\t1e5\t4\t1\n", "a b\t'x'\t4\t1\n"])
def test_ids_stay_as_they_are_written(tmp_path: Path, rows: str) -> None:
    frame = read(write(tmp_path, HEADER + rows))
    assert frame[["user_id", "item_id"]].iloc[0].tolist() == rows.split("\t")[:2]


def test_a_double_quote_swallows_no_lines(tmp_path: Path) -> None:
    frame = read(write(tmp_path, HEADER + '"u1\ti1\t4\t1\n' + ROWS))
    assert frame["user_id"].tolist() == ['"u1', "u1", "u2"]


def test_windows_line_ends_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    content = (HEADER + "\n" + ROWS + "\n  \n").replace("\n", "\r\n")
    assert len(read(write(tmp_path, content))) == 2


def test_blank_lines_count_in_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "\n" + ROWS + "\n\nu3\ti1\tx\t1\n")
    with pytest.raises(DataFormatError, match=r"movie\.inter, line 7, field `rating:float`: 'x'"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"movie\.inter: is empty or has no header"),
        (HEADER, r"movie\.inter: has a header but no rows"),
        (HEADER + "\n\n", r"movie\.inter: has a header but no rows"),
        (
            HEADER.replace("rating", "ratings") + ROWS,
            r"line 1: there is no column `rating`, only `user_id`, `item_id`, `ratings`, "
            r"`timestamp`\. Did you mean `ratings`\?",
        ),
        (HEADER.replace("item_id", "xyz") + ROWS, r"line 1: there is no column `item_id`, only"),
        (HEADER.replace("rating:float", "rating") + ROWS, r"line 1: `rating` is no `name:type`"),
        (HEADER.replace("rating:", "rating:f:") + ROWS, r"line 1: .* unknown type `f:float`"),
        (
            HEADER.replace("rating:float", "rating:flaot") + ROWS,
            r"line 1: `rating:flaot` has the unknown type `flaot`.*Did you mean `float`\?",
        ),
        (
            HEADER.replace("rating:float", "rating:token") + ROWS,
            r"line 1: `rating:token` must be `rating:float`",
        ),
        (HEADER.replace("timestamp:float", "timestamp:token") + ROWS, r"must be `timestamp:float`"),
        (HEADER.replace("timestamp", "rating") + ROWS, r"line 1: two columns are called `rating`"),
        (HEADER + ROWS + "u3\ti1\t4\n", r"line 4: has 3 fields, but the header has 4"),
        (HEADER + "u3\ti1\t4\t1\t1\n" + ROWS, r"line 2: has 5 fields, but the header has 4"),
        (HEADER + ROWS + "u3\n", r"line 4: has 1 field, but the header has 4"),
        (
            HEADER + "u1\ti1\t4\t1\nu1\ti2\tfive\t1\n",
            r"^movie\.inter, line 3, field `rating:float`: 'five' is no number\. "
            r"Correct it or convert again\.$",
        ),
        (HEADER + "u1\ti1\tnan\t1\n", r"line 2, field `rating:float`: 'nan' is no number"),
        (HEADER + "u1\ti1\tinf\t1\n", r"line 2, field `rating:float`: 'inf' is no number"),
        (HEADER + "u1\ti1\tTrue\t1\n", r"line 2, field `rating:float`: 'True' is no number"),
        (HEADER + "u1\ti1\t\t1\n", r"line 2, field `rating:float`: is empty"),
        (
            HEADER + ROWS + "u3\ti1\t5.5\t1\n",
            r"line 4, field `rating:float`: 5\.5 is outside 1 to 5\. Set `rating_range`",
        ),
        (HEADER + "u3\ti1\t0\t1\n", r"line 2, field `rating:float`: 0 is outside 1 to 5"),
        (HEADER + "\ti1\t4\t1\n", r"line 2, field `user_id:token`: is empty"),
        (HEADER + "u1\t\t4\t1\n", r"line 2, field `item_id:token`: is empty"),
        (HEADER + "u1\ti1\t4\tnoon\n", r"line 2, field `timestamp:float`: 'noon' is no number"),
        (HEADER + "u1\ti1\t4\t\n", r"line 2, field `timestamp:float`: is empty"),
    ],
)
def test_refuses_malformed_ratings(tmp_path: Path, content: str, message: str) -> None:
    assert len(read(write(tmp_path, HEADER + ROWS))) == 2  # what each of them is one step from
    with pytest.raises(DataFormatError, match=message):
        read(write(tmp_path, content))


def test_a_wider_rating_range_takes_the_rating(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "u\ti\t0\t1\nu\tj\t10\t1\n")
    assert read(path, rating_range=(0, 10))["rating"].tolist() == [0.0, 10.0]


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"movie\.inter: there is no such file"):
        read(tmp_path / "movie.inter")


ITEMS = "item_id:token\ttitle:token_seq\tyear:float\ttext:token_seq\n"


def test_reads_items(tmp_path: Path) -> None:
    path = write(tmp_path, ITEMS + "i1\tUp\t2009\tA tale\ni2\t\t\t\n", "movie.item")
    assert read_items(path).to_dict("records") == [
        {"item_id": "i1", "title": "Up", "text": "A tale"},
        {"item_id": "i2", "title": "", "text": ""},
    ]
    assert list(read_items(path, fields=["text", "plot"]).columns) == ["item_id", "text"]


def test_reads_items_without_any_text(tmp_path: Path) -> None:
    path = write(tmp_path, "item_id:token\ni1\n", "movie.item")
    assert read_items(path).to_dict("records") == [{"item_id": "i1"}]


def test_an_item_that_is_written_twice_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, ITEMS + "i1\tUp\t\t\n" * 2 + "i2\tUp\t\t\n", "movie.item")
    assert read_items(path)["item_id"].tolist() == ["i1", "i2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "i1\tUp\t\tx\ni1\tUp\t\ty\n",
            r"movie\.item, line 3, field `item_id:token`: 'i1' stands in an earlier line with oth",
        ),
        ("\tUp\t\tx\n", r"movie\.item, line 2, field `item_id:token`: is empty"),
        ("i1\tUp\tx\n", r"movie\.item, line 2: has 3 fields, but the header has 4"),
        ("", r"movie\.item: has a header but no rows"),
    ],
)
def test_refuses_malformed_items(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        read_items(write(tmp_path, ITEMS + rows, "movie.item"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (ITEMS.replace("item_id", "item_ids"), r"no column `item_id`.*Did you mean `item_ids`\?"),
        (ITEMS.replace("text:token_seq", "text:float"), "must be `text:token` or `text:token_seq`"),
    ],
)
def test_refuses_a_wrong_header_of_items(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        read_items(write(tmp_path, header + "i1\tUp\t1\tx\n", "movie.item"))


LINK = "source_user_id:token\ttarget_user_id:token\n"
LINK_FIELDS = ("source_user_id", "target_user_id")


def test_reads_a_link_of_users(tmp_path: Path) -> None:
    frame = read_link(write(tmp_path, LINK + "a\tx\nb\ty\n", "user.link"), LINK_FIELDS)
    assert frame.to_numpy().tolist() == [["a", "x"], ["b", "y"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a\tx\na\ty\n", r"line 3, field `source_user_id:token`: 'a' stands in an earlier line"),
        ("a\tx\nb\tx\n", r"line 3, field `target_user_id:token`: 'x' stands in an earlier line"),
        ("a\t\n", r"line 2, field `target_user_id:token`: is empty"),
    ],
)
def test_refuses_an_ambiguous_link(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        read_link(write(tmp_path, LINK + rows, "user.link"), LINK_FIELDS)


def test_ratings_read_back_exactly(tmp_path: Path, rng: np.random.Generator) -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["NA", "u 2", "é"] + ["u"] * 1000,
            "item_id": ["1", "007", '5"'] + ["i"] * 1000,
            "rating": [4.0, 4.5, 1.1 + 2.2, *rng.uniform(1, 5, 1000)],
            "timestamp": [1.4e9, 1393545600.125, 0.0, *rng.uniform(0, 1e10, 1000)],
        }
    )
    path = tmp_path / "movie" / "movie.inter"
    write_inter(path, frame)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == [HEADER.strip(), "NA\t1\t4\t1400000000", "u 2\t007\t4.5\t1393545600.125"]
    read_back = read(path)
    text = read_back.astype({"user_id": str, "item_id": str})
    pd.testing.assert_frame_equal(text, frame, check_dtype=False, check_exact=True)
    write_inter(tmp_path / "again.inter", read_back)
    assert (tmp_path / "again.inter").read_bytes() == path.read_bytes()


def test_ratings_without_times(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [4.0]})
    write_inter(tmp_path / "movie.inter", frame)
    assert read(tmp_path / "movie.inter").to_dict("records") == frame.to_dict("records")


@pytest.mark.parametrize("bad", ["", "a\tb", "a\nb", "a\rb", '"a'])
@pytest.mark.parametrize("field", ["user_id", "item_id"])
def test_refuses_ids_that_no_line_can_hold(tmp_path: Path, field: str, bad: str) -> None:
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [4.0]})
    with pytest.raises(DataFormatError, match=f"cannot be a `{field}`"):
        write_inter(tmp_path / "movie.inter", frame.assign(**{field: [bad]}))
    assert not list(tmp_path.iterdir())


def test_refuses_to_write_a_rating_that_is_none(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [np.nan]})
    with pytest.raises(DataFormatError, match="field `rating` has values that are no number"):
        write_inter(tmp_path / "movie.inter", frame)


def test_texts_are_made_to_fit_into_a_line(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "item_id": ["i1", "i2", "i3"],
            "title": ['"Heroes"', "a\tb\nc\r\nd", None],
            "text": ['""x', 'say "hi"', "NA"],
        }
    )
    write_items(tmp_path / "cd.item", frame)
    read_back = read_items(tmp_path / "cd.item")
    assert read_back["title"].tolist() == ["'Heroes\"", "a b c  d", ""]
    assert read_back["text"].tolist() == ["''x", 'say "hi"', "NA"]
    write_items(tmp_path / "again.item", read_back)
    assert (tmp_path / "again.item").read_bytes() == (tmp_path / "cd.item").read_bytes()


def test_recbole_reads_the_same_texts(tmp_path: Path) -> None:
    titles = ['"Heroes"', 'a "b" c', '"', "it's", "#1 hit"]
    frame = pd.DataFrame({"item_id": list("abcde"), "title": titles})
    write_items(tmp_path / "cd.item", frame)
    # As RecBole 1.2.1 reads, recbole/data/dataset/dataset.py.
    as_recbole = pd.read_csv(tmp_path / "cd.item", delimiter="\t", dtype=str, engine="python")
    assert as_recbole.to_numpy().tolist() == read_items(tmp_path / "cd.item").to_numpy().tolist()


def test_atomic_path_writes_what_a_link_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "folder" / "file.txt", tmp_path / "link.txt"
    file.parent.mkdir()
    link.symlink_to(file)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_atomic_path_leaves_a_pipe_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a device or a pipe"), atomic_path(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_atomic_path_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        assert path.parent in temporary.parents
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_half_killed_write_leaves_the_old_file_whole(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = write(tmp_path, HEADER + ROWS)
    before = path.read_bytes()

    def stop_half_way() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [1.0]})
        raise error

    with pytest.raises(error):
        write_inter(path, stop_half_way())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_refuses_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file: cannot write `x\.inter` here .* another folder"),
        atomic_path(tmp_path / "file" / "x.inter"),
    ):
        pass


def test_real_files_survive_reading_and_writing(shared_data: Path, tmp_path: Path) -> None:
    for name in ("small_movies", "small_music"):
        folder = shared_data / name
        write_inter(tmp_path / "x.inter", read(folder / f"{name}.inter"))
        write_items(tmp_path / "x.item", read_items(folder / f"{name}.item"))
        for end in ("inter", "item"):
            assert (tmp_path / f"x.{end}").read_bytes() == (folder / f"{name}.{end}").read_bytes()


def test_leftovers_of_killed_processes_are_cleared_away_and_no_others(tmp_path: Path) -> None:
    host = socket.gethostname().replace(".", "-")
    gone, reused, alive, elsewhere = (
        tmp_path / f".x.{owner}.abc.tmp"
        for owner in (f"{host}.99999999", f"{host}.{os.getpid()}", f"{host}.1", f"far-{host}.99999")
    )
    for folder in (gone, reused, alive, elsewhere):
        folder.mkdir()
    os.utime(reused, (1, 1))  # older than this process, which has the number of a killed one
    with atomic_path(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
        assert temporary.exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file.txt", alive.name, elsewhere.name}


def test_a_folder_in_the_place_of_a_file_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(ConfigError, match=r"b: is a folder\. Remove it"),
        atomic_folder(tmp_path) as folder,
    ):
        [(folder / name).touch() for name in "ab"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROWS,
        HEADER + ROWS.replace("\n", "\r\n"),
        HEADER + "u1\ti1\t4\t100\n\nu2\ti1\t4.5\t200\n\n",
        HEADER + "u1\ti1\t4\t100\nu2\ti1\t4.5\n",
        HEADER + "u1\ti1\t4\t100\nu2\ti1\t4.5\t200\t7\n",
        HEADER + "u1\ti1\t4\t100\nu2\t\t4.5\t200\n",
        HEADER + "u1\ti1\t4\t100\nu2\ti1\t4.5\t\n",
        HEADER + "u1\ti1\t 4\t100\nu2\ti1\t1_0e-1\t200\n",
        HEADER + "u1\ti1\tinf\t100\nu2\ti1\tnan\t200\n",
        HEADER + 'u1\t"i1\t4\t100\nu2\ti"1"\t4.5\t200\n',
        HEADER + "u1 \ti1\t4\t100\n u1\tNA\t4.5\t200\nU1\tnull\t5\t0\n",
        HEADER + "z\ti\t4\t100\né\ti\t4\t100\n\N{GRINNING FACE}\ti\t4\t100\n\uffee\ti\t4\t100\n",
        HEADER + "u1\ti1\t4\t100\nu2\ti1\t7\t200\n",
        HEADER + "u\r1\ti1\t4\t100\n",
        HEADER + "u1\ti1\t4\t100",
        "note:token_seq\t" + HEADER + "\tu1\ti1\t4\t100\nx\tu2\ti1\t4.5\t200\n",
        HEADER.replace("timestamp", "when") + ROWS,
        HEADER.replace("timestamp:float", "timestamp:token") + ROWS,
        HEADER,
        "",
    ],
)
def test_the_fast_reader_reads_what_the_careful_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = write(tmp_path, content)

    def outcome() -> object:
        try:
            return read(path).to_dict("records")
        except DataFormatError as error:
            return str(error)

    fast = outcome()
    monkeypatch.setattr(atomic, "_read_without_fault", lambda *_: None)
    assert fast == outcome()
