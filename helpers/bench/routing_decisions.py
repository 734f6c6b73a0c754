"""How many routing decisions a second a router makes, the upkeep of what it knows included.

The workload is recorded first, untimed: a router decides, and a stand-in for the workers'
prefix caches answers each decision with the events that a backend would send. The timed pass
gives the same requests and events to a fresh router, and must come to the same decisions.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from time import perf_counter

from helpers.errors import InputError
from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Event, Finished, FirstToken, KVEvicted, KVStored, Router, Views
from helpers.workload.request import Request


@dataclass(frozen=True)
class DecisionRate:
    """One timed pass: `decisions` requests routed and `events` observed in `wall_s` seconds.

    `blocks_mean` is the mean prompt in blocks and `reused_share` the share of block references
    that an earlier prompt of the workload has, block 0 included: what the rate depends on.
    """

    router: str
    workers: int
    decisions: int
    events: int
    wall_s: float
    blocks_mean: float
    reused_share: float

    @property
    def per_s(self) -> float:
        """Decisions per second."""
        return self.decisions / self.wall_s


def conversation_like(count: int, seed: int = 0, block_tokens: int = 512) -> list[Request]:
    """`count` prompts in the manner of the Mooncake conversation hour: all share block 0.

    About 24 blocks a prompt (up to 247), a good third of them seen before: a third of the prompts
    go on from an earlier one, the rest are new after block 0.
    """
    rng = Random(seed)
    earlier: deque[tuple[int, ...]] = deque(maxlen=1000)
    requests, fresh = [], 1
    for number in range(count):
        follows = bool(earlier) and rng.random() < 0.35
        chain = rng.choice(earlier) if follows else (0,)
        new = min(1 + int(rng.lognormvariate(2.2, 1.05)), 247 - len(chain))
        chain = (*chain, *range(fresh, fresh + new)) if new > 0 else chain
        fresh += max(new, 0)
        earlier.append(chain)
        tokens = len(chain) * block_tokens - rng.randrange(block_tokens)
        requests.append(Request(number, number / 100, tokens, 100, chain))
    return requests


class CacheStandIn:
    """The prefix caches of all workers, least recently used out first: what KV events come from."""

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self._held: dict[int, OrderedDict[int, None]] = {}

    def use(self, worker: int, blocks: Sequence[int]) -> Iterator[Event]:
        """The events of a prompt of `blocks` that `worker` has computed."""
        held = self._held.setdefault(worker, OrderedDict())
        stored = tuple(block for block in blocks if block not in held)
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        if stored:
            yield KVStored(worker, stored)
        if len(held) > self.capacity_blocks:
            over = len(held) - self.capacity_blocks
            yield KVEvicted(worker, tuple(held.popitem(last=False)[0] for _ in range(over)))


def record(
    fresh: Router, requests: Sequence[Request], views: Views, seed: int, capacity_blocks: int
) -> tuple[list[Decision], list[tuple[Event, ...]]]:
    """The decisions of `fresh` on `requests`, and the events it observes after each of them.

    First tokens come one fleet of requests later, ends eight fleets later: about eight requests
    run on each worker. Only event classes that the router observes are kept.
    """
    rng, caches, workers = Random(seed), CacheStandIn(capacity_blocks), len(views.prefill)
    prefilling: deque[tuple[Request, Decision]] = deque()
    running: deque[tuple[Request, Decision]] = deque()
    decisions, log = [], []
    for request in requests:
        decision = fresh.route(request, views, request.arrival_s, rng)
        events: list[Event] = [Dispatched(request, decision)]
        prefilling.append((request, decision))
        if len(prefilling) > workers:
            done, where = prefilling.popleft()
            events += [FirstToken(done, where.prefill), *caches.use(where.prefill, done.prefix_blocks)]
            running.append((done, where))
        if len(running) > 8 * workers:
            done, where = running.popleft()
            events.append(Finished(done, where.decode))
        told = tuple(event for event in events if type(event) in fresh.observes)
        for event in told:
            fresh.observe(event, request.arrival_s)
        decisions.append(decision)
        log.append(told)
    return decisions, log


def decisions_per_second(
    name: str = "prefix_exact",
    workers: int = 64,
    requests: Sequence[Request] | None = None,
    *,
    seed: int = 0,
    capacity_blocks: int = 1000,
    make: Callable[..., Router] = router,
    **parameters: object,
) -> DecisionRate:
    """Time a router on `requests` (20,000 `conversation_like` ones when not given).

    The time is that of `route` and `observe` alone; making views and events is the backend's
    work. Raises `InputError` for bad arguments, `RuntimeError` when the timed pass decides
    otherwise than the recorded one (the router would not be deterministic).
    """
    requests = conversation_like(20_000, seed) if requests is None else requests
    if not requests:
        raise InputError("there are no requests to route; give at least one")
    views = Snapshot(view(worker, kv_total_blocks=capacity_blocks) for worker in range(workers))
    recorded, log = record(make(name, workers, **parameters), requests, views, seed, capacity_blocks)
    timed, rng, decisions = make(name, workers, **parameters), Random(seed), []
    start = perf_counter()
    for request, events in zip(requests, log, strict=True):
        now = request.arrival_s
        decisions.append(timed.route(request, views, now, rng))
        for event in events:
            timed.observe(event, now)
    wall_s = perf_counter() - start
    if decisions != recorded:
        raise RuntimeError(f"router {name}: a second pass over the same requests and events decided otherwise")
    references = [block for request in requests for block in request.prefix_blocks]
    return DecisionRate(
        router=name,
        workers=workers,
        decisions=len(requests),
        events=sum(map(len, log)),
        wall_s=wall_s,
        blocks_mean=len(references) / len(requests),
        reused_share=1 - len(set(references)) / len(references) if references else 0.0,
    )
