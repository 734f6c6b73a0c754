"""The figures and tables of lab 3; they draw what its cells hand over."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Protocol

from helpers.metrics.stats import Comparison
from helpers.widgets.figures import Axis, Interval, Mark, Series, gantt, lines
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

HIDDEN, EXPOSED, COMPUTED = "sent, hidden", "sent, exposed", "computed"


class Case(Protocol):
    """Seconds to compute and to send each layer, and when each is computed."""

    compute_s: Sequence[float]
    transfer_s: Sequence[float]
    ready_s: Sequence[float]


class Verdict(Protocol):
    """What became of a run whose KV was handed over."""

    pages_checked: int
    pages_wrong: int
    logits_error: float
    tokens_equal: int
    requests: int


class Sent(Protocol):
    """What became of prompts whose layers went by a schedule; seconds by request."""

    release: Sequence[int]
    exposed_s: Sequence[float]
    ttft_s: Sequence[float]
    equal: int
    predicted_s: float


class Timed(Protocol):
    """Schedules by name, the rate of the link, and why an answer was not served."""

    ways: Mapping[str, Sent]
    link_bytes_per_s: float
    problem: str


class Look(Protocol):
    """What a run says: shares of the requests that miss a bound, and the median TTFT."""

    ttft_missed: float
    tpot_missed: float
    ttft_p50_s: float


class Findings(Protocol):
    """Facts about one arm of a report; None where there is nothing to say."""

    differs: str
    clock_s: float | None
    startup_s: float | None
    draws: int | None
    goodput_per_s: float | None
    compared: int | None
    equal: int | None


def hand_offs(case: Case, starts: Mapping[str, Sequence[float]]) -> Figure:
    """When each layer is computed and sent; what is sent after the last one is computed is exposed."""
    ready = case.ready_s
    pieces = [
        Interval("prefill", end - seconds, end, COMPUTED, f"layer {layer}")
        for layer, (seconds, end) in enumerate(zip(case.compute_s, ready, strict=True))
    ]
    exposed = []
    for name, own in starts.items():
        pieces += _sent(f"link, {name}", own, case.transfer_s, ready[-1])
        exposed.append(f"{name} {1e3 * (own[-1] + case.transfer_s[-1] - ready[-1]):.0f} ms")
    return gantt(
        pieces,
        ["prefill", *(f"link, {name}" for name in starts)],
        Axis("time since the start of the prefill", "s", from_zero=True),
        lane="what is busy",
        kinds=(COMPUTED, HIDDEN, EXPOSED),
        title="Six layers, computed and sent",
        note=f"Layers of unequal length, made up. Exposed: {', '.join(exposed)}.",
        origin="predicted",
        marks=[Mark(ready[-1], "end of the prefill")],
        alt="Bars over time: the layers of a prefill one after the other, and below them their transfers; those after "
        "the end of the prefill are exposed.",
        height_px=320,
    )


def _sent(lane: str, starts: Sequence[float], transfer_s: Sequence[float], end_s: float) -> Iterator[Interval]:
    for layer, (start_s, seconds) in enumerate(zip(starts, transfer_s, strict=True)):
        stop_s, cut_s = start_s + seconds, min(max(start_s, end_s), start_s + seconds)
        if start_s < cut_s:
            yield Interval(lane, start_s, cut_s, HIDDEN, f"layer {layer}")
        if cut_s < stop_s:
            yield Interval(lane, cut_s, stop_s, EXPOSED, f"layer {layer}")


def exactness(verdicts: Mapping[str, Verdict]) -> Table:
    """What digests, logits and tokens say of each run, against the same requests without a hand-off."""
    rows = [
        [
            name,
            f"{one.pages_wrong} of {one.pages_checked}",
            f"{one.logits_error:.1e}",
            f"{one.tokens_equal} of {one.requests}",
        ]
        for name, one in verdicts.items()
    ]
    columns = ["run", "(layer, page)s that differ", "largest relative error of logits", "answers with equal tokens"]
    return Table("Against the same requests without a hand-off (measured on this machine)", columns, rows)


def timed(found: Timed) -> Table:
    """Each schedule: after how many layers each one goes, what is exposed by arithmetic and measured, and TTFT."""
    rows = []
    for name, one in found.ways.items():
        cells = [f"{1e3 * one.predicted_s:.1f}", _spread_ms(one.exposed_s), _spread_ms(one.ttft_s)]
        rows.append([name, ", ".join(map(str, one.release)), *cells, f"{one.equal} of {len(one.ttft_s)}"])
    caption = f"1P1D on two cores, a link of {found.link_bytes_per_s / 1e6:.0f} MB/s: medians (least to most)"
    if found.problem:
        caption += f". Yours was not served: {found.problem}"
    times = ["exposed, by arithmetic (ms)", "exposed, measured (ms)", "TTFT, measured (ms)"]
    return Table(caption, ["layers go", "after so many layers", *times, "answers equal"], rows)


def _spread_ms(seconds: Sequence[float]) -> str:
    middle, least, most = (f"{1e3 * one:.1f}" for one in (median(seconds), min(seconds), max(seconds)))
    return f"{middle} ({least} to {most})"


def duel(sides: Mapping[str, tuple[object, Look, Look, Mapping[int, float]]] | None, rates: Sequence[float]) -> Table:
    """Two fleets, one a column: goodput at their knees, and a run at each of two rates; None draws an empty table."""
    sides = sides or {}
    rows = []
    for draw in next(iter(sides.values()))[-1] if sides else ():
        rows.append(
            [f"goodput at the knee, draw {draw} (requests/s)", *(f"{of[draw]:.1f}" for *_, of in sides.values())]
        )
    if sides:
        rows.append(["mean of them", *(f"{fmean(of.values()):.2f}" for *_, of in sides.values())])
        for at, rate in enumerate(rates, start=1):
            looks = [side[at] for side in sides.values()]
            rows.append([f"TTFT missed at {rate:g} requests/s", *(f"{one.ttft_missed:.0%}" for one in looks)])
            rows.append([f"TPOT missed at {rate:g} requests/s", *(f"{one.tpot_missed:.0%}" for one in looks)])
            rows.append([f"median TTFT at {rate:g} requests/s", *(f"{one.ttft_p50_s:.2f} s" for one in looks)])
    caption = "Your split and its rival (simulated; at a rate: draw 1, one run)"
    return Table(caption if sides else "No split to compare yet", ["figure", *(sides or ("split", "together"))], rows)


def links(found: Mapping[float, Comparison]) -> Figure | Table:
    """How much more goodput a split has than its rival, over links of several rates; an empty table of none."""
    if not found:
        return Table("No split to compare yet", ["rate of the link (GB/s)", "difference in goodput (requests/s)"], [])
    ordered = dict(sorted(found.items()))
    differences = [one.difference for one in ordered.values()]
    return lines(
        [
            Series(
                "split less its rival",
                list(ordered),
                [one.mean for one in differences],
                [one.low for one in differences],
                [one.high for one in differences],
            )
        ],
        Axis("rate of the link", "GB/s", log=True),
        Axis("difference in goodput", "requests/s"),
        title="What the link decides",
        note=f"Goodput at the knees, blocking hand-off; mean and 95 % interval of {differences[0].n} paired draws.",
        origin="simulated",
        marks=[Mark(0.0, "equal", "y", at_start=True)],
        alt="The difference in goodput between the split and its rival against the rate of the link: above zero for "
        "fast links, far below it for slow ones.",
    )


def findings(found: Mapping[str, Findings]) -> Table:
    """What can be said of the arms of a report, one column an arm."""
    facts = {
        "differs from the first arm in": lambda one: one.differs,
        "draws": lambda one: _or_dash(one.draws, "d"),
        "goodput at the knee (requests/s), mean": lambda one: _or_dash(one.goodput_per_s, ".1f"),
        "time on the clock of the wall (s)": lambda one: _or_dash(one.clock_s, ".1f"),
        "of it, until the workers were ready (s)": lambda one: _or_dash(one.startup_s, ".1f"),
        "tokens compared": lambda one: _or_dash(one.compared, "d"),
        "of them, equal": lambda one: _or_dash(one.equal, "d"),
    }
    rows = [[name, *(told(one) for one in found.values())] for name, told in facts.items()]
    return Table("Behind the report, one column an arm", ["fact", *found], rows)


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
