"""The price of old views, wrong guesses and several routers: nothing at the ideal, something away from it."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.serving.contest import Plan, contest
from helpers.serving.draws import UNDRAWN, Draws, drawn
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.prices import PRICES, front_ends, near_knee, old_views, one_guess, priced, wrong_guesses
from helpers.serving.report import report
from helpers.workload.slo import SLO

DRAWS = Draws("generated:conversation", rate_per_s=4.0, max_requests=200)
WORKLOAD = drawn(DRAWS, 0)
VIEWS = Experiment(WORKLOAD, Fleet(), "least_requests")
GUESSES = Experiment(WORKLOAD.at_rate(2.0), Fleet(split="3P1D"), "least_requests", "predicted_load", SLO(2.0, 0.02))


def timelines(experiment):
    return experiment.run().timelines


def test_no_staleness_is_live():
    live = timelines(VIEWS)
    assert timelines(old_views(VIEWS, 0)) == live
    assert timelines(old_views(VIEWS, 500)) != live  # the control
    assert old_views(VIEWS, 250).fleet.telemetry.period_s == 0.25


def test_one_front_end_is_one_router():
    books = replace(VIEWS, router="prefix_exact")
    assert timelines(front_ends(books, 1)) == timelines(books)
    assert timelines(front_ends(books, 4)) != timelines(books)  # the control: each counts its own requests alone


def test_no_error_is_the_truth():
    truth = timelines(GUESSES)
    assert timelines(wrong_guesses(GUESSES, 0)) == truth
    assert timelines(wrong_guesses(GUESSES, 1.0)) != truth  # the control
    made = one_guess(GUESSES, WORKLOAD).admission_parameters
    mean = sum(r.output_tokens for r in WORKLOAD) / len(WORKLOAD)
    assert made == {"guess_tokens": round(mean), "guess_error": 0.0}


def test_every_arm_is_compared_with_its_own_first_point():
    arms, compared = priced({"one": VIEWS, "two": VIEWS}, "staleness", (), WORKLOAD)
    assert len(arms) == 2 * len(PRICES["staleness"].points) == 14
    assert compared["one, reports every 500 ms"] == "one, reports every 0 ms"
    assert compared["two, reports every 0 ms"] == "two, reports every 0 ms"
    assert arms["two, reports every 20 ms"].fleet.telemetry.period_s == 0.02
    guessed, compared = priced({"g": GUESSES}, "lengths", (0.5, 2.0), WORKLOAD)
    assert list(guessed) == ["g, guess error 0.5", "g, guess error 2", "g, constant mean"]
    assert set(compared.values()) == {"g, guess error 0.5"}


def test_a_price_is_a_paired_difference():
    plan = Plan(DRAWS, (0, 1))
    question = replace(VIEWS, workload=UNDRAWN)
    arms, compared = priced({"least_requests": question}, "staleness", (0, 2, 1000), WORKLOAD)
    ideal, near, far = (r["difference"]["attainment"] for r in report(contest(arms, plan), plan, compared))
    assert (ideal["mean"], ideal["low"], ideal["high"]) == (0.0, 0.0, 0.0)
    assert abs(near["mean"]) < 0.01 < -far["mean"]


def test_near_the_knee_is_the_knee_of_the_first_seed():
    plan = Plan(replace(DRAWS, rate_per_s=None), (0, 1))
    rate = near_knee(VIEWS, plan, 0.9)
    assert 1.0 < rate < 10.0 and near_knee(VIEWS, plan, 0.5) > rate
    with pytest.raises(InputError, match="there is no knee; give a rate"):
        near_knee(replace(VIEWS, slo=SLO(ttft_s=1e-6)), plan, 0.9)


@pytest.mark.parametrize(
    ("arms", "what", "points", "sentence"),
    [
        ({"a": VIEWS}, "weather", (), "the price of 'weather' is unknown; use one of staleness, lengths, front-ends"),
        ({"a": VIEWS}, "lengths", (), "admission none guesses no output lengths"),
        ({"a": VIEWS}, "front-ends", (1, 1.5), "1.5 front ends cannot be"),
        ({"a": VIEWS}, "front-ends", (1, 0), "0 routers route nothing"),
        ({"a": VIEWS}, "staleness", (0, 5, 5), "given twice"),
        ({"a": VIEWS}, "staleness", (-5,), "period_s is -0.005"),
    ],
)
def test_bad_prices_are_refused(arms, what, points, sentence):
    with pytest.raises(InputError, match=sentence):
        priced(arms, what, points, WORKLOAD)
