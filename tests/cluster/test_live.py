"""Two running workers under the policies of the simulator: runs that every metric can take."""

from dataclasses import replace
from random import Random

import pytest

from helpers.cluster.live import LiveCluster
from helpers.cluster.orders import Part
from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.summary import summarize
from helpers.policies.routing import RoundRobin
from helpers.policies.view import ACCEPT, Decision, Dispatched, Finished, FirstToken, KVStored, Verdict
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun
from helpers.serving.experiment import Experiment
from helpers.serving.packs import read_pack, write_pack
from helpers.serving.run import MEASURED
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request, Workload
from tests.cluster.conftest import TWO, workload

SPLIT = replace(TWO, split="1P1D")


def run(crew, fleet=TWO, asked=None, told=None, **how):
    options = ClusterOptions(workers=crew, limit_s=300, hang_s=120, transfer_limit_s=300, **(told or {}))
    return Experiment(asked or workload(), fleet, **how).run(on="engine", engine=options)


@pytest.fixture(scope="module")
def mixed(crew):
    return run(crew)


@pytest.fixture(scope="module")
def split(crew):
    return run(crew, SPLIT, told={"verify": True})


def test_a_live_run_is_a_measured_one_and_sound(mixed):
    assert isinstance(mixed, ClusterRun)
    assert audit(mixed.log) == []
    assert [t.status for t in mixed.timelines] == ["finished"] * 8
    assert [t.prefill_worker for t in mixed.timelines] == [0, 1] * 4  # round robin
    assert [t.arrival_s for t in mixed.timelines] == pytest.approx([0.02 * i for i in range(8)])
    assert all(t.arrival_s <= t.dispatched_s <= t.prefill_start_s < t.first_token_s for t in mixed.timelines)
    assert [len(mixed.tokens[i]) for i in range(8)] == [6 + i % 3 for i in range(8)]
    assert summarize(mixed.log, Experiment(workload(), TWO).slo)["completed"] == 8
    assert [d["prefill"] for d in mixed.decisions] == [0, 1] * 4
    assert len(mixed.lateness_s) == 8 and min(mixed.lateness_s) >= 0


def test_a_split_run_gives_the_same_tokens(mixed, split):
    assert split.tokens == mixed.tokens
    assert {(t.prefill_worker, t.decode_worker) for t in split.timelines} == {(0, 1)}
    assert all(t.prefill_start_s <= t.transfer_start_s < t.transfer_end_s for t in split.timelines)
    assert split.hand_offs == 8
    assert split.checked > 0 and split.wrong == 0
    assert [info.role for info in split.workers] == ["prefill", "decode"]
    assert {span.worker for t in split.timelines for span in t.spans} == {1}


def test_it_says_what_was_served(split, tmp_path):
    made = split.provenance
    assert made.kind == MEASURED and made.hardware_key.startswith("cpu_")
    assert (made.fleet["model"], made.fleet["split"], made.fleet["mover"]) == ("tiny", "1P1D", "layerwise")
    assert "to start, which is no part of the run" in made.notes
    assert split.startup_s > 0
    known = replace(split, provenance=replace(made, commit="c" * 40))
    assert len(read_pack(write_pack(known, tmp_path / "run.json.gz")).timelines) == 8


def test_prefixes_are_cached_where_they_were_computed(mixed, split):
    """Odd requests share a page: on two mixed workers all go to worker 1; control: the even ones share nothing."""
    for one in (mixed, split):
        cached = [t.cached_tokens for t in one.timelines]
        assert cached[0::2] == [0] * 4
        assert sum(cached) > 0 and set(cached) <= {0, 64}


class Listening:
    """A learner's own router, as it would be simulated: it takes turns, and hears of everything."""

    name = "listening"
    observes = frozenset({Dispatched, FirstToken, Finished, KVStored})

    def __init__(self):
        self.heard, self.ages, self._turn = [], [], 0

    def route(self, request, views, now, rng: Random) -> Decision:
        self.ages += [views[w].age_s for w in views.prefill]
        self._turn += 1
        return Decision(self._turn % 2, self._turn % 2)

    def observe(self, event, now):
        self.heard.append((type(event), getattr(event, "request", None) and event.request.id, now))


def test_ones_own_router_runs_live_and_hears_of_everything(crew):
    router = Listening()
    run(crew, router=lambda workers: router)
    for i in range(8):
        mine = [(kind, now) for kind, number, now in router.heard if number == i]
        assert [kind for kind, _ in mine] == [Dispatched, FirstToken, Finished]
        assert mine[0][1] <= mine[1][1] <= mine[2][1]
    assert sum(kind is KVStored for kind, *_ in router.heard) > 0
    assert all(age >= 0 for age in router.ages) and len(set(router.ages)) > 2  # as old as they are


