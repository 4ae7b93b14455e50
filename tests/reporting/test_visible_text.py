import json

import pytest
from markupsafe import Markup

from pipeline.reporting.visible_text import json_for_script, visible, visible_value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202ebc", r"a\u202ebc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_text_that_hides_or_reorders_itself_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["Straße 犬 🐕", "a\tb\nc", "שלום", "می‌خواهم", "👩‍👧", "<b>"])
def test_other_text_is_unchanged(text: str) -> None:
    assert visible(text) == text


def test_markup_of_our_own_and_numbers_are_unchanged() -> None:
    markup = Markup("<svg>\x0b</svg>")
    assert visible_value(markup) is markup
    assert visible_value(3) == 3
    assert visible_value("\x0b") == r"\x0b"


def test_json_cannot_end_its_element() -> None:
    value = ["</script><!-- & -->"]
    text = json_for_script(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value
