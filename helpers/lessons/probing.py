"""What a function of `(request, worker)` looks at, found by asking it about workers that differ in one thing."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace

from helpers.lessons.verdict import NOT_YET, Unanswered, answer
from helpers.policies.known import WorkerFacts
from helpers.workload.request import Request

QUESTION = Request(7, 40.0, 6000, 200, tuple(range(1, 13)), slo_class="question")
SUMMARY = Request(8, 41.0, 30000, 300, (), slo_class="summary")
IDLE = WorkerFacts(1, "mixed", 0.6, 0, 0, 0, 0, 0, 900, 0, 0, 0)
# A worker with some load; others are asked about with multiples of it.
LOADED = IDLE._replace(
    running=4, waiting=1, waiting_tokens=5000, kv_tokens=30_000, kv_used_blocks=60, sent_tokens=5000, sent_requests=5
)
TIMES = (0, 1, 2, 3, 4, 6, 8, 12)
CACHED = (0, 512, 4096)  # of the question's prompt
PROMPTS = (5000, 15_000, 30_000, 60_000, 120_000)
REPORTED = ("running", "waiting", "waiting_tokens", "kv_tokens", "kv_used_blocks")
SENT = ("sent_tokens", "sent_requests")
LOADS = (*REPORTED, *SENT)

Asked = Callable[[Request, WorkerFacts], object]
Pair = tuple[Request, WorkerFacts]


def pairs() -> list[Pair]:
    """Requests and workers to ask about: each class, on workers from idle to full, with and without a cached prefix."""
    workers = [IDLE._replace(**{name: times * getattr(LOADED, name) for name in LOADS}) for times in TIMES]
    questions = [(QUESTION, one._replace(cached_tokens=cached)) for one in workers for cached in CACHED]
    return questions + [(SUMMARY, one) for one in workers]


def answered(function: Asked) -> bool:
    """Whether it gives anything but NOT_YET, and stops for none of the `pairs`."""
    try:
        return all(function(*pair) is not NOT_YET for pair in pairs())
    except Exception:  # its check says what it was
        return False


def unfit(function: Asked, kinds: type | tuple[type, ...], wanted: str) -> str | None:
    """Why an answer cannot be used as a policy, as a hint: it stops, no value of its kind, another one each time, an
    oracle. `wanted` are the words for the `kinds`. Raises `Unanswered` for NOT_YET.
    """
    for pair in pairs():
        try:
            value = answer(function(*pair))
        except Unanswered:
            raise
        except Exception as error:
            return _unknown_name(error) or f"{_case(*pair)} it stops with {type(error).__name__}: {error}"
        if not isinstance(value, kinds) or value != value:
            return f"{_case(*pair)} it gives {value!r}; return {wanted}, always"
    found = [[function(*pair) for pair in pairs()] for _ in range(2)]
    longer = [function(replace(r, output_tokens=9 * r.output_tokens), w) for r, w in pairs()]
    if found[0] != found[1]:
        return "asked twice the same, it gives two answers: no chance, no clock, nothing remembered between calls"
    if longer != found[0]:
        return "it looks at output_tokens: how long an answer gets is known when it has ended, and to an oracle"
    return None


def _case(request: Request, worker: WorkerFacts) -> str:
    load = "an idle worker" if not worker.sent_requests else f"a worker with {worker.sent_requests} requests"
    return f"for a {request.slo_class} on {load}"


def _unknown_name(error: Exception) -> str | None:
    """The hint for a fact that a worker or a request does not have."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, WorkerFacts | Request):
        return None
    kind = "worker" if isinstance(error.obj, WorkerFacts) else "request"
    known = WorkerFacts._fields if kind == "worker" else [one.name for one in fields(Request)]
    return f"a {kind} has no {error.name!r}, nobody knows it; it has {', '.join(known)}"


def looked_at(function: Asked) -> set[str]:
    """Which facts matter to it, the request's among them: changing one of them alone changes an answer somewhere."""
    found = set()
    for request, worker in pairs():
        before = function(request, worker)
        others = [(name, request, worker._replace(**{name: value})) for name, value in _worker_facts(request)]
        others += [(name, replace(request, **{name: value}), worker) for name, value in _request_facts(request)]
        found |= {name for name, asked, of in others if name not in found and function(asked, of) != before}
    return found


def likes(score: Callable[[Request, WorkerFacts], float], names: Iterable[str]) -> bool:
    """Whether more of any of these facts, all else equal, raises a score somewhere and never lowers it."""
    changes = set()
    for request, worker in pairs():
        for name in names:
            few, *_, many = [value for which, value in _worker_facts(request) if which == name] or (0, 0)
            changes.add(_sign(score, request, worker._replace(**{name: few}), worker._replace(**{name: many})))
    return 1 in changes and -1 not in changes


def _sign(score: Callable, request: Request, few: WorkerFacts, many: WorkerFacts) -> int:
    before, after = score(request, few), score(request, many)
    return (after > before) - (after < before)


def _worker_facts(request: Request) -> list[tuple[str, int]]:
    """Facts of a worker with the values that they may have, each in ascending order."""
    loads = [(name, times * getattr(LOADED, name)) for name in LOADS for times in TIMES]
    return loads + [("cached_tokens", cached) for cached in CACHED if request.prefix_blocks]


def _request_facts(request: Request) -> list[tuple[str, object]]:
    other = SUMMARY if request.slo_class == QUESTION.slo_class else QUESTION
    prompts = [("prompt_tokens", tokens) for tokens in PROMPTS]
    return [*prompts, ("slo_class", other.slo_class), ("prefix_blocks", (901, 902, 903))]
