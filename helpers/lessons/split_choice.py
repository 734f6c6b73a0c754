"""Part 2 of lab 3: a split of four GPUs under an SLO, held against workers that do both, and the link that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, median

from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.lessons.hand_off import COST
from helpers.lessons.verdict import answer
from helpers.metrics.goodput import goodput
from helpers.metrics.latency import tpot_s, ttft_s
from helpers.metrics.series import arrived
from helpers.metrics.stats import Comparison, compare
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.serving.knees import counted, knee_of_seed
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

GPUS = 4
PROMISE = SLO(ttft_s=1.0, tpot_s=0.012)
TARGET, REQUESTS, WARM_UP = 0.9, 600, 100
DRAWN_PER_S = 18.0  # where the draws are made, and the search for a knee begins
DRAWS = (1, 2, 3, 4, 5)
# The first 16 digits of each draw's SHA-256, so that every answer is measured on the same.
FROZEN = {
    1: "bf19e64ffdb47704",
    2: "9d5e32be514e3928",
    3: "4b2a9bae21f94e8d",
    4: "b7c8485a2fe5246b",
    5: "6f09e91c21b87e5f",
}
CHUNKS = (256, 512, 1024, 2048)
ROUTERS = ("round_robin", "least_requests", "least_tokens")
FIGURES = ("goodput at the knee", "TTFT at 24 requests/s")
BELOW_PER_S, PAST_PER_S = 10.0, 24.0  # rates below the knees of both sides of a good answer, and past them
GAIN = 1.3
FASTEST_GB_PER_S = 10_000
NOT_WEAKER = 0.97  # of the best rival's goodput, at least: else it is a straw man
NEAR_TRUTH = 3  # a threshold is right within this factor


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet of the lab: a `split`, or None for `workers` that do both. `gb_per_s` None: the GPUs' own 400G cards."""

    split: str | None
    workers: int
    chunk_tokens: int
    router: str
    gb_per_s: float | None = None
    mode: str = "layerwise"

    def fleet(self) -> Fleet:
        """As it is simulated, with step times fitted to measured ones."""
        link = Link(1.0e-3, 1e9 * self.gb_per_s, self.mode) if self.gb_per_s else None
        return Fleet(
            workers=self.workers,
            split=self.split,
            chunk_tokens=self.chunk_tokens,
            link=link,
            link_mode=self.mode,
            cost=COST,
        )


@cache
def draw(seed: int) -> Workload:
    """One draw of long prompts with short answers. Raises `InputError` when it is not the frozen one."""
    lengths = {"prompt_tokens": "lognormal:3000:0.6", "output_tokens": "lognormal:150:0.6"}
    made = generate("poisson", rate_per_s=DRAWN_PER_S, requests=REQUESTS, seed=seed, **lengths)
    frozen = FROZEN.get(seed)
    if frozen is not None and made.sha256[: len(frozen)] != frozen:
        raise InputError(f"draw {seed} of the long prompts is not the frozen one; take the course's own release")
    return made


def experiment(setup: Setup, seed: int) -> Experiment:
    """One draw on a fleet."""
    return Experiment(draw(seed), setup.fleet(), setup.router, slo=PROMISE, seed=seed)


@cache
def knee(setup: Setup, seed: int) -> tuple[float, float]:
    """The knee on a draw and the goodput there, in requests/s (0 for none)."""
    one = experiment(setup, seed)
    found = knee_of_seed(one, one.workload, seed, TARGET, one.workload.requests[WARM_UP].arrival_s, DRAWN_PER_S)
    return found.rate_per_s or 0.0, found.goodput_per_s or 0.0


def goodputs(setup: Setup, seeds: tuple[int, ...] = DRAWS) -> dict[int, float]:
    """Goodput at the knee by draw."""
    return {seed: knee(setup, seed)[1] for seed in seeds}


@dataclass(frozen=True)
class Look:
    """What one run says after its warm-up: shares of the requests that miss a bound, and the median TTFT."""

    ttft_missed: float
    tpot_missed: float
    ttft_p50_s: float
    goodput_per_s: float


def look(setup: Setup, rate_per_s: float, seed: int = DRAWS[0]) -> Look:
    """Run a fleet with the requests of a draw coming at a rate."""
    one = experiment(setup, seed)
    workload = one.workload.at_rate(rate_per_s / offered_per_s(one.workload))
    log = replace(one, workload=workload).run().log
    window = counted(workload, workload.requests[WARM_UP].arrival_s)
    timelines = arrived(log.timelines, window)
    firsts, paces = ([of(t) or 0.0 for t in timelines] for of in (ttft_s, tpot_s))
    return Look(
        fmean(first > PROMISE.ttft_s for first in firsts),
        fmean(pace > PROMISE.tpot_s for pace in paces),
        median(firsts),
        goodput(log, PROMISE, window).per_s,
    )


