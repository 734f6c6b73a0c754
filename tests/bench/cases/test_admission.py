"""The claims about admission come out on small runs, and do not where what causes them is taken away."""

from copy import deepcopy
from dataclasses import replace

import pytest

from helpers.bench.cases import admission
from helpers.bench.cases.arms import METRIC, by_arm
from helpers.metrics.series import Series
from helpers.metrics.stats import mean_interval
from helpers.metrics.summary import summarize
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.slo import SLO

SEEDS = range(5)


def changed(rows, arm, **values):
    """The rows with something else in one of them."""
    return [{**row, **values} if row["arm"] == arm else row for row in rows]


# -- it raises goodput


@pytest.fixture(scope="module")
def raised():
    return admission.raised(SEEDS, requests=900, rates_per_s=(2.0, 6.0))


def test_early_rejection_raises_goodput(raised):
    assert admission.raises(raised)
    high = by_arm([row for row in raised if row["rate_per_s"] == 6.0])
    assert high["none"]["rejected"] == 0 < high["predicted_slo"]["rejected"]
    before, after = (high[arm]["classes"]["short"]["attainment"] for arm in ("none", "predicted_slo"))
    assert before < 0.3 and after > 0.8


def test_it_is_no_gain_below_the_knee():
    """Control: at both rates everybody is served in time anyway."""
    assert not admission.raises(admission.raised((0, 1, 2), requests=200, rates_per_s=(0.5, 1.0)))


def test_it_is_no_gain_when_it_costs_at_the_low_rate_or_one_of_them_gains_nothing(raised):
    low = [deepcopy(row) for row in raised]
    for row in low:
        if row["rate_per_s"] == 2.0 and row["arm"] == "predicted_slo":
            row[METRIC]["mean"] *= 0.9
    assert not admission.raises(low)
    assert not admission.raises(changed(raised, "measured_slo", difference_per_s={"low": -0.1, "high": 1.0}))


def test_rows_are_paired_over_seeds_and_by_class(raised):
    """One difference by hand, from two runs of each of two seeds."""
    fleet, slo = Fleet(workers=4), {"short": admission.BOUNDS, "long": admission.BOUNDS}
    values = {"none": [], "token_cap": []}
    for seed in (0, 1):
        for name, found in values.items():
            workload = admission.by_length(6.0, 150, seed)
            run = Experiment(workload, fleet, "prefix_exact", name, slo, seed).run()
            found.append(summarize(run.log, slo))
    rows = by_arm(admission.raised((0, 1), requests=150, rates_per_s=(6.0,)))
    pairs = list(zip(values["token_cap"], values["none"], strict=True))
    whole = mean_interval([a[METRIC] - b[METRIC] for a, b in pairs])
    long = mean_interval([a["classes"]["long"]["attainment"] - b["classes"]["long"]["attainment"] for a, b in pairs])
    assert rows["token_cap"]["difference_per_s"]["mean"] == pytest.approx(whole.mean)
    assert rows["token_cap"]["classes"]["long"]["difference"]["high"] == pytest.approx(long.high)
    assert rows["none"]["difference_per_s"] is None and "difference" not in rows["none"]["classes"]["long"]


def test_the_classes_are_by_length():
    workload = admission.by_length(3.0, 300, 0)
    assert {r.slo_class for r in workload} == {"short", "long"}
    assert all((r.slo_class == "long") == (r.prompt_tokens > 20_000) for r in workload)


# -- it shifts the pain


@pytest.fixture(scope="module")
def shifted():
    return admission.shifted(SEEDS, requests=1500)


def test_early_rejection_shifts_the_pain(shifted):
    assert admission.shifts(shifted)
    shed = by_arm(shifted)["probabilistic"]
    assert shed["classes"]["low"]["rejected"] > 0 == shed["classes"]["high"]["rejected"]
    assert set(shed["rejections"]) == {"shed by chance"}


