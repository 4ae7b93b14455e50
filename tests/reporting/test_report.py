import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.metrics.scorer import METRICS
from pipeline.reporting.baselines import (
    CONSTANT_CAPTION,
    EXPLANATIONS,
    SHUFFLED_FEATURES,
    Baseline,
)
from pipeline.reporting.data_summary import Change
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.nearest_captions import NearestCaption
from pipeline.reporting.report import write_report
from pipeline.reporting.thumbnails import attention_overlay
from tests.conftest import encoded, make_photo
from tests.support.report import BASELINES, DATA, FLAT, LAYERS, MODEL, evaluation, with_maps

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
# Of these few photos, the report says nothing about the model.
REFERENCES = {
    "a.png": ["The cat.", "A cat!"],
    "b.png": ["The dog."],
    "missing.png": ["Grass."],
}
CAPTIONS = {"greedy": ["a cat", "a dog", ""], "beam_3": ["a small cat", "a dog", "grass"]}
MANY_REFERENCES = {
    f"{row:02}": [["a cat sits here"], ["a dog runs off"], ["a bus stands there"]][row % 3]
    for row in range(30)
}
MANY_CAPTIONS = {"beam_3": ["a cat sits", "a dog runs", "a bus stands"] * 10}


class Page(HTMLParser):
    """The report as a browser parses it."""

    VOID = frozenset({"meta", "img", "input", "br"})

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
        """The gallery's cards, as the page's script reads them."""
        data, _ = self.text("script")
        cards: list[dict[str, Any]] = json.loads(data)
        return cards

    @property
    def articles(self) -> list["Page"]:
        """The cards that do not need the script."""
        return [Page(html) for html in re.findall(r"<article>.*?</article>", self.html, re.DOTALL)]


def photo_file(folder: Path, name: str, seed: int = 0, width: int = 48, height: int = 40) -> Path:
    path = folder / name
    path.write_bytes(encoded(make_photo(width, height, seed), "PNG"))
    return path


