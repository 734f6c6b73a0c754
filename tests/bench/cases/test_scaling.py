"""The claims about scalers come out on small runs, and do not where what causes them is taken away."""

from dataclasses import replace

import pytest

from helpers.bench.cases import scaling
from helpers.bench.cases.arms import by_arm
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run
from helpers.workload.generate import generate

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def checked():
    return scaling.consolidation(SEEDS, duration_s=300.0)


def test_only_the_planner_that_does_not_look_goes_up_and_down(checked):
    assert scaling.stays(checked)
    found = by_arm(checked)
    assert found[scaling.CAREFUL]["share_at_size"] == {"2": 1.0}
    assert found[scaling.CARELESS]["share_at_size"]["1"] > 0.5
    assert found[scaling.CARELESS]["gpu_hours"]["mean"] > 0.9 * found[scaling.STATIC]["gpu_hours"]["mean"]


def test_a_load_that_one_worker_bears_is_no_reason_to_oscillate():
    """At 6 requests a second one is sent away by either planner, and stays away."""
    rows = scaling.consolidation(SEEDS, duration_s=120.0, rate_per_s=6.0)
    assert not scaling.stays(rows)
    assert [row["actions"] for row in rows] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arm", "change"),
    [
        (scaling.CAREFUL, {"most_actions": 1}),
        (scaling.CARELESS, {"actions": 1.0}),
        (scaling.CARELESS, {"difference_per_s": {"low": -3.0, "high": 0.1}}),
    ],
)
def test_the_claim_needs_all_of_its_parts(checked, arm, change):
    assert not scaling.stays([{**row, **change} if row["arm"] == arm else row for row in checked])


def run_of(workers, changes, last_s=10.0):
    return Run(EventLog((Timeline(0, last_s, 1, 1, "finished"),), (), workers, 12.0), None, fleet_changes=changes)


def test_the_time_at_each_size_by_hand():
    """Two from 0 s; one told to go at 2 s (gone at 5 s); one ready at 6 s; what is done after 10 s does not count."""
    workers = (WorkerInfo(), WorkerInfo(stop_s=5.0), WorkerInfo(start_s=3.0, ready_s=6.0), WorkerInfo(ready_s=None))
    told = [(2.0, "stop", 1), (3.0, "start", 2), (8.0, "start", 3), (9.0, "call off", 3), (11.0, "stop", 0)]
    changes = tuple({"time_s": time, "action": what, "worker": worker} for time, what, worker in told)
    run = run_of(workers, changes)
    assert scaling.time_at_sizes(run) == pytest.approx({2: 0.2 + 0.4, 1: 0.4})
    assert len(scaling.changes(run)) == 4
    assert scaling.time_at_sizes(run_of(workers[:1], ())) == {1: 1.0}


def test_a_workload_that_shifts():
    made = scaling.shifting(50.0, 4.0, 6.0, seed=3)
    times = [r.arrival_s for r in made]
    assert times == sorted(times) and [r.id for r in made] == list(range(len(made)))
    first = [r for r in made if r.arrival_s < 50.0]
    assert len(first) == len(generate("poisson", rate_per_s=4.0, duration_s=50.0, seed=6))
    assert sum(r.prompt_tokens for r in first) / len(first) > 3000
    then = made.requests[len(first) :]
    assert sum(r.output_tokens for r in then) / len(then) > 800


def rows_of_roles():
    """Rows as a run gives them when the claim holds."""
    values = {
        "high": {"2P2D": 0.2, "3P1D": 6.0, "1P3D": 0.1, "roles": 20.0, scaling.SLOW: 12.0, scaling.RESTART: 5.0},
        "moderate": {"2P2D": 15.0, "3P1D": 6.0, "1P3D": 0.1, "roles": 15.1, scaling.SLOW: 14.0, scaling.RESTART: 12.0},
    }
    return [
        {
            "load": load,
            "arm": arm,
            "goodput_per_s": {"mean": mean},
            "attainment": 1.0,
            "difference_per_s": {"low": mean - arms["2P2D"] - 0.1, "high": mean - arms["2P2D"] + 0.1},
        }
        for load, arms in values.items()
        for arm, mean in arms.items()
    ]


@pytest.mark.parametrize(
    ("load", "arm", "change"),
    [
        ("high", "roles", {"goodput_per_s": {"mean": 5.0}}),  # 3P1D has more
        ("high", "roles", {"difference_per_s": {"low": -1.0, "high": 30.0}}),
        ("moderate", "roles", {"goodput_per_s": {"mean": 15.3}}),
        ("moderate", "2P2D", {"attainment": 0.99}),
        ("moderate", scaling.RESTART, {"difference_per_s": {"low": -3.0, "high": 0.1}}),
        ("moderate", scaling.SLOW, {"difference_per_s": {"low": -3.0, "high": 0.1}}),
    ],
)
def test_the_claim_on_roles_needs_all_of_its_parts(load, arm, change):
    rows = rows_of_roles()
    assert scaling.shifts(rows)
    assert not scaling.shifts([{**r, **change} if (r["load"], r["arm"]) == (load, arm) else r for r in rows])


def test_roles_follow_a_shift_that_leaves_a_fixed_split_behind():
    """One seed, a short shift, the high load: 2P2D keeps next to nothing, changes of role most of it."""
    workload = scaling.shifting(90.0, *scaling.LOADS["high"], seed=1)
    fixed = Experiment(workload, scaling.Fleet(workers=4, split="2P2D"), "least_tokens", slo=scaling.SLO_ROLES)
    moving = replace(fixed, scaler="roles", scaler_parameters={"itl_s": scaling.TPOT_S})
    share = {
        name: scaling.summarize(one.run().log, scaling.SLO_ROLES)["attainment"]
        for name, one in (("fixed", fixed), ("roles", moving))
    }
    assert share["roles"] > 2 * share["fixed"] and share["roles"] > 0.5
