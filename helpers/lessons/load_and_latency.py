"""The judges of lab 1, and the four reports of which one is sound.

A judge returns None for a right answer, else a hint. Hints name the likely mistake and never the answer.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from helpers.lessons.exercises import Exercise, register
from helpers.lessons.matching import match
from helpers.lessons.verdict import Unanswered, answer
from helpers.metrics.goodput import goodput
from helpers.metrics.latency import tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.queueing import pollaczek_khinchine_wait_s
from helpers.metrics.timeline import Timeline
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.clients import closed_loop
from helpers.workload.generate import generate, open_workload
from helpers.workload.hygiene import quantise
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

TARGET = 0.8
LAB_SLO = SLO(ttft_s=2.0, tpot_s=0.05)
KNEE_MARGIN = 1.1
FLAWS = ("ticks", "too few requests", "closed loop", "none")


def _close(a: object, b: float) -> bool:
    return isinstance(a, int | float) and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


# Part 1: latencies

CASES = (
    Timeline(0, 10.0, 800, 5, "finished", "", 0, 0, 10.4, 10.5, 11.0, 13.0, 5),
    Timeline(1, 20.0, 300, 9, "finished", "", 0, 0, 20.0, 26.0, 26.5, 27.3, 9),
    Timeline(2, 30.0, 100, 1, "finished", "", 0, 0, 30.1, 30.2, 30.3, 30.3, 1),
    Timeline(3, 40.0, 100, 7, "rejected"),
    Timeline(4, 50.0, 100, 7, "unfinished", "", 0, 0, 50.1, 50.2, 50.3, None, 3),
)

TTFT_MISTAKES: tuple[tuple[str, Callable[[Timeline], float]], ...] = (
    ("from the send (`dispatched_s`): the wait before it is lost", lambda t: t.first_token_s - t.dispatched_s),
    ("from the start of the prefill: the queue is lost", lambda t: t.first_token_s - t.prefill_start_s),
    ("to the last token: that is E2E", lambda t: t.finished_s - t.arrival_s),
)
TPOT_MISTAKES: tuple[tuple[str, Callable[[Timeline], float]], ...] = (
    ("over n tokens: n tokens have n - 1 gaps", lambda t: (t.finished_s - t.first_token_s) / t.output_tokens),
    ("from the arrival: TTFT is in it", lambda t: (t.finished_s - t.arrival_s) / t.output_tokens),
    ("from the arrival: TTFT is in it", lambda t: (t.finished_s - t.arrival_s) / (t.output_tokens - 1)),
)


def judge_ttft(ttft: Callable[[Timeline], float | None]) -> str | None:
    """Whether `ttft` is the time from the scheduled arrival to the first token, None without one."""
    return _judge_latency("TTFT", ttft, ttft_s, TTFT_MISTAKES)


def judge_tpot(tpot: Callable[[Timeline], float | None]) -> str | None:
    """Whether `tpot` is the mean gap of a finished request after its first token, None where there is no gap."""
    return _judge_latency("TPOT", tpot, tpot_s, TPOT_MISTAKES)


def _judge_latency(name: str, given: Callable, right: Callable, mistakes: tuple) -> str | None:
    for t in CASES:
        case, wanted = f"request {t.id} ({t.status}, {t.output_tokens} tokens)", right(t)
        try:
            value = answer(given(t))
        except Unanswered:
            raise
        except Exception as error:
            return f"{case}: your function stops with {type(error).__name__}: {error}; look at its column of the table"
        if wanted is None and value is not None:
            return f"{case} has no {name}; return None there, not {value}"
        if wanted is not None and not _close(value, wanted):
            if value is None:
                return f"{case} has a {name}, and you say that it has none"
            seen = [hint for hint, wrong in mistakes if t.finished_s is not None and _close(value, wrong(t))]
            return f"{case}: {seen[0] if seen else f'{value} s is not its {name}; look at the definition again'}"
    return None


# Part 2: the wait

LOADS = ((2.0, 0.1, 0.0), (5.0, 0.1, 1.0), (8.0, 0.1, 4.0), (1.5, 0.5, 2.5))
WAIT_MISTAKES: tuple[tuple[str, Callable[[float, float, float], float]], ...] = (
    ("it is right for equal service times only: c2 is missing", lambda r, s, c2: r * s * s / (2 * (1 - r * s))),
    ("it is right for c2 = 1 only (M/M/1)", lambda r, s, c2: r * s * s / (1 - r * s)),
    (
        "it is the time in the system: the service itself is no wait",
        lambda r, s, c2: s + pollaczek_khinchine_wait_s(r, s, c2),
    ),
    ("it is twice the wait: the formula has a 2 below", lambda r, s, c2: 2 * pollaczek_khinchine_wait_s(r, s, c2)),
    ("the idle share 1 - load is missing below", lambda r, s, c2: r * s * s * (1 + c2) / 2),
    ("c2 is squared once more", lambda r, s, c2: pollaczek_khinchine_wait_s(r, s, c2 * c2)),
)


def judge_wait(wait: Callable[[float, float, float], float]) -> str | None:
    """Whether `wait(rate_per_s, service_s, c2)` is the Pollaczek-Khinchine wait, infinite from load 1 on."""
    values = {case: answer(wait(*case)) for case in LOADS}
    wrong = [case for case, value in values.items() if not _close(value, pollaczek_khinchine_wait_s(*case))]
    if wrong:
        for hint, mistaken in WAIT_MISTAKES:
            if all(_close(value, mistaken(*case)) for case, value in values.items()):
                return f"{hint}."
        rate, service, c2 = wrong[0]
        return f"at {rate:g}/s, {service:g} s and c2 = {c2:g} it gives {values[wrong[0]]}; check it by hand there"
    for case in ((10.0, 0.1, 1.0), (20.0, 0.1, 0.0)):
        if answer(wait(*case)) != math.inf:
            return "at a load of 1 or more the queue never ends; return math.inf there"
    return None


def waits(wait: Callable[[float, float, float], float], loads: Iterable[float], service_s: float, c2: float) -> list:
    """What a reader's function says at each load, None where it stops (the check says how)."""
    found = []
    for load in loads:
        try:
            found.append(wait(load / service_s, service_s, c2))
        except Exception:
            found.append(None)
    return found


