"""The report in a real browser, with as many photos as Flickr8k's test split has."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from pipeline.captioner.decoders.decoder import DECODERS
from pipeline.captioner.model_config import DecoderConfig
from pipeline.reporting.report import write_report
from tests.conftest import encoded, make_photo
from tests.reporting.test_report import NASTY
from tests.support.browser import CHROMIUM, Tab, browser
from tests.support.report import BASELINES, MODEL, evaluation, with_maps

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")

PHOTOS = 1000
AT_ONCE = 48
PHONE, DESKTOP = (390, 844), (1280, 900)
LEFT, RIGHT = [255, 0, 255, 0], [0, 255, 0, 255]
LONG = "w" * 300  # nothing says where to break it

CARDS = "document.querySelectorAll('#cards article').length"
IDS = "[...document.querySelectorAll('#cards .id')].map(id => id.textContent)"
COUNT = "document.getElementById('count').textContent"
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
OUTSIDE = """[...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.strip, .scroll'))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(e => e.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report whose strangers wrote the worst; a tenth of the photos is gone."""
    folder = tmp_path_factory.mktemp("report")
    photo = folder / "x.png"
    photo.write_bytes(encoded(make_photo(60, 45), "PNG"))
    words = ["dog", "cat", "bus", *NASTY, LONG]
    references = {
        f"{row:04}{LONG if row == 7 else ''}.jpg": [
            f"a {words[row % len(words)]} nr{row:04}",
            "x y",
        ]
        for row in range(PHOTOS)
    }
    captions = [f"a {words[row % 7]}" for row in range(PHOTOS)]
    captions[123] = "Ein Zebra_caption"
    found = evaluation(
        {"greedy": ["a dog"] * PHOTOS, "beam_3": captions},
        references,
        baselines=[replace(BASELINES[0], caption=LONG), *BASELINES[1:]],
        provenance={"split": LONG, LONG: NASTY[0]},
        detected={image_id: ["running", *NASTY, LONG] for image_id in list(references)[1:]},
    )
    photos = {image_id: photo for row, image_id in enumerate(references) if row % 10}
    (folder / "history.csv").write_text(
        "seed,epoch,loss,validation_loss,validation_cider_d\n7,1,3,3,1\n7,2,2,3,2\n", "utf-8"
    )
    looked = with_maps(found, [LEFT, RIGHT])
    write_report(folder / "report.html", looked, photos, folder, MODEL)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab, page: Path) -> Tab:
    """Open the report anew, on a desktop."""
    chromium.complaints.clear()
    chromium.resize(*DESKTOP)
    chromium.open(page)
    return chromium


def type_in(tab: Tab, text: str) -> None:
    tab.run("document.getElementById('query').select()")
    tab.call("Input.insertText", text=text)


def choose(tab: Tab, order: str) -> list[str]:
    tab.run(
        f"(order => {{ order.value = '{order}'; order.dispatchEvent(new Event('change')) }})"
        "(document.getElementById('order'))"
    )
    ids: list[str] = tab.run(IDS)
    return ids


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_nothing_complains_and_nothing_overflows(
    tab: Tab, page: Path, size: tuple[int, int]
) -> None:
    tab.resize(*size)
    tab.open(page)
    tab.run("document.querySelectorAll('details').forEach(details => { details.open = true })")
    tab.run("document.getElementById('gallery').scrollIntoView()")
    tab.wait(f"document.querySelectorAll('#cards figure').length > {AT_ONCE}")
    assert tab.run("document.documentElement.clientWidth") <= size[0]
    assert tab.run("document.documentElement.scrollWidth") <= size[0]
    assert tab.run(OUTSIDE) == []
    # Nor is a name squeezed into a column of letters.
    heights = "[...document.querySelectorAll('.figures th')].map(th => th.offsetHeight)"
    assert max(tab.run(heights)) < 80
    assert tab.run("window.innerWidth") == size[0]  # a phone would have zoomed out
    assert tab.complaints == []


def scroll_on(tab: Tab, seen: int) -> None:
    """Scroll until there are more cards; those above grow as they come into sight."""
    tab.wait(f"{CARDS} > {seen} || document.getElementById('more').scrollIntoView()")


