"""Lab 2: the learner's router, unchanged, on two live workers of this machine, beside what the simulator says of it.

The workers are processes with a tiny model and one core each. A burst tells how fast they are, and other requests of
the same kind what their steps cost; with that the simulator answers the very question that the workers answered.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from time import perf_counter

from helpers.bench.fidelity.calibrating import gapped, sustained, terms_of
from helpers.bench.fidelity.compared import figures
from helpers.bench.fidelity.plan import described, fleet_of
from helpers.bench.fidelity.terms import Terms, step_cost
from helpers.bench.verification import breaches
from helpers.cost.first_rows import FirstRowsCost
from helpers.errors import InputError
from helpers.lessons.desk import desk
from helpers.lessons.note import Note
from helpers.lessons.probing import Asked, answered
from helpers.metrics.goodput import hit_rate
from helpers.policies.known import WorkerFacts
from helpers.policies.scored import scored
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.processes import cores
from helpers.serving.run import MEASURED, Run
from helpers.workload.generate import generate
from helpers.workload.request import Request, Workload

MODEL, BLOCK_TOKENS = "tiny", 64
FLEET, WORKERS = "2", 2
REPEATS = 2
# A burst, requests to learn from, and those that are judged; the load is a share of what the burst sustains.
BURST, LEARNT, SERVED = 1, 2, 3
REQUESTS = {BURST: 120, LEARNT: 240, SERVED: 160}
LOAD = {LEARNT: 0.4, SERVED: 0.5}
# The first 16 digits of each draw's SHA-256.
FROZEN = {BURST: "e90c29cfd9a21f17", LEARNT: "cc14fb5d56900225", SERVED: "f137ed2d9d01af47"}
SUMMARIES = 0.05
# A busy machine may keep a worker silent for long, and serve more slowly than it just did: a run may take as long as it
# likes, as long as something comes of it.
PATIENCE_S = 300.0
NOT_SERVED = "Nothing was served live"
SHARE = "share"


@cache
def small_desk(seed: int) -> Workload:
    """The traffic of the lab in small, one request a second: questions about documents, and texts to sum up."""
    count = REQUESTS[seed]
    few = round(SUMMARIES * count)
    shared = {"system_tokens": 64, "tenants": 2, "tenant_tokens": "64", "documents": 12, "skew": 0.6}
    lengths = {"document_tokens": "192:0.6", "question_tokens": "24:0.5", "output_tokens": "14:0.5"}
    documents = shared | {name: f"lognormal:{length}" for name, length in lengths.items()}
    same = {"seed": seed, "block_tokens": BLOCK_TOKENS, "exact_rate": True}
    asked = generate("documents", rate_per_s=1 - SUMMARIES, requests=count - few, **same, **documents)
    texts = {"prompt_tokens": "lognormal:700:0.3", "output_tokens": "lognormal:20:0.3"}
    long = generate("poisson", rate_per_s=SUMMARIES, requests=few, **same, **texts)
    made = desk("small help desk", asked, long)
    if not made.sha256.startswith(FROZEN[seed]):
        raise InputError(f"draw {seed} of the small desk is not the one that was frozen; take the course's own release")
    return made


class Noted:
    """A score that is asked as it is, with each question and its answer written down."""

    def __init__(self, score: Asked) -> None:
        self._score, self.said = score, []

    def __call__(self, request: Request, worker: WorkerFacts) -> float:
        value = self._score(request, worker)
        self.said.append((request, worker, value))
        return value


Said = tuple[tuple[Request, WorkerFacts, float], ...]


@dataclass(frozen=True)
class Row:
    """One figure of the live runs and of the simulator; the error is relative, a difference for shares."""

    name: str
    unit: str
    live: tuple[float, ...]
    simulated: float

    @property
    def error(self) -> float:
        """Of the simulator, against the mean of the live runs."""
        return self._off(self.simulated, fmean(self.live))

    @property
    def apart(self) -> float:
        """How far the live runs are from each other, against their mean."""
        return abs(self._off(max(self.live), fmean(self.live)) - self._off(min(self.live), fmean(self.live)))

    def _off(self, value: float, true: float) -> float:
        return value - true if self.unit == SHARE else value / true - 1


@dataclass(frozen=True)
class Live:
    """What two live workers made of the requests, run by run, and what the router was asked and said in each.

    `simulated` is the run of the simulator, by the cost of steps that was measured on these workers.
    """

    workload: Workload
    sha256: str
    runs: tuple[ClusterRun, ...]
    said: tuple[Said, ...]
    simulated: Run
    startup_s: float
    wall_s: float

    @property
    def rows(self) -> list[Row]:
        """Every figure, live and simulated."""
        live, said = [figures_of(run) for run in self.runs], figures_of(self.simulated)
        return [Row(name, unit, tuple(one[name, unit] for one in live), value) for (name, unit), value in said.items()]

    def _note(self) -> Note:
        finished = sum(t.status == "finished" for run in self.runs for t in run.timelines)
        asked = len(self.runs) * len(self.workload)
        return Note(
            "Served by two live workers",
            f"{len(self.runs)} runs of {len(self.workload)} requests, {finished} of {asked} answered; "
            f"{self.wall_s:.0f} s, {self.startup_s:.0f} s of it to start the workers.",
        )

    def __str__(self) -> str:
        return str(self._note())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._note()._repr_html_()


def figures_of(run: Run) -> dict[tuple[str, str], float]:
    """What a run of either kind comes to, by name and unit."""
    units = {"throughput": "output tok/s"}
    found = {(name, units.get(name, "s")): value for name, value in figures(run).items()}
    places = Counter(t.prefill_worker for t in run.timelines)
    found["prompt tokens cached", SHARE] = hit_rate(run.timelines) or 0.0
    found["requests to worker 0", SHARE] = places[0] / len(run.timelines)
    return found


@cache
def live(score: Asked) -> Live | Note:
    """Serve the small desk on two live workers under `scored(score)`, and simulate the same; once for each function.

    Where that cannot be done the answer is a sentence.
    """
    if not callable(score) or not answered(score):
        return Note(NOT_SERVED, "Give it a score that answers: a function of a request and a worker.")
    if cores() < WORKERS:
        return Note(NOT_SERVED, f"{WORKERS} workers want a core each, and here is {cores()}. The lab goes on without.")
    from_s = perf_counter()
    patient = {"hang_s": PATIENCE_S, "stall_s": PATIENCE_S, "start_limit_s": PATIENCE_S}
    options = ClusterOptions(model=MODEL, device="cpu", **patient)
    try:
        with workers_for(described(FLEET), BLOCK_TOKENS, options) as crew:
            startup_s = perf_counter() - from_s
            return _served(score, crew, replace(options, workers=crew), from_s, startup_s)
    except (InputError, RuntimeError) as error:  # a package is missing, a worker died, or nothing could be learnt
        said = str(error)
        return Note(NOT_SERVED, f"{said[:1].upper()}{said[1:]}.")


def _served(score: Asked, crew, options: ClusterOptions, from_s: float, startup_s: float) -> Live:
    def serve(experiment: Experiment) -> ClusterRun:
        return experiment.run(on="engine", engine=options)

    def question(router: str | Callable, workload: Workload, fleet: Fleet) -> Experiment:
        return Experiment(workload, fleet, router)

    fleet = fleet_of(FLEET, crew.limits, None)
    rate_per_s = sustained(serve(question("round_robin", small_desk(BURST).at_rate(1e4), fleet)))
    learnt = small_desk(LEARNT).at_rate(LOAD[LEARNT] * rate_per_s)
    terms = learnt_from(serve(question("round_robin", learnt, fleet)))
    workload = small_desk(SERVED).at_rate(LOAD[SERVED] * rate_per_s)
    sha256, runs, said = workload.sha256, [], []
    for _ in range(REPEATS):
        noted = Noted(score)
        runs.append(serve(question(scored(noted, BLOCK_TOKENS), workload, fleet)))
        said.append(tuple(noted.said))
    known = fleet_of(FLEET, crew.limits, terms)
    simulated = question(scored(score, BLOCK_TOKENS), workload, known).run()
    return Live(workload, sha256, tuple(runs), tuple(said), simulated, startup_s, perf_counter() - from_s)


def learnt_from(run: ClusterRun) -> Terms:
    """What the simulator is told of these workers. On a busy machine hardly any request meets an idle worker; then the
    way to one stays out of it.
    """
    try:
        return terms_of([run])
    except InputError:
        samples = [sample for steps in gapped(run) for sample in steps]
        return Terms(step_cost(samples, FirstRowsCost), 0.0, None, {}, {})


def live_rows(served: object) -> list[Row]:
    """The figures of what was served; none while nothing was."""
    return served.rows if isinstance(served, Live) else []


def live_row(served: object, name: str) -> Row | None:
    """One of these figures; None while nothing was served."""
    return next((row for row in live_rows(served) if row.name == name), None)


def judge_live(score: Asked, served: object) -> str | None:
    """Whether live workers answered every request once, each where this very score sent it."""
    if isinstance(served, Note):
        return served.text
    if not isinstance(served, Live) or any(run.provenance.kind != MEASURED for run in served.runs):
        return f"no live worker has served that, which is of the kind {type(served).__name__}; take what lab.live gives"
    for run, said in zip(served.runs, served.said, strict=True):
        hint = next(_unsound(served, run), None) or next(_not_by(score, run, said), None)
        if hint:
            return hint
    return None


def _unsound(served: Live, run: ClusterRun) -> Iterator[str]:
    """What is wrong with the answers."""
    yield from breaches(run.log, served.workload, served.sha256)
    for t in run.timelines:
        if t.status != "finished":
            yield f"request {t.id} was not answered: {t.reason or t.status}"
        elif len(run.tokens[t.id]) != t.output_tokens:
            yield f"request {t.id} got {len(run.tokens[t.id])} tokens of {t.output_tokens}"


def _not_by(score: Asked, run: ClusterRun, said: Said) -> Iterator[str]:
    """Which decisions are not those of a score."""
    decided = Counter(one["request"] for one in run.decisions)
    scores: dict[int, dict[int, float]] = {}
    for request, facts, value in said:
        scores.setdefault(request.id, {})[facts.worker] = value
    for t in run.timelines:
        if decided[t.id] != 1:
            yield f"request {t.id} was routed {decided[t.id]} times; a router is asked once for each"
        of = scores.get(t.id, {})
        if len(of) != WORKERS:
            yield f"for request {t.id} your score was asked about {len(of)} of {WORKERS} workers: somebody else decided"
        elif t.prefill_worker != min(of, key=lambda worker: (-of[worker], worker)):
            yield f"request {t.id} went to worker {t.prefill_worker}, and not where your score is highest"
    for request, facts, value in said:
        if (now := score(request, facts)) != value:
            yield (
                f"another score was served: for request {request.id} on worker {facts.worker} it said {value:g}, and "
                f"yours says {now:g}; serve again after a change"
            )
