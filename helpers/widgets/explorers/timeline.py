"""The timeline explorer: a short stretch of a run, worker by worker: what each one computed, sent or waited for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from helpers.cost.transfer import MODES
from helpers.errors import InputError
from helpers.metrics import activity as kinds
from helpers.metrics.activity import Stretch, activity, stages
from helpers.metrics.latency import LATENCIES, distribution
from helpers.metrics.series import Window
from helpers.metrics.timeline import EventLog
from helpers.widgets.explorer import Answer, Explorer, Readout, Record, Value, choice, number
from helpers.widgets.explorers import simulated as shared
from helpers.widgets.explorers.hardware import hardware_control
from helpers.widgets.figures import Axis, Interval, gantt
from helpers.widgets.runs import seconds
from helpers.widgets.show import Figure

REQUESTS = 400
TEXTS = 8  # the shared beginnings that prompts are drawn from
BLOCK_TOKENS = 64
MOST_NAMED = 8
MOST_REQUESTS = 24
LANE_PX, REQUEST_PX, FRAME_PX = 34, 18, 190


def compute(values: Mapping[str, Value], record: Record = None) -> Answer:
    """A run of `REQUESTS` requests from an empty fleet, of which one window is shown."""
    fleet, words = shared.fleet_of(values, record, link_mode=values["handoff"])
    log = shared.simulate(_draw(values), fleet, values["router"])
    window = Window(values["start_s"], values["start_s"] + values["length_s"])
    if window.start_s >= log.end_s:
        raise InputError(
            f"the run ends at {log.end_s:.1f} s and the window starts at {window.start_s:g} s; start earlier"
        )
    stretches = activity(log, window)
    note = f"N = {REQUESTS} requests, {shared.split_name(fleet)} under {values['router']}, {words}; one draw."
    summary = (
        f"Simulated, {words}: from {window.start_s:g} to {window.end_s:g} s the workers spend {_spent(stretches)}."
    )
    figures = _workers(stretches, log, window, note), _requests(log, window, note)
    return Answer(tuple(one for one in figures if one), _readouts(stretches, log, window), summary)


def _draw(values: Mapping[str, Value]) -> shared.Draw:
    """Prompts that begin with one of a few texts and go on alone; lengths are lognormal about the medians given."""
    common = round(values["prompt_tokens"] * values["shared"])
    knobs = {
        "system_tokens": 0,
        "tenants": 1,
        "tenant_tokens": "0",
        "documents": TEXTS,
        "document_tokens": str(common),
        "skew": 0.0,
        "question_tokens": f"lognormal:{max(1, values['prompt_tokens'] - common)}:0.5",
        "output_tokens": f"lognormal:{values['output_tokens']}:0.5",
    }
    arrivals = values["rate_per_s"], values["burstiness"], REQUESTS, values["seed"]
    return shared.Draw("documents", tuple(knobs.items()), *arrivals, BLOCK_TOKENS)


def _workers(stretches: Sequence[Stretch], log: EventLog, window: Window, note: str) -> Figure:
    intervals = [Interval(_lane(one, log), one.start_s, one.end_s, one.kind, _label(one)) for one in stretches]
    sending = {one.worker for one in stretches if one.kind == kinds.TRANSFER}
    lanes = []
    for worker in range(len(log.workers)):
        lanes += [_name(worker, log)] + ([f"{worker} sends"] if worker in sending else [])
    return gantt(
        intervals,
        lanes,
        Axis("time", "s"),
        kinds=kinds.KINDS,
        quiet=kinds.IDLE,
        title=f"Workers from {window.start_s:g} s to {window.end_s:g} s",
        note=note,
        origin="simulated",
        alt=f"One lane for each of {len(log.workers)} workers over time. They spend {_spent(stretches)}.",
        height_px=FRAME_PX + LANE_PX * len(lanes),
    )


def _requests(log: EventLog, window: Window, note: str) -> Figure | None:
    """The first requests of the window, one lane each; None when there is no request in it."""
    found = {t.id: parts for t in log.timelines if (parts := stages(t, window))}
    shown = list(found)[:MOST_REQUESTS]
    if not shown:
        return None
    intervals = [
        Interval(f"request {one}", a, b, kind, f"request {one}: {kind}, {seconds(b - a)} of it in the window")
        for one in shown
        for kind, a, b in found[one]
    ]
    return gantt(
        intervals,
        [f"request {one}" for one in shown],
        Axis("time", "s"),
        lane="request",
        kinds=kinds.KINDS[:-1],
        quiet=kinds.QUEUE,
        title=f"Requests from {window.start_s:g} s to {window.end_s:g} s",
        note=f"{note} {len(shown)} of the {len(found)} requests in the window, by arrival.",
        origin="simulated",
        alt=f"One lane for each of {len(shown)} requests over time: its queue, prefill, transfer and decode.",
        height_px=FRAME_PX + REQUEST_PX * len(shown),
    )


def _name(worker: int, log: EventLog) -> str:
    return f"{worker} {log.workers[worker].role}"


def _lane(one: Stretch, log: EventLog) -> str:
    return f"{one.worker} sends" if one.kind == kinds.TRANSFER else _name(one.worker, log)


def _label(one: Stretch) -> str:
    """The requests of a stretch by their ids, for the text beside the pointer."""
    if one.kind == kinds.IDLE:
        return "idle"
    parts = [f"sends KV of {_ids(one.prefilling)}"] if one.kind == kinds.TRANSFER else []
    if one.tokens:
        parts.append(f"prefills {_ids(one.prefilling)}: {one.tokens:,} tokens")
    if one.decoding:
        parts.append(f"decodes {_ids(one.decoding)}")
    return "; ".join(parts) or one.kind


def _ids(requests: Sequence[int]) -> str:
    shown = ", ".join(f"{one}" for one in requests[:MOST_NAMED])
    return shown + (f" and {len(requests) - MOST_NAMED} more" if len(requests) > MOST_NAMED else "")


def _spent(stretches: Sequence[Stretch]) -> str:
    """The share of the workers' time that each kind of work takes; transfers run beside it and do not count."""
    spent = {
        kind: fsum(one.end_s - one.start_s for one in stretches if one.kind == kind)
        for kind in kinds.KINDS
        if kind != kinds.TRANSFER
    }
    whole = fsum(spent.values())
    return ", ".join(f"{time_s / whole:.0%} {kind}" for kind, time_s in spent.items())


