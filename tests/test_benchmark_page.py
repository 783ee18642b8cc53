"""The page of a report: whole, safe and standing alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from recbole_cdr_mm.benchmark.report.document import Cell, Document, Figure, Row, Section, Table
from recbole_cdr_mm.benchmark.report.page import html

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Checks that tags are balanced; keeps elements, and the text in each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), list[str]())
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, text in self.open:
            text.append(data)

    def all(self, tag: str, **attributes: str) -> list[str]:
        """Texts of the elements with a tag and these attributes."""
        return [
            " ".join("".join(text).split())
            for name, attrs, text in self.elements
            if name == tag and attributes.items() <= attrs.items()
        ]

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a, _ in self.elements if attribute in a]


def draw() -> MatplotlibFigure:
    figure = MatplotlibFigure(figsize=(2, 2))
    figure.subplots().plot([1, 2], [3, 4], marker="o")
    return figure


@pytest.fixture(scope="module")
def document() -> Document:
    table = Table(
        "main",
        f"Caption `of` main {EVIL}",
        "model",
        ("MAE", "RMSE", "words"),
        (
            Row("A", (Cell("0.9 ± 0.1", 0.9, 0.8, 1.0, 3, True, "▲"), Cell("1", 1.0), Cell("w"))),
            Row(f"B {EVIL}", (Cell("0.8", 0.8, mark="▼"), Cell("2", 2.0), Cell(EVIL)), "floors"),
        ),
        (("pair <one>", 2), ("pair two", 1)),
    )
    plain = Table("plain", "Plain", "x", ("y",), (Row("r", (Cell("c"),)),))
    shown = [Figure(f"f{i}", f"Caption of f{i}", f"Alt of f{i} {EVIL}", draw) for i in range(2)]
    text = f"**Bold `code`** and `a ** b` <i> {EVIL}"
    return Document(
        f"Title {EVIL}",
        (
            Section("first", f"First {EVIL}", (text,), (table, *shown)),
            Section("second", "Second", (), (plain,)),
        ),
    )


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return html(document)


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_ids_are_unique_and_links_resolve(reader: Reader) -> None:
    ids = Counter(reader.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = [link for link in reader.values("href") if link]
    assert {"#first", "#second"} <= set(links)
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(name in ids for name in reader.values("aria-labelledby"))


def test_nothing_is_loaded_and_nothing_runs(page: str, reader: Reader) -> None:
    assert not reader.all("script")
    assert not reader.all("link")
    assert not reader.values("src")
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert not [a for _, attrs, _ in reader.elements for a in attrs if a.startswith("on")]


def test_text_is_escaped_and_still_there(page: str, reader: Reader) -> None:
    assert "<script" not in page
    assert reader.all("h1") == [f"Title {EVIL}"]
    assert f"First {EVIL}" in reader.all("h2")
    assert f"B {EVIL}" in reader.all("th", scope="row")
    assert EVIL in reader.all("td")
    assert f"Alt of f0 {EVIL}" in reader.values("aria-label")


def test_paragraphs_have_code_and_bold(reader: Reader) -> None:
    assert {"code", "a ** b", "of"} == set(reader.all("code"))
    assert "Bold code" in reader.all("strong")
    assert f"Bold code and a ** b <i> {EVIL}" in reader.all("p")


def test_every_part_is_there_with_its_caption(reader: Reader) -> None:
    assert reader.all("caption") == [f"Caption of main {EVIL}", "Plain"]
    assert reader.all("figcaption") == ["Caption of f0", "Caption of f1"]
    assert {"table-main", "table-plain", "figure-f0", "figure-f1"} <= set(reader.values("id"))
    assert len(reader.all("svg", role="img")) == 2


def test_headings_of_a_table(reader: Reader) -> None:
    assert reader.all("th", scope="colgroup") == ["pair <one>", "pair two"]
    assert reader.all("th", scope="col") == ["model", "MAE", "RMSE", "words", "x", "y"]
    assert reader.all("th", scope="rowgroup") == ["floors"]
    spans = [a["colspan"] for _, a, _ in reader.elements if "colspan" in a]
    assert spans == ["2", "1", "4"]
    (rows,) = [a["rowspan"] for _, a, _ in reader.elements if "rowspan" in a]
    assert rows == "2"


def test_cells(reader: Reader) -> None:
    assert "0.9" in reader.all("strong")
    assert reader.all("td", title="95% interval 0.8000 to 1.0000, 3 seeds") == ["0.9 ± 0.1▲"]
    marks = {(a["class"], a["title"]) for tag, a, _ in reader.elements if tag == "abbr"}
    assert {kind for kind, _ in marks} == {"better", "worse"}


def test_the_same_document_gives_the_same_page(document: Document, page: str) -> None:
    assert html(document) == page


def test_it_is_a_document_for_phones_too(page: str, reader: Reader) -> None:
    assert page.startswith("<!DOCTYPE html>")
    assert ("html", "en") in [(tag, a.get("lang")) for tag, a, _ in reader.elements]
    (viewport,) = [a for _, a, _ in reader.elements if a.get("name") == "viewport"]
    assert viewport["content"] == "width=device-width, initial-scale=1"
