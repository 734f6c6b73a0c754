"""`hybrid-serving generate` and `hybrid-serving calibrate`."""

import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated

import typer

from helpers.console import command_line, emit_json, emit_table, progress
from helpers.errors import InputError
from helpers.outputs import check_writable, write_json

Option = typer.Option
CLOCKS = {"wall": perf_counter, "cpu": process_time}


def register(app: typer.Typer) -> None:
    """Add the commands of the engine."""
    app.command("generate")(generate)
    app.command("calibrate")(calibrate)


def generate(
    text: Annotated[str, typer.Argument(help="the prompt")],
    preset: Annotated[
        str, Option(help="random weights of a shape, or a model that ships: book-dense, book-moe")
    ] = "tiny",
    checkpoint: Annotated[Path | None, Option(help="the folder of a checkpoint, in place of a preset")] = None,
    max_tokens: Annotated[int, Option(help="the most tokens to generate")] = 64,
    temperature: Annotated[float, Option(help="0 is greedy")] = 0.0,
    top_p: Annotated[float, Option(help="keep the likeliest tokens that reach this share together")] = 1.0,
    top_k: Annotated[int, Option(help="keep only so many of the likeliest tokens (0: all)")] = 0,
    seed: Annotated[int, Option(help="of the weights and of the sampling")] = 0,
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str | None, Option(help="bf16 or fp32 (default: bf16 on a GPU, fp32 on a CPU)")] = None,
) -> None:
    """Stream the tokens that follow a prompt, and say how fast they came."""
    if max_tokens < 1:
        raise InputError(f"generate: --max-tokens is {max_tokens}; give 1 or more")
    modules = _engine_modules()
    from helpers.engine.config import PRESETS
    from helpers.engine.sampling import Sampling
    from helpers.engine.tokenizer import tokenizer_for

    sampling = Sampling(temperature, top_p, top_k, seed)
    source = checkpoint or preset
    tokenizer = tokenizer_for(source)
    prompt = tokenizer.encode(text)
    if not prompt:
        raise InputError("generate: the prompt is empty; give some text")
    decoder = modules.load(source, device, dtype, seed)
    modules.use_threads(decoder)
    context = _context(decoder, len(prompt) + max_tokens)
    if source in PRESETS:
        print(f"hybrid-serving: {preset} has random weights: what follows is noise", file=sys.stderr)
    limits = modules.limits_for(decoder, max_batch=1)
    with modules.Engine(decoder, limits, max_context=context) as engine:
        engine.runner.warm_up()
        start = perf_counter()
        request = modules.request_of(0, prompt, max_tokens, limits.block_tokens)
        engine.restart_clock()
        g = engine.submit(request, prompt, sampling, tokenizer.stop)
        times_s, shown = [], ""
        while not g.ended:
            if engine.step():
                times_s.append(engine.last_s)
                shown += _show(tokenizer.decode(g.out), shown)
        print(tokenizer.decode(g.out)[len(shown) :], flush=True)
        wall_s = perf_counter() - start
    emit_json({"command": command_line(), "wall_s": wall_s, "seeds": [seed], **_speed(times_s, len(prompt), source)})


def _context(decoder, tokens: int) -> int:
    """A power of two of page table, no longer than the model can see; raises `InputError` beyond that."""
    if tokens > decoder.config.max_context:
        raise InputError(f"generate: {tokens} tokens are beyond the context of {decoder.config.max_context}")
    return min(max(1024, 1 << (tokens - 1).bit_length()), decoder.config.max_context)


def _show(text: str, shown: str) -> str:
    """Print what is new in `text`, but for a last character that may not be whole yet; returns what was printed."""
    new = text.rstrip("�")[len(shown) :]
    print(new, end="", flush=True)
    return new


