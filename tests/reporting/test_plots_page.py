"""The page of `dvc plots show`: it needs no internet and sends nothing there."""

import hashlib
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from dvc_render import render_html
from dvc_render.vega import VegaRenderer

from tests.support.browser import CHROMIUM, browser

DVC = Path(__file__).parents[2] / ".dvc"
PAGE = DVC / "plots" / "page.html"
MARKS = "document.querySelectorAll('.vega-embed canvas, .vega-embed svg').length"
DRAWN = """(canvas => new Set(canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height).data).size)
    (document.querySelector('.vega-embed canvas'))"""


def test_dvc_uses_the_page() -> None:
    config = ConfigParser()
    config.read(DVC / "config", "utf-8")
    assert DVC / config["plots"]["html_template"] == PAGE


def test_the_programs_in_the_page_are_those_that_it_names() -> None:
    html = PAGE.read_text("utf-8")
    named = re.findall(r"^  (\S+) (\S+)  ([0-9a-f]{64})$", html, re.MULTILINE)
    scripts = re.findall(r"<script data-source=\"(\S+) \S+\">(.*?)</script>", html, re.DOTALL)
    assert [name for name, _, _ in named] == ["vega", "vega-lite", "vega-embed"]
    assert [source for source, _ in scripts] == [f"{name}-{version}" for name, version, _ in named]
    digests = [hashlib.sha256(script.encode()).hexdigest() for _, script in scripts]
    assert digests == [digest for _, _, digest in named]
    assert html.count("Redistribution and use in source and binary forms") == 3
    assert "<script src" not in html


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_plot_is_drawn_without_any_request(tmp_path: Path) -> None:
    rows = [{"epoch": n, "loss": 1 / n, "seed": 7, "rev": "workspace"} for n in range(1, 9)]
    plot = VegaRenderer(
        rows,
        "history.csv",
        template="seeds",
        template_dir=str(DVC / "plots"),
        x="epoch",
        y="loss",
        anchors_y_definitions=[{"filename": "history.csv", "field": "loss"}],
        revs_with_datapoints=["workspace"],
    )
    path = tmp_path / "index.html"
    render_html([plot], path, html_template=PAGE)
    with browser(tmp_path) as tab:
        tab.open(path)
        tab.wait(f"{MARKS} > 0")
        assert tab.run(DRAWN) > 5
        assert "Editor" not in tab.run("document.querySelector('.vega-actions').textContent")
        assert tab.run("performance.getEntriesByType('resource').length") == 0
        # Vega's own warnings aside: neither an error nor a refused request.
        assert [entry for entry in tab.console if entry.get("type") != "warning"] == []
