"""What `hybrid-serving record` wrote of one machine, as figures and tables: targets, floors, steps, kernels, loads.

Records are read elsewhere; here they are dictionaries. A point has a name, value, unit and n, and where known min, max,
floor, target and met.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from helpers.errors import InputError
from helpers.metrics.latency import LATENCIES, defined
from helpers.serving.run import Run
from helpers.widgets.figures import Axis, Series, bars, cdf, lines
from helpers.widgets.roofs import LEGEND, marker_of
from helpers.widgets.runs import shares
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

MET = {True: "met", False: "MISSED"}
RELATIVE = ("of copy", "of matmul")  # units of shares, which read best as percentages
GOAL_COLUMNS = ("what", "measured", "N: range", "floor", "reached", "target", "what limits it")
PEER_COLUMNS = ("against", "ours / theirs", "target", "theirs (output tok/s)", "N: range", "what limits it")
SERVED = {"TTFT mean": "ms", "TTFT p90": "ms", "TPOT mean": "ms", "throughput": "output tok/s"}


@dataclass(frozen=True, slots=True)
class Goal:
    """A row: a point of a section, and the points that hold its target and the peer, where they are others."""

    what: str
    section: str
    point: str
    verdict: str = ""
    peer: str = ""


DECODES = tuple(
    Goal(f"decode, batch {n}", "decode", f"batch {n} overlapped loop", f"batch {n} MBU") for n in (1, 8, 32, 128)
)
PREFILLS = tuple(Goal(f"prefill, {n:,} tokens", "prefill", f"{n} tokens", f"{n} tokens MFU") for n in (2048, 8192))
OWN = (
    *DECODES,
    *PREFILLS,
    Goal("32 prompts of 512, 128 tokens out", "end to end", "32 x 512 in, 128 out"),
    Goal("MoE layer, 4,096 tokens", "moe", "4096 tokens"),
    Goal("MoE layer, against a loop over experts", "moe", "4096 tokens, against a loop"),
    Goal("scheduler, 200 sequences and more", "scheduler", "host time a step, >= 200 sequences"),
)
GPT_FAST = "gpt-fast compiled, batch 1"
TRANSFORMERS = {
    "transformers eager": "transformers eager, batch 32",
    "transformers, static cache and compile": "transformers static cache + compile, batch 32",
    "transformers, continuous batching": "transformers continuous batching, paged|sdpa, batch 32",
}
PEERS = (
    Goal("gpt-fast, compiled, batch 1", "peer gpt-fast", f"ours / {GPT_FAST}", peer=GPT_FAST),
    *(Goal(f"{k}, batch 32", "peer transformers", f"ours / {name}", peer=name) for k, name in TRANSFORMERS.items()),
)


def point(record: Mapping, section: str, name: str) -> Mapping:
    """A point of a record. Raises `InputError` for one that is not there, or was left over from an earlier try."""
    for one in record["parts"].get(section, {}).get("points", ()):
        if one["name"] == name and not one.get("kept"):
            return one
    raise InputError(f"the record of part {record.get('part')!r} has no point {name!r} in {section!r}; record it again")


def goals(record: Mapping, rows: Sequence[Goal], caption: str, limits: Mapping[str, str]) -> Table:
    """Measured, N and range, floor, what is reached of it, target with its verdict, and what limits a section."""
    return Table(caption, GOAL_COLUMNS, [_goal(record, one, limits) for one in rows])


def _goal(record: Mapping, row: Goal, limits: Mapping[str, str]) -> list[str]:
    one = point(record, row.section, row.point)
    verdict = point(record, row.section, row.verdict) if row.verdict else one
    floor, value, unit = one.get("floor"), one["value"], one["unit"]
    reached = min(floor, value) / max(floor, value) if floor else None
    if verdict["unit"] in RELATIVE:
        reached = verdict["value"]
    return [
        row.what if unit == "x" else f"{row.what} ({unit.removesuffix('/step')})",
        *(number(value), spread(one), number(floor)),
        *(f"{reached:.1%}" if reached else "", target(verdict), limits.get(row.section, "")),
    ]


def against(record: Mapping, rows: Sequence[Goal], caption: str, limits: Mapping[str, str]) -> Table:
    """Our rate over a peer's, the target with its verdict, the peer's rate with N and range, and what limits it."""
    table = []
    for row in rows:
        one, peer = (point(record, row.section, name) for name in (row.point, row.peer))
        table.append(
            [
                row.what,
                number(one["value"]),
                target(one),
                number(peer["value"]),
                spread(peer),
                limits.get(row.section, ""),
            ]
        )
    return Table(caption, PEER_COLUMNS, table)


def number(value: float | None) -> str:
    """Four digits; nothing where there is no number."""
    return "" if value is None else f"{value:,.4g}"


def said(one: Mapping) -> str:
    """A point's value with its unit; a share of a ceiling as a percentage."""
    if one["unit"] in RELATIVE:
        return f"{one['value']:.1%} {one['unit']}"
    return f"{number(one['value'])}{'' if one['unit'] == 'x' else ' '}{one['unit'].removesuffix('/step')}"


