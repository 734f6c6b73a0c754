"""The live targets run small: every arm answers what it was asked, and planted damage is noticed. Nothing is timed."""

import pytest

from helpers.bench.cells import sample_of, unnoticed_faults
from helpers.bench.disagg.arms import BLOCK_TOKENS, close_crews
from helpers.bench.disagg.live import TOGETHER
from helpers.bench.inference.rungs import STATIC, close_engines, rungs_on
from helpers.bench.order import BASELINE, Cell
from helpers.bench.targets import sizes
from helpers.bench.targets.disagg import FIRST, LADDER
from helpers.bench.targets.inference_full import TARGET
from helpers.bench.targets.sizes import sized


@pytest.fixture(scope="module", autouse=True)
def crews():
    yield
    close_crews()
    close_engines()


@pytest.mark.parametrize(("target", "arms"), [(LADDER, 6), (TARGET, 4)], ids=lambda one: getattr(one, "name", ""))
def test_every_arm_serves_every_request_with_the_same_answers(target, arms):
    (scenario,) = target.scenarios
    workload = scenario.workload(0, 4)
    found = {arm: sample_of(target, Cell(arm, scenario.name, 0), workload) for arm in (BASELINE, *scenario.variants)}
    assert len(found) == arms
    for arm, one in found.items():
        assert not one.breaches, (arm, one.breaches)
        assert one.values[target.primary.name] > 0
        assert one.series["answers"] == found[BASELINE].series["answers"]
        assert set(one.values) <= {statistic.name for statistic in target.statistics}


def test_only_who_hands_over_has_something_to_expose():
    scenario = LADDER.scenarios[0]
    workload = scenario.workload(0, 4)
    split = sample_of(LADDER, Cell(BASELINE, scenario.name, 0), workload).values
    whole = sample_of(LADDER, Cell("together", scenario.name, 0), workload).values
    assert split["moved_mb"] > 0 and split["exposed_mean_s"] > 0 and split["hidden_mean_s"] == 0
    assert whole["moved_mb"] == 0 and whole["exposed_mean_s"] is None


def test_damage_is_noticed_and_a_check_that_looks_away_is_not_passed(monkeypatch):
    scenario = FIRST.scenarios[0]
    cell, workload = Cell(BASELINE, scenario.name, 0, "corrupt"), scenario.workload(0, 4)
    assert unnoticed_faults(FIRST, cell, workload) == []
    from helpers.cluster import tamper

    monkeypatch.setattr(tamper, "KINDS", ("", "corrupt_page"))  # control: no damage, which no check can notice
    assert unnoticed_faults(FIRST, cell, workload) == [""]


def test_the_engine_target_notices_damaged_logs():
    scenario = TARGET.scenarios[0]
    assert unnoticed_faults(TARGET, Cell(BASELINE, scenario.name, 0, "corrupt"), scenario.workload(0, 4)) == []
    assert scenario.baseline_name == STATIC and (STATIC, *scenario.variants) == rungs_on("cpu")


def test_three_workers_serve_without_timing_and_answer_alike(monkeypatch):
    """2P1D on two cores: answers and counts, and no second of it; control: the rival moves nothing."""
    monkeypatch.setattr(sizes, "cores", lambda: 2)
    target = sized(LADDER, 3, 2)
    (scenario,) = target.scenarios
    assert scenario.baseline.fleet.split == "2P1D"
    workload = scenario.workload(0, 4)
    split, whole = (sample_of(target, Cell(arm, scenario.name, 0), workload) for arm in (BASELINE, TOGETHER))
    assert not split.breaches and not whole.breaches
    assert split.series["answers"] == whole.series["answers"]
    assert set(split.values) == set(whole.values) == {"moved_mb"}
    pages = sum(-(-r.prompt_tokens // BLOCK_TOKENS) for r in workload)
    assert split.values["moved_mb"] == pages * BLOCK_TOKENS * 4096 / 1e6  # 4 KiB of KV a token
    assert whole.values["moved_mb"] == 0
