"""The tables in `data/packs/<machine>/README.md` say what the records beside them say."""

from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from helpers.bench.engine.report import number
from helpers.bench.record.files import read_record
from helpers.lessons.decisions import with_live_decisions
from helpers.lessons.ladders import learnt_anew
from helpers.serving.packs import read_pack
from helpers.widgets.recorded import tuned

PACKS = Path(__file__).resolve().parent.parent.parent / "data" / "packs"
DECODES = [f"batch {batch} {what}" for batch in (1, 8, 32, 128) for what in ("overlapped loop", "MBU")]
MEASURED = {
    "decode": DECODES,
    "prefill": ["2048 tokens MFU", "8192 tokens MFU"],
    "mixed": [
        f"128 tokens beside 32 decodes, {how}{what}"
        for how in ("captured", "kernel by kernel")
        for what in ("", ", launch")
    ],
    "end to end": ["32 x 512 in, 128 out"],
}
SERVED = ("none at 0.7", "none at 0.95", "none at 1.2", "queue_cap at 1.2")
FIGURES = ("TTFT mean", "TTFT p50", "TTFT p90", "TPOT mean", "throughput")


MACHINES = ("h100_80gb_hbm3", "h200")


def record_of(machine, part):
    return read_record(PACKS / machine / f"engine_llama-8b_{part}.json")


def points_of(record, section):
    return {one["name"]: one for one in record["parts"][section]["points"]}


def measured_rows(machine):
    """What was measured, its floor, N and range."""
    for section, names in MEASURED.items():
        points = points_of(record_of(machine, "engine"), section)
        for one in (points[name] for name in names):
            spread = f"{one['n']}: {number(one['min'])} to {number(one['max'])}" if "min" in one else ""
            cells = (one["name"], f"{number(one['value'])} {one['unit']}", number(one.get("floor")), spread)
            yield f"| {' | '.join(cells)} |"


def fidelity_rows(machine):
    """Measured under a load, and by how much the simulator is off with the cost that was fitted to served steps."""
    for section in SERVED:
        points = points_of(record_of(machine, "serve"), section)
        cells = [
            f"{number(points[name]['value'])} {points[name]['unit']} ({points[name]['errors']['served']:+.1%})"
            for name in FIGURES
        ]
        yield f"| {section} | {points['TTFT mean']['n']} | {' | '.join(cells)} |"


def peer_rows(machine):
    """Output tokens a second of each peer with N and range, and our rate over it with its target."""
    points = {
        name: one
        for section in ("peer gpt-fast", "peer transformers")
        for name, one in points_of(record_of(machine, "peers"), section).items()
    }
    for name in (name for name in points if f"ours / {name}" in points):
        theirs, ratio = points[name], points[f"ours / {name}"]
        spread = f"{theirs['n']}: {number(theirs['min'])} to {number(theirs['max'])}"
        verdict = f"{number(ratio['target'])}: {'met' if ratio['met'] else 'MISSED'}"
        yield f"| {name.replace('|', ', ')} | {number(theirs['value'])} | {spread} | {ratio['value']:.2f} | {verdict} |"


def engine_rows(machine):
    """The tables of one machine's engine: what was measured, under load, and beside its peers."""
    return [*measured_rows(machine), *fidelity_rows(machine), *peer_rows(machine)]


def routed_rows(folder):
    """Routers over two GPUs: the mean over three draws with its range, and by how much the simulator is off; in TTFT
    also with each request sent where it went live."""
    points = {one["name"]: one for one in record_of(folder, "routing")["parts"]["routers"]["points"]}
    for arm in dict.fromkeys(name.partition(": ")[0] for name in points if not name.startswith("order at")):
        ttft, tpot, cached = (points[f"{arm}: {name}"] for name in ("TTFT mean", "TPOT mean", "cached"))
        cells = [in_ms(one["value"], one["min"], one["max"], one["errors"]["served"]) for one in (ttft, tpot)]
        cells.insert(1, f"{with_live_decisions(folder, arm)[0]:+.1%}")
        yield f"| {arm} | {' | '.join(cells)} | {cached['value']:.3f} ({cached['errors']['served']:+.3f}) |"


WITHOUT_BURST = "steps as large as those served"


def held_rows(record, fleets):
    """Live runs of the same requests, and by how much the simulator is off; of TPOT also without the burst, where one
    was learnt from."""
    taught = "samples" in record["parts"]["sustained"]
    for name in fleets:
        for one in record["parts"][name]["held_out"]:
            found = {f["name"]: f for f in one["figures"]}
            cells = [
                in_ms(f["live"]["mean"], min(f["samples"]), max(f["samples"]), f["error"])
                for f in (found[name] for name in ("TTFT mean", "TTFT p90", "TPOT mean"))
            ]
            if taught:
                without = one["errors_without"].get(WITHOUT_BURST)
                cells.append(f"{without['TPOT mean']:+.1%}" if without else "the same")
            yield f"| {one['name']} | {' | '.join(cells)} | {found['throughput']['error']:+.1%} |"