# What a learner says


def chosen(own: Mapping) -> Setup:
    """The fleet of an answer: its split, its chunks and its router."""
    split = str(answer(own)["split"])
    return Setup(split.upper(), len(parse_split(split)), own["chunk_tokens"], own["router"])


def rival_of(defence: Mapping) -> Setup:
    """The workers that do both, of an answer."""
    rival = answer(answer(defence)["rival"])
    return Setup(None, rival["workers"], rival["chunk_tokens"], rival["router"])


def duel(own: Mapping, defence: Mapping) -> dict[str, tuple[Setup, Look, Look, dict[int, float]]] | None:
    """Both sides of an answer on the draws that it names: a look below the knees, one past them, and goodput by draw.

    None while the answer is not given, or is none.
    """
    if _unlike(own, defence) is not None:
        return None
    sides, draws = {"split": chosen(own), "together": rival_of(defence)}, tuple(defence["draws"])
    return {
        name: (one, look(one, BELOW_PER_S), look(one, PAST_PER_S), goodputs(one, draws)) for name, one in sides.items()
    }


def unlike_fleet(own: object) -> str | None:
    """Why a fleet cannot be tried, None when it can."""
    if not isinstance(own, Mapping) or set(own) != {"split", "chunk_tokens", "router"}:
        return "the fleet is a dict with split, chunk_tokens and router"
    try:
        parse_split(str(own["split"]))
    except InputError as error:
        return str(error)
    return _unknown(own)


def _unknown(side: Mapping) -> str | None:
    for name, known in (("chunk_tokens", CHUNKS), ("router", ROUTERS)):
        if side[name] not in known:
            return f"{name} is {side[name]!r}; this lab knows {', '.join(map(str, known))}"
    return None


def _unlike(own: object, defence: object) -> str | None:
    """Why answers cannot be tried, None when they can."""
    if hint := unlike_fleet(own):
        return hint
    if not isinstance(defence, Mapping) or set(defence) != {"rival", "figure", "draws"}:
        return "the defence is a dict with rival, figure and draws"
    rival = defence["rival"]
    if not isinstance(rival, Mapping) or set(rival) != {"workers", "chunk_tokens", "router"}:
        return "the rival is a dict with workers, chunk_tokens and router"
    if hint := _unknown(rival):
        return f"the rival's {hint}"
    if not isinstance(rival["workers"], int) or not 1 <= rival["workers"] <= 16:
        return f"the rival has {rival['workers']!r} workers; give a number from 1 to 16"
    draws = defence["draws"]
    if not isinstance(draws, list | tuple) or not draws or any(one not in DRAWS for one in draws):
        return f"the draws are some of {', '.join(map(str, DRAWS))}"
    return None if defence["figure"] in FIGURES else f"the figure is one of {', '.join(FIGURES)}"


# The judges


def judge_split(own: Mapping, defence: Mapping) -> str | None:
    """Whether a split carries more than the best co-located rival on as many GPUs, and is fairly held against it."""
    if isinstance(defence, Mapping):
        answer(defence.get("rival"))
    hint = _unlike(own, defence)
    if hint:
        return hint
    split, rival = chosen(own), rival_of(defence)
    for name, side in (("split", split), ("rival", rival)):
        if side.workers != GPUS:
            return f"unequal GPUs: the {name} has {side.workers} and there are {GPUS}; more GPUs carry more anyway"
    if len(set(defence["draws"])) < len(DRAWS):
        draws = "one draw has no interval" if len(set(defence["draws"])) == 1 else "the more draws, the better"
        return f"{draws}, and what wins on it may lose on the next; there are {len(DRAWS)}"
    if defence["figure"] != FIGURES[0]:
        return _past_the_knee(split, rival)
    return _straw_man(rival) or _beaten(split, rival)


def _past_the_knee(split: Setup, rival: Setup) -> str:
    knees = [fmean(knee(side, seed)[0] for seed in DRAWS) for side in (split, rival)]
    past = " and ".join(f"{one:.1f}" for one in knees)
    return (
        f"TTFT at {PAST_PER_S:g} requests/s is past the knees of both sides ({past} requests/s): there it tells how "
        "long the queue has been growing, not what a fleet can promise"
    )


