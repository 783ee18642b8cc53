from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dataset_tools.amazon import clean_text, convert
from dataset_tools.atomic import read_inter, read_items
from recbole_cdr_mm.errors import DataFormatError


def review(**changes: object) -> str:
    line = {
        "reviewerID": "A1",
        "asin": "B001",
        "reviewText": "never to be read",
        "overall": 5.0,
        "unixReviewTime": 1400000000,
    }
    return json.dumps({**line, **changes}) + "\n"


REVIEWS = (
    review()
    + review(reviewerID="A2", overall=3.0)
    + review(asin="B002", unixReviewTime=20, overall=1.0)
    + review(asin="B002", unixReviewTime=30, overall=2.0)
    + review(asin="B002", unixReviewTime=10, overall=4.0)
)
META = """\
{'asin': 'B001', 'title': 'Rock &amp; Roll', 'description': '<b>Loud</b>\\tand &quot;long&quot;.', \
'categories': [['CDs & Vinyl', 'Rock'], ['CDs & Vinyl']], 'brand': 'Umgd'}
{'asin': 'B009', 'title': 'Nobody rated this', 'related': {'also_bought': ['B001']}}
"""


def write(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("end", ["json", "json.gz"])
def test_converts_reviews_and_products(tmp_path: Path, end: str) -> None:
    reviews = write(tmp_path / f"reviews_CD_5.{end}", REVIEWS)
    meta = write(tmp_path / f"meta_CD.{end}", META)
    converted = convert(reviews, "cd", tmp_path, meta)
    assert vars(converted) == {"users": 2, "items": 2, "ratings": 3, "repeated": 2, "with_text": 1}
    inter = read_inter(tmp_path / "cd" / "cd.inter", rating_range=(1, 5))
    assert inter.to_numpy().tolist() == [
        ["A1", "B001", 5.0, 1.4e9],
        ["A2", "B001", 3.0, 1.4e9],
        ["A1", "B002", 2.0, 30.0],  # the last by time, not by line
    ]
    items = read_items(tmp_path / "cd" / "cd.item").to_dict("records")
    text = 'Brand: Umgd. Category: CDs & Vinyl, Rock. Loud and "long".'
    assert items == [
        {"item_id": "B001", "title": "Rock & Roll", "text": text},
        {"item_id": "B002", "title": "", "text": ""},
    ]


def test_converts_a_csv_of_ratings(tmp_path: Path) -> None:
    ratings = write(tmp_path / "ratings_CD.csv", "A1,B001,5.0,20\nA1,B001,4.0,20\n\nA2,B1,1.0,3\n")
    converted = convert(ratings, "cd", tmp_path)
    assert (converted.ratings, converted.repeated) == (2, 1)
    inter = (tmp_path / "cd" / "cd.inter").read_text().splitlines()
    assert inter[1:] == ["A1\tB001\t4\t20", "A2\tB1\t1\t3"]  # of two at one time, the last line
    assert not (tmp_path / "cd" / "cd.item").exists()


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("r.json", '{"asin": "B1"', r"r\.json, line 6: is no rating \(.*2014 release\? Others are"),
        ("r.json", "[]\n", r"r\.json, line 6: is no rating"),
        ("r.json", review(overall="good"), r"line 6: is no rating \(could not convert"),
        ("r.json", review(overall=6), r"line 6: a rating of 6 is outside 1 to 5"),
        ("r.json", review(overall=float("nan")), r"line 6: a rating of nan is outside 1 to 5"),
        ("r.json", review(unixReviewTime=float("inf")), r"line 6: a time of inf is none"),
        ("r.json", review(asin=""), r"line 6: user or item is empty"),
        ("r.json", '{"asin": "B1", "rating": 5}\n', r"line 6: there is no 'reviewerID'"),
        ("r.json.gz", "x\n", r"r\.json\.gz, line 6: is no rating"),
    ],
)
def test_refuses_malformed_reviews(tmp_path: Path, name: str, bad: str, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        convert(write(tmp_path / name, REVIEWS + bad), "cd", tmp_path)
    assert not (tmp_path / "cd").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A1,B001,5.0,20\nA1,B001,5.0\n", r"ratings\.csv, line 2: is no rating"),
        ("B001,A1,5.0,20\n", r"line 1: .*the item stands before the user, as in the release of 20"),
        ("user_id,parent_asin,rating,timestamp\n", r"line 1: is no rating"),
        ("", r"ratings\.csv: has no ratings"),
    ],
)
def test_refuses_a_malformed_csv(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        convert(write(tmp_path / "ratings.csv", content), "cd", tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{'asin': 'B002', 'title': 'x'\n", r"meta\.json, line 3: is no product"),
        ("{'asin': 'B002', 'price': __import__('os')}\n", r"line 3: is no product \(malformed"),
        ("{'asin': 'B002', 'categories': 3}\n", r"line 3: is no product"),
        ("{'title': 'x'}\n", r"line 3: there is no 'asin'"),
    ],
)
def test_refuses_malformed_products(tmp_path: Path, bad: str, message: str) -> None:
    reviews = write(tmp_path / "reviews.json", REVIEWS)
    with pytest.raises(DataFormatError, match=message):
        convert(reviews, "cd", tmp_path, write(tmp_path / "meta.json", META + bad))
    assert not (tmp_path / "cd").exists()


@pytest.mark.parametrize("kept", [-20, -4])
def test_refuses_a_gzip_file_that_is_cut_off(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "reviews.json.gz", REVIEWS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataFormatError, match=r"reviews\.json\.gz, line \d: the file is cut off"):
        convert(path, "cd", tmp_path)


def test_refuses_a_gzip_file_that_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.json.gz", REVIEWS)
    data = bytearray(path.read_bytes())
    data[-8] ^= 255  # the checksum
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=r"line 6: is no sound gzip file \(CRC check"):
        convert(path, "cd", tmp_path)
    path.write_bytes(REVIEWS.encode())
    with pytest.raises(DataFormatError, match=r"reviews\.json\.gz, line 1: is no sound gzip file"):
        convert(path, "cd", tmp_path)


