"""What `stats` counts, against counts by hand; its floors, against the models themselves."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from model_checks import run_mm
from PIL import Image
from small_pairs import INTER_HEADER, edit_line, write_lines, write_small_pair

from dataset_tools.biases import fit_biases
from dataset_tools.cli import main
from dataset_tools.pair import overlapped_users, read_domains, write_pair_file
from dataset_tools.stats import Estimate, Floors, floor_errors, judge, make_stats, measure_floors
from dataset_tools.synthetic import domain_names, make_dataset
from recbole_cdr_mm.errors import ConfigError, UserError

FLOORS = ("GlobalMean", "ItemMean", "BiasTransfer")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A source in which b is generous; three target ratings of a and one of b."""
    rows = {
        "s": ("a\tx\t2\t86400", "b\tx\t4\t1104537600"),
        "t": ("a\ty\t3\t0", "a\tz\t4\t0", "a\tw\t5\t0", "b\ty\t5\t0"),
    }
    for name, lines in rows.items():
        write_lines(tmp_path / name / f"{name}.inter", INTER_HEADER, *lines)
    write_lines(
        tmp_path / "s" / "s.item",
        "item_id:token\ttitle:token_seq\ttext:token_seq",
        "x\tA title\tand five words of text",
        "unrated\tNot\tcounted",
    )
    write_pair_file(tmp_path, "p", "s", "t")
    return tmp_path


def test_counts_by_hand(tiny: Path) -> None:
    source, target = make_stats(tiny, "p").domains
    assert (source.items, source.users, source.ratings, source.overlapped) == (1, 2, 2, 2)
    assert (source.mean_rating, source.first_year, source.last_year) == (3.0, 1970, 2005)
    assert (source.density, source.items_with_text) == (1.0, 1)
    assert (target.items, target.users, target.ratings) == (3, 2, 4)
    assert (target.density, target.ratings_per_user, target.mean_rating) == (4 / 6, 2.0, 4.25)
    assert target.items_with_text is None


def test_times_in_milliseconds_are_seen_in_the_years(tiny: Path) -> None:
    write_lines(tiny / "ms" / "ms.inter", INTER_HEADER, "a\tx\t5\t1400000000000", "a\ty\t5\t-1.5")
    (domain,) = make_stats(tiny, "ms").domains
    assert (domain.first_year, domain.last_year) == (1969, 46334)


def test_floors_by_hand(tiny: Path) -> None:
    _, target = read_domains(tiny, ["s", "t"], (1.0, 5.0))
    hidden = np.array([False, True])
    source_bias = np.array([-0.5, 0.25])
    errors = floor_errors(target, source_bias, hidden, (1.0, 5.0))
    # a rated y 3, z 4 and w 5: their mean is 4, and the bias of y is -1 / (1 + 3), in every round
    # of BiasTransfer too, for that of a stays 0. b rated y 5.
    assert errors["GlobalMean"] == (1.0, 1.0)
    assert errors["ItemMean"] == pytest.approx((1.25, 1.25), abs=1e-15)
    assert errors["BiasTransfer"] == pytest.approx((1.0, 1.0), abs=1e-15)
    # Clipped, all say 2.
    errors = floor_errors(target, source_bias, hidden, (1.0, 2.0))
    assert set(errors.values()) == {(3.0, 3.0)}


def test_mae_and_rmse_differ_where_they_should(tiny: Path) -> None:
    _, target = read_domains(tiny, ["s", "t"], (1.0, 5.0))
    errors = floor_errors(target, np.zeros(2), np.array([True, False]), (1.0, 5.0))
    # b rated y 5, so all is 5, and a rated 3, 4 and 5.
    assert errors["GlobalMean"] == pytest.approx((1.0, math.sqrt(5 / 3)))


def test_folds_hide_each_overlapped_user_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_pair(tmp_path)
    source, target = read_domains(tmp_path, domain_names("pair"), (1.0, 5.0))
    seen = []

    def errors(*arguments: object) -> dict[str, tuple[float, float]]:
        seen.append(arguments[2])
        return {name: (len(seen), 10.0 * len(seen)) for name in FLOORS}

    monkeypatch.setattr("dataset_tools.stats.floor_errors", errors)
    floors = measure_floors(source, target, (1.0, 5.0))
    assert floors is not None
    assert np.array_equal(np.sum(seen, axis=0), overlapped_users([source, target]))
    assert [hidden.sum() for hidden in seen] == [8] * 5  # type: ignore[attr-defined]
    assert floors.users_per_fold == 8
    assert floors.validation_users == 3  # a tenth of the 32 that a test of a fifth leaves
    assert floors.mae["ItemMean"] == Estimate(3.0, math.sqrt(2.5 / 5))
    assert floors.rmse["ItemMean"].mean == 30.0
    assert floors.gain == Estimate(0.0, 0.0)


