import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.metrics.scorer import METRICS
from pipeline.reporting.baselines import CONSTANT_CAPTION, SHUFFLED_FEATURES, Baseline
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.report import write_report
from pipeline.reporting.thumbnails import shade
from tests.conftest import encoded, make_photo
from tests.support.report import BASELINES, FLAT, MODEL, evaluation, with_maps

NASTY = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    '"><img src=x onerror="alert(1)">',
    "' onload='alert(1)",
    "a & b &amp; &lt;b&gt; </dd></article></html>",
    "{{ 7 * 7 }} {% raw %}",
    "${alert(1)} \\u003c \\",
    "Ein Hund überquert die Straße 犬 🐕 \u2028 x",
]
REFERENCES = {
    "a.png": ["The cat.", "A cat!"],
    "b.png": ["The dog."],
    "gone.png": ["Grass."],
}
SAID = {"greedy": ["a cat", "a dog", ""], "beam_3": ["a small cat", "a dog", "grass"]}


class Page(HTMLParser):
    """What a browser would make of the report."""

    VOID = frozenset({"meta", "img", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.html = html
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

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The gallery's photos, as the page's script reads them."""
        data, _ = self.text("script")
        cards: list[dict[str, Any]] = json.loads(data)
        return cards

    @property
    def articles(self) -> list["Page"]:
        """The cards that need no script."""
        return [Page(html) for html in re.findall(r"<article>.*?</article>", self.html, re.DOTALL)]


def photo_file(folder: Path, name: str, seed: int = 0, width: int = 48, height: int = 40) -> Path:
    path = folder / name
    path.write_bytes(encoded(make_photo(width, height, seed), "PNG"))
    return path


def report(folder: Path, found: Evaluation, photos: Mapping[str, Path]) -> str:
    path = folder / "report.html"
    write_report(path, found, photos, folder, MODEL)
    return path.read_text("utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """Write a report of three photos by two searches; the third photo is gone."""
    photos = {
        name: photo_file(tmp_path, name, seed) for seed, name in enumerate(["a.png", "b.png"])
    }
    (tmp_path / "history.csv").write_text(
        "seed,epoch,loss,validation_loss,validation_cider_d\n7,1,3,3.5,1\n7,2,2,2.5,2\n", "utf-8"
    )
    return report(tmp_path, evaluation(SAID, REFERENCES), photos)


# Of a grid of three by three: the greatest at the top right, at the left, in the middle.
MAPS = [
    [0, 9, 255, 8, 7, 6, 5, 4, 3],
    [0, 9, 8, 255, 7, 6, 5, 4, 3],
    [0, 9, 8, 7, 255, 6, 5, 4, 3],
]


@pytest.fixture
def looking(tmp_path: Path) -> str:
    """Write a report of a decoder that looks at places; the third photo is gone."""
    photos = {
        name: photo_file(tmp_path, name, seed) for seed, name in enumerate(["a.png", "b.png"])
    }
    return report(tmp_path, with_maps(evaluation(SAID, REFERENCES), MAPS), photos)


def test_each_word_has_where_it_was_looked_for(looking: str) -> None:
    page = Page(looking)
    a, b, gone = page.cards
    assert [one[:2] for one in a["looked"]] == [
        ["a", "top right"],
        ["small", "left"],
        ["cat", "centre"],
    ]
    assert [one[2] for one in a["looked"]] == [shade(places) for places in MAPS]
    assert [one[:2] for one in b["looked"]] == [["a", "top right"], ["dog", "left"]]
    assert (a["size"], gone["size"]) == ([48, 40], None)
    assert gone["looked"] == []  # nothing to see


def test_quarters_are_told_by_their_corners(tmp_path: Path) -> None:
    quarters = [[255 if place == most else 9 for place in range(4)] for most in (3, 0, 2)]
    photos = {"a.png": photo_file(tmp_path, "a.png", 0)}
    page = Page(report(tmp_path, with_maps(evaluation(SAID, REFERENCES), quarters), photos))
    assert [one[:2] for one in page.cards[0]["looked"]] == [
        ["a", "bottom right"],
        ["small", "top left"],
        ["cat", "bottom left"],
    ]


def test_where_it_looked_needs_no_script_and_can_be_read_aloud(looking: str) -> None:
    page = Page(looking)
    (card,) = (one for one in page.articles[:3] if "a.png" in one.text("div"))
    assert card.text("summary") == ["Where it looked"]
    assert "open" not in card.attributes("details")[0]
    assert card.text("figcaption") == ["a", "small", "cat"]
    assert card.text("title") == [
        "a: most at the top right",
        "small: most at the left",
        "cat: most at the centre",
    ]
    assert [a["viewbox"] for a in card.attributes("svg")] == ["0 0 48 40"] * 3
    assert {a["role"] for a in card.attributes("svg")} == {"img"}
    # The photo is there once, whatever the number of words, and each word's shade above it.
    first, *shades = [a["href"] for a in card.attributes("image")]
    assert first == card.attributes("img")[0]["src"]
    assert shades == [shade(places) for places in MAPS]
    key = card.attributes("image")[0]["id"]
    assert [a["href"] for a in card.attributes("use")] == [f"#{key}"] * 2
    assert "the less it counted" in " ".join(page.text("p"))


def test_a_photo_in_two_places_of_the_page_has_two_keys(looking: str) -> None:
    ids = [a["id"] for _, a in Page(looking).tags if "id" in a]
    keys = [key for key in ids if key and key.startswith("photo-")]
    assert len(keys) == 6  # two photos among the best, the worst and at random
    assert len(ids) == len(set(ids))


def test_a_decoder_that_does_not_look_at_places_shows_none(plain: str) -> None:
    page = Page(plain)
    assert [card["looked"] for card in page.cards] == [[], [], []]
    *shown, template = page.articles
    assert [article.text("summary") for article in shown] == [[]] * 9
    assert template.text("summary") == ["Where it looked"]  # which the script takes out
    assert "the less it counted" not in plain


def test_the_gallery_has_every_photo_with_all_that_was_said(plain: str) -> None:
    page = Page(plain)
    assert page.open == []
    assert page.text("h1") == page.text("title")[:1] == ["Captions of 3 test photos"]
    a, b, gone = page.cards
    assert [card["id"] for card in page.cards] == ["a.png", "b.png", "gone.png"]
    assert [card["references"] for card in page.cards] == list(REFERENCES.values())
    assert [said[:2] for said in a["said"]] == [["beam 3", "a small cat"], ["greedy", "a cat"]]
    assert [said[:2] for said in b["said"]] == [["beam 3, greedy", "a dog"]]  # said once
    assert [said[:2] for said in gone["said"]] == [["beam 3", "grass"], ["greedy", ""]]
    assert gone["picture"] is None


def test_each_caption_has_its_own_score(tmp_path: Path) -> None:
    found = evaluation(SAID, REFERENCES)
    page = Page(report(tmp_path, found, {}))
    for row, card in enumerate(page.cards):
        beam, greedy = (found.searches[name].scores for name in ("beam_3", "greedy"))
        assert card["score"] == pytest.approx(beam.cider_d[row], abs=0.01)
        assert card["said"][0][2:] == [f"{beam.cider_d[row]:.0f}", f"{beam.rouge_l[row]:.0f}"]
        assert card["said"][-1][2] == f"{greedy.cider_d[row]:.0f}"


def test_best_worst_and_random_photos_need_no_script(tmp_path: Path) -> None:
    references = {f"{row}": [f"a dog number{row} runs", "the dog"] for row in range(20)}
    captions = [f"a dog number{row} runs" if row < 9 else "a number0 cat" for row in range(20)]
    found = evaluation({"greedy": captions}, references)
    page = Page(report(tmp_path, found, {}))
    names = [article.text("div")[-1] for article in page.articles]
    best, worst, random, template = names[:6], names[6:12], names[12:18], names[18:]
    score = dict(zip(references, found.searches["greedy"].scores.cider_d, strict=True))
    assert min(score[name] for name in best) >= max(score[name] for name in worst)
    assert {score[name] for name in worst} == {min(score.values())}
    assert len(set(random)) == 6
    assert template == ["the photo is no longer there"]  # the one that the script fills
    first = page.articles[0]
    assert first.text("li") == references[best[0]]
    assert first.text("dt") == ["greedy"]
    assert first.text("span") == [f"{score[best[0]]:.0f}"]


def test_what_was_detected_is_beside_what_was_said(tmp_path: Path) -> None:
    references = {"a.png": ["a cat"], "b.png": ["a dog"]}
    detected = {"a.png": ["cat", NASTY[0]]}
    found = evaluation({"greedy": ["a cat", "a dog"]}, references, detected=detected)
    page = Page(report(tmp_path, found, {}))
    assert [card["detected"] for card in page.cards] == [f"cat, {NASTY[0]}", ""]
    shown = {article.text("div")[-1]: article for article in page.articles[:2]}
    assert shown["a.png"].text("dd") == ["a cat", f"cat, {NASTY[0]}"]
    assert shown["a.png"].text("dt") == ["greedy", "words detected"]
    assert shown["b.png"].text("dt") == ["greedy"]
    assert any("a second, simpler model" in text for text in page.text("p"))
    plain = Page(report(tmp_path, evaluation({"greedy": ["a cat", "a dog"]}, references), {}))
    assert not any("a second, simpler model" in text for text in plain.text("p"))


def test_no_words_are_said_so(plain: str) -> None:
    shown = [text for article in Page(plain).articles for text in article.text("dd")]
    assert shown.count("(no words)") == 3
    assert "" not in shown


def test_the_scores_of_every_search_are_shown_beside_what_they_are_worth(tmp_path: Path) -> None:
    found = evaluation(SAID, REFERENCES)
    page = Page(report(tmp_path, found, {}))
    cells = page.text("td")
    for search in found.searches.values():
        values = [f"{search.corpus[metric]:.1f}" for metric in METRICS]
        assert any(cells[i : i + 7] == [*values, "n/a"] for i in range(len(cells)))
    names = page.text("th")
    for name in ("random captions", "constant caption", "shuffled features"):
        assert name in names
    assert {"91.0 %", "92.0 %", "93.0 %", "95.0 %", "4.5"} <= set(cells)
    text = " ".join(page.text("p"))
    assert "perplexity on the references is 8.12 a word; 6.2 %" in text
    assert "a man is standing" in text


def test_everything_that_made_it_is_told(plain: str) -> None:
    page = Page(plain)
    assert {"test", "0123abcd", "b" * 64, "0.0005"} <= set(page.text("dd"))
    assert "MobileNet" in page.text("text")
    assert "128 units, sees no photo" in page.text("text")


def test_a_model_that_does_not_look_is_told_of_in_red(tmp_path: Path, plain: str) -> None:
    assert "alert" not in [a.get("role") for a in Page(plain).attributes("p")]
    assert "The model looks." in plain
    seeing = evaluation(SAID, REFERENCES).searches["beam_3"].corpus
    html = report(
        tmp_path,
        evaluation(
            SAID, REFERENCES, baselines=[*BASELINES[:2], Baseline(SHUFFLED_FEATURES, seeing)]
        ),
        {},
    )
    (warning,) = (a for a in Page(html).attributes("p") if a.get("role") == "alert")
    assert warning["class"] == "warning"
    assert "The model hardly looks." in Page(html).text("strong")
    assert "The model looks." not in html
    (style,) = Page(html).text("style")
    (rule,) = re.findall(r"\.warning \{(.+?)\}", style)
    assert "color: var(--alarm)" in rule


def test_what_there_is_not_is_left_out(tmp_path: Path) -> None:
    found = evaluation({"greedy": ["a dog"]}, {"x": ["x"]}, baselines=BASELINES[:2])
    html = report(tmp_path, found, {})
    assert "There is no blind check of a single photo." in html
    assert "history is not there." in html
    assert "ceiling" not in " ".join(Page(html).text("p"))
    assert len(Page(html).articles) == 4


def pictures(html: str) -> list[Image.Image]:
    found: list[Image.Image] = []
    for card in Page(html).cards:
        if card["picture"] is not None:
            assert card["picture"].startswith("data:image/webp;base64,")
            data = base64.b64decode(card["picture"].partition(",")[2], validate=True)
            found.append(Image.open(io.BytesIO(data)))
            found[-1].load()
    return found


def test_photos_are_in_the_page_and_can_be_decoded(plain: str) -> None:
    first, second = pictures(plain)
    assert (first.format, first.size) == ("WEBP", (48, 40))
    # Each is the photo of its own card.
    assert first.convert("RGB").getpixel((5, 5)) != second.convert("RGB").getpixel((5, 5))
    page = Page(plain)
    shown = {a["src"]: a["alt"] for a in page.attributes("img") if "src" in a}
    a, b, _ = page.cards
    assert shown == {a["picture"]: "a small cat", b["picture"]: "a dog"}


def test_large_photos_are_made_small_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(make_photo(800, 400), "JPEG", exif=exif))
    html = report(tmp_path, evaluation({"greedy": ["a"]}, {"x.jpg": ["x"]}), {"x.jpg": path})
    (picture,) = pictures(html)
    assert picture.size == (120, 240)


@pytest.mark.parametrize("content", [None, b"", b"no photo", encoded(make_photo(), "PNG")[:99]])
def test_a_photo_that_is_gone_or_damaged_leaves_a_placeholder(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    html = report(tmp_path, evaluation({"greedy": ["a"]}, {"x.png": ["x"]}), {"x.png": path})
    page = Page(html)
    assert [a for a in page.attributes("img") if "src" in a] == []
    assert page.articles[0].text("div") == ["the photo is no longer there", "x.png"]
    assert page.articles[0].text("dd") == ["a"]
    assert page.cards[0]["picture"] is None


@pytest.mark.parametrize("nasty", NASTY)
def test_whatever_strangers_wrote_is_text(tmp_path: Path, nasty: str) -> None:
    shape = [tag for tag, _ in Page(nasty_report(tmp_path, "plain")).tags]
    page = Page(nasty_report(tmp_path, nasty))
    assert page.open == []
    assert [tag for tag, _ in page.tags] == shape
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    (card,) = page.cards
    assert card["id"] == nasty
    assert [said[:2] for said in card["said"]] == [[f"{nasty}".replace("_", " "), nasty]]
    assert card["references"] == [nasty]
    article = page.articles[0]
    assert article.text("dd") == article.text("li") == [nasty]
    assert article.attributes("img")[0]["alt"] == nasty
    assert nasty in page.text("dd")


def nasty_report(folder: Path, nasty: str) -> str:
    photos = {nasty: photo_file(folder, "x.png")}
    changes: dict[str, Any] = {
        "baselines": [Baseline(CONSTANT_CAPTION, FLAT, nasty), BASELINES[1]],
        "provenance": {nasty: nasty},
    }
    found = evaluation({nasty: [nasty]}, {nasty: [nasty]}, **changes)
    return report(folder, found, photos)


@pytest.mark.parametrize("nasty", NASTY)
def test_whatever_the_words_are_they_are_text_where_it_looked(tmp_path: Path, nasty: str) -> None:
    found = with_maps(evaluation({"greedy": [nasty]}, {"x": ["x"]}), MAPS)
    page = Page(report(tmp_path, found, {"x": photo_file(tmp_path, "x.png")}))
    words = nasty.split()
    assert page.open == []
    assert len(page.attributes("figure")) == 3 * len(words) + 1  # and the template's
    assert page.articles[0].text("figcaption") == words
    assert [one[0] for one in page.cards[0]["looked"]] == words
    assert [text.rpartition(":")[0] for text in page.articles[0].text("title")] == words


@pytest.mark.parametrize("which", ["plain", "looking"])
def test_the_page_takes_nothing_from_elsewhere(which: str, request: pytest.FixtureRequest) -> None:
    html: str = request.getfixturevalue(which)
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"link", "base", "iframe", "object", "embed", "audio", "video"})
    fetching = {"src", "href", "srcset", "poster", "data", "action", "background", "style"}
    values = [
        value or ""
        for _, attributes in page.tags
        for n, value in attributes.items()
        if n in fetching
    ]
    assert len(values) > 6
    assert all(value.startswith(("data:", "#")) for value in values)
    assert not re.search(r"https?:|url\((?!#)|@import|@font-face", html)


def test_only_the_page_s_own_script_may_run(plain: str) -> None:
    page = Page(plain)
    _, script = re.findall(r"<script[^>]*>(.*?)</script>", plain, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for a in page.attributes("meta") if "http-equiv" in a)
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    # Text alone is put into the page.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", script)


def test_parts_that_are_linked_to_are_there(plain: str) -> None:
    page = Page(plain)
    links = {(a["href"] or "")[1:] for a in page.attributes("a")}
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(links) == 9
    assert links <= set(ids)
    assert len(ids) == len(set(ids))


def colours(html: str) -> list[dict[str, str]]:
    """Return the page's colours in the light and in the dark."""
    (style,) = Page(html).text("style")
    return [
        dict(re.findall(r"--(\w+): (#\w+)", block))
        for block in re.findall(r":root \{(.+?)\}", style)
    ]


def test_the_page_has_light_and_dark_colours(plain: str) -> None:
    light, dark = colours(plain)
    used = set(re.findall(r"var\(--(\w+)\)", plain))
    assert "color-scheme: light dark" in plain
    assert used == set(light) == set(dark)
    assert all(light[name] != dark[name] for name in used)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    values = sorted((luminance(one), luminance(other)))
    return (values[1] + 0.05) / (values[0] + 0.05)


def test_text_and_drawings_stand_out_in_both(plain: str) -> None:
    for found in colours(plain):
        for text in ("ink", "soft", "accent"):
            for ground in ("paper", "card"):
                assert contrast(found[text], found[ground]) >= 4.5
        assert contrast(found["soft"], found["line"]) >= 4.5  # where a photo is gone
        assert contrast(found["alarm"], found["alarmed"]) >= 4.5
        assert contrast(found["alarm"], found["paper"]) >= 4.5
        assert contrast(found["floor"], found["paper"]) >= 3
        assert contrast(found["bar"], found["paper"]) >= 3


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    photos = {"a.png": photo_file(tmp_path, "a.png")}
    pages = {report(tmp_path, evaluation(SAID, REFERENCES), photos) for _ in range(2)}
    assert len(pages) == 1
    assert str(tmp_path) not in pages.pop()
