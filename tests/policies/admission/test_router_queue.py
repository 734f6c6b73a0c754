"""Dynamo's router queue: the gate and its three orders, by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Decision, Dispatched, Finished, FirstToken, KVStored, Rejected, WorkerLost
from helpers.workload.request import Request

TWO = Snapshot([view(0), view(1)])
ASKED = Request(9, 0.0, 50, 10)


def send(policy, number, tokens, worker, blocks=()):
    one = Request(number, 0.0, tokens, 10, blocks)
    policy.observe(Dispatched(one, Decision(worker, worker)), 0.0)
    return one


def test_requests_wait_while_all_workers_are_over_the_threshold(policy, ask):
    one = policy("router_queue", threshold=1.5)  # 1.5 x 100 tokens
    send(one, 0, 151, 0)
    assert ask(one, ASKED, TWO) is ACCEPT
    send(one, 1, 150, 1)
    assert ask(one, ASKED, TWO) is ACCEPT  # 150 is not more than 150
    send(one, 2, 1, 1)
    assert ask(one, ASKED, TWO).action == "queue"


def test_the_threshold_is_not_on_the_sum(policy, ask):
    """A sum over the workers (find the flaw 30) would be over 2 x 150 here, and one worker is idle."""
    one = policy("router_queue", threshold=1.5)
    send(one, 0, 5000, 0)
    assert ask(one, ASKED, TWO) is ACCEPT


@pytest.mark.parametrize("event", [FirstToken, Finished, Rejected])
def test_a_prompt_counts_until_its_first_token(policy, ask, event):
    one = policy("router_queue", threshold=0.0)
    sent = send(one, 0, 100, 0)
    alone = Snapshot([view(0)])
    assert ask(one, ASKED, alone).action == "queue"
    one.observe(event(sent, 0), 1.0)
    assert ask(one, ASKED, alone) is ACCEPT


def test_cached_tokens_do_not_count(policy, ask):
    alone = Snapshot([view(0)])
    for kv_events, action in ((True, "accept"), (False, "queue")):
        one = policy("router_queue", threshold=1.5, kv_events=kv_events)
        one.observe(KVStored(0, (1, 2)), 0.0)
        send(one, 0, 300, 0, (1, 2, 3))  # 100 or 300 tokens to compute
        assert ask(one, ASKED, alone).action == action


def test_a_lost_worker_is_not_waited_for(policy, ask):
    one = policy("router_queue", threshold=0.0)
    send(one, 0, 100, 0)
    send(one, 1, 100, 1)
    one.observe(WorkerLost(1), 1.0)
    assert one.prompts.amount == [100, 0]
    assert ask(one, ASKED, Snapshot([view(0)])).action == "queue"


def order(policy, requests):
    """The ids of requests that were held one second after the other, by ascending rank."""
    ranked = [(policy.rank(one, float(at)), one.id) for at, one in enumerate(requests)]
    return [number for _, number in sorted(ranked)]


def test_the_three_orders(policy):
    requests = [Request(0, 0.0, 500, 10), Request(1, 0.0, 100, 10), Request(2, 0.0, 300, 10)]
    asked = {name: order(policy("router_queue", order=name), requests) for name in ("fcfs", "lcfs", "wspt")}
    assert asked == {"fcfs": [0, 1, 2], "lcfs": [2, 1, 0], "wspt": [1, 2, 0]}


def test_a_priority_is_seconds_in_fcfs_and_a_factor_in_wspt(policy):
    # Held at 0, 1 and 2 s with priorities 3, 0 and 0: ranks 3, 1, 2. WSPT: 4 x 100, 1 x 500, 1 x 300.
    requests = [Request(0, 0.0, 100, 10, priority=3), Request(1, 0.0, 500, 10), Request(2, 0.0, 300, 10)]
    assert order(policy("router_queue"), requests) == [1, 2, 0]
    assert order(policy("router_queue", order="wspt"), requests) == [2, 0, 1]
    # LCFS: 3 - 0, 0 - 1, 0 - 2.
    assert order(policy("router_queue", order="lcfs"), requests) == [2, 1, 0]


def test_a_priority_below_zero_counts_as_zero(policy):
    one = policy("router_queue", order="wspt")
    assert one.rank(Request(0, 0.0, 100, 10, priority=-3), 0.0) == 100


def test_bad_parameters_are_one_sentence(policy):
    with pytest.raises(InputError, match="order 'sjf' is unknown; use one of fcfs, lcfs, wspt"):
        policy("router_queue", order="sjf")
    with pytest.raises(InputError, match=r"threshold is -1\.0; give a number of 0 or more"):
        policy("router_queue", threshold=-1.0)
