"""One request before four workers: what each system's router makes of the very same moment.

The moment is made by events, as a live fleet would send them, and the views agree with them. So every router knows
what it would know in production: some count their own dispatches, some hear of caches, some read the workers' reports.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from helpers.policies import registry
from helpers.policies.facts import Facts
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Event, Finished, FirstToken, KVStored, Router, WorkerView
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request

BLOCK_TOKENS = 512
NOW_S = 60.0
# The request: 8,192 tokens in 16 blocks. Block 0 is the system prompt that everybody's prompt opens with.
PROMPT = tuple(range(16))


@dataclass(frozen=True)
class Moment:
    """What a worker holds of the prompt (leading blocks), what runs there, and which prompts wait, in tokens."""

    cached_blocks: int
    running: tuple[int, ...]
    waiting: tuple[int, ...]


# Worker 0 has the conversation and a line; 1 an older turn of it; 2 runs two short ones; 3 has one long prompt waiting.
MOMENTS = (
    Moment(14, (2048, 3072, 2048, 4096, 3072), (6144, 4096)),
    Moment(8, (2048, 4096, 3072), ()),
    Moment(1, (2048, 2048), ()),
    Moment(1, (), (30_720,)),
)

# How each system decides, and the term of its explanation that it decides by.
RULES = {
    "dynamo": ("cost", "least", "prefill to compute + KV to hold, blocks"),
    "dynamo_lmetric": ("cost", "least", "prefill x (KV + 1)"),
    "sglang_cache_aware": ("matched_share", "most", "share matched, unless 65 requests apart"),
    "llm_d": ("score", "most", "2 prefix + KV + queue"),
    "aibrix": ("match_percent", "most", "match in %, if requests <= mean + 1 sigma"),
    "production_stack": ("score", "most", "share matched - relative load"),
    "vllm_dp": ("score", "least", "4 waiting + running"),
    "mooncake": ("ttft_s", "least", "copy + queue + prefill, s"),
    "predicted_ttft": ("ttft_s", "least", "queue + prefill beside decodes, s"),
}


@dataclass(frozen=True)
class Choice:
    """What one system says: the term it decides by (least or most) on each worker, whom it takes, and a copy if any."""

    router: str
    rule: str
    scores: dict[int, float]
    chosen: int
    kv_source: int | None


def request() -> Request:
    """The request to be placed."""
    return Request(1000, NOW_S, len(PROMPT) * BLOCK_TOKENS, 200, PROMPT)


def choices(fleet: Fleet | None = None, moments: Sequence[Moment] = MOMENTS) -> list[Choice]:
    """Each system of `RULES` before the same moment on a fleet of as many workers as there are `moments`."""
    fleet = fleet or Fleet(workers=len(moments))
    blocks = fleet.kv_blocks(BLOCK_TOKENS)
    facts = Facts(len(moments), BLOCK_TOKENS, fleet.chunk_tokens, blocks, fleet.predictor())
    views = Snapshot(views_of(moments, blocks))
    return [choice(name, registry.make("router", name, facts, explain=True), views, moments) for name in RULES]


def choice(name: str, router: Router, views: Snapshot, moments: Sequence[Moment]) -> Choice:
    """A router told of the events before the moment, and what it then does with the request."""
    router.route(_warming(0, 1), views, 0.0, Random(0))  # a router learns who is there when it routes
    for event in events(moments):
        if type(event) in router.observes:
            router.observe(event, NOW_S)
    decision = router.route(request(), views, NOW_S, Random(0))
    term, which, rule = RULES[name]
    scores = {worker: value for worker, one, value in decision.scores if one == term}
    return Choice(name, f"{which}: {rule}", scores, decision.prefill, decision.kv_source)


def events(moments: Sequence[Moment]) -> Iterable[Event]:
    """Earlier turns that filled the caches and ended, then the requests that run or wait now."""
    number = 1
    for worker, moment in enumerate(moments):
        earlier, here = _warming(number, moment.cached_blocks), Decision(worker, worker)
        yield Dispatched(earlier, here)
        yield KVStored(worker, earlier.prefix_blocks)
        yield FirstToken(earlier, worker)
        yield Finished(earlier, worker)
        number += 1
        for tokens, runs in (*((t, True) for t in moment.running), *((t, False) for t in moment.waiting)):
            other = Request(number, 0.0, tokens, 200, _others(number, tokens))
            yield Dispatched(other, here)
            if runs:
                yield FirstToken(other, worker)
            number += 1


def views_of(moments: Sequence[Moment], blocks: int) -> list[WorkerView]:
    """The workers' own reports of the same moment, with `blocks` KV blocks each."""
    return [
        view(
            worker,
            running=len(one.running),
            waiting=len(one.waiting),
            waiting_tokens=sum(one.waiting),
            kv_tokens=sum(one.running),
            kv_used_blocks=sum(one.running) // BLOCK_TOKENS,
            kv_total_blocks=blocks,
        )
        for worker, one in enumerate(moments)
    ]


def _warming(number: int, blocks: int) -> Request:
    """An earlier turn of the same conversation, `blocks` blocks long."""
    return Request(number, 0.0, blocks * BLOCK_TOKENS, 200, PROMPT[:blocks])


def _others(number: int, tokens: int) -> tuple[int, ...]:
    """The blocks of somebody else's prompt: the system prompt, then their own."""
    return (PROMPT[0], *(10_000 * number + i for i in range(1, tokens // BLOCK_TOKENS)))
