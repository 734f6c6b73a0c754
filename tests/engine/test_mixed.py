"""Steps with chunks as captured ones: which bucket, what is padded, and that the padding leaves nothing behind."""

import numpy as np
import pytest

from helpers.engine.engine import EngineError
from helpers.engine.kernels.prefill import tile_places
from helpers.engine.loop_checks import requests, serve
from helpers.engine.mixed import NAMES, TOKEN_BUCKETS, MixedRows, bucket_sizes, padding_share, token_bucket
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request


def test_tiles_by_hand():
    # 5 tokens after 7 of context in tiles of 2: blocks of 2, 2 and 1 that see 9, 11 and 13 keys (the last one's
    # second query is none); 3 tokens after none: 2 and 4. Rows begin at 10; most keys first.
    places = tile_places(np.array([5, 3]), np.array([7, 0]), 10, 2)
    assert places.tolist() == [[10, 2], [10, 1], [10, 0], [11, 1], [11, 0]]
    assert tile_places(np.array([], int), np.array([], int), 3, 16).shape == (0, 2)


def test_the_bucket_is_the_next_larger_one():
    assert [token_bucket(n) for n in (1, 64, 65, 1024, 1025, 2048, 2049)] == [64, 64, 128, 1024, 1152, 2048, None]
    assert all(b % 64 == 0 for b in TOKEN_BUCKETS)


def test_the_share_of_padded_tokens():
    # 100 tokens run as 128, 1,000 as 1,024, 5,000 as they are: 28 + 24 of 6,100
    assert padding_share([100, 1000, 5000]) == pytest.approx(52 / 6100)
    # Steps of 512 to 2,048 tokens, each as often: on average 31.5 are padded up to 1,024, and 63.5 beyond.
    assert padding_share(range(512, 2049)) < 0.06
    assert padding_share([]) == 0.0


def test_a_bucket_has_room_for_any_chunks():
    """The most tiles: as many chunks as rows, each one token longer than whole tiles."""
    sizes = bucket_sizes(256, rows=8, queries=16)
    counts = np.array([17] * 8)
    assert len(tile_places(counts, counts * 0, 0, 16)) <= sizes.tiles
    assert bucket_sizes(64, rows=128, queries=16).decodes == 64  # no more decodes than tokens


def test_a_bucket_is_filled_and_padded():
    rows = MixedRows(*(np.arange(1, n + 1) for n in (2, 2, 2, 3, 1, 1, 3, 3, 3, 4)))
    rows.tiles = rows.tiles.reshape(2, 2)
    sizes = bucket_sizes(4, rows=3, queries=4)  # 4 tiles
    numbers = np.full(sum(sizes.lengths), 77)
    rows.fill(numbers, sizes, nobody=9)
    parts = dict(zip(NAMES, np.split(numbers, np.cumsum(sizes.lengths)[:-1]), strict=True))
    assert parts["seats"].tolist() == [1, 2, 9]
    assert parts["lengths"].tolist() == [1, 2, 0]
    assert parts["query_starts"].tolist() == [1, 2, 3, 0]
    assert parts["decode_slots"].tolist() == [1, -1, -1]
    assert parts["decode_lengths"].tolist() == [1, 0, 0]
    assert parts["slots"].tolist() == [1, 2, 3, -1]
    assert parts["tiles"].tolist() == [1, 2, 3, 4, -1, -1, -1, -1]


def test_one_graph_serves_any_chunks_and_decodes(make_engine):
    """Steps of many shapes, few buckets, and the tokens of the engine without any graph."""
    limits = Limits(512, 16, 192, 32)
    expected = serve(make_engine(limits, graphs=False), requests())
    engine = make_engine(limits, graphs=True)
    shapes = []
    capture = engine.runner._capture_mixed

    def counting(bucket):
        graph = capture(bucket)
        fill = graph.fill
        graph.fill = lambda rows: (shapes.append((bucket, rows.sizes)), fill(rows))
        return graph

    engine.runner._capture_mixed = counting
    assert serve(engine, requests()) == expected
    assert set(engine.runner._mixed) == {bucket for bucket, _ in shapes} <= {64, 128, 192}
    assert len({sizes for _, sizes in shapes}) > len(engine.runner._mixed)
    assert any(sizes.decodes for _, sizes in shapes)  # decodes beside chunks
    assert len(shapes) == sum(bool(s.chunks) for s in engine.samples)


def test_a_step_beyond_the_largest_bucket_runs_without_a_graph(make_engine, monkeypatch):
    monkeypatch.setattr("helpers.engine.mixed.TOKEN_BUCKETS", (64,))
    asked = [Request(0, 0.0, 200, 3), Request(1, 0.0, 30, 3)]
    expected = serve(make_engine(graphs=False), asked, alone=True)
    engine = make_engine(graphs=True)
    assert serve(engine, asked, alone=True) == expected
    assert list(engine.runner._mixed) == [64]


@pytest.mark.parametrize("fault", ["none", "stores", "no tiles", "a decode more"])
def test_padding_leaves_nothing_behind_and_a_fault_shows(make_engine, fault):
    asked = requests(6)
    expected = serve(make_engine(graphs=False), asked)
    engine = make_engine(graphs=True)
    capture = engine.runner._capture_mixed

    def faulty(bucket):
        graph = capture(bucket)
        fill, sizes = graph.fill, graph.sizes

        def leak(rows):
            fill(rows)
            parts = dict(zip(NAMES, graph.inputs.tensor.split(sizes.lengths), strict=True))
            if fault == "stores":  # padded tokens into the slot of the last real one
                real = len(rows.known)
                parts["slots"][real:] = parts["slots"][real - 1]
            elif fault == "no tiles":
                parts["tiles"].fill_(-1)
            elif fault == "a decode more":  # a row of a chunk
                at = len(rows.decode_lengths)
                parts["decode_lengths"][at], parts["decode_slots"][at] = 1, parts["slots"][at]

        graph.fill = leak
        return graph

    engine.runner._capture_mixed = faulty
    try:
        found = serve(engine, asked)
    except EngineError:  # what a padded token computes need not be numbers
        found = None
    assert (found == expected) == (fault == "none")