def test_telemetry_comes_as_seldom_as_the_fleet_says(crew):
    """With a sample every ten seconds nothing but the first one comes; control: without a period they come often."""
    for period_s, seldom in ((10.0, True), (0.0, False)):
        router = Listening()
        fleet = replace(TWO, telemetry=Telemetry(period_s=period_s))
        run(crew, fleet, workload(6, gap_s=0.1), router=lambda workers, router=router: router)
        assert (max(router.ages) > 0.4) == seldom or not seldom


def test_admission_holds_and_rejects_as_in_the_simulator(crew):
    together = Workload("burst", tuple(Request(i, 0.0, 100, 6) for i in range(8)), 64)
    held = run(crew, asked=together, admission="router_queue")
    assert {t.status for t in held.timelines} == {"finished"}
    picky = run(crew, asked=together, admission=lambda facts: EveryThird())
    turned_away = [t.id for t in picky.timelines if t.status == "rejected"]
    assert turned_away == [2, 5]
    assert {t.reason for t in picky.timelines if t.id in turned_away} == {"it is the third"}


class EveryThird:
    name = "every_third"

    def admit(self, request, views, decision, now, rng):
        return Verdict("reject", "it is the third") if request.id % 3 == 2 else ACCEPT


def test_a_follow_up_comes_after_its_parent(crew):
    asked = Workload("chat", (Request(0, 0.0, 50, 5), Request(1, 0.0, 50, 3, parent=0, think_time_s=0.05)), 64)
    first, second = run(crew, SPLIT, asked).timelines
    assert second.arrival_s == pytest.approx(first.finished_s + 0.05)


def test_a_run_that_is_cut_short_leaves_the_rest_unfinished(crew):
    asked = Workload("long", (Request(0, 0.0, 40, 2), Request(1, 0.0, 40, 4000), Request(2, 99.0, 40, 2)), 64)
    options = ClusterOptions(workers=crew, limit_s=4.0)
    cut = Experiment(asked, SPLIT).run(on="engine", engine=options)
    assert [t.status for t in cut.timelines] == ["finished", "unfinished"]
    assert "1 requests are left out" in cut.provenance.notes
    again = run(crew, SPLIT)  # and the workers serve on
    assert {t.status for t in again.timelines} == {"finished"}


def test_short_prompts_stay_on_the_decode_worker(crew):
    """Conditional disaggregation: the split policy sends prompts of up to 100 uncached tokens straight to decode."""
    asked = workload()
    stay = run(crew, SPLIT, asked, router="split_policy", router_parameters={"prompt_length_threshold": 100})
    expected = [(1, 1) if r.prompt_tokens <= 100 else (0, 1) for r in asked]
    uncached = [t.cached_tokens == 0 for t in stay.timelines]
    went = [(t.prefill_worker, t.decode_worker) for t in stay.timelines]
    assert [w for w, fresh in zip(went, uncached, strict=True) if fresh][:3] == expected[:3]
    assert (1, 1) in went and (0, 1) in went
    assert stay.hand_offs == went.count((0, 1))


def test_sampled_tokens_do_not_depend_on_the_split(crew):
    warm = {"temperature": 1.0}
    whole, split = run(crew, told=warm), run(crew, SPLIT, told={**warm, "mover": "group"})
    assert whole.tokens == split.tokens
    assert run(crew, told=warm, seed=1).tokens != whole.tokens  # control: another seed


def test_what_cannot_be_is_refused(crew):
    with pytest.raises(InputError, match="no scaler"):
        run(crew, scaler="fixed", scaler_parameters={"mixed": 2})
    with pytest.raises(InputError, match="noise"):
        run(crew, replace(TWO, telemetry=Telemetry(1.0, 0.0, 0.1)))
    with pytest.raises(InputError, match="mover"):
        run(crew, told={"mover": "pigeon"})
    with pytest.raises(InputError, match="3 parts for 2 workers"):
        LiveCluster(crew, [Part("mixed")] * 3, [RoundRobin()])


def test_what_peers_say_of_an_earlier_run_is_not_heard(crew):
    """A run that is cut in the middle of its hand-offs, and another at once: the same tokens as ever, pages right."""
    asked = Workload("many", tuple(Request(i, 0.0, 300, 12) for i in range(8)), 64)
    whole = run(crew, SPLIT, asked)
    for mover in ("bounce", "layerwise"):
        options = ClusterOptions(workers=crew, limit_s=0.5, mover=mover)
        Experiment(asked, SPLIT).run(on="engine", engine=options)
        again = run(crew, SPLIT, asked, told={"mover": mover, "verify": True})
        assert again.tokens == whole.tokens
        assert again.wrong == 0 and again.checked > 0
