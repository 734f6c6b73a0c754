"""The part `routing`: routers over two live workers, and what the simulator says of the very same requests.

The requests ask about texts that many of them share, and a worker's KV has room for half of the texts, so that it
matters who is sent where. First a burst in turns gives the rate that a worker sustains, and a training slice the cost
of steps and the way to a worker. Then come seeds: in each the same draw under every router, at a load below the knee
of the simplest router and at one near it, in random order. Each live run is a pack without its steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from helpers.bench.engine.report import point
from helpers.bench.fidelity.calibrating import terms_of
from helpers.bench.fidelity.compared import Figures, error_of, order, unit_of
from helpers.bench.fidelity.plan import Slice
from helpers.bench.fidelity.terms import Terms, cost_from
from helpers.bench.record.disagg import device_of
from helpers.bench.record.live import (
    SUSTAINED,
    burst_points,
    columns_of,
    most_workers,
    running,
    setting_of,
    told_by,
    use_first,
)
from helpers.bench.verification import breaches
from helpers.serving.packs import write_pack
from helpers.serving.run import Run

ROUTERS = ("round_robin", "least_requests", "prefix_exact", "predicted_ttft")
LOADS = (0.7, 1.0)  # of what a burst sustains in turns; with time to answer some more is sustained
TRAINING_LOAD = 0.85
SEEDS = (40, 41, 42)
FLEET, TRAINING, COMPARED = "2", "training", "routers"
SUM_UP_S = 10.0
FIGURES = ("TTFT mean", "TTFT p50", "TTFT p90", "TPOT mean", "throughput", "cached")
RANKED = ("TTFT mean", "TTFT p90", "TPOT mean", "cached")


@dataclass(frozen=True)
class Size:
    """How many requests, of which lengths, on workers with how much KV (GiB) and how many requests at once."""

    lengths: str
    burst: int
    training: int
    requests: int
    kv_gib: float
    max_batch: int


SIZES = {
    "cpu": Size("cpu, documents", 160, 160, 120, 0.016, 16),
    "cuda": Size("gpu, documents", 280, 240, 180, 5.0, 64),
}


def sections(session) -> tuple[str, ...]:
    """None on a machine with a single place for a worker."""
    return (SUSTAINED, TRAINING, *map(seed_section, SEEDS), COMPARED) if most_workers(session) > 1 else ()


def seed_section(seed: int) -> str:
    """What the section of a draw is called."""
    return f"seed {seed}"


def routing(session, report) -> None:
    """Fill in the sections."""
    size = SIZES[device_of(session)]
    setting = setting_of(session, kv_gib=size.kv_gib, max_batch=size.max_batch)
    report.earlier.pop(COMPARED, None)  # it is of all seeds that are there in the end
    with running(session, report, setting, int(FLEET)) as bench:
        use_first(bench, (FLEET,))
        _Routing(session, report, bench, size, setting.ahead).everything()


class _Routing:
    """Slices on the same two workers, with empty caches before each."""

    def __init__(self, session, report, bench, size: Size, ahead: bool) -> None:
        self.session, self.report, self.bench, self.size, self.ahead = session, report, bench, size, ahead
        self.terms: Terms | None = None

    def everything(self) -> None:
        burst = Slice("burst", FLEET, 1e4, self.size.burst, 1, lengths=self.size.lengths)
        points = self.report.run(SUSTAINED, lambda: burst_points(self.bench, burst, self.report))
        if not points:
            return
        self.rate = points[0]["value"]
        self.report.run(TRAINING, self._learn)
        kept = self.report.parts[TRAINING].get("terms")
        if not kept:
            return
        self.terms = terms_from(kept)
        for seed in SEEDS:
            self.report.run(seed_section(seed), lambda seed=seed: self._seed(seed))
        self.report.budget_s += max(0.0, SUM_UP_S - self.report.left_s)  # no device is needed for what is left
        self.report.run(COMPARED, lambda: compared(self._arms()))

    def _learn(self) -> Iterator[dict]:
        one = Slice(TRAINING, FLEET, TRAINING_LOAD, self.size.training, 2, "least_requests", lengths=self.size.lengths)
        run = self.bench.live(one, self.bench.workload(one, self.rate))
        terms = terms_of([run], self.ahead)
        self.report.note(TRAINING, terms=terms.record(), sha256=one.sha256(), samples=columns_of(run))
        yield point("way to a worker", terms.hop_s, "s", n=len(run.timelines))
        for kind, bias in terms.bias.items():
            yield point(f"{kind} steps by the cost", bias, "relative error", n=len(run.samples))

    def _seed(self, seed: int) -> Iterator[dict]:
        """Every router at every load on the draw of a seed, in random order."""
        arms = [(load, router) for load in LOADS for router in ROUTERS]
        for load, router in Random(f"routing/{seed}").sample(arms, len(arms)):
            one = Slice(
                f"{router} at {load:g}", FLEET, load, self.size.requests, seed, router, lengths=self.size.lengths
            )
            yield self._arm(one)

    def _arm(self, one: Slice) -> dict:
        """A live run and a simulated one of the same requests."""
        workload = self.bench.workload(one, self.rate)
        run = self.bench.live(one, workload, self.terms)
        pack = f"route_{self.session.preset}_{one.router}_{one.load:g}_{one.seed}.json.gz"
        write_pack(told_by(run, self.session, self.report), self.report.path.with_name(pack), steps=False)
        live = figures_of(self.bench, run)
        said = figures_of(self.bench, self.bench.experiment(one, workload, self.terms).run())
        broken = breaches(run.log, workload, workload.sha256)
        errors = {"served": error_of("TTFT mean", said["TTFT mean"], live["TTFT mean"])}
        about = {"load": one.load, "router": one.router, "seed": one.seed, "sha256": workload.sha256, "pack": pack}
        failed = {"failed": broken[0]} if broken else {}
        predicted = {"served": said["TTFT mean"]}
        told = {"n": len(run.timelines), "predicted": predicted, "errors": errors, "live": live, "simulated": said}
        return point(one.name, live["TTFT mean"], "s", **told, **about, **failed)

    def _arms(self) -> dict[float, dict[str, list[dict]]]:
        """The points of whole seeds, by load and router."""
        found: dict[float, dict[str, list[dict]]] = {load: {router: [] for router in ROUTERS} for load in LOADS}
        for seed in SEEDS:
            section = self.report.parts.get(seed_section(seed), {})
            if section.get("count") == len(LOADS) * len(ROUTERS):
                for one in section["points"]:
                    found[one["load"]][one["router"]].append(one)
        return found


def terms_from(kept: Mapping) -> Terms:
    """The terms that `Terms.record` wrote, of a fleet without a link."""
    return Terms(cost_from(kept["cost"]), kept["hop_s"], None, kept["counts"], kept["bias"])


def figures_of(bench, run: Run) -> dict[str, float]:
    """The figures of a run, with the share of prompt tokens that were found in a cache."""
    return {**bench.figures(run), "cached": cached_share(run)}


def cached_share(run: Run) -> float:
    """The share of the prompt tokens of finished requests that were found in a cache."""
    finished = [t for t in run.timelines if t.status == "finished"]
    return sum(t.cached_tokens for t in finished) / sum(t.prompt_tokens for t in finished)


def compared(arms: Mapping[float, Mapping[str, Sequence[dict]]]) -> Iterator[dict]:
    """Each figure of each arm over the seeds, live beside simulated; then whether the routers rank alike."""
    for load, routers in arms.items():
        live = {router: [one["live"] for one in ones] for router, ones in routers.items()}
        said = {router: [one["simulated"] for one in ones] for router, ones in routers.items()}
        if not all(live.values()):
            continue
        for router in routers:
            yield from _over_seeds(f"{router} at {load:g}", live[router], said[router])
        for figure in RANKED:
            yield _ranked(f"order at {load:g}: {figure}", figure, live, said)


def _over_seeds(name: str, live: Sequence[Figures], said: Sequence[Figures]) -> Iterator[dict]:
    for figure in FIGURES:
        if not all(figure in one for one in (*live, *said)):
            continue
        found, expected = [one[figure] for one in live], [one[figure] for one in said]
        by_seed = [error_of(figure, b, a) for a, b in zip(found, expected, strict=True)]
        errors = {"served": error_of(figure, fmean(expected), fmean(found))}
        told = {"predicted": {"served": fmean(expected)}, "errors": errors, "errors_by_seed": by_seed}
        yield point(f"{name}: {figure}", fmean(found), unit_of(figure), found, **told)


def _ranked(name: str, figure: str, live: Mapping[str, Sequence[Figures]], said: Mapping[str, Sequence[Figures]]):
    """The share of the pairs of routers that live means and simulated means rank alike; where live runs tell them apart
    over the seeds, every pair with its verdict."""
    means = {router: {figure: fmean(one[figure] for one in ones)} for router, ones in said.items()}
    found = {router: fmean(one[figure] for one in ones) for router, ones in live.items()}
    names = list(found)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    alike = sum((found[a] > found[b]) == (means[a][figure] > means[b][figure]) for a, b in pairs)
    apart = order(live, means, figure) if len(next(iter(live.values()))) > 1 else []
    orders = {
        "live": sorted(names, key=found.get),
        "simulated": sorted(names, key=lambda router: means[router][figure]),
        "told_apart": apart,
    }
    return point(name, alike / len(pairs), "share of pairs ranked alike", **orders, n=len(pairs))
