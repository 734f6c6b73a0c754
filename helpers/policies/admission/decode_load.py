"""Early rejection by the load of the decode workers: as it is, or as it will be when the prefill ends."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.forecast import Forecast
from helpers.policies.admission.predicted import late
from helpers.policies.lengths import OutputGuess
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import (
    ACCEPT,
    Decision,
    Dispatched,
    Event,
    Finished,
    FirstToken,
    Rejected,
    Verdict,
    Views,
    WorkerLost,
    WorkerView,
)
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of

MODES = ("late", "current", "predicted")
FULL = Verdict("reject", "decode load over its limit")
FULL_LATER = Verdict("reject", "predicted decode load over its limit")
FULL_AFTER_PREFILL = Verdict("reject", "decode load over its limit after the prefill")


@dataclass(slots=True)
class Decode:
    """A request that decodes, or will: from when, with what prompt and for how many tokens, as far as is believed."""

    begins_s: float
    prompt_tokens: int
    output_tokens: float


@dataclass(frozen=True, slots=True)
class PredictedLoad(Forecast):
    """A request is rejected when the load of its decode worker is over a limit, at a moment that `mode` chooses.

    load = max(TPOT with the request / TPOT bound of its class, KV tokens with its prompt / KV capacity)
    late:      asked when the prefill has ended, so that the work of whoever is rejected is wasted
    current:   asked at the arrival, for the load as it is then
    predicted: asked at the arrival, for the load at `then` = now + predicted TTFT. A request that is known to go
               there counts when begin <= then < begin + guess x pace, with (then - begin) / pace tokens put out;
               one that has outlived its guess when then < now + guess x pace; the pace is the predicted TPOT of now

    "Early rejection" and "early rejection based on prediction" of Mooncake (arXiv 2407.00079, section 7; it
    counts a uniform decode time instead of guesses, and averages over the decode pool). By the current
    load, what is still in the prefill pool is not seen: too much is let in, then nothing, and the loads of
    the pools swing against each other. Mooncake takes who has outlived the guess for gone; where lengths vary
    widely those are the ones that stay, and the decode pool is filled twice over.

    `check_ttft` also rejects what is predicted to miss its TTFT, in all three modes; `check_again` asks
    `late`'s question after the others' prefills too. Both late questions are asked on a split fleet only: a
    mixed worker has no hand-off at which to say no.

    Begins are predicted at the arrival and corrected at the first token, ends by `guess_tokens` (none: the
    true length, which no real policy knows) with a lognormal error, see `OutputGuess`. With several front
    ends each predicts from its own requests only.
    """

    name: ClassVar[str] = "predicted_load"
    hears: ClassVar[frozenset[type]] = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})
    slos: SLOs = field(default_factory=SLO)
    mode: str = parameter("predicted", "late, current or predicted: when the decode load is looked at")
    limit: float = parameter(1.0, "load over which a request is rejected; 1: the SLO, or all of the KV")
    check_ttft: bool = parameter(True, "also reject what is predicted to miss its TTFT")
    check_again: bool = parameter(True, "ask again when the prefill has ended")
    guess_tokens: int | None = parameter(None, "output tokens believed of every request; none: the true length")
    guess_error: float = parameter(0.0, "lognormal error of the guess; 0: none")
    decodes: dict[int, dict[int, Decode]] = field(default_factory=dict, **STATE)  # decode worker -> request id
    _begins: dict[int, float] = field(default_factory=dict, **STATE)  # accepted, not yet dispatched
    _where: dict[int, int] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        Forecast.__post_init__(self)
        if self.mode not in MODES:
            raise InputError(f"admission predicted_load: mode {self.mode!r} is unknown; use one of {', '.join(MODES)}")
        if not self.limit > 0:
            raise InputError(f"admission predicted_load: limit is {self.limit}; give a number above 0")
        OutputGuess(self.guess_tokens, self.guess_error)

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        slo = slo_of(request, self.slos)
        ttft_s = self.ttft_s(request, views, decision)
        if self.check_ttft and slo.ttft_s is not None and ttft_s > slo.ttft_s:
            return late(ttft_s, slo.ttft_s)
        view = views[decision.decode]
        if self.mode == "current" and self.load(request, view, slo) > self.limit:
            return FULL
        if self.mode == "predicted":
            then = self.view_at(view, now, now + ttft_s, self.predictor.tpot_s(request, view))
            if self.load(request, then, slo) > self.limit:
                return FULL_LATER
            self._begins[request.id] = now + ttft_s
        return ACCEPT

    def admit_decode(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        if self.mode != "late" and not self.check_again:
            return ACCEPT
        over = self.load(request, views[decision.decode], slo_of(request, self.slos)) > self.limit
        return FULL_AFTER_PREFILL if over else ACCEPT

    def load(self, request: Request, view: WorkerView, slo: SLO) -> float:
        """How full a decode worker would be with the request: 1 is at its SLO, or out of KV."""
        memory = (view.kv_tokens + request.prompt_tokens) / (view.kv_total_blocks * self.block_tokens)
        pace = 0.0 if slo.tpot_s is None else self.predictor.tpot_s(request, view) / slo.tpot_s
        return max(pace, memory)

    def view_at(self, view: WorkerView, now: float, then: float, pace_s: float) -> WorkerView:
        """The decode worker of a view at a later time, from the requests that are known to go there."""
        running, kv_tokens = 0, 0.0
        for one in self.decodes.get(view.worker, {}).values():
            out = (then - one.begins_s) / pace_s
            guess = one.output_tokens
            outlived = (now - one.begins_s) / pace_s - guess
            if 0 <= out < (guess if outlived < 0 else outlived + 2 * guess):
                running += 1
                kv_tokens += one.prompt_tokens + out
        return view._replace(running=running, kv_tokens=kv_tokens)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            self._dispatched(event.request, event.decision, now)
        elif kind is FirstToken:
            worker = self._where.get(event.request.id)
            if worker is not None:
                self.decodes[worker][event.request.id].begins_s = now
        elif kind is Finished or kind is Rejected:
            self._begins.pop(event.request.id, None)
            self._left(event.request.id)
        else:
            if kind is WorkerLost:
                for request in list(self.decodes.get(event.worker, ())):
                    self._left(request)
            Forecast.observe(self, event, now)

    def _dispatched(self, request: Request, decision: Decision, now: float) -> None:
        if self.mode != "predicted":
            return
        self._left(request.id)
        begins_s = self._begins.pop(request.id, now)
        guess = OutputGuess(self.guess_tokens, self.guess_error).of(request)
        self.decodes.setdefault(decision.decode, {})[request.id] = Decode(begins_s, request.prompt_tokens, guess)
        self._where[request.id] = decision.decode

    def _left(self, request: int) -> None:
        """A request is gone from the worker where it was believed; unknown ones are passed over."""
        worker = self._where.pop(request, None)
        if worker is not None:
            del self.decodes[worker][request]
