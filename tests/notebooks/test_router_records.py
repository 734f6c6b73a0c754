"""The records of all routers side by side: whole, paired, true to their command, and numbers that come again."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.policies.catalogue import ROUTERS
from helpers.serving.draws import Draws
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.report import difference, spread
from helpers.serving.simulate import outcome_of

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDS = sorted((ROOT / "data" / "packs").rglob("routers_*.json"))
EVERY = pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def values(arm, name):
    """A figure of an arm by seed; `knee.rate_per_s` is one level down."""
    first, _, second = name.partition(".")
    rows = {row["seed"]: row for row in arm["replicates"]}
    return {seed: row[name] if name in row else row[first][second] for seed, row in rows.items()}


@EVERY
def test_a_record_says_how_it_was_made(path):
    record = read(path)
    words = shlex.split(record["command"])
    option = dict(pairwise(words))
    assert words[:2] == ["hybrid-serving", "simulate"] and not any(word.startswith("/") for word in words)
    assert option["--json"] == str(path.relative_to(ROOT)) and int(option["--seeds"]) == len(record["seeds"]) >= 5
    assert "--knee" in words and record["kind"] == "simulated" and not record["commit"].endswith("-dirty")
    names = [arm["arm"] for arm in record["arms"]]
    assert record["complete"] and names == [b for a, b in pairwise(words) if a == "--router"]
    assert {*ROUTERS, "oracle"} - set(names) == {"split_policy"}  # which is made for a split fleet


@EVERY
def test_every_arm_saw_the_same_draws(path):
    record = read(path)
    draws = [[(row["seed"], row["workload_sha256"]) for row in arm["replicates"]] for arm in record["arms"]]
    assert all(one == draws[0] for one in draws) and len({sha for _, sha in draws[0]}) == len(record["seeds"])


@EVERY
def test_the_intervals_are_those_of_the_raw_values(path):
    record = read(path)
    first, seeds = record["arms"][0], len(record["seeds"])
    redrawn = "mean" in first
    assert redrawn == ("generated:" in record["command"])
    for arm in record["arms"]:
        stated = arm["mean" if redrawn else "sensitivity"]
        for name in ("goodput_per_s", "hit_rate", "imbalance", "knee.rate_per_s", "knee.goodput_per_s", "regret.mean"):
            mine, other = values(arm, name), values(first, name)
            if None in mine.values():
                assert stated[name] is None
                continue
            assert spread(mine, seeds, redrawn) == pytest.approx(stated[name])
            if name in arm["difference"] and None not in other.values():
                stated_difference = arm["difference"][name]
                assert difference(mine, other, seeds, redrawn) == {
                    k: v if isinstance(v, str) else pytest.approx(v) for k, v in stated_difference.items()
                }


@EVERY
def test_the_order_of_the_seeds_matters(path):
    """The control of the pairing: with the seeds of one arm moved on by one the interval is another."""
    record = read(path)
    arms = {arm["arm"]: arm for arm in record["arms"]}
    mine, other = values(arms["prefix_exact"], "goodput_per_s"), values(arms["round_robin"], "goodput_per_s")
    seeds = len(mine)
    moved = {seed: mine[(seed + 1) % seeds] for seed in mine}
    assert difference(moved, other, seeds, False) != difference(mine, other, seeds, False)


@EVERY
def test_a_knee_meets_its_target(path):
    record = read(path)
    for arm in record["arms"]:
        for knee in (row["knee"] for row in arm["replicates"]):
            if knee["rate_per_s"] is not None:
                assert knee["attainment"] >= record["target"] and 0 < knee["goodput_per_s"] < 1.1 * knee["rate_per_s"]


@EVERY
def test_nobody_regrets_less_than_nothing(path):
    for arm in read(path)["arms"]:
        for regret in (row["regret"] for row in arm["replicates"]):
            assert 0 <= regret["p50"] <= regret["p90"] and regret["mean"] >= 0 and 0 < regret["best_share"] <= 1


@EVERY
def test_a_number_comes_out_again(path, request):
    """The simulator of today gives the goodput of the first seed, else make the record again (data/packs/README.md)."""
    record = read(path)
    option = dict(pairwise(shlex.split(record["command"])))
    trace = option["--trace"]
    if "generated" not in trace:
        trace = str(request.getfixturevalue("traces_dir") / "mooncake_conversation.jsonl.gz")
    fewer = int(option["--max-requests"]) if "--max-requests" in option else None
    draws = Draws(trace, spread="--spread-ticks" in record["command"], max_requests=fewer)
    rows = {arm["arm"]: arm["replicates"][0] for arm in record["arms"]}
    for router in ("round_robin", "least_tokens"):
        experiment = Experiment(draws.open(0)[0], Fleet(), router)
        found = outcome_of(experiment, record["warmup_s"])
        assert found.run.provenance.workload_sha256 == rows[router]["workload_sha256"]
        assert found.summary["goodput_per_s"] == pytest.approx(rows[router]["goodput_per_s"], rel=1e-6)
