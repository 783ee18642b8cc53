"""What the tables of a report hold, on made-up runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_results import VERSIONS, Folder, K, run_of
from scipy import stats

from recbole_cdr_mm.benchmark.report.document import Cell, Document, Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures
from recbole_cdr_mm.benchmark.report.write import build_document
from recbole_cdr_mm.benchmark.results import load_results

SEEDS = (1, 2, 3)
MISSING = "\N{EN DASH}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


def document_of(folder: Folder) -> Document:
    return build_document(Measures(load_results(folder.plan())))


def section_of(document: Document, anchor: str) -> Section:
    (section,) = (s for s in document.sections if s.anchor == anchor)
    return section


def anchors_of(document: Document) -> list[str]:
    return [section.anchor for section in document.sections]


def table_of(document: Document, name: str) -> Table:
    parts = [part for section in document.sections for part in section.parts]
    (table,) = (part for part in parts if isinstance(part, Table) and part.name == name)
    return table


def cell_of(table: Table, row: str, column: str, span: str = "") -> Cell:
    spans = [name for name, width in table.spans for _ in range(width)]
    spans = spans or [""] * len(table.columns)
    (found,) = (r for r in table.rows if r.name == row)
    places = [
        i
        for i, (name, above) in enumerate(zip(table.columns, spans, strict=True))
        if name == column and (not span or above == span)
    ]
    (place,) = places
    return found.cells[place]


def add_ratings(folder: Folder, label: str, scale: float, **fields: Any) -> None:
    for seed in SEEDS:
        folder.rating(run_of(label, seed, **fields), scale)


class TestMainTable:
    def test_a_better_a_worse_and_an_equal_model(self, folder: Folder) -> None:
        add_ratings(folder, "BiasTransfer", 1.0, kind="floor")
        add_ratings(folder, "Better", 0.7)
        add_ratings(folder, "Worse", 1.5)
        add_ratings(folder, "Equal", 1.0)
        table = table_of(document_of(folder), "rating-0.2")
        for metric in ("MAE", "RMSE"):
            cells = {row.name: cell_of(table, row.name, metric) for row in table.rows}
            marks = {name: cell.mark for name, cell in cells.items()}
            assert marks == {"BiasTransfer": "", "Better": "▲", "Worse": "▼", "Equal": ""}
            assert [name for name, cell in cells.items() if cell.is_best] == ["Better"]
        assert "BiasTransfer" in table.caption

    def test_marks_are_corrected_for_many_models(self, folder: Folder) -> None:
        add_ratings(folder, "ItemMean", 1.0, kind="floor")
        for i in range(12):
            for seed in SEEDS:
                folder.rating(run_of(f"Model{i}", seed), 1.0 + i / 50, noise=20 + i)
        document = document_of(folder)
        main = table_of(document, "rating-0.2")
        table = table_of(document, "comparison-rating-0.2-RMSE")
        p = {row.name: cell_of(table, row.name, "p").value or 0.0 for row in table.rows}
        holm = {row.name: cell_of(table, row.name, "p, Holm").value or 0.0 for row in table.rows}
        marked = {name for name in p if cell_of(main, name, "RMSE").mark}
        assert marked == {name for name in p if holm[name] < 0.05}
        assert marked
        assert any(p[name] < 0.05 <= holm[name] for name in p)

    def test_a_better_ranking(self, folder: Folder) -> None:
        for seed in SEEDS:
            for label, reach, kind in (("Pop", 60, "floor"), ("Better", 8, "cross-domain")):
                folder.ranking(run_of(label, seed, eval_task="ranking", kind=kind), reach)
        table = table_of(document_of(folder), "ranking-0.2")
        assert table.columns == ("NDCG@10", "Recall@20", "MRR@10", "Hit@10", "seconds")
        cell = cell_of(table, "Better", "NDCG@10")
        assert (cell.mark, cell.is_best) == ("▲", True)
        assert not cell_of(table, "Pop", "NDCG@10").is_best

    def test_numbers(self, folder: Folder) -> None:
        reported = []
        for seed in SEEDS:
            columns = folder.rating(run_of("EMCDR", seed), 1.0)
            error = columns["prediction"].astype(float) - columns["rating"]
            reported.append(np.abs(error).mean())
        cell = cell_of(table_of(document_of(folder), "rating-0.2"), "EMCDR", "MAE")
        assert cell.value == pytest.approx(np.mean(reported))
        assert cell.low is not None
        assert cell.high is not None
        half = (cell.high - cell.low) / 2
        assert cell.text == f"{np.mean(reported):.4f} ± {half:.4f}"
        assert cell.n_seeds == 3

    def test_nothing_is_best_where_all_are_equal(self, folder: Folder) -> None:
        add_ratings(folder, "One", 1.0)
        add_ratings(folder, "Other", 1.0)
        table = table_of(document_of(folder), "rating-0.2")
        assert not any(cell.is_best or cell.mark for row in table.rows for cell in row.cells)

    def test_fewer_seeds_are_said_and_never_best(self, folder: Folder) -> None:
        add_ratings(folder, "Complete", 1.0)
        folder.rating(run_of("Partial", 1), 0.5)
        folder.failed(run_of("Partial", 2))
        folder.missing(run_of("Partial", 3))
        table = table_of(document_of(folder), "rating-0.2")
        partial = cell_of(table, "Partial", "MAE")
        assert partial.text.endswith("(1 of 3 seeds)")
        assert not partial.is_best
        assert "seeds" not in cell_of(table, "Complete", "MAE").text

    def test_a_model_without_results_has_dashes(self, folder: Folder) -> None:
        add_ratings(folder, "EMCDR", 1.0)
        for seed in SEEDS:
            folder.failed(run_of("PTUPCDR", seed))
        table = table_of(document_of(folder), "rating-0.2")
        (row,) = (row for row in table.rows if row.name == "PTUPCDR")
        assert {cell.text for cell in row.cells} == {MISSING}

    def test_groups_and_spans(self, folder: Folder) -> None:
        for dataset in ("one", "two"):
            for kind, label in (("RecBole", "FM"), ("floor", "ItemMean"), ("cross-domain", "CMF")):
                folder.rating(run_of(label, 1, dataset=dataset, kind=kind), 1.0)
        table = table_of(document_of(folder), "rating-0.2")
        assert table.spans == (("one", 3), ("two", 3))
        assert table.columns == ("MAE", "RMSE", "seconds") * 2
        groups = [(row.name, row.group) for row in table.rows]
        assert groups == [
            ("ItemMean", "floors"),
            ("CMF", "cross-domain"),
            ("FM", "RecBole's own"),
        ]
        assert cell_of(table, "CMF", "seconds", "two").value == 5.5

    def test_a_table_for_each_preset_and_base_model(self, folder: Folder) -> None:
        folder.rating(run_of("ItemMean", 1, kind="floor"), 1.0)
        for preset in ("default", "paper"):
            for base in ("MF", "GMF"):
                scale = {"MF": 0.8, "GMF": 0.9}[base] + (preset == "paper")
                folder.rating(run_of("EMCDR", 1, preset=preset, base_model=base), scale)
        document = document_of(folder)
        values = [
            cell_of(table_of(document, f"rating-0.2-{preset}-{base}"), "EMCDR", "RMSE").value
            for preset in ("default", "paper")
            for base in ("MF", "GMF")
        ]
        assert values == sorted(set(filter(None, values)))
        table = table_of(document, "base-models-rating-0.2-default")
        assert table.columns == ("MF", "GMF")
        assert cell_of(table, "EMCDR", "GMF").value == values[1]

    def test_trials_where_any_was_tuned(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1, trials=30), 1.0)
        folder.rating(run_of("CMF", 1), 1.0)
        document = document_of(folder)
        table = table_of(document, "rating-0.2")
        assert cell_of(table, "EMCDR", "trials").text == "30"
        assert cell_of(table, "CMF", "trials").text == MISSING
        assert any("Unequal tuning" in text for text in section_of(document, "runs").paragraphs)
        assert cell_of(table_of(document, "tuning"), "CMF", "rating").text == "none"

    def test_a_search_on_other_splits_is_told(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1, trials=30, tuned_on=[1]), 1.0)
        folder.rating(run_of("CMF", 1, trials=30, tuned_on=[1]), 1.0)
        text = " ".join(section_of(document_of(folder), "runs").paragraphs)
        assert "Tuned on other splits" not in text
        folder.rating(run_of("CMF", 3, trials=30, tuned_on=[1]), 1.0)
        text = " ".join(section_of(document_of(folder), "runs").paragraphs)
        assert "validation users of split 1, and splits 1, 3 are measured" in text

    def test_beyond_accuracy(self, folder: Folder) -> None:
        for seed in SEEDS:
            for label, reach in (("Pop", 60), ("EMCDR", 8)):
                folder.ranking(run_of(label, seed, eval_task="ranking", kind="floor"), reach)
        results = load_results(folder.plan()).results
        values = [
            r.result["test"]["ItemCoverage@10"]
            for r in results
            if r.run.label == "EMCDR" and r.result
        ]
        table = table_of(document_of(folder), "ranking-0.2-beyond-accuracy")
        cell = cell_of(table, "EMCDR", "ItemCoverage@10")
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        assert cell.value == pytest.approx(np.mean(values))
        assert cell.high == pytest.approx(np.mean(values) + half)
        assert not any(cell.is_best or cell.mark for row in table.rows for cell in row.cells)


def test_data_sets(folder: Folder) -> None:
    for ratio in (0.8, 0.2):
        for seed in SEEDS:
            folder.rating(run_of("EMCDR", seed, test_user_ratio=ratio), 1.0)
    document = document_of(folder)
    sizes = table_of(document, "data-sets")
    assert cell_of(sizes, "pair", "ratings", "target domain").text == "12,345"
    assert cell_of(sizes, "pair", "source", "items with text").value == 70
    splits = table_of(document, "splits")
    assert [row.name for row in splits.rows] == ["pair, 20%", "pair, 80%"]
    assert cell_of(splits, "pair, 20%", "unseen test items").value == np.mean(SEEDS)


class TestComparisons:
    def test_differences_and_p_values(self, folder: Folder) -> None:
        add_ratings(folder, "ItemMean", 1.0, kind="floor")
        add_ratings(folder, "Better", 0.8)
        add_ratings(folder, "Equal", 1.0)
        document = document_of(folder)
        main = table_of(document, "rating-0.2")
        table = table_of(document, "comparison-rating-0.2-RMSE")
        assert [row.name for row in table.rows] == ["Better", "Equal"]
        difference = cell_of(table, "Better", "difference")
        one, other = (cell_of(main, row, "RMSE").value for row in ("Better", "ItemMean"))
        assert one is not None
        assert other is not None
        assert difference.value == pytest.approx(one - other)
        assert difference.mark == "▲"
        p, holm = (cell_of(table, "Better", column).value for column in ("p", "p, Holm"))
        assert p is not None
        assert holm == pytest.approx(min(1, 2 * p))
        assert cell_of(table, "Better", "Wilcoxon").value == 0.25  # the smallest of three seeds
        assert cell_of(table, "Equal", "p").value == 1

    def test_too_few_seeds_for_wilcoxon(self, folder: Folder) -> None:
        add_ratings(folder, "ItemMean", 1.0, kind="floor")
        add_ratings(folder, "EMCDR", 1.1)
        (note,) = section_of(document_of(folder), "comparisons").paragraphs
        assert "smallest p that Wilcoxon's test over seeds can have is 0.25" in note

    def test_enough_seeds_for_wilcoxon(self, folder: Folder) -> None:
        for seed in range(1, 7):
            for label, kind, scale in (("ItemMean", "floor", 1.0), ("EMCDR", "RecBole", 1.1)):
                folder.rating(run_of(label, seed, kind=kind), scale)
        assert section_of(document_of(folder), "comparisons").paragraphs == ()

    def test_all_blocks(self, folder: Folder) -> None:
        for dataset, other in (("one", 0.95), ("two", 1.1), ("three", 1.2)):
            for seed in SEEDS[:2]:
                floors = (("Often", 1.0), ("Once", other))
                for label, scale in floors:
                    folder.rating(run_of(label, seed, kind="floor", dataset=dataset), scale)
                folder.rating(run_of("EMCDR", seed, dataset=dataset), 0.9)
        table = table_of(document_of(folder), "blocks-rating")
        assert "less that of Often" in table.caption
        assert cell_of(table, "EMCDR", "blocks").value == 6
        assert cell_of(table, "EMCDR", "better in").value == 6
        assert cell_of(table, "Once", "better in").value == 2
        assert cell_of(table, "EMCDR", "p").value == pytest.approx(2 / 2**6)
        assert cell_of(table, "EMCDR", "p, Holm").value == pytest.approx(4 / 2**6)

    def test_no_blocks_where_they_are_too_few(self, folder: Folder) -> None:
        add_ratings(folder, "ItemMean", 1.0, kind="floor")
        add_ratings(folder, "EMCDR", 1.1)
        parts = section_of(document_of(folder), "comparisons").parts
        assert [part.name for part in parts] == ["comparison-rating-0.2-RMSE"]


class TestVariants:
    def test_modality_is_compared_with_the_main_run(self, folder: Folder) -> None:
        add_ratings(folder, "BiasTransfer", 0.5, kind="floor")
        add_ratings(folder, "MetaMMCDR", 1.0)
        for features, scale in (("id", 1.4), ("text", 1.0), ("both", 0.7)):
            values = {"item_features": features}
            label = f"MetaMMCDR (item_features={features})"
            add_ratings(folder, label, scale, variant={"name": "modality", "values": values})
        document = document_of(folder)
        table = table_of(document, "modality-rating-0.2")
        marks = {row.name: cell_of(table, row.name, "RMSE").mark for row in table.rows}
        assert marks == {
            "MetaMMCDR (main run)": "",
            "MetaMMCDR (item_features=id)": "▼",
            "MetaMMCDR (item_features=text)": "",
            "MetaMMCDR (item_features=both)": "▲",
        }
        main = [row.name for row in table_of(document, "rating-0.2").rows]
        assert main == ["BiasTransfer", "MetaMMCDR"]

    def test_few_shot_is_compared_with_none_revealed(self, folder: Folder) -> None:
        for start, scales in (("random", (1.5, 1.2, 0.9)), ("target", (1.0, 1.0, 1.0))):
            for n, scale in zip((0, 1, 4), scales, strict=True):
                values = {"few_shot": n, "few_shot_start": start}
                variant = {"name": "few_shot", "values": values}
                add_ratings(folder, f"EMCDR ({n}, {start})", scale, model="EMCDR", variant=variant)
        table = table_of(document_of(folder), "few_shot-rating-0.2")
        assert table.spans == (("pair MAE", 3), ("pair RMSE", 3))
        assert table.columns == ("n = 0", "n = 1", "n = 4") * 2
        marks = {row.name: [cell.mark for cell in row.cells[3:]] for row in table.rows}
        assert marks == {
            "EMCDR (few_shot_start=random)": ["", "▲", "▲"],
            "EMCDR (few_shot_start=target)": ["", "", ""],
        }
        best = [cell_of(table, row.name, "n = 0", "pair RMSE").is_best for row in table.rows]
        assert best == [False, True]

    def test_any_other_variant(self, folder: Folder) -> None:
        add_ratings(folder, "EMCDR", 1.0)
        values = {"weight_decay": 0.1}
        variant = {"name": "decay", "values": values}
        add_ratings(folder, "EMCDR (weight_decay=0.1)", 1.2, variant=variant)
        document = document_of(folder)
        assert "variant-decay" in anchors_of(document)
        cell = cell_of(table_of(document, "decay-rating-0.2"), "EMCDR (weight_decay=0.1)", "RMSE")
        assert cell.mark == "▼"

    def test_unseen_items_stand_in_a_table_of_their_own(self, folder: Folder) -> None:
        add_ratings(folder, "EMCDR", 1.0)
        for values in ({"weight_decay": 0.1}, {"unseen_item_ratio": 0.25}):
            add_ratings(
                folder,
                f"EMCDR ({values})",
                0.5,
                model="EMCDR",
                variant={"name": "new", "values": values},
                config=values,
            )
        document = document_of(folder)
        rows = [row.name for row in table_of(document, "new-rating-0.2").rows]
        assert rows == ["EMCDR (main run)", "EMCDR (weight_decay=0.1)"]
        table = table_of(document, "new-rating-0.2-unseen-0.25")
        assert [row.name for row in table.rows] == ["EMCDR (unseen_item_ratio=0.25)"]
        assert "on the 25% of the target items that are unseen" in table.caption
        assert not any(cell.mark or cell.is_best for row in table.rows for cell in row.cells)

    def test_other_rows_are_not_compared(self, folder: Folder) -> None:
        add_ratings(folder, "EMCDR", 1.0)
        folder.n_rows -= 1
        variant = {"name": "pool", "values": {"few_shot_pool": 3}}
        add_ratings(folder, "EMCDR (few_shot_pool=3)", 2.0, variant=variant)
        table = table_of(document_of(folder), "pool-rating-0.2")
        assert not any(cell.mark for row in table.rows for cell in row.cells)


class TestGroups:
    def test_users_by_terciles(self, folder: Folder) -> None:
        expected: dict[str, list[float]] = {"niche": [], "medium": [], "mainstream": []}
        for seed in SEEDS:
            columns = folder.rating(run_of("EMCDR", seed), 1.0)
            taste = dict(zip(columns["users"], columns["mainstream"], strict=True))
            order = sorted(taste, key=lambda user: taste[user])
            parts = (order[:14], order[14:27], order[27:])  # of 40 users
            error = columns["prediction"].astype(float) - columns["rating"]
            for part, users in zip(expected, parts, strict=True):
                mine = np.isin(columns["user"], users)
                expected[part].append(np.sqrt(np.square(error[mine]).mean()))
        table = table_of(document_of(folder), "groups-rating-0.2-pair")
        for part, values in expected.items():
            cell = cell_of(table, "EMCDR", part, "taste")
            assert cell.value == pytest.approx(np.mean(values))
        sizes = [cell_of(table, "users or test ratings", p, "taste").value for p in expected]
        assert sizes == [14, 13, 13]

    def test_equal_values_stay_together(self, folder: Folder) -> None:
        run = run_of("EMCDR", 1)
        columns = folder.split(run)
        columns["prediction"] = columns["rating"] + 1
        columns["history_length"] = np.r_[np.full(30, 4), np.full(10, 5)]
        folder.add(run, columns, {"MAE": 1.0, "RMSE": 1.0}, "RMSE", 1.0)
        table = table_of(document_of(folder), "groups-rating-0.2-pair")
        parts = ("short", "medium", "long")
        sizes = [cell_of(table, "users or test ratings", p, "history length").value for p in parts]
        assert sizes == [30, 0, 10]
        assert cell_of(table, "EMCDR", "medium", "history length").text == MISSING

    def test_items_of_rankings(self, folder: Folder) -> None:
        columns = folder.ranking(run_of("EMCDR", 1, eval_task="ranking"), 40)
        table = table_of(document_of(folder), "groups-ranking-0.2-pair")
        unseen = columns["item_ratings"] == 0
        found = (columns["rank"][unseen] > 0).mean()
        assert cell_of(table, "EMCDR", "unseen").value == pytest.approx(found)
        seen = np.sort(columns["item_ratings"][~unseen])
        popular = columns["item_ratings"] > seen[int(np.ceil(len(seen) * 2 / 3)) - 1]
        cell = cell_of(table, "EMCDR", "popular")
        assert cell.value == pytest.approx((columns["rank"][popular] > 0).mean())
        assert f"hit rate@{K}" in table.caption


class TestPublished:
    def test_beside_our_own_numbers(self, folder: Folder) -> None:
        folder.rating(run_of("BiasTransfer", 1, kind="floor", dataset="movie_cd"), 1.0)
        for preset in ("default", "paper"):
            folder.rating(run_of("MetaMMCDR", 1, dataset="movie_cd", preset=preset), 1.2)
        document = document_of(folder)
        table = table_of(document, "published")
        groups = {row.name: row.group for row in table.rows}
        assert groups["CDRNP"] == "published"
        assert groups["BiasTransfer (ours)"] == "this benchmark"
        assert groups["MetaMMCDR, preset paper (ours)"] == "this benchmark"
        assert cell_of(table, "CDRNP", "RMSE", "movie_cd").value == 1.064
        mine = cell_of(table_of(document, "rating-0.2-default"), "BiasTransfer", "RMSE")
        ours = cell_of(table, "BiasTransfer (ours)", "RMSE", "movie_cd")
        assert (ours.value, ours.low) == (mine.value, mine.low)
        assert cell_of(table, "BiasTransfer (ours)", "RMSE", "book_cd").text == MISSING

    def test_no_other_share_of_test_users(self, folder: Folder) -> None:
        run = run_of("BiasTransfer", 1, kind="floor", dataset="movie_cd", test_user_ratio=0.5)
        folder.rating(run, 1.0)
        rows = table_of(document_of(folder), "published").rows
        assert "this benchmark" not in {row.group for row in rows}

    def test_not_for_other_data(self, folder: Folder) -> None:
        folder.rating(run_of("BiasTransfer", 1, kind="floor"), 1.0)
        assert "published" not in anchors_of(document_of(folder))


class TestRuns:
    def test_failures_and_missing_runs(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        folder.failed(run_of("EMCDR", 2), type="ConfigError", message="no file")
        folder.missing(run_of("EMCDR", 3))
        document = document_of(folder)
        assert "1 done, 1 failed, 1 missing." in section_of(document, "runs").paragraphs
        (row,) = table_of(document, "failures").rows
        assert row.name.endswith("seed 2")
        assert [cell.text for cell in row.cells][:2] == ["ConfigError", "no file"]
        (row,) = table_of(document, "missing").rows
        assert row.cells[0].text == "3"

    def test_nothing_done(self, folder: Folder) -> None:
        folder.failed(run_of("EMCDR", 1))
        assert anchors_of(document_of(folder)) == ["overview", "runs"]

    def test_time_of_shared_base_models_counts_once(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        text = " ".join(section_of(document_of(folder), "runs").paragraphs)
        assert "Training took 4 s." in text  # 3.5, without the 2 of what was trained before
        assert "saved 2 s" in text

    def test_mixed_versions(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        assert "Mixed" not in " ".join(section_of(document_of(folder), "runs").paragraphs)
        folder.rating(run_of("EMCDR", 2), 1.0, versions={**VERSIONS, "torch": "2.6.0"})
        document = document_of(folder)
        assert any("`torch`" in text for text in section_of(document, "runs").paragraphs)
        assert cell_of(table_of(document, "versions"), "torch", "version").text == "2.13.0, 2.6.0"

    def test_a_variant_that_is_the_main_run_counts_once(self, folder: Folder) -> None:
        run = run_of("MetaMMCDR", 1)
        folder.rating(run, 1.0)
        variant = {"name": "modality", "values": {"item_features": "text"}}
        label = "MetaMMCDR (item_features=text)"
        folder.missing({**run_of(label, 1, variant=variant), "key": run["key"]})
        document = document_of(folder)
        assert section_of(document, "runs").paragraphs[0] == "1 done, 0 failed, 0 missing."
        cell = cell_of(table_of(document, "modality-rating-0.2"), label, "RMSE")
        assert cell.value == cell_of(table_of(document, "rating-0.2"), "MetaMMCDR", "RMSE").value
