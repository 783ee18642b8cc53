"""The files of a report."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_results import Folder, run_of

from recbole_cdr_mm.benchmark.cli import main
from recbole_cdr_mm.benchmark.report.document import Cell, Document, Row, Section, Table
from recbole_cdr_mm.benchmark.report.latex import latex
from recbole_cdr_mm.benchmark.report.markdown import markdown
from recbole_cdr_mm.benchmark.report.terminal import plain_text
from recbole_cdr_mm.benchmark.report.write import write_report
from recbole_cdr_mm.errors import ConfigError

NASTY = r"50% of a_b|c & {d} $e^f ~g \h #1 <i> *j* [k] `l`"


def fill(folder: Folder) -> Path:
    for seed in (1, 2):
        for task, add in (("rating", folder.rating), ("ranking", folder.ranking)):
            for label, kind, size in (("BiasTransfer", "floor", 20), ("EMCDR", "cross-domain", 10)):
                run = run_of(label, seed, eval_task=task, kind=kind)
                add(run, size)  # type: ignore[operator]
    folder.failed(run_of("PTUPCDR", 1), message="a | b\nc")
    return folder.plan("Made | up")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = fill(Folder(tmp_path_factory.mktemp("benchmark") / "out"))
    assert write_report(out) == out / "report" / "report.html"
    return out


def contents(out: Path) -> dict[str, bytes]:
    report = out / "report"
    files = sorted(file for file in report.rglob("*") if file.is_file())
    return {str(file.relative_to(report)): file.read_bytes() for file in files}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table_of(text: str) -> Table:
    cell = Cell(text, value=1.0, is_best=True, mark="▲")
    return Table(
        "t", text, text, (text, "x"), (Row(text, (cell, Cell("\N{EN DASH}")), text),), ((text, 2),)
    )


class TestFiles:
    def test_all_are_there(self, out: Path) -> None:
        files = set(contents(out))
        assert {
            "report.md",
            "report.html",
            "main_tables.txt",
            "tables/rating-0.2.csv",
            "tables/rating-0.2.tex",
        } < files
        pictures = {file for file in files if file.startswith("figures/")}
        assert {file.rpartition(".")[0] for file in pictures if file.endswith("svg")} == {
            file.rpartition(".")[0] for file in pictures if file.endswith("png")
        }
        assert any("learning" in file for file in pictures)
        assert not [file for file in files if "tmp" in file]

    def test_same_results_same_bytes_whatever_was_there(self, out: Path, tmp_path: Path) -> None:
        other = tmp_path / "elsewhere"
        shutil.copytree(out, other)
        (other / "report" / "report.md").write_text("old")
        (other / "report" / "tables" / "gone.csv").touch()
        (other / "report" / "tables" / "mine.txt").touch()
        write_report(other)
        found = contents(other)
        assert found.pop("tables/mine.txt") == b""
        assert found == contents(out)

    def test_markdown_and_page_have_every_table(self, out: Path) -> None:
        text = (out / "report" / "report.md").read_text(encoding="utf-8")
        page = (out / "report" / "report.html").read_text(encoding="utf-8")
        for file in (out / "report" / "tables").glob("*.tex"):
            assert f'id="{file.stem}"' in text
            assert f'id="table-{file.stem}"' in page
        for file in (out / "report" / "figures").glob("*.png"):
            assert f"](figures/{file.name})" in text
        assert text.startswith("# Made \\| up\n")


class TestCsv:
    def test_a_line_for_each_cell(self, out: Path) -> None:
        rows = read_csv(out / "report" / "tables" / "rating-0.2.csv")
        (cell,) = (r for r in rows if (r["row"], r["column"]) == ("EMCDR", "RMSE"))
        values = []
        for file in (out / "runs").glob("EMCDR*rating*.json"):
            values.append(json.loads(file.read_text())["result"]["test"]["RMSE"])
        assert float(cell["value"]) == pytest.approx(sum(values) / 2, rel=1e-12)
        assert float(cell["low"]) < float(cell["value"]) < float(cell["high"])
        told = {name: cell[name] for name in ("table", "group", "span", "n_seeds", "best", "mark")}
        assert told == {
            "table": "rating-0.2",
            "group": "cross-domain",
            "span": "pair",
            "n_seeds": "2",
            "best": "1",
            "mark": "▲",
        }

    def test_all_metrics(self, out: Path) -> None:
        tables = out / "report" / "tables"
        columns = {row["column"] for row in read_csv(tables / "ranking-0.2-all-metrics.csv")}
        assert {"NDCG@10", "Recall@20", "MRR@10", "Hit@10", "ItemCoverage@10"} < columns
        assert (tables / "comparison-rating-0.2-MAE.csv").exists()
        assert (tables / "groups-rating-0.2-pair-MAE.csv").exists()


class TestMarkdown:
    def test_nothing_breaks_a_table(self, out: Path) -> None:
        lines = (out / "report" / "report.md").read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if "ValueError" in line)
        assert r"a \| b c" in line
        assert line.replace(r"\|", "").count("|") == 5

    def test_special_letters(self) -> None:
        text = markdown(Document(NASTY, (Section("s", NASTY, (), (table_of(NASTY),)),)))
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert {line.replace(r"\|", "").count("|") for line in rows} == {5}
        assert "<i>" not in text
        assert r"\*j\*" in text
        assert "** ▲" in text


class TestTerminal:
    def test_it_has_the_tables_of_the_tasks(
        self, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["report", f"--out={out}"]) == 0
        shown = capsys.readouterr().out
        text = (out / "report" / "main_tables.txt").read_text(encoding="utf-8")
        assert shown == f"{text}\n{out / 'report' / 'report.html'}\n"
        page = (out / "report" / "report.md").read_text(encoding="utf-8")
        (of_page,) = (part for part in page.split("<a id=") if part.startswith('"rating-0.2"'))
        rating, *_ = text.partition("\n\nRanking")
        for model in ("BiasTransfer", "EMCDR"):
            (line,) = (line for line in rating.splitlines() if line.split()[:1] == [model])
            (there,) = (line for line in of_page.splitlines() if f"| {model} |" in line)
            *_, cells = there.partition(f"| {model} |")
            assert line.split()[1:] == cells.replace("|", " ").split()
        assert "**" in rating
        assert "▲" in rating
        assert text.count("Ranking, 20% test users") == 2  # beyond accuracy too
        assert "Data sets" not in text

    def test_a_terminal_that_does_not_know_the_marks(self, out: Path) -> None:
        command = [sys.executable, "-m", "recbole_cdr_mm.benchmark", "report", f"--out={out}"]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        shown = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "Rating prediction" in shown.stdout
        assert "^ significantly better, v significantly worse" in shown.stdout
        assert "?" not in shown.stdout

    def test_no_run_has_a_result(self) -> None:
        assert plain_text(Document("T", ())) == "No run has a result.\n"

    def test_numbers_stand_below_each_other_and_data_sets_too(self) -> None:
        best = Cell("0.1000 ± 0.0100", is_best=True, mark="▲")
        rows = (
            Row("a", (Cell("0.2000 ± 0.0100", mark="▼"), Cell("1.2"), Cell("7"))),
            Row("longer", (best, Cell("11.2"), Cell("8"))),
        )
        spans = (("one", 2), ("two", 1))
        table = Table("t", "A caption.", "model", ("RMSE", "seconds", "RMSE"), rows, spans)
        section, other = (Section(anchor, "T", (), (table,)) for anchor in ("rating", "data"))
        assert plain_text(Document("T", (other, section))) == (
            "A caption.\n\n"
            "one\n"
            " model                  RMSE seconds\n"
            "     a   0.2000 ± 0.0100   ▼     1.2\n"
            "longer **0.1000 ± 0.0100** ▲    11.2\n\n"
            "two\n"
            " model RMSE\n"
            "     a    7\n"
            "longer    8\n"
        )


class TestLatex:
    def test_special_letters(self) -> None:
        text = latex(table_of(NASTY))
        escaped = (
            r"50\% of a\_b\textbar{}c \& \{d\} \$e\textasciicircum{}f \textasciitilde{}g"
            r" \textbackslash{}h \#1 \textless{}i\textgreater{} {*}j{*} {[}k{]}"
            r" \textasciigrave{}l\textasciigrave{}"
        )
        assert text.count(escaped) == 7  # caption, corner, span, column, group, row and cell
        assert NASTY[:6] not in text
        assert rf"\textbf{{{escaped}}}" in text
        assert r"$^\blacktriangle$" in text
        assert "\N{EN DASH}" not in text

    def test_spans_and_groups(self) -> None:
        rows = (
            Row("a", (Cell("1"), Cell("2"), Cell("3")), "first"),
            Row("b", (Cell("4"),) * 3, "second"),
        )
        table = Table("t", "c", "m", ("x", "y", "z"), rows, (("one", 2), ("two", 1)))
        text = latex(table)
        assert r"\multicolumn{2}{c}{one} & \multicolumn{1}{c}{two} \\" in text
        assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
        assert text.index("first") < text.index("a & 1 & 2 & 3") < text.index("second")
        assert r"\label{tab:t}" in text

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
    def test_compiles(self, out: Path, tmp_path: Path) -> None:
        tables = [file.read_text() for file in sorted((out / "report" / "tables").glob("*.tex"))]
        head = r"\documentclass{article}\usepackage{booktabs,amssymb}\usepackage[T1]{fontenc}"
        body = "\n".join([*tables, latex(table_of(NASTY))])
        text = f"{head}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
        (tmp_path / "all.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]


class TestRefusals:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no benchmark"):
            write_report(tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no benchmark"):
            write_report(tmp_path)

    def test_a_plan_without_runs(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the plan has no runs"):
            write_report(Folder(tmp_path / "out").plan())

    def test_a_plan_with_one_run(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / "out")
        folder.rating(run_of("EMCDR", 1), 1.0)
        assert write_report(folder.plan()).exists()
