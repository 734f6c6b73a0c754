"""What the page on one measured GPU asks of its records: points, loads served again by the simulator, and errors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from helpers.bench.record.calibrating import samples_of
from helpers.bench.record.files import read_record
from helpers.bench.record.replay import held_out
from helpers.bench.record.serving import compared
from helpers.cost.fit import Residuals, residuals
from helpers.cost.iteration import CostModel
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.paths import data_file
from helpers.serving.packs import read_pack
from helpers.serving.run import Run
from helpers.widgets.recorded import point

PRESET = "llama-8b"
BATCHES = (1, 8, 32, 128)
CHUNKS = (128, 512, 1024, 1984)
FULL_TOKENS = (1985, 2048)  # of a step that is full: the budget is 2,048
TRAINED_ON = ("saturated", "training")
# Said of a peer beside the ratio to it.
PEER_LIMITS = {
    "peer gpt-fast": "both: weights at copy speed, in captured steps",
    "peer transformers": "the peer was not profiled",
}
KERNELS = {
    **{f"decode attention, batch {n}, 1024 context": f"decode attention, batch {n}" for n in BATCHES},
    **{
        f"decode attention, batch {n}, about 1024 context, uneven": f"decode attention, batch {n}, uneven"
        for n in (32, 128)
    },
    **{f"prefill attention, {n} tokens": f"prefill attention, {n:,} tokens" for n in (2048, 8192)},
    **{f"matmul {name}, 32 tokens": f"matmul {name}, 32 tokens" for name in ("wqkv", "wo", "w13", "w2", "head")},
    "SwiGLU, 2048 tokens": "SwiGLU, 2,048 tokens",
    "grouped matmul, 32768 rows, own kernel": "experts, 32,768 rows",
}


class Carried(NamedTuple):
    """Milliseconds of a decode step on two machines, and what two rules say of the second from the first."""

    first: Mapping
    second: Mapping
    all_scales: float
    excess_stays: float


class Served(NamedTuple):
    """A held-out load: the engine's run, and the simulator's of the same requests by each cost of a step."""

    run: Run
    simulated: dict[str, Run]


def recorded_part(part: str, machine: str = "h100_80gb_hbm3") -> dict:
    """The record of one part on a machine of `data/packs`. Raises `InputError` when it is not there or not whole."""
    return read_record(data_file("packs", machine, f"engine_{PRESET}_{part}.json"))


def loop(record: Mapping, batch: int) -> Mapping:
    """The point of the engine's own loop at a batch."""
    return point(record, "decode", f"batch {batch} overlapped loop")


def halves(steps: Mapping) -> tuple[float, float]:
    """The medians of the first and of the second half of a point's samples, which are in the order of time.

    Raises `InputError` where fewer than two were kept.
    """
    samples = steps.get("samples", ())
    if len(samples) < 2:
        raise InputError(f"{steps['name']!r} has {len(samples)} samples; halves take two or more")
    middle = len(samples) // 2
    return median(samples[:middle]), median(samples[middle:])


def carried_steps(first: Mapping, second: Mapping, batches: Sequence[int] = BATCHES) -> dict[int, Carried]:
    """Decode steps by batch, the second machine's predicted from the first's and from the floors of both.

    Either all of a step goes with its floor, or only the floor itself does and what lies above it stays.
    """
    found = {}
    for batch in batches:
        here, there = loop(first, batch), loop(second, batch)
        scaled = here["value"] * there["floor"] / here["floor"]
        found[batch] = Carried(here, there, scaled, there["floor"] + here["value"] - here["floor"])
    return found


def misses_of_rule(rule: str, steps: Mapping[int, Carried]) -> list[float]:
    """By how much a rule (a prediction of `Carried`) is off at each batch, signed."""
    return [getattr(one, rule) / one.second["value"] - 1 for one in steps.values()]


