"""A report reads the same as text, as JSON and as a page, and the page needs nothing but itself."""

from __future__ import annotations

import base64
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from rheos.evaluation import Findings, Report, Row

HOSTILE = '<script src="http://x">&"\'{0}{title}'

REPORT = Report(
    "run: toy",
    {"data": "built in", "samples": 2000},
    Findings(
        (
            Row("energy distance", 0.0123456, 0.01, "floor", "lower"),
            Row("memorised", False),
            Row("precision", 1.0, 0.5, "", "higher"),
        ),
        {"energy distance": [(5, 0.2), (100, 0.1)]},
        ("Look here.",),
    ),
)

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page, and insists that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def test_the_table() -> None:
    assert REPORT.table().splitlines() == [
        "figure           value    beside",
        "energy distance  0.01235  0.01 floor  lower",
        "memorised        no",
        "precision        1        0.5         higher",
        "Look here.",
    ]


def test_the_json() -> None:
    found = json.loads(REPORT.json())
    assert list(found) == ["title", "facts", "findings"]
    assert found["findings"]["rows"][0] == {
        "name": "energy distance",
        "value": 0.0123456,
        "reference": 0.01,
        "meaning": "floor",
        "better": "lower",
    }
    assert found["findings"]["rows"][1]["value"] is False
    assert found["findings"]["curves"] == {"energy distance": [[5, 0.2], [100, 0.1]]}
    assert found["findings"]["remarks"] == ["Look here."]
    assert REPORT.json() == REPORT.json()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_json_has_no_nan(value: float) -> None:
    report = Report("t", {"x": value}, Findings((Row("a", value, value),), {"a": [(5, value), (10, 1.0)]}))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(report.json(), parse_constant=refuse)
    assert found["facts"] == {"x": None}
    assert found["findings"]["rows"][0]["value"] is None
    assert found["findings"]["rows"][0]["reference"] is None
    assert found["findings"]["curves"]["a"] == [[5, None], [10, 1.0]]
    # A figure that is not finite is still told to a reader.
    assert str(value) in report.table()
    Page(report.page())


def test_the_page_holds_every_figure() -> None:
    page = Page(REPORT.page())
    text = " ".join(page.text)
    for part in ("run: toy", "2000", "energy distance", "0.01235", "0.01 floor", "lower", "no", "Look here."):
        assert part in text
    assert len(page.all("tr")) == 1 + len(REPORT.findings.rows)
    assert len(page.all("img")) == 1


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "x.png")
    page = Page(REPORT.page({"Samples": tmp_path / "x.png"}))
    sources = [attributes["src"] for attributes in page.all("img")]
    assert len(sources) == 2
    sizes = []
    for source in sources:
        assert source is not None
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            sizes.append(image.size)
    assert sizes[1] == (3, 2)
    assert sizes[0][0] > 300
    assert not page.all("script")
    assert not page.all("link")
    assert not [a for _, attributes in page.seen for a in attributes if a in ("href", "srcset", "style", "onload")]
    assert "url(" not in REPORT.page()
    assert "@import" not in REPORT.page()


def test_what_others_named_is_only_text(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "x.png")
    rows = (Row(HOSTILE, 1.0, 2.0, HOSTILE, HOSTILE),)
    # A label of a plot is set by Matplotlib, which must not stumble over dollar signs or braces either.
    report = Report(HOSTILE, {HOSTILE: HOSTILE}, Findings(rows, {HOSTILE: [(5, 1.0)]}, (HOSTILE,)))
    page = Page(report.page({HOSTILE: tmp_path / "x.png"}))
    assert not page.all("script")
    assert "".join(page.text).count(HOSTILE) == 9
    assert [attributes["alt"] for attributes in page.all("img")] == [HOSTILE, HOSTILE]
    assert json.loads(report.json())["title"] == HOSTILE
