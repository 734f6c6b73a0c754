"""Numbers that the text of a page quotes: the cell that computed a number hands it over by name."""

from html import escape


class Quoted(dict):
    """The names and texts handed over by one cell; shows itself as a list that a reader may open."""

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.items())

    def _repr_html_(self) -> str:
        items = "".join(f"<li><code>{escape(name)}</code>: {escape(text)}</li>" for name, text in self.items())
        return f'<details class="hs-quoted"><summary>Numbers quoted in the text</summary><ul>{items}</ul></details>'


def quote(**numbers: str) -> None:
    """Hand texts to the page, where `{glue:text}` followed by a name in backquotes shows them.

    Without the book's packages nothing is handed over. Either way the list is shown (in the book a style hides it),
    because in the notebook itself the sentences hold only the names.
    """
    try:
        from IPython.display import display
    except ImportError:
        print(repr(Quoted(numbers)))
        return
    try:
        from myst_nb import glue
    except ImportError:
        glue = None
    for name, text in numbers.items() if glue else ():
        glue(name, text, display=False)
    display(Quoted(numbers))
