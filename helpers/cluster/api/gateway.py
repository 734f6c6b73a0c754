"""A live cluster in a thread of its own, and the way in and out of it for any other thread."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from threading import Event, Thread

from helpers.cluster.live import LiveCluster
from helpers.cluster.stand_ins import Payload
from helpers.engine.generation import request_of
from helpers.errors import InputError
from helpers.policies.view import WorkerView


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a request."""

    token: int


@dataclass(frozen=True, slots=True)
class End:
    """A request is over: `finished`, `rejected` or `unfinished`, and why."""

    status: str
    reason: str
    cached_tokens: int
    retry_after_s: float | None = None  # of a rejection, where the policy that spoke it knows


Hear = Callable[[Token | End], None]
ENDED = "the server has ended"


class Hints:
    """When those whom admission turns away had better come again, as the policies say; `note` is a cluster's
    `on_decision`."""

    def __init__(self) -> None:
        self._after_s: dict[int, float] = {}

    def note(self, sequence, decision, verdict, now: float) -> None:
        """Keep what a verdict says of it."""
        if verdict.retry_after_s is not None:
            self._after_s[sequence.request.id] = verdict.retry_after_s

    def take(self, request_id: int) -> float | None:
        """What was said of a request; it is forgotten."""
        return self._after_s.pop(request_id, None)


class Gateway:
    """Puts requests into a cluster and tells what comes of each; at most `most` are inside at once.

    `hints` hears the decisions of the cluster. `hear` of a request is called in the thread of the cluster and must not
    wait.
    """

    def __init__(self, cluster: LiveCluster, most: int = 512, hints: Hints | None = None) -> None:
        self.cluster, self.most, self._hints = cluster, most, hints or Hints()
        self.limits = cluster.crew.limits
        self.max_context, self._vocab = (cluster.crew.facts[0][name] for name in ("max_context", "vocab"))
        self.failed: BaseException | None = None
        self._waiting: dict[int, Hear] = {}  # who has not heard an end yet
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._ids = count()
        self._stop, self._over = Event(), False
        self._thread = Thread(target=self._run, daemon=True)

    @property
    def inside(self) -> int:
        """How many requests are being served or wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving; requests inside are told that it has ended."""
        self._stop.set()
        self.cluster.crew.wake()
        self._thread.join()

    def ask(
        self,
        prompt: list[int],
        max_tokens: int,
        hear: Hear,
        sampling: tuple[float, float, int, int] = (0.0, 1.0, 0, 0),
        stop: tuple[int, ...] = (),
    ) -> int:
        """Put a request in; returns its id. Raises `InputError` for one that can never be served."""
        total, room = len(prompt) + max_tokens, self.limits.kv_blocks * self.limits.block_tokens
        if not prompt or max_tokens < 1:
            raise InputError("a request has a prompt and asks for one token or more")
        if not 0 <= min(prompt) <= max(prompt) < self._vocab:
            raise InputError(f"a token of the prompt is outside the vocabulary of {self._vocab}")
        if total > self.max_context:
            raise InputError(
                f"{len(prompt)} tokens of prompt and {max_tokens} to generate are beyond the context of "
                f"{self.max_context}; shorten the prompt or ask for fewer tokens"
            )
        if total - 1 > room:
            raise InputError(f"{total - 1} tokens of KV do not fit in a worker, which holds {room}")
        number = next(self._ids)
        self._waiting[number] = hear
        payload = Payload(
            prompt, sampling, stop, on_token=lambda token, _: hear(Token(token)), on_end=lambda s: self._end(number, s)
        )
        self._call(lambda: self._arrive(number, prompt, max_tokens, payload))
        if self._over:
            self._tell(number, End("unfinished", ENDED, 0))
        return number

    def leave(self, request_id: int) -> None:
        """Nobody waits for a request any more; nothing happens when it is over."""
        self._call(lambda: self.cluster.disconnect(request_id))

    def views(self) -> list[WorkerView]:
        """How each worker stood when it last said so."""
        return [self.cluster.views.latest(i) for i in range(len(self.cluster.workers))]

    def alive(self) -> list[bool]:
        """Which workers are there."""
        return list(self.cluster.alive)

    def _arrive(self, number: int, prompt: list[int], max_tokens: int, payload: Payload) -> None:
        now = self.cluster.now()
        self.cluster.arrive(request_of(number, prompt, max_tokens, self.limits.block_tokens, now), payload)

    def _end(self, number: int, sequence) -> None:
        after_s = self._hints.take(number)
        self._tell(number, End(sequence.status, sequence.reason, sequence.cached_tokens, after_s))

    def _tell(self, number: int, end: End) -> None:
        hear = self._waiting.pop(number, None)
        if hear:
            hear(end)

    def _call(self, call: Callable[[], None]) -> None:
        self._calls.put(call)
        self.cluster.crew.wake()

    def _run(self) -> None:
        try:
            self.cluster.start()
            while not self._stop.is_set():
                while not self._calls.empty():
                    self._calls.get()()
                self.cluster.turn()
        except BaseException as error:
            self.failed = error
            raise
        finally:
            self.cluster.stop_all(ENDED)
            self._over = True
            for number in list(self._waiting):  # those that had not come to the cluster yet
                self._tell(number, End("unfinished", ENDED, 0))
