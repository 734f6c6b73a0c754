"""AIBrix's preble router: its calibration and its costs by hand, and who gets what."""

from itertools import count
from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, WorkerLost
from helpers.policies.zoo.preble import Preble, a6000_s, v100_s
from helpers.workload.request import Request

# A step takes 100 ms, and 10 ms more a token; blocks of 100 tokens.
PREDICTOR = CostPredictor(AffineCost(0.1, 0.01, 0.0, 0.0, 0.0), 10_000)
NUMBERS = count()


def prompt(*blocks):
    return Request(next(NUMBERS), 0.0, 100 * len(blocks), 10, blocks)


def fleet(workers):
    return Snapshot(view(w) for w in range(workers))


def send(one, worker, *blocks, now=0.0, ends=True):
    """A prompt was sent to `worker`, and is over at once unless it `ends` not."""
    asked = prompt(*blocks)
    one.observe(Dispatched(asked, Decision(worker, worker)), now)
    if ends:
        one.observe(Finished(asked, worker), now)


def chosen(one, *blocks, workers=2, now=1.0):
    return one.route(prompt(*blocks), fleet(workers), now, Random(0)).prefill


def worked_example(**parameters):
    """(1, 2, 3) went to worker 0 twice, then (1, 2, 9) to worker 1; costs by the predictor."""
    one = Preble(PREDICTOR, 100, gpu="predictor", **parameters)
    send(one, 0, 1, 2, 3)
    send(one, 0, 1, 2, 3)
    send(one, 1, 1, 2, 9)
    return one


def test_the_costs_by_hand():
    """Decode is 45 x 0.15 = 6.75 s a node. After the split by worker 1's prompt:

    (3) has 100 tokens of its own and two prompts, of which nothing was shared when they came: miss 1,
    2 x (0.1 + 1.0) + 6.75 = 8.95 s on worker 0
    (9) has 100 tokens of its own and one prompt, of which 200 of 300 were shared: 1/3 x 1.1 + 6.75 = 7.12 s on worker 1
    """
    one = Preble(PREDICTOR, 100, gpu="predictor")
    send(one, 0, 1, 2, 3)
    assert one.recent.cost_s(0) == pytest.approx(0.1 + 3.0 + 6.75)
    send(one, 0, 1, 2, 3)
    assert one.recent.cost_s(0) == pytest.approx(2 * 3.1 + 6.75)  # a prompt more, not a node more
    one = worked_example()
    assert [one.recent.cost_s(w) for w in (0, 1)] == pytest.approx([8.95, 1.1 / 3 + 6.75])
    assert [one.recent.load(w) for w in (0, 1)] == [2, 1]
    # Worker 1 is sent (1, 2, 3) too: it is charged with all of that node, and so is worker 0: 3 prompts now,
    # and 200 of the last one's 300 tokens were above it: miss 1 - 200 / 900.
    send(one, 1, 1, 2, 3)
    both_s = (1 - 200 / 900) * 3 * 1.1 + 6.75
    assert [one.recent.cost_s(w) for w in (0, 1)] == pytest.approx([both_s, both_s + 1.1 / 3 + 6.75])
    assert [one.recent.load(w) for w in (0, 1)] == [3, 4]


def test_little_in_common_goes_by_cost_and_much_by_the_match():
    one = worked_example()
    assert chosen(one, 7, 8) == 1  # 8.95 against 7.12
    assert chosen(one, 1, 2, 3, 4) == 0  # three of four blocks, which worker 0 alone was sent
    assert chosen(one, 1, 2, 5) == 1  # two of three: both were, and worker 1 has the lower load
    assert chosen(one, 1, 2, 3, 4, 5, 6) == 1  # three of six are not more than half: by cost
    one = worked_example()
    send(one, 1, 1, 2, 9)
    send(one, 1, 1, 2, 9)  # three prompts: load 3 against 2, cost 3 x (1 - 400 / 900) ... below worker 0's
    assert chosen(one, 1, 2, 5) == 0
    assert chosen(worked_example(match_share=0.7), 1, 2, 5) == 1
    assert chosen(worked_example(match_share=0.8), 1, 2, 3, 4) == 1  # by cost


def test_a_match_within_a_node_belongs_to_its_workers():
    one = Preble(PREDICTOR, 100)
    send(one, 1, 1, 2, 3, 4)
    assert chosen(one, 1, 2, 3, 7) == 1


def test_nothing_yet_and_equals_go_to_the_lowest_id():
    assert chosen(Preble(), 1, 2) == 0
    one = Preble(PREDICTOR, 100)
    send(one, 1, 1, 2)
    send(one, 0, 8, 9)
    assert chosen(one, 5, 6) == 0


def test_after_the_window_nothing_is_charged_and_after_the_ttl_nothing_is_known():
    one = worked_example()
    chosen(one, 7, 8, now=179.9)
    assert one.recent.cost_s(0) > 0
    assert chosen(one, 7, 8, now=180.0) == 0  # both at 0: the lowest id
    assert [one.recent.cost_s(w) for w in (0, 1)] == [0, 0] and not one.recent._sums
    assert chosen(one, 1, 2, 9, now=300.0) == 1  # the tree still knows
    assert chosen(one, 1, 2, 9, now=300.1) == 0 and len(one.tree) == 0


