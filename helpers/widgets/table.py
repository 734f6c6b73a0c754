"""A small table of numbers with a caption, for notebooks and for the book."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from helpers.errors import InputError

# Longer cells, such as commands, may be broken anywhere.
LONG = 60


@dataclass(frozen=True)
class Table:
    """Rows of texts under column names; the first column names the row. As the last value of a cell it shows itself.

    Raises `InputError` when a row has another number of cells than there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"table {self.caption!r}: a row has {len(row)} cells for {len(self.columns)} columns")

    def __str__(self) -> str:
        lines = ["\t".join(map(str, row)) for row in (self.columns, *self.rows)]
        return "\n".join([self.caption, *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in self.columns)
        body = "".join(
            f'<tr><th scope="row">{escape(str(first))}</th>' + "".join(_cell(str(cell)) for cell in rest) + "</tr>"
            for first, *rest in self.rows
        )
        return (
            f'<table class="dataframe hs-numbers"><caption>{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


@dataclass(frozen=True)
class Tables:
    """Tables one below the other, as the one value of a cell."""

    tables: Sequence[Table]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self.tables)


def _cell(text: str) -> str:
    start = '<td class="hs-long">' if len(text) > LONG else "<td>"
    return f"{start}{escape(text)}</td>"
