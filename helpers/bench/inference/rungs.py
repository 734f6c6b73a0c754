"""The rungs: the same engine with one part more at a time, under the same requests.

An engine is made once for a model, a device and a fleet, and put at a rung while it is idle; its start is no part of
any number. Each rung keeps what those before it brought. A CPU has nothing to capture, and no rung of captured steps.
"""

import atexit
from dataclasses import dataclass, replace

from helpers.bench.disagg.arms import BLOCK_TOKENS
from helpers.bench.disagg.one_device import noted
from helpers.bench.inference.host_time import HostWatch
from helpers.errors import InputError
from helpers.metrics.latency import defined, e2e_s
from helpers.scheduling.limits import Limits
from helpers.scheduling.plain import NoReuse, StaticBatches
from helpers.scheduling.scheduler import Scheduler
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
MOST_CONTEXT = 4096  # tokens of a request, prompt and answer
DRAIN_S = 60.0  # after the last arrival; who is not served by then is a breach


def rungs_on(device: str) -> tuple[str, ...]:
    """The rungs that a kind of device has."""
    return RUNGS if device == "cuda" else tuple(rung for rung in RUNGS if rung != GRAPHS)


@dataclass(frozen=True)
class Load:
    """Open-loop requests like a conversation's: a system prompt that all share, then a text of its own, then an answer.

    `prompt_tokens` has the shared ones in it.
    """

    rate_per_s: float
    requests: int
    shared_tokens: int
    prompt_tokens: str
    output_tokens: str

    def draw(self, seed: int, requests: int | None = None) -> Workload:
        """The arrivals and lengths of a seed."""
        return generate(
            "poisson", requests=requests or self.requests, rate_per_s=self.rate_per_s, seed=seed, exact_rate=True,
            block_tokens=BLOCK_TOKENS, blocks=True, shared_tokens=self.shared_tokens,
            prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens,
        )  # fmt: skip


@dataclass(frozen=True)
class EngineExperiment(Experiment):
    """An experiment on one engine at a rung of the ladder; each of its steps takes `slower` times as long."""

    rung: str = STATIC
    slower: float = 1.0
    model: str = "tiny"
    device: str = "cpu"


@dataclass(frozen=True)
class Served:
    """A run at a rung, the tokens of each request by id, and what the host did meanwhile."""

    run: MeasuredRun
    tokens: dict[int, list[int]]
    host: HostWatch

    @property
    def e2e_mean_s(self) -> float | None:
        """From arrival to last token, over the requests that finished."""
        ends = defined(e2e_s, self.run.timelines)
        return sum(ends) / len(ends) if ends else None


_engines: dict[tuple, object] = {}


def engine_for(model: str, device: str, fleet: Fleet):
    """The engine of this process for a model, a device and a fleet, everything captured; it ends with the process."""
    from helpers.cluster.hosted import WatchedDecoder
    from helpers.engine.engine import Engine, limits_for
    from helpers.engine.load import load, use_threads

    key = (model, device, fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
    if key not in _engines:
        close_engines()
        decoder = WatchedDecoder(load(model, device))
        use_threads(decoder)
        limits = limits_for(decoder, BLOCK_TOKENS, fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
        engine = _engines[key] = Engine(decoder, limits, max_context=MOST_CONTEXT)
        atexit.register(close_engines)
        engine.runner.warm_up()
    return _engines[key]


def close_engines() -> None:
    """Give back what the engines of this process hold."""
    while _engines:
        _engines.popitem()[1].close()


def scheduler_of(rung: str, limits: Limits) -> Scheduler:
    """A scheduler as it is at a rung."""
    scheduler = StaticBatches(limits) if rung == STATIC else Scheduler(limits)
    if RUNGS.index(rung) < RUNGS.index(PREFIX):
        scheduler.pool = NoReuse(limits.kv_blocks)
    return scheduler


def put_at(engine, rung: str, slower: float = 1.0) -> None:
    """Let an idle engine go on at a rung, with an empty cache. Raises `InputError` for one that its device lacks."""
    if rung not in rungs_on(engine.device.type):
        known = ", ".join(rungs_on(engine.device.type))
        raise InputError(f"rung {rung!r} does not exist on {engine.device.type}; use one of {known}")
    at = RUNGS.index(rung)
    engine.abandon("another rung begins, with an empty cache")
    engine.decoder.factor = slower
    engine.overlap = at >= RUNGS.index(AHEAD)
    engine.runner.graphs = at >= RUNGS.index(GRAPHS) and engine.device.type == "cuda"
    engine.scheduler = scheduler_of(rung, engine.limits)


def served(experiment: EngineExperiment, workload: Workload, limit_s: float | None = None) -> Served:
    """Serve a workload at the rung of an experiment, until `limit_s` where that is given.

    Raises `InputError` when the engine did not do what the rung says.
    """
    engine = engine_for(experiment.model, experiment.device, experiment.fleet)
    put_at(engine, experiment.rung, experiment.slower)
    limit_s = limit_s or workload.requests[-1].arrival_s + DRAIN_S
    options = EngineOptions(model=experiment.model, device=experiment.device, limit_s=limit_s)
    with HostWatch(engine) as host, noted(engine) as tokens:
        run = measure(replace(experiment, workload=workload), engine, workload, options)
    found = Served(run, tokens, host)
    wrong = disbelieved(experiment.rung, experiment.device, found)
    if wrong:
        raise InputError(f"rung {experiment.rung!r} is not what it says: {wrong[0]}")
    return found


def disbelieved(rung: str, device: str, found: Served) -> list[str]:
    """What a run shows that cannot be at its rung, and what it would have to show and does not."""
    at, host = RUNGS.index(rung), found.host
    reused = sum(t.cached_tokens for t in found.run.timelines)
    wrong = []
    if rung == STATIC and host.joined:
        wrong.append(f"in {host.joined} of {host.steps} steps somebody came into a batch that was under way")
    if at < RUNGS.index(PREFIX) and reused:
        wrong.append(f"{reused} prompt tokens were taken from a cache")
    if bool(host.captured) != (device == "cuda" and at >= RUNGS.index(GRAPHS)):
        wrong.append(f"{host.captured} of {host.steps} steps were captured ones")
    if bool(host.ahead) != (at >= RUNGS.index(AHEAD)) and host.steps > 1:
        wrong.append(f"{host.ahead} of {host.steps} steps were launched before the one before was read")
    return wrong
