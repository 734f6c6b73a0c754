"""`generate` and `calibrate`: what they print, and what they refuse."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from helpers import cli
from helpers.cost.calibration import COEFFICIENTS, LAUNCH, read_cost
from helpers.cost.samples import KINDS
from helpers.engine.calibrate import Shape, calibrate, fits, measure, shapes
from helpers.engine.commands import _show
from helpers.engine.load import use_threads
from helpers.scheduling.limits import Limits


def command(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def last_line(out):
    return json.loads(out.strip().splitlines()[-1])


def test_generate_streams_and_ends_with_its_speed(capsys):
    code, out, err = command(capsys, "generate", "The pages of", "--device", "cpu", "--max-tokens", "12")
    line = last_line(out)
    assert code == 0
    assert "random weights" in err
    assert (line["prompt_tokens"], line["output_tokens"]) == (12, 12)
    assert line["tokens_per_s"] == pytest.approx(12 / (line["ttft_s"] + 11 * line["tpot_s"]))
    _, again, _ = command(capsys, "generate", "The pages of", "--device", "cpu", "--max-tokens", "12")
    text = lambda shown: shown[: shown.rindex("{")]  # noqa: E731
    assert text(again) == text(out)
    _, other, _ = command(
        capsys, "generate", "The pages of", "--device", "cpu", "--max-tokens", "12", "--temperature", "1", "--seed", "2"
    )
    assert text(other) != text(out)  # control


def test_a_small_model_gets_one_thread(decoder):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        use_threads(SimpleNamespace(device=torch.device("cpu"), config=SimpleNamespace(hidden=2048)))
        assert torch.get_num_threads() == 2
        use_threads(decoder)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_half_a_character_waits(capsys):
    shown = ""
    for text in ("a", "a�", "a\N{EURO SIGN}", "a\N{EURO SIGN}b"):  # the euro sign comes in three bytes
        shown += _show(text, shown)
    assert capsys.readouterr().out == shown == "a\N{EURO SIGN}b"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["generate", ""], "the prompt is empty"),
        (["generate", "a", "--max-tokens", "0"], "--max-tokens is 0"),
        (["generate", "a", "--preset", "huge"], "neither a folder nor one of the presets"),
        (["generate", "a", "--device", "abacus"], "device 'abacus' is none"),
        (["generate", "a", "--dtype", "fp3"], "dtype 'fp3' is none of bf16, fp32"),
        (["generate", "a", "--max-tokens", "9000"], "beyond the context of 8192"),
        (["generate", "a", "--temperature", "-1"], "temperature is -1"),
        (["calibrate", "--rounds", "0"], "--rounds is 0"),
        (["calibrate", "--clock", "sun"], "--clock is 'sun'"),
    ],
)
def test_bad_input_is_one_sentence(capsys, words, sentence):
    code, out, err = command(capsys, *words)
    assert code == 2
    assert out == ""
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_without_torch_the_command_says_what_is_missing(capsys, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("helpers.engine.") and not m.endswith("commands")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = command(capsys, "generate", "a")
    assert code == 2
    assert "the engine needs torch" in err


def test_a_shape_is_measured_as_it_was_asked_for(make_engine):
    engine = make_engine(Limits(256, 16, 256, 32))
    sample = measure(engine, Shape(((48, 32), (20, 0)), decodes=3, context=50))
    # each decode attends to its 50 tokens, the first of its output, which is computed now: 3 * 51
    assert sample[:3] == (((48, 32), (20, 0)), 3, 153)
    assert sample.seconds > 0
    assert engine.scheduler.pool.used == 0
    assert measure(engine, Shape((), decodes=2, context=7))[:3] == ((), 2, 16)


def test_shapes_keep_to_the_limits(make_engine):
    engine = make_engine(Limits(256, 16, 256, 8))
    every = shapes(engine)
    assert len(every) == len(set(every)) > 20
    assert max(s.decodes for s in every) == 8
    assert not fits(engine, Shape((), 16, 8))
    assert not fits(engine, Shape(((300, 0),)))
    assert not fits(engine, Shape((), 1, 1021))
    assert not fits(engine, Shape((), 8, 300))  # 8 * 19 blocks are more than half of 256
    assert {k for s in every for k in KINDS if (bool(s.chunks), bool(s.decodes)) == (k != "decode", k != "prefill")}


def test_every_shape_is_measured_in_every_round(make_engine, monkeypatch):
    engine = make_engine(Limits(64, 16, 64, 2), overlap=True)
    few = [Shape((), 1, 20), Shape(((16, 0),)), Shape(((8, 8),), 1, 20)]
    monkeypatch.setattr("helpers.engine.calibrate.shapes", lambda _: list(few))
    samples = list(calibrate(engine, rounds=3))
    assert [s.kind for s in samples].count("decode") == 3
    assert [s.kind for s in samples].count("prefill") == 3
    assert [s.kind for s in samples].count("mixed") == 3
    assert not engine.overlap  # one step at a time


def test_calibrate_writes_what_a_fleet_takes(capsys, tmp_path, monkeypatch):
    torch.manual_seed(0)
    few = [Shape((), b, c) for b in (1, 4) for c in (20, 100)] + [Shape(((n, c),)) for n in (16, 64) for c in (0, 32)]
    monkeypatch.setattr("helpers.engine.calibrate.shapes", lambda _: [*few, Shape(((32, 0),), 4, 50)])
    path = tmp_path / "cost.json"
    words = ("calibrate", "--device", "cpu", "--rounds", "5", "--clock", "cpu", "--json", str(path))
    code, out, _ = command(capsys, *words)
    line = last_line(out)
    assert code == 0
    assert line["steps"] + line["held_out"] == 45
    assert line["hardware_key"].startswith("cpu_")
    assert line["clock"] == "cpu"
    assert set(line["intervals"]) == set(COEFFICIENTS)
    assert set(line["coefficients"]) == {*COEFFICIENTS, LAUNCH}
    assert read_cost(path).overhead_s == pytest.approx(line["coefficients"]["overhead_s"])
    assert "Relative error on held-out steps" in out
