"""Lab 3, what its cells take: a hand-off to write, a split to choose and defend, and four reports to judge."""

from collections.abc import Mapping, Sequence

from helpers.lessons.exercises import Exercise, register
from helpers.lessons.hand_off import (
    DRAWN,
    blocking_starts,
    bound_s,
    exposed_s,
    judge_hand_off,
    prompt_case,
    schedules,
)
from helpers.lessons.live_hand_off import judge_release, live, timed
from helpers.lessons.split_choice import (
    CHUNKS,
    DRAWS,
    FIGURES,
    ROUTERS,
    at_link,
    best_rival,
    chosen,
    duel,
    goodputs,
    judge_split,
    judge_threshold,
    rival_of,
    unlike_fleet,
)
from helpers.lessons.split_reports import judge_flaws, reports
from helpers.metrics.stats import Comparison, compare

__all__ = [
    "CHUNKS",
    "DRAWN",
    "DRAWS",
    "FIGURES",
    "ROUTERS",
    "at_link",
    "best_rival",
    "blocking_starts",
    "bound_s",
    "duel",
    "exposed_s",
    "live",
    "prompt_case",
    "reports",
    "schedules",
    "timed",
]

LAB = "03_disaggregated_inference_lab"


def gain(own: Mapping, defence: Mapping) -> float:
    """By how many percent a split carries more than its rival, in the mean of the paired ratios."""
    return 100 * (compare(goodputs(chosen(own)), goodputs(rival_of(defence))).ratio.mean - 1)


def over_links(own: Mapping, gb_per_s: Sequence[float]) -> dict[float, Comparison]:
    """A split against the best co-located rival over several links; nothing while there is none that can be tried."""
    if unlike_fleet(own):
        return {}
    return {float(rate): at_link(own, rate) for rate in gb_per_s}


register(
    Exercise("the overlapped hand-off", judge_hand_off, LAB, difficulty=2, importance=3, minutes=12),
    Exercise("the schedule of a live sender", judge_release, LAB, difficulty=2, importance=2, minutes=6),
    Exercise("a split under an SLO", judge_split, LAB, difficulty=2, importance=3, minutes=15),
    Exercise("where the split loses", judge_threshold, LAB, difficulty=3, importance=3, minutes=8),
    Exercise("the flaws in four hand-off reports", judge_flaws, LAB, difficulty=2, importance=3, minutes=12),
)