def spread(one: Mapping) -> str:
    """N, and the least and most of the samples where they were kept."""
    ends = f": {number(one['min'])} to {number(one['max'])}" if "min" in one and one["n"] > 1 else ""
    return f"{one['n']}{ends}"


def target(one: Mapping) -> str:
    """The target of a point and whether it was met; which side is meant follows from the verdict."""
    if one.get("target") is None:
        return ""
    above = one["value"] >= one["target"]
    wanted = f"{one['target']:.0%}" if one["unit"] in RELATIVE else number(one["target"])
    return f"{'≥' if above == one['met'] else '≤'} {wanted}: {MET[one['met']]}"


def steps_over_batch(record: Mapping, predicted: Mapping[int, float], batches: Sequence[int]) -> Figure:
    """Milliseconds of a decode step at each batch: the floor, the engine's loop, kernel by kernel, and a prediction.

    `predicted` are the seconds that a model of the step says, by batch.
    """
    loops, eager = (
        [point(record, "decode", f"batch {n} {how}") for n in batches] for how in ("overlapped loop", "eager")
    )
    measured = {"decode step, measured": loops, "launched kernel by kernel, measured": eager}
    slower = eager[0]["value"] / loops[0]["value"]
    drawn = lines(
        [
            Series("floor: bytes at copy speed, predicted", batches, [one["floor"] for one in loops]),
            *(Series(name, batches, [one["value"] for one in points]) for name, points in measured.items()),
            Series("decode step by the data sheet, predicted", batches, [1e3 * predicted[n] for n in batches]),
        ],
        Axis("batch", "requests", log=True),
        Axis("time of a step", "ms", from_zero=True),
        title="A decode step and its floor",
        note=f"{record['device'].removeprefix('NVIDIA ')}, about 1,024 tokens of context; medians of {_counts(loops)} "
        f"steps, kernel by kernel of {_counts(eager)}. The data sheet is what the simulator takes by default.",
        origin="measured",
        alt="Time of a decode step against the batch. The measured steps lie a little above the floor and rise with "
        f"it; launched kernel by kernel, the smallest batch takes {slower:.1f} times as long.",
    )
    floor, *points = ({k: v for k, v in trace.items() if k != "marker"} for trace in drawn.spec["data"])
    dots = [_dots(trace, index) for index, trace in enumerate(points, 1)]
    layout = drawn.spec["layout"] | {"legend": LEGEND}
    return replace(drawn, spec={"data": [floor | {"mode": "lines"}, *dots], "layout": layout})


def _counts(points: Sequence[Mapping]) -> str:
    """How many samples the points have: one number where they have equally many."""
    least, most = (end(one["n"] for one in points) for end in (min, max))
    return f"{least}" if least == most else f"{least} to {most}"


