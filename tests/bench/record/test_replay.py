"""A held-out slice made again: what the record calls predicted comes out of the simulator of today."""

from dataclasses import replace

import pytest

from helpers.bench.record.files import read_record
from helpers.bench.record.replay import held_out
from helpers.bench.record.serving import figures
from helpers.cost.calibration import DESIGNED, SERVED, read_cost
from helpers.errors import InputError
from helpers.paths import DATA
from helpers.serving.packs import read_pack

FOLDER = DATA / "packs" / "h100_80gb_hbm3"
RECORD = read_record(FOLDER / "engine_llama-8b_serve.json")
COSTS = {steps: read_cost(FOLDER / "engine_llama-8b_calibrate.json", steps) for steps in (SERVED, DESIGNED)}


def made_again(section, record=RECORD):
    return held_out(record, section, read_pack(FOLDER / RECORD["parts"][section]["pack"]))


@pytest.mark.parametrize("section", ["none at 0.95", "queue_cap at 1.2"])
def test_the_predictions_of_the_record_come_out_again(section):
    asked = made_again(section)
    runs = {kind: replace(asked, fleet=replace(asked.fleet, cost=cost)).run() for kind, cost in COSTS.items()}
    points = [one for one in RECORD["parts"][section]["points"] if "predicted" in one]
    assert len(points) == 6
    for one in points:
        for kind, run in runs.items():
            assert figures(run)[one["name"]][0] == pytest.approx(one["predicted"][kind], rel=1e-9)
    tpot = next(one["predicted"] for one in points if one["name"] == "TPOT mean")
    assert tpot["served"] > 1.05 * tpot["designed"], "one cost in place of the other would be noticed"


def test_the_cap_on_the_queue_is_part_of_what_was_asked():
    section = "queue_cap at 1.2"
    asked = replace(made_again(section), admission="none", admission_parameters={})
    rejected = figures(replace(asked, fleet=replace(asked.fleet, cost=COSTS["served"])).run())["rejected"][0]
    told = next(one for one in RECORD["parts"][section]["points"] if one["name"] == "rejected")
    assert rejected == 0 < told["predicted"]["served"]


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"offered_per_s": 50.0}])
def test_other_requests_than_those_served_are_refused(changed, monkeypatch):
    monkeypatch.setattr("helpers.bench.record.replay.MOST_LEFT_OUT", 8)
    section = "none at 0.95"
    parts = RECORD["parts"] | {section: RECORD["parts"][section] | changed}
    with pytest.raises(InputError, match=r"^none at 0\.95: no draw has the digest"):
        made_again(section, RECORD | {"parts": parts})