def report(folder: Path, result: Evaluation, photos: Mapping[str, Path]) -> str:
    path = folder / "report.html"
    write_report(path, result, photos, folder, MODEL, LAYERS, DATA)
    return path.read_text("utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """Write a report of three photos by two searches; the third photo is missing."""
    photos = {
        name: photo_file(tmp_path, name, seed) for seed, name in enumerate(["a.png", "b.png"])
    }
    (tmp_path / "history.csv").write_text(
        "seed,epoch,loss,validation_loss,validation_cider_d\n7,1,3,3.5,1\n7,2,2,2.5,2\n", "utf-8"
    )
    return report(tmp_path, evaluation(CAPTIONS, REFERENCES), photos)


# On a grid of three by three: highest at the top right, at the left, in the centre.
MAPS = [
    [0, 9, 255, 8, 7, 6, 5, 4, 3],
    [0, 9, 8, 255, 7, 6, 5, 4, 3],
    [0, 9, 8, 7, 255, 6, 5, 4, 3],
]


@pytest.fixture
def with_attention(tmp_path: Path) -> str:
    """Write a report of a decoder with attention; the third photo is missing."""
    photos = {
        name: photo_file(tmp_path, name, seed) for seed, name in enumerate(["a.png", "b.png"])
    }
    return report(tmp_path, with_maps(evaluation(CAPTIONS, REFERENCES), MAPS), photos)


def test_each_word_has_its_attention(with_attention: str) -> None:
    page = Page(with_attention)
    a, b, missing = page.cards
    assert [frame[:2] for frame in a["attention"]] == [
        ["a", "top right"],
        ["small", "left"],
        ["cat", "centre"],
    ]
    assert [frame[2] for frame in a["attention"]] == [
        attention_overlay(weights) for weights in MAPS
    ]
    assert [frame[:2] for frame in b["attention"]] == [["a", "top right"], ["dog", "left"]]
    assert (a["size"], missing["size"]) == ([48, 40], None)
    assert missing["attention"] == []  # there is no photo to show it on


def test_the_attention_of_quarters_is_described_by_their_corners(tmp_path: Path) -> None:
    quarters = [[255 if i == highest else 9 for i in range(4)] for highest in (3, 0, 2)]
    photos = {"a.png": photo_file(tmp_path, "a.png", 0)}
    page = Page(report(tmp_path, with_maps(evaluation(CAPTIONS, REFERENCES), quarters), photos))
    assert [frame[:2] for frame in page.cards[0]["attention"]] == [
        ["a", "bottom right"],
        ["small", "top left"],
        ["cat", "bottom left"],
    ]


def test_attention_needs_no_script_and_is_accessible(with_attention: str) -> None:
    page = Page(with_attention)
    (card,) = (article for article in page.articles[:3] if "a.png" in article.text("div"))
    assert card.text("summary") == ["Attention"]
    assert "open" not in card.attributes("details")[0]
    assert card.text("figcaption") == ["a", "small", "cat"]
    assert card.text("title") == [
        "a: highest at the top right",
        "small: highest at the left",
        "cat: highest at the centre",
    ]
    assert [a["viewbox"] for a in card.attributes("svg")] == ["0 0 48 40"] * 3
    assert {a["role"] for a in card.attributes("svg")} == {"img"}
    # The photo is embedded once for all words; each word has an overlay above it.
    first, *overlays = [a["href"] for a in card.attributes("image")]
    assert first == card.attributes("img")[0]["src"]
    assert overlays == [attention_overlay(weights) for weights in MAPS]
    key = card.attributes("image")[0]["id"]
    assert [a["href"] for a in card.attributes("use")] == [f"#{key}"] * 2
    assert "the less it counted" in " ".join(page.text("p"))


def test_a_photo_in_two_selections_has_two_ids(tmp_path: Path) -> None:
    photos = {name: photo_file(tmp_path, "a.png", 0) for name in MANY_REFERENCES}
    result = with_maps(evaluation(MANY_CAPTIONS, MANY_REFERENCES), MAPS)
    ids = [a["id"] for _, a in Page(report(tmp_path, result, photos)).tags if "id" in a]
    keys = [key for key in ids if key and key.startswith("photo-")]
    assert len(keys) == 6 * 3  # six photos in each of three selections
    assert len(ids) == len(set(ids))


def test_a_decoder_without_attention_shows_none(plain: str) -> None:
    page = Page(plain)
    assert [card["attention"] for card in page.cards] == [[], [], []]
    *shown, template = page.articles
    assert [article.text("summary") for article in shown] == [[]] * 3
    assert template.text("summary") == ["Attention"]  # the script removes it
    assert "the less it counted" not in plain


def test_the_gallery_has_every_photo_with_all_its_captions(plain: str) -> None:
    page = Page(plain)
    assert page.open == []
    assert page.text("h1") == page.text("title")[:1] == ["Captions of 3 test photos"]
    a, b, missing = page.cards
    assert [card["id"] for card in page.cards] == ["a.png", "b.png", "missing.png"]
    assert [card["references"] for card in page.cards] == list(REFERENCES.values())
    assert [caption[:2] for caption in a["captions"]] == [
        ["beam 3", "a small cat"],
        ["greedy", "a cat"],
    ]
    assert [caption[:2] for caption in b["captions"]] == [["beam 3, greedy", "a dog"]]  # once
    assert [caption[:2] for caption in missing["captions"]] == [["beam 3", "grass"], ["greedy", ""]]
    assert missing["thumbnail"] is None


def test_each_caption_has_its_own_score(tmp_path: Path) -> None:
    result = evaluation(CAPTIONS, REFERENCES)
    page = Page(report(tmp_path, result, {}))
    for row, card in enumerate(page.cards):
        beam, greedy = (result.searches[name].scores for name in ("beam_3", "greedy"))
        assert card["score"] == pytest.approx(beam.cider_d[row], abs=0.01)
        assert card["captions"][0][2:] == [f"{beam.cider_d[row]:.0f}", f"{beam.rouge_l[row]:.0f}"]
        assert card["captions"][-1][2] == f"{greedy.cider_d[row]:.0f}"


def test_best_worst_and_random_photos_need_no_script(tmp_path: Path) -> None:
    references = {f"{row}": [f"a dog number{row} runs", "the dog"] for row in range(30)}
    captions = [f"a dog number{row} runs" if row < 9 else "a number0 cat" for row in range(30)]
    result = evaluation({"greedy": captions}, references)
    page = Page(report(tmp_path, result, {}))
    names = [article.text("div")[-1] for article in page.articles]
    best, worst, random, template = names[:6], names[6:12], names[12:18], names[18:]
    score = dict(zip(references, result.searches["greedy"].scores.cider_d, strict=True))
    assert min(score[name] for name in best) >= max(score[name] for name in worst)
    assert {score[name] for name in worst} == {min(score.values())}
    assert len(set(random)) == 6
    assert template == ["photo missing or damaged"]  # the template that the script fills
    first = page.articles[0]
    assert first.text("li") == references[best[0]]
    assert first.text("dt") == ["greedy"]
    assert first.text("span") == [f"{score[best[0]]:.0f}"]


def test_a_caption_that_scores_nothing_is_not_among_the_best(tmp_path: Path) -> None:
    two_good = MANY_CAPTIONS["beam_3"][:2] + ["xyz"] * 28
    page = Page(report(tmp_path, evaluation({"beam_3": two_good}, MANY_REFERENCES), {}))
    headings = [text for text in page.text("h3") if text.startswith(("The ", "Drawn"))]
    assert headings == ["The best", "The worst", "Drawn at random"]
    names = [article.text("div")[-1] for article in page.articles]
    assert names[:2] == ["00", "01"]
    assert {"00", "01"}.isdisjoint(names[2:8])
    none_good = evaluation({"beam_3": ["xyz"] * 30}, MANY_REFERENCES)
    page = Page(report(tmp_path, none_good, {}))
    assert "No caption has a CIDEr-D above 0." in page.text("p")
    assert any(
        text.startswith("Whether the model uses the image cannot") for text in page.text("p")
    )
    assert len(page.articles) == 6 + 6 + 1


def test_of_few_photos_the_report_says_nothing_but_their_scores(tmp_path: Path) -> None:
    few = {name: MANY_REFERENCES[name] for name in list(MANY_REFERENCES)[:4]}
    for captions in (["a cat sits", "a dog runs", "a bus stands", "xyz"], ["a cat sits"] * 4):
        page = Page(report(tmp_path, evaluation({"beam_3": captions}, few), {}))
        text = " ".join(page.text("p"))
        assert "4 test photos cannot show how good the model is" in text
        assert "uses the image" not in text
        assert "95 %" not in text
        assert "The best" not in page.text("h3")
        assert "The worst" not in page.text("h3")
        assert "All test photos" in page.text("h3")
        assert "Used too often" not in page.text("caption")
        assert "Mean CIDEr-D" not in page.text("caption")
    many = report(tmp_path, evaluation(MANY_CAPTIONS, MANY_REFERENCES), {})
    assert "cannot show" not in many


def test_detected_words_are_shown_below_the_captions(tmp_path: Path) -> None:
    references = {"a.png": ["a cat"], "b.png": ["a dog"]}
    detected = {"a.png": ["cat", NASTY[0]]}
    result = evaluation({"greedy": ["a cat", "a dog"]}, references, detected=detected)
    page = Page(report(tmp_path, result, {}))
    assert [card["detected"] for card in page.cards] == [f"cat, {NASTY[0]}", ""]
    shown = {article.text("div")[-1]: article for article in page.articles[:2]}
    assert shown["a.png"].text("dd") == ["a cat", f"cat, {NASTY[0]}"]
    assert shown["a.png"].text("dt") == ["greedy", "words detected"]
    assert shown["b.png"].text("dt") == ["greedy"]
    assert any("a second, simpler model" in text for text in page.text("p"))
    plain = Page(report(tmp_path, evaluation({"greedy": ["a cat", "a dog"]}, references), {}))
    assert not any("a second, simpler model" in text for text in plain.text("p"))


def test_a_caption_without_words_is_shown_as_such(plain: str) -> None:
    shown = [text for article in Page(plain).articles for text in article.text("dd")]
    assert shown.count("(no words)") == 1
    assert "" not in shown


def test_the_scores_of_every_search_and_the_baselines_are_shown(tmp_path: Path) -> None:
    result = evaluation(CAPTIONS, REFERENCES)
    page = Page(report(tmp_path, result, {}))
    cells = page.text("td")
    for search in result.searches.values():
        values = [f"{search.corpus[metric]:.1f}" for metric in METRICS]
        assert any(cells[i : i + 7] == [*values, "n/a"] for i in range(len(cells)))
    names = page.text("th")
    for name in ("random captions", "constant caption", "shuffled features"):
        assert name in names
    assert {"91.0 %", "92.0 %", "93.0 %", "95.0 %", "4.5"} <= set(cells)
    text = " ".join(page.text("p"))
    assert "perplexity on the references is 8.12 per word; 6.2 %" in text
    assert "a man is standing" in text


def test_each_baseline_is_explained_once(plain: str) -> None:
    items = [text for text in Page(plain).text("li") if text.startswith(": ")]
    assert items == [f": {EXPLANATIONS[baseline.name]}" for baseline in BASELINES]


def test_provenance_params_and_feature_extraction_are_shown(plain: str) -> None:
    page = Page(plain)
    assert {"test", "0123abcd", "b" * 64, "0.0005"} <= set(page.text("dd"))
    assert "MobileNet (32 x 32 pixels, average pooling, 1 scale; frozen)" in " ".join(
        page.text("p")
    )


def table_rows(html: str, name: str) -> list[list[str]]:
    """Return the cells of a table's rows, from its head to its foot."""
    (table,) = re.findall(rf'<table class="{name}">.*?</table>', html, re.DOTALL)
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_the_layers_of_the_network_and_its_parameters_are_shown(plain: str) -> None:
    header, *rows, total = table_rows(plain, "layers")
    assert header == ["layer", "kind", "output shape", "parameters", "connected from"]
    assert rows == [
        ["features", "InputLayer", "(None, 2048)", "0", ""],
        ["ids", "InputLayer", "(None, None)", "0", ""],
        ["image", "Dense", "(None, 128)", "262,272", "features"],
        ["embedding", "ReversibleEmbedding", "(None, None, 96), (None, None, 1470)", "9", "ids"],
        ["merge", "Add", "(None, None, 128)", "0", "embedding, image"],
    ]
    assert total == ["total", "", "", "262,281", ""]
    assert "Layers of the merge decoder network" in Page(plain).text("caption")


def test_shared_weights_count_once_and_the_report_says_so(tmp_path: Path, plain: str) -> None:
    note = "Weights that layers share count once in the total."
    assert note not in plain
    result = evaluation(CAPTIONS, REFERENCES)
    path = tmp_path / "report.html"
    write_report(path, result, {}, tmp_path, MODEL, replace(LAYERS, parameters=262_272), DATA)
    html = path.read_text("utf-8")
    assert note in html
    assert table_rows(html, "layers")[-1] == ["total", "", "", "262,272", ""]


def test_every_table_heading_has_a_scope(plain: str) -> None:
    scopes = [a.get("scope") for a in Page(plain).attributes("th")]
    assert {*scopes} == {"row", "col"}


def test_a_model_that_hardly_uses_the_image_has_a_warning_in_red(tmp_path: Path) -> None:
    plain = report(tmp_path, evaluation(MANY_CAPTIONS, MANY_REFERENCES), {})
    assert "alert" not in [a.get("role") for a in Page(plain).attributes("p")]
    assert "The model uses the image" in plain
    own_scores = evaluation(MANY_CAPTIONS, MANY_REFERENCES).searches["beam_3"].corpus
    html = report(
        tmp_path,
        evaluation(
            MANY_CAPTIONS,
            MANY_REFERENCES,
            baselines=[*BASELINES[:2], Baseline(SHUFFLED_FEATURES, own_scores)],
        ),
        {},
    )
    (warning,) = (a for a in Page(html).attributes("p") if a.get("role") == "alert")
    assert warning["class"] == "warning"
    assert "The model hardly uses the image." in Page(html).text("strong")
    assert "The model uses the image" not in html
    (style,) = Page(html).text("style")
    (rule,) = re.findall(r"\.warning \{(.+?)\}", style)
    assert "color: var(--error)" in rule


def test_what_is_not_available_is_left_out(tmp_path: Path) -> None:
    result = evaluation({"greedy": ["a dog"]}, {"x": ["x"]}, baselines=BASELINES[:2])
    html = report(tmp_path, result, {})
    assert "whether the model uses the image was not checked." in html
    assert "There is no training history." in html
    assert "human agreement" not in html
    assert "shuffled features" not in html
    assert len(Page(html).articles) == 2


def thumbnails(html: str) -> list[Image.Image]:
    images: list[Image.Image] = []
    for card in Page(html).cards:
        if card["thumbnail"] is not None:
            assert card["thumbnail"].startswith("data:image/webp;base64,")
            data = base64.b64decode(card["thumbnail"].partition(",")[2], validate=True)
            images.append(Image.open(io.BytesIO(data)))
            images[-1].load()
    return images


def test_photos_are_in_the_page_and_can_be_decoded(plain: str) -> None:
    first, second = thumbnails(plain)
    assert (first.format, first.size) == ("WEBP", (48, 40))
    # Each card has its own photo.
    assert first.convert("RGB").getpixel((5, 5)) != second.convert("RGB").getpixel((5, 5))
    page = Page(plain)
    shown = {a["src"]: a["alt"] for a in page.attributes("img") if "src" in a}
    a, b, _ = page.cards
    assert shown == {a["thumbnail"]: "a small cat", b["thumbnail"]: "a dog"}


def test_large_photos_are_made_small_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(make_photo(1600, 800), "JPEG", exif=exif))
    html = report(tmp_path, evaluation({"greedy": ["a"]}, {"x.jpg": ["x"]}), {"x.jpg": path})
    (thumbnail,) = thumbnails(html)
    assert thumbnail.size == (320, 640)