def test_cards_are_built_as_they_are_scrolled_to(tab: Tab) -> None:
    assert tab.run(COUNT) == "1,000 of 1,000"
    assert tab.run(CARDS) == AT_ONCE
    seen = AT_ONCE
    while seen < 4 * AT_ONCE:
        scroll_on(tab, seen)
        shown = tab.run(CARDS)
        assert shown <= seen + 2 * AT_ONCE  # not all at once
        seen = shown
    assert tab.complaints == []


def test_a_screen_taller_than_many_cards_is_filled(tab: Tab) -> None:
    tab.resize(1280, 20_000)
    tab.run("document.getElementById('cards').scrollIntoView()")
    tab.wait("document.getElementById('more').getBoundingClientRect().top > 20_000")


def test_all_cards_are_reached_in_the_end_once_each(tab: Tab) -> None:
    choose(tab, "name")
    while (shown := tab.run(CARDS)) < PHOTOS:
        scroll_on(tab, shown)
    ids = tab.run(IDS)
    assert len(ids) == PHOTOS
    assert ids == sorted(ids)
    assert len(set(ids)) == PHOTOS


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("nr0777", "0777.jpg"),  # a reference
        ("zebra_CAPTION", "0123.jpg"),  # a caption, in whatever case
        ("0456.j", "0456.jpg"),  # a name
        ("  ein   nr0123 ", "0123.jpg"),  # all words, wherever they are
    ],
)
def test_the_search_finds_words_of_captions_references_and_names(
    tab: Tab, query: str, expected: str
) -> None:
    type_in(tab, query)
    assert tab.run(IDS) == [expected]
    assert tab.run(COUNT) == "1 of 1,000"
    type_in(tab, "no such word")
    assert tab.run(IDS) == []
    assert tab.run(COUNT) == "0 of 1,000"
    tab.run("document.getElementById('query').value = ''")
    type_in(tab, " ")
    assert tab.run(CARDS) == AT_ONCE
    assert tab.complaints == []


def test_photos_are_sorted_by_what_is_chosen(tab: Tab) -> None:
    # The first of each card, which is the headline's.
    scores = "[...document.querySelectorAll('#cards dt:first-child span')].map(e => +e.textContent)"
    worst = tab.run(scores)
    assert worst == sorted(worst)
    choose(tab, "best")
    best = tab.run(scores)
    assert best == sorted(best, reverse=True)
    assert best[0] > worst[0]
    assert choose(tab, "name")[:2] == ["0000.jpg", "0001.jpg"]
    assert len(set(choose(tab, "random"))) == AT_ONCE


def test_a_photo_has_its_picture_or_says_that_it_is_gone(tab: Tab) -> None:
    choose(tab, "name")
    gone, there = (f"document.querySelectorAll('#cards article')[{row}]" for row in (0, 1))
    assert tab.run(f"{gone}.querySelector('img')") is None
    assert "the photo is no longer there" in tab.run(f"{gone}.textContent")
    assert tab.run(f"{there}.querySelector('.gone')") is None
    tab.run(f"{there}.querySelector('img').decode()")
    assert tab.run(f"{there}.querySelector('img').naturalWidth") == 60


def brightness(tab: Tab, drawing: str) -> list[float]:
    """Return how bright a drawing's left and right thirds are."""
    pictures = f"[...{drawing}.querySelectorAll('image')]"
    tab.run(f"Promise.all({pictures}.map(picture => picture.decode())).then(() => null)")
    tab.run(f"(({drawing}).scrollIntoView({{block: 'center'}}), {TWO_FRAMES})")
    left, top, right, bottom = tab.run(
        f"(box => [box.left, box.top, box.right, box.bottom])({drawing}.getBoundingClientRect())"
    )
    third = (right - left) / 3
    with Image.open(io.BytesIO(tab.screenshot())) as picture:
        grey = picture.convert("L")
        sides = [(left, top, left + third, bottom), (right - third, top, right, bottom)]
        return [float(ImageStat.Stat(grey.crop(tuple(map(round, s)))).mean[0]) for s in sides]


