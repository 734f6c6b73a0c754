"""Seats, page tables and padded buckets: what a captured graph would read, tested where there is none."""

import numpy as np
import pytest
import torch

from helpers.cost.roofline import GRAPH_BATCHES
from helpers.engine.config import ModelConfig
from helpers.engine.generation import Generation
from helpers.engine.loop_checks import BLOCK, ROOMY, requests, serve
from helpers.engine.pages import KVPages, blocks_in, physical_page_tokens
from helpers.engine.runner import DecodeGraph, DecodeRows, no_rows
from helpers.engine.sampling import NUCLEUS, Sampling
from helpers.engine.seats import Seats
from helpers.errors import InputError
from helpers.workload.request import Request


def generation(blocks, number=0, sampling=None):
    g = Generation(Request(number, 0.0, 8, 4), number, 0.0, [1] * 8, sampling or Sampling())
    g.blocks = list(blocks)
    return g


def test_a_seat_has_the_pages_of_its_blocks_on_both_sides():
    seats = Seats(3, blocks=4, pages_per_block=2, device=torch.device("cpu"))
    g = generation([5, 0])
    seats.sit(g)
    seats.send()
    # block b is pages 2 b and 2 b + 1
    assert seats.table[g.seat].tolist() == [10, 11, 0, 1, 0, 0, 0, 0]
    assert seats.device_table[g.seat].tolist() == seats.table[g.seat].tolist()
    seats.grow(np.array([g.seat]), np.array([2]), [7])
    assert seats.table[g.seat].tolist() == [10, 11, 0, 1, 14, 15, 0, 0]
    assert seats.device_table[g.seat].tolist() != seats.table[g.seat].tolist()  # control: not sent yet
    seats.send()
    assert seats.device_table[g.seat].tolist() == seats.table[g.seat].tolist()
    seats.leave(g)
    seats.leave(g)  # once is enough
    assert (g.seat, seats.free) == (-1, 3)


def test_a_seat_forgets_how_the_one_before_sampled():
    seats = Seats(1, blocks=1, pages_per_block=1, device=torch.device("cpu"))
    drawn = generation([0], sampling=Sampling(0.5, top_p=0.9, top_k=3, seed=8))
    seats.sit(drawn)
    seeds, temperature, top_p, top_k = seats.sampling_of(torch.tensor([0]))
    assert (seeds.item(), temperature.item(), top_k.item()) == (8, 0.5, 3)
    assert top_p.item() == pytest.approx(0.9)
    assert seats.kind_of(np.array([0])) == NUCLEUS
    seats.leave(drawn)
    seats.sit(generation([0]))
    assert seats.sampling_of(torch.tensor([0]))[1].item() == 0.0
    assert seats.kind_of(np.array([0])) == 0


def test_a_bucket_is_filled_and_padded():
    graph = DecodeGraph(4, nobody=9, device=torch.device("cpu"))
    rows = DecodeRows([None, None], np.array([3, 1]), np.array([17, 40]), np.array([100, 200]))
    graph.fill(rows)
    lengths = graph.inputs[3].view(torch.int32)[:4]
    assert graph.inputs[:3].tolist() == [[3, 1, 9, 9], [17, 40, 0, 0], [100, 200, -1, -1]]
    assert lengths.tolist() == [18, 41, 0, 0]
    graph.fill(no_rows())  # what a row held before does not stay
    assert graph.inputs[0].tolist() == [9] * 4
    assert lengths.tolist() == [0] * 4


@pytest.mark.parametrize("fault", ["none", "stores", "sits on a seat"])
def test_padded_rows_leave_nothing_behind(make_engine, fault):
    """A padded row that stored its KV, or sat on a real seat, would change somebody's tokens."""
    asked = requests(5)  # three decodes run in a bucket of four
    expected = serve(make_engine(graphs=False), asked)
    engine = make_engine(graphs=True)
    capture = engine.runner._capture

    def faulty(bucket, kind):
        graph = capture(bucket, kind)
        fill = graph.fill

        def leak(rows):
            fill(rows)
            padded = graph.inputs[2] < 0
            if fault == "stores":  # into the last slot that a real row has filled before
                graph.inputs[2][padded] = max(int(graph.inputs[2].max()) - 1, 0)
            elif fault == "sits on a seat":
                graph.inputs[0][padded] = graph.inputs[0, 0]

        graph.fill = leak
        return graph

    engine.runner._capture = faulty
    assert (serve(engine, asked) == expected) == (fault == "none")


def test_every_batch_runs_in_the_next_larger_bucket(make_engine):
    engine = make_engine(graphs=True)
    serve(engine, [Request(i, 0.0, 10, 4 + i) for i in range(5)])
    assert sorted(bucket for bucket, _ in engine.runner._captured) == [1, 2, 4, 8]
    engine.runner.warm_up()
    assert sorted(bucket for bucket, _ in engine.runner._captured) == [b for b in GRAPH_BATCHES if b <= ROOMY.max_batch]
    plain = make_engine(graphs=False)
    serve(plain, [Request(0, 0.0, 10, 4)])
    plain.runner.warm_up()
    assert plain.runner._captured == {}


def test_steady_rows_are_those_that_are_gathered_anew(make_engine):
    """The shortcut for unchanged decodes against the long way, over block and page borders."""
    engine = make_engine(graphs=True)
    runner, seen = engine.runner, 0
    advance = runner._advance

    def both(decode):
        nonlocal seen
        steady = decode == runner._rows.decode and bool(decode)
        rows = advance(decode)
        assert rows.positions.tolist() == [g.computed for g in decode]
        assert rows.slots.tolist() == [g.blocks[g.computed // BLOCK] * BLOCK + g.computed % BLOCK for g in decode]
        assert rows.seats.tolist() == [g.seat for g in decode]
        seen += steady
        return rows

    runner._advance = both
    serve(engine, requests(6))
    assert seen > 5


def test_pages_hold_what_they_should():
    config = ModelConfig("m", layers=3, hidden=32, heads=2, kv_heads=1, head_dim=16, intermediate=32, vocab=8)
    pages = KVPages(config, pages=5, page_tokens=4)
    assert pages.tensor.shape == (3, 2, 5, 4, 1, 16)
    assert not pages.tensor.any()
    keys, values = pages.layer(1)
    keys[4 * 2 + 3] = 7.0  # slot 3 of page 2
    assert (pages.tensor[1, 0, 2, 3] == 7.0).all()
    assert values.sum() == 0
    pages.clear()
    assert not pages.tensor.any()
    assert KVPages(config, 5, 4, layers=1).nbytes == pages.nbytes // 3
    # one token: 3 layers, keys and values, one head of 16 floats of 4 bytes: 384 bytes; a block of 4: 1,536
    assert blocks_in(16_000, config, torch.float32, 4) == 10
    assert blocks_in(16_000, config, torch.bfloat16, 4) == 20
    with pytest.raises(InputError, match="hold no block"):
        blocks_in(1000, config, torch.float32, 4)


def test_large_blocks_are_cut_into_pages():
    assert [physical_page_tokens(n) for n in (16, 64, 512)] == [16, 64, 64]
    assert physical_page_tokens(512, 16) == 16
    with pytest.raises(InputError, match="whole pages"):
        physical_page_tokens(100)
