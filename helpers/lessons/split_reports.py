"""Part 3 of lab 3: four reports about a faster hand-off, three of them wrong in a way that can be found."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from statistics import fmean

from helpers.lessons.live_hand_off import LARGEST, Live, live
from helpers.lessons.matching import match
from helpers.lessons.split_choice import GPUS, Setup, goodputs
from helpers.metrics.stats import compare
from helpers.serving.cluster_backend import ClusterRun

FLAWS = ("start-up in the clock", "a test that zeros pass", "two changes at once", "none")
ANSWERS = {
    "A": "two changes at once",
    "B": "start-up in the clock",
    "C": "none",
    "D": "a test that zeros pass",
}
WHERE = {
    "A": "look at what differs between its arms, and at the arms between them",
    "B": "look at what its seconds are made of",
    "C": "test it for each of the three flaws in turn",
    "D": "look at what its test says of KV that was never sent",
}
NVLINK_GB_PER_S, CARD_GB_PER_S = 396.0, 25.0
BEFORE, AFTER = f"{LARGEST} blocking", f"{LARGEST} layerwise"
ZEROS = f"{AFTER}, zero_cache"


@dataclass(frozen=True)
class Findings:
    """Facts about one arm of a report; None where there is nothing to say.

    `differs` names what is another than in the first arm. `clock_s` is the time on the clock of the wall, of which
    `startup_s` passed until the workers were ready. `goodput_per_s` is the mean of `draws` at their knees. `compared`
    tokens were held against a run without hand-off, `equal` of them are the same.
    """

    differs: str = "–"
    clock_s: float | None = None
    startup_s: float | None = None
    draws: int | None = None
    goodput_per_s: float | None = None
    compared: int | None = None
    equal: int | None = None


@dataclass(frozen=True)
class Report:
    """What somebody claims, and what can be found out about its arms, the one claimed first and second."""

    claim: str
    arms: Mapping[str, Findings]


def reports() -> dict[str, Report]:
    """The four reports. Every figure in a claim is that of its runs: what is wrong is what it is taken to mean."""
    return {"A": nvlink(), "B": clocked(live()), "C": card(), "D": first_tokens(live())}


def nvlink() -> Report:
    """Another mover and another router, and the gain of both is said to be that of one."""
    before = Setup("2P2D", GPUS, 2048, "round_robin", NVLINK_GB_PER_S, "blocking")
    after = replace(before, router="least_tokens", mode="layerwise")
    claim = f"Over NVLink the hand-off layer by layer makes a 2P2D carry {gain(before, after)} than the blocking one."
    return Report(claim, simulated(before, after))


def card() -> Report:
    """One change, five draws, paired."""
    before = Setup("2P2D", GPUS, 2048, "least_tokens", CARD_GB_PER_S, "blocking")
    after = replace(before, mode="layerwise")
    claim = (
        f"Over a link of {CARD_GB_PER_S:g} GB/s the hand-off layer by layer makes a 2P2D carry {gain(before, after)} "
        "than the blocking one."
    )
    return Report(claim, simulated(before, after))


def clocked(seen: Live) -> Report:
    """Two live runs, of which one had to wait for its workers."""
    ratio = seen.clock_s[BEFORE] / seen.clock_s[AFTER]
    claim = (
        f"On four processes the eight requests took {seen.clock_s[BEFORE]:.1f} s with the blocking hand-off and "
        f"{seen.clock_s[AFTER]:.1f} s layer by layer: {ratio:.1f} times as fast."
    )
    arms = {
        "blocking": Findings(clock_s=seen.clock_s[BEFORE], startup_s=seen.startup_s, draws=1),
        "layer by layer": Findings("mover", seen.clock_s[AFTER], 0.0, 1),
    }
    return Report(claim, arms)


def first_tokens(seen: Live) -> Report:
    """A comparison of first tokens, which the prefill worker gives before anything is handed over."""
    whole, arms = seen.runs["whole"], {}
    for name, run, differs in (("layer by layer", AFTER, "–"), ("zeros in place of the KV", ZEROS, "KV")):
        compared, equal = same_first_tokens(whole, seen.runs[run])
        arms[name] = Findings(differs, draws=1, compared=compared, equal=equal)
    one = arms["layer by layer"]
    claim = f"{one.equal} of {one.compared} answers begin as without a hand-off: layer by layer, the KV arrives whole."
    return Report(claim, arms)


def same_first_tokens(whole: ClusterRun, split: ClusterRun) -> tuple[int, int]:
    """How many first tokens were compared, and how many of them are equal."""
    pairs = [(tokens[0], split.tokens[request][0]) for request, tokens in whole.tokens.items()]
    return len(pairs), sum(a == b for a, b in pairs)


def gain(before: Setup, after: Setup) -> str:
    """How much more one fleet carries than another, with the interval over the paired draws."""
    ratio = compare(goodputs(after), goodputs(before)).ratio
    points = [f"{100 * (value - 1):.0f}" for value in (ratio.mean, ratio.low, ratio.high)]
    return f"{points[0]} % more ({points[1]} to {points[2]}, {len(ratios_of(before, after))} draws)"


def ratios_of(before: Setup, after: Setup) -> list[float]:
    """The ratio of goodput on each draw."""
    first, second = goodputs(before), goodputs(after)
    return [second[seed] / first[seed] for seed in first]


def simulated(before: Setup, after: Setup) -> dict[str, Findings]:
    """Two fleets, and those between them that have one change each, where there is more than one."""
    names = [one.name for one in fields(Setup) if getattr(before, one.name) != getattr(after, one.name)]
    found = {"before": before, "after": after}
    if len(names) > 1:
        found |= {f"{_word(name)} alone": replace(before, **{name: getattr(after, name)}) for name in names}
    return {name: _found(one, before) for name, one in found.items()}


def _found(setup: Setup, before: Setup) -> Findings:
    names = [_word(one.name) for one in fields(Setup) if getattr(before, one.name) != getattr(setup, one.name)]
    values = goodputs(setup)
    return Findings(", ".join(names) or "–", draws=len(values), goodput_per_s=fmean(values.values()))


def _word(name: str) -> str:
    return "mover" if name == "mode" else name


def judge_flaws(given: Mapping[str, str]) -> str | None:
    """Whether each report is matched with its flaw, one of `FLAWS`."""
    return match(given, ANSWERS, FLAWS, WHERE)
