"""The report in a real browser, with as many photos as Flickr8k's test split."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from pipeline.captioner.decoders.decoder import DECODERS, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.reporting.layer_table import LayerTable, layer_table
from pipeline.reporting.nearest_captions import NearestCaption
from pipeline.reporting.report import write_report
from tests.conftest import encoded, make_photo
from tests.reporting.test_report import NASTY
from tests.support.browser import CHROMIUM, Tab, browser
from tests.support.report import BASELINES, DATA, MODEL, evaluation, with_maps

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PHOTOS = 1000
BATCH_SIZE = 48
PHONE, DESKTOP = (390, 844), (1280, 900)
LEFT, RIGHT = [255, 0, 255, 0], [0, 255, 0, 255]
LONG = "w" * 300  # has no place for a line break

CARDS = "document.querySelectorAll('#cards article').length"
IDS = "[...document.querySelectorAll('#cards .id')].map(id => id.textContent)"
COUNT = "document.getElementById('count').textContent"
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
OUTSIDE = """[...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.strip, .scroll'))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(e => e.outerHTML.slice(0, 100))"""


def layers(name: str) -> LayerTable:
    """Return the layers of a large decoder of the named kind."""
    config = DecoderConfig(name, 10_000, (100, 2048), 1024, 1024, 0.35, 0.35)
    return layer_table(build_decoder(config).network)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report with the nastiest texts; a tenth of the photos is missing."""
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
    result = evaluation(
        {"greedy": ["a dog"] * PHOTOS, "beam_3": captions},
        references,
        baselines=[replace(BASELINES[0], caption=LONG), *BASELINES[1:]],
        provenance={"split": LONG, LONG: NASTY[0]},
        detected={image_id: ["running", *NASTY, LONG] for image_id in list(references)[1:]},
        nearest=[NearestCaption(NASTY[row % 9], is_copy=row % 2 == 1) for row in range(PHOTOS)],
    )
    photos = {image_id: photo for row, image_id in enumerate(references) if row % 10}
    (folder / "history.csv").write_text(
        "seed,epoch,loss,validation_loss,validation_cider_d\n7,1,3,3,1\n7,2,2,3,2\n", "utf-8"
    )
    result = with_maps(result, [LEFT, RIGHT])
    write_report(folder / "report.html", result, photos, folder, MODEL, layers("attention"), DATA)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Tab, page: Path) -> Tab:
    """Open the report again, on a desktop."""
    chromium.console.clear()
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
def test_the_page_has_no_errors_and_no_overflow(
    tab: Tab, page: Path, size: tuple[int, int]
) -> None:
    tab.resize(*size)
    tab.open(page)
    tab.run("document.querySelectorAll('details').forEach(details => { details.open = true })")
    tab.run("document.getElementById('gallery').scrollIntoView()")
    tab.wait(f"document.querySelectorAll('#cards figure').length > {BATCH_SIZE}")
    assert tab.run("document.documentElement.clientWidth") <= size[0]
    assert tab.run("document.documentElement.scrollWidth") <= size[0]
    assert tab.run(OUTSIDE) == []
    # A name is not squeezed into a column of letters either.
    heights = "[...document.querySelectorAll('.scores th, .layers th')].map(th => th.offsetHeight)"
    assert max(tab.run(heights)) < 80
    assert tab.run("window.innerWidth") == size[0]  # a phone would have zoomed out
    assert tab.console == []


def scroll_on(tab: Tab, built: int) -> None:
    """Scroll until there are more cards; cards above grow when they become visible."""
    tab.wait(f"{CARDS} > {built} || document.getElementById('more').scrollIntoView()")


def test_cards_are_built_when_scrolled_to(tab: Tab) -> None:
    assert tab.run(COUNT) == "1,000 of 1,000"
    assert tab.run(CARDS) == BATCH_SIZE
    previous = BATCH_SIZE
    while previous < 4 * BATCH_SIZE:
        scroll_on(tab, previous)
        built = tab.run(CARDS)
        assert built <= previous + 2 * BATCH_SIZE  # not all at once
        previous = built
    assert tab.console == []


def test_a_screen_taller_than_many_cards_is_filled(tab: Tab) -> None:
    tab.resize(1280, 20_000)
    tab.run("document.getElementById('cards').scrollIntoView()")
    tab.wait("document.getElementById('more').getBoundingClientRect().top > 20_000")


def test_scrolling_reaches_every_card_once(tab: Tab) -> None:
    choose(tab, "name")
    while (built := tab.run(CARDS)) < PHOTOS:
        scroll_on(tab, built)
    ids = tab.run(IDS)
    assert len(ids) == PHOTOS
    assert ids == sorted(ids)
    assert len(set(ids)) == PHOTOS


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("nr0777", "0777.jpg"),  # a reference
        ("zebra_CAPTION", "0123.jpg"),  # a caption, in any case
        ("0456.j", "0456.jpg"),  # a name
        ("  ein   nr0123 ", "0123.jpg"),  # all words, in any field
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
    assert tab.run(CARDS) == BATCH_SIZE
    assert tab.console == []


def test_photos_are_sorted_by_the_chosen_order(tab: Tab) -> None:
    # The first score of each card belongs to the primary search.
    scores = "[...document.querySelectorAll('#cards dt:first-child span')].map(e => +e.textContent)"
    worst = tab.run(scores)
    assert worst == sorted(worst)
    choose(tab, "best")
    best = tab.run(scores)
    assert best == sorted(best, reverse=True)
    assert best[0] > worst[0]
    assert choose(tab, "name")[:2] == ["0000.jpg", "0001.jpg"]
    assert len(set(choose(tab, "random"))) == BATCH_SIZE


def test_a_card_has_its_photo_or_a_placeholder(tab: Tab) -> None:
    choose(tab, "name")
    missing, existing = (f"document.querySelectorAll('#cards article')[{row}]" for row in (0, 1))
    assert tab.run(f"{missing}.querySelector('img')") is None
    assert "photo missing or damaged" in tab.run(f"{missing}.textContent")
    assert tab.run(f"{existing}.querySelector('.missing')") is None
    tab.run(f"{existing}.querySelector('img').decode()")
    assert tab.run(f"{existing}.querySelector('img').naturalWidth") == 60


def brightness(tab: Tab, svg: str) -> list[float]:
    """Return the mean brightness of the left and right thirds of an SVG."""
    images = f"[...{svg}.querySelectorAll('image')]"
    tab.run(f"Promise.all({images}.map(image => image.decode())).then(() => null)")
    tab.run(f"(({svg}).scrollIntoView({{block: 'center'}}), {TWO_FRAMES})")
    left, top, right, bottom = tab.run(
        f"(box => [box.left, box.top, box.right, box.bottom])({svg}.getBoundingClientRect())"
    )
    third = (right - left) / 3
    with Image.open(io.BytesIO(tab.screenshot())) as image:
        grey = image.convert("L")
        sides = [(left, top, left + third, bottom), (right - third, top, right, bottom)]
        return [float(ImageStat.Stat(grey.crop(tuple(map(round, s)))).mean[0]) for s in sides]


@pytest.mark.parametrize("card", ["#photos article:has(img)", "#cards article:has(img)"])
def test_a_photo_is_dark_except_where_attention_is_high(tab: Tab, card: str) -> None:
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
    # Closing and opening it again does not repeat words.
    words = tab.run(f"{details}.querySelectorAll('figure').length")
    toggled = f"resolve => {details}.addEventListener('toggle', () => resolve(), {{once: true}})"
    for _ in range(2):
        click = f"{details}.querySelector('summary').click()"
        tab.run(f"(() => {{ const done = new Promise({toggled}); {click}; return done; }})()")
    assert tab.run(f"{details}.querySelectorAll('figure').length") == words
    assert tab.console == []


def test_a_missing_photo_has_no_attention(tab: Tab) -> None:
    choose(tab, "name")
    missing, existing = (f"document.querySelectorAll('#cards article')[{row}]" for row in (0, 1))
    assert tab.run(f"{missing}.querySelector('details')") is None
    assert tab.run(f"{existing}.querySelector('summary').textContent") == "Attention"


@pytest.mark.parametrize("name", DECODERS)
def test_the_layer_table_scrolls_inside_a_phone_s_screen(
    tab: Tab, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "report.html"
    result = evaluation({"greedy": ["a dog"]}, {"x": ["a dog"]})
    table = layers(name)
    write_report(path, result, {}, tmp_path, MODEL, table, DATA)
    tab.resize(*PHONE)
    tab.open(path)
    assert tab.run("document.querySelectorAll('.layers tbody tr').length") == len(table.rows)
    assert tab.run("document.documentElement.scrollWidth") <= PHONE[0]
    container = "document.querySelector('.layers').parentNode"
    assert tab.run(f"{container}.getBoundingClientRect().right") <= PHONE[0]
    assert tab.run(f"{container}.scrollWidth > {container}.clientWidth")
    assert tab.run(f"{container}.tabIndex") == 0  # so that the arrow keys scroll it
    tab.run(f"{container}.scrollLeft = 10_000")
    last = f"{container}.querySelector('thead th:last-child').getBoundingClientRect().right"
    assert tab.run(last) <= PHONE[0]


def set_field(tab: Tab, field: str, value: str) -> None:
    tab.run(
        f"(field => {{ field.value = {value!r}; field.dispatchEvent(new Event('input')) }})"
        f"(document.getElementById('{field}'))"
    )


def test_photos_are_filtered_by_score_word_and_kind(tab: Tab) -> None:
    scores = "[...document.querySelectorAll('#cards dt:first-child span')].map(e => +e.textContent)"
    choose(tab, "best")
    best = tab.run(scores)[0]
    set_field(tab, "lowest", "1")
    with_score = tab.run(scores)
    assert min(with_score) >= 1
    set_field(tab, "highest", str(best / 2))
    assert max([0, *tab.run(scores)]) <= best / 2
    set_field(tab, "highest", "")
    set_field(tab, "lowest", "")
    set_field(tab, "says", "Zebra_caption")
    assert tab.run(IDS) == ["0123.jpg"]
    set_field(tab, "says", "nr0777")  # only a reference says it
    assert tab.run(IDS) == []
    assert tab.run("document.getElementById('none').checkVisibility()")
    set_field(tab, "says", "")
    set_field(tab, "kind", "unsaid")
    assert tab.run(COUNT) == "999 of 1,000"  # the first photo has no detected words
    set_field(tab, "kind", "copied")
    assert tab.run(COUNT) == "500 of 1,000"
    assert not tab.run("document.getElementById('none').checkVisibility()")
    assert tab.console == []


def press(tab: Tab, key: str, code: int) -> None:
    text = "\r" if key == "Enter" else ""
    for kind in ("keyDown", "keyUp"):
        tab.call(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text
        )


@pytest.mark.parametrize("card", ["#photos article:has(img)", "#cards article:has(img)"])
def test_a_photo_is_shown_large_by_keyboard_and_by_click(tab: Tab, card: str) -> None:
    button = f"document.querySelector('{card} button')"
    large = "document.querySelector('#enlarged img')"
    is_open = "document.getElementById('enlarged').open"
    tab.run(f"{button}.focus()")
    press(tab, "Enter", 13)
    tab.wait(is_open)
    assert tab.run(f"{large}.getBoundingClientRect().width") > 100
    assert tab.run(f"{large}.alt") == tab.run(f"{button}.firstChild.alt")
    press(tab, "Escape", 27)
    tab.wait(f"!{is_open}")
    assert tab.run(f"document.activeElement === {button}")
    tab.run(f"{button}.click()")
    tab.wait(is_open)
    tab.run(f"{large}.click()")
    assert not tab.run(is_open)
    assert tab.console == []


def test_every_column_of_a_score_table_is_in_sight_on_a_phone(tab: Tab, page: Path) -> None:
    tab.resize(*PHONE)
    tab.open(page)
    boxes = """[...document.querySelectorAll('.scores td, .scores tbody th')]
        .filter(cell => cell.textContent).map(cell => cell.getBoundingClientRect())"""
    assert tab.run(f"Math.max(...{boxes}.map(box => box.right))") <= PHONE[0]
    assert tab.run(f"Math.min(...{boxes}.map(box => box.width))") > 20
    labels = (
        "[...document.querySelectorAll('#all-scores tr.primary td')].map(td => td.dataset.label)"
    )
    assert "CIDEr-D" in tab.run(labels)


def test_on_paper_every_photo_of_the_page_has_its_picture(tab: Tab) -> None:
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        images = "[...document.querySelectorAll('article img')]"
        assert tab.run(f"{images}.length") > BATCH_SIZE * 0.8
        assert tab.run(f"{images}.every(image => image.complete && image.naturalWidth)")
        assert tab.run(
            f"{images}.every(image => image.checkVisibility({{contentVisibilityAuto: true}}))"
        )
        assert not tab.run("document.getElementById('tools').checkVisibility()")
        assert tab.run(
            "document.getElementById('more').checkVisibility({visibilityProperty: true})"
        )
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


def test_detected_words_are_shown(tab: Tab) -> None:
    detected = "[...document.querySelectorAll('#cards .detected')].map(dd => dd.textContent)"
    type_in(tab, "nr0001")
    assert tab.run(detected) == [", ".join(["running", *NASTY, LONG])]
    type_in(tab, "nr0000")
    assert tab.run(detected) == []


def test_untrusted_text_is_shown_and_not_executed(tab: Tab) -> None:
    references = "[...document.querySelectorAll('#cards li')].map(li => li.textContent)"
    for row, nasty in enumerate(NASTY, 3):
        type_in(tab, f"nr{row:04}")
        assert f"a {nasty} nr{row:04}" in tab.run(references)
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("document.querySelectorAll('[onerror], [onload]').length") == 0
    assert tab.console == []


def test_no_other_script_may_run(tab: Tab) -> None:
    tab.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.attacked = true'}))"
    )
    assert tab.run("window.attacked === undefined")
    (message,) = tab.console
    assert "Content Security Policy" in message["entry"]["text"]


def test_without_scripts_everything_but_the_gallery_is_shown(tab: Tab, page: Path) -> None:
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


def test_the_page_is_dark_on_a_dark_system(tab: Tab) -> None:
    def mean_brightness() -> float:
        with Image.open(io.BytesIO(tab.screenshot())) as image:
            grey = image.convert("L").resize((1, 1)).tobytes()
        return grey[0]

    light = mean_brightness()
    tab.resize(*DESKTOP, dark=True)
    assert mean_brightness() < light - 100
