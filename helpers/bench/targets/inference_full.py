"""One engine from a synchronous loop with static batches to the one that serves, a change at a time.

Measured on this machine's CPU with `tiny` in float32, end to end under an open-loop load. Each rung keeps what those
before it brought. Captured steps (CUDA graphs) are a rung on a GPU alone: a CPU has nothing to capture.
"""

from dataclasses import dataclass, replace

from helpers.bench.disagg.arms import BLOCK_TOKENS, answers
from helpers.bench.disagg.figures import latencies
from helpers.bench.disagg.one_device import noted
from helpers.bench.disagg.report import steps_of
from helpers.bench.targets.latencies import LATENCIES
from helpers.bench.targets.target import UNDRAWN, Sample, Scenario, Statistic, Target
from helpers.bench.verification import breaches, unnoticed
from helpers.metrics.latency import defined, e2e_s
from helpers.serving.engine_backend import EngineOptions, MeasuredRun, measure
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload

STATIC, CONTINUOUS, PREFIX, GRAPHS, AHEAD = (
    "static",
    "continuous batching",
    "prefix cache",
    "CUDA graphs",
    "schedule-ahead",
)
RUNGS = (STATIC, CONTINUOUS, PREFIX, GRAPHS, AHEAD)
ON_A_CPU = tuple(rung for rung in RUNGS if rung != GRAPHS)
FLEET = Fleet(workers=1, chunk_tokens=256, max_batch=16, kv_gib=0.125)
RATE_PER_S, SHARED_TOKENS = 6.0, 128
SLOWER = 4.0  # the planted engine


@dataclass(frozen=True)
class EngineExperiment(Experiment):
    """An experiment on one engine at a rung of the ladder; each of its steps takes `slower` times as long."""

    rung: str = STATIC
    slower: float = 1.0


def engine_of(rung: str, fleet: Fleet = FLEET, device: str = "cpu", slower: float = 1.0):
    """A fresh engine at a rung."""
    from helpers.cluster.hosted import WatchedDecoder
    from helpers.engine.engine import Engine, limits_for
    from helpers.engine.load import load, use_threads
    from helpers.scheduling.plain import NoReuse, StaticBatches
    from helpers.scheduling.scheduler import Scheduler

    at = RUNGS.index(rung)
    decoder = WatchedDecoder(load("tiny", device))
    decoder.factor = slower
    use_threads(decoder)
    limits = limits_for(decoder, BLOCK_TOKENS, fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
    captured = at >= RUNGS.index(GRAPHS) and decoder.device.type == "cuda"
    engine = Engine(decoder, limits, overlap=at >= RUNGS.index(AHEAD), graphs=captured)
    engine.scheduler = StaticBatches(limits) if rung == STATIC else Scheduler(limits)
    if at < RUNGS.index(PREFIX):
        engine.scheduler.pool = NoReuse(limits.kv_blocks)
    engine.runner.warm_up()
    return engine


def served(experiment: EngineExperiment, workload: Workload) -> tuple[MeasuredRun, dict[int, list[int]]]:
    """The run, and the tokens of each request."""
    asked = replace(experiment, workload=workload)
    with engine_of(experiment.rung, experiment.fleet, slower=experiment.slower) as engine, noted(engine) as tokens:
        run = measure(asked, engine, workload, EngineOptions(model="tiny", device="cpu"))
    return run, tokens


def timed(experiment: EngineExperiment, workload: Workload, seed: int, iterations: int) -> Sample:
    """A cell: the last of `iterations` runs."""
    walls, run, tokens = [], None, {}
    for _ in range(iterations):
        run, tokens = served(replace(experiment, seed=seed), workload)
        walls.append(run.wall_s)
    ends = defined(e2e_s, run.log.timelines)
    values = {"e2e_mean_s": sum(ends) / len(ends) if ends else None, **latencies(run.log)}
    found = breaches(run.log, workload, workload.sha256)
    return Sample(values, workload.sha256, {}, found, tuple(walls), {"answers": answers(tokens)})


def not_noticed(experiment: EngineExperiment, workload: Workload) -> list[str]:
    """Damage to the log of a run that the verification does not notice."""
    run, _ = served(experiment, workload)
    return unnoticed(run.log, workload, workload.sha256)


def draw(seed: int, requests: int) -> Workload:
    """Open-loop arrivals; every prompt begins with the same 128 tokens."""
    return generate(
        "poisson", requests=requests, rate_per_s=RATE_PER_S, seed=seed, exact_rate=True, block_tokens=BLOCK_TOKENS,
        blocks=True, shared_tokens=SHARED_TOKENS, prompt_tokens="lognormal:200:0.3", output_tokens="lognormal:12:0.5",
    )  # fmt: skip


BASE = EngineExperiment(UNDRAWN, FLEET, rung=STATIC)
SCENARIO = Scenario(
    "one engine",
    f"prompts of about 200 tokens, of which 128 are shared, answers of about 12, {RATE_PER_S:g} requests/s; "
    "CUDA graphs are left out: this is a CPU",
    draw,
    BASE,
    {rung: replace(BASE, rung=rung) for rung in ON_A_CPU[1:]},
    STATIC,
    predicted={CONTINUOUS: "lower", PREFIX: "lower", AHEAD: "lower"},
    timed=timed,
    planted=replace(BASE, slower=SLOWER),
)
STATISTICS = (Statistic("e2e_mean_s", "s", "mean of arrival to last token", "lower"), *LATENCIES)
TARGET = Target(
    name="inference_full",
    group="disagg",
    question="What does each part of an engine bring to requests that come when they like?",
    hypothesis=(
        "Continuous batching brings most, as nobody waits for a batch to end; then the prefix cache, as prompts share "
        "128 tokens; scheduling ahead brings nothing on a CPU, where a launch is the work itself."
    ),
    statistics=STATISTICS,
    scenarios=(SCENARIO,),
    control="one engine",
    measure=lambda run, experiment, scenario: {},
    requests=12,
    margin=0.05,
    extra=steps_of,
    frozen={"one engine": "edb4caa1e1718733"},
    live=True,
    unnoticed=not_noticed,
    planted_about=f"an engine whose steps take {SLOWER:g} times as long",
)
