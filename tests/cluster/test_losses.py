"""Workers that die, hang or cannot be reached: requests go elsewhere with what they have, or fail with a reason."""

from dataclasses import replace
from math import inf

import pytest

from helpers.cluster.faults import Disconnect, Hang, SlowLink
from helpers.cluster.workers import Workers, WorkersSpec
from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.policies.view import ACCEPT, Verdict
from helpers.serving.cluster_backend import ClusterOptions, workers_for
from helpers.serving.experiment import Experiment
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.workload.request import Request, Workload
from tests.cluster.conftest import TWO, workload

SPLIT = replace(TWO, split="1P1D")
LONG = Workload("long", tuple(Request(i, 0.02 * i, 60 + 10 * i, 40) for i in range(8)), 64)


def run(fleet=TWO, asked=LONG, disturbances=(), **told):
    options = ClusterOptions(device="cpu", **{"limit_s": 300, "hang_s": 120, "transfer_limit_s": 300, **told})
    return Experiment(asked, fleet, disturbances=disturbances).run(on="engine", engine=options)


@pytest.fixture(scope="module")
def undisturbed(crew):
    return run(workers=crew)


def test_a_killed_worker_costs_time_and_nothing_else(undisturbed):
    lossy = run(disturbances=(LoseWorker(1, 0.15),))
    assert audit(lossy.log) == []
    assert [t.status for t in lossy.timelines] == ["finished"] * 8
    assert lossy.tokens == undisturbed.tokens  # what was out stays, and what follows is the same
    assert lossy.log.counts["workers_lost"] == 1
    moved = [t for t in lossy.timelines if t.requeues]
    assert len(moved) == lossy.log.counts["rerouted"] > 0
    assert {t.decode_worker for t in moved} == {0}
    assert lossy.workers[1].stop_s is not None and lossy.workers[0].stop_s is None


def test_a_hanging_worker_is_found_out():
    hung = run(disturbances=(), faults=(Hang(0, 0.15),), hang_s=8.0)
    assert {t.status for t in hung.timelines} == {"finished"}
    assert hung.log.counts["workers_lost"] == 1


def test_with_nobody_left_requests_fail_with_a_reason():
    alone = run(SPLIT, disturbances=(LoseWorker(1, 0.15),))
    reasons = {t.reason for t in alone.timelines if t.status != "finished"}
    assert reasons == {"no worker is left that could serve it"}
    assert {t.status for t in alone.timelines} <= {"finished", "rejected"}


def test_a_link_that_is_too_slow_fails_its_hand_offs(crew):
    """The only decode worker cannot be reached in time, so each request fails after some tries; control: in time."""
    few = Workload("few", LONG.requests[:2], 64)
    slow = run(SPLIT, few, workers=crew, faults=(SlowLink(1, 0.0, 1e4),), transfer_limit_s=0.3)
    assert {t.reason for t in slow.timelines} == {"its KV did not arrive within 0.3 s"}
    assert slow.log.counts == {**slow.log.counts, "failed": 2, "rerouted": 6, "workers_lost": 0}
    fine = run(SPLIT, few, workers=crew)
    assert {t.status for t in fine.timelines} == {"finished"}


def test_a_run_in_which_nothing_comes_any_more_is_given_up(crew):
    """The KV would take two minutes to the only decode worker, and nobody makes a step meanwhile; control: at once."""
    few = Workload("few", LONG.requests[:2], 64)
    stuck = run(SPLIT, few, workers=crew, faults=(SlowLink(1, 0.0, 4e3),), limit_s=inf, stall_s=1.0)
    assert {t.reason for t in stuck.timelines} == {"no worker made a step for 1 s"}
    assert {t.status for t in stuck.timelines} == {"unfinished"}
    fine = run(SPLIT, few, workers=crew, limit_s=inf, stall_s=120.0)
    assert {t.status for t in fine.timelines} == {"finished"}


