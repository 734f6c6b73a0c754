"""Models of every kind against the float64 reference, planted faults, stages, and weights where every page counts."""

from dataclasses import replace

import pytest
import torch

from helpers.engine import checks
from helpers.engine.checks import CONFIGS, LENGTHS, Playground
from helpers.engine.config import PRESETS, ModelConfig
from helpers.engine.model import Decoder
from helpers.engine.pages import KVPages
from helpers.engine.reference import reference_logits
from helpers.engine.weights import random_weights
from helpers.errors import InputError


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("page", [16, 64])
def test_every_kind_of_step_in_float32(config, page):
    found = checks.model_checks(config, page=page)
    assert [check for check in found if not check.ok] == []
    assert len(found) == 6 + (config.moe is not None)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_every_kind_of_step_in_bfloat16(config):
    found = checks.model_checks(config, dtype=torch.bfloat16)
    assert [check for check in found if not check.ok] == []
    assert min(check.error for check in found if "share" not in check.name) > 1e-4, "float32 by mistake"


def test_fp8_pages_cost_accuracy_within_their_bound():
    found = checks.fp8_pages_check()
    assert found.ok
    assert found.error > 1e-3, "the pages were not fp8"


def test_planted_faults_move_the_logits():
    found = checks.controls()
    assert [check for check in found if not check.ok] == []
    assert checks.fault_error(CONFIGS[0], None, "cpu", torch.float32) == 0.0  # without a fault nothing moves


def test_the_reference_sees_each_part_of_the_model():
    """A reference that left out a part would agree with an engine that does: each part must matter to it."""
    config = next(c for c in CONFIGS if c.name == "deepseek-like")
    config = replace(config, qk_norm=True)
    weights = random_weights(config)
    tokens = torch.arange(40) % config.vocab
    whole = reference_logits(config, weights, tokens)[-1]
    for name in ("attention_norm", "wqkv", "wo", "mlp_norm", "q_norm", "k_norm", "w13", "w2"):
        changed = replace(weights, layers=weights.layers | {0: replace(weights.layers[0])})
        setattr(changed.layers[0], name, 1.5 * getattr(changed.layers[0], name))
        assert (reference_logits(config, changed, tokens)[-1] - whole).norm() > 1e-3 * whole.norm(), name
    for name in ("router", "bias", "w13", "w2", "shared_w13", "shared_w2"):
        layer = replace(weights.layers[1], moe=replace(weights.layers[1].moe))
        setattr(layer.moe, name, getattr(layer.moe, name).flip(0))
        changed = replace(weights, layers=weights.layers | {1: layer})
        assert (reference_logits(config, changed, tokens)[-1] - whole).norm() > 1e-3 * whole.norm(), name


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "small"])
def test_zeroing_any_page_moves_the_logits(name):
    """So that a test with these weights sees any page that is lost, at a context of 30 pages."""
    config = PRESETS[name]
    ground = Playground(Decoder(config, random_weights(config)), [480])
    ground.forward(ground.batch(chunks=[(0, 479)]))
    batch = ground.batch(decode=[0])
    whole = ground.forward(batch)
    stored = ground.pages.tensor.clone()
    for page in ground.table[0].tolist():
        ground.pages.tensor[:, :, page] = 0
        moved = (ground.forward(batch) - whole).abs().max()
        assert moved >= 1e-3, page
        ground.pages.tensor.copy_(stored)
    assert torch.equal(ground.forward(batch), whole)


@pytest.mark.parametrize("config", [CONFIGS[1], CONFIGS[3]], ids=lambda c: c.name)
def test_a_pipeline_of_stages_is_the_whole_model(config):
    whole = Playground(Decoder(config, random_weights(config)), LENGTHS)
    batch = whole.batch(chunks=[(0, 50), (1, 20)])
    expected = whole.forward(batch)
    hidden = batch.tokens
    for stage in (range(1), range(1, 2)):
        weights = random_weights(config, layers=stage)
        assert (weights.head is None) == (stage.stop < config.layers)
        pages = KVPages(config, whole.pages.pages, 16, layers=1)
        hidden_before = hidden.clone()
        out = Decoder(config, weights, stage).forward(hidden, batch, pages)
        assert torch.equal(hidden, hidden_before)  # a stage leaves its input alone
        assert torch.equal(pages.tensor[0], whole.pages.tensor[stage.start])
        hidden = out
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


def test_a_padded_decode_row_changes_nothing():
    config = CONFIGS[0]
    ground = Playground(Decoder(config, random_weights(config)), [40])
    ground.forward(ground.batch(chunks=[(0, 39)]))
    batch = ground.batch(decode=[0])
    alone = ground.forward(batch)
    stored = ground.pages.tensor.clone()

    def padded(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return torch.cat([tensor, torch.full_like(tensor[:1], value)])

    wide = replace(
        batch,
        tokens=padded(batch.tokens, 0),
        positions=padded(batch.positions, 0),
        page_table=padded(batch.page_table, 0),
        lengths=padded(batch.lengths, 0),
        last=torch.tensor([0, 1]),
        decode_slots=padded(batch.decode_slots, -1),
        decode_lengths=padded(batch.decode_lengths, 0),
    )
    logits = ground.forward(wide)
    torch.testing.assert_close(logits[:1], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ground.pages.tensor, stored, rtol=1e-5, atol=1e-5)
    assert logits.isfinite().all()


def test_weights_are_seeded_tensor_by_tensor():
    config = PRESETS["tiny-moe"]
    first, again, other = random_weights(config), random_weights(config), random_weights(config, seed=1)
    assert torch.equal(first.layers[3].moe.w13, again.layers[3].moe.w13)
    assert not torch.equal(first.layers[3].moe.w13, other.layers[3].moe.w13)
    assert not torch.equal(first.layers[3].moe.w13, first.layers[2].moe.w13)
    last = random_weights(config, layers=range(3, 4))
    assert torch.equal(first.layers[3].moe.w13, last.layers[3].moe.w13)
    assert last.embedding is None and first.head is not None


@pytest.mark.parametrize("config", [*CONFIGS, PRESETS["tiny"], PRESETS["tiny-moe"]], ids=lambda c: c.name)
def test_the_cost_formulas_count_the_tensors(config):
    """`ModelConfig.shape` knows how many parameters the weights hold; a sigmoid gate's bias is not in the formula."""
    count = random_weights(config).bytes // 4
    moe = config.moe
    biases = (config.layers - config.dense_layers) * moe.experts if moe and moe.bias else 0
    assert count == config.shape.total_parameters + biases


def test_presets_have_the_sizes_they_claim():
    # Llama-3.1-8B: 8.03 B parameters (model card); Llama-3.2-1B: 1.24 B, its head tied.
    assert PRESETS["llama-8b"].shape.total_parameters == pytest.approx(8.03e9, rel=1e-3)
    assert PRESETS["1b"].shape.total_parameters == pytest.approx(1.236e9, rel=1e-3)
    assert PRESETS["qwen3-moe-small"].shape.weight_bytes() < 25e9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kv_heads": 3}, "4 heads cannot share 3 KV heads"),
        ({"head_dim": 48}, "head_dim is 48"),
        ({"layers": 0}, "layers is 0"),
        ({"intermediate": 0}, "intermediate is 0"),
    ],
)
def test_an_impossible_shape_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        replace(PRESETS["tiny"], **change)


def test_a_config_is_hashable_and_small():
    assert isinstance(hash(PRESETS["llama-8b"]), int)
    assert isinstance(PRESETS["tiny"], ModelConfig)
