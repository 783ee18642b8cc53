"""Write a file of made-up reviews with the size and shape of Amazon's 2014 book reviews.

    python benchmarks/make_reviews.py --rows=8898041 --out=reviews.json

The real file has 8,898,041 reviews by 603,668 users of 367,982 books, about 1 KB each. Users and
items are drawn from a power law, review texts are slices of one buffer of words with the escapes
that real texts have, their lengths log-normal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

BOOK_ROWS, BOOK_USERS, BOOK_ITEMS = 8_898_041, 603_668, 367_982
MEDIAN_LENGTH, SPREAD, LONGEST = 420, 1.1, 30_000  # characters of a review text
BUFFER = 4_000_000
CHUNK = 100_000
WORDS = (
    "the a of and to in is it this that with for on was as but be not are have you story book read "
    "character plot author series novel writing love world page chapter ending mystery life first "
    "time great good well really would could people never always wonderful disappointing recommend"
).split()
PIECES = [*WORDS, '\\"quoted\\"', "&#34;loved&#34;", "caf\\u00e9", "\\n", "<br />", "it's", "3/5."]
LINE = (
    '{"reviewerID": "%s", "asin": "%s", "reviewerName": "A. Reader \\"reads\\"", '
    '"helpful": [%d, %d], "reviewText": "%s", "overall": %d.0, "summary": "%s", '
    '"unixReviewTime": %d, "reviewTime": "02 26, 2008"}\n'
)


def write_reviews(path: Path, rows: int, seed: int = 0) -> None:
    """Write `rows` reviews as JSON lines.

    Args:
        path: The file to be.
        rows: Reviews; users and items are as many in proportion as in the real file.
        seed: Decides everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    pieces = rng.choice(PIECES, size=BUFFER // 4)
    words = [str(piece) for piece in pieces]
    starts = np.concatenate([[0], np.cumsum([len(word) + 1 for word in words])])
    buffer = " ".join(words)
    users = _ids(rng, "A", 13, max(2, rows * BOOK_USERS // BOOK_ROWS))
    items = _ids(rng, "B", 9, max(2, rows * BOOK_ITEMS // BOOK_ROWS))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            lengths = rng.lognormal(np.log(MEDIAN_LENGTH), SPREAD, count).clip(10, LONGEST)
            first = rng.integers(0, len(words) - LONGEST, count)
            begin = starts[first]
            end = starts[np.searchsorted(starts, begin + lengths.astype(int))] - 1
            columns = zip(
                _skewed(rng, len(users), count),
                _skewed(rng, len(items), count),
                begin.tolist(),
                end.tolist(),
                rng.choice([1, 2, 3, 4, 5], count, p=[0.05, 0.05, 0.1, 0.25, 0.55]).tolist(),
                rng.integers(850_000_000, 1_400_000_000, count).tolist(),
                rng.integers(0, 30, count).tolist(),
                strict=True,
            )
            file.writelines(
                LINE % (users[u], items[i], h, h, buffer[b:e], r, "Good", t)
                for u, i, b, e, r, t, h in columns
            )


def _ids(rng: np.random.Generator, letter: str, length: int, count: int) -> list[str]:
    """Draw different ids."""
    alphabet = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)
    drawn = alphabet[rng.integers(0, len(alphabet), (count + count // 100 + 10, length))]
    ids = dict.fromkeys(letter + row.tobytes().decode() for row in drawn)
    return list(ids)[:count]


def _skewed(rng: np.random.Generator, size: int, count: int) -> list[int]:
    """Draw positions below `size`, low ones more often: density falls as 1 / sqrt(position)."""
    return (size * rng.random(count) ** 2).astype(np.int64).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=BOOK_ROWS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_reviews(options.out, options.rows, options.seed)