def best_rival() -> Setup:
    """The co-located workers with the most goodput of all chunk sizes, under the router that counts tokens."""
    return max((_together(chunk) for chunk in CHUNKS), key=lambda one: fmean(goodputs(one).values()))


def _together(chunk_tokens: int) -> Setup:
    return Setup(None, GPUS, chunk_tokens, "least_tokens")


def _straw_man(rival: Setup) -> str | None:
    best = best_rival()
    own, most = (fmean(goodputs(one).values()) for one in (rival, best))
    if own >= NOT_WEAKER * most:
        return None
    told = f"your rival is a straw man: {own:.1f} requests/s, and the same GPUs together can carry more"
    if rival.router != best.router:
        return f"{told}; give it the router that you would give yourself"
    size = "large: each one holds up all decodes of its worker" if rival.chunk_tokens > best.chunk_tokens else "small"
    return f"{told}; its chunks are too {size}"


def _beaten(split: Setup, rival: Setup) -> str | None:
    found = compare(goodputs(split), goodputs(rival))
    if found.difference.low > 0 and found.a.mean >= GAIN * found.b.mean:
        return None
    told = _told(found)
    seen = look(split, GAIN * fmean(knee(rival, seed)[0] for seed in DRAWS))
    beyond = f"At a rate {GAIN - 1:.0%} beyond the rival's knee"
    if seen.tpot_missed > seen.ttft_missed:
        return f"{told}. {beyond} {seen.tpot_missed:.0%} miss their TPOT: too few workers decode"
    late = f"{beyond} {seen.ttft_missed:.0%} miss their TTFT"
    if split.chunk_tokens < max(CHUNKS):
        return f"{told}. {late}: each chunk costs a step, and a prefill worker has no decodes that a long one holds up"
    if split.router != "least_tokens":
        return f"{told}. {late}: its router does not look at how long the prompts are"
    return f"{told}. {late}: too few workers prefill"


def _told(found: Comparison) -> str:
    mean, low, high = (f"{one:+.1f}" for one in (found.difference.mean, found.difference.low, found.difference.high))
    return (
        f"the split carries {mean} requests/s against its rival ({low} to {high} over {found.n} draws); asked are "
        f"{GAIN - 1:.0%} more, and an interval above 0"
    )


# When it loses


def at_link(own: Mapping, gb_per_s: float, mode: str = "blocking") -> Comparison:
    """Goodput at the knee of a learner's split over a link of so many GB/s, compared with the best co-located rival.

    Raises `InputError` for a link that is none.
    """
    if not isinstance(gb_per_s, int | float) or not 1 <= gb_per_s <= FASTEST_GB_PER_S:
        raise InputError(f"a link of {gb_per_s!r} GB/s; give a number from 1 to {FASTEST_GB_PER_S}")
    return compare(goodputs(replace(chosen(own), gb_per_s=float(gb_per_s), mode=mode)), goodputs(best_rival()))


def judge_threshold(own: Mapping, gb_per_s: float) -> str | None:
    """Whether a split with a blocking hand-off wins over a link three times as fast, and loses over a third of it."""
    if hint := unlike_fleet(own):
        return hint
    least, most = NEAR_TRUTH, FASTEST_GB_PER_S / NEAR_TRUTH  # what is asked about lies on either side
    if not isinstance(gb_per_s, int | float) or not least <= gb_per_s <= most:
        return f"{gb_per_s!r} is no threshold; give a number of GB/s from {least:g} to {most:,.0f}"
    faster, slower = at_link(own, NEAR_TRUTH * gb_per_s), at_link(own, gb_per_s / NEAR_TRUTH)
    wins, loses = faster.difference.low > 0, slower.difference.high < 0
    if wins and loses:
        return None
    if faster.difference.high < 0:
        return (
            f"over {NEAR_TRUTH * gb_per_s:.3g} GB/s, three times as much, it does not win either ({_range(faster)}): "
            "while it sends, a blocking prefill worker computes nothing, so each transfer adds to each prefill"
        )
    if slower.difference.low > 0:
        return (
            f"over {gb_per_s / NEAR_TRUTH:.3g} GB/s, a third of it, it does not lose yet ({_range(slower)}): compare "
            "the seconds that a transfer adds with those of the prefill"
        )
    return (
        f"the draws do not agree at three times ({_range(faster)}) or a third of it ({_range(slower)}): try more links"
    )


def _range(found: Comparison) -> str:
    one = found.difference
    return f"{one.mean:+.1f} requests/s, {one.low:+.1f} to {one.high:+.1f}"
