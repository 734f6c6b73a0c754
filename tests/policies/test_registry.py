"""The registry, the admission policies, the scaler and the `policies` command."""

import json
from dataclasses import FrozenInstanceError
from random import Random

import pytest
import typer
from typer.testing import CliRunner

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.catalogue import KINDS, ROUTERS
from helpers.policies.commands import register
from helpers.policies.facts import Facts
from helpers.policies.registry import make, router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Decision
from helpers.workload.request import Request

ASKED = Request(0, 0.0, 100, 10, (1,))
PREDICTOR = CostPredictor(AffineCost(1e-3, 1e-4, 1e-9, 1e-5, 1e-8), 2048)
FACTS = Facts(workers=4, predictor=PREDICTOR)
LOAD_ROUTERS = ["random", "round_robin", "static_shard", "least_requests", "least_tokens", "power_of_two"]


def test_every_policy_goes_by_its_registered_name():
    assert [*LOAD_ROUTERS, "prefix_approx", "prefix_exact", "mooncake"] == list(ROUTERS)[:9]
    made = [(kind, name, make(kind, name, FACTS)) for kind, table in KINDS.items() for name in table]
    assert [one.name for _, _, one in made] == [name for _, name, _ in made]
    with pytest.raises(InputError, match="admission 'random' is unknown"):
        make("admission", "random")  # a name belongs to its kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_shown_defaults_are_those_in_force(kind):
    for entry in KINDS[kind].values():
        one = entry.make(**entry.facts(FACTS))
        for parameter in entry.parameters:
            assert getattr(one, parameter.name) == parameter.default
            assert parameter.accepts(parameter.default) and parameter.meaning
        assert entry.summary and entry.source


def test_parameters_reach_the_policy_and_cannot_be_changed_later():
    one = router("prefix_approx", 4, block_tokens=16, ttl_s=120, load_weight=2)
    assert (one.block_tokens, one.ttl_s, one.load_weight, one.overlap_weight) == (16, 120, 2, 1.0)
    with pytest.raises(FrozenInstanceError):
        one.load_weight = 3.0


def test_two_routers_share_no_state():
    one, other = router("round_robin", 2), router("round_robin", 2)
    views = Snapshot([view(0), view(1)])
    assert [r.route(ASKED, views, 0.0, Random(0)).prefill for r in (one, one, other)] == [0, 1, 0]
    assert router("prefix_exact", 2).index is not router("prefix_exact", 2).index


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: router("round-robin", 4), "router 'round-robin' is unknown; use one of random, round_robin"),
        (lambda: router("random", 0), "the fleet of a policy: workers is 0; give 1 or more"),
        (lambda: router("random", 4, seed=1), "router random: parameter 'seed' is unknown; it has none"),
        (lambda: router("least_tokens", 4, weight=1), "parameter 'weight' is unknown; its parameters are .*kv_weight"),
        (lambda: router("least_tokens", 4, kv_weight="1"), "kv_weight is '1'; give a number"),
        (lambda: router("least_tokens", 4, kv_weight=True), "kv_weight is True; give a number"),
        (lambda: router("least_tokens", 4, kv_weight=-1), "router least_tokens: kv_weight is -1; give"),
        (lambda: router("static_shard", 4, leading_blocks=1.5), "leading_blocks is 1.5; give a whole number"),
        (lambda: router("static_shard", 4, leading_blocks=0), "leading_blocks is 0; give 1 or more"),
        (lambda: router("prefix_approx", 4, capacity_blocks=1.5), "give a whole number or nothing"),
        (lambda: router("prefix_exact", 4, block_tokens=0), "block_tokens is 0; give 1 or more"),
        (lambda: router("prefix_exact", 4, index=None), "parameter 'index' is unknown; its parameters are load_weight"),
        (lambda: router("mooncake", 4), "router mooncake predicts times; give it a predictor"),
        (
            lambda: router("mooncake", 4, 512, PREDICTOR, balancing_threshold=0.5),
            "balancing_threshold is 0.5; give 1 or",
        ),
        (lambda: router("mooncake", 4, 512, PREDICTOR, fetch=1), "fetch is 1; give true or false"),
        (lambda: make("admission", "all"), "admission 'all' is unknown; use one of none, queue_cap"),
        (lambda: make("admission", "queue_cap", max_waiting=0), "max_waiting is 0; give 1 or more"),
        (lambda: make("scaler", "fixed", mixed=0), "scaler fixed: no worker takes whole requests"),
        (lambda: make("scaler", "fixed", decode=-1), "scaler fixed: decode is -1"),
    ],
)
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_none_accepts_on_the_fullest_worker():
    views = Snapshot([view(0, waiting=10**6)])
    assert make("admission", "none").admit(ASKED, views, Decision(0, 0), 0.0, Random(0)) == ACCEPT


