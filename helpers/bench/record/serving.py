"""The part `serve`: open-loop load on one worker around its knee, and what the simulator says of the same load.

First a burst gives the rate that the worker sustains, and a training slice below it more steps to learn from.
Then slices that nothing was fitted to are served, each a pack, at three loads with and without a cap on the queue.
The simulator gets the same requests, the same limits and a cost of a step fitted in this session: to the steps
served before (`served`), and to the designed steps of the part `calibrate` where they are there (`designed`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from helpers.bench.engine.report import point
from helpers.bench.fidelity.calibrating import sustained
from helpers.bench.record.calibrating import columns, engine_for, fitted_points, samples_of
from helpers.cost.iteration import AffineCost
from helpers.metrics.goodput import throughput
from helpers.metrics.latency import distribution, tpot_s, ttft_s
from helpers.scheduling.limits import Limits
from helpers.serving.engine_backend import EngineOptions, MeasuredRun, measure
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import write_pack
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.request import Workload

BURST_SEED, TRAINING_SEED, HELD_OUT_SEED = 1, 2, 3
TRAINING_LOAD = 0.8
SPAN_S = (10.0, 60.0)  # of the arrivals of a slice: at least, at most
LEAST_REQUESTS = 20  # in a slice, however long that takes
DRAIN_S = 15.0  # after the last arrival of a slice; what is not served by then is unfinished
BURST, BURST_S = 3, 90.0  # times the largest batch, at once; what is not served by then is unfinished
BLOCKS = 40  # of steps in time; every fifth is held out of the fit
TABLE_MODEL = "llama-3.1-8b"  # of the simulator's fleet: with a cost that is given it only counts blocks


@dataclass(frozen=True)
class Traffic:
    """Lengths of the requests, tokens that all prompts share, and the cap on the queue."""

    prompt_tokens: str
    output_tokens: str
    shared_tokens: int
    max_waiting: int


TRAFFIC = {
    "cuda": Traffic("lognormal:500:0.8", "lognormal:120:0.6", 256, 16),
    "cpu": Traffic("lognormal:80:0.5", "lognormal:16:0.5", 64, 4),
}


@dataclass(frozen=True)
class Planned:
    """A held-out run: an admission policy, and the load as a share of the sustained rate."""

    admission: str
    load: float

    @property
    def name(self) -> str:
        return f"{self.admission} at {self.load:g}"


RUNS = tuple(
    Planned(a, load) for a, loads in (("none", (0.95, 1.2, 0.7)), ("queue_cap", (1.2, 0.95, 0.7))) for load in loads
)


def serve(session, report) -> None:
    """Fill in the sections `saturated`, `training` and one a planned run."""
    _Serving(session, report).everything()


class _Serving:
    """One engine for all runs, with an empty cache before each."""

    def __init__(self, session, report) -> None:
        self.session, self.report = session, report
        self.engine = engine_for(session.preset, session.device)
        self.traffic = TRAFFIC[self.engine.device.type]
        self.costs = {"designed": AffineCost(**session.cost)} if session.cost else {}

    def everything(self) -> None:
        with self.engine:
            rate = self._saturated()
            if not rate:
                return
            left_s = self.report.left_s / (len(RUNS) + 1) - DRAIN_S / 3  # most runs drain in less
            self.span_s = min(max(left_s, SPAN_S[0]), SPAN_S[1])
            self._training(rate)
            for planned in RUNS:
                self.report.run(planned.name, lambda p=planned: self._held_out(p, rate))

    def _saturated(self) -> float | None:
        """The sustained rate in requests per second, measured now or before."""
        points = self.report.run("saturated", self._burst)
        return points[0]["value"] if points else None

    def _burst(self) -> Iterator[dict]:
        count = BURST * self.engine.limits.max_batch
        burst = self._workload(1000.0 * count, BURST_SEED, count)
        run = self._serve(Experiment(burst, self._fleet(None)), burst, BURST_S)
        tokens_per_s = throughput(run.log).tokens_per_s
        yield point("sustained rate", sustained(run), "requests/s", n=count, tokens_per_s=tokens_per_s)
        self.report.note("saturated", samples=columns(run.samples))

    def _training(self, rate: float) -> None:
        self.report.run("training", lambda: self._learn(rate))
        cost = self.report.parts["training"].get("cost")
        if cost:
            self.costs["served"] = AffineCost(**cost)

    def _learn(self, rate: float) -> Iterator[dict]:
        from helpers.cost.fit import fit

        slice_ = self._slice(rate * TRAINING_LOAD, TRAINING_SEED)
        run = self._serve(Experiment(slice_, self._fleet(None)), slice_)
        samples = [*samples_of(self.report.parts["saturated"]["samples"]), *run.samples]
        found = fit(samples, blocks=min(BLOCKS, len(samples) // 2))
        cost = found.record()["coefficients"]
        self.report.note("training", cost=cost, samples=columns(run.samples), sha256=slice_.sha256)
        yield from fitted_points(found)

    def _held_out(self, planned: Planned, rate: float) -> Iterator[dict]:
        offered = rate * planned.load
        slice_ = self._slice(offered, HELD_OUT_SEED)
        parameters = parameters_of(self.traffic, planned.admission)
        asked = Experiment(slice_, self._fleet(None), admission=planned.admission, admission_parameters=parameters)
        run = self._serve(asked, slice_)
        name = f"serve_{self.session.preset}_{planned.admission}_{planned.load:g}.json.gz"
        write_pack(run, self.session.folder / name)
        simulated = {k: replace(asked, fleet=self._fleet(cost)).run() for k, cost in self.costs.items()}
        found = {"offered_per_s": offered, "span_s": slice_.span_s, "sha256": slice_.sha256, "pack": name}
        self.report.note(planned.name, **found, outcomes=outcomes(run))
        yield from compared(run, simulated)
        yield from host_shares(run, self.engine.runner.graphs)

    def _slice(self, rate_per_s: float, seed: int) -> Workload:
        return self._workload(rate_per_s, seed, max(LEAST_REQUESTS, round(rate_per_s * self.span_s)))

    def _workload(self, rate_per_s: float, seed: int, requests: int) -> Workload:
        limits, longest = self.engine.limits, self.engine.max_context
        return workload_of(self.traffic, rate_per_s, seed, requests, limits.block_tokens, longest)

    def _fleet(self, cost: AffineCost | None) -> Fleet:
        return fleet_of(self.engine.limits, cost)

    def _serve(self, experiment: Experiment, workload: Workload, limit_s: float | None = None) -> MeasuredRun:
        self.engine.abandon("a new run begins with an empty cache")
        limit_s = limit_s or workload.requests[-1].arrival_s + DRAIN_S
        options = EngineOptions(model=self.session.preset, device=self.session.device, limit_s=limit_s)
        run = measure(experiment, self.engine, workload, options)
        return replace(run, provenance=replace(run.provenance, command=self.session.command))


def workload_of(
    traffic: Traffic, rate_per_s: float, seed: int, requests: int, block_tokens: int, longest: int
) -> Workload:
    """A draw of `requests`, those of more than `longest` tokens left out."""
    made = generate(
        "poisson", rate_per_s=rate_per_s, requests=requests, seed=seed,
        block_tokens=block_tokens, blocks=True, shared_tokens=traffic.shared_tokens,
        prompt_tokens=traffic.prompt_tokens, output_tokens=traffic.output_tokens,
    )  # fmt: skip
    kept = tuple(r for r in made if r.prompt_tokens + r.output_tokens <= longest)
    repairs = (f"requests of more than {longest} tokens left out",) if len(kept) < len(made) else ()
    return replace(made, requests=kept, repairs=(*made.repairs, *repairs))


def fleet_of(limits: Limits, cost: AffineCost | None = None) -> Fleet:
    """The simulator's worker with the very limits of the engine."""
    return Fleet(TABLE_MODEL, workers=1, cost=cost).with_limits(limits)


