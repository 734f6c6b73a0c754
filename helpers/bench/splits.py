"""Prefill and decode apart, or together: the knees of split and of co-located fleets on equal GPUs.

Every arm of a question serves the same draws. The knee of an arm is the highest rate of 1.05^k requests/s at which the
target share of the requests meets the SLO. A run at one rate answers for every SLO, as no policy here looks at it.
Step times are those of a calibration (fitted to measured steps: of a served load, where one was recorded), but for the
question that takes the data sheet's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf

from helpers.checkout import commit
from helpers.cost.calibration import Calibration
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.factorial import effects
from helpers.metrics.knee import knee_near
from helpers.metrics.latency import tpot_s, ttft_s
from helpers.metrics.stats import mean_interval
from helpers.policies.pairing import by_reports
from helpers.policies.registry import router
from helpers.policies.view import Router
from helpers.serving.calibrated import measured
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

TARGET, STEP, WARMUP = 0.9, 0.05, 0.2
REQUESTS, START_PER_GPU = 2400, 4.0
# One 100 Gbit/s card at the share of line rate that Mooncake's transfers reach, and a sender that waits.
SLOW = Link(1.0e-3, 12.5e9 * 0.75, "blocking")


@dataclass(frozen=True)
class Traffic:
    """A generator with its knobs; arrivals are Poisson."""

    generator: str
    knobs: dict = field(default_factory=dict)

    def draw(self, rate_per_s: float, seed: int, requests: int) -> Workload:
        """The requests of a seed."""
        return generate(self.generator, rate_per_s=rate_per_s, requests=requests, seed=seed, **self.knobs)


@dataclass(frozen=True, slots=True)
class Arm:
    """A fleet to be tried: a `split` such as 5P3D, or None for workers that do both; chunks; a router.

    With `by_reports` it chooses decode workers without counting what is on its way to them.
    """

    split: str | None
    chunk_tokens: int
    router: str = "least_tokens"
    by_reports: bool = False

    @property
    def name(self) -> str:
        """The arm as words."""
        how = ", decode by reports" if self.by_reports else ""
        return f"{self.split or 'together'}, chunks of {self.chunk_tokens}, {self.router}{how}"

    def asked(self, block_tokens: int) -> str | Callable[[int], Router]:
        """The router, as an `Experiment` on blocks of so many tokens takes it."""
        if not self.by_reports:
            return self.router
        return lambda workers: by_reports(router(self.router, workers, block_tokens))


@dataclass(frozen=True)
class Question:
    """Traffic, SLOs and arms on `workers` GPUs; `sheet` takes step times from the data sheet, `link` is the fleet's."""

    name: str
    traffic: Traffic
    slos: tuple[SLO, ...]
    arms: tuple[Arm, ...]
    workers: int = 8
    link: Link | None = None
    sheet: bool = False


def _lengths(prompt: int, output: int) -> Traffic:
    knobs = {"prompt_tokens": f"lognormal:{prompt}:0.6", "output_tokens": f"lognormal:{output}:0.6"}
    return Traffic("poisson", knobs)


def _arms(chunks: Sequence[int], splits: Sequence[str]) -> tuple[Arm, ...]:
    return (*(Arm(None, chunk) for chunk in chunks), *(Arm(split, 2048) for split in splits))


def _blind(*splits: str) -> tuple[Arm, ...]:
    return tuple(Arm(split, 2048, by_reports=True) for split in splits)


PROMPTS = _lengths(3000, 150)
# 400 documents of about 6,000 tokens are five times what one worker caches, and less than what eight do.
DOCUMENTS = Traffic(
    "documents",
    {
        "documents": 400,
        "document_tokens": "lognormal:6000:0.3",
        "system_tokens": 256,
        "output_tokens": "lognormal:80:0.6",
    },
)
LOOSE, TIGHT, TIGHTER = SLO(1.0, 0.05), SLO(1.0, 0.015), SLO(1.0, 0.010)
FACTORS = {"routing": ("round_robin", "prefix_exact"), "split": (None, "5P3D"), "chunk": (512, 2048)}
FACTORIAL = "routing, split and chunk"
BLIND = "decode by reports"  # splits that are asked again, with a router that counts nothing on the decode side
QUESTIONS = (
    Question(
        "long prompts",
        PROMPTS,
        (LOOSE, TIGHT, TIGHTER),
        _arms((256, 512, 1024, 2048), ("2P6D", "3P5D", "4P4D", "5P3D", "6P2D")),
    ),
    Question(
        FACTORIAL,
        DOCUMENTS,
        (TIGHT,),
        tuple(
            Arm(split, chunk, router)
            for router in FACTORS["routing"]
            for split in FACTORS["split"]
            for chunk in FACTORS["chunk"]
        ),
    ),
    Question("long answers", _lengths(1000, 500), (TIGHT,), _arms((256, 512, 2048), ("2P6D", "3P5D", "4P4D"))),
    Question("two GPUs", PROMPTS, (TIGHT,), _arms((256, 512, 2048), ("1P1D",)), workers=2),
    Question(BLIND, PROMPTS, (TIGHT, TIGHTER), _blind("3P5D", "4P4D", "5P3D")),
    Question("slow link", PROMPTS, (TIGHT,), _arms((), ("3P5D", "4P4D", "5P3D", "6P2D")), link=SLOW),
    Question(f"{BLIND}, slow link", PROMPTS, (TIGHT,), _blind("5P3D", "6P2D"), link=SLOW),
    Question("data sheet", PROMPTS, (TIGHT,), _arms((256, 512, 2048), ("3P5D", "4P4D", "5P3D", "6P2D")), sheet=True),
)