def _speed(times_s: list[float], prompt_tokens: int, model: object) -> dict:
    """TTFT, TPOT and rate of one request that began at 0."""
    count = len(times_s)
    tpot_s = (times_s[-1] - times_s[0]) / (count - 1) if count > 1 else None
    return {
        "model": Path(str(model)).name,
        "prompt_tokens": prompt_tokens,
        "output_tokens": count,
        "ttft_s": times_s[0],
        "tpot_s": tpot_s,
        "tokens_per_s": count / times_s[-1],
    }


def calibrate(
    preset: Annotated[str, Option(help="the shape of the model to measure")] = "tiny",
    checkpoint: Annotated[Path | None, Option(help="the folder of a checkpoint, in place of a preset")] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    rounds: Annotated[int, Option(help="how often each shape of step is measured")] = 5,
    max_batch: Annotated[int, Option(help="the largest batch of decodes")] = 64,
    clock: Annotated[
        str, Option(help="wall, or cpu on a CPU that others use too: time of this process alone")
    ] = "wall",
    seed: Annotated[int, Option(help="of the order of the steps and of the intervals")] = 0,
    json_file: Annotated[Path | None, Option("--json", help="write coefficients and residuals here")] = None,
) -> None:
    """Measure steps of every shape here and fit the cost model that the simulator uses."""
    check_writable(json_file)
    if rounds < 1:
        raise InputError(f"calibrate: --rounds is {rounds}; give 1 or more")
    if clock not in CLOCKS:
        raise InputError(f"calibrate: --clock is {clock!r}; give wall or cpu")
    modules = _engine_modules()
    from helpers.cost.calibration import shape_record
    from helpers.cost.fit import fit
    from helpers.engine import calibrate as steps
    from helpers.hardware import hardware_key, probe, probe_cpu

    decoder = modules.load(checkpoint or preset, device)
    modules.use_threads(decoder)
    if clock == "cpu" and decoder.device.type != "cpu":
        raise InputError("calibrate: --clock cpu does not see the time of a GPU; give wall")
    limits = modules.limits_for(decoder, max_batch=max_batch)
    start = perf_counter()
    context = min(4096, decoder.config.max_context)
    with modules.Engine(decoder, limits, max_context=context, clock=CLOCKS[clock]) as engine:
        with progress("calibrate", 1) as tick:
            samples = list(steps.calibrate(engine, rounds, seed, lambda done, of: tick(done / of)))
        on_gpu = engine.device.type == "cuda"
        graphs = engine.runner.graphs
    found = fit(samples, seed=seed)
    record = {
        "kind": "fitted",
        "model": decoder.config.name,
        "shape": shape_record(decoder.config.shape),
        "hardware_key": hardware_key(probe() if on_gpu else probe_cpu()),
        "dtype": str(decoder.dtype).removeprefix("torch."),
        "graphs": graphs,
        "clock": clock,
        **found.record(),
    }
    write_json(json_file, record)
    values = {name: (value, *found.intervals.get(name, ())) for name, value in record["coefficients"].items()}
    rows = [(name, *([f"{v:.4g}" for v in some] + ["", ""])[:3]) for name, some in values.items()]
    emit_table(f"Cost of a step of {decoder.config.name}, seconds", ("coefficient", "value", "low", "high"), rows)
    rows = [(r.kind, r.n, f"{r.p50:.1%}", f"{r.p90:.1%}", f"{r.bias:+.1%}") for r in found.residuals]
    emit_table("Relative error on held-out steps", ("kind", "steps", "p50", "p90", "bias"), rows)
    emit_json({"command": command_line(), "wall_s": perf_counter() - start, "seeds": [seed], **record})


def _engine_modules():
    """What the commands need of the engine, or one sentence on what is not installed."""
    from types import SimpleNamespace

    try:
        from helpers.engine.engine import Engine, limits_for
        from helpers.engine.generation import request_of
        from helpers.engine.load import load, use_threads
    except ModuleNotFoundError as error:
        raise InputError(f"the engine needs {error.name}; pip install -e '.[engine]'") from None
    return SimpleNamespace(
        Engine=Engine, limits_for=limits_for, request_of=request_of, load=load, use_threads=use_threads
    )
