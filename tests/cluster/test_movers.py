"""Every mover gives the tokens of one engine, page by page the KV that was sent; planted errors are seen."""

import pytest
import torch

from helpers.cluster import tamper
from helpers.cluster.movers import MOVERS, mover
from helpers.cluster.orders import Order
from helpers.engine.engine import Engine
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request

REQUESTS = [Request(i, 0.0, n, 6, (1, 100 + i) if i % 2 else ()) for i, n in enumerate((40, 64, 65, 300, 128, 200))]
IN_ONE_PROCESS = [name for name, one in MOVERS.items() if one.wire != "group"]


@pytest.fixture(scope="module")
def alone(decoder):
    """The tokens that one engine gives, a request at a time."""
    with Engine(decoder, Limits(64, 64, 128, 8)) as engine:
        return {r.id: [t.token for t in _one(engine, r)] for r in REQUESTS}


def _one(engine, request):
    engine.submit(request)
    yield from engine.stream()


@pytest.mark.parametrize("name", IN_ONE_PROCESS)
def test_the_tokens_are_those_of_one_engine(pair, alone, name):
    pair.begin(name, verify=True)
    heard = pair.run(REQUESTS)
    assert {i: h.tokens for i, h in heard.items()} == alone
    layers = len(pair.engines[0].pages.tensor)
    assert [h.checked for h in heard.values()] == [layers * -(-r.prompt_tokens // 64) for r in REQUESTS]
    assert sum(h.wrong for h in heard.values()) == 0
    for engine in pair.engines:
        assert engine.scheduler.pool.used == 0  # both sides have let go
        assert not engine.live


@pytest.mark.parametrize("kind", tamper.KINDS)
def test_a_planted_error_is_seen_by_digests_and_by_tokens(pair, alone, kind):
    pair.begin("layerwise", verify=True, tamper=kind)
    heard = pair.run(REQUESTS)
    assert all(h.wrong > 0 for h in heard.values())
    assert sum(heard[i].tokens != alone[i] for i in alone) >= 4


def test_layers_go_while_the_prefill_is_on_its_way(pair):
    """A prompt of three steps: the first pieces are sent before the first token; control: a mover that waits."""
    for name, early in (("layerwise", True), ("batched", False)):
        pair.begin(name)
        pair.submit(Order(0, 0, Request(0, 0.0, 300, 4), 1))
        sent_before = 0
        while not pair.engines[0].live[0].generated:
            sent_before = max(sent_before, sum(pair.ends[0].sender._leaving[0].sent))
            pair.turn()
        assert (sent_before > 0) == early


def test_a_prompt_of_one_step_is_sent_layer_by_layer_too(pair):
    """Room is given before the step runs: pieces are on the link before the first token is out."""
    for name, hidden in (("layerwise", True), ("asynchronous", False)):
        pair.begin(name)
        heard = pair.run([Request(0, 0.0, 100, 3)])[0]
        assert (heard.transfer_s[0] < heard.times_s[0]) is hidden
        assert heard.transfer_s[1] < heard.times_s[1]  # nobody decodes what is not there


class OnDevice(torch.Tensor):
    """A number that is assigned to a tensor of a GPU is copied there, and the host waits for all that was launched."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # what comes of it is a plain tensor

    def __setitem__(self, *what):
        raise AssertionError("the host would wait for the step under way")


def test_who_joins_makes_the_host_wait_for_nothing(pair, alone, monkeypatch):
    seats = pair.engines[1].runner.seats
    monkeypatch.setattr(seats, "tokens", seats.tokens.as_subclass(OnDevice))
    pair.begin("layerwise")
    assert {i: h.tokens for i, h in pair.run(REQUESTS).items()} == alone
    with pytest.raises(AssertionError, match="would wait"):  # control: what it did once
        seats.tokens[0] = 1


def test_a_blocking_hand_off_stops_its_sender(pair):
    for name, stops in (("blocking", True), ("asynchronous", False)):
        pair.begin(name)
        for i in range(2):
            pair.submit(Order(i, i, Request(i, 0.0, 100, 4), 1))
        sender, waited = pair.ends[0].sender, False
        while pair.busy:
            pair.turn()
            waited = waited or sender.waits
        assert waited is stops


def test_a_request_waits_until_the_decode_side_has_room(decoder):
    """Decode-side admission: with room for one at a time the second is granted pages only when the first has left."""
    from helpers.cluster.duet import duet

    with duet(decoder, Limits(6, 64, 128, 8), stage_bytes=2**20) as tight:
        tight.begin("layerwise", verify=True)
        heard = tight.run([Request(i, 0.0, 250, 20) for i in range(3)])  # 5 blocks of 6 each
        ends = [h.times_s[-1] for h in heard.values()]
        assert all(heard[i + 1].transfer_s[0] >= ends[i] for i in range(2))
        assert [len(h.tokens) for h in heard.values()] == [20, 20, 20]


def test_a_stage_too_small_for_all_is_used_again_and_again(pair):
    """2 MiB of stage for 8 times as much, a piece at a time and a piece that is larger by itself: ten pages of 256 KiB.

    Control: a stage that no page fits into is refused with a sentence, and nobody waits for it for ever.
    """
    for name, many in (("bounce", [Request(i, 0.0, 500, 3) for i in range(6)]), ("batched", [Request(0, 0.0, 600, 3)])):
        pair.begin(name, verify=True)
        heard = pair.run(many)
        assert [one.checked for one in heard.values()] == [4 * -(-r.prompt_tokens // 64) for r in many]
        assert sum(h.wrong for h in heard.values()) == 0
    pair.begin("batched")
    pair.ends[0].sender._wire._stage.size = 2**17
    pair.ends[0].sender._wire.most_bytes = pair.ends[0].sender._wire._stage.most_bytes
    with pytest.raises(RuntimeError, match="stage_mib"):
        pair.run([Request(0, 0.0, 64, 3)])


def test_an_unknown_mover_names_the_known_ones(pair):
    with pytest.raises(InputError, match="layerwise"):
        mover("pigeon")
    with pytest.raises(InputError, match="two processes"):
        pair.begin("group")
    with pytest.raises(InputError, match="swap_layers"):
        tamper.checked("eat_page")


def test_tampering_leaves_other_pages_alone():
    pool = torch.randn(3, 2, 5, 4, 2, 16)
    for kind in tamper.KINDS:
        damaged = pool.clone()
        tamper.tamper(kind, damaged, [1, 3], torch.zeros(3, 2, 2, 4, 2, 16))
        assert torch.equal(damaged[:, :, [0, 2, 4]], pool[:, :, [0, 2, 4]])
        assert not torch.equal(damaged, pool)


def test_a_block_of_several_pages_crosses_whole(decoder):
    """Scheduler blocks of 256 tokens are runs of four pages; only the pages that hold tokens are sent."""
    from helpers.cluster.duet import duet

    plain = [Request(i, 0.0, n, 6) for i, n in enumerate((40, 256, 300, 600))]
    limits = Limits(16, 256, 128, 8)
    with Engine(decoder, limits) as engine:
        alone = {r.id: [t.token for t in _one(engine, r)] for r in plain}
    with duet(decoder, limits, stage_bytes=2**22) as pair:
        for name in ("layerwise", "batched"):
            pair.begin(name, verify=True)
            heard = pair.run(plain)
            assert {i: h.tokens for i, h in heard.items()} == alone
            assert [h.checked for h in heard.values()] == [4 * pages for pages in (1, 4, 5, 10)]
            assert sum(h.wrong for h in heard.values()) == 0
