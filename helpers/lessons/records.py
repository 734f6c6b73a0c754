"""Records of many runs, as pages read them: figures of an arm with their intervals, and how they read in a sentence."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean

from helpers.bench.fidelity.compared import compare as judged
from helpers.errors import InputError
from helpers.metrics.stats import compare, mean_interval
from helpers.paths import data_file

ROUTING = "engine_llama-8b_routing"


def record(folder: str, name: str) -> dict:
    """A record of `data/packs`, such as ("sim_4x1_h100", "cases"); raises `InputError` when it is not there."""
    return json.loads(data_file("packs", folder, f"{name}.json").read_text(encoding="utf-8"))


def arms_of(told: dict) -> dict[str, dict]:
    """The arms of a record of `simulate` or `price`, by name."""
    return {arm["arm"]: arm for arm in told["arms"]}


def case_of(told: dict, name: str, **where: object) -> list[dict]:
    """The rows of a case of `bench cases`, those in which each field of `where` has its value.

    Raises `InputError` for a case that is not there, and for one whose claim did not come out.
    """
    for case in told["cases"]:
        if case["name"] == name:
            if not case["holds"]:
                raise InputError(f"the claim of {name} did not come out; a page may not repeat it")
            return [row for row in case["rows"] if all(row[key] == value for key, value in where.items())]
    raise InputError(f"the record has no case {name}")


def with_interval(found: Mapping[str, float], digits: int = 2, scale: float = 1.0) -> str:
    """A mean and the ends of its interval as words, each multiplied by `scale`."""
    # Adding 0 to a rounded number takes the sign off a zero.
    mean, low, high = (f"{round(scale * found[key], digits) + 0.0:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def above_zero(found: Mapping[str, float]) -> bool:
    """Whether a difference is shown to be one upwards."""
    return found["low"] > 0


def below_zero(found: Mapping[str, float]) -> bool:
    """Whether a difference is shown to be one downwards."""
    return found["high"] < 0


def values(arm: dict, name: str) -> dict[int, float]:
    """A figure of an arm by seed; `knee.rate_per_s` lies one level down."""
    first, _, second = name.partition(".")
    rows = arm["replicates"]
    return {row["seed"]: row[name] if name in row else row[first][second] for row in rows}


def paired(told: dict, arm: str, reference: str, name: str = "knee.rate_per_s") -> dict[str, float]:
    """The difference arm - reference of a figure over the seeds of a record, each paired with itself."""
    arms = arms_of(told)
    found = compare(values(arms[arm], name), values(arms[reference], name))
    return asdict(found.difference)


def point_of(words: str) -> float:
    """The number among words such as `reports every 50 ms`."""
    return float(re.search(r"[\d.]+", words)[0])


def priced(told: dict) -> tuple[list[float], dict[str, list[dict]]]:
    """Of a record of `price`: its points, and for each router the difference of goodput to its own first point.

    An arm is called `router, point in words`; the point is the number among the words.
    """
    points: list[float] = []
    differences: dict[str, list[dict]] = {}
    for name, arm in arms_of(told).items():
        router, _, words = name.partition(", ")
        point = point_of(words)
        if point not in points:
            points.append(point)
        differences.setdefault(router, []).append(arm["difference"]["goodput_per_s"])
    return points, differences


@dataclass(frozen=True)
class Held:
    """A simulator held against live runs: how many figures with a goal had which verdict, and how policies rank.

    `pairs` of policies are told apart by the live runs on some figure, and `same` of them rank likewise. `worst` is
    the figure whose error is furthest beyond its goal, in words.
    """

    figures: int
    inside: int
    noise: int
    missed: int
    pairs: int
    same: int
    worst: str

    @property
    def verdicts(self) -> str:
        """How many figures have which verdict, in words."""
        return f"{self.inside} inside, {self.noise} noise, {self.missed} missed"

    @property
    def rank(self) -> str:
        """How many of the pairs that live runs tell apart rank likewise, in words."""
        return f"{self.same} of {self.pairs}"


def without_term(term: str, *records: dict, of: str = "") -> str:
    """The figure that is furthest beyond its goal without a term of the simulator, in words, beside its error with it.

    `term` is one of `errors_without` in records of `helpers.bench.fidelity`, which have it where it matters. With `of`,
    such as `TTFT mean of least_requests`, only that figure of arms with that name is looked at.
    """
    found = [
        (one["name"], figure, errors[figure["name"]])
        for told in records
        for one in told["held_out"]
        if (errors := one["errors_without"].get(term))
        for figure in one["figures"]
        if figure["goal"] and of in ("", f"{figure['name']} of {one['name']}")
    ]
    if not found:
        raise InputError(f"no record has errors without {term!r}; record it again")
    name, figure, error = max(found, key=lambda one: abs(one[2]) / one[1]["goal"])
    return f"{figure['name']} of {name}: {error:+.1%} without, {figure['error']:+.1%} with it"


def held_against_live(*records: dict) -> Held:
    """Records of `fidelity`, or the targets of one of `bench run --on engine`, taken together."""
    found = [(one["name"], f) for told in records for one in told["held_out"] for f in one["figures"] if f["goal"]]
    said = [figure["verdict"] for _, figure in found]
    pairs = [pair["same"] for told in records for pair in told["order_of_policies"]]
    name, worst = max(found, key=lambda one: abs(one[1]["error"]) / one[1]["goal"])
    counts = [said.count(verdict) for verdict in ("inside", "within noise", "missed")]
    words = f"{worst['name']} of {name}, {worst['error']:+.1%}"
    return Held(len(said), *counts, len(pairs), sum(pairs), words)


def routed_on(folder: str) -> dict:
    """What `routed_live` makes of the record of routing in a folder of `data/packs`."""
    return routed_live(record(folder, ROUTING))


def routed_live(told: dict) -> dict:
    """A record of `record --part routing` in the form of one of `fidelity`, its figures judged by the same rule.

    What is repeated are draws, not runs of the same requests: `of` says so.
    """
    points = told["parts"]["routers"]["points"]
    arms: dict[str, dict[str, dict]] = {}
    for one in (one for one in points if "told_apart" not in one):
        arm, _, figure = one["name"].partition(": ")
        arms.setdefault(arm, {})[figure] = one
    held = []
    for arm, found in arms.items():
        draws = zip(*(one["samples"] for one in found.values()), strict=True)
        live = [dict(zip(found, draw, strict=True)) for draw in draws]
        simulated = {figure: one["predicted"]["served"] for figure, one in found.items()}
        held.append({"name": arm, "figures": [one.record() for one in judged(live, simulated)]})
    pairs = [pair for one in points for pair in one.get("told_apart", ())]
    about = {"repeats": points[0]["n"], "of": "draws", "device": told["device"], "workers": told["workers"]}
    return {"held_out": held, "order_of_policies": pairs, **about}


def machine_of(told: dict) -> str:
    """What the live workers of a record ran on, in words: cores of a CPU, or GPUs."""
    if isinstance(device := told["device"], dict):
        return f"{device['cores']} cores of {device['name']}"
    return f"{told['workers'].partition(',')[0]} {device}"


def live_difference(
    told: dict, first: str, second: str, load: float | None = None, figure: str = "TTFT mean"
) -> dict[str, float]:
    """The live difference first - second of a figure, each draw or repeat paired with itself.

    `told` is of `routed_live`, whose arms have a load, or one of `fidelity`. Raises `InputError` for an arm it has not.
    """
    arms = {one["name"]: {figure["name"]: figure for figure in one["figures"]} for one in told["held_out"]}
    names = [router if load is None else f"{router} at {load:g}" for router in (first, second)]
    if missing := [name for name in names if name not in arms]:
        raise InputError(f"no live run of {missing[0]}; there are {', '.join(arms)}")
    samples = [arms[name][figure]["samples"] for name in names]
    return asdict(mean_interval([a - b for a, b in zip(*samples, strict=True)], unit="repeat"))


def ranking(told: dict, name: str = "knee.rate_per_s") -> list[str]:
    """The arms by the mean of a figure over their seeds, the lowest first."""
    means = {arm: fmean(values(one, name).values()) for arm, one in arms_of(told).items()}
    return sorted(means, key=means.get)


def most_moved(told: dict, other: dict, name: str = "knee.rate_per_s") -> int:
    """By how many places an arm moves at most between the rankings of two records of the same arms."""
    first, second = ranking(told, name), ranking(other, name)
    return max(abs(second.index(arm) - place) for place, arm in enumerate(first))