def _readouts(stretches: Sequence[Stretch], log: EventLog, window: Window) -> tuple[Readout, ...]:
    count = {
        "arrive": sum(t.arrival_s in window for t in log.timelines),
        "put out their first token": sum(
            t.first_token_s is not None and t.first_token_s in window for t in log.timelines
        ),
        "finish": sum(t.finished_s is not None and t.finished_s in window for t in log.timelines),
    }
    sent = [one for one in stretches if one.kind == kinds.TRANSFER]
    told = [Readout("time of the workers", _spent(stretches))]
    told.append(Readout("requests in the window", ", ".join(f"{n} {what}" for what, n in count.items())))
    if sent:
        longest = max(one.end_s - one.start_s for one in sent)
        told.append(Readout("KV hand-offs", f"{len(sent)}, the longest {seconds(longest)}"))
    for name, label in (("ttft_s", "TTFT of the run"), ("tpot_s", "TPOT of the run")):
        shares = distribution(LATENCIES[name], log.timelines).percentiles
        told.append(Readout(label, ", ".join(f"p{one.q:g} {seconds(one.value)}" for one in shares)))
    return tuple(told)


EXPLORER = Explorer(
    name="timeline",
    title="Workers over time",
    intro="A stretch of a run of Llama-3.1-8B in bf16. Point at a bar to see which requests it serves.",
    controls=(
        replace(shared.RATE, value=8.0),
        shared.BURSTINESS,
        number("prompt_tokens", "prompt", 3000, (64, 32_000), 1, "tokens", True, "Median length."),
        number("output_tokens", "output", 100, (1, 2000), 1, "tokens", True, "Median length."),
        number(
            "shared",
            "shared beginning",
            0.0,
            (0.0, 0.95),
            0.05,
            help=f"Part of the prompt that is one of {TEXTS} texts.",
        ),
        number("workers", "workers", 4, (1, 12), 1, help="Each is one device with the whole model."),
        number("prefill_workers", "of them prefill only", 0, (0, 11), 1, help="0: all mixed. 2 of 4 workers: 2P2D."),
        choice(
            "handoff", "KV hand-off", "batched", {mode: mode for mode in MODES}, "How KV gets to the decode worker."
        ),
        shared.ROUTER,
        number("start_s", "window starts at", 5.0, (0.0, 40.0), 0.25, "s", help="In the run, which starts empty."),
        number("length_s", "window lasts", 2.0, (0.25, 5.0), 0.25, "s", help="Short windows show single steps."),
        hardware_control(),
        shared.SEED,
    ),
    compute=compute,
)
