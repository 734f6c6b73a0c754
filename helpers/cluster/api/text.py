"""Text out of tokens as they come: whole characters, and nothing from a stop text on."""

from helpers.engine.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder shows for the beginning of a character
LONGEST_CHARACTER = 4  # bytes, and so at most as many tokens that show nothing of their own


class TextStream:
    """The text of one answer. `add` returns what can be shown after a token; `stopped` says that a stop text came.

    A token is decoded behind the ones that were shown last, because a decoder may treat the first one of a text
    differently. Text that could be the beginning of a stop text is held back until that is settled.
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._tokens: list[int] = []
        self._behind = self._shown = 0  # tokens [behind, shown) were shown last
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """A token has come; returns new text, which may be empty."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        return self._release(self._new(len(self._tokens) - self._shown < LONGEST_CHARACTER))

    def _new(self, patient: bool) -> str:
        """The text of the tokens that have not been shown; none while the last character may be unfinished."""
        text = self._tokenizer.decode(self._tokens[self._behind :])
        if patient and text.endswith(UNFINISHED):
            return ""
        before = self._tokenizer.decode(self._tokens[self._behind : self._shown])
        self._behind, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def _release(self, new: str) -> str:
        """What of the held and the new text is no stop text and cannot become one."""
        text = self._held + new
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = max((n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        if self.stopped:
            return ""
        text = self._release(self._new(patient=False) if self._shown < len(self._tokens) else "")
        text, self._held = text + self._held, ""
        return text
