import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.significance import MIN_IMAGES, paired_differences
from pipeline.reporting.comparison_page import (
    ComparedRuns,
    read_image_paths,
    write_comparison_page,
)
from tests.conftest import encoded, make_photo
from tests.reporting.test_report import Page


def compared(n_photos: int, name: str = "A") -> ComparedRuns:
    """Return runs of which the second captions only the last photo worse."""
    references = [[["a", "dog", f"number{row}"], ["the", "dog"]] for row in range(n_photos)]
    first = [["a", "dog", f"number{row}"] for row in range(n_photos)]
    second = [*first[:-1], ["xyz"]]
    scorer = Scorer(references)
    differences = paired_differences(scorer.score(first), scorer.score(second), samples=50)
    ids = [f"{row:02}.jpg" for row in range(n_photos)]
    return ComparedRuns((name, "B"), ids, [first, second], references, [], differences)


def cards(html: str) -> list[dict[str, Any]]:
    data, _ = Page(html).text("script")
    result: list[dict[str, Any]] = json.loads(data)
    return result


def test_the_photo_that_changed_most_comes_first(tmp_path: Path) -> None:
    photo = tmp_path / "x.png"
    photo.write_bytes(encoded(make_photo(60, 45), "PNG"))
    path = tmp_path / "page.html"
    write_comparison_page(path, compared(40), {"39.jpg": photo, "38.jpg": tmp_path / "missing"})
    html = path.read_text("utf-8")
    first, *others = cards(html)
    assert first["id"] == "39.jpg"
    assert first["captions"] == ["a dog number39", "xyz"]
    assert first["change"] == pytest.approx(first["scores"][1] - first["scores"][0], abs=0.11)
    assert first["change"] < 0
    assert first["references"] == ["a dog number39", "the dog"]
    assert first["thumbnail"].startswith("data:image/webp;base64,")
    assert [card["id"] for card in others] == [f"{row:02}.jpg" for row in range(39)]
    assert {card["thumbnail"] for card in others} == {None}
    assert {card["change"] for card in others} == {0}
    page = Page(html)
    assert page.open == []
    assert "1 of 40 captions differ." in page.text("p")
    assert {"95 % interval", "p"} <= set(page.text("th"))


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        write_comparison_page(tmp_path / name, compared(3), {})
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_of_few_photos_nothing_is_said_about_chance(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_comparison_page(path, compared(MIN_IMAGES - 1), {})
    page = Page(path.read_text("utf-8"))
    assert f"Fewer than {MIN_IMAGES} photos cannot show which run is better" in " ".join(
        page.text("p")
    )
    assert {"95 % interval", "p"}.isdisjoint(page.text("th"))


def test_untrusted_text_is_shown_as_text(tmp_path: Path) -> None:
    nasty = '</script><img src=x onerror="alert(1)">\u202e\x1b'
    path = tmp_path / "page.html"
    write_comparison_page(path, compared(3, nasty), {})
    html = path.read_text("utf-8")
    page = Page(html)
    shape = [tag for tag, _ in page.tags]
    write_comparison_page(path, compared(3, "plain"), {})
    assert shape == [tag for tag, _ in Page(path.read_text("utf-8")).tags]
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_a_page_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written .*: give --html another file"):
        write_comparison_page(tmp_path, compared(3), {})


def test_photos_are_found_beside_the_references(tmp_path: Path) -> None:
    references = tmp_path / "captions.parquet"
    assert read_image_paths(references) == {}
    write_json(tmp_path / "extract.json", {"paths": {"a.jpg": "data/a.jpg"}})
    assert read_image_paths(references) == {"a.jpg": Path("data/a.jpg")}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"paths": [1]}', '{"paths": {"a": 1}}'])
def test_a_damaged_list_of_photos_costs_no_page(tmp_path: Path, text: str) -> None:
    (tmp_path / "extract.json").write_text(text, "utf-8")
    assert read_image_paths(tmp_path / "captions.parquet") == {}