def test_queue_cap_rejects_at_the_cap_of_the_chosen_worker():
    views = Snapshot([view(0, waiting=2), view(1, waiting=3), view(2, running=99, waiting=2)])
    one = make("admission", "queue_cap", max_waiting=3)
    said = [one.admit(ASKED, views, Decision(w, w), 0.0, Random(0)) for w in range(3)]
    assert [verdict.action for verdict in said] == ["accept", "reject", "accept"]
    assert said[1].reason == "worker 1 has 3 requests waiting, the cap is 3" and said[1].retry_after_s is None
    later = make("admission", "queue_cap", max_waiting=4).admit(ASKED, views, Decision(1, 1), 0.0, Random(0))
    assert later == ACCEPT


def test_queue_cap_looks_at_the_prefill_worker_of_a_split():
    views = Snapshot([view(0, "prefill", waiting=5), view(1, "decode")])
    one = make("admission", "queue_cap", max_waiting=5)
    assert one.admit(ASKED, views, Decision(0, 1), 0.0, Random(0)).action == "reject"
    swapped = Snapshot([view(0, "prefill"), view(1, "decode", waiting=5)])
    assert one.admit(ASKED, swapped, Decision(0, 1), 0.0, Random(0)).action == "accept"


def test_the_fixed_scaler_wants_lost_workers_back():
    plan = make("scaler", "fixed", mixed=0, prefill=2, decode=3).scale(Snapshot([view(0, "prefill")]), 0.0)
    assert plan.workers == {"mixed": 0, "prefill": 2, "decode": 3}


def test_a_snapshot_refuses_what_is_no_fleet():
    with pytest.raises(InputError, match="role 'router' is unknown"):
        Snapshot([view(0, "router")])
    with pytest.raises(InputError, match="worker 1 is in the snapshot twice"):
        Snapshot([view(1), view(1)])


@pytest.fixture
def run():
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["policies", *words])


def test_policies_lists_everything_with_its_defaults(run):
    lines = run().output.splitlines()
    record = json.loads(lines[-1])
    assert {"command", "wall_s", "seeds", "workload_sha256", "commit"} <= set(record)
    assert [one["name"] for one in record["policies"]] == [name for table in KINDS.values() for name in table]
    for one in record["policies"]:
        (line,) = [line for line in lines[:-1] if line.split("\t")[:2] == [one["kind"], one["name"]]]
        assert one["source"] in line
        assert all(parameter["name"] + "=" in line for parameter in one["parameters"])


def test_policies_name_shows_what_the_parameters_mean(run):
    result = run("prefix_exact")
    assert "load_weight=1, overlap_weight=1" in result.output and "explain=false" in result.output
    assert "\nload_weight\t1\tcost of a token of load; 0 ignores load\n" in result.output
    assert [one["name"] for one in json.loads(result.output.splitlines()[-1])["policies"]] == ["prefix_exact"]
    assert "static_shard" not in result.output


def test_policies_of_an_unknown_name_is_bad_input(run):
    result = run("prefix")
    assert isinstance(result.exception, InputError)
    assert "policy 'prefix' is unknown; `hybrid-serving policies` lists all" in str(result.exception)
