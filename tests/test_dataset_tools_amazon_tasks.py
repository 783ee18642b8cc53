from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from model_checks import run_mm

from dataset_tools.atomic import read_items
from dataset_tools.cli import main
from dataset_tools.convert.amazon import convert
from dataset_tools.convert.amazon_tasks import (
    CATEGORIES,
    TABLE_1,
    compare_with_table_1,
    convert_tasks,
)
from recbole_cdr_mm.errors import ConfigError, DataFormatError

USERS = {"amazon-movie": range(0, 60), "amazon-cd": range(20, 80), "amazon-book": range(50, 100)}


def write_raw(raw: Path) -> None:
    """Reviews and metadata of three small categories, of which one file is not packed."""
    raw.mkdir()
    for number, (name, users) in enumerate(USERS.items()):
        category = CATEGORIES[name]
        items = [f"B{number}{item:08d}" for item in range(12)]
        reviews = "".join(
            json.dumps(
                {
                    "reviewerID": f"A{user:08d}",
                    "asin": items[(user + step) % 12],
                    "overall": float(1 + (user * step) % 5),
                    "unixReviewTime": 1_300_000_000 + 86_400 * step,
                    "helpful": [0, 0],
                }
            )
            + "\n"
            for user in users
            for step in range(8)
        )
        meta = "".join(
            f"{{'asin': '{item}', 'title': 'Item {item}', 'description': 'A tale of {name}.'}}\n"
            for item in items
        )
        (raw / f"reviews_{category}_5.json.gz").write_bytes(gzip.compress(reviews.encode()))
        if name == "amazon-cd":
            (raw / f"meta_{category}.json").write_text(meta)
        else:
            (raw / f"meta_{category}.json.gz").write_bytes(gzip.compress(meta.encode()))


def test_all_tasks_by_one_command_then_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path / "raw")
    data = f"--data_path={tmp_path / 'data'}"
    main(["amazon-tasks", f"--raw={tmp_path / 'raw'}", data])
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1:5] for line in lines[1:4]}
    assert table["amazon-movie"] == ["12", "60", "480", "12"]
    assert table["amazon-book"] == ["12", "50", "400", "12"]
    assert lines[4:7] == [
        "movie_cd: 40 overlapped users",
        "book_movie: 10 overlapped users",
        "book_cd: 30 overlapped users",
    ]
    differing = lines[7:]
    assert "differs: amazon-movie: 480 ratings, but Table 1 has 1,697,533" in differing
    assert "differs: book_cd: 30 overlapped users, but Table 1 has 16,738" in differing
    assert len(differing) == 12  # every figure of Table 1
    main(["text", "--dataset=movie_cd", data, "--encoder=lsa"])
    result = run_mm(
        tmp_path / "data", "movie_cd", model="MetaMMCDR", epochs=1, valid_user_ratio=0.3
    )
    assert result["data"]["overlapped_users"] == 40


def test_one_task_makes_its_two_domains(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    made = convert_tasks(
        tmp_path / "raw", tmp_path / "data", tasks=["book_cd"], template="{description}"
    )
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "amazon-book",
        "amazon-cd",
    ]
    assert made.overlapped == {"book_cd": 30}
    items = read_items(tmp_path / "data" / "amazon-cd" / "amazon-cd.item")
    assert set(items["text"]) == {"A tale of amazon-cd."}


def test_the_figures_of_the_paper_do_not_differ() -> None:
    assert compare_with_table_1(TABLE_1) == []
    changed = {**TABLE_1, "amazon-cd": {**TABLE_1["amazon-cd"], "users": 75_257}}
    assert compare_with_table_1(changed) == [
        "amazon-cd: 75,257 users, but Table 1 has 75,258",
    ]


def test_missing_files_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    (tmp_path / "raw" / "reviews_Books_5.json.gz").unlink()
    (tmp_path / "raw" / "meta_CDs_and_Vinyl.json").unlink()
    with pytest.raises(
        DataFormatError,
        match=r"there is no meta_CDs_and_Vinyl\.json\.gz, no reviews_Books_5\.json\.gz\. .*"
        r"download --release=2014 --category=Movies_and_TV,CDs_and_Vinyl,Books --raw=",
    ):
        convert_tasks(tmp_path / "raw", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_options_that_say_nothing_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    reviews = tmp_path / "raw" / "reviews_Books_5.json.gz"
    with pytest.raises(ConfigError, match="template says how texts are made of metadata"):
        convert(reviews, "d", tmp_path, template="{title}")
    with pytest.raises(ConfigError, match="stands the name of a field alone"):
        convert(reviews, "d", tmp_path, meta=reviews, template="{title!r:>30}")
    with pytest.raises(DataFormatError, match=r"meta_CDs_and_Vinyl\.json: has none of the 12"):
        convert(reviews, "d", tmp_path, meta=tmp_path / "raw" / "meta_CDs_and_Vinyl.json")
    assert not (tmp_path / "d").exists()


def test_an_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task `moive_cd` is not one of .*Did you mean `movie_cd"
    ):
        convert_tasks(tmp_path, tmp_path, tasks=["moive_cd"])
