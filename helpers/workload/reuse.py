"""Prefix reuse in a workload: what an infinite cache could hit, and how much of it a router controls."""

import math
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass

from helpers.errors import InputError
from helpers.workload.lengths import nearest_rank
from helpers.workload.request import Request, Workload

WORKERS = (2, 4, 8, 16, 32)
POOL_TOKENS = (1_536_000, 5_120_000, 15_360_000)  # 3,000, 10,000 and 30,000 blocks of 512


@dataclass(frozen=True)
class Reuse:
    """Prefix reuse, requests taken in arrival order. Shares lie in [0, 1].

    A block is hit when all blocks before it in the prompt are hit too. `hit_blocks` and
    `hit_tokens` are the bounds of an infinite cache shared by all; tokens count
    min(k * block_tokens, prompt_tokens) for k blocks hit. `common_blocks` is the chain of blocks
    that at least half of the requests begin with, `controllable_blocks` the hits that are not
    repeats of that chain (any warm worker holds it), over all blocks. `round_robin` maps a number
    of workers to the blocks hit when requests take turns over as many infinite caches, `lru` a
    pool size in tokens to the blocks hit in one pool that evicts the least recently used block,
    the tail of a prompt before its head. `reuse_interval_*` is the time since the last use of a
    block hit. `uncached_tokens_*` is what is left to prefill after an infinite cache.
    `unchained_blocks` counts ids seen after two different predecessors: 0 in a sound trace.
    """

    block_tokens: int
    block_references: int
    unique_blocks: int
    root_share: float
    distinct_roots: int
    common_blocks: int
    partial_last_share: float
    hit_blocks: float
    hit_tokens: float
    controllable_blocks: float
    reusing_share: float
    uncached_tokens_p50: float
    uncached_tokens_p90: float
    uncached_tokens_mean: float
    reuse_interval_p50_s: float | None
    reuse_interval_p90_s: float | None
    round_robin: tuple[tuple[int, float], ...]
    lru: tuple[tuple[int, float], ...]
    unchained_blocks: int

    @property
    def distinct_kv_tokens(self) -> int:
        """Tokens of KV cache that would hold every block once, partial blocks counted as full."""
        return self.unique_blocks * self.block_tokens


def describe_reuse(
    workload: Workload, workers: tuple[int, ...] = WORKERS, pool_tokens: tuple[int, ...] = POOL_TOKENS
) -> Reuse | None:
    """Prefix reuse of a workload, or None when its requests carry no blocks; `InputError` when only some do."""
    requests = [r for r in workload if r.prefix_blocks]
    if not requests:
        return None
    if len(requests) < len(workload):
        raise InputError(
            f"workload {workload.name}: {len(workload) - len(requests)} of {len(workload)} requests carry no "
            "prefix blocks; give blocks to all or to none"
        )
    size = workload.block_tokens
    references = sum(len(r.prefix_blocks) for r in requests)
    matched, intervals = infinite_cache(requests)
    cached = [min(k * size, r.prompt_tokens) for k, r in zip(matched, requests, strict=True)]
    uncached = sorted(r.prompt_tokens - c for r, c in zip(requests, cached, strict=True))
    intervals.sort()
    roots = Counter(r.prefix_blocks[0] for r in requests)
    common = _common_chain(requests)
    common_hits = sum(min(k, _shared(r.prefix_blocks, common)) for k, r in zip(matched, requests, strict=True))
    return Reuse(
        block_tokens=size,
        block_references=references,
        unique_blocks=len({b for r in requests for b in r.prefix_blocks}),
        root_share=max(roots.values()) / len(requests),
        distinct_roots=len(roots),
        common_blocks=len(common),
        partial_last_share=sum(1 for r in requests if r.prompt_tokens % size) / len(requests),
        hit_blocks=sum(matched) / references,
        hit_tokens=sum(cached) / sum(r.prompt_tokens for r in requests),
        controllable_blocks=(sum(matched) - common_hits) / references,
        reusing_share=sum(1 for k in matched if k > len(common)) / len(requests),
        uncached_tokens_p50=nearest_rank(uncached, 0.5),
        uncached_tokens_p90=nearest_rank(uncached, 0.9),
        uncached_tokens_mean=math.fsum(uncached) / len(uncached),
        reuse_interval_p50_s=nearest_rank(intervals, 0.5) if intervals else None,
        reuse_interval_p90_s=nearest_rank(intervals, 0.9) if intervals else None,
        round_robin=tuple((n, round_robin_hit(requests, n)) for n in workers),
        lru=tuple((pool, lru_hit(requests, max(1, pool // size))) for pool in pool_tokens),
        unchained_blocks=_unchained(requests),
    )


def infinite_cache(requests: Iterable[Request]) -> tuple[list[int], list[float]]:
    """Leading blocks already seen, per request, and the seconds since the last use of each of those blocks."""
    last_use: dict[int, float] = {}
    matched, intervals = [], []
    for r in requests:
        k = 0
        for block in r.prefix_blocks:
            if block not in last_use:
                break
            intervals.append(r.arrival_s - last_use[block])
            k += 1
        matched.append(k)
        last_use.update(dict.fromkeys(r.prefix_blocks, r.arrival_s))
    return matched, intervals


def round_robin_hit(requests: Iterable[Request], workers: int) -> float:
    """Share of blocks hit when request i goes to worker i mod `workers`, each with an infinite cache."""
    caches: list[set[int]] = [set() for _ in range(workers)]
    hits = references = 0
    for i, r in enumerate(requests):
        cache = caches[i % workers]
        hits += _leading(r.prefix_blocks, cache)
        references += len(r.prefix_blocks)
        cache.update(r.prefix_blocks)
    return hits / references


def lru_hit(requests: Iterable[Request], capacity_blocks: int) -> float:
    """Share of blocks hit in one pool of `capacity_blocks` under least-recently-used eviction."""
    pool: OrderedDict[int, None] = OrderedDict()  # in order of age
    hits = references = 0
    for r in requests:
        blocks = r.prefix_blocks
        hits += _leading(blocks, pool)
        references += len(blocks)
        for block in reversed(blocks):
            pool[block] = None
            pool.move_to_end(block)
        while len(pool) > capacity_blocks:
            pool.popitem(last=False)
    return hits / references


def _leading(blocks: tuple[int, ...], cache: Container[int]) -> int:
    k = 0
    for block in blocks:
        if block not in cache:
            break
        k += 1
    return k


def _common_chain(requests: list[Request]) -> tuple[int, ...]:
    """The longest chain of blocks that at least half of the requests (and two) begin with."""
    chain: list[int] = []
    within = requests
    while True:
        depth = len(chain)
        counts = Counter(r.prefix_blocks[depth] for r in within if len(r.prefix_blocks) > depth)
        block, times = counts.most_common(1)[0] if counts else (0, 0)
        if times < max(2, len(requests) / 2):
            return tuple(chain)
        chain.append(block)
        within = [r for r in within if len(r.prefix_blocks) > depth and r.prefix_blocks[depth] == block]


def _shared(blocks: tuple[int, ...], chain: tuple[int, ...]) -> int:
    k = 0
    for a, b in zip(blocks, chain, strict=False):
        if a != b:
            break
        k += 1
    return k


def _unchained(requests: list[Request]) -> int:
    """Block ids that follow two different predecessors (None before the first): not hashes of a whole prefix."""
    before: dict[int, int | None] = {}
    broken = set()
    for r in requests:
        previous = None
        for block in r.prefix_blocks:
            if before.setdefault(block, previous) != previous:
                broken.add(block)
            previous = block
    return len(broken)
