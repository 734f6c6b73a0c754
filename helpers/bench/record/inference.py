"""The part `inference`: one engine rung by rung, from static batches in a synchronous loop to the one that serves.

Each draw of requests is served at every rung, in random order: a section a draw, so that rungs are paired and none is
later than the others. What is expected of each rung stands in the record before anything is served, where this kind of
machine was recorded before. Each rung is profiled, in a run apart from what is timed, the first and the last one first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean, median
from time import perf_counter

from helpers.bench import verdicts
from helpers.bench.engine.report import point
from helpers.bench.fidelity.calibrating import sustained
from helpers.bench.inference import foreseen, profile
from helpers.bench.inference.rungs import CONTINUOUS, EngineExperiment, close_engines, engine_for, rungs_on, served
from helpers.bench.inference.setting import SETTINGS, Setting
from helpers.bench.inference.ties import Tie, agreed, partings, ties
from helpers.bench.inference.where import agreement, figures, spent
from helpers.bench.record.disagg import device_of
from helpers.bench.record.files import complete
from helpers.bench.targets.target import UNDRAWN
from helpers.bench.verification import breaches
from helpers.workload.request import Workload

FORESEEN, ALONE, TIES, SUSTAINED, LADDER = "foreseen", "one at a time", "where answers part", "sustained", "ladder"
FIGURES = {
    "e2e_mean_s": "s", "ttft_mean_s": "s", "ttft_p90_s": "s", "tpot_mean_s": "s", "tpot_p90_s": "s", "itl_p90_s": "s",
    "longest_gap_s": "s", "tokens_per_s": "output tok/s",
}  # fmt: skip
SPENT = {
    "in_steps": "share", "between_steps": "share", "nothing_to_do": "share", "mean_batch": "requests", "steps": "steps",
    "step_mean_s": "s", "gap_mean_s": "s", "host_schedule_s": "s", "host_launch_s": "s", "host_wait_s": "s",
    "host_rest_s": "s", "computed_tokens": "tokens", "cached_tokens": "tokens",
}  # fmt: skip
MARGIN = 0.05  # of what the rung before has: less is no effect
PROFILE_SEED, FIRST_SEED, BURST_SEED = 900, 901, 902
ANYWHERE, PLACES = "in the middle of an answer", 32  # so many places each
SUM_UP_S = 10.0
FEWER = 4  # of the first requests, this part at every rung
WINDOW_S = 2.0  # at most, for the steps that are profiled


def sections(session) -> tuple[str, ...]:
    """What is expected stands first. Profiles come late: what a profiler leaves behind disturbs nothing then."""
    device = device_of(session)
    low, *between, high = map(profile_section, rungs_on(device))
    said = (FORESEEN,) if device == "cuda" else ()
    return (*said, *map(draw_section, SETTINGS[device].seeds), LADDER, ALONE, TIES, high, low, *between, SUSTAINED)


def draw_section(seed: int) -> str:
    """What the section of a draw is called."""
    return f"draw {seed}"


def profile_section(rung: str) -> str:
    """What the section of a profiled rung is called."""
    return f"profile: {rung}"


def inference(session, report) -> None:
    """Fill in the sections, as far as the time goes."""
    setting = replace(SETTINGS[device_of(session)], model=session.preset)
    report.earlier.pop(LADDER, None)  # it is of all draws that are there in the end
    try:
        _Climb(setting, sections(session), report).everything()
    finally:
        close_engines()


class _Climb:
    """One engine for all runs, put at a rung before each."""

    def __init__(self, setting: Setting, names: Sequence[str], report) -> None:
        self.setting, self.names, self.report = setting, names, report
        self.rungs = rungs_on(setting.device)
        self.tokens: dict[str, dict[int, list[int]]] = {}  # of the last draw that was served, by rung
        self.longest_s: dict[str, float] = {}  # by kind of section

    def everything(self) -> None:
        start_s = perf_counter()
        self.engine = engine_for(self.setting.model, self.setting.device, self.setting.fleet)
        self._use_first()
        self.report.head |= {"startup_s": perf_counter() - start_s, "load": self._about()}
        for name in self.names:
            if name == LADDER:
                self._in_any_case(name)
            else:
                self._section(name)

    def _in_any_case(self, name: str) -> None:
        """Run a section that needs no device, also when the time is over."""
        budget_s = self.report.budget_s
        self.report.budget_s += max(0.0, SUM_UP_S - self.report.left_s)
        self._section(name)
        self.report.budget_s = budget_s

    def _section(self, name: str) -> None:
        """Run a section, unless one of its kind took longer than the time that is left."""
        kind = name.split()[0].rstrip(":")
        known = complete(self.report.earlier.get(name, {}))
        if not known and self.report.left_s < self.longest_s.get(kind, 0.0):
            self.report.parts[name] = {"points": [], "skipped": f"{self.report.left_s:.0f} s of the budget are left"}
            self.report.write()
            return
        start_s = perf_counter()
        self.report.run(name, lambda: self._points(name))
        self.longest_s[kind] = max(self.longest_s.get(kind, 0.0), perf_counter() - start_s)

    def _points(self, name: str) -> Iterator[dict]:
        if name == FORESEEN:
            return self._foreseen()
        if name == ALONE:
            return self._alone()
        if name == TIES:
            return self._ties()
        if name == SUSTAINED:
            return self._sustained()
        if name == LADDER:
            return self._ladder()
        kind, _, what = name.partition(": ")
        return self._profile(what) if kind == "profile" else self._draw(int(name.split()[1]))

    def _about(self) -> dict:
        load, fleet = self.setting.load, self.setting.fleet
        return {
            "rate_per_s": load.rate_per_s, "requests": load.requests, "shared_tokens": load.shared_tokens,
            "prompt_tokens": load.prompt_tokens, "output_tokens": load.output_tokens, "arrivals": "poisson, open loop",
            "max_batch": fleet.max_batch, "chunk_tokens": fleet.chunk_tokens, "kv_gib": fleet.kv_gib,
        }  # fmt: skip

    def _experiment(self, rung: str) -> EngineExperiment:
        setting = self.setting
        return EngineExperiment(UNDRAWN, setting.fleet, rung=rung, model=setting.model, device=setting.device)

    def _use_first(self) -> None:
        """Serve what nobody counts: what is compiled, for steps captured or not, is so then."""
        few = self.setting.load.draw(FIRST_SEED, self.setting.first)
        served(self._experiment(CONTINUOUS), few)
        for rung in self.rungs:
            served(self._experiment(rung), replace(few, requests=few.requests[: -(-self.setting.first // FEWER)]))

    def _foreseen(self) -> Iterator[dict]:
        known = foreseen.recorded(self.report.head["hardware_key"], self.setting.model)
        if known is None:
            return
        device, host = known
        for rung in self.rungs:
            said = [
                foreseen.foreseen(rung, self.setting.load.draw(seed), self.engine.limits, device, host)
                for seed in self.setting.seeds
            ]
            values = {name: fmean(one[name] for one in said) for name in FIGURES}
            yield point(rung, values["e2e_mean_s"], "s", [one["e2e_mean_s"] for one in said], run=values)

    def _draw(self, seed: int) -> Iterator[dict]:
        """The draw at every rung, then how far their answers agree."""
        workload, tokens = self.setting.load.draw(seed), {}
        self.drawn, self.tokens = workload, tokens
        for rung in Random(f"inference/{seed}").sample(self.rungs, len(self.rungs)):
            found = served(self._experiment(rung), workload)
            tokens[rung] = found.tokens
            broken = breaches(found.run.log, workload, workload.sha256)
            told = {"rung": rung, "run": figures(found), "spent": spent(found), "sha256": workload.sha256}
            told |= {"failed": broken[0]} if broken else {}
            value = found.e2e_mean_s if found.e2e_mean_s is not None else float("inf")
            yield point(rung, value, "s", n=len(workload), **told)
        yield from agreements(self.rungs, tokens)

    def _alone(self) -> Iterator[dict]:
        """A few requests, each when the one before has ended: every rung computes the same batch of one."""
        workload = one_at_a_time(self.setting)
        tokens = {rung: served(self._experiment(rung), workload).tokens for rung in self.rungs}
        yield from agreements(self.rungs, tokens)

    def _ties(self) -> Iterator[dict]:
        """Whether the tokens at which rungs part were all but equally likely; of the last draw that was served now."""
        if set(self.tokens) != set(self.rungs):
            return
        for before, rung in pairwise(self.rungs):
            places = list(partings(self.drawn, self.tokens[rung], self.tokens[before]))[:PLACES]
            yield from tie_points(f"{rung} from {before}", ties(self.engine, places))
        yield from tie_points(
            ANYWHERE, ties(self.engine, list(agreed(self.drawn, self.tokens[self.rungs[0]]))[:PLACES])
        )

    def _sustained(self) -> Iterator[dict]:
        """What each end of the ladder gives when everybody comes at once, between a quarter and three of them."""
        load = replace(self.setting.load, rate_per_s=1e4)
        for rung, requests in ((self.rungs[-1], self.setting.burst), (self.rungs[0], self.setting.static_burst)):
            burst = load.draw(BURST_SEED, requests)
            rate = sustained(served(self._experiment(rung), burst).run)
            offered = self.setting.load.rate_per_s / rate
            yield point(rung, rate, "requests/s", offered_of_it=offered, sha256=burst.sha256, n=len(burst))

    def _profile(self, rung: str) -> Iterator[dict]:
        """A few steps of another draw with the profiler on; their times are no part of any other number."""
        setting = self.setting
        workload = setting.load.draw(PROFILE_SEED)
        profile.use_first(setting.device)
        with profile.Window(self.engine, setting.window_from_s, setting.window) as window:
            served(self._experiment(rung), workload, setting.window_from_s + WINDOW_S)
        yield from profile_points(profile.summary(window.events(), setting.device, window.seen, window.host_s))

    def _ladder(self) -> Iterator[dict]:
        """The draws that are there in the end, summed up."""
        return ladder(self.rungs, self._draws(), self.report.parts.get(FORESEEN, {}).get("points", ()))

    def _draws(self) -> list[dict[str, dict]]:
        """The points of whole draws, by rung."""
        found = [self.report.parts.get(draw_section(seed), {}) for seed in self.setting.seeds]
        whole = [{one["rung"]: one for one in d["points"] if "rung" in one} for d in found if complete(d)]
        return [one for one in whole if set(one) == set(self.rungs)]


def one_at_a_time(setting: Setting) -> Workload:
    """Requests of a draw, each sent when the one before has been answered."""
    drawn = setting.load.draw(FIRST_SEED, setting.alone)
    asked = tuple(
        replace(r, arrival_s=0.0, output_tokens=setting.alone_tokens, parent=drawn.requests[i - 1].id if i else None)
        for i, r in enumerate(drawn)
    )
    return replace(drawn, requests=asked, repairs=(*drawn.repairs, "one after another"))


def agreements(rungs: Sequence[str], tokens: Mapping[str, Mapping[int, Sequence[int]]]) -> Iterator[dict]:
    """The answers of each rung beside those of the first one and of the one before."""
    for before, rung in pairwise(rungs):
        found = agreement(tokens[rung], tokens[rungs[0]])
        last = agreement(tokens[rung], tokens[before])
        share = found["equal"] / max(1, found["answers"])
        told = {"before_equal": last["equal"], "before_first_other_token": last["first_other_token"]}
        yield point(f"{rung}: answers as of {rungs[0]}", share, "share", n=found["answers"], **found, **told)


def tie_points(name: str, found: Sequence[Tie]) -> Iterator[dict]:
    """Medians of what the logits say at these places, with the largest; nothing where there are none."""
    for value in ("apart", "rounding", "lead") if found else ():
        samples = [getattr(one, value) for one in found]
        yield point(f"{name}: {value}", median(samples), "logits", samples)
    if found:
        yield point(f"{name}: among the two best", fmean(one.best_two for one in found), "share", n=len(found))


def profile_points(found: dict) -> Iterator[dict]:
    """A profile as points: how busy the device was, what with, and what the launches took."""
    steps = {"n": found["steps"]}
    yield point("kernels running", found["busy_of_window"], "share of the window", top=found["top"], **steps)
    yield point("a step, profiled", found["step_mean_s"], "s/step", **steps)
    for name in ("kernels_a_step", "launches_a_step"):
        yield point(name.replace("_a_step", ""), found[name], "a step", **steps)
    yield point("launching, host", found["launching_s_a_step"], "s/step", **steps)
    for kind, seconds in found["kinds_s_a_step"].items():
        yield point(kind, seconds, "s/step", kind=True, **steps)


def ladder(rungs: Sequence[str], draws: Sequence[Mapping[str, dict]], said: Sequence[dict]) -> Iterator[dict]:
    """Each figure of each rung over the draws, and its paired difference to the rung before."""
    if not draws:
        return
    expected = {one["name"]: one["run"] for one in said}
    for at, rung in enumerate(rungs):
        for name, unit in FIGURES.items():
            values = {i: draw[rung]["run"][name] for i, draw in enumerate(draws)}
            told = {"predicted": {"formula": expected[rung][name]}} if rung in expected else {}
            if told:
                told["errors"] = {"formula": expected[rung][name] / fmean(values.values()) - 1}
            if at:
                told["before"] = against({i: draw[rungs[at - 1]]["run"][name] for i, draw in enumerate(draws)}, values)
            yield point(f"{rung}: {name}", fmean(values.values()), unit, list(values.values()), **told)
        for name, unit in SPENT.items():
            samples = [draw[rung]["spent"][name] for draw in draws]
            yield point(f"{rung}: {name}", fmean(samples), unit, samples)


def against(before: Mapping[int, float], values: Mapping[int, float]) -> dict:
    """The paired difference to the rung before: mean, 95 % interval, each draw's, and what may be said of it."""
    apart = verdicts.difference(values, before)
    margin = MARGIN * abs(fmean(before.values()))
    each = [values[i] - before[i] for i in values]
    return {"difference": apart, "each": each, "said": verdicts.verdict(apart, margin), "mean": fmean(each)}