# Part 3: the knee


def lab_workload() -> Workload:
    """The frozen workload of the lab: the first 2,000 requests of the generated conversation hour."""
    hour, _ = open_workload("conversation")
    return replace(hour, requests=hour.requests[:2000])


def attainment(workload: Workload, rate_per_s: float, router: str = "least_tokens", workers: int = 2) -> float:
    """The share of the requests that meet the lab's SLO when the workload arrives at `rate_per_s`."""
    own = len(workload) / workload.span_s
    run = Experiment(workload.at_rate(rate_per_s / own), Fleet(workers=workers), router).run()
    return goodput(run.log, LAB_SLO).attainment


def judge_knee(rate_per_s: float) -> str | None:
    """Whether the lab's fleet meets the target at this rate, and no longer at a rate a tenth higher."""
    if not isinstance(rate_per_s, int | float) or not 0 < rate_per_s < math.inf:
        return f"{rate_per_s!r} is no rate; give requests per second, a number above 0"
    workload = lab_workload()
    here, above = attainment(workload, rate_per_s), attainment(workload, KNEE_MARGIN * rate_per_s)
    if here < TARGET:
        return f"too high: at {rate_per_s:g} requests/s only {here:.1%} meet the SLO, {TARGET:.0%} are promised"
    if above >= TARGET:
        return f"too low: at {KNEE_MARGIN * rate_per_s:.3g} requests/s still {above:.1%} meet the SLO"
    return None


# Part 4: which report to believe


@dataclass(frozen=True)
class Report:
    """A benchmark report: what it claims, the workload that was to be sent, and the run behind it."""

    claim: str
    workload: Workload
    run: Run


def reports() -> dict[str, Report]:
    """Four reports on the same fleet of four workers; three of them are wrong in a way that can be found."""
    hour, _ = open_workload("conversation")
    cut = replace(hour, requests=hour.requests[:4000])
    crowd, few = cut.at_rate(1.8), generate("conversation", rate_per_s=3.3, requests=300, seed=5)
    capped = _serve(closed_loop(crowd, 64))
    calm, ticked, brief = cut.at_rate(0.8), quantise(cut, 3.0), _serve(few)
    worst_s = percentile([ttft_s(t) for t in brief.timelines], 99).value
    return {
        "A": Report("at 1.8 times its rate the fleet keeps the median TTFT below half a second", crowd, capped),
        "B": Report(f"the slowest percent of users waits {worst_s:.3f} s or longer", few, brief),
        "C": Report("at 0.8 times its rate nine requests in ten meet the SLO", calm, _serve(calm)),
        "D": Report("replayed as recorded, one request in ten waits longer than 2 s", ticked, _serve(ticked)),
    }


def _serve(workload: Workload) -> Run:
    return Experiment(workload, Fleet(workers=4), "least_tokens").run()


ANSWERS = {"A": "closed loop", "B": "too few requests", "C": "none", "D": "ticks"}
WHERE = {
    "A": "compare `run.timelines[i].arrival_s` with `workload.requests[i].arrival_s`",
    "B": "count the requests above that percentile",
    "C": "test it for each of the three flaws in turn",
    "D": "let `describe(workload)` tell you about the arrival times",
}


def judge_flaws(given: Mapping[str, str]) -> str | None:
    """Whether each report is matched with its flaw, one of `FLAWS`."""
    return match(given, ANSWERS, FLAWS, WHERE)


LAB = "01_load_and_latency_lab"
register(
    Exercise("TTFT", judge_ttft, LAB, difficulty=1, importance=3, minutes=5),
    Exercise("TPOT", judge_tpot, LAB, difficulty=1, importance=3, minutes=5),
    Exercise("the wait", judge_wait, LAB, difficulty=2, importance=2, minutes=10),
    Exercise("the knee", judge_knee, LAB, difficulty=2, importance=3, minutes=10),
    Exercise("the flaws", judge_flaws, LAB, difficulty=3, importance=3, minutes=15),
)
