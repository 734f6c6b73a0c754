"""The claims about routers come out on small runs, and do not where what causes them is taken away."""

import pytest

from helpers.bench.cases import routing
from helpers.bench.cases.arms import above, below, by_arm, rows_of
from helpers.errors import InputError
from helpers.metrics.stats import mean_interval
from helpers.serving.compare import measure
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def collapsed():
    return routing.longest_prefix(range(5), requests=300)


@pytest.fixture(scope="module")
def herded():
    return routing.old_news(SEEDS, requests=500, periods_s=(0.5,))


@pytest.fixture(scope="module")
def sticky():
    return routing.one_system_prompt(SEEDS, requests=150)


def test_the_longest_prefix_collapses(collapsed):
    assert routing.collapses(collapsed)
    found = by_arm(collapsed)
    assert found[routing.ALONE]["imbalance"] == 4 and found[routing.RELATIVE]["imbalance"] > 3.5
    assert found["prefix_exact"]["imbalance"] < 1.25


def test_it_is_no_collapse_when_the_work_is_shared_or_something_is_left(collapsed):
    for change in ({"imbalance": 3.9}, {"difference_per_s": {"low": -3.0, "high": 0.1}}):
        rows = [{**row, **change} if row["arm"] == routing.ALONE else row for row in collapsed]
        assert not routing.collapses(rows)
    found = by_arm(collapsed)
    swapped = [{**found["prefix_exact"], "arm": row["arm"]} for row in collapsed]
    assert not routing.collapses(swapped)


def test_old_views_make_a_herd(herded):
    assert routing.herds(herded)


def test_fresh_views_make_none():
    """A thousandth of a second old: what there is to see is there, and round robin wins nothing by not looking."""
    fresh = routing.old_news(SEEDS, requests=500, periods_s=(0.001,))
    assert not routing.herds(fresh)
    assert not routing.herds([row for row in fresh if not row["period_s"]])  # nothing old to judge by


def test_affinity_loses_to_round_robin(sticky):
    assert routing.loses(sticky)


def test_affinity_does_not_lose_when_less_is_shared_than_its_threshold():
    """2,560 of 9,800 tokens are 0.26."""
    assert not routing.loses(routing.one_system_prompt(SEEDS, requests=150, shared_tokens=2560))


@pytest.mark.parametrize(("arm", "case"), [("dynamo", "herded"), (routing.LOWER, "sticky")])
def test_who_should_keep_level_must(arm, case, request):
    rows, claim = request.getfixturevalue(case), {"herded": routing.herds, "sticky": routing.loses}[case]
    assert claim(rows)
    good = by_arm(rows)["round_robin"]["goodput_per_s"]
    fallen = [{**r, "goodput_per_s": {**good, "mean": 0.98 * good["mean"]}} if r["arm"] == arm else r for r in rows]
    assert not claim(fallen)


def test_affinity_that_found_more_would_be_another_story(sticky):
    rows = [{**row, "hit_rate": row["hit_rate"] + (row["arm"] == routing.CACHE_AWARE) / 10} for row in sticky]
    assert not routing.loses(rows)


def test_each_case_says_what_it_measures(collapsed, herded, sticky):
    for case, rows in zip(routing.CASES, (collapsed, herded, sticky), strict=True):
        assert case.claim.endswith(".") and case.name.isidentifier()
        assert {row[case.metric]["n"] for row in rows} <= {3, 5}
        assert all(row["requests"] == rows[0]["requests"] > 0 for row in rows)


def draw(seed):
    return generate("poisson", requests=60, rate_per_s=30.0, seed=seed, prompt_tokens="2000")


def test_an_arm_that_is_the_same_differs_by_nothing_and_another_by_something():
    same = Experiment(Workload("none", ()), Fleet(workers=2), "round_robin")
    other = Experiment(Workload("none", ()), Fleet(workers=2), "static_shard")
    rows = by_arm(rows_of({"one": same, "again": same, "other": other}, draw, SEEDS, "one"))
    assert rows["one"]["difference_per_s"] is None
    assert rows["again"]["difference_per_s"]["mean"] == 0 and not below(rows["again"]) and not above(rows["again"])
    assert rows["other"]["difference_per_s"]["mean"] != 0
    assert rows["one"]["requests"] == 180


def test_the_difference_is_that_of_runs_made_one_by_one():
    arms = {name: Experiment(Workload("none", ()), Fleet(workers=2), name) for name in ("round_robin", "static_shard")}
    row = by_arm(rows_of(arms, draw, SEEDS, "round_robin"))["static_shard"]
    good = {name: [measure(arms[name], draw(s), s, "goodput_per_s") for s in SEEDS] for name in arms}
    expected = [b - a for a, b in zip(*good.values(), strict=True)]
    assert row["difference_per_s"]["mean"] == pytest.approx(sum(expected) / 3)
    shuffled = [
        b - a for a, b in zip(good["round_robin"], good["static_shard"][1:] + good["static_shard"][:1], strict=True)
    ]
    assert row["difference_per_s"]["high"] == pytest.approx(mean_interval(expected).high)
    assert row["difference_per_s"]["high"] != pytest.approx(mean_interval(shuffled).high)


def test_one_seed_is_no_interval():
    one = Experiment(Workload("none", ()), Fleet(workers=2), "round_robin")
    with pytest.raises(InputError, match="at least two replicates"):
        rows_of({"one": one}, draw, [0], "one")
