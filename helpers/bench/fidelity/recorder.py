"""Calibrate, predict, serve, compare: everything that was asked and found, as one record of plain values."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from math import isclose
from random import Random
from time import perf_counter

from helpers.bench.fidelity.calibrating import Learned, learn, slices_for, sustained
from helpers.bench.fidelity.checking import as_written, checks, controls
from helpers.bench.fidelity.compared import Figures, compare, figures, order
from helpers.bench.fidelity.plan import BURST, FROZEN, Slice, described, experiment, refuse_what_cannot_be_timed
from helpers.bench.fidelity.setting import BLOCK_TOKENS, BOUND, CPU, TRAFFIC, Setting
from helpers.bench.fidelity.terms import Terms
from helpers.bench.verification import breaches
from helpers.checkout import commit
from helpers.errors import InputError
from helpers.hardware import hardware_key, probe_cpu
from helpers.serving import provenance as made
from helpers.serving.cluster_backend import ClusterRun, workers_for
from helpers.serving.experiment import Experiment
from helpers.simulator.views import Telemetry
from helpers.workload.request import Workload

FORMAT = "hybrid-serving fidelity 1"
PLANTED = 1.3  # times the cost of a step: what the comparison must call wrong
REPORTS, LARGE_STEPS = (
    "reports by step",
    "steps as large as those served",
)  # terms that are left out, to see what each does
RANKED = ("TTFT mean", "TPOT mean")
Tick = Callable[[int], None]


@dataclass
class Served:
    """What became of one configuration: the digest of its requests, figures of each live run, what was wrong.

    `without` a term is what the simulator would have said: by views of the moment, by a cost learnt at less load.
    """

    workload: Workload
    sha256: str
    simulated: Figures = field(default_factory=dict)
    planted: Figures = field(default_factory=dict)  # by a cost that is wrong
    live: list[Figures] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    conditions: list[dict] = field(default_factory=list)
    without: dict[str, Figures] = field(default_factory=dict)


class Bench:
    """Running workers, and how slices are served on them; no slice has more than `most` requests."""

    def __init__(self, crew, most: int | None = None, shares: bool = False, setting: Setting = CPU) -> None:
        self._options, self._setting = setting.options(crew), setting
        self.limits, self.most, self._shares = crew.limits, most, shares

    def workload(self, one: Slice, rate: float) -> Workload:
        """The requests of a slice, at most so many of them."""
        return one.workload(rate, self.most)

    def live(self, one: Slice, workload: Workload, terms=None) -> ClusterRun:
        """Serve a slice."""
        options = replace(self._options, limit_s=workload.requests[-1].arrival_s + self._setting.drain_s)
        return self.experiment(one, workload, terms).run(on="engine", engine=options)

    def experiment(self, one: Slice, workload: Workload, terms: Terms | None) -> Experiment:
        """The slice as a question that either backend answers."""
        return experiment(one, workload, self.limits, terms, self._setting)

    def simulated(self, one: Slice, workload: Workload, terms, telemetry: Telemetry | None = None) -> Figures:
        """What the simulator says of a slice; `telemetry` in place of that of the workers."""
        asked = self.experiment(one, workload, terms)
        if telemetry is not None:
            asked = replace(asked, fleet=replace(asked.fleet, telemetry=telemetry))
        return self.figures(asked.run())

    def figures(self, run) -> Figures:
        """The figures of a run of either kind."""
        return figures(run, BOUND if self._shares else None)


def turns(plan: Sequence[Slice], learnt_from: Sequence[Slice], repeats: int, order_seed: int) -> list[Slice]:
    """Each slice once a repeat, in an order drawn anew for each; the first repeat begins with what is learnt from."""
    rng = Random(f"fidelity/{order_seed}")
    found = [*learnt_from, *rng.sample(list(plan), len(plan))]
    every = [*learnt_from, *plan]
    return found + [one for _ in range(repeats - 1) for one in rng.sample(every, len(every))]


def record(
    plan: Sequence[Slice],
    command: str,
    repeats: int = 5,
    order_seed: int = 0,
    most: int | None = None,
    shares: bool = False,
    ranked: Sequence[str] = RANKED,
    frozen: Mapping[str, str] = FROZEN,
    tick: Tick = lambda _: None,
) -> dict:
    """Everything about a plan. `most` lets no configuration have more requests; `shares` adds who was rejected or in
    time.

    Policies are ranked by the figures of `ranked`; `frozen` has the digests that were written down before.

    Raises `InputError` for fewer than two repeats, and for fleets that cannot be timed on this machine.
    """
    if repeats < 2:
        raise InputError(f"{repeats} repeats show no spread; give 2 or more (the goal is judged with 5)")
    if not plan:
        raise InputError("no configuration is left to be served; name one of the plan")
    refuse_what_cannot_be_timed([one.fleet for one in plan])
    start, began = perf_counter(), os.getloadavg()
    workers = max(one.workers for one in plan)
    learnt_from = slices_for(plan)
    queue = turns(plan, learnt_from, repeats, order_seed)
    with workers_for(described(str(workers)), BLOCK_TOKENS, CPU.options()) as crew:
        bench = Bench(crew, most, shares)
        runs = {BURST.name: [bench.live(BURST, BURST.workload(1.0))]}  # what is learnt from is always whole
        rate = sustained(runs[BURST.name][0])
        served = {one.name: Served(w, w.sha256) for one in plan for w in [bench.workload(one, rate)]}
        tick(1)
        for done, one in enumerate(queue, 2):
            if one in learnt_from:
                runs.setdefault(one.name, []).append(bench.live(one, one.workload(rate)))
            else:
                serve(one, bench, learn(rate, runs).of(one) if one.told else None, served[one.name])
            tick(done)
    learned = learn(rate, runs)
    for one in plan:
        predict(one, bench, learned, served[one.name])
    found = {
        "format": FORMAT,
        "kind": "measured beside simulated",
        **about(command, (began, os.getloadavg())),
        "wall_s": perf_counter() - start,
        "seeds": [one.seed for one in plan],
        "repeats": repeats,
        "order_seed": order_seed,
        "order": [one.name for one in queue],
        "workload_sha256": {name: one.sha256 for name, one in served.items()},
        "traffic": TRAFFIC,
        "sustained_per_s": learned.sustained_per_s,
        "calibration": [one.record() for one in (BURST, *learnt_from)],
        "terms": {fleet: terms.record() for fleet, terms in learned.terms.items()},
        "held_out": [held_out(one, served[one.name]) for one in plan],
        "order_of_policies": ordered(plan, served, ranked),
        "checks": [as_written((BURST, *learnt_from, *plan), frozen), *checks(served)],
        "controls": controls(served),
    }
    found["sound"] = all(one["passed"] for one in (*found["checks"], *found["controls"]))
    return found


def predict(one: Slice, bench: Bench, learned: Learned, served: Served) -> None:
    """Let the simulator say what the slice comes to by its terms, without one of them, and by a cost that is wrong."""
    terms, smaller = learned.of(one), learned.without_large_steps(one)
    served.simulated = bench.simulated(one, served.workload, terms)
    served.without[REPORTS] = bench.simulated(one, served.workload, terms, Telemetry())
    served.without[LARGE_STEPS] = bench.simulated(one, served.workload, smaller)
    served.planted = bench.simulated(one, served.workload, terms.slowed(PLANTED))


def serve(one: Slice, bench: Bench, terms: Terms | None, served: Served) -> ClusterRun:
    """Serve the slice once more."""
    run = bench.live(one, served.workload, terms)
    served.broken += breaches(run.log, served.workload, served.sha256)
    served.live.append(bench.figures(run))
    late = sorted(run.lateness_s)
    served.conditions.append({"load_average": os.getloadavg()[0], "lateness_p50_s": late[len(late) // 2]})
    return run


def held_out(one: Slice, served: Served) -> dict:
    """What was asked, what was said, and what was found of a configuration."""
    return {
        **one.record(),
        "requests": len(served.workload),
        "offered_per_s": len(served.workload) / served.workload.requests[-1].arrival_s,
        "frozen_sha256": one.sha256(),
        "conditions": served.conditions,
        "figures": [one.record() for one in compare(served.live, served.simulated)],
        "errors_without": errors_without(served),
    }


def errors_without(served: Served) -> dict[str, dict[str, float]]:
    """The errors without each of the terms that make a difference here."""
    found = {}
    for term, said in served.without.items():
        if not all(isclose(said[name], value, rel_tol=1e-6) for name, value in served.simulated.items()):
            found[term] = {one.name: one.error for one in compare(served.live, said)}
    return found


def ordered(plan: Sequence[Slice], served: Mapping[str, Served], figures: Sequence[str]) -> list[dict]:
    """How policies that got the very same requests rank, live and simulated."""
    found = []
    for sha256 in dict.fromkeys(one.sha256 for one in served.values()):
        same = [one.name for one in plan if served[one.name].sha256 == sha256]
        if len(same) > 1:
            live, said = {name: served[name].live for name in same}, {name: served[name].simulated for name in same}
            found += [pair for figure in figures for pair in order(live, said, figure)]
    return found


def about(command: str, loads: tuple[tuple[float, ...], tuple[float, ...]]) -> dict:
    """The machine, the software, and how busy others kept it."""
    device = probe_cpu()
    packages = {name: version(name) for name in ("torch", "numpy", "pyzmq")}
    return {
        "command": command,
        "hardware_key": hardware_key(device),
        "device": asdict(device),
        "commit": commit(),
        "made": made.now_utc(),
        "versions": {**made.versions(), **packages},
        "load_average": {"before": list(loads[0]), "after": list(loads[1])},
    }