@pytest.mark.parametrize("model", FLOORS)
def test_floors_are_the_models(tmp_path: Path, model: str) -> None:
    """On the same users, and with none left out to validate on, to the last digit reported."""
    write_small_pair(tmp_path)
    result = run_mm(tmp_path, "pair", model=model, valid_user_ratio=0, split_seed=3)
    source, target = read_domains(tmp_path, domain_names("pair"), (1.0, 5.0))
    users = np.flatnonzero(overlapped_users([source, target]))
    n_test = result["data"]["test_users"]
    hidden = np.zeros(len(target.users), dtype=bool)
    hidden[np.random.default_rng(3).permutation(users)[:n_test]] = True
    biases = fit_biases(
        source.user,
        source.item,
        source.rating,
        n_users=len(source.users),
        n_items=len(source.items),
        rounds=10,
        item_shrinkage=3.0,
        user_shrinkage=5.0,
    )
    found = floor_errors(target, biases.user, hidden, (1.0, 5.0))[model]
    expected = [result["test"][metric] for metric in ("MAE", "RMSE")]
    assert found == pytest.approx(expected, abs=2e-6)


def check_against_runs(data_path: Path, pair: str, saved: Path, tolerance: float) -> Floors:
    """Means over splits, which have a few training users less."""
    floors = make_stats(data_path, pair, out=saved).floors
    assert floors is not None
    runs = [
        run_mm(data_path, pair, model="BiasTransfer", split_seed=seed, checkpoint_dir=str(saved))
        for seed in (2020, 2021, 2022)
    ]
    for metric, found in (("MAE", floors.mae), ("RMSE", floors.rmse)):
        expected = np.mean([run["test"][metric] for run in runs])
        assert found["BiasTransfer"].mean == pytest.approx(expected, abs=tolerance)
    return floors


def test_floors_are_those_of_runs_on_a_planted_pair(tmp_path: Path) -> None:
    make_dataset(tmp_path, "demo", users=1200, items=300)
    floors = check_against_runs(tmp_path, "demo", tmp_path / "saved", 0.03)
    assert floors.gain.mean > 5 * floors.gain.error


def test_floors_are_those_of_runs_on_a_real_pair(shared_data: Path, tmp_path: Path) -> None:
    floors = check_against_runs(shared_data, "amazon_books_movies", tmp_path, 0.02)
    assert floors.users_per_fold == 266
    assert floors.validation_users == 106


def test_counts_of_a_real_pair(shared_data: Path, tmp_path: Path) -> None:
    stats = make_stats(shared_data, "amazon_movies_music", out=tmp_path)
    movies, music = stats.domains
    assert (movies.ratings, movies.users, movies.items) == (150137, 7976, 6871)
    assert (music.ratings, music.users, music.items) == (6908, 2490, 382)
    assert (movies.items_with_text, music.items_with_text) == (6871, 382)
    assert (movies.first_year, music.first_year, music.last_year) == (None, 1998, 2014)
    assert movies.overlapped == 579
    assert "579 overlapped users, 115 a fold" in stats.verdict[0]
    assert "46 validation users, fewer than 50" in stats.verdict[1]


def of(gain: float, error: float, validation_users: int = 50) -> Floors:
    rmse = {name: Estimate(1.0, 0.01) for name in FLOORS}
    return Floors(20, validation_users, rmse, rmse, Estimate(gain, error))


@pytest.mark.parametrize(
    ("floors", "start", "sentences"),
    [
        (of(0.05, 0.02), r"Worth it: .* takes 0\.0500 ± 0\.0200 \(5\.0%\) off ItemMean's RMSE", 1),
        (of(0.03, 0.02), "Doubtful: what BiasTransfer takes off .* may be chance", 1),
        (of(-0.03, 0.02), "Doubtful: .* may be chance", 1),
        (of(-0.05, 0.02), r"Doubtful: BiasTransfer is worse than ItemMean, .* 0\.0500 ±", 1),
        (of(0.05, 0.02, 49), "Worth it: .* 100 overlapped users, 20 a fold", 2),
        (None, "Too small: of 100 overlapped users", 1),
    ],
)
def test_verdict(floors: Floors | None, start: str, sentences: int) -> None:
    verdict = judge(100, floors)
    assert len(verdict) == sentences
    assert re.match(start, verdict[0])


def test_a_source_that_says_nothing_is_not_worth_it(tmp_path: Path) -> None:
    make_dataset(tmp_path, "none", users=1200, items=300, structure="no_signal")
    assert make_stats(tmp_path, "none").verdict[0].startswith("Doubtful: ")


