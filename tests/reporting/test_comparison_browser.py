"""The page of `caption compare --html` in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.metrics.scorer import Scorer
from pipeline.metrics.significance import paired_differences
from pipeline.metrics.tokenizer import tokenize
from pipeline.reporting.comparison_page import ComparedRuns, write_comparison_page
from tests.conftest import encoded, make_photo
from tests.reporting.test_report import NASTY
from tests.support.browser import CHROMIUM, Tab, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PHOTOS = 60
IDS = "[...document.querySelectorAll('#cards .id')].map(id => id.textContent)"
CHANGES = """[...document.querySelectorAll('#cards dt:nth-of-type(2)')]
    .map(dt => +dt.textContent.match(/\\(([^)]*)\\)/)[1].replace('\\u2212', '-'))"""
LONG = "w" * 300


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of runs that differ for every third photo; one photo has a picture."""
    folder = tmp_path_factory.mktemp("comparison")
    photo = folder / "x.png"
    photo.write_bytes(encoded(make_photo(60, 45), "PNG"))
    ids = [f"{row:02}{NASTY[0]}.jpg" for row in range(PHOTOS)]
    references = [[tokenize(f"a dog number{row} runs"), [NASTY[1], LONG]] for row in range(PHOTOS)]
    first = [tokenize(f"a dog number{row if row % 4 else 0} runs") for row in range(PHOTOS)]
    second = [[NASTY[2]] if row % 3 == 0 else first[row] for row in range(PHOTOS)]
    scorer = Scorer(references)
    differences = paired_differences(scorer.score(first), scorer.score(second), samples=100)
    names = f"HEAD{NASTY[0]}", LONG
    runs = ComparedRuns(names, ids, [first, second], references, [NASTY[1]], differences)
    write_comparison_page(folder / "page.html", runs, {ids[1]: photo})
    return folder / "page.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab, page: Path) -> Tab:
    """Open the page again, on a desktop."""
    chromium.console.clear()
    chromium.resize(1280, 900)
    chromium.open(page)
    return chromium


def choose(tab: Tab, field: str, value: str) -> None:
    tab.run(
        f"(field => {{ field.value = {value!r}; field.dispatchEvent(new Event('input'));"
        f" field.dispatchEvent(new Event('change')) }})(document.getElementById('{field}'))"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_has_no_errors_and_no_overflow(tab: Tab, page: Path, width: int) -> None:
    tab.resize(width, 900)
    tab.open(page)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("document.querySelectorAll('[onerror], [onload]').length") == 0
    assert f"A: HEAD{NASTY[0]}" in tab.run("document.body.innerText")
    assert tab.console == []


def test_photos_are_sorted_by_what_changed(tab: Tab) -> None:
    largest = [abs(change) for change in tab.run(CHANGES)]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0
    choose(tab, "order", "worse")
    worst = tab.run(CHANGES)
    assert worst == sorted(worst)
    choose(tab, "order", "name")
    ids = tab.run(IDS)
    assert ids == sorted(ids)


def test_photos_are_filtered(tab: Tab) -> None:
    count = "document.getElementById('count').textContent"
    choose(tab, "kind", "changed")
    assert tab.run(count) == "20 of 60"
    choose(tab, "kind", "better")
    assert tab.run(count) == "0 of 60"
    assert tab.run("document.getElementById('none').checkVisibility()")
    choose(tab, "kind", "all")
    choose(tab, "highest", "-1")
    assert max(tab.run(CHANGES)) <= -1
    choose(tab, "highest", "")
    choose(tab, "query", "number17")
    assert tab.run(IDS) == [f"17{NASTY[0]}.jpg"]


def test_a_card_has_both_captions_with_their_scores_and_the_references(tab: Tab) -> None:
    choose(tab, "query", "number3")
    choose(tab, "order", "name")
    card = "document.querySelector('#cards article')"
    captions = tab.run(f"[...{card}.querySelectorAll('dd')].map(dd => dd.textContent)")
    assert captions == ["a dog number3 runs", NASTY[2]]
    scores = tab.run(f"[...{card}.querySelectorAll('dt span')].map(e => +e.textContent)")
    assert scores[0] > scores[1]
    (change, *_) = tab.run(CHANGES)
    assert change == pytest.approx(scores[1] - scores[0], abs=0.11)
    references = tab.run(f"[...{card}.querySelectorAll('li')].map(li => li.textContent)")
    assert references == ["a dog number3 runs", f"{NASTY[1]} {LONG}"]
    choose(tab, "query", "number1")
    assert tab.run("document.querySelectorAll('#cards img').length") == 1