def splits(
    calibration: Calibration,
    seeds: Sequence[int] = range(8),
    questions: Sequence[Question] = QUESTIONS,
    requests: int = REQUESTS,
    tick: Callable[[], None] = lambda: None,
) -> dict:
    """The record: for each question and SLO one row an arm, with the knee of a GPU by seed and its 95 % interval.

    Raises `InputError` for fewer than two seeds, and for a calibration of another model.
    """
    if len(seeds) < 2:
        raise InputError(f"bench splits: {len(seeds)} seeds give no interval; use 2 or more")
    fleet = measured(Fleet(), calibration, ("model",))
    told = [_answered(one, fleet, seeds, requests, tick) for one in questions]
    setup = {"target": TARGET, "step": STEP, "warmup": WARMUP, "requests": requests}
    return {
        "kind": "simulated",
        "commit": commit(),
        "seeds": list(seeds),
        "calibration": calibration.origin,
        "setup": setup | {"model": fleet.model, "hardware": fleet.hardware},
        "questions": told,
    }


def _answered(question: Question, base: Fleet, seeds: Sequence[int], requests: int, tick) -> dict:
    found: dict[tuple[Arm, SLO], dict[int, float | None]] = {}
    rate_per_s = START_PER_GPU * question.workers
    shas = []
    for seed in seeds:
        workload = question.traffic.draw(rate_per_s, seed, requests)
        shas.append(workload.sha256)
        for arm in question.arms:
            starts = {slo: found.get((arm, slo), {}).get(seed - 1) for slo in question.slos}
            for slo, knee in _knees(question, arm, workload, seed, base, starts):
                found.setdefault((arm, slo), {})[seed] = knee and knee / question.workers
            tick()
    return {
        "name": question.name,
        "traffic": asdict(question.traffic),
        "workload_sha256": shas,
        "workers": question.workers,
        "link": asdict(question.link) if question.link else None,
        "step_times": "predicted" if question.sheet else "fitted",
        "rows": [row_of(arm, slo, by_seed) for (arm, slo), by_seed in found.items()],
    }


def fleet_of(question: Question, arm: Arm, base: Fleet) -> Fleet:
    """The fleet of an arm: of the model, the accelerator and the cost of `base`."""
    return replace(
        base,
        workers=question.workers,
        split=arm.split,
        chunk_tokens=arm.chunk_tokens,
        link=question.link,
        cost=None if question.sheet else base.cost,
    )


def _knees(
    question, arm: Arm, workload: Workload, seed: int, base: Fleet, starts
) -> Iterator[tuple[SLO, float | None]]:
    """The knee at each SLO, in requests/s; runs of one rate are shared between the SLOs."""
    fleet, own_per_s = fleet_of(question, arm, base), offered_per_s(workload)
    seen: dict[float, list[tuple[float, float]]] = {}

    def latencies(rate_per_s: float) -> list[tuple[float, float]]:
        if rate_per_s not in seen:
            scaled = workload.at_rate(rate_per_s / own_per_s)
            log = Experiment(scaled, fleet, arm.asked(scaled.block_tokens), seed=seed).cluster().run(scaled.requests)
            counted = log.timelines[round(WARMUP * len(scaled)) :]
            seen[rate_per_s] = [(_or(ttft_s(t), inf), _or(tpot_s(t), 0.0)) for t in counted]
        return seen[rate_per_s]

    near = own_per_s
    for slo in question.slos:

        def attainment(rate_per_s: float, slo: SLO = slo) -> float:
            found = latencies(rate_per_s)
            return sum(first <= slo.ttft_s and pace <= slo.tpot_s for first, pace in found) / len(found)

        before = starts[slo]
        knee = knee_near(attainment, TARGET, before * question.workers if before else near, STEP).rate_per_s
        near = knee or near
        yield slo, knee


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def row_of(arm: Arm, slo: SLO, by_seed: dict[int, float | None]) -> dict:
    """What an arm came to at an SLO, in requests/s and GPU."""
    values = list(by_seed.values())
    return {
        "arm": arm.name,
        **asdict(arm),
        "ttft_s": slo.ttft_s,
        "tpot_s": slo.tpot_s,
        "knees": {str(seed): knee for seed, knee in by_seed.items()},
        "knee": None if None in values else asdict(mean_interval(values)),
    }


def factorial(question: dict) -> tuple:
    """The effects (`helpers.metrics.factorial`) of the question that varies `FACTORS`, from its rows."""
    cells = {}
    for row in question["rows"]:
        values = row["router"], row["split"], row["chunk_tokens"]
        levels = tuple(2 * of.index(value) - 1 for value, of in zip(values, FACTORS.values(), strict=True))
        cells[levels] = {int(seed): knee for seed, knee in row["knees"].items()}
    return effects(tuple(FACTORS), cells)
