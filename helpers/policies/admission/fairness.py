"""Fairness between tenants: who has been served least is served next."""

from dataclasses import dataclass, field
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.backlog import PromptGate
from helpers.policies.lengths import OutputGuess
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import Arrived, Dispatched, Event, Finished, Rejected
from helpers.workload.request import Request


@dataclass(frozen=True, slots=True)
class Fair(PromptGate):
    """The virtual token counter: of the tenants with requests waiting, the one with the least counter has its turn.

    at the dispatch: counter += input_weight x prompt + output_weight x guess
    at the end:      counter += output_weight x (output - guess)
    at an arrival of a tenant who has nothing waiting:
                     counter = max(counter, the least counter of those who have; if nobody has, that of the
                     tenant who was dispatched last)

    Sheng et al., "Fairness in Serving Large Language Models", OSDI'24, Algorithm 2, with its weights 1 and 2.
    The lift keeps a tenant who was away from coming back with a credit that shuts out the others. There the
    scheduler charges output tokens as they come out; a front end is told of the end, so with `guess_tokens`
    0 all of the output is charged there, and with a guess (none: the true length) in advance, as in the
    paper's variant with length prediction. Requests are held while all prefill workers have more than
    `prompt_steps` budgets of prompt tokens in flight: what has been sent cannot be reordered, so the less
    is sent ahead the fairer, and the likelier a worker idles. With several front ends each is fair to the
    tenants it sees. Priorities are not looked at.
    """

    name: ClassVar[str] = "fair"
    hears: ClassVar[frozenset[type]] = PromptGate.hears | {Arrived}
    prompt_steps: float = parameter(2.0, "prompt tokens of a busy worker, in token budgets of a step")
    input_weight: float = parameter(1.0, "charge of a prompt token")
    output_weight: float = parameter(2.0, "charge of an output token")
    guess_tokens: int | None = parameter(0, "output tokens charged at the dispatch; none: the true length")
    guess_error: float = parameter(0.0, "lognormal error of the guess; 0: none")
    counters: dict[str, float] = field(default_factory=dict, **STATE)
    _waiting: dict[str, set[int]] = field(default_factory=dict, **STATE)  # tenant -> requests not yet dispatched
    _charged: dict[int, float] = field(default_factory=dict, **STATE)  # request -> output tokens charged for
    _last: list[str] = field(default_factory=list, **STATE)  # the tenant dispatched last

    def __post_init__(self) -> None:
        for name in ("prompt_steps", "input_weight", "output_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"admission fair: {name} is {getattr(self, name)}; give a number of 0 or more")
        OutputGuess(self.guess_tokens, self.guess_error)

    @property
    def limit_tokens(self) -> float:
        """The prompt tokens over which a worker is busy."""
        return self.prompt_steps * self.token_budget

    def lane(self, request: Request) -> str:
        """Requests of one tenant wait in one lane, in order of arrival."""
        return request.tenant

    def lane_rank(self, lane: str, now: float) -> float:
        """Who has been served least has the turn."""
        return self.counters[lane]

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Arrived:
            self._arrived(event.request)
        elif kind is Dispatched:
            self._dispatched(event.request)
        elif kind is Finished or kind is Rejected:
            self._left(event.request, event.request.output_tokens if kind is Finished else 0)
        if kind is not Arrived:
            PromptGate.observe(self, event, now)

    def _arrived(self, request: Request) -> None:
        tenant, counters = request.tenant, self.counters
        counters.setdefault(tenant, 0.0)
        if tenant not in self._waiting:
            others = self._waiting or self._last
            counters[tenant] = max(counters[tenant], min((counters[other] for other in others), default=0.0))
        self._waiting.setdefault(tenant, set()).add(request.id)

    def _dispatched(self, request: Request) -> None:
        if not self._leave_line(request):
            return  # sent a second time, since its worker was lost: charged already
        self._last[:] = [request.tenant]
        guess = self._charged[request.id] = OutputGuess(self.guess_tokens, self.guess_error).of(request)
        charge = self.input_weight * request.prompt_tokens + self.output_weight * guess
        self.counters[request.tenant] += charge

    def _left(self, request: Request, output_tokens: int) -> None:
        if not self._leave_line(request):
            charged = self._charged.pop(request.id, output_tokens)
            self.counters[request.tenant] += self.output_weight * (output_tokens - charged)

    def _leave_line(self, request: Request) -> bool:
        """Whether the request was waiting; it does no longer."""
        waiting = self._waiting.get(request.tenant, set())
        if request.id not in waiting:
            return False
        waiting.remove(request.id)
        if not waiting:
            del self._waiting[request.tenant]
        return True
