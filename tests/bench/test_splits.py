"""The record of splits: small questions asked for real, answers that follow from the fleets, and what is refused."""

import json
from dataclasses import replace

import pytest

from helpers.bench.splits import LOOSE, PROMPTS, SLOW, TIGHT, Arm, Question, fleet_of, splits
from helpers.cost.calibration import DESIGNED, Calibration
from helpers.cost.iteration import AffineCost
from helpers.cost.roofline import RooflineCost
from helpers.cost.split import link_of
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.serving.fleet import Fleet
from helpers.workload.slo import SLO

COST = AffineCost(7e-3, 15e-6, 2e-9, 6e-6, 4e-8)
FROM = {"device": "a device", "hardware_key": "a_device", "commit": "c" * 40, "made": "today"}
CALIBRATION = Calibration(COST, DESIGNED, FROM, "a_calibrate.json")
SMALL = Question("small", PROMPTS, (LOOSE, TIGHT), (Arm(None, 512), Arm("1P1D", 2048)), workers=2)


def asked(*questions, seeds=(0, 1), requests=150, **more):
    return splits(CALIBRATION, seeds, questions, requests, **more)


def test_every_arm_is_asked_at_every_slo_on_the_same_draws():
    ticks = []
    told = asked(SMALL, tick=lambda: ticks.append(1))
    (question,) = told["questions"]
    assert [(row["arm"], row["tpot_s"]) for row in question["rows"]] == [
        (arm.name, slo.tpot_s) for arm in SMALL.arms for slo in SMALL.slos
    ]
    assert all(set(row["knees"]) == {"0", "1"} for row in question["rows"]) and len(ticks) == 4
    assert len(set(question["workload_sha256"])) == 2
    assert told["calibration"]["coefficients"]["overhead_s"] == 7e-3 and told["kind"] == "simulated"
    assert (FROM | {"file": "a_calibrate.json", "steps": "designed"}).items() <= told["calibration"].items()
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_tighter_pace_carries_less_and_a_slow_link_too():
    rows = {(row["split"], row["tpot_s"]): row["knees"]["0"] for row in asked(SMALL)["questions"][0]["rows"]}
    assert rows[None, 0.015] < rows[None, 0.05] and rows["1P1D", 0.015] <= rows["1P1D", 0.05]
    slow = asked(replace(SMALL, link=SLOW, slos=(TIGHT,), arms=SMALL.arms[1:]))["questions"][0]
    assert slow["rows"][0]["knees"]["0"] < rows["1P1D", 0.015] and slow["link"]["mode"] == "blocking"


def test_twice_as_cheap_steps_carry_more():
    cheap = AffineCost(*(getattr(COST, name) / 2 for name in AffineCost.__slots__[:5]))
    rows = [
        splits(replace(CALIBRATION, cost=cost), (0, 1), (SMALL,), 150)["questions"][0]["rows"][1]["knee"]["mean"]
        for cost in (COST, cheap)
    ]
    assert rows[1] > 1.5 * rows[0]


def test_a_fleet_is_that_of_its_question():
    base = Fleet(cost=COST)
    fleet = fleet_of(replace(SMALL, link=SLOW), SMALL.arms[1], base)
    assert (fleet.split, fleet.chunk_tokens, fleet.link, fleet.cost) == ("1P1D", 2048, SLOW, COST)
    sheet = fleet_of(replace(SMALL, sheet=True), SMALL.arms[0], base).cluster(512)
    assert isinstance(sheet.workers[0].cost, RooflineCost) and sheet.link == link_of(gpu("h100"), "network")


@pytest.mark.parametrize("split", ["1P1D", "3P3D"])
def test_reports_alone_choose_worse_among_several_decode_workers_and_the_same_of_one(split):
    arms, workers = (Arm(split, 2048), Arm(split, 2048, by_reports=True)), 2 * int(split[0])
    (found,) = asked(replace(SMALL, arms=arms, slos=(SLO(1.0, 0.009),), workers=workers), requests=400)["questions"]
    counted, blind = (row["knee"]["mean"] for row in found["rows"])
    assert counted == blind if split == "1P1D" else counted > blind


def test_one_seed_is_refused():
    with pytest.raises(InputError, match="1 seeds give no interval"):
        asked(SMALL, seeds=(0,))