@pytest.mark.parametrize("content", [None, b"", b"no photo", encoded(make_photo(), "PNG")[:99]])
def test_a_missing_or_damaged_photo_has_a_placeholder(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    html = report(tmp_path, evaluation({"greedy": ["a"]}, {"x.png": ["x"]}), {"x.png": path})
    page = Page(html)
    assert [a for a in page.attributes("img") if "src" in a] == []
    assert page.articles[0].text("div") == ["photo missing or damaged", "x.png"]
    assert page.articles[0].text("dd") == ["a"]
    assert page.cards[0]["thumbnail"] is None


@pytest.mark.parametrize("nasty", NASTY)
def test_untrusted_text_is_shown_as_text(tmp_path: Path, nasty: str) -> None:
    def shape(page: Page) -> list[str]:
        # The ticks of a chart depend on the scores.
        return [tag for tag, _ in page.tags if tag not in {"line", "text"}]

    page = Page(untrusted_report(tmp_path, nasty))
    assert page.open == []
    assert shape(page) == shape(Page(untrusted_report(tmp_path, "plain")))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    (card,) = page.cards
    assert card["id"] == nasty
    assert [caption[:2] for caption in card["captions"]] == [[f"{nasty}".replace("_", " "), nasty]]
    assert card["references"] == [nasty]
    article = page.articles[0]
    assert article.text("dd") == article.text("li") == [nasty]
    assert article.attributes("img")[0]["alt"] == nasty
    assert nasty in page.text("dd")


def untrusted_report(folder: Path, nasty: str) -> str:
    photos = {nasty: photo_file(folder, "x.png")}
    changes: dict[str, Any] = {
        "baselines": [Baseline(CONSTANT_CAPTION, FLAT, nasty), BASELINES[1]],
        "provenance": {nasty: nasty},
    }
    result = evaluation({nasty: [nasty]}, {nasty: [nasty]}, **changes)
    return report(folder, result, photos)


def test_text_that_hides_or_reorders_itself_is_visible(tmp_path: Path) -> None:
    nasty, shown = "a\u202egpj.\x1b[2J\x00\ud800\u2066b", r"a\u202egpj.\x1b[2J\x00\ud800\u2066b"
    data = replace(
        DATA,
        changes=[Change("dropped", nasty, 1, [nasty])],
        listed=[(nasty, [nasty])],
        failed=[(nasty, "test", nasty)],
        frequent_words=[nasty],
    )
    result = evaluation(
        {"greedy": [nasty]},
        {nasty: [nasty]},
        provenance={"split": "test", nasty: nasty},
        detected={nasty: [nasty]},
        nearest=[NearestCaption(nasty, is_copy=False)],
    )
    path = tmp_path / "report.html"
    write_report(
        path, result, {nasty: photo_file(tmp_path, "x.png")}, tmp_path, MODEL, LAYERS, data
    )
    html = path.read_text("utf-8")
    assert not re.search("[\x00-\x08\x1b\u202e\u2066\ud800]", html)
    page = Page(html)
    (card,) = page.cards
    assert card["id"] == card["alt"] == card["detected"] == card["nearest"][1] == shown
    assert page.attributes("img")[0]["alt"] == shown
    assert page.articles[0].text("dd") == [shown] * 3
    assert page.text("dd").count(shown) >= 6


def test_the_nearest_training_caption_is_shown(tmp_path: Path) -> None:
    nearest = [NearestCaption("A cat !", is_copy=True), NearestCaption("", is_copy=False)]
    references = {"a.png": ["a cat"], "b.png": ["a dog"]}
    result = evaluation({"greedy": ["a cat", "xyz"]}, references, nearest=nearest)
    page = Page(report(tmp_path, result, {}))
    assert [card["nearest"] for card in page.cards] == [[True, "A cat !"], [False, ""]]
    first, second, _ = page.articles
    assert first.text("dt")[-1] == "copied from a training caption"
    assert first.text("dd")[-1] == "A cat !"
    assert second.text("dt")[-1] == "nearest training caption"
    assert second.text("dd")[-1] == "(none shares a word)"


def test_the_data_section_shows_splits_lengths_changes_and_failed_photos(plain: str) -> None:
    page = Page(plain)
    facts = page.text("dd")
    assert {"2", "for example captions.txt, line 7: '!'", "5", "empty file"} <= set(facts)
    assert "a.png (train), b.png (test)" in facts
    labels = page.text("dt")
    assert {"dropped: no words", "photos not there", "bad.png (test)"} <= set(labels)
    assert {"train", "test"} <= set(page.text("th"))
    assert "9.5 (3 to 20)" in page.text("td")
    assert "Training captions by number of words" in page.text("caption")
    paragraphs = " ".join(page.text("p"))
    assert (
        "This report shows the 3 photos of the test split only. 1 more of them failed" in paragraphs
    )
    assert "a, dog" in paragraphs


def test_a_data_set_of_which_all_was_kept_says_so(tmp_path: Path) -> None:
    data = replace(DATA, changes=[], counts=[], listed=[], failed=[])
    path = tmp_path / "report.html"
    write_report(path, evaluation(CAPTIONS, REFERENCES), {}, tmp_path, MODEL, LAYERS, data)
    text = " ".join(Page(path.read_text("utf-8")).text("p"))
    assert "No photo of the test split failed." in text
    assert "Nothing: every caption was kept as it is." in text
    assert "None: every photo has features." in text


def test_the_learning_curves_explain_the_kept_epoch_and_the_training_loss(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(
        "seed,epoch,loss,validation_loss,validation_cider_d\n7,1,3,3.5,1\n7,2,2,2.5,2\n", "utf-8"
    )
    params = {"select": "cider", "select_tolerance": 0.05, "dropout": 0.3, "label_smoothing": 0.1}
    member = replace(MODEL.members[0], metadata={"best": {"epoch": 1, "loss": 3}})
    model = replace(MODEL, members=(member,), metadata={"params": params})
    path = tmp_path / "report.html"
    write_report(path, evaluation(CAPTIONS, REFERENCES), {}, tmp_path, model, LAYERS, DATA)
    page = Page(path.read_text("utf-8"))
    assert "kept: epoch 1 (3.500)" in page.text("span")
    text = " ".join(page.text("p"))
    assert "lowest validation loss among those whose CIDEr-D is within 5 % of the best" in text
    assert "computed while learning, with dropout, smoothed labels;" in text


@pytest.mark.parametrize("nasty", NASTY)
def test_untrusted_words_are_shown_as_text_in_attention(tmp_path: Path, nasty: str) -> None:
    result = with_maps(evaluation({"greedy": [nasty]}, {"x": ["x"]}), MAPS)
    page = Page(report(tmp_path, result, {"x": photo_file(tmp_path, "x.png")}))
    words = nasty.split()
    assert page.open == []
    assert len(page.attributes("figure")) == len(words) + 1  # and the template's
    assert page.articles[0].text("figcaption") == words
    assert [frame[0] for frame in page.cards[0]["attention"]] == words
    assert [text.rpartition(":")[0] for text in page.articles[0].text("title")] == words


@pytest.mark.parametrize("which", ["plain", "with_attention"])
def test_the_page_is_self_contained(which: str, request: pytest.FixtureRequest) -> None:
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
    # The script inserts text only.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", script)


def test_linked_sections_exist(plain: str) -> None:
    page = Page(plain)
    links = {(a["href"] or "")[1:] for a in page.attributes("a")}
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(links) == 10
    assert links <= set(ids)
    assert len(ids) == len(set(ids))


def colours(html: str) -> list[dict[str, str]]:
    """Return the page's light, dark and printed colours."""
    (style,) = Page(html).text("style")
    return [
        dict(re.findall(r"--([\w-]+): (#\w+)", block))
        for block in re.findall(r":root \{(.+?)\}", style)
    ]


def test_the_page_has_light_and_dark_colours(plain: str) -> None:
    light, dark, printed = colours(plain)
    used = set(re.findall(r"var\(--([\w-]+)\)", plain))
    assert "color-scheme: light dark" in plain
    assert used == set(light) == set(dark) == set(printed)
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


def test_text_and_drawings_have_enough_contrast_in_both(plain: str) -> None:
    for theme in colours(plain):
        for text in ("text", "muted", "accent"):
            for background in ("background", "card"):
                assert contrast(theme[text], theme[background]) >= 4.5
        assert contrast(theme["muted"], theme["border"]) >= 4.5  # the placeholder of a photo
        assert contrast(theme["error"], theme["error-background"]) >= 4.5
        assert contrast(theme["error"], theme["background"]) >= 4.5
        assert contrast(theme["baseline"], theme["background"]) >= 3
        assert contrast(theme["bar"], theme["background"]) >= 3


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    photos = {"a.png": photo_file(tmp_path, "a.png")}
    pages = {report(tmp_path, evaluation(CAPTIONS, REFERENCES), photos) for _ in range(2)}
    assert len(pages) == 1
    assert str(tmp_path) not in pages.pop()
