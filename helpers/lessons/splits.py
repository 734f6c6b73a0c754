"""Records of split fleets and of steps with chunks, as chapter 3 reads them: the best of each kind, paired."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from helpers.bench.splits import FACTORIAL, factorial
from helpers.cost.iteration import AffineCost, CostModel
from helpers.cost.roofline import RooflineCost
from helpers.cost.split import WIRES, Apart, Beside, HandOff, break_even_tokens, hand_off, link_of, moved_bytes
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.lessons.records import with_interval
from helpers.metrics.factorial import Effect
from helpers.metrics.stats import Comparison, compare
from helpers.models import Model, model

# Grouped-query attention, the same wider, experts with it, and multi-head latent attention: the GPUs that prefill.
SHOWN = {"llama-3.1-8b": 1, "llama-3.1-70b": 4, "qwen3-235b-a22b": 8, "deepseek-v3": 16}
# What is changed about the first question, and which questions hold the best whole and the best split fleet then.
CHANGED = {
    "as above": ("long prompts", "long prompts"),
    "prompts of 1,200, answers of 600": ("long answers", "long answers"),
    "two GPUs": ("two GPUs", "two GPUs"),
    "100 Gbit/s, blocking": ("long prompts", "slow link"),
    "step times of the data sheet": ("data sheet", "data sheet"),
}
CAPTURED = re.compile(r"(\d+) tokens beside (\d+) decodes, captured")


def question_of(told: Mapping, name: str) -> dict:
    """A question of a record of `bench splits`; raises `InputError` when it has none of that name."""
    for one in told["questions"]:
        if one["name"] == name:
            return one
    raise InputError(f"the record has no question {name!r}; it has {', '.join(q['name'] for q in told['questions'])}")


def cost_of(told: Mapping) -> AffineCost:
    """The step times that the record was simulated with."""
    return AffineCost(**told["calibration"]["coefficients"])


def rows_at(question: Mapping, tpot_s: float) -> list[dict]:
    """The arms of a question at a TPOT bound, those that carry something within it."""
    return [row for row in question["rows"] if row["tpot_s"] == tpot_s and row["knee"]]


def best(question: Mapping, tpot_s: float, split: bool) -> dict:
    """The arm with the highest mean knee among the split ones, or among those that are not.

    It is chosen on the draws that its interval is from, which flatters it a little. Raises `InputError` for no arm.
    """
    rows = [row for row in rows_at(question, tpot_s) if (row["split"] is not None) == split]
    if not rows:
        raise InputError(f"{question['name']}: no {'split' if split else 'whole'} fleet at a TPOT of {tpot_s:g} s")
    return max(rows, key=lambda row: row["knee"]["mean"])


def paired(row: Mapping, other: Mapping) -> Comparison:
    """Two arms over the seeds of the record, each draw with itself."""
    first, second = ({int(seed): knee for seed, knee in one["knees"].items()} for one in (row, other))
    return compare(first, second)


def difference(row: Mapping, other: Mapping) -> dict[str, float]:
    """The paired difference of two knees with its interval."""
    return asdict(paired(row, other).difference)


def times(row: Mapping, other: Mapping) -> dict[str, float]:
    """The paired ratio of two knees with its interval."""
    return asdict(paired(row, other).ratio)


def mixed_steps(engine: Mapping) -> dict[int, float]:
    """Seconds of a captured step by the tokens of its chunk, beside 32 decodes; 0 tokens are the decodes alone.

    `engine` is a record of the part `engine` of `hybrid-serving record`.
    """
    parts = engine["parts"]
    alone = next(one for one in parts["decode"]["points"] if one["name"] == "batch 32 overlapped loop")
    found = {0: alone["value"] / 1e3}
    for one in parts["mixed"]["points"]:
        if (match := CAPTURED.fullmatch(one["name"])) and match[2] == "32":
            found[int(match[1])] = one["value"] / 1e3
    return found


def modelled(cost: CostModel, measured: Mapping[int, float]) -> dict[int, float]:
    """What a model says of the steps of `mixed_steps`: 32 decodes at 1,024 tokens of context."""
    return {n: cost.step([(n, 0)] if n else [], 32, 32 * 1024) for n in measured}


@dataclass(frozen=True)
class Moved:
    """What one prompt moves: KV bytes a token, seconds of prefill, and the hand-off by wire."""

    name: str
    gpus: int
    per_token: float
    prefill_s: float
    by_wire: Mapping[str, HandOff]


def moved(part: GPU, prompt_tokens: int) -> list[Moved]:
    """A prompt of each model of `SHOWN`, prefilled in one step by the data sheet, on each wire of one GPU."""
    return [_moved(model(key), part, gpus, prompt_tokens) for key, gpus in SHOWN.items()]


def _moved(served: Model, part: GPU, gpus: int, prompt_tokens: int) -> Moved:
    prefill_s = RooflineCost(served, part, gpus).step([(prompt_tokens, 0)], 0, 0)
    size = moved_bytes(served, prompt_tokens)
    found = {wire: hand_off(link_of(part, wire), size, prefill_s, served.layers) for wire in WIRES}
    return Moved(served.name, gpus, served.kv_bytes_per_token(), prefill_s, found)


def links(part: GPU) -> dict[str, Link]:
    """The ways to hand over that the chapter compares, by name."""
    return {
        "NVLink, by layer": link_of(part, "nvlink"),
        "network card, by layer": link_of(part, "network"),
        "network card, blocking": link_of(part, "network", "blocking"),
    }


def break_evens(
    cost: CostModel, ways: Mapping[str, Link], served: Model, beside: Beside, cached: list[int], wait_s: float
) -> dict[str, list[int | None]]:
    """The break-even of uncached tokens by way to hand over, after each number of cached ones."""
    return {
        name: [break_even_tokens(cost, link, served, beside, n, wait_s) for n in cached] for name, link in ways.items()
    }


def bounds(pools: Apart, rows: list[dict], gpus: int) -> dict[str, float]:
    """The bound of each split among the rows, a GPU."""
    counts = {row["split"]: row["split"].removesuffix("D").split("P") for row in rows}
    return {split: pools.per_s(int(p), int(d)) / gpus for split, (p, d) in counts.items()}


class Regime(NamedTuple):
    """The best fleet of each kind, and how much more the split one carries."""

    together: dict
    apart: dict
    difference: dict[str, float]

    @property
    def times(self) -> dict[str, float]:
        """How many times as much the split fleet carries."""
        return times(self.apart, self.together)


def regime(whole: Mapping, divided: Mapping, tpot_s: float) -> Regime:
    """The best whole fleet of one question beside the best split one of another."""
    together, apart = best(whole, tpot_s, False), best(divided, tpot_s, True)
    return Regime(together, apart, difference(apart, together))


def paces(question: Mapping, tpots_s: list[float]) -> dict[str, Regime]:
    """Both kinds at each TPOT bound."""
    return {f"{1e3 * t:.0f} ms": regime(question, question, t) for t in tpots_s}


def regimes(told: Mapping, cases: Mapping[str, tuple[str, str]], tpot_s: float) -> dict[str, Regime]:
    """By name, from the questions of the best whole and of the best split fleet: a link changes the latter alone."""
    return {
        name: regime(question_of(told, whole), question_of(told, divided), tpot_s)
        for name, (whole, divided) in cases.items()
    }


def crossed(told: Mapping) -> dict[str, Effect]:
    """The effects of the factorial in a record, by name."""
    return {one.name: one for one in factorial(question_of(told, FACTORIAL))}


def arm(told: Mapping, router: str, split: str | None, chunk_tokens: int) -> dict:
    """One cell of the factorial."""
    wanted = router, split, chunk_tokens
    rows = question_of(told, FACTORIAL)["rows"]
    return next(row for row in rows if (row["router"], row["split"], row["chunk_tokens"]) == wanted)


def said(effect: Effect) -> str:
    """An effect with its interval as words."""
    return with_interval(asdict(effect.interval))
