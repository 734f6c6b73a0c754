"""The figures of chapter 3, each with the words that go with it; they draw what the cells and the records hand over."""

from collections.abc import Mapping, Sequence

from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.metrics.factorial import Effect
from helpers.roofline.bounds import StepBound
from helpers.widgets.figures import Axis, Series, bars, lines
from helpers.widgets.roofs import Point, roofs
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

KNEE = Axis("knee", "requests/s and GPU", from_zero=True)
TERA = 1e12
WIRES_SHOWN = {"nvlink": "NVLink", "network": "400 Gbit/s card", "pcie": "PCIe 5"}


def two_roofs(part: GPU, steps: Mapping[str, StepBound]) -> Figure:
    """Whole steps under the roof of a part, by name."""
    points = [Point(k, "predicted", one.flops / one.bytes, one.flops / one.seconds / TERA) for k, one in steps.items()]
    ridge, peak = part.ridge("bf16"), part.peak_flops("bf16")
    xs = sorted((min(p.x for p in points) / 3, ridge, max(p.x for p in points) * 3))
    roof = [min(part.hbm_bytes_per_s * x, peak) / TERA for x in xs]
    where = "; ".join(f"{p.name} at {p.x:.0f} FLOP/byte" for p in points)
    return roofs(
        [Series("roof, bf16", xs, roof)],
        points,
        Axis("arithmetic intensity", "FLOP/byte", log=True),
        Axis("arithmetic", "TFLOP/s", log=True),
        title="One GPU, two roofs",
        note=f"Llama-3.1-8B on {part.name}, from the data sheet; the ridge is at {ridge:.0f} FLOP/byte.",
        origin="predicted",
        alt=f"A roofline with whole steps on it: {where}. Prefill is under the flat roof, decode under the slope.",
    )


def chunk_beside_decodes(measured, models: Mapping, device: str) -> Figure:
    """Milliseconds of a step by the prompt tokens that decodes take along: `StepsBeside` of `helpers.lessons.splits`.

    Raises `InputError` for a model of other steps than those measured.
    """
    same = measured.decodes, measured.kv_tokens
    for name, one in models.items():
        if (one.decodes, one.kv_tokens) != same:
            raise InputError(f"{name} is of {one.decodes} decodes at a context of {one.context}; measured were others")
    found = {"measured": measured, **models}
    low, high = measured.alone_at
    return lines(
        [Series(name, list(one.seconds), one.ms) for name, one in found.items()],
        Axis("prompt tokens in the step", "", from_zero=True),
        Axis("time of the step", "ms", from_zero=True),
        title=f"What a chunk does to {measured.decodes} decodes",
        note=f"This course's engine on {device}, captured steps, medians of {measured.rounds}, all decodes at "
        f"{measured.context} tokens of context (alone: between those at {low} and at {high}). The other lines are "
        "predicted, for the same context.",
        origin="measured",
        alt="The time of a step against the prompt tokens in it. The data sheet is flat at first and then rises; what "
        "was measured rises from the start, and the line fitted to measured steps too.",
    )


def moves(rows: Sequence, prompt: int) -> Table:
    """What a prompt hands over, and how long that takes on each wire. `rows` are those of `helpers.lessons.splits`."""
    table = []
    for row in rows:
        cells = [f"{1e3 * one.whole_s:.1f} ms ({one.whole_s / row.prefill_s:.0%})" for one in row.by_wire.values()]
        table.append(
            (f"{row.name}, {row.gpus}", f"{row.per_token / 1e3:.0f} kB", f"{1e3 * row.prefill_s:.0f} ms", *cells)
        )
    columns = ("model, GPUs", "KV a token", "prefill", *(WIRES_SHOWN[wire] for wire in rows[0].by_wire))
    return Table(f"{prompt:,} tokens handed over on one link (predicted; share of the prefill)", columns, table)


def break_even(cached: Sequence[int], found: Mapping[str, Sequence[int]], wait_s: float) -> Figure:
    """From how many uncached tokens on a hand-off pays, against the tokens that are cached already."""
    return lines(
        [Series(name, cached, tokens) for name, tokens in found.items()],
        Axis("cached before them", "tokens"),
        Axis("break-even", "uncached tokens", from_zero=True),
        title="Short work stays where its KV is",
        note=f"H100, {1e3 * wait_s:.0f} ms of waiting for a prefill worker; else chunks of 512 beside 32 decodes.",
        origin="predicted",
        alt="The break-even of uncached tokens against cached ones: it rises with what must be moved, fastest for the "
        "sender that waits for the whole transfer, and hardly where layers are sent as they are computed.",
    )


def pools(bound: Mapping[str, float], rows: Sequence[Mapping], seeds: int) -> Figure:
    """Each split's bound beside its simulated knee."""
    names = [row["split"] for row in rows]
    ends = ([row["knee"][end] for row in rows] for end in ("mean", "low", "high"))
    return bars(
        [Series("bound, predicted", names, [bound[name] for name in names]), Series("knee, simulated", names, *ends)],
        Axis("split of eight GPUs", ""),
        KNEE,
        title="The bound and the simulator name the same split",
        note=f"TPOT of 15 ms; knees over {seeds} draws, 95 % intervals; bounds from mean lengths.",
        origin="simulated",
        alt="Bars of the predicted bound and the simulated knee of each split: both peak where prefill and decode "
        "workers are full at the same rate, and the knee is below the bound.",
    )


def kinds(found: Mapping[str, Sequence[Mapping]], seeds: int) -> Figure:
    """The best fleet of each kind at several TPOT bounds."""
    series = []
    for at, name in enumerate(("together, best chunk", "apart, best split")):
        ends = ([pair[at]["knee"][end] for pair in found.values()] for end in ("mean", "low", "high"))
        series.append(Series(name, list(found), *ends))
    return bars(
        series,
        Axis("TPOT SLO", ""),
        KNEE,
        title="Which is better depends on the pace that was promised",
        note=f"Eight H100, TTFT of 1 s, nine requests in ten; {seeds} draws, 95 % intervals.",
        origin="simulated",
        alt="Bars of the knee of the best co-located and the best split fleet at three TPOT bounds: the first is ahead "
        "at the loosest, the second at the two tighter ones.",
    )


def all_effects(found: Sequence[Effect], seeds: int) -> Figure:
    """Main effects and interactions with their intervals."""
    ends = ([getattr(one.interval, end) for one in found] for end in ("mean", "low", "high"))
    return bars(
        [Series("effect", [one.name for one in found], *ends)],
        Axis("factor", ""),
        Axis("effect", "requests/s and GPU"),
        title="What each change brings, and what they bring together",
        note=f"Eight cells, {seeds} draws each, the same in all; 95 % intervals over draws.",
        origin="simulated",
        alt="Bars of the three main effects and four interactions with their intervals; routing and chunk size have "
        "effects of their own, and how much the chunk brings depends on the split.",
    )


def regimes(rows: Mapping[str, Sequence], seeds: int) -> Table:
    """The best fleet of each kind, and what the split one carries more, one row a regime."""
    table = [(name, _arm(a), _arm(b), _interval(difference)) for name, (a, b, difference) in rows.items()]
    caption = f"Knees, requests/s and GPU (simulated, {seeds} draws, 95 % intervals)"
    return Table(caption, ("", "best together", "best apart", "apart less together"), table)


def _arm(row: Mapping) -> str:
    what = row["split"] or f"chunks of {row['chunk_tokens']:,}"
    return f"{row['knee']['mean']:.2f}: {what}"


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"