def parameters_of(traffic: Traffic, admission: str) -> dict[str, int]:
    """The parameters that an admission policy gets in these runs."""
    return {"max_waiting": traffic.max_waiting} if admission == "queue_cap" else {}


def outcomes(run: Run) -> dict[str, int]:
    """How many requests ended how."""
    ended = [t.status for t in run.timelines]
    return {status: ended.count(status) for status in ("finished", "rejected", "unfinished")}


def figures(run: Run) -> dict[str, tuple[float, str, int]]:
    """(value, unit, N) of what a fidelity is stated on, over the requests that finished."""
    finished = [t for t in run.timelines if t.status == "finished"]
    ttft, tpot = distribution(ttft_s, finished), distribution(tpot_s, finished)
    p50, p90 = ({p.q: p.value for p in ttft.percentiles}.get(q) for q in (50, 90))
    return {
        "TTFT mean": (ttft.mean, "s", ttft.n),
        "TTFT p50": (p50, "s", ttft.n),
        "TPOT mean": (tpot.mean, "s", tpot.n),
        "throughput": (throughput(run.log).tokens_per_s, "output tok/s", len(finished)),
        "TTFT p90": (p90, "s", ttft.n),
        "rejected": (outcomes(run)["rejected"] / max(1, len(run.timelines)), "share", len(run.timelines)),
    }


def host_shares(run: MeasuredRun, graphs: bool) -> Iterator[dict]:
    """What of the device's time the host wastes: by not launching in time, and by padding captured steps."""
    from helpers.engine.mixed import padding_share

    gaps_s, busy_s = (math.fsum(getattr(s, name) for s in run.samples) for name in ("gap_s", "seconds"))
    yield point("device idle between steps", gaps_s / max(gaps_s + busy_s, 1e-9), "share", n=len(run.samples))
    launches_s = sorted(s.launch_s for s in run.samples) or [0.0]
    yield point("launch p50", launches_s[len(launches_s) // 2], "s", n=len(run.samples), longest=launches_s[-1])
    if graphs:
        tokens = [s.decodes + sum(n for n, _ in s.chunks) for s in run.samples if s.chunks]
        yield point("padded tokens in steps with chunks", padding_share(tokens), "share", n=len(tokens))


def compared(run: Run, simulated: dict[str, Run]) -> Iterator[dict]:
    """A point a figure: measured, and for each cost what was predicted and the relative error of that.

    The error of the share rejected is a difference of shares: mostly there is nothing to divide by.
    """
    predicted = {kind: figures(one) for kind, one in simulated.items()}
    for name, (value, unit, requests) in figures(run).items():
        if value is None:
            continue
        said = {kind: found[name][0] for kind, found in predicted.items() if found[name][0] is not None}
        by = 1.0 if unit == "share" else value
        errors = {kind: (one - value) / by for kind, one in said.items()}
        yield point(name, value, unit, predicted=said, errors=errors, n=requests)
