"""Records of live hand-offs, as chapter 3 reads them: the ladder of two machines, and what exactness found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from helpers.bench.fidelity.compared import INSIDE, MISSED, Compared
from helpers.bench.record.files import read_record
from helpers.bench.record.relearnt import Relearnt
from helpers.errors import InputError
from helpers.metrics.stats import Comparison, compare, mean_interval
from helpers.paths import data_file

FIDELITY = "engine_llama-8b_fidelity.json"
TARGET, SCENARIO = "disagg:prefill_decode_disagg", "ladder"
FIGURES = ("ttft_mean_s", "longest_gap_s", "exposed_mean_s", "hidden_mean_s")
RUNGS = ("synced", "blocking", "asynchronous", "layerwise", "slabs", "together")


@dataclass(frozen=True)
class Spread:
    """A mean of `n` draws with what lies around it: a 95 % interval, or the least and the most."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Rung:
    """An arm of a ladder: its figures by draw, in seconds; what it does not have is left out."""

    name: str
    samples: Mapping[str, Mapping[int, float]]

    def over(self, figure: str) -> Spread | None:
        """The mean with its interval over draws; the range where there are fewer than three of them."""
        values = list(self.samples.get(figure, {}).values())
        if not values:
            return None
        if len(values) < 3:
            return Spread(fmean(values), min(values), max(values), len(values))
        found = mean_interval(values)
        return Spread(found.mean, found.low, found.high, found.n)

    def less(self, other: "Rung", figure: str) -> Comparison:
        """How much more it has of a figure than another rung, each draw with itself."""
        return compare(self.samples[figure], other.samples[figure])

    def is_above(self, other: "Rung", figure: str) -> bool:
        """Whether a figure is shown to be higher: by the interval of paired differences; of few draws, by every one."""
        mine, theirs = self.samples[figure], other.samples[figure]
        if len(mine) < 3:
            return min(mine.values()) > max(theirs.values())
        return self.less(other, figure).difference.low > 0


def ladder_of_targets(record: Mapping) -> dict[str, Rung]:
    """The ladder in a record of `bench run --targets disagg`; raises `InputError` where none is there and sound."""
    target = next((one for one in record["targets"] if one["target"] == TARGET), None)
    if target is None:
        raise InputError(
            f"the record has no target {TARGET}; it has {', '.join(t['target'] for t in record['targets'])}"
        )
    if not target["sound"]:
        failed = [one["name"] for one in (*target["checks"], *target["controls"]) if not one["passed"]]
        raise InputError(f"{TARGET} is not sound ({', '.join(failed) or 'processes failed'}); a page may not repeat it")
    scenario = next(one for one in target["scenarios"] if one["name"] == SCENARIO)
    by_arm = {one["arm"]: one["samples"] for one in scenario["arms"]}
    return {arm: Rung(arm, _by_seed(by_arm[arm], target["seeds"])) for arm in RUNGS if arm in by_arm}


def _by_seed(samples: Mapping[str, Sequence[float | None]], seeds: Sequence[int]) -> dict[str, dict[int, float]]:
    found = {name: zip(seeds, samples.get(name, ()), strict=False) for name in FIGURES}
    kept = {name: {seed: value for seed, value in pairs if value is not None} for name, pairs in found.items()}
    return {name: values for name, values in kept.items() if values}


def ladder_of_recording(record: Mapping, section: str = "ladder") -> dict[str, Rung]:
    """The ladder in a record of `record --part disagg`, without first uses, what failed, and what an earlier try left.

    Raises `InputError` where nothing remains.
    """
    points = record["parts"].get(section, {}).get("points", ())
    runs = [one for one in points if "run" in one and ", seed " in one["name"]]
    runs = [one for one in runs if not one.get("kept") and not one.get("failed")]
    if not runs:
        raise InputError(f"the record has no runs in {section!r}; record it again")
    found: dict[str, dict[str, dict[int, float]]] = {}
    for one in runs:
        seed = int(one["name"].rpartition(" ")[2])
        for figure in FIGURES:
            if one["run"].get(figure) is not None:
                found.setdefault(one["arm"], {}).setdefault(figure, {})[seed] = one["run"][figure]
    return {arm: Rung(arm, found[arm]) for arm in RUNGS if arm in found}


def draws(rungs: Mapping[str, Rung]) -> int:
    """How many draws every rung was given; raises `InputError` where they differ."""
    counts = {len(rung.samples["ttft_mean_s"]) for rung in rungs.values()}
    if len(counts) != 1:
        raise InputError(f"the rungs have {sorted(counts)} draws; compare them on the same ones")
    return counts.pop()


def in_words(*found: Spread) -> list[str]:
    """Means in milliseconds, as they stand in a sentence."""
    return [f"{1e3 * one.mean:.1f} ms" if one.mean < 0.01 else f"{1e3 * one.mean:.0f} ms" for one in found]


