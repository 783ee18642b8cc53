"""Amazon's raw files of 2014, 2018 and 2023 to atomic files: the command `amazon`.

| release | reviews | ratings alone |
| --- | --- | --- |
| 2014 | JSON lines: reviewerID, asin, overall, unixReviewTime | user,item,rating,time, no header |
| 2018 | the same | ITEM,user,rating,time, no header |
| 2023 | JSON lines: user_id, parent_asin, rating, timestamp in ms | the same names as a header |

A review's text is never read: it would tell test ratings.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataset_tools.convert.delimited import PARQUET
from dataset_tools.convert.domain_writer import Converted, domain_to_be, write_domain
from dataset_tools.convert.problems import Fault, Problems, printable
from dataset_tools.convert.products import TEMPLATE, Products, Template
from dataset_tools.convert.ratings import Rules, read_ratings
from dataset_tools.convert.raw_file import RawFile
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import ConfigError, DataFormatError

RELEASES = ("2014", "2018", "2023")
FIELDS = ("user_id", "item_id", "rating", "timestamp")
OLD_NAMES = ("reviewerID", "asin", "overall", "unixReviewTime")
NEW_NAMES = ("user_id", "parent_asin", "rating", "timestamp")
USER = re.compile(rb"(#oc-)?A[0-9A-Z]{7,}")
ITEM = re.compile(rb"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
RULES = Rules(
    id_pattern=r"^#?[0-9A-Za-z_.:-]+$",
    id_kind="an id of Amazon's: it has letters, digits and -_.: alone",
)
NEW_RULES = Rules(id_pattern=RULES.id_pattern, id_kind=RULES.id_kind, unit="ms")


def convert(
    reviews: Path,
    dataset: str,
    data_path: Path,
    *,
    meta: Path | None = None,
    release: str | None = None,
    k_core: int = 0,
    duplicates: str = "last",
    template: str | None = None,
    on_error: str = "stop",
    max_errors: int | None = None,
) -> Converted:
    """Convert the ratings and the items of one product category.

    Files may be plain, gzip or zstd. The domain appears whole or not at all: `.inter`, `.item`
    where there is metadata, and `.manifest.json`.

    Args:
        reviews: Reviews or ratings of any release, told by the content.
        dataset: The domain to be.
        data_path: The folder of the domains.
        meta: Metadata of the products, of any release.
        release: One of `RELEASES`, where the content of `reviews` does not tell.
        k_core: See `read_ratings`.
        duplicates: Likewise.
        template: See `Template`; by default `TEMPLATE`.
        on_error: See `Problems`.
        max_errors: Likewise, for both files together.

    Returns:
        Counts of what was read and written.

    Raises:
        DataFormatError: If a file is missing, cut off or malformed; names file, line and byte.
        ConfigError: If an option cannot be, or the domain cannot be written.
    """
    problems = Problems(on_error, max_errors)
    file = RawFile(reviews, problems)
    if meta is None and template is not None:
        raise ConfigError("template says how texts are made of metadata. Give that as --meta.")
    template = TEMPLATE if template is None else template
    describe = Template(template)
    products = None if meta is None else Products(RawFile(meta, problems), describe)
    with domain_to_be(data_path, dataset, with_items=products is not None):
        form = recognise(file, release)
        ratings, counts = read_ratings(file, form, duplicates=duplicates, k_core=k_core)
        return write_domain(
            data_path,
            dataset,
            "amazon",
            {
                "release": form.release,
                "k_core": k_core,
                "duplicates": duplicates,
                "template": template,
                "on_error": on_error,
                "max_errors": max_errors,
            },
            file=file,
            ratings=ratings,
            counts=counts,
            items=products,
            problems=problems,
        )


@dataclass(frozen=True)
class JsonReviews:
    """JSON lines with four fields of interest under the given names."""

    release: str
    names: Sequence[str]
    rules: Rules
    header: bool = False

    def parse(self, data: bytes) -> pl.DataFrame:
        """Rows of whole lines; see `Form`."""
        types = (pl.String, pl.String, pl.Float64, pl.Float64)
        schema = dict(zip(self.names, types, strict=True))
        frame = pl.read_ndjson(data, schema=schema)
        return self.rules.seconds(frame.rename(dict(zip(self.names, FIELDS, strict=True))))

    def good(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows are ratings; see `Form`."""
        return self.rules.good(frame)

    def explain(self, line: bytes) -> Fault:
        """What is wrong with a line; see `Form`."""
        if b"\0" in line:
            return Fault("NUL byte", "has a NUL byte")
        try:
            review = json.loads(line)
        except UnicodeDecodeError as error:
            return Fault("not UTF-8", f"is not UTF-8 ({error})")
        except (ValueError, RecursionError) as error:
            return Fault("no JSON", f"is no JSON ({error})")
        if not isinstance(review, dict):
            return Fault("no review", "is no review but another kind of JSON")
        for name in self.names:
            if review.get(name) is None:
                return Fault("no field", f"there is no `{name}`")
            if name in self.names[2:] and type(review[name]) not in (int, float):
                return Fault("no number", f"`{name}` is no number but {review[name]!r}")
        return self.rules.explain(*(review[name] for name in self.names))


