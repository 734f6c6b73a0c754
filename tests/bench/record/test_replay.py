"""What was served, made again: what a record calls predicted comes out of the simulator of today."""

from dataclasses import replace

import pytest

from helpers.bench.record.files import read_record
from helpers.bench.record.replay import as_live, held_out, routed
from helpers.bench.record.routing import cached_share
from helpers.bench.record.serving import figures
from helpers.cost.calibration import DESIGNED, SERVED, read_cost
from helpers.errors import InputError
from helpers.metrics.latency import distribution, ttft_s
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


PAIR = DATA / "packs" / "2x_h200"
ROUTED = read_record(PAIR / "engine_llama-8b_routing.json")
ARM = "predicted_ttft at 0.7"
DRAWS = [one for seed in (40, 41, 42) for one in ROUTED["parts"][f"seed {seed}"]["points"] if one["name"] == ARM]


@pytest.mark.parametrize("told", DRAWS, ids=lambda told: f"seed {told['seed']}")
def test_a_draw_of_two_workers_comes_out_again_and_goes_where_it_went_live(told):
    live = read_pack(PAIR / told["pack"])
    asked = routed(ROUTED, told, live)
    by_itself, as_it_went = asked.run(), replace(asked, router=lambda _: as_live(live)).run()
    assert distribution(ttft_s, by_itself.timelines).mean == pytest.approx(told["simulated"]["TTFT mean"], rel=1e-9)
    went = [one.prefill_worker for one in live.timelines]
    assert [one.prefill_worker for one in as_it_went.timelines] == went
    # The control: the simulated router, left to itself, sends a good part of them elsewhere and finds less cached.
    assert sum(one.prefill_worker != to for one, to in zip(by_itself.timelines, went, strict=True)) > 50
    assert cached_share(as_it_went) == pytest.approx(told["live"]["cached"], abs=0.005)
    assert cached_share(by_itself) < told["live"]["cached"] - 0.01


def test_a_draw_of_another_digest_is_refused():
    told = DRAWS[0]
    with pytest.raises(InputError, match=r"^predicted_ttft at 0\.7, seed 40: no draw has the digest"):
        routed(ROUTED, told | {"sha256": "0" * 64}, read_pack(PAIR / told["pack"]))
