"""One request of a client, from the gateway's tokens to text: how it begins, goes on and ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from helpers.cluster.api.asks import Ask
from helpers.cluster.api.gateway import ENDED, End, Gateway, Token
from helpers.cluster.api.metrics import Metrics
from helpers.cluster.api.text import TextStream
from helpers.engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Closed:
    """How an answer ended: `stop` or `length`, or with an error of this HTTP status; counts of tokens.

    `retry_after_s`: when the client had better come again, None where that will not help.
    """

    reason: str | None
    error: str
    status: int
    generated: int
    cached: int
    retry_after_s: float | None = None


OUTCOMES = {200: "finished", 429: "rejected", 499: "disconnected"}  # as they are counted, by HTTP status
NOBODY = "no worker is left that could serve it"
LEFT = Closed(None, "its client left", 499, 0, 0)


class Answering:
    """The answer to one ask. `parts` gives its text as it comes, then how it has closed.

    When nobody goes on reading, or `gone()` comes to an end, the request is taken out of the cluster.
    """

    def __init__(
        self,
        ask: Ask,
        gateway: Gateway,
        tokenizer: Tokenizer,
        metrics: Metrics,
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        self._ask, self._gateway, self._metrics = ask, gateway, metrics
        self._text = TextStream(tokenizer, ask.stop)
        self._stop_tokens = () if ask.ignore_end else tuple(tokenizer.stop)
        self._queue: asyncio.Queue[Token | End | None] = asyncio.Queue()  # None: the client has left
        self._gone = gone
        loop = asyncio.get_running_loop()
        self._asked_s = perf_counter()
        self._times_s: list[float] = []
        self._last = -1
        self.number = gateway.ask(
            ask.prompt,
            ask.max_tokens,
            lambda heard: loop.call_soon_threadsafe(self._queue.put_nowait, heard),
            ask.sampling,
            self._stop_tokens,
        )

    async def parts(self) -> AsyncIterator[str | Closed]:
        """The texts, none of them empty, and a last `Closed`."""
        closed, watch = LEFT, asyncio.create_task(self._watch())
        try:
            while not isinstance(heard := await self._queue.get(), End):
                if heard is None:
                    break
                self._times_s.append(perf_counter())
                self._last = heard.token
                text = self._text.add(heard.token)
                if text:
                    yield text
                if self._text.stopped:
                    closed = Closed("stop", "", 200, len(self._times_s), 0)
                    break
            else:
                closed = self._close(heard)
                if closed.reason and (text := self._text.rest()):
                    yield text
            yield closed
        finally:
            watch.cancel()
            self._gateway.leave(self.number)
            status = OUTCOMES.get(closed.status, "failed")
            prompt, now_s = len(self._ask.prompt), perf_counter()
            self._metrics.ended(status, prompt, closed.cached, self._times_s, self._asked_s, now_s)

    async def _watch(self) -> None:
        await self._gone()
        self._queue.put_nowait(None)

    def _close(self, end: End) -> Closed:
        count = len(self._times_s)
        if end.status == "finished":
            reason = "stop" if self._last in self._stop_tokens else "length"
            return Closed(reason, "", 200, count, end.cached_tokens)
        status = 503 if end.reason == NOBODY or end.status != "rejected" else 429
        after_s = None if end.reason in (NOBODY, ENDED) else end.retry_after_s or 0.0
        return Closed(None, end.reason, status, count, end.cached_tokens, after_s)
