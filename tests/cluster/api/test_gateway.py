"""The way into a cluster's thread: whoever asks hears an end, also when that thread has none."""

import threading
import time
from types import SimpleNamespace

from helpers.cluster.api.gateway import ENDED, End, Gateway, Hints, Token
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload
from helpers.workload.slo import SLO

PATIENCE_S = 30.0


class Cluster:
    """Answers each request with its prompt, or breaks at the first one that is to `break_at`."""

    def __init__(self, break_at=None):
        limits = SimpleNamespace(kv_blocks=10, block_tokens=64)
        self.crew = SimpleNamespace(limits=limits, facts=[{"max_context": 512, "vocab": 320}], wake=lambda: None)
        self.break_at, self.held = break_at, []

    def start(self):
        pass

    def now(self):
        return 0.0

    def turn(self):
        for number, payload in self.held:
            if number == self.break_at:
                raise OverflowError("cannot be written down")
            for token in payload.prompt:
                payload.on_token(token, False)
            payload.on_end(SimpleNamespace(status="finished", reason="", cached_tokens=3))
        self.held.clear()
        time.sleep(0.001)

    def arrive(self, request, payload):
        self.held.append((request.id, payload))

    def stop_all(self, reason):
        pass  # what came last has not begun: the cluster knows nothing of it


def heard(gateway, prompts):
    """What those who ask hear, each until its end."""
    found = [[] for _ in prompts]
    ended = [threading.Event() for _ in prompts]

    def hear(i, what):
        found[i].append(what)
        if isinstance(what, End):
            ended[i].set()

    for i, prompt in enumerate(prompts):
        gateway.ask(prompt, 4, lambda what, i=i: hear(i, what))
    return found, [one.wait(PATIENCE_S) for one in ended]


def test_everybody_hears_an_end_when_the_thread_breaks(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    gateway = Gateway(Cluster(break_at=1))
    found, ended = heard_all_queued(gateway, [[1], [2], [3]])
    assert ended == [True] * 3
    assert found[0] == [Token(1), End("finished", "", 3)]
    assert found[1:] == [[End("unfinished", ENDED, 0)]] * 2
    assert isinstance(gateway.failed, OverflowError)
    assert gateway.inside == 0
    assert heard(gateway, [[4]]) == ([[End("unfinished", ENDED, 0)]], [True])  # and who comes later


def heard_all_queued(gateway, prompts):
    """As `heard`; the thread starts when all have asked, so that they arrive in one turn."""
    threading.Timer(0.05, gateway.start).start()
    return heard(gateway, prompts)


def test_a_thread_that_does_not_break_answers_all():
    gateway = Gateway(Cluster())
    gateway.start()
    found, ended = heard(gateway, [[1], [2]])
    assert ended == [True, True]
    assert found == [[Token(1), End("finished", "", 3)], [Token(2), End("finished", "", 3)]]
    assert gateway.failed is None and gateway.inside == 0
    gateway.close()
    assert heard(gateway, [[4]]) == ([[End("unfinished", ENDED, 0)]], [True])


def test_a_rejection_carries_what_its_policy_predicted_and_nothing_is_kept():
    """Forty prompts at once for one worker and a TTFT of half a second: some are turned away, the later the longer."""
    burst = Workload("burst", tuple(Request(i, 0.0, 4000, 2) for i in range(40)), 64)
    hints = Hints()
    asked = Experiment(burst, Fleet(workers=1), admission="predicted_slo", slo=SLO(ttft_s=0.5))
    log = asked.cluster(on_decision=hints.note).run(burst.requests)
    rejected = [t.id for t in log.timelines if t.status == "rejected"]
    after_s = [hints.take(number) for number in rejected]
    assert len(rejected) > 5 and all(seconds > 0 for seconds in after_s)
    assert [hints.take(t.id) for t in log.timelines] == [None] * 40  # taken once, and none of those who were served


def test_an_end_says_when_to_come_again():
    hints, ends = Hints(), []
    verdict = SimpleNamespace(retry_after_s=2.5)
    hints.note(SimpleNamespace(request=SimpleNamespace(id=0)), None, verdict, 0.0)
    gateway = Gateway(Cluster(), hints=hints)
    gateway.start()
    for prompt in ([1], [2]):
        ended = threading.Event()
        gateway.ask(prompt, 1, lambda heard, ended=ended: isinstance(heard, End) and (ends.append(heard), ended.set()))
        assert ended.wait(PATIENCE_S)
    gateway.close()
    assert [end.retry_after_s for end in ends] == [2.5, None]  # the second is the control
