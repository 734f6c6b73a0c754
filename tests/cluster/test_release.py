"""When layers go: a schedule from outside is obeyed, and none lets a layer go before it is stored."""

from math import inf
from types import SimpleNamespace

import pytest
import torch

from helpers.cluster.movers import checked_release, mover
from helpers.cluster.orders import Order, Part
from helpers.cluster.sender import Sender
from helpers.cluster.worker import Worker
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterOptions, parts_of
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request
from tests.cluster.conftest import workload

TOKENS, PAGE, LAYERS = 300, 64, 4
SPLIT = Fleet(workers=2, split="1P1D", chunk_tokens=128, max_batch=16, kv_gib=0.02)


class Prefill:
    """A sender on an engine that computes nothing: a prompt of 300 tokens, whose layers are stored by hand."""

    def __init__(self, send_after=()):
        pages = SimpleNamespace(tensor=torch.zeros(LAYERS, 2, 8, PAGE, 1, 2), page_tokens=PAGE, watch=None)
        engine = SimpleNamespace(pages=pages, now=lambda: 0.0, pages_of=lambda g, n: list(range(-(-n // PAGE))))
        hooks = {"sent": lambda piece: True, "told": lambda piece, target: None, "took_s": lambda piece: None}
        wire = SimpleNamespace(offer=self._offer, most_bytes=inf, **hooks)
        told = Part("prefill", "layerwise", send_after=send_after)
        self.sender = Sender(engine, told, mover("layerwise"), wire, lambda peer, message: None, None)
        self.watch, self.went = pages.watch, []  # (layers stored, layer, pages) of what went
        self.g = SimpleNamespace(number=0, computed=0, goal=TOKENS, out=[])
        self.sender.add(Order(0, 0, Request(0, 0.0, TOKENS, 4), 1), self.g)

    def _offer(self, piece, target):
        self.went.append((self.sender._launched, piece.first_layer, len(piece.pages)))
        return True

    def step(self, tokens, layers=range(LAYERS)):
        """What went during a step that told of these layers."""
        before = len(self.went)
        self.sender.on_step(SimpleNamespace(chunks=[(self.g, tokens)]))
        for layer in layers:
            self.watch(layer)
        self.g.computed += tokens
        return self.went[before:]

    def grant(self):
        """The receiver has room."""
        self.sender.granted(0, list(range(5)))


@pytest.mark.parametrize("send_after", [(), (1, 2, 3, 4), (4, 4, 4, 4), (2, 2, 4, 4), (3, 2, 4, 4)])
def test_a_schedule_is_obeyed(send_after):
    """Steps of 128, 128 and 44 tokens complete 2, 2 and 1 pages; room is there from the second step on."""
    prefill = Prefill(send_after)
    assert prefill.step(128) == []
    prefill.grant()
    assert prefill.went == [(LAYERS, layer, 2) for layer in range(LAYERS)]  # what would have gone by now
    for tokens, pages in ((128, 2), (44, 1)):
        wanted = [(after, layer, pages) for layer, after in enumerate(send_after or (1, 2, 3, 4))]
        assert prefill.step(tokens) == sorted(wanted)


def test_room_that_is_heard_of_between_layers_is_used_in_the_same_step():
    """A prompt of one step goes in pieces all the same; control: nobody looks up, and nothing goes before its end."""
    assert Prefill().step(TOKENS) == []
    prompt = Prefill()
    prompt.sender.look_up = prompt.grant
    assert prompt.step(TOKENS) == [(1, 0, 5), (2, 1, 5), (3, 2, 5), (4, 3, 5)]
    late = Prefill((3, 3, 3, 4))
    late.sender.look_up = late.grant
    assert late.step(TOKENS) == [(3, 0, 5), (3, 1, 5), (3, 2, 5), (4, 3, 5)]


def test_a_captured_step_tells_of_its_end_and_all_layers_go_then():
    """Each behind its own mark on the device. Control: what tells of no layer at all lets none go."""
    prompt = Prefill()
    prompt.step(128)
    prompt.grant()
    assert prompt.step(128, [LAYERS - 1]) == [(LAYERS, layer, 2) for layer in range(LAYERS)]
    assert prompt.step(44, []) == []


def test_in_the_middle_of_a_step_only_room_is_heard():
    """The rest is heard when the step is over, in its order, and nothing of an earlier run."""
    heard = []
    worker = Worker.__new__(Worker)
    worker._later, worker._part = [], SimpleNamespace(run=2)
    worker.exchange = SimpleNamespace(hear=lambda peer, message: heard.append(message["kind"]))
    said = [("cancel", 2), ("granted", 1), ("granted", 2), ("received", 2)]
    inbox = [[(1, {"kind": kind, "run": run}) for kind, run in said], [(1, {"kind": "freed", "run": 2})]]
    worker.sockets = SimpleNamespace(from_peers=lambda: inbox.pop(0))
    worker._between_layers()
    assert heard == ["granted"]
    worker._hear_peers()
    assert heard == ["granted", "cancel", "received", "freed"] and worker._later == []


@pytest.mark.parametrize(
    ("send_after", "name", "why"),
    [
        ((0, 2, 3, 4), "layerwise", "layer 0 would go after 0 layers; give 1 to 4"),
        ((1, 2, 2, 4), "layerwise", "layer 2 would go after 2 layers; give 3 to 4"),
        ((1, 2, 3, 5), "layerwise", "layer 3 would go after 5 layers"),
        ((1, 2, 3), "layerwise", "3 numbers for 4 layers"),
        ((1, 2, 3, 4), "blocking", "sends no layers during a prefill"),
        ((1, 2, 3, 4), "bounce", "sends no layers during a prefill"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(send_after, name, why):
    with pytest.raises(InputError, match=why):
        checked_release(send_after, 4, mover(name))


def test_a_schedule_that_can_be_is_not():
    assert checked_release((2, 2, 4, 4), 4, mover("layerwise")) == (2, 2, 4, 4)
    assert checked_release((), 4, mover("blocking")) == ()


def test_a_schedule_reaches_the_workers():
    options = ClusterOptions(mover="layerwise", send_after=(2, 2, 4, 4))
    made = parts_of(Experiment(workload(), SPLIT), options)
    assert [Part.of(one.message()).send_after for one in made] == [(2, 2, 4, 4)] * 2


def test_running_workers_obey_a_schedule_and_refuse_that_of_another_model(crew):
    """Whatever goes when, the answers are the same and every page arrives as it was."""

    def run(send_after):
        options = ClusterOptions(device="cpu", workers=crew, mover="layerwise", verify=True, send_after=send_after)
        return Experiment(workload(4), SPLIT).run(on="engine", engine=options)

    with pytest.raises(InputError, match="2 numbers for 4 layers"):
        run((1, 2))
    usual, late = run(()), run((4, 4, 4, 4))
    assert usual.tokens == late.tokens and usual.checked == late.checked > 0
    assert usual.wrong == late.wrong == 0
