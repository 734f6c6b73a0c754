"""The page on the parts of the engine: what it says is in the record, and it breaks when the record says otherwise."""

import json
from pathlib import Path

import pytest

from tests.notebooks.test_chapters import source

NAME = "chapters/01_engine_rungs.ipynb"
PATH = Path(__file__).resolve().parent.parent.parent / NAME
RECORD = PATH.parent.parent / "data" / "packs" / "h100_80gb_hbm3" / "engine_llama-8b_inference.json"


def test_the_page_shows_the_record_rung_by_rung(run_notebook):
    shown = run_notebook(NAME)
    parts = json.loads(RECORD.read_text())["parts"]
    rows = {row[0]: row for row in shown["rungs-table"].rows}
    assert list(rows) == [one["name"] for one in parts["foreseen"]["points"]]
    for one in parts["ladder"]["points"]:
        name, _, figure = one["name"].partition(": ")
        if figure == "e2e_mean_s":
            assert rows[name][1:4:2] == [f"{one['value']:.4g}", f"{one['predicted']['formula']:.4g}"]
            assert rows[name][4].rpartition(": ")[2] == one.get("before", {}).get("said", "")
    assert [row[0] for row in shown["rungs-answers"].rows] == list(rows)[1:]
    assert len(shown["rungs-time"].rows) == len(shown["rungs-ties"].rows) == 5
    assert len(shown["rungs-profile"].columns) == 6
    for figure in ("rungs-ladder", "rungs-reconcile"):
        assert shown[figure].note.startswith("Measured.")


def test_the_guess_is_held_against_what_captured_steps_saved(run_notebook):
    """The share is 1 - (E2E with captured steps) / (E2E before): of the record, of the formula, and of other rungs."""
    points = {one["name"]: one for one in json.loads(RECORD.read_text())["parts"]["ladder"]["points"]}
    rungs = [name.removesuffix(": e2e_mean_s") for name in points if name.endswith(": e2e_mean_s")]
    e2e = [points[f"{rung}: e2e_mean_s"] for rung in rungs]
    wanted = {rung: 100 * (1 - e2e[i]["value"] / e2e[i - 1]["value"]) for i, rung in enumerate(rungs) if i > 1}
    said = [one["predicted"]["formula"] for one in e2e]
    wanted[f"{rungs[3]}, predicted before"] = 100 * (1 - said[3] / said[2])
    drawn = run_notebook(NAME)["rungs-reconcile"]
    found = {row: value for row, kind, value in drawn.rows if kind == "recording"}
    assert found == pytest.approx(wanted, rel=1e-3)
    assert f"({rungs[3]}, " in drawn.note


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        ("rungs-alone", "= one_request.values()", "= list(one_request.values())[::-1]"),
        ("rungs-quoted", "static_rate, last_rate =", "last_rate, static_rate ="),
        ("rungs-losses", 'climb, batching, "tpot', 'climb, graphs, "tpot'),
        ("rungs-ties-quoted", "rungs.ANYWHERE}: lead", "steps[0]}: apart"),
        ("rungs-profile-quoted", "ends = first, ahead", "ends = ahead, first"),
        ("rungs-faster", 'recorded_part("inference", "h200")', 'recorded_part("inference")'),
        ("rungs-reconcile", "= -change(", "= change("),
        ("rungs-reconcile-quoted", 'of(cache, "host_launch_s")', 'of(cache, "step_mean_s")'),
    ],
)
def test_a_claim_that_the_record_does_not_bear_out_ends_the_page(run_notebook, cell, old, new):
    assert old in source(PATH, cell)
    ends = {"rungs-reconcile": "rungs-reconcile-quoted"}.get(cell, cell)
    with pytest.raises(AssertionError):
        run_notebook(NAME, {cell: source(PATH, cell).replace(old, new)}, until=ends)