def unless_above(one: Rung, other: Rung, figure: str) -> str:
    """Nothing where a figure is shown to be higher, words where its draws say no more than that the mean is.

    Raises `InputError` where not even the mean is.
    """
    if one.is_above(other, figure):
        return ""
    mean, than = one.over(figure), other.over(figure)
    if not mean.mean > than.mean:
        raise InputError(f"{figure} of {one.name} is not above that of {other.name}; a page says so")
    return f" (not shown by {mean.n} draws)"


def split_rows(record: Mapping) -> dict:
    """What a record of a fidelity has about split fleets, for a table; raises `InputError` where that is nothing."""
    rows = [one for one in record["held_out"] if "P" in one["fleet"]]
    if not rows:
        raise InputError("the record holds no split fleet; serve one")
    return {"held_out": rows, "repeats": record["repeats"]}


def furthest(record: Mapping, figure: str, digits: int = 0) -> str:
    """The largest error of the simulator in a figure, with its sign, in percent to so many decimal digits."""
    errors = [one["error"] for row in record["held_out"] for one in row["figures"] if one["name"] == figure]
    return f"{max(errors, key=abs):+.{digits}%}"


def all_missed(record: Mapping, *figures: str) -> bool:
    """Whether the simulator misses its goal in each of these figures of every row; raises `InputError` for none."""
    found = [one["verdict"] for row in record["held_out"] for one in row["figures"] if one["name"] in figures]
    if not found:
        raise InputError(f"the record has no {' or '.join(figures)}; serve one")
    return all(verdict == MISSED for verdict in found)


def learnt_anew(folder: str, section: str, figure: str) -> list[Compared]:
    """A figure of each slice that is held out, live runs as recorded, by what today's code learns of the same steps.

    `section` is one of the record of fidelity in `folder`.
    """
    told = data_file("packs", folder, FIDELITY)
    return [found[figure] for found in Relearnt(read_record(told), told.parent).compared(section).values()]


def inside_now(folder: str, section: str, figure: str) -> str:
    """The errors of `learnt_anew` in words; raises `InputError` where one of them is not within its goal."""
    found = learnt_anew(folder, section, figure)
    if any(one.verdict != INSIDE for one in found):
        raise InputError(f"{figure} of {section} is not within its goal everywhere, as a page says")
    return " and ".join(f"{one.error:+.1%}" for one in found)


def short(record: Mapping, kind: str) -> str:
    """By how much the steps of a kind that were served are too short by the cost, the least and the most of the slices.

    Raises `InputError` where those of a slice are too long.
    """
    errors = [costs["served"][kind] for costs in record["steps_by_the_cost"].values()]
    if not errors or max(errors) >= 0:
        raise InputError(f"{kind} steps are not too short by the cost everywhere; a page says so")
    return " to ".join(f"{-error:.1%}" for error in (max(errors), min(errors)))


@dataclass(frozen=True)
class Checked:
    """Several runs of `bench exactness` as one: sums, the largest error, and whether every run came out as it must."""

    name: str
    runs: int
    pages_checked: int
    pages_wrong: int
    logits_error: float
    tokens_equal: int
    requests: int
    as_wanted: bool


def exactness(record: Mapping) -> list[Checked]:
    """A row a split with all its movers, one for each way of damaging KV, and one for each loss.

    Raises `InputError` for a run that was the same where it must not be, or differed where it must not.
    """
    arms = record["arms"]
    plain = [one for one in arms if not one["tamper"] and not one["lose"]]
    rows = []
    for split in dict.fromkeys(one["split"] for one in plain):
        some = [one for one in plain if one["split"] == split]
        rows.append(_checked(f"{split}, each of {len(some)} movers", some))
    rows += [_checked(f"{one['split']}, a {one['lose']} worker killed", [one]) for one in arms if one["lose"]]
    rows += [_checked(f"control: {one['tamper'].replace('_', ' ')}", [one]) for one in arms if one["tamper"]]
    if wrong := [row.name for row in rows if not row.as_wanted]:
        raise InputError(f"exactness did not come out for {'; '.join(wrong)}; a page may not repeat it")
    return rows


def _checked(name: str, arms: Iterable[Mapping]) -> Checked:
    several = list(arms)
    sums = [sum(one[key] for one in several) for key in ("pages_checked", "pages_wrong", "tokens_equal", "requests")]
    checked, wrong, equal, requests = sums
    error = max(one["logits_error"] for one in several)
    wanted = all(one["as_wanted"] for one in several)
    return Checked(name, len(several), checked, wrong, error, equal, requests, wanted)


def faults(record: Mapping) -> list[dict]:
    """The cases of `bench faults`; raises `InputError` when a request of one was lost, answered twice or wrongly."""
    if wrong := [one["case"] for one in record["cases"] if not one["sound"]]:
        raise InputError(f"requests were lost or answered wrongly: {', '.join(wrong)}; a page may not hide it")
    return record["cases"]