def test_a_slow_link_is_as_slow_as_it_says(crew):
    """A page of 64 tokens weighs 64 x 4096 bytes; a prompt of 60 has one, which takes 0.26 s at 1 MB/s."""
    one = Workload("one", LONG.requests[:1], 64)
    slow = run(SPLIT, one, workers=crew, faults=(SlowLink(1, 0.0, 1e6),))
    (t,) = slow.timelines
    assert slow.moved_bytes == 64 * 4096
    assert t.transfer_end_s - t.transfer_start_s >= 64 * 4096 / 1e6 - 0.05


def test_who_leaves_is_not_answered_and_frees_his_place(crew, undisturbed):
    """Who leaves asks for so much that no answer is there by then, though this process may stand still for seconds."""
    leavers = (0, 3, 7)
    patient = tuple(replace(r, output_tokens=1500) if r.id in leavers else r for r in LONG)
    faults = tuple(Disconnect(i, 0.15) for i in leavers)
    left = run(SPLIT, replace(LONG, requests=patient), workers=crew, faults=faults)
    assert {t.id: t.reason for t in left.timelines if t.status != "finished"} == dict.fromkeys(
        leavers, "its client left"
    )
    assert left.log.counts["disconnected"] == 3
    assert all(left.tokens[t.id] == undisturbed.tokens[t.id] for t in left.timelines if t.status == "finished")
    assert run(SPLIT, workers=crew).tokens == undisturbed.tokens  # nothing of them is left on the workers


SPREAD = Workload("spread", tuple(Request(i, 0.1 * i, 60 + 10 * i, 40) for i in range(8)), 64)  # lasts 0.7 s anywhere


class Doorman:
    """Holds request 1 until somebody has finished after 0.5 s."""

    name, queues, observes = "doorman", True, frozenset()

    def admit(self, request, views, decision, now, rng):
        return Verdict("queue") if request.id == 1 and now < 0.5 else ACCEPT


def test_who_leaves_while_admission_holds_him_never_gets_to_a_worker(crew):
    options = ClusterOptions(device="cpu", limit_s=300, hang_s=120, workers=crew, faults=(Disconnect(1, 0.3),))
    held = Experiment(SPREAD, TWO, admission=lambda facts: Doorman()).run(on="engine", engine=options)
    gone = held.timelines[1]
    assert (gone.status, gone.reason, gone.prefilled_tokens) == ("unfinished", "its client left", 0)
    assert {t.status for t in held.timelines if t.id != 1} == {"finished"}
    patient = replace(options, faults=())
    waited = Experiment(SPREAD, TWO, admission=lambda facts: Doorman()).run(on="engine", engine=patient)
    assert {t.status for t in waited.timelines} == {"finished"}  # control
    assert waited.timelines[1].dispatched_s >= 0.5


def test_a_slow_worker_takes_longer_steps(crew):
    asked = workload(4)
    slow = run(asked=asked, workers=crew, disturbances=(SlowWorker(0, 0.0, 600.0, 25.0),))
    mean = [sum(log.base_s) / len(log) for log in slow.step_logs]
    assert mean[0] > 2 * mean[1]  # 25 times, less what the loop itself takes; much less where cores are shared


def test_lost_workers_are_not_used_again():
    with workers_for(TWO, 64, ClusterOptions(device="cpu")) as crew:
        crew.kill(0)
        crew.processes[0].wait()
        assert not crew.whole
        with pytest.raises(InputError, match="start the workers again"):
            run(workers=crew)


@pytest.mark.parametrize(("spec", "said"), [({"model": "no-such"}, "neither a folder"), ({"kv_gib": 1e-6}, "hold no")])
def test_a_setup_that_cannot_be_is_one_sentence(spec, said):
    with pytest.raises(InputError, match=said):
        Workers(WorkersSpec(1, **spec))


def test_a_fault_names_a_worker_that_is_there(crew):
    with pytest.raises(InputError, match="the fleet has 0 to 1"):
        run(workers=crew, faults=(Hang(2, 0.1),))
    with pytest.raises(InputError, match="positive"):
        SlowLink(0, 0.0, 0.0)
    with pytest.raises(InputError):
        Disconnect(0, -1.0)