def anew_rows():
    """The errors of the simulator for the split as recorded, and by what today's code learns of the same steps."""
    names = ("TTFT mean", "TTFT p90", "TPOT mean", "throughput")
    now = {name: learnt_anew("2x_h200", "1P1D", name) for name in names}
    for i, one in enumerate(two_h200("fidelity")["parts"]["1P1D"]["held_out"]):
        found = {f["name"]: f for f in one["figures"]}
        cells = (f"{found[name]['error']:+.1%}, {now[name][i].error:+.1%}" for name in names)
        yield f"| {one['name']} | {' | '.join(cells)} |"


LIVE = ("steps of one", "steps of two", "one worker at 0.5", "one worker at 0.8", "round robin at 0.75")
LIVE = (*LIVE, "least requests at 0.75", "steps of a split", "1P1D at 0.4", "1P1D at 0.7")
LEAST = 15  # steps
LONGEST, DECODES_OF = (1500, 2500, 3500, 4500, 6500), ((17, 32), (33, 48), (49, 64))


def decode_steps_of(run):
    """(decodes, KV tokens, longest context, seconds) of each step without a prompt, from who decoded in it."""
    for worker, log in enumerate(run.step_logs):
        contexts = [[] for _ in range(len(log))]
        for t in run.timelines:
            rows = (row for span in t.spans if span.worker == worker for row in range(span.first, span.last + 1))
            for further, row in enumerate(rows, 1):
                contexts[row].append(t.prompt_tokens + further)
        for some, prefilled, seconds in zip(contexts, log.prefilled, log.base_s, strict=True):
            if some and not prefilled:
                yield len(some), sum(some), max(some), seconds


def longest_rows():
    """Decode steps by the longest context among their decodes: the median in ms, the mean KV tokens, N."""
    runs = [read_pack(PACKS / "2x_h200" / f"live_llama-8b_{name.replace(' ', '_')}.json.gz") for name in LIVE]
    steps = [step for run in runs for step in decode_steps_of(run)]
    for low, high in zip((0, *LONGEST), LONGEST, strict=False):
        cells = []
        for fewest, most in DECODES_OF:
            some = [(kv, s) for d, kv, longest, s in steps if fewest <= d <= most and low < longest <= high]
            kv = sum(kv for kv, _ in some) / max(1, len(some))
            told = (
                f"{1e3 * median(s for _, s in some):.2f} ({kv / 1e3:.0f}k, {len(some)})" if len(some) >= LEAST else "-"
            )
            cells.append(told)
        yield f"| {low:,} to {high:,} | {' | '.join(cells)} |"


ARMS = ("synced", "blocking", "asynchronous", "layerwise", "slabs", "group", "bounce", "together")
LEGS = ("offered", "took", "told", "heard", "joined", "stepped")


def runs_of(record):
    """The runs of each arm of a recording of hand-offs; the rival with small chunks under a name of its own."""
    found = {}
    for section, told in record["parts"].items():
        more = section.removeprefix("rival") if section.startswith("rival") else ""
        for one in told.get("points", ()):
            if "run" in one and ", seed " in one["name"] and not one.get("failed"):
                found.setdefault(one["arm"] + more, []).append(one["run"])
    return found


def handed_rows():
    """Each arm: the median of its draws in milliseconds, and the same of an earlier recording."""
    now, before = runs_of(two_gpus("disagg")), runs_of(two_gpus("disagg-earlier"))

    def ms(runs, name, digits):
        values = [one[name] for one in runs if one.get(name) is not None]
        return f"{1e3 * median(values):.{digits}f}" if values else "-"

    for arm in sorted(now, key=lambda arm: (ARMS.index(arm.partition(",")[0]), arm)):
        runs, share = now[arm], [one["exposed_of_ttft"] for one in now[arm] if one.get("exposed_of_ttft")]
        shown = ms(runs, "exposed_mean_s", 2) + (f" ({median(share):.1%})" if share else "")
        cells = [ms(runs, name, d) for name, d in (("ttft_mean_s", 0), ("tpot_mean_s", 2), ("longest_gap_s", 1))]
        cells += [ms(runs, "hidden_mean_s", 0), shown]
        old = before.get(arm, ())
        cells += [ms(old, name, d) for name, d in (("ttft_mean_s", 0), ("longest_gap_s", 1), ("exposed_mean_s", 2))]
        yield f"| {arm} | {' | '.join(cells)} |"


