"""Live, with the routers of a simulation: prompts on their way to decode workers count, and nothing does at the end."""

from dataclasses import replace

import pytest

from helpers.cluster.faults import Disconnect, SlowLink
from helpers.policies.pairing import ByReports, Pairing
from helpers.policies.registry import router
from helpers.policies.view import HandedOver, Rejected
from helpers.serving.cluster_backend import ClusterOptions, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.disturbances import LoseWorker
from helpers.workload.request import Request, Workload

FLEET = Fleet(workers=3, split="1P2D", chunk_tokens=128, max_batch=16, kv_gib=0.02)
OPTIONS = ClusterOptions(device="cpu", limit_s=300, hang_s=120, transfer_limit_s=300)
AT_ONCE = Workload("at once", tuple(Request(i, 0.0, 100, 20) for i in range(10)), 64)


@pytest.fixture(scope="module")
def three():
    """A prefill and two decode workers, running."""
    with workers_for(FLEET, 64, ClusterOptions(device="cpu")) as made:
        yield made


class Heard(Pairing):
    """Remembers how many it counted at most, and what it heard of."""

    __slots__ = ("heard", "most")

    def __init__(self):
        super().__init__()
        self.heard, self.most = [], 0

    def observe(self, event, now):
        super().observe(event, now)
        self.heard.append(event)
        self.most = max(self.most, len(self.on_the_way))


class Deaf(Heard):
    """A control: does not hear of those who leave."""

    observes = Pairing.observes - {Rejected}


def serve(pairing=Heard, asked=AT_ONCE, **told):
    """A run, and its router, which counts its own requests too."""
    made = []

    def make(workers):
        one = router("session", workers, 64)
        object.__setattr__(one, "pairing", pairing())
        made.append(one)
        return one

    faults = told.pop("disturbances", ())
    run = Experiment(asked, FLEET, make, disturbances=faults).run(on="engine", engine=replace(OPTIONS, **told))
    return run, made[-1]  # the first is made to see whether it can be


def left(one):
    """What is still counted: on the way to decode workers, and at all."""
    return len(one.pairing.on_the_way), one.own.requests


def test_what_comes_at_once_is_dealt_out_and_nothing_is_left(three):
    """Ten equal prompts before any report: five for each decode worker. By reports alone all go to worker 1."""
    run, one = serve(workers=three)
    assert sorted(t.decode_worker for t in run.timelines) == [1] * 5 + [2] * 5
    assert left(one) == (0, 0) and one.pairing.most == 10
    arrived = {e.request.id: e.at_s for e in one.pairing.heard if type(e) is HandedOver}
    assert arrived == {t.id: t.transfer_end_s for t in run.timelines}
    herd, _ = serve(ByReports, workers=three)
    assert {t.decode_worker for t in herd.timelines} == {1}


LEAVERS = (2, 5, 7)
PATIENT = replace(
    AT_ONCE, requests=tuple(replace(r, output_tokens=1500) if r.id in LEAVERS else r for r in AT_ONCE.requests)
)


def test_who_leaves_is_counted_no_more(three):
    """They leave at once, while their prompts are computed, or a little later; the control goes on counting them."""
    faults = tuple(Disconnect(i, 0.01) for i in LEAVERS)
    run, one = serve(asked=PATIENT, faults=faults, workers=three)
    assert run.log.counts["disconnected"] == 3 and left(one) == (0, 0)
    _, deaf = serve(Deaf, asked=PATIENT, faults=faults, workers=three)
    assert left(deaf)[0] > 0


def test_who_fails_for_good_is_counted_no_more(three):
    few = replace(AT_ONCE, requests=AT_ONCE.requests[:2])
    slow = tuple(SlowLink(worker, 0.0, 1e4) for worker in (1, 2))
    run, one = serve(asked=few, faults=slow, transfer_limit_s=0.3, workers=three)
    assert run.log.counts["failed"] == 2 and left(one) == (0, 0) and one.pairing.most == 2


def test_what_was_on_its_way_to_a_lost_worker_is_counted_where_it_goes_next():
    asked = replace(AT_ONCE, requests=tuple(replace(r, output_tokens=200) for r in AT_ONCE.requests))
    run, one = serve(asked=asked, disturbances=(LoseWorker(2, 0.1),))
    assert {t.status for t in run.timelines} == {"finished"} and run.log.counts["workers_lost"] == 1
    assert any(t.requeues for t in run.timelines) and left(one) == (0, 0)