@pytest.mark.parametrize("card", ["#photos article:has(img)", "#cards article:has(img)"])
def test_a_photo_is_dark_but_where_the_decoder_looked(tab: Tab, card: str) -> None:
    details = f"document.querySelector('{card} details')"
    assert tab.run(f"{details}.checkVisibility()")
    assert not tab.run(f"{details}.open")
    tab.run(f"{details}.querySelector('summary').click()")
    tab.wait(f"{details}.querySelector('svg')")
    first, second = (
        brightness(tab, f"{details}.querySelectorAll('svg')[{word}]") for word in (0, 1)
    )
    assert first[0] > 2 * second[0]
    assert second[1] > 2 * first[1]
    # Closed and opened again, each word is there once.
    words = tab.run(f"{details}.querySelectorAll('figure').length")
    toggled = f"done => {details}.addEventListener('toggle', () => done(), {{once: true}})"
    for _ in range(2):
        click = f"{details}.querySelector('summary').click()"
        tab.run(f"(() => {{ const told = new Promise({toggled}); {click}; return told; }})()")
    assert tab.run(f"{details}.querySelectorAll('figure').length") == words
    assert tab.complaints == []


def test_where_there_is_no_photo_there_is_nothing_to_look_at(tab: Tab) -> None:
    choose(tab, "name")
    gone, there = (f"document.querySelectorAll('#cards article')[{row}]" for row in (0, 1))
    assert tab.run(f"{gone}.querySelector('details')") is None
    assert tab.run(f"{there}.querySelector('summary').textContent") == "Where it looked"


@pytest.mark.parametrize("name", DECODERS)
def test_a_diagram_s_words_stay_in_their_boxes(tab: Tab, tmp_path: Path, name: str) -> None:
    config = DecoderConfig(name, 10_000, (100, 2048), 1024, 1024, 0.35, 0.35)
    path = tmp_path / "report.html"
    found = evaluation({"greedy": ["a dog"]}, {"x": ["a dog"]})
    write_report(path, found, {}, tmp_path / "history.csv", replace(MODEL, decoder=config))
    tab.open(path)
    wider = """[...document.querySelectorAll('.diagram g text')].map(
        text => text.getBBox().width - text.parentNode.querySelector('rect').getBBox().width)"""
    assert tab.run(f"({wider}).length") > 16
    assert tab.run(f"Math.max(...{wider})") < 0


def test_words_that_were_detected_are_shown(tab: Tab) -> None:
    shown = "[...document.querySelectorAll('#cards .detected')].map(dd => dd.textContent)"
    type_in(tab, "nr0001")
    assert tab.run(shown) == [", ".join(["running", *NASTY, LONG])]
    type_in(tab, "nr0000")
    assert tab.run(shown) == []


def test_strangers_words_are_shown_and_not_acted_upon(tab: Tab) -> None:
    references = "[...document.querySelectorAll('#cards li')].map(li => li.textContent)"
    for row, nasty in enumerate(NASTY, 3):
        type_in(tab, f"nr{row:04}")
        assert f"a {nasty} nr{row:04}" in tab.run(references)
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("document.querySelectorAll('[onerror], [onload]').length") == 0
    assert tab.complaints == []


def test_no_other_script_may_run(tab: Tab) -> None:
    tab.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.attacked = true'}))"
    )
    assert tab.run("window.attacked === undefined")
    (complaint,) = tab.complaints
    assert "Content Security Policy" in complaint["entry"]["text"]


def test_without_scripts_all_but_the_gallery_is_there(tab: Tab, page: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(page)
        shown = tab.call("Runtime.evaluate", expression="document.body.innerText")
        text = shown["result"]["value"]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "To search and sort all photos, allow scripts for this page." in text
    assert "Drawn at random" in text
    assert "1,000 of 1,000" not in text


def test_it_is_dark_where_the_reader_s_system_is(tab: Tab) -> None:
    def shade() -> float:
        with Image.open(io.BytesIO(tab.screenshot())) as picture:
            grey = picture.convert("L").resize((1, 1)).tobytes()
        return grey[0]

    light = shade()
    tab.resize(*DESKTOP, dark=True)
    assert shade() < light - 100
