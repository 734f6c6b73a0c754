"""A target: a question with everything about its answer declared before the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from helpers.bench.targets.upset import Upset
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run
from helpers.workload.request import Workload

GROUPS = ("routers", "disagg", "pipeline", "moe", "memory", "profiling")
UNDRAWN = Workload("drawn for each seed", ())
# What may be said of a variant beforehand: the verdicts of `helpers.bench.verdicts`.
PREDICTIONS = ("higher", "lower", "no effect")

Values = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number of each run: its name, its unit, what it is, and which way is better (None: neither)."""

    name: str
    unit: str
    meaning: str
    better: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave: statistics by name, the digests that another process must come to, and what was wrong.

    `wall_s` are the seconds of each timed repetition; `series` what was kept for figures.
    """

    values: Values
    workload_sha256: str
    digests: dict[str, str]
    breaches: tuple[str, ...] = ()
    wall_s: tuple[float, ...] = ()
    series: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A regime: a workload for each seed, the baseline, and variants that differ from it in one thing each.

    `draw(seed, requests)` makes the workload; `scale` times the requests that were asked for are drawn. `upset` goes
    wrong during the run. `predicted` says beforehand how the primary statistic
    of a variant will differ from the baseline's. Where `timed` is set, it is called instead of running the
    experiment: `timed(experiment, workload, seed, iterations)`.
    Raises `InputError` for a variant that changes nothing or two things, and for predictions of nothing.
    """

    name: str
    about: str
    draw: Callable[[int, int], Workload]
    baseline: Experiment
    variants: Mapping[str, Experiment]
    baseline_name: str
    scale: float = 1.0
    upset: Upset | None = None
    predicted: Mapping[str, str] = field(default_factory=dict)
    timed: Callable[[Experiment, Workload, int, int], Sample] | None = None
    primary: str | None = None  # where it is not the target's first
    planted: Experiment | None = None  # the baseline with a fault that must be found; None: on slow workers

    def __post_init__(self) -> None:
        for name, variant in self.variants.items():
            found = changes(self.baseline, variant)
            if len(found) != 1:
                what = " and ".join(found) or "nothing"
                raise InputError(f"scenario {self.name}: variant {name} changes {what}; change one thing at a time")
        for name, said in self.predicted.items():
            if name not in self.variants or said not in PREDICTIONS:
                known = ", ".join(PREDICTIONS)
                raise InputError(f"scenario {self.name}: {name} is predicted {said!r}; predict a variant: {known}")

    def workload(self, seed: int, requests: int) -> Workload:
        """The frozen draw of a seed, its upset applied."""
        drawn = self.draw(seed, round(requests * self.scale))
        return self.upset.load(drawn) if self.upset else drawn


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of a target somewhere else than where it was declared for."""

    hypothesis: str
    predicted: Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """A question and how it is answered.

    `measure(run, experiment, scenario)` gives the statistics of a run, those declared in `statistics`, the primary
    first. A variant has an effect when the interval of the paired difference over seeds excludes 0 and reaches beyond
    `margin` times the baseline; `control` names the scenario on which the negative controls are run. `frozen` has the
    beginning of the digest of each scenario's draw of seed 0 at `requests`: whoever changes a workload has to change
    it too, in plain sight. `extra` reads from all results together, such as a front.
    """

    name: str
    group: str
    question: str
    hypothesis: str
    statistics: tuple[Statistic, ...]
    scenarios: tuple[Scenario, ...]
    control: str
    measure: Callable[[Run, Experiment, Scenario], Values]
    series: Callable[[Run, Experiment, Scenario], dict] | None = None
    requests: int = 1200
    margin: float = 0.01
    extra: Callable[[dict], dict] | None = None
    frozen: Mapping[str, str] = field(default_factory=dict)
    live: bool = False  # measured on running workers: nothing is repeated to the last bit, and answers are compared
    unnoticed: Callable[[Experiment, Workload], list[str]] | None = None  # planted damage, where it is no event log's
    planted_about: str = ""
    on_one_device: Expectation | None = None  # of a live target of two roles, when they share a device
    on_a_gpu: "Target | None" = None  # the same question put to a GPU, with the load and the expectations of one
    least_equal: float = 0.95  # of the answers of live arms: in another batch rounding differs, and a near tie may turn
    where: str = ""  # a live target: what serves, on what
    timing: bool = True  # False: only answers and counts are looked at, and no effect is judged

    def __post_init__(self) -> None:
        names = [one.name for one in self.scenarios]
        if self.group not in GROUPS:
            raise InputError(f"target {self.name}: group {self.group!r}; use one of {', '.join(GROUPS)}")
        if len(set(names)) < len(names) or self.control not in names:
            raise InputError(f"target {self.name}: name each scenario once, the control {self.control!r} among them")
        if self.scenario(self.control).timed and not self.live:
            raise InputError(f"target {self.name}: the control {self.control!r} runs no experiment; name one that does")

    @property
    def full_name(self) -> str:
        """`group:name`."""
        return f"{self.group}:{self.name}"

    @property
    def primary(self) -> Statistic:
        """What the verdicts are about."""
        return self.statistics[0]

    def statistic(self, name: str) -> Statistic:
        """A declared statistic by its name."""
        return next(one for one in self.statistics if one.name == name)

    def scenario(self, name: str) -> Scenario:
        """A scenario by its name."""
        return next(one for one in self.scenarios if one.name == name)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of all scenarios, in order of appearance."""
        return tuple(dict.fromkeys(name for one in self.scenarios for name in one.variants))


# Fields of an experiment that make one policy together.
_POLICIES = {"router_parameters": "router", "admission_parameters": "admission", "scaler_parameters": "scaler"}
_APART = ("workload", "seed")


def changes(a: Experiment, b: Experiment) -> list[str]:
    """What two experiments differ in; a policy counts once with its parameters, each part of the fleet by itself."""
    found = [_POLICIES.get(f.name, f.name) for f in fields(a) if f.name not in _APART and _differ(a, b, f.name)]
    if "fleet" in found:
        parts = [f"fleet.{f.name}" for f in fields(a.fleet) if _differ(a.fleet, b.fleet, f.name)]
        found = [one for one in found if one != "fleet"] + parts
    return list(dict.fromkeys(found))


def _differ(a: object, b: object, name: str) -> bool:
    return getattr(a, name) != getattr(b, name)


def routed(baseline: Experiment, routers: Sequence[str], **parameters: dict) -> dict[str, Experiment]:
    """The baseline under each of these routers; `parameters` by router."""
    return {name: replace(baseline, router=name, router_parameters=parameters.get(name, {})) for name in routers}


def admitted(baseline: Experiment, policies: Sequence[str], **parameters: dict) -> dict[str, Experiment]:
    """The baseline under each of these admission policies; `parameters` by policy."""
    return {name: replace(baseline, admission=name, admission_parameters=parameters.get(name, {})) for name in policies}
