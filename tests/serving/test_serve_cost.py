"""What policies are told behind the endpoint: what a step costs here, or that nobody knows."""

import json
from inspect import signature

import pytest

from helpers.cost.calibration import COEFFICIENTS, read_cost
from helpers.errors import InputError
from helpers.policies import registry
from helpers.policies.facts import Facts
from helpers.policies.view import Dispatched
from helpers.serving.endpoint.commands import facts_of, serve
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Workload
from helpers.workload.slo import SLO
from tests.serving.test_simulate_command import run_main, simulated

NOBODY = Workload("clients", (), 64)
PREDICTING = [{"router": "predicted_ttft"}, {"router": "mooncake"}, {"admission": "predicted_slo"}]
SLOW_S = 0.1  # of a step, whatever is in it


@pytest.fixture
def calibration(tmp_path):
    """A record in which every step takes `SLOW_S`."""
    file = tmp_path / "cost.json"
    file.write_text(json.dumps({"coefficients": dict.fromkeys(COEFFICIENTS, 0.0) | {"overhead_s": SLOW_S}}))
    return file


@pytest.mark.parametrize("policies", PREDICTING)
def test_who_predicts_is_not_told_of_another_machine(policies, calibration):
    with pytest.raises(InputError, match=r"predicts times; give --cost FILE, made here by"):
        facts_of(Experiment(NOBODY, Fleet(workers=2), **policies))
    told = facts_of(Experiment(NOBODY, Fleet(workers=2, cost=read_cost(calibration)), slo=SLO(1.0, 0.2), **policies))
    assert told.predictor.cost.step(((64, 0),), 0, 0) == SLOW_S
    assert told.slos == SLO(1.0, 0.2)


def test_what_else_would_do_is_said_too():
    with pytest.raises(InputError, match=r"to derive its cap from; give --cost FILE, made here by .*`, or max_tokens$"):
        facts_of(Experiment(NOBODY, Fleet(workers=2), admission="token_cap"))
    given = {"admission": "token_cap", "admission_parameters": {"max_tokens": 5000}}
    assert facts_of(Experiment(NOBODY, Fleet(workers=2), **given)).predictor is None


def test_who_does_not_predict_needs_no_cost():
    for router in ("least_requests", "prefix_exact", "split_policy", "dynamo"):
        assert facts_of(Experiment(NOBODY, Fleet(workers=2, split="1P1D"), router)).predictor is None


def test_the_router_of_an_endpoint_remembers_what_it_sent_unless_told_otherwise():
    """One that only reads reports sends all who come between two of them to one worker."""
    usual = signature(serve).parameters["router"].default
    hears = {name: registry.make("router", name, Facts(2, 64)).observes for name in (usual, "least_requests")}
    assert Dispatched in hears[usual]
    assert Dispatched not in hears["least_requests"]  # control


def test_simulate_takes_the_cost_of_a_record(calibration, capsys):
    """Ten steps or more for each request of 10 tokens: at 0.1 s a step no TPOT is below 0.1 s."""
    fitted = simulated(capsys, "--cost", calibration)
    assert fitted["cost"] == "fitted"
    assert fitted["tpot_s"]["mean"] >= SLOW_S
    assert (fitted["calibration"]["steps"], fitted["calibration"]["file"]) == ("designed", "cost.json")
    sheet = simulated(capsys)  # control
    assert "calibration" not in sheet
    assert (sheet["cost"], sheet["tpot_s"]["mean"] < SLOW_S / 2) == ("predicted", True)
    code, _, said = run_main(capsys, "simulate", "--cost", calibration.with_name("none.json"))
    assert code == 2 and "no calibration can be read" in said


def test_the_record_says_which_steps_were_taken(tmp_path, calibration, capsys):
    """Beside a calibration lies the record of a served load, whose steps take half as long."""
    record = json.loads(calibration.read_text())
    designed = calibration.rename(tmp_path / "x_calibrate.json")
    cost = record["coefficients"] | {"overhead_s": SLOW_S / 2}
    (tmp_path / "x_serve.json").write_text(json.dumps({"parts": {"training": {"cost": cost}}}))
    pace = {}
    for steps, more in {"served": (), "designed": ("--cost-steps", "designed")}.items():
        line = simulated(capsys, "--cost", designed, *more)
        assert line["calibration"]["steps"] == steps
        pace[steps] = line["tpot_s"]["mean"]
    assert pace["designed"] == pytest.approx(2 * pace["served"], rel=0.2)
    code, _, said = run_main(capsys, "simulate", "--cost-steps", "served")
    assert code == 2 and "give --cost FILE too" in said
