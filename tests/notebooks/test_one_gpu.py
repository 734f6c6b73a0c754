"""The page on one measured GPU: what it says is in the records, and it breaks when a record says something else."""

import json
from pathlib import Path

import pytest

from tests.notebooks.test_chapters import source

NAME = "chapters/01_one_gpu_measured.ipynb"
PATH = Path(__file__).resolve().parent.parent.parent / NAME
FOLDER = PATH.parent.parent / "data" / "packs" / "h100_80gb_hbm3"


# What took longer on the card that was recorded after tuning.
SLOWER = [
    "decode, batch 128 (ms)",
    "decode attention, 32 equal contexts (us)",
    "prefill, 2,048 tokens (ms)",
]


def loop_of(points):
    return next(one for one in points if one["name"] == "batch 8 overlapped loop")


def test_the_page_shows_the_records_a_miss_among_them(run_notebook):
    shown = run_notebook(NAME)
    targets, peers = shown["gpu-targets"].rows, shown["gpu-peers"].rows
    assert len(targets) == 10 and len(peers) == 4
    assert [row[0] for row in targets if not row[5].endswith(": met")] == []
    assert [row[0] for row in peers if not row[2].endswith(": met")] == []
    verdicts = {row[0]: row[2].rpartition(": ")[2] for row in shown["gpu-faster-peers"].rows}
    assert [name for name, verdict in verdicts.items() if verdict == "MISSED"] == ["transformers eager, batch 32"]
    assert list(verdicts.values()).count("met") == 3
    points = json.loads((FOLDER / "engine_llama-8b_engine.json").read_text())["parts"]["decode"]["points"]
    loop = loop_of(points)
    row = next(row for row in targets if row[0] == "decode, batch 8 (ms)")
    assert (row[1], row[3]) == (f"{loop['value']:.4g}", f"{loop['floor']:.4g}")
    served = shown["gpu-serve-table"].rows
    assert [row[0] for row in served[::4]] == [f"{a} at {n}" for a in ("none", "queue_cap") for n in (0.7, 0.95, 1.2)]
    written = json.loads((FOLDER / "engine_llama-8b_serve.json").read_text())["parts"]
    for load, kind in ((1, "served"), (5, "designed")):
        points = {one["name"]: one for one in written[served[4 * load][0]]["points"]}
        cells = served[4 * load + (1 if kind == "served" else 2)]
        wanted = [f"{points[n]['errors'][kind]:+.1%}" for n in ("TTFT mean", "TTFT p90", "TPOT mean", "throughput")]
        assert cells[3:] == wanted and kind in cells[2]
    carried = shown["gpu-faster"].rows
    assert [row[0] for row in carried] == ["1", "8", "32", "128"]
    there = json.loads((FOLDER.parent / "h200" / "engine_llama-8b_engine.json").read_text())["parts"]["decode"][
        "points"
    ]
    assert carried[1][1:3] == [f"{one['value']:.4g}" for one in (loop, loop_of(there))]
    assert [row[0] for row in shown["gpu-tuned"].rows if row[6].endswith("MISSED")] == []
    assert [row[0] for row in shown["gpu-tuned"].rows if row[3].startswith("+")] == SLOWER
    assert [row[2] for row in shown["gpu-faster-serve"].rows[:4]] == [
        "measured",
        "simulated, its own served steps",
        "simulated, the H100's, carried over",
        "simulated, data sheet",
    ]
    for figure in ("gpu-steps", "gpu-chunks", "gpu-kernels", "gpu-serve"):
        assert shown[figure].note.startswith("Measured.")


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        ("gpu-serve", 'served_cost_in(serve, "serve")', 'cost_in(calibrate, "calibrate")'),
        ("gpu-floors", "input_embedding=False", "input_embedding=True"),
        ("gpu-chunks-quoted", '"captured", "kernel by kernel"', '"kernel by kernel", "captured"'),
        ("gpu-costs-quoted", "steps.values()", "list(steps.values())[::-1]"),
        ("gpu-faster", "carried_steps(engine, other)", "carried_steps(other, engine)"),
        ("gpu-faster-quoted", '"engine-earlier", m', '"engine", m'),
        ("gpu-peers-quoted", '("max", "min")', '("max", "max")'),
        ("gpu-peers-quoted", "(1, 8, 32)", "(128,)"),
        ("gpu-serve-quoted", '"none at 0.95", "served', '"none at 0.7", "served'),
        ("gpu-tuned", "before = untuned[1]", "before = other"),
        ("gpu-tuned-quoted", "loop(other, 128)", "loop(other, 32)"),
        ("gpu-tuned-quoted", "(untuned[0], engine)", "(engine, untuned[0])"),
        ("gpu-faster-peers-quoted", '"peers-earlier"', '"peers"'),
        ("gpu-faster-peers-quoted", 'grew("peer gpt-fast", recorded.GPT_FAST)', "host_bound"),
        ("gpu-faster-serve", 'RooflineCost(served, gpu("h200"))', "carried_over(here, 3.0, 3.0)"),
        ("gpu-faster-serve", 'served_cost_in(faster["serve"], "serve")', "here"),
    ],
)
def test_a_claim_that_the_records_do_not_bear_out_ends_the_page(run_notebook, cell, old, new):
    assert old in source(PATH, cell)
    quoted = {name: f"{name}-quoted" for name in ("gpu-serve", "gpu-faster", "gpu-faster-serve", "gpu-tuned")}
    ends = quoted.get(cell, cell)
    with pytest.raises(AssertionError):
        run_notebook(NAME, {cell: source(PATH, cell).replace(old, new)}, until=ends)
