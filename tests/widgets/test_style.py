"""The palette, computed: contrast on light and dark pages, and distance for each form of colour vision."""

from itertools import combinations

import pytest

from helpers.widgets.style import COLOURS, DASHES, MARKERS, MOST_SERIES, PATTERNS, look

PAGES = {"light": "#FFFFFF", "dark": "#121212"}
# WCAG 2.2, success criterion 1.4.11: graphical objects.
GRAPHIC_CONTRAST = 3.0
# Distance in OKLab times 100. About 2 is just seen on large areas; lines and markers need more.
LEAST_DISTANCE = 6.0
OKABE_ITO_YELLOW = "#F0E442"

# How a colour looks with full colour blindness of each kind, on linear RGB
# (Machado, Oliveira, Fernandes, IEEE TVCG 15(6), 2009, severity 1.0).
VISION = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG, 1 to 21."""
    light = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(x), strict=True)) for x in (one, other)]
    return (max(light) + 0.05) / (min(light) + 0.05)


def oklab(rgb: list[float]) -> tuple[float, float, float]:
    """OKLab of linear RGB (Ottosson, 2020)."""
    r, g, b = (min(1.0, max(0.0, c)) for c in rgb)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def distance(one: str, other: str, vision: str) -> float:
    seen = [
        oklab([sum(m * c for m, c in zip(row, linear(x), strict=True)) for row in VISION[vision]]) for x in (one, other)
    ]
    return 100 * sum((p - q) ** 2 for p, q in zip(*seen, strict=True)) ** 0.5


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_stands_out_from_the_page(page):
    assert {
        colour: round(ratio, 2) for colour in COLOURS if (ratio := contrast(colour, PAGES[page])) < GRAPHIC_CONTRAST
    } == {}


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_stay_apart(vision):
    close = [(a, b) for a, b in combinations(COLOURS, 2) if distance(a, b, vision) < LEAST_DISTANCE]
    assert close == []


def test_these_checks_can_fail():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast(OKABE_ITO_YELLOW, PAGES["light"]) < GRAPHIC_CONTRAST
    red, olive = "#D55E00", "#8A6D00"
    assert distance(red, olive, "full") > LEAST_DISTANCE > distance(red, olive, "protanopia")


def test_no_two_series_look_the_same():
    looks = [tuple(look(index).values()) for index in range(MOST_SERIES)]
    assert len(set(looks)) == MOST_SERIES
    assert len({(style["marker"], style["dash"]) for style in map(look, range(MOST_SERIES))}) == MOST_SERIES
    assert len(set(MARKERS)) == len(MARKERS) and len(set(DASHES)) == len(DASHES) and len(set(PATTERNS)) == len(PATTERNS)
