"""The regret of decisions, against numbers by hand, an oracle that has none, and decisions that were shuffled."""

from dataclasses import replace
from random import Random
from statistics import fmean

import pytest

from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.regret import Judged, judged, regret
from helpers.simulator.oracle import Marginal
from helpers.workload.generate import generate

WORKLOAD = generate("conversation", requests=250, seed=3)


def question(router="least_tokens", **changes) -> Experiment:
    return Experiment(WORKLOAD, Fleet(), router, **changes)


@pytest.fixture(scope="module")
def decisions():
    """100 judged decisions of a router that looks at the load."""
    return judged(question(), 100)


def test_regret_by_hand():
    """Three workers. Costs 5, 2, 9, chosen the first: regrets 3, 0, 7. Costs 4, 4, 10, chosen the second: 0, 0, 6.

    Chosen: 3 and 0, mean 1.5, p50 0, p90 3, half of them best. A random choice: the mean of 3, 0, 7, 0, 0, 6 is 16/6,
    its p50 the third of the sorted six, 0, its p90 the sixth, 7, and half of the six are best.
    """
    costs = [{0: 5.0, 1: 2.0, 2: 9.0}, {0: 4.0, 1: 4.0, 2: 10.0}]
    made = [{w: Marginal(c, 100 - c, 0) for w, c in one.items()} for one in costs]
    found = regret([Judged(7, 0, made[0]), Judged(8, 1, made[1])])
    assert (found["mean"], found["p50"], found["p90"], found["best_share"], found["n"]) == (1.5, 0.0, 3.0, 0.5, 2)
    random = found["random"]
    assert random["mean"] == pytest.approx(16 / 6)
    assert (random["p50"], random["p90"], random["best_share"]) == (0.0, 7.0, 0.5)
    ttft = regret([Judged(7, 0, made[0])], "ttft_s")  # costs 95, 98, 91: chosen 4 above the least
    assert ttft["mean"] == 4.0


@pytest.mark.parametrize("objective", ["e2e_s", "ttft_s", "missed"])
def test_the_oracle_regrets_nothing(objective):
    made = judged(question("oracle", router_parameters={"objective": objective}), 100)
    found = regret(made, objective)
    assert (found["mean"], found["p90"], found["best_share"]) == (0.0, 0.0, 1.0)
    assert found["random"]["mean"] > 0  # the control: there was something to choose


def test_regret_is_never_negative(decisions):
    assert len(decisions) == 100
    for one in decisions:
        for objective in ("e2e_s", "ttft_s", "missed"):
            regrets = one.regrets(objective)
            assert set(regrets) == {0, 1, 2, 3} and min(regrets.values()) == 0.0


def test_shuffled_decisions_regret_more(decisions):
    """Each decision gets the worker of another one: what is left of the router is how often it takes which worker."""
    chosen = Random(1).sample([one.chosen for one in decisions], len(decisions))
    shuffled = [replace(one, chosen=worker) for one, worker in zip(decisions, chosen, strict=True)]
    found, control = regret(decisions), regret(shuffled)
    assert control["mean"] > 1.5 * found["mean"] and control["best_share"] < found["best_share"]
    assert control["random"] == found["random"]
    assert control["mean"] == pytest.approx(found["random"]["mean"], rel=0.5)


def test_a_random_router_regrets_what_a_random_choice_does():
    found = regret(judged(question("random"), 250))
    assert found["mean"] == pytest.approx(found["random"]["mean"], rel=0.25)
    assert regret(judged(question(), 250))["mean"] < 0.6 * found["mean"]


def test_the_seed_draws_the_sample_and_the_same_for_every_router():
    ids = {(seed, router): {d.request for d in judged(question(router, seed=seed), 40)}
           for seed in (0, 1) for router in ("round_robin", "least_tokens")}  # fmt: skip
    assert ids[0, "round_robin"] == ids[0, "least_tokens"] != ids[1, "least_tokens"]


def test_the_warm_up_is_not_judged():
    start_s = WORKLOAD.requests[200].arrival_s
    assert min(d.request for d in judged(question(), 300, warmup_s=start_s)) == 200


def test_the_rejected_are_not_judged():
    slow = question(admission="queue_cap", admission_parameters={"max_waiting": 1})
    crowded = replace(slow, workload=WORKLOAD.at_rate(20.0))
    found = judged(crowded, 250)
    rejected = {t.id for t in crowded.run().timelines if t.status == "rejected"}
    assert rejected and not rejected & {d.request for d in found}
    assert len(found) == 250 - len(rejected)


def test_means_are_of_the_chosen(decisions):
    found = regret(decisions, "ttft_s")
    assert found["mean"] == pytest.approx(fmean(d.regrets("ttft_s")[d.chosen] for d in decisions))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: judged(replace(question(), fleet=Fleet(split="2P2D"))), "fleet without a split"),
        (lambda: judged(question(), 0), "regret of 0 decisions"),
        (lambda: regret([]), "no decision could be judged"),
        (lambda: regret([Judged(0, 0, {0: Marginal(1, 1, 1)})], "luck"), "regret by 'luck' is unknown"),
    ],
)
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
