"""Live runs of two workers: the same draws handed over in different ways, or served together.

Each rung of the ladder differs from the one before in one thing; the rival does without hand-offs: both workers take
whole requests, with prefills cut into chunks beside the decodes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from random import Random
from time import perf_counter
from typing import Protocol

from helpers.bench.disagg.figures import hand_offs, latencies, legs
from helpers.bench.engine.report import point
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, serve
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Request, Workload

# The ladder, one change a rung: no wait for each request, no wait at all, layer by layer, all requests of a step.
RUNGS = ("synced", "blocking", "asynchronous", "layerwise", "slabs")
TOGETHER = "together"
SPLIT, BLOCK_TOKENS = "1P1D", 64
DRAIN_S = 15.0
EXACT = 4  # requests, far apart
LEAST_EQUAL = (
    0.75  # of their answers: where steps are launched otherwise, bfloat16 rounds otherwise, and a near tie turns
)


@dataclass(frozen=True)
class Setup:
    """What two workers are, and the traffic that they get; prompts are cut to `most_prompt` tokens."""

    model: str
    device: str
    chunk_tokens: int
    max_batch: int
    kv_gib: float
    stage_mib: float
    prompt_tokens: str
    output_tokens: str
    most_prompt: int
    rate_per_s: float
    span_s: float
    hang_s: float = 20.0  # what is compiled at its first use takes its time
    link_bytes_per_s: float = 0.0

    def spec(self, chunk_tokens: int | None = None):
        """As the cluster wants it."""
        from helpers.cluster.workers import WorkersSpec

        return WorkersSpec(
            2, self.model, self.device, None, BLOCK_TOKENS, chunk_tokens or self.chunk_tokens, self.max_batch,
            self.kv_gib, self.stage_mib,
        )  # fmt: skip

    def draw(self, seed: int, span_s: float | None = None) -> Workload:
        """The requests of a seed."""
        made = generate(
            "poisson", rate_per_s=self.rate_per_s, requests=max(4, round(self.rate_per_s * (span_s or self.span_s))),
            seed=seed, block_tokens=BLOCK_TOKENS, prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens,
            exact_rate=True,
        )  # fmt: skip
        cut = tuple(replace(r, prompt_tokens=min(r.prompt_tokens, self.most_prompt)) for r in made)
        return replace(made, requests=cut, repairs=(*made.repairs, f"prompts cut to {self.most_prompt} tokens"))


SETUPS = {
    "cuda": Setup(
        "llama-8b", "cuda", chunk_tokens=2048, max_batch=64, kv_gib=36.0, stage_mib=256.0,
        prompt_tokens="lognormal:1500:0.6", output_tokens="lognormal:100:0.5", most_prompt=6000,
        rate_per_s=10.0, span_s=6.0, hang_s=90.0,
    ),
    "cpu": Setup(
        "tiny", "cpu", chunk_tokens=256, max_batch=16, kv_gib=0.06, stage_mib=16.0,
        prompt_tokens="lognormal:300:0.5", output_tokens="lognormal:16:0.4", most_prompt=800,
        rate_per_s=6.0, span_s=2.0, link_bytes_per_s=50e6,
    ),
}  # fmt: skip


def fleet_of(setup: Setup, arm: str, chunk_tokens: int | None = None) -> Fleet:
    """The fleet of an arm."""
    split = None if arm == TOGETHER else SPLIT
    chunk = chunk_tokens or setup.chunk_tokens
    return Fleet(workers=2, split=split, chunk_tokens=chunk, max_batch=setup.max_batch, kv_gib=setup.kv_gib)


def run_of(setup: Setup, crew, arm: str, workload: Workload, fleet: Fleet | None = None, **told: object) -> ClusterRun:
    """Serve a workload in the way of an arm. Raises `InputError` when requests did not get through."""
    fleet = fleet or fleet_of(setup, arm, crew.spec.token_budget)
    limit_s = workload.requests[-1].arrival_s + DRAIN_S
    options = ClusterOptions(
        model=setup.model, device=setup.device, mover="" if arm == TOGETHER else arm, workers=crew, limit_s=limit_s,
        hang_s=setup.hang_s,
        **{"link_bytes_per_s": setup.link_bytes_per_s, **told},
    )  # fmt: skip
    run = serve(Experiment(workload, fleet, "least_tokens"), crew, workload, options)
    finished = sum(t.status == "finished" for t in run.timelines)
    if finished < len(workload):  # who was never sent has no timeline
        why = next((t.reason for t in run.timelines if t.status != "finished"), "they were not sent in time")
        raise InputError(f"{arm}: {len(workload) - finished} of {len(workload)} requests did not finish ({why})")
    return run


class Checked(Protocol):
    """A run whose pages were compared: `checked` of them, of which `wrong` ones differed."""

    tokens: dict[int, list[int]]
    checked: int
    wrong: int


class Crew:
    """Two running workers, started again when one was lost."""

    def __init__(self, setup: Setup, chunk_tokens: int | None = None) -> None:
        self._spec, self._workers = setup.spec(chunk_tokens), None
        self.startup_s = 0.0

    def __call__(self):
        """The workers."""
        from helpers.cluster.workers import Workers

        if self._workers is None or not self._workers.whole:
            self.close()
            self._workers = Workers(self._spec)
            self.startup_s = self._workers.startup_s
        return self._workers

    def close(self) -> None:
        """End them."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None


