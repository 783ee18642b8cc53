"""Reading atomic files, for comparison with frames of text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dataset_tools.atomic import read_inter


def read_ratings(path: Path) -> pd.DataFrame:
    """An `.inter` file with its tokens as text, not as categories."""
    return read_inter(path, rating_range=(1, 5)).astype({"user_id": str, "item_id": str})
