from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataset_tools.atomic import read_inter, read_items
from dataset_tools.cli import main
from dataset_tools.convert.delimited import RatingTable
from dataset_tools.convert.table import convert
from dataset_tools.pair import make_pair, write_pair_file
from dataset_tools.synthetic import make_dataset
from recbole_cdr_mm.errors import ConfigError, DataFormatError

START = 1_147_880_044
RATINGS = [
    ("ann", "10", 4.0, START),
    ("ann", "20", 0.5, START + 5),
    ("bob", "10", 5.0, START + 3),
    ("ann", "10", 2.0, START + 9),
]
KEPT = [["ann", "20", 0.5, START + 5], ["bob", "10", 5.0, START + 3], ["ann", "10", 2.0, START + 9]]
NAMES = {"user": "userId", "item": "movieId", "rating_range": (0.5, 5)}
NO_HEADER = {
    "columns": ["userId", "movieId", "rating", "timestamp"],
    "separator": "::",
    **NAMES,
}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def ratings_csv(path: Path, separator: str = ",", header: bool = True, end: str = "\n") -> Path:
    head = separator.join(("userId", "movieId", "rating", "timestamp")) + end if header else ""
    lines = (separator.join(map(str, row)) + end for row in RATINGS)
    return write(path, head + "".join(lines))


def rows(data_path: Path, name: str = "films") -> list[list[Any]]:
    path = data_path / name / f"{name}.inter"
    return read_inter(path, rating_range=(0.5, 5)).to_numpy().tolist()


def test_a_csv_with_a_header(tmp_path: Path) -> None:
    made = convert(ratings_csv(tmp_path / "r.csv"), "films", tmp_path, **NAMES)
    assert (made.users, made.items, made.ratings, made.read, made.repeated) == (2, 2, 3, 4, 1)
    assert rows(tmp_path) == KEPT
    assert not (tmp_path / "films" / "films.item").exists()


@pytest.mark.parametrize("separator", [";", "\t", "::", "|"])
def test_any_separator_without_a_header(tmp_path: Path, separator: str) -> None:
    file = ratings_csv(tmp_path / "ratings.dat", separator, header=False)
    convert(file, "films", tmp_path, **NO_HEADER | {"separator": separator})
    assert rows(tmp_path) == KEPT


def test_windows_line_ends_a_mark_and_gzip(tmp_path: Path) -> None:
    plain = ratings_csv(tmp_path / "r.csv", end="\r\n")
    packed = tmp_path / "r.csv.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    convert(packed, "films", tmp_path, **NAMES)
    assert rows(tmp_path) == KEPT


def test_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(RATINGS, schema=["userId", "movieId", "rating", "timestamp"], orient="row")
    numbers = frame.with_columns(
        pl.col("movieId").cast(pl.Int32),
        pl.from_epoch("timestamp").alias("timestamp"),  # a date, as pandas writes it
    )
    numbers.write_parquet(tmp_path / "r.parquet")
    items = pl.DataFrame({"movieId": [10, 30], "title": ["Up", "Not rated"]})
    items.write_parquet(tmp_path / "i.parquet")
    made = convert(
        tmp_path / "r.parquet",
        "films",
        tmp_path,
        **NAMES,
        items=tmp_path / "i.parquet",
        title="title",
    )
    assert rows(tmp_path) == KEPT
    assert made.with_text == 1
    titles = read_items(tmp_path / "films" / "films.item")["title"].tolist()
    assert titles == ["Up", ""]


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_dates_of_parquet_have_a_unit_of_their_own(tmp_path: Path, unit: str) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [3], "timestamp": [START]})
    frame = frame.with_columns(pl.from_epoch("timestamp").cast(pl.Datetime("ns")))
    frame.write_parquet(tmp_path / "r.parquet")
    convert(tmp_path / "r.parquet", "d", tmp_path, time_unit=unit)
    assert rows(tmp_path, "d")[0][3] == START


