"""Records of split fleets and of steps with chunks, as chapter 3 reads them: the best of each kind, paired."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import NamedTuple

from helpers.bench.record.calibrating import samples_of
from helpers.bench.splits import BLIND, FACTORIAL, factorial
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


@dataclass(frozen=True, slots=True)
class StepsBeside:
    """Seconds of a step by the tokens of the one chunk in it; 0 tokens are the decodes alone.

    In all of them `decodes` requests attend to `kv_tokens` tokens together. `alone_at` are the contexts between which
    the decodes alone were measured, and `rounds` how often each step was.
    """

    decodes: int
    kv_tokens: int
    seconds: Mapping[int, float]
    alone_at: tuple[int, int]
    rounds: int

    @property
    def context(self) -> int:
        """Tokens that each of the decodes attends to."""
        return round(self.kv_tokens / self.decodes)

    @property
    def ms(self) -> list[float]:
        """The same in milliseconds, in order."""
        return [1e3 * one for one in self.seconds.values()]


def measured_beside(calibrate: Mapping, decodes: int) -> StepsBeside:
    """The designed steps with one chunk at the start of its prompt beside so many decodes, medians over the rounds.

    No decodes alone were measured at their very context: those lie on the line between their neighbours. `calibrate`
    is a record of the part of that name. Raises `InputError` where the steps with a chunk do not share one context, or
    have no such neighbours.
    """
    with_chunk, alone = defaultdict(list), defaultdict(list)
    for one in (s for s in samples_of(calibrate["samples"]) if s.decodes == decodes):
        if not one.chunks:
            alone[one.kv_tokens].append(one.seconds)
        elif len(one.chunks) == 1 and one.chunks[0][1] == 0:
            with_chunk[one.kv_tokens, one.chunks[0][0]].append(one.seconds)
    contexts = {kv_tokens for kv_tokens, _ in with_chunk}
    if len(contexts) != 1:
        raise InputError(f"steps of one chunk beside {decodes} decodes have {len(contexts)} contexts; one is needed")
    (kv_tokens,) = contexts
    below, above = [n for n in alone if n < kv_tokens], [n for n in alone if n > kv_tokens]
    if not below or not above:
        raise InputError(f"{decodes} decodes alone were not measured about {kv_tokens} tokens; calibrate again")
    low, high = max(below), min(above)
    share = (kv_tokens - low) / (high - low)
    seconds = {0: (1 - share) * median(alone[low]) + share * median(alone[high])}
    seconds |= {tokens: median(found) for (_, tokens), found in sorted(with_chunk.items())}
    rounds = min(len(found) for found in (*with_chunk.values(), alone[low], alone[high]))
    return StepsBeside(decodes, kv_tokens, seconds, (round(low / decodes), round(high / decodes)), rounds)


def modelled(cost: CostModel, measured: StepsBeside) -> StepsBeside:
    """What a model says of the same steps."""
    kv = measured.decodes, measured.kv_tokens
    return replace(measured, seconds={n: cost.step([(n, 0)] if n else [], *kv) for n in measured.seconds})


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


def counting(told: Mapping, split: str, tpot_s: float, slow_link: bool = False) -> dict[str, float]:
    """What a split carries more because its router counts the prompts on their way to decode workers, paired.

    Raises `InputError` when the record did not ask that split again by reports alone.
    """
    names = ("slow link", f"{BLIND}, slow link") if slow_link else ("long prompts", BLIND)
    asked = (rows_at(question_of(told, name), tpot_s) for name in names)
    with_it, without = ([row for row in rows if row["split"] == split] for rows in asked)
    if not with_it or not without:
        raise InputError(f"{names[1]}: no {split} at a TPOT of {tpot_s:g} s")
    return difference(with_it[0], without[0])


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
