"""Steps with a chunk beside decodes, measured and modelled: of one context, worked by hand, and refused where not."""

from dataclasses import replace

import pytest

from helpers.bench.record.calibrating import columns, samples_of
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.lessons import splits
from helpers.lessons.one_gpu import recorded_part
from helpers.widgets import disaggregation

# Two decodes, alone at 100 and 300 tokens of context and with chunks at 150; what is beside three is of no concern.
STEPS = [
    StepSample((), 2, 200, 1.0),
    StepSample((), 2, 600, 3.0),
    StepSample((), 2, 600, 5.0),
    StepSample((), 2, 600, 4.0),
    StepSample(((10, 0),), 2, 300, 6.0),
    StepSample(((10, 0),), 2, 300, 8.0),
    StepSample(((20, 0),), 2, 300, 9.0),
    StepSample(((20, 0),), 2, 300, 9.0),
    StepSample(((20, 512),), 2, 300, 50.0),
    StepSample(((10, 0), (10, 0)), 2, 300, 60.0),
    StepSample(((30, 0),), 3, 900, 70.0),
    StepSample((), 3, 900, 80.0),
]


def record(steps):
    return {"samples": columns(steps)}


def test_steps_of_one_context_by_hand():
    """Alone the medians are 1 s at 200 tokens and 4 s at 600: 1 + (300 - 200) / (600 - 200) * 3 = 1.75 s at 300."""
    found = splits.measured_beside(record(STEPS), 2)
    assert found.seconds == {0: 1.75, 10: 7.0, 20: 9.0}
    assert (found.decodes, found.kv_tokens, found.context, found.alone_at, found.rounds) == (2, 300, 150, (100, 300), 1)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([*STEPS, StepSample(((20, 0),), 2, 2048, 9.0)], "2 decodes have 2 contexts"),
        ([one for one in STEPS if not one.chunks], "2 decodes have 0 contexts"),
        ([one for one in STEPS if one.kv_tokens != 200], "2 decodes alone were not measured about 300 tokens"),
        ([one for one in STEPS if one.kv_tokens != 600], "2 decodes alone were not measured about 300 tokens"),
    ],
)
def test_steps_of_several_contexts_or_of_none_are_refused(steps, says):
    with pytest.raises(InputError, match=says):
        splits.measured_beside(record(steps), 2)


def test_a_model_is_asked_for_the_very_steps():
    """1 + 300 * 0.01 = 4 s alone, 0.5 s more for each of 10 tokens; at another context it would be another time."""
    cost = AffineCost(1.0, 0.5, 0.0, 0.0, 0.01)
    measured = splits.measured_beside(record(STEPS), 2)
    found = splits.modelled(cost, measured)
    assert found.seconds == {0: pytest.approx(4.0), 10: pytest.approx(9.0), 20: pytest.approx(14.0)}
    assert (found.decodes, found.kv_tokens) == (measured.decodes, measured.kv_tokens)
    assert splits.modelled(cost, replace(measured, kv_tokens=600)).seconds[0] == pytest.approx(7.0)


def test_what_is_drawn_of_the_record_is_of_one_context():
    calibrate = recorded_part("calibrate")
    measured = splits.measured_beside(calibrate, 32)
    with_chunk = [s for s in samples_of(calibrate["samples"]) if s.decodes == 32 and s.chunks]
    assert {s.kv_tokens for s in with_chunk} == {measured.kv_tokens} == {32 * measured.context}
    model = splits.modelled(AffineCost(7e-3, 15e-6, 2e-9, 6e-6, 4e-8), measured)
    figure = disaggregation.chunk_beside_decodes(measured, {"fitted": model}, "an H100")
    assert f"all decodes at {measured.context} tokens of context" in figure.note
    with pytest.raises(InputError, match=r"^fitted is of 32 decodes at a context of 1024; measured were others"):
        other = splits.modelled(AffineCost(7e-3, 15e-6, 2e-9, 6e-6, 4e-8), replace(measured, kv_tokens=32 * 1024))
        disaggregation.chunk_beside_decodes(measured, {"fitted": other}, "an H100")