def test_times_in_other_units_and_as_dates(tmp_path: Path) -> None:
    head = "user_id,item_id,rating,timestamp\n"
    for name, time, options in (
        ("ms", f"{START}250", {"time_unit": "ms"}),
        ("date", "2006-05-17", {"time_format": "%Y-%m-%d"}),
        ("none", f"{START}", {}),
    ):
        convert(write(tmp_path / "r.csv", f"{head}u,i,3,{time}\n"), name, tmp_path, **options)
    assert rows(tmp_path, "ms")[0][3] == START + 0.25
    assert rows(tmp_path, "date")[0][3] == 1_147_824_000
    assert rows(tmp_path, "none")[0][3] == START


def test_a_file_without_times(tmp_path: Path) -> None:
    convert(write(tmp_path / "r.csv", "user_id,item_id,rating\nu,i,3\nu,i,4\n"), "d", tmp_path)
    assert (tmp_path / "d" / "d.inter").read_text().splitlines()[1:] == ["u\ti\t4"]


def test_ids_may_have_blanks_quotes_and_any_script(tmp_path: Path) -> None:
    lines = 'user_id,item_id,rating\n"Doe, Ann",Amélie 2,3\n李,a""b,4\n'
    convert(write(tmp_path / "r.csv", lines), "d", tmp_path)
    ids = [row[:2] for row in rows(tmp_path, "d")]
    assert ids == [["Doe, Ann", "Amélie 2"], ["李", 'a""b']]


ITEMS = '''movieId,title,genres,plot
10,"Up, and ""away""","Family|Comedy","A house &amp; <b>balloons</b>
It flies."
20,Heat,Crime,
40,Nobody rated this,,
'''


def test_items_with_quotes_and_line_ends(tmp_path: Path) -> None:
    made = convert(
        ratings_csv(tmp_path / "r.csv"),
        "films",
        tmp_path,
        **NAMES,
        items=write(tmp_path / "i.csv", ITEMS),
        title="title",
        text=["genres", "plot"],
    )
    assert read_items(tmp_path / "films" / "films.item").to_numpy().tolist() == [
        ["10", 'Up, and "away"', "Family|Comedy. A house & balloons It flies."],
        ["20", "Heat", "Crime"],
    ]
    assert made.with_text == 2


def test_items_of_another_encoding_without_a_header(tmp_path: Path) -> None:
    convert(
        ratings_csv(tmp_path / "ratings.dat", "::", header=False),
        "films",
        tmp_path,
        **NO_HEADER,
        encoding="latin-1",
        items=write(tmp_path / "movies.dat", "10::Amélie (2001)::Comedy\n", "latin-1"),
        items_columns=["movieId", "title", "genres"],
        title="title",
        text=["genres"],
    )
    items = read_items(tmp_path / "films" / "films.item").to_numpy().tolist()
    assert items == [["10", "Amélie (2001)", "Comedy"], ["20", "", ""]]


def test_core_and_duplicates_reach_the_ratings(tmp_path: Path) -> None:
    lines = "".join(f"{u},{i},{r}\n" for u, i, r in ["ax2", "ax4", "ay3", "bx1", "by5", "cx1"])
    file = write(tmp_path / "r.csv", f"user_id,item_id,rating\n{lines}")
    made = convert(file, "d", tmp_path, duplicates="mean", k_core=2)
    assert (tmp_path / "d" / "d.inter").read_text().splitlines()[1:] == [
        "a\tx\t3",
        "a\ty\t3",
        "b\tx\t1",
        "b\ty\t5",
    ]
    assert (made.read, made.repeated, made.outside_core, made.ratings) == (6, 1, 1, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ann,10,4.0", r"r\.csv, line 6, byte 120: has 3 values, not 4: userId, movieId, rating, "),
        ("ann,10,4.0,1,2", r"line 6, byte 120: has 5 values, not 4"),
        ("ann,10,good,1147880044", r"line 6, byte 120: the rating 'good' is no number"),
        ("ann,10,0,1147880044", r"a rating of 0 is outside 0\.5 to 5; --rating_range says how far"),
        ("ann,10,nan,1147880044", r"a rating of nan is outside 0\.5 to 5"),
        ("ann,10,4,1147880044000", r"the time 1147880044000 is in ms, not in s"),
        ("ann,10,4,yesterday", r"the time 'yesterday' is no number"),
        (",10,4,1147880044", r"the user '' is not an id"),
        ("ann, 10,4,1147880044", r"the item ' 10' is not an id: .* begin or end with a blank"),
        ('"ann,10,4,1147880044', r"line 6, byte 120: has a value whose double quotes do not close"),
        ('ann,"a\tb",4,1147880044', r"the item 'a\\tb' is not an id"),
    ],
)
def test_faulty_lines(tmp_path: Path, line: str, message: str) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    before = file.read_bytes()
    assert len(before) == 120
    file.write_bytes(before + f"{line}\nbob,20,3,{START}\n".encode())
    with pytest.raises(DataFormatError, match=message) as error:
        convert(file, "films", tmp_path, **NAMES)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "films").exists()
    made = convert(file, "films", tmp_path, **NAMES, on_error="skip")
    assert sum(made.faults.values()) == 1
    assert rows(tmp_path) == [*KEPT, ["bob", "20", 3.0, START]]


