"""Two tokens where answers part: all but equally likely, or not; on a CPU, where nothing parts by itself."""

import numpy as np
import pytest

from helpers.bench.inference.rungs import CONTINUOUS, EngineExperiment, Load, close_engines, engine_for, served
from helpers.bench.inference.ties import Parting, agreed, partings, ties
from helpers.bench.record.inference import tie_points
from helpers.bench.targets.target import UNDRAWN
from helpers.serving.fleet import Fleet

BASE = EngineExperiment(UNDRAWN, Fleet(workers=1, chunk_tokens=128, max_batch=4, kv_gib=0.125), rung=CONTINUOUS)
FEW = Load(2000.0, 3, 64, "lognormal:150:0.1", "6").draw(0)


@pytest.fixture(scope="module")
def engine():
    yield engine_for(BASE.model, BASE.device, BASE.fleet)
    close_engines()


@pytest.fixture(scope="module")
def tokens(engine):
    return served(BASE, FEW).tokens


def test_answers_part_at_their_first_other_token():
    a, b = {0: [1, 2, 3], 1: [4, 5], 2: [7, 8]}, {0: [1, 9, 3], 1: [4, 5], 2: [7]}
    (only,) = partings(FEW, a, b)  # the third one only ends sooner: there are no two tokens to hold together
    assert (only.request.id, only.before, only.mine, only.theirs) == (0, (1,), 2, 9)


def test_the_text_is_computed_again_as_it_was(engine, tokens):
    """The token that came out there is the best one; another order of the sum changes next to nothing in float32."""
    found = ties(engine, agreed(FEW, tokens))
    assert len(found) == 3 and all(one.best_two and one.apart == 0.0 and one.lead > 0 for one in found)
    for request in FEW:
        place = Parting(request, tuple(tokens[request.id][:3]), tokens[request.id][3], 1)
        (one,) = ties(engine, [place])
        assert 0 <= one.rounding < 1e-3 * max(1.0, one.apart)


def test_control_a_token_that_is_no_tie_and_a_text_that_is_another(engine, tokens):
    request = FEW.requests[0]
    right = tuple(tokens[request.id][:3])
    (best,) = ties(engine, [Parting(request, right, tokens[request.id][3], tokens[request.id][3])])
    others = np.random.default_rng(0).integers(0, engine.config.vocab, 8)
    found = ties(engine, [Parting(request, right, tokens[request.id][3], int(token)) for token in others])
    assert sum(one.best_two for one in found) <= 2 and min(one.apart for one in found if not one.best_two) > best.lead
    wrong = tuple(tokens[FEW.requests[1].id][:2])  # after another text its token is no longer the best
    assert ties(engine, [Parting(request, wrong, tokens[request.id][3], 1)])[0] != best
    assert not engine.decoder.keep_logits and engine.decoder.logits is None


def test_ties_are_summed_up_and_none_are_no_points(engine, tokens):
    points = {one["name"]: one for one in tie_points("x", ties(engine, agreed(FEW, tokens)))}
    assert points["x: among the two best"]["value"] == 1.0 and points["x: apart"]["n"] == 3
    assert points["x: lead"]["value"] == pytest.approx(sorted(points["x: lead"]["samples"])[1])  # the middle of three
    assert list(tie_points("x", [])) == []
