"""Live runs on one device: every mover between two roles that share it, and one engine with chunks, at several rates.

Nothing of this speaks of two devices: what a role computes, the other one waits for.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from random import Random
from time import perf_counter

from helpers.bench.disagg.figures import hand_offs, latencies
from helpers.bench.disagg.live import BLOCK_TOKENS, DRAIN_S, RUNGS, TOGETHER, Setup, held_against, one_by_one
from helpers.bench.disagg.one_device import OneDeviceCrew, SharedRun, Size
from helpers.bench.engine.report import point
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.workload.request import Workload

FIRST_SEED, FIRST_S = 1000, 0.5  # of the requests with which everything is used for the first time


@dataclass(frozen=True)
class Sharing:
    """At which rates, for how many seconds of arrivals, and with how much KV for each role (an engine alone: twice)."""

    rates_per_s: tuple[float, ...]
    span_s: float
    kv_gib: float


SHARING = {"cuda": Sharing((4.0, 10.0), 3.0, 6.0), "cpu": Sharing((2.0, 4.0), 2.0, 0.06)}


def arms_of(setup: Setup) -> dict[str, int]:
    """Name and chunk of each arm: the roles with every mover, and one engine with their chunks and smaller ones."""
    small = setup.chunk_tokens // 4
    alone = {TOGETHER: setup.chunk_tokens, f"{TOGETHER}, chunks of {small}": small}
    return {**dict.fromkeys(RUNGS, setup.chunk_tokens), **alone}


def shared(setup: Setup, seeds: int, budget_s: float, sharing: Sharing | None = None) -> Iterator[dict]:
    """A point a run: every arm on the draws of every rate and seed, in random order, while there is time.

    What two roles hand over is held against one engine first: pages by digest, and tokens.
    """
    sharing = sharing or SHARING[setup.device]
    until_s, longest_s = perf_counter() + budget_s, 0.0
    setup = replace(setup, kv_gib=sharing.kv_gib, span_s=sharing.span_s)
    size = Size(setup.model, setup.device, BLOCK_TOKENS, setup.chunk_tokens, setup.max_batch, setup.kv_gib)
    arms = arms_of(setup)
    with closing(OneDeviceCrew(size)) as crew:
        for arm in arms:
            yield from _tried(setup, crew, arm, setup.draw(FIRST_SEED, FIRST_S), f"{arm}: first use")
        yield point("engines made", crew.startup_s, "s")
        yield from exact(setup, crew)
        for seed in range(seeds):
            for rate in sharing.rates_per_s:
                drawn = replace(setup, rate_per_s=rate).draw(seed)
                for arm in Random(f"sharing/{seed}/{rate}").sample(sorted(arms), len(arms)):
                    start_s = perf_counter()
                    if start_s + longest_s > until_s:
                        return
                    yield from _tried(setup, crew, arm, drawn, f"{arm} at {rate:g}/s, seed {seed}", rate)
                    longest_s = max(longest_s, perf_counter() - start_s)


def exact(setup: Setup, crew: OneDeviceCrew) -> Iterator[dict]:
    """The same few requests, one after another, by one engine and by two roles."""
    asked = one_by_one(setup)
    limit_s = asked.requests[-1].arrival_s + DRAIN_S
    alone = crew.together(Experiment(asked), limit_s)
    yield from held_against(alone.tokens, lambda arm, **told: crew.split(arm, asked, limit_s, **told))


def run_of(setup: Setup, crew: OneDeviceCrew, arm: str, workload: Workload) -> SharedRun:
    """Serve a workload in the way of an arm. Raises `InputError` when requests did not get through."""
    limit_s = workload.requests[-1].arrival_s + DRAIN_S
    if arm.startswith(TOGETHER):
        run = crew.together(Experiment(workload), limit_s, arms_of(setup)[arm])
    else:
        run = crew.split(arm, workload, limit_s, link_bytes_per_s=setup.link_bytes_per_s)
    finished = sum(t.status == "finished" for t in run.log.timelines)
    if finished < len(workload):
        raise InputError(f"{arm}: {len(workload) - finished} of {len(workload)} requests did not finish")
    return run


def figures_of(run: SharedRun) -> dict[str, float]:
    """What a run comes to; what there is not on one device, or not without hand-offs, is not there."""
    moved = None if run.moved_bytes is None else run.moved_bytes / 1e9
    found = {**latencies(run.log), **hand_offs(run.log), "moved_gb": moved}
    return {name: value for name, value in found.items() if value is not None}


def _tried(
    setup: Setup, crew: OneDeviceCrew, arm: str, workload: Workload, name: str, rate: float | None = None
) -> Iterator[dict]:
    """A point with what a run came to, or with what went wrong; `arm` in it is the arm at its rate."""
    told = {"arm": arm if rate is None else f"{arm} at {rate:g}/s", "requests": len(workload)}
    try:
        run = run_of(setup, crew, arm, workload)
    except Exception as error:  # the other arms are worth having all the same
        yield point(name, inf, "s", failed=f"{type(error).__name__}: {error}"[:300], **told)
        return
    found = figures_of(run)
    yield point(name, found["ttft_mean_s"], "s", run=found, sha256=workload.sha256, **told)
