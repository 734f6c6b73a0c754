"""What the tests of scalers share: a predictor with round numbers, and traffic told event by event."""

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.policies.view import Arrived, Finished, FirstToken
from helpers.workload.request import Request

# A step takes 10 ms, 0.1 ms a prompt token and 1 us a KV token: 1,000 prompt tokens take 0.01 + 0.1 = 0.11 s.
PREDICTOR = CostPredictor(AffineCost(0.01, 1e-4, 0.0, 0.0, 1e-6), 2048)


def tell(policy, count=10, every_s=1.0, prompt=1000, output=100, cached=0, start_s=0.0, first_id=0):
    """`count` requests arrive, one each `every_s` from `start_s` on, and are served at once."""
    for i in range(count):
        now = start_s + i * every_s
        request = Request(first_id + i, now, prompt, output)
        for event in (Arrived(request), FirstToken(request, 0, cached), Finished(request, 0)):
            policy.observe(event, now)


@pytest.fixture(scope="session", name="predictor")
def predictor_fixture():
    return PREDICTOR


@pytest.fixture(scope="session", name="tell")
def tell_fixture():
    """The function, as a fixture: test modules cannot import each other."""
    return tell
