"""The models that ship: how they are trained, written and read, and what they are worth on text held out."""

import json
import math
from dataclasses import replace

import pytest
import torch
import transformers

from helpers.engine import train_bytes
from helpers.engine.checkpoint import load_checkpoint
from helpers.engine.checks import Playground
from helpers.engine.corpus import baselines, bigram_bits, corpus, split
from helpers.engine.error_bounds import relative_error
from helpers.engine.model import Decoder
from helpers.engine.train_bytes import CONFIGS, bits_per_byte, logits_of, parameters, train
from helpers.paths import DATA

SMALL = {
    "dense": replace(CONFIGS["dense"], layers=2, hidden=64, heads=2, kv_heads=1, intermediate=96),
    "moe": replace(
        CONFIGS["moe"], layers=2, hidden=64, heads=2, kv_heads=1, moe=replace(CONFIGS["moe"].moe, intermediate=48)
    ),
}


@pytest.mark.parametrize("kind", SMALL)
def test_what_is_trained_is_what_the_engine_and_transformers_run(kind, tmp_path):
    config = SMALL[kind]
    weights, named = parameters(config, seed=3)
    with torch.no_grad():
        for name, tensor in named.items():
            if "norm" not in name:
                tensor *= 4.0  # large enough for every part to matter
    tokens = torch.randint(256, (40,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained = logits_of(config, weights, tokens[None])[0][0]
    train_bytes.save_checkpoint(tmp_path, config, named)
    read, loaded = load_checkpoint(tmp_path, dtype=torch.float32)
    assert replace(read, name=config.name) == config
    ground = Playground(Decoder(read, loaded), [40])
    ground.tokens = [tokens]
    assert relative_error(ground.forward(ground.batch(chunks=[(0, 40)]))[0], trained[39]) < 1e-5
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        assert relative_error(model(tokens[None]).logits[0], trained) < 1e-5


@pytest.mark.parametrize("kind", SMALL)
def test_training_learns(kind, monkeypatch):
    monkeypatch.setattr(train_bytes, "SEQUENCE", 64)
    config = SMALL[kind]
    text = b"the pages of the cache are the pages of the cache; " * 60
    before = bits_per_byte(config, parameters(config, 0)[0], text[:600])
    named = train(config, {"prose": text, "code": text}, steps=30, report=lambda line: None)
    weights = train_bytes.build(config, lambda name, *_: named[name])
    assert before > 7.5  # random weights: about log2(320) = 8.3
    assert bits_per_byte(config, weights, text[:600]) < before - 2.5


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary():
    config = SMALL["dense"]
    weights, named = parameters(config, 0)
    with torch.no_grad():
        named["norm"].zero_()  # all logits are zero
    assert bits_per_byte(config, weights, b"abcdef") == pytest.approx(math.log2(config.vocab), abs=1e-5)


def test_text_is_held_out_piece_by_piece():
    text = bytes(i // 1024 for i in range(1024 * 20))  # piece i holds the byte i
    learn, held = split(text)
    assert set(held) == {9, 19} and len(held) == 2048
    assert set(learn) == set(range(20)) - {9, 19}


def test_bigram_bits_by_hand():
    # Learnt from "aab": pairs aa 1 and ab 1, two firsts a; own shares (2 + 1) / 259 of a and (1 + 1) / 259 of b.
    # "ab" held out: (1 + 2/259) / (2 + 1) of b after a.
    assert bigram_bits(b"aab", b"ab") == pytest.approx(-math.log2((1 + 2 / 259) / 3))


def test_baselines_have_seen_the_text_too():
    learn = bytes(torch.randint(256, (3000,), generator=torch.Generator().manual_seed(0)).tolist())
    repeated, fresh = baselines(learn, learn[:1000]), baselines(learn, bytes(reversed(learn[:1000])))
    assert repeated["zlib"] < 1.0 and repeated["lzma"] < 1.0  # found again in what they know
    assert min(fresh["zlib"], fresh["lzma"]) > 7.0


def test_the_corpus_is_the_book_and_the_code():
    texts = corpus()
    assert b"TTFT" in b"".join(texts["prose"]) and b"def schedule" in b"".join(texts["code"])
    assert b'"cell_type"' not in texts["prose"][0]  # the markdown of notebooks, not their JSON
    assert all(len(held) > 2000 for _, held in texts.values())


@pytest.mark.parametrize("name", ["book-dense", "book-moe"])
def test_a_shipped_model(name):
    """Read as any checkpoint, small, and better than its baselines on text that it has not seen."""
    folder = DATA / "models" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4_000_000
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    held = (DATA / "models" / "held_out.txt").read_bytes()
    config, weights = load_checkpoint(folder, dtype=torch.float32)
    found = bits_per_byte(config, weights, held)
    assert found == pytest.approx(record["bits_per_byte_of_held_out_txt"], abs=2e-3)
    for domain in record["bits_per_held_out_byte"].values():
        assert domain["model"] < domain["bigram"] - 1.0
    shuffled = bytes(held[i] for i in torch.randperm(len(held), generator=torch.Generator().manual_seed(0)).tolist())
    assert bits_per_byte(config, weights, shuffled) > found + 2.0  # control: the same bytes without their order