def pair_rows():
    """Each arm on two H200: the median of its draws in milliseconds, and how many there are."""
    found = runs_of(two_h200("disagg"))
    for arm in sorted(found, key=lambda arm: (ARMS.index(arm.partition(",")[0]), arm)):
        runs, cells = found[arm], []
        for name, digits in (("ttft_mean_s", 0), ("tpot_mean_s", 2), ("longest_gap_s", 1), ("exposed_mean_s", 2)):
            values = [one[name] for one in runs if one.get(name) is not None]
            cells.append(f"{1e3 * median(values):.{digits}f}" if values else "-")
        yield f"| {arm} | {' | '.join(cells)} | {len(runs)} |"


def leg_rows():
    """Each leg of a hand-off, the median of the medians of the draws in milliseconds."""
    for arm, runs in runs_of(two_gpus("disagg")).items():
        values = {leg: [one[f"{leg}_leg_s"] for one in runs if one.get(f"{leg}_leg_s") is not None] for leg in LEGS}
        if any(values.values()):
            cells = (f"{1e3 * median(found):.2f}" if found else "-" for found in values.values())
            yield f"| {arm} | {' | '.join(cells)} |"


def tuned_rows(machine):
    """Decode steps before and after tuning, on two cards of one kind."""
    for row in tuned(*(record_of(machine, part) for part in ("engine-earlier", "engine")), "").rows:
        yield f"| {' | '.join(row)} |"


def shared_rows():
    """Two roles on one H200, milliseconds of the only draw."""
    parts = h200("disagg")["parts"].values()
    points = {one["name"]: one for told in parts for one in told.get("summary", ())}
    together = "together, chunks of 2,048", "together, chunks of 512"
    for arm in ("blocking", "asynchronous", "layerwise", "slabs", *together):
        name = arm.replace(", chunks of 2,048", "")
        figures = (("ttft_mean_s", 1), ("tpot_mean_s", 2), ("longest_gap_s", 1), ("exposed_mean_s", 2))
        found = [(points.get(f"{name} at 10/s: {figure}"), digits) for figure, digits in figures]
        assert all(one["n"] == 1 for one, _ in found if one)
        cells = [f"{1e3 * one['value']:.{digits}f}" if one else "-" for one, digits in found]
        yield f"| {arm} | {' | '.join(cells)} |"


def h200(part):
    return read_record(PACKS / "h200" / f"engine_llama-8b_{part}.json")


def two_h200(part):
    return read_record(PACKS / "2x_h200" / f"engine_llama-8b_{part}.json")


def two_gpus(part):
    return read_record(PACKS / "2x_h100_80gb_hbm3" / f"engine_llama-8b_{part}.json")


def in_ms(value, low, high, error):
    return f"{1e3 * value:.2f} ({1e3 * low:.2f} to {1e3 * high:.2f}) {error:+.1%}"


def lines_of(machine):
    return (PACKS / machine / "README.md").read_text(encoding="utf-8").splitlines()


FLEETS = ("one worker", "two workers", "1P1D")
TABLES = {
    "h100_80gb_hbm3": [*engine_rows("h100_80gb_hbm3"), *tuned_rows("h100_80gb_hbm3")],
    "h200": [
        *engine_rows("h200"),
        *tuned_rows("h200"),
        *held_rows(h200("fidelity"), ("one worker",)),
        *shared_rows(),
    ],
    "2x_h100_80gb_hbm3": [
        *handed_rows(),
        *leg_rows(),
        *routed_rows("2x_h100_80gb_hbm3"),
        *held_rows(two_gpus("fidelity"), FLEETS),
    ],
    "2x_h200": [
        *held_rows(two_h200("fidelity"), FLEETS),
        *anew_rows(),
        *longest_rows(),
        *routed_rows("2x_h200"),
        *pair_rows(),
    ],
}


@pytest.mark.parametrize(("machine", "row"), [(machine, row) for machine, rows in TABLES.items() for row in rows])
def test_each_row_is_what_the_record_says(machine, row):
    assert row in lines_of(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_other_row_is_there(machine):
    tables = [line for line in lines_of(machine) if line.startswith(("| batch", "| none at", "| queue_cap at"))]
    assert set(tables) <= set(engine_rows(machine)) and len(tables) == len(DECODES) + len(SERVED)


@pytest.mark.parametrize("pair", ["2x_h100_80gb_hbm3", "2x_h200"])
def test_no_row_of_an_earlier_record_stayed(pair):
    lines = lines_of(pair)
    headings = {line for line, below in pairwise(lines) if below.startswith("|---")}
    rows = sorted(line for line in lines if line.startswith("| ") and line not in headings)
    assert rows == sorted(TABLES[pair])


if __name__ == "__main__":
    for name, told in TABLES.items():
        print(f"# {name}", *told, sep="\n")