def test_a_wrong_encoding_is_a_fault(tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", "user_id,item_id,rating\nzoë,10,4\n", "latin-1")
    with pytest.raises(DataFormatError, match=r"line 2, byte 23: is not utf-8 \(.*0xeb"):
        convert(file, "films", tmp_path)
    convert(file, "films", tmp_path, encoding="latin-1")
    assert rows(tmp_path) == [["zoë", "10", 4.0]]


def test_faulty_rows_of_parquet_are_named_by_number(tmp_path: Path) -> None:
    frame = pl.DataFrame(RATINGS, schema=["userId", "movieId", "rating", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "r.parquet")
    options = {"user": "userId", "item": "movieId"}
    with pytest.raises(DataFormatError, match=r"r\.parquet, row 2: a rating of 0\.5 is outside 1"):
        convert(tmp_path / "r.parquet", "films", tmp_path, **options)
    made = convert(tmp_path / "r.parquet", "films", tmp_path, **options, on_error="skip")
    assert made.faults == {"rating out of range": 1}
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "r.parquet").read_bytes()[:-9])
    with pytest.raises(DataFormatError, match=r"cut\.parquet: is no sound parquet file"):
        convert(tmp_path / "cut.parquet", "films", tmp_path, **options)


@pytest.mark.parametrize(("kind", "line"), [("r.csv", 5), ("r.parquet", 4)])
def test_repeated_ratings_can_be_refused(tmp_path: Path, kind: str, line: int) -> None:
    ratings_csv(tmp_path / "r.csv")
    pl.read_csv(tmp_path / "r.csv").write_parquet(tmp_path / "r.parquet")
    where = f"line {line}, byte 98" if kind == "r.csv" else f"row {line}"
    with pytest.raises(DataFormatError, match=f"{kind}, {where}: user 'ann' rates item '10' a sec"):
        convert(tmp_path / kind, "films", tmp_path, **NAMES, duplicates="error")