def ratio(first: Mapping, second: Mapping, ceiling: str) -> float:
    """How many times as high a ceiling (`copy` or `matmul`) is on the second machine."""
    return point(second, "ceilings", ceiling)["value"] / point(first, "ceilings", ceiling)["value"]


def share_of(record: Mapping, section: str, names: Mapping[str, str]) -> dict[str, float]:
    """Points that are shares of a ceiling, in percent, under the names of the page."""
    return {label: 100 * point(record, section, name)["value"] for name, label in names.items()}


def chunk_ms(record: Mapping, tokens: int, how: str, what: str = "") -> float:
    """Milliseconds of a step with a chunk beside 32 decodes, and with `, launch` of the host's part of it."""
    return point(record, "mixed", f"{tokens} tokens beside 32 decodes, {how}{what}")["value"]


def served_again(record: Mapping, costs: Mapping[str, CostModel]) -> dict[str, Served]:
    """Every held-out load of a record of the part `serve`, by name, in the order of policies and rising loads."""
    sections = [name for name, one in record["parts"].items() if "pack" in one]
    if not sections:
        raise InputError("the record holds no held-out load; record the part `serve` again, with more time")
    by_load = sorted(sections, key=lambda name: (name.partition(" at ")[0], float(name.rpartition(" ")[-1])))
    return {name: _again(record, name, costs) for name in by_load}


def _again(record: Mapping, name: str, costs: Mapping[str, CostModel]) -> Served:
    run = read_pack(data_file("packs", record["hardware_key"], record["parts"][name]["pack"]))
    asked = held_out(record, name, run)
    return Served(run, {k: replace(asked, fleet=replace(asked.fleet, cost=cost)).run() for k, cost in costs.items()})


def errors_of(loads: Mapping[str, Served]) -> dict:
    """The loads as a record: measured, and by how much each simulation is off."""
    return {"parts": {name: {"points": list(compared(one.run, one.simulated))} for name, one in loads.items()}}


def largest(errors: Mapping, cost: str, figure: str) -> float:
    """The largest error of a figure over all loads with one cost, signed."""
    found = [p["errors"][cost] for s in errors["parts"].values() for p in s["points"] if p["name"] == figure]
    return max(found, key=abs)


def worst_means(errors: Mapping, cost: str) -> tuple[float, float]:
    """The sizes of the largest errors over all loads of the mean TTFT and of the mean TPOT."""
    ttft, tpot = (abs(largest(errors, cost, f"{figure} mean")) for figure in ("TTFT", "TPOT"))
    return ttft, tpot


def errors_at(errors: Mapping, load: str, cost: str) -> dict[str, float]:
    """The errors of one load with one cost, signed, by figure."""
    return {p["name"]: p["errors"][cost] for p in errors["parts"][load]["points"]}


def steps_of(serve: Mapping, calibrate: Mapping) -> dict[str, list[StepSample]]:
    """The steps that the served cost was fitted to, and those of the designed one."""
    busy = [s for part in TRAINED_ON for s in samples_of(serve["parts"][part]["samples"])]
    return {"under load": busy, "one at a time": samples_of(calibrate["samples"])}


def step_errors(
    steps: Mapping[str, Sequence[StepSample]], costs: Mapping[str, CostModel], least: int = 10
) -> dict[str, dict[str, list[Residuals]]]:
    """How far each cost is from the steps, by kind; kinds of fewer than `least` steps are left out."""
    return {
        name: {k: [one for one in residuals(cost, several) if one.n >= least] for k, cost in costs.items()}
        for name, several in steps.items()
    }


def full_steps(samples: Sequence[StepSample]) -> tuple[float, int]:
    """The median milliseconds of the steps that are full of prompt tokens, and how many there are."""
    low, high = FULL_TOKENS
    full = [s for s in samples if s.chunks and low <= s.decodes + sum(n for n, _ in s.chunks) <= high]
    return 1e3 * median(s.period_s for s in full), len(full)
