"""The part `fidelity`: live runs held against each other, and the simulator against them, fleet by fleet.

The code is that of `hybrid-serving fidelity`; what differs is the time there is. Slices are served to learn from once,
then those that are held out again and again, in random order, for as long as the section may take. On GPUs the burst is
learnt from too. What was learnt from is in the record step by step, and the first run of each slice that is held out is
a pack.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from time import perf_counter

from helpers.bench.engine.report import point
from helpers.bench.fidelity import gpus, plan
from helpers.bench.fidelity.calibrating import Learned, learn, steps_of
from helpers.bench.fidelity.checking import as_written, checks, controls
from helpers.bench.fidelity.compared import MISSED
from helpers.bench.fidelity.plan import Slice
from helpers.bench.fidelity.recorder import RANKED, Bench, Served, held_out, ordered, predict, serve
from helpers.bench.record.disagg import device_of
from helpers.bench.record.live import (
    SUSTAINED,
    burst_points,
    columns_of,
    most_workers,
    running,
    setting_of,
    steps_kept,
    told_by,
    use_first,
)
from helpers.cost.samples import StepSample
from helpers.serving.cluster_backend import ClusterRun
from helpers.serving.packs import write_pack

SECTIONS = {"one worker": "1", "two workers": "2", "1P1D": "1P1D"}
FEWEST, MOST = 3, 5  # repeats: what is tried, and what is enough
SUM_UP_S = 5.0


@dataclass(frozen=True)
class Asked:
    """The slices of a device with their digests; of each that is held out at most `most` requests are served.

    `learns_burst`: loads above that of the slices to learn from are held out too. What decodes take is concave in
    their number (a GPU does some more in hardly more time), so that a line through smaller batches is too steep.
    """

    burst: Slice
    learnt_from: tuple[Slice, ...]
    held_out: tuple[Slice, ...]
    frozen: dict[str, str]
    most: int | None = None
    learns_burst: bool = False


ASKED = {
    "cpu": Asked(plan.BURST, (plan.ONE, plan.TWO, plan.SPLIT), plan.HELD_OUT, plan.FROZEN, 120),
    "cuda": Asked(gpus.BURST, gpus.LEARNT_FROM, gpus.HELD_OUT, gpus.FROZEN, learns_burst=True),
}


def sections(session) -> tuple[str, ...]:
    """What this machine has workers for."""
    most = most_workers(session)
    return (SUSTAINED, *(name for name, fleet in SECTIONS.items() if most >= plan.described(fleet).workers))


def fidelity(session, report) -> None:
    """Fill in the sections `sustained` and one a fleet."""
    asked, setting = ASKED[device_of(session)], setting_of(session)
    fleets = {name: SECTIONS[name] for name in sections(session)[1:]}
    workers = max(plan.described(fleet).workers for fleet in fleets.values())
    with running(session, report, setting, workers) as bench:
        bench.most = asked.most
        use_first(bench, tuple(fleets.values()))
        points = report.run(SUSTAINED, lambda: burst_points(bench, asked.burst, report))
        burst = steps_kept(report.parts[SUSTAINED]["samples"]) if points and asked.learns_burst else ()
        for done, (name, fleet) in enumerate(fleets.items() if points else ()):
            until_s = perf_counter() + report.left_s / (len(fleets) - done)
            held = _Held(asked, fleet, points[0]["value"], burst, bench, setting.ahead, _Keeper(session, report, name))
            report.run(name, lambda held=held, until_s=until_s: held.points(until_s))


class _Keeper:
    """What a section of the record keeps of its live runs."""

    def __init__(self, session, report, section: str) -> None:
        self.session, self.report, self.section = session, report, section

    def note(self, **found: object) -> None:
        """Beside the points."""
        self.report.note(self.section, **found)

    def pack(self, run: ClusterRun, one: Slice) -> dict[str, str]:
        """Write the run as a pack; what the pack is called, and the digest of its requests."""
        name = f"live_{self.session.preset}_{one.name.replace(' ', '_')}.json.gz"
        write_pack(told_by(run, self.session, self.report), self.report.path.with_name(name))
        return {"pack": name, "sha256": run.provenance.workload_sha256}


class _Held:
    """The slices of one fleet."""

    def __init__(
        self,
        asked: Asked,
        fleet: str,
        rate: float,
        burst: Sequence[StepSample],
        bench: Bench,
        ahead: bool,
        kept: _Keeper,
    ) -> None:
        self.rate, self.bench, self.ahead, self.frozen, self.fleet = rate, bench, ahead, asked.frozen, fleet
        self.burst, self.kept = burst, kept
        self.learnt_from = [one for one in asked.learnt_from if one.fleet == fleet]
        self.plan = [one for one in asked.held_out if one.fleet == fleet]
        self.served = {one.name: Served(w, w.sha256) for one in self.plan for w in [bench.workload(one, rate)]}
        self.trained: dict[str, list[ClusterRun]] = {}
        self.steps: dict[str, list[StepSample]] = {}  # of the first run of each slice that is held out

    def points(self, until_s: float) -> Iterator[dict]:
        """A point a live run as it comes, then one a figure of each slice; everything else beside them."""
        yield from self._train()
        learned = learn(self.rate, self.trained, {self.fleet: self.learnt_from}, self.ahead, self.burst)
        yield from self._repeat(until_s)
        for one in self.plan:
            predict(one, self.bench, learned, self.served[one.name])
        found = self._found(learned)
        self.kept.note(**found)
        for one in found["held_out"]:
            yield from figure_points(one["name"], one["figures"])
        for one in (*found["checks"], *found["controls"]):
            yield point(one["name"], float(one["passed"]), "0 or 1", target=1.0, said=one["said"])

    def _train(self) -> Iterator[dict]:
        """Serve what is learnt from, once."""
        for one in self.learnt_from:
            run = self.bench.live(one, one.workload(self.rate))
            self.trained[one.name] = [run]
            found = self.bench.figures(run)
            yield point(f"{one.name}, learnt from", found["TTFT mean"], "s", figures=found, **self.kept.pack(run, one))
        self.kept.note(samples={name: columns_of(run) for name, (run,) in self.trained.items()})

    def _repeat(self, until_s: float) -> Iterator[dict]:
        """Serve every slice once a repeat, while there is time; after the fewest only as long as the section has it."""
        longest_s = 0.0
        for repeat in range(MOST):
            begun_s = perf_counter()
            left_s = self.kept.report.left_s - SUM_UP_S if repeat < FEWEST else until_s - begun_s
            if repeat > 1 and left_s < longest_s:
                return
            for one in Random(f"fidelity/{repeat}").sample(self.plan, len(self.plan)):
                served = self.served[one.name]
                run = serve(one, self.bench, None, served)
                live, about = served.live[-1], served.conditions[-1]
                if repeat == 0:
                    self.steps[one.name] = steps_of([run])
                    about = {**about, **self.kept.pack(run, one)}
                yield point(f"{one.name}, run {repeat}", live["TTFT mean"], "s", figures=live, **about)
            longest_s = max(longest_s, perf_counter() - begun_s)

    def _found(self, learned: Learned) -> dict:
        """With the names of a record of `hybrid-serving fidelity`, and beside them what says where an error is from."""
        written = (*self.learnt_from, *self.plan)
        return {
            "repeats": min(len(one.live) for one in self.served.values()),
            "sustained_per_s": self.rate,
            "calibration": [one.record() for one in self.learnt_from],
            "terms": {fleet: terms.record() for fleet, terms in learned.terms.items()},
            "terms_without_burst": {fleet: terms.record() for fleet, terms in learned.smaller.items()},
            "steps_by_the_cost": {one.name: self._biases(learned, one) for one in self.plan},
            "held_out": [held_out(one, self.served[one.name]) for one in self.plan],
            "order_of_policies": ordered(self.plan, self.served, RANKED),
            "checks": [as_written(written, self.frozen), *checks(self.served)],
            "controls": controls(self.served),
        }

    def _biases(self, learned: Learned, one: Slice) -> dict[str, dict[str, float]]:
        """How much longer the steps of a live run are by a cost than they took, by kind."""
        terms = {"served": learned.of(one)}
        if one.fleet in learned.smaller:
            terms["without burst"] = learned.smaller[one.fleet]
        return {name: known.biases(self.steps[one.name]) for name, known in terms.items()}


def figure_points(name: str, figures: Sequence[dict]) -> Iterator[dict]:
    """A point a figure of a slice: the live mean, what was predicted, the error, how far live runs are apart."""
    for one in figures:
        told = {} if one["goal"] is None else {"goal": one["goal"], "met": one["verdict"] != MISSED}
        about = {"errors": {"served": one["error"]}, "live_error": one["live_error"], "verdict": one["verdict"]}
        said = {"predicted": {"served": one["simulated"]}, **about, **told}
        live = one["live"]
        yield point(
            f"{name}: {one['name']}",
            live["mean"],
            one["unit"],
            one["samples"],
            low=live["low"],
            high=live["high"],
            level=live["level"],
            **said,
        )
