"""A sentence that a cell shows."""

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Note:
    """Words for the reader, the first ones in bold. Shows itself as the last value of a cell."""

    head: str
    text: str

    def __str__(self) -> str:
        return f"{self._lead()} {self.text}".rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f'<p class="hs-verdict"><strong>{escape(self._lead())}</strong> {escape(self.text)}</p>'

    def _lead(self) -> str:
        return self.head if self.head.endswith((".", "?", "!")) else f"{self.head}."