@dataclass(frozen=True)
class CsvRatings:
    """Lines of four values between commas, in the given order, perhaps behind a header."""

    release: str
    order: Sequence[str]
    rules: Rules
    header: bool = False

    def parse(self, data: bytes) -> pl.DataFrame:
        """Rows of whole lines; see `Form`."""
        frame = pl.read_csv(
            data.replace(b"\r\n", b"\n"),
            has_header=False,
            schema=dict.fromkeys(self.order, pl.String),
            quote_char=None,
        )
        numbers = pl.col("rating", "timestamp").cast(pl.Float64, strict=False)
        return self.rules.seconds(frame.select(FIELDS).with_columns(numbers))

    def good(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows are ratings; see `Form`."""
        swapped = pl.col("user_id").str.contains(f"^(?:{ITEM.pattern.decode()})$")
        swapped &= pl.col("item_id").str.contains(f"^(?:{USER.pattern.decode()})$")
        return self.rules.good(frame) & ~frame.select(swapped.fill_null(False)).to_series()

    def explain(self, line: bytes) -> Fault:
        """What is wrong with a line; see `Form`."""
        try:
            values = line.decode("utf-8").split(",")
        except UnicodeDecodeError as error:
            return Fault("not UTF-8", f"is not UTF-8 ({error})")
        if len(values) != len(self.order):
            return Fault(
                "wrong number of values",
                f"has {len(values)} value{'s' * (len(values) != 1)}, not {len(self.order)}: "
                f"{', '.join(self.order)}",
            )
        row = dict(zip(self.order, values, strict=True))
        if ITEM.fullmatch(row["user_id"].encode()) and USER.fullmatch(row["item_id"].encode()):
            other = "2018" if self.release == "2014" else "2014"
            return Fault(
                "columns in another order",
                f"{row['user_id']!r} is an item and {row['item_id']!r} a user: columns stand in "
                f"the order of {other}, not of {self.release}",
                f"Leave --release out, or say --release={other}, if all lines are so",
            )
        return self.rules.explain(*(row[field] for field in FIELDS))


def recognise(file: RawFile, release: str | None = None) -> JsonReviews | CsvRatings:
    """Tell from its first lines how a file of ratings is written.

    Args:
        file: The file.
        release: What the user says it is.

    Raises:
        ConfigError: If `release` is not one of `RELEASES`.
        DataFormatError: If the content does not tell and the user does not say, or they disagree.
    """
    if release is not None:
        check_choice("release", release, RELEASES)
    head = file.head()
    if 2 * sum(line.lstrip().startswith(b"{") for line in head) >= len(head):
        form: JsonReviews | CsvRatings | None = _json_form(head, release)
    elif b"parent_asin" in head[0] or release == "2023":
        form = _headed_form(head[0])
    else:
        form = _csv_form(head, release)
    if form is None or (release is not None and release != form.release):
        if head[0].startswith(PARQUET):
            raise DataFormatError(f"{file.path.name}: is parquet. Convert it with the command csv.")
        shown = printable(head[0][:80].decode("utf-8", "replace"))
        if form is not None:
            raise DataFormatError(
                f"{file.path.name}, line 1: is of {form.release}, not of {release}: {shown}. Leave "
                "--release out, or give the other file."
            )
        raise DataFormatError(
            f"{file.path.name}, line 1: the content does not tell the release: {shown}. Reviews "
            f"are JSON lines with {', '.join(OLD_NAMES)} (2014, 2018) or {', '.join(NEW_NAMES)} "
            "(2023); ratings are user,item,rating,time (2014), item,user,rating,time (2018) or "
            "have a header (2023). Say --release=2014 or 2018 where the ids are of another form; "
            "the command csv reads any other file."
        )
    return form


def _json_form(head: list[bytes], release: str | None) -> JsonReviews | None:
    """The form of JSON lines: by the fields of those that are sound."""
    reviews = []
    for line in head:
        with contextlib.suppress(ValueError, RecursionError):
            reviews.append(json.loads(line))
    reviews = [review for review in reviews if isinstance(review, dict)]
    if not reviews:  # none is sound; the parser will say what is wrong
        return JsonReviews(release or "2014", OLD_NAMES, RULES)
    old, new = (
        sum(len(review.keys() & set(names)) for review in reviews)
        for names in (OLD_NAMES, NEW_NAMES)
    )
    if new > old:
        return JsonReviews("2023", NEW_NAMES, NEW_RULES)
    if old:
        told = "2018" if any("verified" in review for review in reviews) else "2014"
        return JsonReviews(told if release == "2023" else release or told, OLD_NAMES, RULES)
    return None


def _headed_form(header: bytes) -> CsvRatings | None:
    """The form of ratings with a header."""
    names = header.decode("utf-8", "replace").strip().split(",")
    if sorted(names) != sorted(NEW_NAMES):
        return None
    order = [FIELDS[NEW_NAMES.index(name)] for name in names]
    return CsvRatings("2023", order, NEW_RULES, header=True)


def _csv_form(head: list[bytes], release: str | None) -> CsvRatings | None:
    """The form of ratings without a header: by what the first two columns look like."""
    user_first = item_first = 0
    for line in head:
        first, second = [*line.split(b","), b"", b""][:2]
        user_first += bool(USER.fullmatch(first)) + bool(ITEM.fullmatch(second))
        item_first += bool(ITEM.fullmatch(first)) + bool(USER.fullmatch(second))
    if release is None:
        if user_first == item_first:
            return None
        release = "2014" if user_first > item_first else "2018"
    user, item, *others = FIELDS
    return CsvRatings(
        release, [user, item, *others] if release == "2014" else [item, user, *others], RULES
    )
