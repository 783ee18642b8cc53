"""Two domains become a pair, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from small_pairs import INTER_HEADER, write_lines, write_small_pair

from dataset_tools.cli import main
from dataset_tools.pair import (
    check_range,
    make_pair,
    overlapped_users,
    read_domains,
    read_rating_range,
    write_pair_file,
)
from recbole_cdr_mm.errors import ConfigError, DataFormatError, UserError


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """Books of b and a; movies of c, b and a, half of a star among them; music of others."""
    rows = {
        "books": ("b\tx\t4\t2", "a\tx\t5\t1", "b\ty\t3\t3"),
        "movies": ("c\tx\t1\t0", "b\tz\t0.5\t0", "a\tz\t2\t0", "c\tz\t2\t0"),
        "music": ("d\tx\t5\t0",),
    }
    for name, lines in rows.items():
        write_lines(tmp_path / name / f"{name}.inter", INTER_HEADER, *lines)
    return tmp_path


def test_writes_the_pair_and_counts(data_path: Path) -> None:
    sizes = make_pair(data_path, "p", "books", "movies", rating_range=(0.5, 5.0))
    assert [(s.domain, s.users, s.items, s.ratings, s.overlapped) for s in sizes] == [
        ("books", 2, 2, 3, 2),
        ("movies", 3, 2, 4, 2),
    ]
    books, movies = sizes
    assert (books.density, books.ratings_per_user, books.overlapped_share) == (0.75, 1.5, 1.0)
    assert (movies.density, movies.ratings_per_item) == (4 / 6, 2.0)
    assert movies.overlapped_share == 2 / 3
    assert yaml.safe_load((data_path / "p" / "p.yaml").read_text()) == {
        "source_dataset": "books",
        "target_dataset": "movies",
        "rating_range": [0.5, 5.0],
    }
    assert read_rating_range(data_path, "p") == (0.5, 5.0)


def test_the_range_of_stars_is_not_written(data_path: Path) -> None:
    write_pair_file(data_path, "p", "yes", "12")
    text = (data_path / "p" / "p.yaml").read_text()
    assert text == "source_dataset: 'yes'\ntarget_dataset: '12'\n"
    assert read_rating_range(data_path, "p") == (1.0, 5.0)
    assert read_rating_range(data_path, "books") == (1.0, 5.0)


def test_domains_share_their_users(data_path: Path) -> None:
    books, movies = read_domains(data_path, ["books", "movies"], (0.0, 5.0))
    assert books.users.tolist() == movies.users.tolist() == ["a", "b", "c"]
    assert books.user.tolist() == [1, 0, 1]
    assert movies.user.tolist() == [2, 1, 0, 2]
    assert books.items[books.item].tolist() == ["x", "x", "y"]
    assert movies.items.tolist() == ["x", "z"]
    assert books.time is not None
    assert books.time.tolist() == [2.0, 1.0, 3.0]
    assert movies.ratings_of_users().tolist() == [1, 1, 2]
    assert overlapped_users([books, movies]).tolist() == [True, True, False]
    part = books.where(np.array([False, True, True]))
    assert part.rating.tolist() == [5.0, 3.0]
    assert part.users is books.users


def test_a_domain_may_have_no_times(data_path: Path) -> None:
    header = INTER_HEADER.rpartition("\t")[0]
    write_lines(data_path / "plain" / "plain.inter", header, "b\tx\t4")
    plain, books = read_domains(data_path, ["plain", "books"], (1.0, 5.0))
    assert plain.time is None
    assert plain.where(np.array([True])).time is None
    assert books.time is not None


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (
            ("p", "books", "music"),
            DataFormatError,
            r"No user is in both domains: `books` has 2 users such as `a`, `music` has 1 such as "
            r"`d`\. .* rename them",
        ),
        (
            ("p", "books", "musik"),
            DataFormatError,
            r"no musik/musik.inter and no pair `musik`\. Did you mean `music`",
        ),
        (("p", "books", "books"), ConfigError, "must be three different names"),
        (("books", "books", "music"), ConfigError, "must be three different names"),
        (("p", "old", "music"), ConfigError, r"`old` is a pair\. Give one of its domains"),
        (("p", "books", "movies"), DataFormatError, r"movies.inter, line 3.* 0\.5 is outside 1 to"),
    ],
)
def test_refuses_what_is_no_pair(
    data_path: Path, names: tuple[str, str, str], error: type[UserError], message: str
) -> None:
    make_pair(data_path, "old", "books", "movies", rating_range=(0.0, 5.0))
    with pytest.raises(error, match=message):
        make_pair(data_path, *names)
    assert not (data_path / "p").exists()


def test_users_that_a_file_links_are_refused(data_path: Path) -> None:
    write_pair_file(data_path, "p", "books", "movies")
    with (data_path / "p" / "p.yaml").open("a") as file:
        file.write("user_link: link.tsv\n")
    with pytest.raises(ConfigError, match=r"p.yaml: `user_link` is not read here"):
        read_rating_range(data_path, "p")


@pytest.mark.parametrize(
    "value", ["5", "5,1", "1,1", "a,b", "1,2,3", [1], 5, None, "0,inf", "nan,1"]
)
def test_refuses_what_is_no_range(value: object) -> None:
    assert check_range("1,5") == (1.0, 5.0)
    with pytest.raises(ConfigError, match=r"rating_range: .* must be the lowest and the highest"):
        check_range(value)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_pair(tmp_path)
    options = ["--source=pair_movie", "--target=pair_cd", f"--data_path={tmp_path}"]
    main(["pair", "--dataset=mine", *options, "--rating_range=0,5"])
    header, source, target, written = capsys.readouterr().out.splitlines()
    assert header.split() == ["domain", "items", "users", "ratings", "overlapped", "users"]
    assert source.split()[:3:2] == ["pair_movie", "50"]
    assert source.endswith("40 (80.0% of its users)")
    assert target.endswith("40 (80.0% of its users)")
    assert written == f"written to {tmp_path / 'mine' / 'mine.yaml'}"
    assert read_rating_range(tmp_path, "mine") == (0.0, 5.0)
    with pytest.raises(SystemExit, match="2"):
        main(["pair", "--dataset=mine", *options, "--rating_range=5"])
    assert capsys.readouterr().err.startswith("ConfigError: rating_range: '5' must be")