def test_refuses_what_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"no\.csv: cannot be read \(No such file"):
        convert(tmp_path / "no.csv", "cd", tmp_path)
    (tmp_path / "r.csv").write_bytes(b"A1,B001,5.0,20\n\xff,B001,5.0,20\n")
    with pytest.raises(DataFormatError, match=r"r\.csv, line 2: is not utf-8"):
        convert(tmp_path / "r.csv", "cd", tmp_path)


def test_cleaning_leaves_no_half_characters() -> None:
    assert clean_text("half \ud83d of it") == "half ? of it"
    assert clean_text("a < b, c > d, <3") == "a < b, c > d, <3"


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "raw_amazon_2014"
    for name, domain, ratings in (
        ("reviews_Movies_and_TV_5.first999.json", "movie", 999),
        ("ratings_Amazon_Instant_Video.part.csv", "video", 20245),
    ):
        assert convert(raw / name, domain, tmp_path).ratings == ratings
        path = tmp_path / domain / f"{domain}.inter"
        assert len(read_inter(path, rating_range=(1, 5))) == ratings
    with pytest.raises(DataFormatError, match=r"reviews_Digital_Music_5\.json\.gz, line 6909: the"):
        convert(raw / "reviews_Digital_Music_5.json.gz", "music", tmp_path)
    with pytest.raises(DataFormatError, match=r"meta_Digital_Music\.json\.gz, line \d+: the file"):
        convert(
            raw / "reviews_Movies_and_TV_5.first999.json",
            "music",
            tmp_path,
            raw / "meta_Digital_Music.json.gz",
        )
    assert not (tmp_path / "music").exists()