@contextmanager
def crew_of(setup: Setup, chunk_tokens: int | None = None) -> Iterator[Crew]:
    """A crew that is closed again."""
    crew = Crew(setup, chunk_tokens)
    try:
        yield crew
    finally:
        crew.close()


def figures_of(run: ClusterRun) -> dict[str, float | None]:
    """What a run comes to."""
    return {**latencies(run.log), **hand_offs(run.log), **legs(run.log, run.legs), "moved_gb": run.moved_bytes / 1e9}


def compared(
    setup: Setup,
    arms: tuple[str, ...],
    seeds: int,
    budget_s: float,
    chunk_tokens: int | None = None,
    check: bool = False,
) -> Iterator[dict]:
    """A point a run: every arm on the draws of every seed, in random order within a seed, while there is time.

    With `check` the answers are held against those of one worker at the end.
    """
    until_s, longest_s = perf_counter() + budget_s, 0.0
    with crew_of(setup, chunk_tokens) as crew:
        yield point("workers started", crew() and crew.startup_s, "s")
        for arm in arms:  # what is compiled or connected at its first use is not timed
            yield from _tried(setup, crew, arm, setup.draw(1000, 1.0), f"{arm}: first use", until_s, 0.0)
        for seed in range(seeds):
            for arm in Random(f"ladder/{seed}").sample(arms, len(arms)):
                start_s = perf_counter()
                if start_s + longest_s > until_s:
                    return
                yield from _tried(setup, crew, arm, setup.draw(seed), f"{arm}, seed {seed}", until_s, longest_s)
                longest_s = max(longest_s, perf_counter() - start_s)
        if check:
            yield from exact(setup, crew)


def _tried(setup: Setup, crew: Crew, arm: str, workload: Workload, name: str, until_s: float, need_s: float):
    """A point with what a run came to, or with what went wrong."""
    if perf_counter() + need_s > until_s:
        return
    try:
        run = run_of(setup, crew(), arm, workload)
    except Exception as error:  # the other arms are worth having all the same
        yield point(name, inf, "s", failed=f"{type(error).__name__}: {error}"[:300], arm=arm)
        return
    found = figures_of(run)
    yield point(name, found["ttft_mean_s"], "s", arm=arm, run=found, requests=len(workload), sha256=workload.sha256)


def exact(setup: Setup, crew: Crew) -> Iterator[dict]:
    """The same few requests, one after another, on one worker and handed over: digests of every page, and tokens."""
    asked = one_by_one(setup)
    alone = run_of(setup, crew(), TOGETHER, asked, replace(fleet_of(setup, TOGETHER), workers=1))

    def split(arm: str, **told: object) -> ClusterRun:
        return run_of(setup, crew(), arm, asked, **told)

    yield from held_against(alone.tokens, split)


def one_by_one(setup: Setup) -> Workload:
    """A few requests, so far apart that each has the devices to itself."""
    lengths = [min(n, setup.most_prompt) for n in (130, 700, 1500, 5000)][:EXACT]
    gap_s = 0.8 if setup.device == "cuda" else 0.5
    return Workload("one by one", tuple(Request(i, i * gap_s, n, 24) for i, n in enumerate(lengths)), BLOCK_TOKENS)


def held_against(alone: dict[int, list[int]], split: Callable[..., Checked]) -> Iterator[dict]:
    """`split(arm, verify=, tamper=, link_bytes_per_s=)` beside the tokens of one engine; damage must be seen."""
    for arm, tamper in (("layerwise", ""), ("asynchronous", ""), ("layerwise", "corrupt_page")):
        run = split(arm, verify=True, tamper=tamper, link_bytes_per_s=0.0)
        name = f"{arm}, {tamper}" if tamper else arm
        equal = sum(alone[i] == run.tokens[i] for i in alone)
        wrong = run.wrong if run.checked else 0 if tamper else inf  # what was not compared has not passed
        met = {"target": 1.0, "at_least": True} if tamper else {"target": 0.0, "at_least": False}
        yield point(f"{name}: pages that differ", wrong, "pages", checked=run.checked, **met)
        same = {} if tamper else {"target": LEAST_EQUAL}
        yield point(f"{name}: equal answers", equal / len(alone), "share", n_requests=len(alone), **same)
