"""Numbers that the text of a page quotes: the cell that computed a number hands it over by name."""


class Words(str):
    """A text that shows itself without quotation marks, as it is to stand in a sentence."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def quote(**numbers: str) -> None:
    """Hand texts to the page, where `{glue:text}` followed by a name in backquotes shows them.

    Without the book's packages nothing is handed over. Either way they are printed, so that a reader
    of the notebook, where the sentences show only the names, finds the values.
    """
    try:
        from myst_nb import glue
    except ImportError:
        glue = None
    for name, text in numbers.items():
        if glue is not None:
            glue(name, Words(text), display=False)
        print(f"{name}: {text}")
