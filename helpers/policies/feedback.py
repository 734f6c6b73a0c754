"""A closed loop on measured latency: workers that answer slowly for long are given fewer requests."""

from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.counting import CountingRouter
from helpers.policies.loads import bits
from helpers.policies.routing import STATE, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, Finished, FirstToken, Rejected, Views, WorkerLost
from helpers.workload.request import Request

LOOKS = 10  # how often the loop looks at its measurements within `dwell_s`
ENOUGH = 5  # measurements of a worker before it is compared with others


class Pace:
    """Seconds a token: the quotient of two exponentially weighted averages, in which the first values weigh alike."""

    __slots__ = ("_seconds", "_tokens", "count")

    def __init__(self) -> None:
        self.count, self._seconds, self._tokens = 0, 0.0, 0.0

    @property
    def s_per_token(self) -> float:
        """The quotient; call it after the first value."""
        return self._seconds / self._tokens

    def add(self, seconds: float, tokens: int, smoothing: float) -> None:
        """A new value, with the weight `smoothing` or that of one among all so far, whichever is more."""
        self.count += 1
        weight = max(smoothing, 1 / self.count)
        self._seconds += weight * (seconds - self._seconds)
        self._tokens += weight * (tokens - self._tokens)


class Measured:
    """What is known of one worker: its weight, since when it has that, and the paces measured since."""

    __slots__ = ("decode", "prefill", "since_s", "streak", "weight")

    def __init__(self) -> None:
        self.weight = 1.0
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Forget the paces: they belong to requests from before `now`."""
        self.since_s, self.streak = now, 0
        self.prefill, self.decode = Pace(), Pace()


@dataclass(frozen=True, slots=True)
class Feedback(CountingRouter):
    """argmin of (own requests under way + 1) / weight, the lowest id among equals; the weights follow what is measured.

    prefill pace = average TTFT / average prompt tokens; decode pace = average time after the first token / average
    output tokens after it: exponentially weighted over the requests that were dispatched since the weight last changed
    slowness = geometric mean of the worker's paces / the median of each over the workers
    Ten times in each `dwell_s` the loop looks: when the slowness of a worker was outside 1 / (1 + `margin`) … 1 +
    `margin`, on the same side, for ten looks in a row, its weight is divided by slowness ** `gain` and kept within
    1 / `most` … `most`. Between looks weights drift back to 1: half of a weight's logarithm is gone in `half_life_s`.

    So a weight moves only when a worker was clearly worse or better for a while, and a worker that has recovered gets
    its share back. Requests that were under way when a weight changed say nothing of the change and are not counted:
    acting twice on old news is what makes loops oscillate. The loop sits on top of counted requests because shares
    alone (a weighted round robin) overload a worker of a busy fleet within seconds, long before its TTFT tells. No view
    is read. A worker that gives no token at all is not noticed by its measurements, but keeps its requests and so gets
    no new ones. After a prefill worker the decode is not measured. The numbers were set by hand, on the Mooncake
    conversation trace and generated hours like it.
    """

    name: ClassVar[str] = "feedback"
    smoothing: float = parameter(0.1, "weight of the newest measurement in its average")
    margin: float = parameter(1.0, "how far a worker may be slower or faster than the median before it counts")
    dwell_s: float = parameter(30.0, "seconds that it must stay so before its weight moves")
    gain: float = parameter(0.5, "power of the slowness by which a weight moves at once; 0: weights never move")
    half_life_s: float = parameter(120.0, "seconds in which a weight drifts half of the way back to 1")
    most: float = parameter(4.0, "largest weight, and one over the smallest")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    measured: dict[int, Measured] = field(default_factory=dict, **STATE)
    # request -> [its prefill worker, when it was dispatched, when its first token came]
    _sent: dict[int, list] = field(default_factory=dict, **STATE)
    _looked: list[float] = field(default_factory=lambda: [0.0], **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, margin=self.margin, dwell_s=self.dwell_s, gain=self.gain)
        if not 0 < self.smoothing <= 1:
            raise InputError(f"router feedback: smoothing is {self.smoothing}; give a number above 0, and at most 1")
        if not self.most >= 1:
            raise InputError(f"router feedback: most is {self.most}; give 1 or more")
        if not self.half_life_s > 0:
            raise InputError(f"router feedback: half_life_s is {self.half_life_s}; give a number above 0")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        load, terms = self.own.load, []
        for worker in bits(self._live(views)):
            known = self.measured.get(worker)
            weight = 1.0 if known is None else known.weight
            terms.append((worker, (load[worker] + 1) / weight, weight, load[worker]))
        decision = self.pairing(views, min((score, worker) for worker, score, *_ in terms)[1], now)
        return explained(decision, ("score", "weight", "requests"), terms) if self.explain else decision

    def observe(self, event: Event, now: float) -> None:
        CountingRouter.observe(self, event, now)
        kind = type(event)
        if kind is Dispatched:
            self._sent[event.request.id] = [event.decision.prefill, now, None]
        elif kind is FirstToken:
            self._first_token(event.request, event.worker, now)
        elif kind is Finished:
            self._finished(event.request, event.worker, now)
        elif kind is Rejected:
            self._sent.pop(event.request.id, None)
        elif kind is WorkerLost:
            self.measured.pop(event.worker, None)
            for request in [request for request, sent in self._sent.items() if sent[0] == event.worker]:
                del self._sent[request]

    def _first_token(self, request: Request, worker: int, now: float) -> None:
        sent = self._sent.get(request.id)
        if sent is None:
            return
        sent[2] = now
        known = self.measured.setdefault(worker, Measured())
        if sent[1] >= known.since_s:
            known.prefill.add(now - sent[1], request.prompt_tokens, self.smoothing)
        if now - self._looked[0] >= self.dwell_s / LOOKS:
            self._look(now)

    def _finished(self, request: Request, worker: int, now: float) -> None:
        prefill, dispatched_s, first_s = self._sent.pop(request.id, (None, 0.0, None))
        if worker == prefill and first_s is not None and request.output_tokens > 1:
            known = self.measured[worker]
            if dispatched_s >= known.since_s:
                known.decode.add(now - first_s, request.output_tokens - 1, self.smoothing)

    def _look(self, now: float) -> None:
        """Let the weights drift, and move those of the workers that have been slow or fast for long enough."""
        kept = 0.5 ** ((now - self._looked[0]) / self.half_life_s)
        self._looked[0] = now
        slowness = self.slowness()
        for worker, known in self.measured.items():
            slow, known.weight = slowness.get(worker, 1.0), known.weight**kept
            side = (slow > 1 + self.margin) - (slow < 1 / (1 + self.margin))
            known.streak = known.streak + side if side * known.streak > 0 else side
            if abs(known.streak) >= LOOKS:
                known.weight = min(self.most, max(1 / self.most, known.weight / slow**self.gain))
                known.restart(now)

    def slowness(self) -> dict[int, float]:
        """Worker -> how many times as slow as the median it is, for those with enough measurements."""
        ratios: dict[int, list[float]] = {}
        for part in ("prefill", "decode"):
            paces = {w: getattr(known, part) for w, known in self.measured.items()}
            found = {w: pace.s_per_token for w, pace in paces.items() if pace.count >= ENOUGH}
            middle = median(found.values()) if found else 0.0
            if middle > 0:
                for worker, pace in found.items():
                    ratios.setdefault(worker, []).append(pace / middle)
        return {worker: some[0] if len(some) == 1 else (some[0] * some[1]) ** 0.5 for worker, some in ratios.items()}