def test_faulty_items_are_named_by_their_first_line(tmp_path: Path) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    items = write(tmp_path / "i.csv", ITEMS + "20,too,few\n10,Up again,,\n")
    options = {**NAMES, "items": items, "title": "title"}
    with pytest.raises(DataFormatError, match=r"i\.csv, line 6, byte 144: has 3 values, not 4"):
        convert(file, "films", tmp_path, **options)
    assert not (tmp_path / "films").exists()
    made = convert(file, "films", tmp_path, **options, on_error="skip")
    assert made.faults == {"wrong number of values": 1}
    assert json.loads((tmp_path / "films" / "films.manifest.json").read_text())["counts"][
        "faults"
    ] == {"wrong number of values": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "userid"}, r"user: r\.csv has no column `userid`.*Did you mean `userId`\?"),
        ({"time": "when"}, r"time: r\.csv has no column `when`"),
        ({"separator": ""}, r"separator is empty"),
        ({"encoding": "utf-88"}, r"encoding `utf-88` is not known"),
        ({"rating_range": (5, 1)}, r"rating_range"),
        ({"time_unit": "sec"}, r"time_unit `sec` is not one of s, ms, us"),
        ({"title": "title"}, r"title and text are columns of the file of items"),
        ({"items": "r.csv"}, r"nothing is asked"),
        ({"duplicates": "lats"}, r"duplicates `lats` .*Did you mean `last`\?"),
        ({"k_core": -1}, r"k_core must be 0 or more"),
        ({"on_error": "skpi"}, r"on_error `skpi` .*Did you mean `skip`\?"),
        ({"max_errors": 3}, r"max_errors counts with --on_error=skip alone"),
        ({"on_error": "skip", "max_errors": -1}, r"max_errors must be 0 or more"),
    ],
)
def test_refuses_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    if "items" in options:
        options = {"items": tmp_path / options["items"]}
    with pytest.raises(ConfigError, match=message):
        convert(file, "films", tmp_path, **NAMES | options)
    assert not (tmp_path / "films").exists()


def test_two_files_make_a_pair_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"--data_path={tmp_path / 'data'}"
    for name in ("films", "books"):
        file = ratings_csv(tmp_path / f"{name}.tsv", "\t")
        options = ["--user=userId", "--item=movieId", "--rating_range=0.5,5", "--separator=tab"]
        main(["csv", f"--ratings={file}", f"--dataset={name}", data, *options])
    assert "1 repeated ratings of a user for an item were merged" in capsys.readouterr().out
    main(["pair", "--dataset=p", "--source=films", "--target=books", "--rating_range=0.5,5", data])
    main(["check", "--dataset=p", data])
    assert "2 users are in both domains" in capsys.readouterr().out


def test_an_item_file_of_an_earlier_conversion_is_not_left_beside_new_ratings(
    tmp_path: Path,
) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    items = write(tmp_path / "i.csv", ITEMS)
    convert(file, "films", tmp_path, **NAMES, items=items, title="title")
    before = (tmp_path / "films" / "films.inter").read_bytes()
    with pytest.raises(ConfigError, match=r"has films\.item of an earlier conversion"):
        convert(file, "films", tmp_path, **NAMES, duplicates="first")
    assert (tmp_path / "films" / "films.inter").read_bytes() == before
    (tmp_path / "films" / "films.item").unlink()
    convert(file, "films", tmp_path, **NAMES, duplicates="first")


def test_items_that_match_none_of_the_ratings_are_refused(tmp_path: Path) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    options: dict[str, Any] = {"items": write(tmp_path / "i.csv", ITEMS), "text": ["plot"]}
    with pytest.raises(DataFormatError, match=r"i\.csv: has none of the 2 rated items, for"):
        convert(file, "films", tmp_path, **NAMES, **options, items_id="title")
    assert not (tmp_path / "films").exists()
    assert convert(file, "films", tmp_path, **NAMES, **options).with_text == 1


def test_items_may_be_written_in_another_way_than_ratings(tmp_path: Path) -> None:
    """As in MovieLens 100K: u.data has tabs, u.item has bars and is latin-1."""
    convert(
        ratings_csv(tmp_path / "u.data", "\t", header=False),
        "films",
        tmp_path,
        **NO_HEADER | {"separator": "\t"},
        items=write(tmp_path / "u.item", "10|Amélie (2001)|Comedy\n", "latin-1"),
        items_columns=["movieId", "title", "genres"],
        items_separator="|",
        items_encoding="latin-1",
        title="title",
    )
    items = read_items(tmp_path / "films" / "films.item")
    assert items["title"].tolist() == ["Amélie (2001)", ""]


