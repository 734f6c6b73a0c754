"""One figure for several pieces of hardware: every variant is in the page, the default is what is shown."""

import json
import re

import pytest

from helpers.errors import InputError
from helpers.widgets import by_hardware
from helpers.widgets.show import HAS_HTML, PLOTLY_MIME, BookMime
from tests.widgets.test_show import Output, Reader, figure

FIGURES = {"measured_h100_80gb_hbm3": figure("h200", 0.3), "h100": figure("h100", 0.9)}


def variants(html: str) -> dict[str, dict]:
    found = re.findall(
        r'<script type="application/json" class="hs-variant" data-hardware="([^"]*)">(.*?)</script>', html
    )
    return {key: json.loads(text) for key, text in found}


def test_every_variant_is_in_the_page_and_the_default_hardware_is_drawn():
    html = by_hardware(FIGURES).to_html()
    assert Reader(html).open == []
    assert Reader(html).one("figure", "hs-figure")["data-hardware"] == "h100"
    assert variants(html) == {key: json.loads(json.dumps(one.to_dict())) for key, one in FIGURES.items()}
    assert '<span class="hs-badge">H100 SXM, predicted</span>' in html
    assert "0.9" in Reader(html).cells and "0.3" not in Reader(html).cells
    assert 'class="hs-spec"' not in html, "a figure without variants would be drawn over it"


def test_without_the_default_the_first_is_drawn():
    html = by_hardware({"measured_h100_80gb_hbm3": FIGURES["measured_h100_80gb_hbm3"]}).to_html()
    assert Reader(html).one("figure", "hs-figure")["data-hardware"] == "measured_h100_80gb_hbm3"


def test_jupyterlab_draws_the_first_and_the_words_name_all():
    bundle = by_hardware(FIGURES)._repr_mimebundle_()
    assert bundle[PLOTLY_MIME]["data"] == FIGURES["h100"].spec["data"]
    assert bundle[PLOTLY_MIME]["layout"]["meta"] == HAS_HTML
    assert BookMime.handle_mime(None, Output(PLOTLY_MIME, bundle[PLOTLY_MIME]), False) == []
    assert (
        "H100 80GB HBM3, measured under load: " in bundle["text/plain"]
        and "H100 SXM, predicted: " in bundle["text/plain"]
    )


@pytest.mark.parametrize("figures", [{}, {"h100_sxm": FIGURES["h100"]}, {"mine": FIGURES["h100"]}])
def test_no_figure_and_unknown_hardware_are_refused(figures):
    with pytest.raises(InputError):
        by_hardware(figures)


def test_a_figure_survives_the_way_through_json():
    one = FIGURES["h100"]
    again = type(one).from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.to_html() == one.to_html() and again.key == one.key