def test_a_pair_with_hardly_an_overlapped_user(tiny: Path) -> None:
    stats = make_stats(tiny, "p")
    assert stats.floors is None
    assert stats.verdict[0].startswith("Too small: of 2 overlapped users")


@pytest.mark.parametrize(("dataset", "columns"), [("pair", 2), ("pair_movie", 1)])
def test_histograms_are_an_image(tmp_path: Path, dataset: str, columns: int) -> None:
    write_small_pair(tmp_path)
    picture = make_stats(tmp_path, dataset, out=tmp_path / "figures").histograms
    assert picture == tmp_path / "figures" / f"{dataset}.stats.png"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.size == (616 * columns, 1375)
        image.load()
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 10
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    before = picture.read_bytes()
    make_stats(tmp_path, dataset, out=tmp_path / "figures")
    assert picture.read_bytes() == before


def test_histograms_of_odd_domains(tiny: Path) -> None:
    """One value, many values, no texts, and a name that looks like a formula."""
    ratings = [f"u{n}\ti\t{1 + n / 10}\t0" for n in range(40)]
    write_lines(tiny / "$a_b$" / "$a_b$.inter", INTER_HEADER, *ratings)
    write_lines(tiny / "one" / "one.inter", INTER_HEADER, "a\tx\t5\t0")
    for name in ("$a_b$", "one", "p"):
        with Image.open(make_stats(tiny, name).histograms) as image:
            image.verify()


def test_a_domain_alone(tmp_path: Path) -> None:
    write_small_pair(tmp_path)
    stats = make_stats(tmp_path, "pair_cd")
    assert [domain.domain for domain in stats.domains] == ["pair_cd"]
    assert stats.floors is None
    assert stats.verdict == []
    assert stats.histograms == tmp_path / "pair_cd" / "pair_cd.stats.png"


def test_command_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_pair(tmp_path)
    out, file = tmp_path / "figures", tmp_path / "figures" / "all.json"
    options = [f"--data_path={tmp_path}", f"--out={out}", f"--json={file}"]
    main(["stats", "--dataset=pair", *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["pair_movie", "30", "50"]
    assert [line.split()[0] for line in lines[5:9]] == ["floor", *FLOORS]
    assert "There are 40 overlapped users, 8 a fold." in lines[10]
    assert lines[11].startswith("Warning: the default split has 3 validation users")
    assert lines[12] == f"histograms: {out / 'pair.stats.png'}"

    figures = json.loads(file.read_text(encoding="utf-8"))
    stats = make_stats(tmp_path, "pair")
    assert figures["dataset"] == "pair"
    assert figures["rating_range"] == [1.0, 5.0]
    assert figures["verdict"] == stats.verdict == lines[10:12]
    assert stats.floors is not None
    for name in FLOORS:
        found = stats.floors.rmse[name]
        assert figures["floors"]["rmse"][name] == {"mean": found.mean, "error": found.error}
        assert str(found) in "\n".join(lines[6:9])
    for domain, known in zip(figures["domains"], stats.domains, strict=True):
        assert domain["density"] == known.density
        assert domain["mean_rating"] == known.mean_rating
        assert domain["overlapped"] == 40

    main(["stats", "--dataset=pair_cd", *options])
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert json.loads(file.read_text(encoding="utf-8"))["floors"] is None


def test_the_rating_range_is_the_pairs_own_or_the_one_given(tiny: Path) -> None:
    edit_line(tiny / "t" / "t.inter", 2, "3", "0.5")
    with pytest.raises(UserError, match=r"t.inter, line 2.* 0.5 is outside 1 to 5"):
        make_stats(tiny, "p")
    assert make_stats(tiny, "p", rating_range=(0.0, 5.0)).domains[1].ratings == 4
    write_pair_file(tiny, "p", "s", "t", rating_range=(0.5, 5.0))
    assert make_stats(tiny, "p").domains[1].ratings == 4


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("q", r"there is no q/q.inter"),
        ("half", r"half.yaml: a pair needs `source_dataset` and `target_dataset`"),
        ("apart", r"No user is in both domains: `s` has 2 users such as `a`"),
    ],
)
def test_refuses_what_is_no_data_set(tiny: Path, dataset: str, message: str) -> None:
    write_lines(tiny / "half" / "half.yaml", "source_dataset: s")
    write_lines(tiny / "others" / "others.inter", INTER_HEADER, "c\tx\t5\t0")
    write_pair_file(tiny, "apart", "s", "others")
    with pytest.raises(UserError, match=message):
        make_stats(tiny, dataset)
    assert not list(tiny.glob("*/*.png"))


def test_a_folder_that_cannot_be(tiny: Path) -> None:
    file = write_lines(tiny / "file", "in the way")
    with pytest.raises(ConfigError, match=r"cannot write `p.stats.png` here"):
        make_stats(tiny, "p", out=file)