def _dots(trace: Mapping, index: int) -> dict:
    """A series without its line, with the marker of its kind, which its name ends with."""
    marker = marker_of(index, trace["name"].rpartition(", ")[-1])
    return {k: v for k, v in trace.items() if k != "line"} | {"mode": "markers", "marker": marker}


def carried(steps: Mapping[int, tuple[Mapping, Mapping, float, float]], names: Sequence[str], caption: str) -> Table:
    """A row a batch: a decode step on two machines, and two predictions of the second, with how far each is off."""
    columns = ("decode, batch", *(f"{name}: ms, measured" for name in names), "N: range")
    rows = []
    for batch, (first, second, *predicted) in steps.items():
        off = [f"{number(one)} ({one / second['value'] - 1:+.1%})" for one in predicted]
        rows.append([str(batch), number(first["value"]), number(second["value"]), spread(second), *off])
    return Table(caption, (*columns, "if all of it scales, predicted", "if the excess stays, predicted"), rows)


TUNED = (
    *DECODES,
    Goal("chunk of 128 beside 32 decodes", "mixed", "128 tokens beside 32 decodes, captured"),
    Goal("matrix product wo, 1 row", "kernels", "matmul wo, 1 tokens"),
    Goal("decode attention, 32 unequal contexts", "kernels", "decode attention, batch 32, about 1024 context, uneven"),
    Goal("decode attention, 32 equal contexts", "kernels", "decode attention, batch 32, 1024 context"),
    *PREFILLS[:1],
)


def tuned(before: Mapping, after: Mapping, caption: str, rows: Sequence[Goal] = TUNED) -> Table:
    """A row a point: measured before and after a change, by how much it changed, and its target with the verdict."""
    table = []
    for row in rows:
        first, then = (point(one, row.section, row.point) for one in (before, after))
        verdict = point(after, row.section, row.verdict) if row.verdict else then
        share = f"{verdict['value']:.1%}" if verdict["unit"] in RELATIVE else ""
        name = f"{row.what} ({then['unit'].removesuffix('/step')})"
        changed = f"{then['value'] / first['value'] - 1:+.1%}"
        table.append(
            [name, number(first["value"]), number(then["value"]), changed, spread(then), share, target(verdict)]
        )
    columns = ("what", "before", "after", "change", "N: range, after", "reached", "target")
    return Table(caption, columns, table)


def chunks_captured(record: Mapping, tokens: Sequence[int], decodes: int) -> Figure:
    """Steps with a chunk beside decodes, launched as one captured graph and kernel by kernel, over their floor."""
    ways = ("captured", "kernel by kernel")
    found = {
        how: [point(record, "mixed", f"{n} tokens beside {decodes} decodes, {how}") for n in tokens] for how in ways
    }
    names = [f"{n:,}" for n in tokens]
    columns = [[one[key] for one in points] for points in found.values() for key in ("value", "min", "max")]
    series = [Series("floor, predicted", names, [one["floor"] for one in found[ways[0]]])]
    series += [Series(how, names, *columns[3 * i : 3 * i + 3]) for i, how in enumerate(ways)]
    return bars(
        series,
        Axis(f"prompt tokens beside {decodes} decodes", ""),
        Axis("time of a step", "ms", from_zero=True),
        title="Capturing a step with a chunk pays where it is short",
        note=f"Medians of {found[ways[0]][0]['n']} steps; whiskers from the least to the most.",
        origin="measured",
        alt="Bars of the floor, the captured step and the step launched kernel by kernel for four chunk lengths; "
        "captured is much shorter for the shortest chunk and no shorter for the longest.",
    )


