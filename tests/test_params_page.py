from tests.support.closure import ROOT
from tests.support.params_page import params_page


def test_the_params_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "params.md").read_text("utf-8")
    assert page == params_page(), "run `make docs`"
