"""The answers in the shape that clients of this interface expect: whole ones, chunks of a stream, errors."""

import json
from dataclasses import dataclass
from typing import Any

from helpers.cluster.api.asks import Ask


@dataclass(frozen=True, slots=True)
class Named:
    """What all parts of one answer say: its id, when it was begun, which model gives it."""

    number: int
    created: int
    model: str
    ask: Ask

    @property
    def id(self) -> str:
        """The id of the answer."""
        return f"{'chatcmpl' if self.ask.chat else 'cmpl'}-{self.number}"

    def _frame(self, kind: str, choices: list[dict], usage: dict | None) -> dict:
        made = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return made if usage is None else {**made, "usage": usage}

    def whole(self, text: str, reason: str, usage: dict) -> dict:
        """The answer at once."""
        if self.ask.chat:
            choice = {"message": {"role": "assistant", "content": text}}
            return self._frame("chat.completion", [_choice(choice, reason)], usage)
        return self._frame("text_completion", [_choice({"text": text}, reason)], usage)

    def chunk(self, text: str | None, reason: str | None = None, first: bool = False) -> dict:
        """A part of a stream: some text, or why it ends."""
        if self.ask.chat:
            delta = {"role": "assistant"} if first else {}
            if text is not None:
                delta["content"] = text
            return self._frame("chat.completion.chunk", [_choice({"delta": delta}, reason)], None)
        return self._frame("text_completion", [_choice({"text": text or ""}, reason)], None)

    def counts(self, usage: dict) -> dict:
        """The last chunk of a stream whose client asked for counts."""
        kind = "chat.completion.chunk" if self.ask.chat else "text_completion"
        return self._frame(kind, [], usage)


def _choice(what: dict, reason: str | None) -> dict:
    return {"index": 0, **what, "logprobs": None, "finish_reason": reason}


def usage_of(prompt: int, completion: int, cached: int) -> dict:
    """Counts of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def error(message: str, kind: str, code: str | None = None) -> dict:
    """An error in words."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def event(data: Any) -> str:
    """A server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n"
