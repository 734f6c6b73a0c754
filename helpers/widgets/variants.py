"""One figure in several variants, one for each piece of hardware, between which the switch of the page chooses."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from helpers.errors import InputError
from helpers.widgets.hardware import DEFAULT, chosen
from helpers.widgets.show import Figure, json_script


@dataclass(frozen=True)
class Variants:
    """Figures by the key of a choice of `helpers.widgets.hardware`; `first` is what a page shows before it is asked.

    As the last value of a notebook cell it shows itself: JupyterLab draws the first one, the book all of them.
    """

    figures: Mapping[str, Figure]
    first: str

    def to_html(self) -> str:
        """The `<figure>` of the first variant, which carries them all; static/figures.js puts another in its place."""
        scripts = "".join(
            json_script(figure.to_dict(), f'class="hs-variant" data-hardware="{escape(key)}"')
            for key, figure in self.figures.items()
        )
        attributes = f' data-hardware="{escape(self.first)}"'
        return self.figures[self.first].html_with(scripts, chosen(self.first).label, attributes)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        texts = [
            f"{chosen(key).label}: {figure.title}. {figure.note} {figure.alt}" for key, figure in self.figures.items()
        ]
        bundle = self.figures[self.first]._repr_mimebundle_(include, exclude)
        return bundle | {"text/html": self.to_html(), "text/plain": "\n".join(texts)}


def by_hardware(figures: Mapping[str, Figure]) -> Variants:
    """One figure for several choices of hardware, such as `{"h100": ..., "measured_h100_80gb_hbm3": ...}`.

    Raises `InputError` without figures and for an unknown key.
    """
    if not figures:
        raise InputError("by_hardware: no figure was given; give one for each piece of hardware")
    for key in figures:
        chosen(key)
    return Variants(dict(figures), DEFAULT if DEFAULT in figures else next(iter(figures)))