def kernels(record: Mapping, names: Mapping[str, str]) -> Figure:
    """What share of its floor each kernel reaches, worst first. `names` says what a point is called in the figure."""
    found = sorted(((point(record, "kernels", name)["of_floor"], label) for name, label in names.items()))
    return bars(
        [Series("reached", [label for _, label in found], [share for share, _ in found])],
        Axis("kernel", ""),
        Axis("floor / measured time", "", from_zero=True),
        horizontal=True,
        title="What each kernel reaches of its floor",
        note="One timing each, alone, with inputs that no cache holds. The floor is the larger of bytes at copy speed "
        "and FLOPs at matmul speed.",
        origin="measured",
        alt="Horizontal bars, worst first: " + ", ".join(f"{label} {share:.0%}" for share, label in found) + ".",
    )


def beside_engine(run: Run, simulated: Mapping[str, Run], load: str) -> Figure:
    """TTFT of the very same requests: the engine's, and the simulator's by each cost of a step."""
    ttft = {"engine, measured": run} | {f"{name}, simulated": one for name, one in simulated.items()}
    values = {name: defined(LATENCIES["ttft_s"], one.timelines) for name, one in ttft.items()}
    return cdf(
        [shares(name, found) for name, found in values.items()],
        Axis("TTFT", "s", log=True),
        title=f"One worker at {load} of its sustained rate, and the simulator beside it",
        note=f"N = {len(values['engine, measured']):,} requests, one run each, so no interval. The first curve "
        "is measured; the others are simulated on the same requests, with step times of their names.",
        origin="measured",
        alt="Cumulative TTFT on a logarithmic axis: the engine's curve, close to it the one with served steps and the "
        "one of the data sheet, and far to the left the one with designed steps.",
    )


def served(record: Mapping, sections: Sequence[str], kinds: Sequence[str], caption: str) -> Table:
    """A row a load and cost: what was measured, and by how much the simulator is off with that cost."""
    columns = ("admission, load", "N", "source", *(f"{name} ({unit})" for name, unit in SERVED.items()))
    return Table(caption, columns, [row for name in sections for row in _served(record, name, kinds)])


def _served(record: Mapping, section: str, kinds: Sequence[str]) -> Iterator[list[str]]:
    found = {one["name"]: one for one in record["parts"][section]["points"]}
    shown = [found.get(name) for name in SERVED]
    yield [section, f"{found['TTFT mean']['n']:,}", "measured", *(_short(one) if one else "" for one in shown)]
    for kind in kinds:
        yield ["", "", f"simulated, {kind}", *(f"{one['errors'][kind]:+.1%}" if one else "" for one in shown)]


def _short(one: Mapping) -> str:
    return number(1e3 * one["value"] if one["unit"] == "s" else one["value"])


def costs(residuals: Mapping[str, Mapping[str, Sequence]], caption: str) -> Table:
    """A row a set of steps and kind: N, and of each cost the mean error and the median of its size.

    `residuals` are those of `helpers.cost.fit`, by the name of the steps and of the cost.
    """
    names = list(next(iter(residuals.values())))
    rows = []
    for steps, by_cost in residuals.items():
        for several in zip(*by_cost.values(), strict=True):
            cells = [f"{one.bias:+.1%} ({one.p50:.1%})" for one in several]
            rows.append([f"{steps}: {several[0].kind}", f"{several[0].n:,}", *cells])
    return Table(caption, ["steps", "N", *(f"{name}: mean (median size)" for name in names)], rows)


def origins(records: Mapping[str, Mapping]) -> Table:
    """Where each record comes from: device, driver, power limit, versions, commit, time and command."""
    rows = []
    for name, one in records.items():
        gpu, versions = one["gpu"], one["versions"]
        made = f"{one['device']}, driver {gpu['driver_version']}, {gpu['power.limit']}; torch {versions['torch']}, "
        made += f"triton {versions['triton']}; {one['made'][:16]} UTC; commit {one['commit'][:12]}"
        rows.append([name, made, one["command"]])
    return Table("Origin of the records", ["record", "origin", "command"], rows)
