import base64
import io
import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline.reporting.metrics import Scores
from pipeline.reporting.predictions import Prediction
from pipeline.reporting.report import write_report
from tests.conftest import encoded, make_photo

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror="alert(1)">',
    "' onload='alert(1)",
    "a & b &amp; &lt;b&gt; </dd></article></html>",
    "{{ 7 * 7 }} {% raw %}",
    "Ein Hund überquert die Straße 犬 🐕",
]
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """What a browser would make of the report."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def photo_file(folder: Path, name: str, seed: int = 0, width: int = 48, height: int = 40) -> Path:
    path = folder / name
    path.write_bytes(encoded(make_photo(width, height, seed), "PNG"))
    return path


def predicted(*captions: tuple[str, str, str]) -> list[Prediction]:
    return [Prediction(*caption, -1.0, finished=True) for caption in captions]


def scored(*searches: str) -> dict[str, Scores]:
    return {s: {"BLEU-1": 60.0 + i, "distinct": 33.33} for i, s in enumerate(searches)}


def report(
    folder: Path,
    predictions: list[Prediction],
    references: Mapping[str, list[str]],
    photos: Mapping[str, Path],
    provenance: Mapping[str, str] | None = None,
) -> str:
    path = folder / "report.html"
    searches = dict.fromkeys(p.search for p in predictions)
    write_report(path, scored(*searches), predictions, references, photos, provenance or {})
    return path.read_text("utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """Write a report of three photos by two searches; the third photo is gone."""
    predictions = predicted(
        ("b.png", "greedy", "a dog"),
        ("a.png", "greedy", "a cat"),
        ("gone.png", "greedy", ""),
        ("b.png", "beam_3", "a big dog"),
        ("a.png", "beam_3", "a small cat"),
        ("gone.png", "beam_3", "grass"),
    )
    references = {
        "a.png": ["The cat.", "A cat!"],
        "b.png": ["The dog."],
        "gone.png": ["Grass."],
        "of no prediction.png": ["Nothing."],
    }
    photos = {
        name: photo_file(tmp_path, name, seed) for seed, name in enumerate(["a.png", "b.png"])
    }
    facts = {"decoder": "merge, 8 units", "features": "0123abcd"}
    return report(tmp_path, predictions, references, photos, facts)


def test_every_photo_has_its_card_sorted_by_id(plain: str) -> None:
    page = Page(plain)
    assert page.open == []
    assert len(page.attributes("article")) == 3
    assert page.text("div") == ["a.png", "b.png", "the photo is no longer there", "gone.png"]
    assert page.text("dd") == [
        *("a cat", "a small cat"),
        *("a dog", "a big dog"),
        *("(no words)", "grass"),
        *("merge, 8 units", "0123abcd"),
    ]
    assert page.text("li") == ["The cat.", "A cat!", "The dog.", "Grass."]
    assert page.text("dt")[:3] == ["greedy", "beam 3", "references"]
    assert page.text("h1") == page.text("title") == ["Captions of 3 test photos"]


def test_the_scores_of_every_search_are_shown(plain: str) -> None:
    page = Page(plain)
    assert page.text("th") == ["search", "BLEU-1", "distinct"]
    assert page.text("td") == ["greedy", "60.00", "33.33", "beam 3", "61.00", "33.33"]


def pictures(html: str) -> list[Image.Image]:
    found: list[Image.Image] = []
    for attributes in Page(html).attributes("img"):
        source = attributes["src"] or ""
        assert source.startswith("data:image/webp;base64,")
        data = base64.b64decode(source.partition(",")[2], validate=True)
        found.append(Image.open(io.BytesIO(data)))
        found[-1].load()
    return found


def test_photos_are_in_the_page_and_can_be_decoded(plain: str) -> None:
    first, second = pictures(plain)
    assert (first.format, first.size) == ("WEBP", (48, 40))
    # Each is the photo of its own card.
    assert first.convert("RGB").getpixel((5, 5)) != second.convert("RGB").getpixel((5, 5))
    assert [a["alt"] for a in Page(plain).attributes("img")] == ["a cat", "a dog"]


def test_large_photos_are_made_small_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(make_photo(800, 400), "JPEG", exif=exif))
    html = report(tmp_path, predicted(("x.jpg", "greedy", "")), {"x.jpg": ["x"]}, {"x.jpg": path})
    (picture,) = pictures(html)
    assert picture.size == (160, 320)


@pytest.mark.parametrize("content", [None, b"", b"no photo", encoded(make_photo(), "PNG")[:99]])
def test_a_photo_that_is_gone_or_damaged_leaves_a_placeholder(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    html = report(tmp_path, predicted(("x.png", "greedy", "a")), {"x.png": ["x"]}, {"x.png": path})
    page = Page(html)
    assert page.attributes("img") == []
    assert page.text("div") == ["the photo is no longer there", "x.png"]
    assert page.text("dd") == ["a"]


@pytest.mark.parametrize("nasty", NASTY)
def test_whatever_strangers_wrote_is_text(tmp_path: Path, nasty: str) -> None:
    predictions = predicted((nasty, "greedy", nasty), (nasty, nasty, nasty))
    photos = {nasty: photo_file(tmp_path, "x.png")}
    html = report(tmp_path, predictions, {nasty: [nasty]}, photos, {nasty: nasty})
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "iframe", "svg"})
    (picture,) = page.attributes("img")
    assert set(picture) == {"src", "alt", "loading", "decoding"}
    assert picture["alt"] == nasty
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text("dd") == [nasty] * 3
    assert page.text("li") == page.text("div") == [nasty]
    assert nasty in page.text("dt")


def test_the_page_takes_nothing_from_elsewhere(plain: str) -> None:
    page = Page(plain)
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint(
        {"script", "link", "base", "iframe", "object", "embed", "audio", "video"}
    )
    fetching = {"src", "href", "srcset", "poster", "data", "action", "background", "style"}
    values = [
        value or ""
        for _, attributes in page.tags
        for n, value in attributes.items()
        if n in fetching
    ]
    assert len(values) == 2
    assert all(value.startswith("data:") for value in values)
    (style,) = page.text("style")
    assert not re.search(r"url\(|@import|@font-face|https?:", style)
    (policy,) = (a["content"] for a in page.attributes("meta") if "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_page_has_light_and_dark_colours(plain: str) -> None:
    (style,) = Page(plain).text("style")
    light, dark, _ = re.split(r"@media \(prefers-color-scheme: dark\) \{|\n\}\n", style, maxsplit=2)
    assert "color-scheme: light dark" in light
    used = set(re.findall(r"var\((--\w+)\)", style))
    of_light, of_dark = (dict(re.findall(r"(--\w+): (#\w+)", part)) for part in (light, dark))
    assert used == set(of_light) == set(of_dark)
    assert all(of_light[name] != of_dark[name] for name in used)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_in_both(plain: str) -> None:
    (style,) = Page(plain).text("style")
    for block in re.findall(r":root \{(.+?)\}", style):
        colours = dict(re.findall(r"--(\w+): (#\w+)", block))
        for text in ("ink", "soft", "accent"):
            for ground in ("paper", "card"):
                values = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (values[1] + 0.05) / (values[0] + 0.05) >= 4.5


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    photos = {"x.png": photo_file(tmp_path, "x.png")}
    pages = {
        report(tmp_path, predicted(("x.png", "greedy", "a dog")), {"x.png": ["A dog."]}, photos)
        for _ in range(2)
    }
    assert len(pages) == 1
    assert str(tmp_path) not in pages.pop()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_a_browser_shows_the_page(plain: str, tmp_path: Path) -> None:
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'browser'}",
    ]
    address = (tmp_path / "report.html").as_uri()
    shot = tmp_path / "shot.png"
    dumped = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", address],
        capture_output=True,
        check=True,
        timeout=60,
    )
    shown = Page(dumped.stdout.decode("utf-8"))
    assert shown.text("h1") == Page(plain).text("h1")
    assert len(shown.attributes("img")) == 2
    subprocess.run(
        [str(CHROMIUM), *flags, f"--screenshot={shot}", address],
        capture_output=True,
        check=True,
        timeout=60,
    )
    with Image.open(shot) as picture:
        # More than one flat colour: something was drawn.
        assert len(set(picture.convert("L").tobytes())) > 10