@pytest.mark.parametrize("tier", ["high", "low"])
def test_no_pain_is_shifted_when_a_tier_is_served_as_before(shifted, tier):
    classes = deepcopy(by_arm(shifted)["probabilistic"]["classes"])
    classes[tier]["difference"] = {"mean": 0.0, "low": -0.01, "high": 0.01}
    assert not admission.shifts(changed(shifted, "probabilistic", classes=classes))


def test_a_loss_of_goodput_is_another_matter(shifted):
    assert not admission.shifts(changed(shifted, "probabilistic", difference_per_s={"low": -0.3, "high": -0.1}))


def test_where_there_is_no_load_nobody_is_shed():
    assert not admission.shifts(admission.shifted((0, 1), requests=200, rate_per_s=0.5))


def test_the_tiers_are_drawn_by_the_seed_alone():
    one, again, other = (admission.in_tiers(4.0, 200, seed) for seed in (0, 0, 1))
    assert one.requests == again.requests != other.requests
    assert 60 < sum(r.priority for r in one) < 140
    assert {(r.slo_class, r.priority) for r in one} == {("high", 0), ("low", 1)}


# -- it makes the load swing


@pytest.fixture(scope="module")
def swinging():
    return admission.swinging(SEEDS, requests=1500)


def test_early_rejection_oscillates(swinging):
    assert admission.oscillates(swinging)
    found = by_arm(swinging)
    naive, calm = (found[arm]["prefill_swing"]["mean"] for arm in (admission.CURRENT_ONCE, admission.PREDICTED_ONCE))
    assert naive > 1.5 * calm
    late = found[admission.LATE]
    assert late["aborted"] == late["rejected"] and late["wasted_prefill_tokens"] == 8000 * late["aborted"]


@pytest.mark.parametrize(
    ("arm", "values"),
    [
        (admission.CURRENT, {"aborted": 0.0}),
        (admission.PREDICTED, {"aborted": 10_000.0}),
        (admission.PREDICTED, {"difference_per_s": {"low": -1.0, "high": 1.0}}),
        (admission.PREDICTED_ONCE, {"decode_swing_difference": {"low": -0.1, "high": 0.1}}),
        (admission.PREDICTED_ONCE, {"prefill_swing_difference": {"low": 0.1, "high": 0.2}}),
        (admission.CURRENT_ONCE, {"phase": {"low": -0.2, "high": 0.2}}),
    ],
)
def test_each_part_of_the_claim_is_needed(swinging, arm, values):
    assert not admission.oscillates(changed(swinging, arm, **values))


def test_a_decode_pool_that_never_fills_makes_no_swing():
    """Control: one prefill worker cannot fill the decode worker, so nobody is rejected in any mode."""
    found = admission.swinging((0, 1, 2), requests=150, workers=1)
    assert not admission.oscillates(found)
    assert by_arm(found)[admission.CURRENT]["aborted"] == 0


def test_the_phase_of_two_loads():
    one = Series((1.0, 2.0, 3.0, 4.0, 5.0), (50.0, 0.0, 1.0, 0.0, 1.0))
    against = replace(one, values=(50.0, 1.0, 0.0, 1.0, 0.0))
    assert admission.phase(one, against, 1.0) == pytest.approx(-1.0)
    assert admission.phase(one, one, 1.0) == pytest.approx(1.0)
    assert admission.phase(one, against, 0.0) > 0.9  # with the beginning, which is left out above
    assert admission.phase(one, replace(one, values=(1.0,) * 5), 1.0) == 0.0


def test_the_loads_are_those_of_the_pools():
    workload = generate("steady", requests=40, rate_per_s=4.0, prompt_tokens="8000", output_tokens="50")
    run = Experiment(workload, Fleet(workers=2, split="1P1D"), slo=SLO(ttft_s=9.0)).run()
    prefill, decode = admission.loads(run, step_s=1.0)
    assert len(prefill) == len(decode) == 9  # the last request comes at 9.75 s
    # A prompt of 8,000 tokens takes the larger part of a quarter of a second; 50 tokens a second or less.
    assert all(0.5 < share <= 1.0 for share in prefill.values[1:])
    assert all(0.5 < count < 6 for count in decode.values[2:])
