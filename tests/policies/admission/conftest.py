"""What the tests of this room share: a cost that can be worked out by hand, and a short way to ask."""

from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.view import Decision
from helpers.workload.slo import SLO

# A step takes 10 ms, 1 ms a prompt token, 2 ms a decode and 10 us a KV token; attention costs nothing.
COST = AffineCost(0.01, 0.001, 0.0, 0.002, 1e-5)
# Steps of 100 tokens; a copy takes 0.1 s and 1 ms a token.
PREDICTOR = CostPredictor(COST, 100, Link(0.1, 1e6), 1e3)


@pytest.fixture(scope="session", name="policy")
def policy_fixture():
    """Make an admission policy for one worker of 10 blocks of 100 tokens, with the facts that a test changes."""

    def policy(name, slos=None, facts=None, **parameters):
        known = {"workers": 1, "block_tokens": 100, "token_budget": 100, "kv_blocks": 10, "predictor": PREDICTOR}
        given = Facts(**{**known, "slos": slos or SLO(), **(facts or {})})
        return make("admission", name, given, **parameters)

    return policy


@pytest.fixture(scope="session", name="ask")
def ask_fixture():
    """Ask a policy about a request that a mixed worker (or the decision given) would get."""

    def ask(policy, request, views, decision=0, now=0.0, rng=None):
        where = decision if isinstance(decision, Decision) else Decision(decision, decision)
        return policy.admit(request, views, where, now, rng or Random(0))

    return ask