def test_whole_numbers_that_pandas_made_floats_stay_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [7.0, 8.0], "item_id": [1.0, 2.0], "rating": [3, 4]})
    frame.write_parquet(tmp_path / "r.parquet")
    convert(tmp_path / "r.parquet", "d", tmp_path)
    assert [row[:2] for row in rows(tmp_path, "d")] == [["7", "1"], ["8", "2"]]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("user_id,item_id,rating\nu,i,3\n", {"item": "user_id"}, "One column stands for two of"),
        ('{"user_id": "u"}\n', {}, "is JSON, not delimited text.*the command amazon"),
        ("user_id:token\titem_id:token\nu\ti\n", {"separator": "\t"}, "needs no conversion"),
        ("user_id;item_id;rating\nu;i;3\n", {"columns": list("abc")}, "has no column `user_id`"),
    ],
)
def test_tables_that_are_something_else(
    tmp_path: Path, content: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataFormatError), match=message):
        convert(write(tmp_path / "r", content), "d", tmp_path, **options)


@pytest.mark.parametrize(
    ("line", "options", "advice"),
    [
        ("ann;10;4", {}, "say what stands between values with --separator"),
        ("ann,10,4,2011-03-02", {}, "say --time_unit or --time_format"),
        ("ann,10,4,1147880044000", {}, "say --time_unit or --time_format"),
        (
            "ann,10,4,2011",
            {"time_format": "%Y-%m-%d"},
            "is not of the form %Y-%m-%d",
        ),
        ("ann,10,9,1147880044", {}, "--rating_range says how far ratings go"),
    ],
)
def test_advice_names_the_option(
    tmp_path: Path, line: str, options: dict[str, Any], advice: str
) -> None:
    file = write(tmp_path / "r.csv", f"user_id,item_id,rating,timestamp\n{line}\n")
    with pytest.raises(DataFormatError, match=advice):
        convert(file, "d", tmp_path, **options)


def test_names_of_pairs_and_domains_are_kept_apart(tmp_path: Path) -> None:
    data = f"--data_path={tmp_path}"
    file = ratings_csv(tmp_path / "r.csv")
    for name in ("films", "books"):
        convert(file, name, tmp_path, **NAMES)
    main(["pair", "--dataset=p", "--source=films", "--target=books", data])
    with pytest.raises(ConfigError, match=r"`p` is a pair"):
        convert(file, "p", tmp_path, **NAMES)
    convert(file, "q", tmp_path, **NAMES)
    with pytest.raises(ConfigError, match="`q` is a domain"):
        write_pair_file(tmp_path, "q", "films", "books")
    with pytest.raises(ConfigError, match="`q` is a domain"):
        make_dataset(tmp_path, "q", users=40, items=30, ratings_per_user=5)
    with (tmp_path / "p" / "p.yaml").open("a") as yaml:
        yaml.write("test_user_ratio: 0.5\n")
    with pytest.raises(ConfigError, match=r"settings of its own \(test_user_ratio\)"):
        make_pair(tmp_path, "p", "books", "films")


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_with_too_few_values_is_a_fault_wherever_it_stands(
    tmp_path: Path, quote: str, place: int
) -> None:
    """Polars fills such a row up, so that a value would stand in the column before its own."""
    sound = [f"u{n},{quote}i{n}{quote},7,4,1" for n in range(3)]
    lines = [*sound[:place], "u9,i9,5,3", *sound[place:]]
    text = "user_id,item_id,words,rating,votes\n" + "\n".join(lines) + "\n"
    file = write(tmp_path / "r.csv", text)
    with pytest.raises(DataFormatError, match=rf"line {place + 2}, byte .*has 4 values, not 5"):
        convert(file, "d", tmp_path)
    assert convert(file, "d", tmp_path, on_error="skip").faults == {"wrong number of values": 1}
    assert [row[2] for row in rows(tmp_path, "d")] == [4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    "lines", ['10,Alpha\n20,"Beta unclosed\n', '10,"Alpha unclosed\n20,"Beta"\n']
)
def test_an_unclosed_quote_takes_no_titles_of_other_items(tmp_path: Path, lines: str) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    items = write(tmp_path / "i.csv", f"movieId,title\n{lines}")
    line = 3 if lines.startswith("10,A") else 2
    with pytest.raises(DataFormatError, match=rf"i\.csv, line {line}, byte \d+: is no record"):
        convert(file, "films", tmp_path, **NAMES, items=items, title="title")
    assert not (tmp_path / "films").exists()


