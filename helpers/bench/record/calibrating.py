"""The part `calibrate`: designed steps of the engine, the cost that fits them, and the steps themselves."""

from collections.abc import Iterator, Sequence
from time import perf_counter

from helpers.bench.engine.report import point
from helpers.cost.calibration import LAUNCH
from helpers.cost.samples import StepSample

MOST_S = 45.0  # after this no further step is measured
LEAST_STEPS = 200  # but so many there are, for 20 blocks of ten
ROUNDS = 5
TIMES = ("seconds", "launch_s", "gap_s")
LIMITS = {"cuda": (128, 2048, 20.0, 4096), "cpu": (16, 256, 0.125, 1024)}  # max batch, token budget, KV GiB, context


def calibrate(session, report) -> None:
    """Fill in the section `calibrate`; the coefficients are at the top of the record too, for `read_cost`."""
    report.run("calibrate", lambda: _points(session, report))


def _points(session, report) -> Iterator[dict]:
    from helpers.cost.fit import fit

    samples = designed_steps(session.preset, session.device, min(MOST_S, report.left_s - 10.0))
    found = fit(samples)
    report.head |= {**found.record(), "loop": "plain, one step at a time", "samples": columns(samples)}
    yield from fitted_points(found)


def designed_steps(preset: str, device: str, most_s: float) -> list[StepSample]:
    """Steps of every shape, round after round, until `most_s` seconds have passed."""
    from helpers.engine import calibrate as steps

    samples, start = [], perf_counter()
    with engine_for(preset, device) as engine:
        for sample in steps.calibrate(engine, ROUNDS):
            samples.append(sample)
            if len(samples) >= LEAST_STEPS and perf_counter() - start > most_s:
                break
    return samples


def engine_for(preset: str, device: str):
    """An engine with the limits that the parts `calibrate` and `serve` use, warmed up to its largest batch."""
    from helpers.engine.engine import Engine, limits_for
    from helpers.engine.load import load, use_threads

    decoder = load(preset, device)
    use_threads(decoder)
    max_batch, token_budget, kv_gib, context = LIMITS[decoder.device.type]
    limits = limits_for(decoder, 64, token_budget, max_batch, kv_gib)
    engine = Engine(decoder, limits, max_context=min(context, decoder.config.max_context))
    engine.runner.warm_up()
    return engine


def fitted_points(found) -> Iterator[dict]:
    """A point a coefficient, with its interval, and one a kind of held-out step, with the error's median and tail."""
    for name, (low, high) in found.intervals.items():
        yield point(name, getattr(found.cost, name), "s", low=low, high=high, level=found.level, n=found.steps)
    yield point(LAUNCH, found.cost.launch_s, "s", n=found.steps)
    for r in found.residuals:
        yield point(f"held-out {r.kind} steps", r.p50, "relative error", p90=r.p90, bias=r.bias, n=r.n)


def columns(samples: Sequence[StepSample]) -> dict[str, list]:
    """Steps as lists, one a field; a chunk is two numbers in a row, and `chunks` says how many each step has."""
    return {
        "chunks": [len(s.chunks) for s in samples],
        "new_and_context_tokens": [n for s in samples for chunk in s.chunks for n in chunk],
        "decodes": [s.decodes for s in samples],
        "kv_tokens": [s.kv_tokens for s in samples],
        **{name: [float(f"{getattr(s, name):.6g}") for s in samples] for name in TIMES},
    }


def samples_of(columns: dict[str, list]) -> list[StepSample]:
    """The steps that `columns` wrote."""
    numbers = iter(columns["new_and_context_tokens"])
    rows = zip(*(columns[name] for name in ("chunks", "decodes", "kv_tokens", *TIMES)), strict=True)
    return [
        StepSample(tuple((next(numbers), next(numbers)) for _ in range(chunks)), *the_rest)
        for chunks, *the_rest in rows
    ]