def test_part_of_the_window_takes_off_what_it_had_put_on():
    one = Preble(PREDICTOR, 100, gpu="predictor")
    for now in (0.0, 100.0):
        send(one, 0, 1, 2, 3, now=now)
    chosen(one, 7, now=200.0)
    assert one.recent.cost_s(0) == pytest.approx(3.1 + 6.75) and one.recent.load(0) == 1


def test_uneven_workers_are_left_out_first():
    one = worked_example()
    for _ in range(9):
        send(one, 0, next(NUMBERS) + 10**6, ends=False)
    assert chosen(one, 1, 2, 3, 4) == 1  # nine apart: worker 0, which has the match, is out; (1, 2) is worker 1's too
    one = worked_example()
    for _ in range(8):
        send(one, 0, next(NUMBERS) + 10**6, ends=False)
    assert chosen(one, 1, 2, 3, 4) == 0  # eight apart is even


def test_a_match_that_nobody_left_was_sent_goes_to_whoever_was_sent_anything():
    """Workers 0 and 1 are out; worker 3 was sent another prompt, worker 2 none: the root of the tree is worker 3's."""
    one = worked_example()
    send(one, 3, 70, 71)
    for worker in (0, 1):
        for _ in range(9):
            send(one, worker, next(NUMBERS) + 10**6, ends=False)
    assert chosen(one, 1, 2, 3, workers=4) == 3
    assert chosen(one, 80, 81, workers=4) == 2  # by cost: nothing is charged to worker 2


def test_a_lost_worker_leaves_nothing_behind():
    one = worked_example()
    one.observe(WorkerLost(0), 1.0)
    assert one.recent.cost_s(0) == 0 and one.own.load[0] == 0
    assert not any(node.workers & 1 for node in (one.tree.root, *one.tree._order))
    assert one.route(prompt(1, 2, 3), Snapshot([view(1), view(2)]), 1.0, Random(0)).prefill == 1
    chosen(one, 7, now=500.0)  # what it was charged for ends without it


def test_the_calibration_by_hand():
    """In milliseconds, before the utilisation of 0.9."""
    ms = lambda tokens, context: a6000_s(tokens, context) * 900  # noqa: E731
    assert ms(1000, 1000) == pytest.approx(108.42571 + 4.209777 + 0.32)
    assert ms(256, 256) == pytest.approx(-118 + 320 - 167.77216 + 0.32)
    assert ms(100, 100) == pytest.approx(22 + 0.32)
    assert ms(2048, 2048) - ms(2048, 1024) == pytest.approx(0.380928 + 0.159 - 0.32)
    assert ms(512, 2048) - ms(512, 512) == pytest.approx((0.380928 + 0.159) / 2 - 0.32)
    assert ms(4096, 4096) - ms(4095, 4096) == pytest.approx(-7.37 + 15.81056 + 36.238787 + 0.10842571, rel=1e-6)
    # The V100's own constants: 0.27106428, 10.52444263, 0.8, 4.65e-4, 0.398, -18.425, 9.65e-3, 5.4e-6
    assert v100_s(1000, 1000) * 900 == pytest.approx(271.06428 + 10.52444263 + 0.8)
    whole = 0.27106428 * 8000 + 10.52444263 + 4.65e-4 * 8000 + 0.398 - 18.425 + 9.65e-3 * 8000 + 5.4e-6 * 8000**2
    assert v100_s(8000, 8000) * 900 == pytest.approx(whole, rel=1e-6)


def test_the_gpu_is_a_v100_whatever_serves_unless_told_otherwise():
    costs = {}
    for gpu in ("v100", "a6000", "predictor"):
        one = Preble(PREDICTOR, 100, gpu=gpu, decode_tokens=0)
        send(one, 0, *range(10))
        costs[gpu] = one.recent.cost_s(0)
    assert costs == pytest.approx({"v100": v100_s(1000, 1000), "a6000": a6000_s(1000, 1000), "predictor": 10.1})
    assert Preble().gpu == "v100"


def test_explained_scores_are_the_terms_and_change_nothing():
    silent, spoken = worked_example(), worked_example(explain=True)
    asked = prompt(1, 2, 5)
    decision = spoken.route(asked, fleet(2), 1.0, Random(0))
    assert decision._replace(scores=()) == silent.route(asked, fleet(2), 1.0, Random(0))
    found = {(worker, term): value for worker, term, value in decision.scores}
    assert [found[w, "has_the_match"] for w in (0, 1)] == [1, 1] and found[0, "matched_share"] == pytest.approx(2 / 3)
    assert [found[w, "load"] for w in (0, 1)] == [2, 1] and found[0, "cost_s"] == pytest.approx(8.95)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"gpu": "h100"}, "gpu 'h100' is unknown; use v100, a6000 or predictor"),
        ({"gpu": "predictor"}, "has no predictor; give it one, or gpu=v100"),
        ({"window_s": 301.0}, r"window_s 301\.0; give .* at most 300 s"),
        ({"match_share": -0.1}, r"match_share is -0\.1"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, says):
    with pytest.raises(InputError, match=says):
        Preble(**parameters)
