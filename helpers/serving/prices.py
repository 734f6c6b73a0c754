"""What imperfection costs: old views, wrong guesses of output lengths, several routers that do not speak.

Every arm is measured at each point, on the same draws at the same rate, and compared with its own first point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from helpers.errors import InputError
from helpers.serving.arms import Arms, entry_of
from helpers.serving.contest import Plan
from helpers.serving.draws import drawn
from helpers.serving.experiment import Experiment
from helpers.serving.knees import knee_of_seed
from helpers.workload.request import Workload

CONSTANT = "constant mean"


@dataclass(frozen=True)
class Price:
    """What is varied: how a point is written, the points unless others are given (the ideal first), how one is set."""

    form: str
    points: tuple[float, ...]
    set: Callable[[Experiment, float], Experiment]

    def label(self, point: float) -> str:
        """A point in words."""
        return self.form.format(point)


def old_views(experiment: Experiment, period_ms: float) -> Experiment:
    """Workers report every `period_ms` milliseconds; at 0 a policy sees them as they are."""
    telemetry = replace(experiment.fleet.telemetry, period_s=period_ms / 1e3)
    return replace(experiment, fleet=replace(experiment.fleet, telemetry=telemetry))


def wrong_guesses(experiment: Experiment, error: float) -> Experiment:
    """The admission policy guesses output lengths with a lognormal error; at 0 it knows them."""
    return _guessing(experiment, None, error)


def one_guess(experiment: Experiment, workload: Workload) -> Experiment:
    """The admission policy believes of every request that it has the mean output length."""
    return _guessing(experiment, round(fmean(r.output_tokens for r in workload)), 0.0)


def _guessing(experiment: Experiment, tokens: int | None, error: float) -> Experiment:
    admission = experiment.admission
    if "guess_error" not in {one.name for one in entry_of("admission", admission).parameters}:
        raise InputError(f"admission {admission} guesses no output lengths; use one that has a parameter guess_error")
    given = {**experiment.admission_parameters, "guess_tokens": tokens, "guess_error": error}
    return replace(experiment, admission_parameters=given)


def front_ends(experiment: Experiment, count: float) -> Experiment:
    """So many routers share the arrivals, each with a policy of its own that sees its own requests alone."""
    if count != int(count):
        raise InputError(f"{count:g} front ends cannot be; give whole numbers")
    return replace(experiment, routers=int(count))


PRICES = {
    "staleness": Price("reports every {:g} ms", (0, 10, 20, 50, 100, 200, 500), old_views),
    "lengths": Price("guess error {:g}", (0, 0.3, 0.6, 1.0), wrong_guesses),
    "front-ends": Price("front ends: {:g}", (1, 2, 4, 8), front_ends),
}


def price_of(what: str) -> Price:
    """A price by name; raises `InputError` for an unknown one."""
    if what not in PRICES:
        raise InputError(f"the price of {what!r} is unknown; use one of {', '.join((*PRICES, 'regret'))}")
    return PRICES[what]


def priced(arms: Arms, what: str, points: Sequence[float], workload: Workload) -> tuple[Arms, dict[str, str]]:
    """Every arm at every point, by names such as `dynamo, reports every 50 ms`, and with what each is compared.

    Each is compared with its own arm at the first point. Of `lengths`, the constant mean of `workload` is one more
    point. Raises `InputError` for a point given twice, and for one that cannot be.
    """
    price = price_of(what)
    chosen = tuple(points) or price.points
    if len(set(chosen)) < len(chosen):
        raise InputError(f"a point of the price of {what} was given twice; give each once")
    made: Arms = {}
    compared: dict[str, str] = {}
    for name, experiment in arms.items():
        first = f"{name}, {price.label(chosen[0])}"
        for point in chosen:
            made[f"{name}, {price.label(point)}"] = price.set(experiment, point)
        if what == "lengths":
            made[f"{name}, {CONSTANT}"] = one_guess(experiment, workload)
        compared |= {arm: first for arm in made if arm not in compared}
    return made, compared


def near_knee(experiment: Experiment, plan: Plan, target: float) -> float:
    """The knee of an arm under the first seed, in requests per second: where imperfection begins to matter.

    Raises `InputError` when no rate reaches the target.
    """
    seed = plan.seeds[0]
    found = knee_of_seed(experiment, drawn(plan.draws, seed), seed, target, plan.warmup_s).rate_per_s
    if found is None:
        raise InputError(f"no rate reaches an attainment of {target:g}, so there is no knee; give a rate")
    return found
