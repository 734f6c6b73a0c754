"""The field in which a learner writes a guess, in a notebook that somebody has open."""

from html import escape
from typing import TYPE_CHECKING

from helpers.lessons.front_end import show

if TYPE_CHECKING:
    from helpers.lessons.prediction import Guess


def offer_entry(guess: "Guess", head: str, told: str) -> bool:
    """Show the question with a field and a button; False when ipywidgets is not there.

    The field is empty, so that no number in it pulls the guess towards itself.
    """
    try:
        import ipywidgets
    except ImportError:
        return False
    words = {"layout": ipywidgets.Layout(width="14em"), "tooltip": f"Your guess: {guess.name}"}
    if guess.choices:
        field = ipywidgets.Dropdown(options=["", *guess.choices], **words)
    else:
        field = ipywidgets.Text(placeholder=guess.unit or "a number", **words)
    button = ipywidgets.Button(description="Keep this guess", tooltip=f"Keep this guess: {guess.name}")
    state = ipywidgets.HTML(escape(told))

    def keep(_=None) -> None:
        state.value = escape(guess.take(field.value if guess.choices else read(field.value)))

    button.on_click(keep)
    question = ipywidgets.HTML(f"<strong>{escape(head)}</strong>")
    line = ipywidgets.HBox([field, ipywidgets.Label(guess.unit), button])
    show(ipywidgets.VBox([question, line, state]))
    return True


def read(text: str) -> float | str:
    """The number that was entered, or the text as it stands when it is no number."""
    entered = text.strip()
    try:
        return float(entered.replace(",", ""))
    except ValueError:
        return entered
