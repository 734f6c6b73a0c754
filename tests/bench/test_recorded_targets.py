"""The recorded run of the routers' targets: sound, on the workloads of this code, and recomputable from its samples."""

import json

import pytest

from helpers.bench.targets.registry import PLACES, load
from helpers.bench.verdicts import difference, verdict
from helpers.paths import data_file

RECORD = json.loads(data_file("packs", "sim_4x1_h100/bench_routers.json").read_text(encoding="utf-8"))
BY_TARGET = {one["target"]: one for one in RECORD["targets"]}
ROUTERS = [name for name in PLACES if name.startswith("routers:")]


def scenario(target, name):
    return next(one for one in BY_TARGET[target]["scenarios"] if one["name"] == name)


def arm(found, name):
    return next(one for one in found["arms"] if one["arm"] == name)


def test_it_is_whole_and_says_where_it_comes_from():
    assert RECORD["complete"] and RECORD["sound"] and RECORD["kind"] == "simulated"
    assert RECORD["seeds"] == list(range(10)) and len(RECORD["commit"]) == 40
    assert list(BY_TARGET) == ROUTERS
    for one in BY_TARGET.values():
        assert all(check["passed"] for check in one["checks"] + one["controls"]) and not one["failures"]


@pytest.mark.parametrize("full", ROUTERS)
def test_it_is_of_the_targets_of_this_code(full):
    """Whoever changes a workload, an arm or a prediction has to record anew."""
    target, recorded = load(PLACES[full]), BY_TARGET[full]
    assert [one["name"] for one in recorded["scenarios"]] == [one.name for one in target.scenarios]
    for here in target.scenarios:
        found = scenario(full, here.name)
        assert found["workload_sha256"]["0"].startswith(target.frozen[here.name])
        assert [one["arm"] for one in found["arms"]] == [here.baseline_name, *here.variants]
        assert {one["arm"]: one["predicted"] for one in found["arms"][1:] if one["predicted"]} == here.predicted


def test_differences_and_verdicts_follow_from_the_raw_samples():
    looked = 0
    for one in BY_TARGET.values():
        for found in one["scenarios"]:
            name = found["primary"]
            base = dict(enumerate(found["arms"][0]["samples"][name]))
            mean = sum(base.values()) / len(base)
            for variant in found["arms"][1:]:
                again = difference(dict(enumerate(variant["samples"][name])), base)
                stored = variant["difference"][name]
                # Samples have five digits: a difference is known to 1e-4 of the larger of what is subtracted.
                for part in ("mean", "low", "high"):
                    assert again[part] == pytest.approx(stored[part], abs=2e-4 * max(abs(mean), abs(again["high"])))
                assert verdict(stored, one["margin"] * abs(mean)) == variant["verdict"]
                looked += 1
    assert looked > 150


def test_cleverness_loses_where_it_says_so():
    """The recorded configurations in which a router that looks more closely has less goodput than round robin."""
    old = scenario("routers:dynamic_routing", "clever loses: old views")
    assert arm(old, "llm_d")["verdict"] == arm(old, "least_requests")["verdict"] == "lower"
    same = scenario("routers:dynamic_routing", "clever loses: one system prompt")
    assert arm(same, "sglang_cache_aware")["verdict"] == "lower"
    assert arm(same, "prefix_exact")["verdict"] == "no effect"  # control: not every use of prefixes loses there