def test_texts_of_any_length(tmp_path: Path) -> None:
    items = write(tmp_path / "i.csv", f"movieId,title\n10,{'word ' * 40_000}\n")
    convert(ratings_csv(tmp_path / "r.csv"), "films", tmp_path, **NAMES, items=items, title="title")
    assert len(read_items(tmp_path / "films" / "films.item")["title"][0]) == 199_999


def test_a_blank_line_before_the_header(tmp_path: Path) -> None:
    file = ratings_csv(tmp_path / "r.csv")
    file.write_bytes(b"\n \n" + file.read_bytes())
    convert(file, "films", tmp_path, **NAMES)
    assert rows(tmp_path) == KEPT


@pytest.mark.parametrize("separator", ["\u00a6", "\u2502"])
def test_separators_beyond_ascii(tmp_path: Path, separator: str) -> None:
    file = ratings_csv(tmp_path / "r.csv", separator)
    convert(file, "films", tmp_path, **NAMES, separator=separator)
    assert rows(tmp_path) == KEPT


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    file = write(tmp_path / "r.csv", "user_id,item_id,rating,x,x\nu,i,3,1,2\n")
    with pytest.raises(DataFormatError, match="two columns are called `x`"):
        convert(file, "d", tmp_path)


def test_many_faults_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that parses but cannot be is taken from its block, which is parsed once."""
    parsed = 0
    parse = RatingTable.parse

    def counted(self: RatingTable, data: bytes) -> pl.DataFrame:
        nonlocal parsed
        parsed += 1
        return parse(self, data)

    monkeypatch.setattr(RatingTable, "parse", counted)
    lines = "".join(f"u{n},i{n},{n % 11}\n" for n in range(2200))
    file = write(tmp_path / "r.csv", f"user_id,item_id,rating\n{lines}")
    made = convert(file, "d", tmp_path, on_error="skip", max_errors=5000)
    assert made.faults == {"rating out of range": 1200}
    assert made.read == 1000
    assert parsed == 1


def test_ids_that_are_no_whole_numbers_stay_apart(tmp_path: Path) -> None:
    users = [1.2, 1.7, 2.0, 2.0]
    frame = pl.DataFrame({"user_id": users, "item_id": [1.0, 1.0, 1.0, 2.0], "rating": [3] * 4})
    frame.write_parquet(tmp_path / "r.parquet")
    pl.DataFrame({"item_id": [1.0], "title": ["Up"]}).write_parquet(tmp_path / "i.parquet")
    items = tmp_path / "i.parquet"
    made = convert(tmp_path / "r.parquet", "d", tmp_path, items=items, title="title")
    assert [row[:2] for row in rows(tmp_path, "d")] == [
        ["1.2", "1"],
        ["1.7", "1"],
        ["2", "1"],
        ["2", "2"],
    ]
    assert made.with_text == 1


@pytest.mark.parametrize("kind", ["quotes", "latin-1", "parquet"])
def test_a_repeated_rating_is_found_however_its_ids_are_written(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "r"
    options: dict[str, Any] = {"duplicates": "error"}
    if kind == "parquet":
        ids = {"user_id": [1.0, 2.0, 1.0], "item_id": [5, 5, 5]}
        pl.DataFrame({**ids, "rating": [3, 4, 5]}).write_parquet(file)
        where = "row 3: user '1'"
    elif kind == "quotes":
        write(file, 'user_id,item_id,rating\n"a""b",i,5\nc,i,5\n"a""b",i,4\n')
        where = "line 4, byte 40: user 'a\"b'"
    else:
        write(file, "user_id,item_id,rating\né,i,5\nc,i,5\né,i,4\n", kind)
        options["encoding"] = kind
        where = "line 4, byte 35: user 'é'"
    with pytest.raises(DataFormatError, match=f"^r, {where} rates item '.' a second time"):
        convert(file, "d", tmp_path, **options)
