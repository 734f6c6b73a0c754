"""The part `early launch`: kernels that are launched while the one before them ends, against those that wait.

Which it is, a process decides as it imports the kernels: both kinds run in processes of their own, one after
the other. The first word of each is whether its answers are right, then come decode steps as captured graphs.

    python -m helpers.bench.record.early_launch llama-8b cuda
"""

import json
import sys
from collections.abc import Iterator
from statistics import median

from helpers.bench.engine.peers import lines_of
from helpers.bench.engine.report import median_point, point

SWITCH = "ENGINE_EARLY_LAUNCH"
BATCHES = (1, 8, 32, 128)
LIMIT_S = 150.0  # of one process
WAYS = {"off": "0", "on": "1"}


def early_launch(session, report) -> None:
    """Fill in the section `early launch`."""
    report.run("early launch", lambda: compared(session.preset, session.device))


def compared(preset: str, device: str) -> Iterator[dict]:
    """Failed checks and milliseconds a decode step of each kind, and how much faster the early one is."""
    found: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for way, value in WAYS.items():
        words = [sys.executable, "-m", "helpers.bench.record.early_launch", preset, device]
        for line in lines_of(words, LIMIT_S, {SWITCH: value}):
            name = f"{line['name']}, {way}"
            if "failed" in line:
                yield point(
                    name, len(line["failed"]), "failed", of=line["of"], names=line["failed"], early=line["early"]
                )
            else:
                found[way][line["name"]] = median(line["samples"])
                yield median_point(name, line["samples"], "ms/step")
    for name, waits in found["off"].items():
        if name in found["on"]:
            yield point(f"{name}, on / off", found["on"][name] / waits, "x")


def measure(preset: str, device: str) -> Iterator[dict]:
    """What one process has to say, with the kernels as it has imported them."""
    import torch

    from helpers.bench.engine import decode
    from helpers.bench.engine.timing import device_seconds
    from helpers.engine import checks, kernel_checks, loop_checks
    from helpers.engine.engine import Engine
    from helpers.engine.kernels.backend import EARLY_LAUNCH
    from helpers.engine.load import device_of, load, use_threads
    from helpers.scheduling.limits import Limits

    on = device_of(device)
    dtype = torch.bfloat16 if on.type == "cuda" else torch.float32
    done = [*kernel_checks.run(on, dtype), *checks.model_checks(checks.CONFIGS[0], on, dtype)]
    done += loop_checks.run(on, torch.float32)
    yield {"name": "checks", "failed": [c.name for c in done if not c.ok], "of": len(done), "early": EARLY_LAUNCH}
    decoder = load(preset, str(on))
    use_threads(decoder)
    batches = BATCHES if on.type == "cuda" else BATCHES[:1]
    context = decode.CONTEXT if on.type == "cuda" else decode.CPU_CONTEXT
    limits = Limits(max(batches) * (context // 64 + 2) + 64, 64, 2048, max(batches))
    with Engine(decoder, limits, max_context=2 * context, graphs=True) as engine:
        decode.fill_pages(engine)
        for batch in batches:
            running = decode.begin(engine, batch, context, 64)
            engine.step()
            seconds = device_seconds(engine.runner.graph(batch).replay, on, 60, 5)
            decode.end(engine, running)
            yield {"name": f"batch {batch}", "samples": [1e3 * s for s in seconds]}


if __name__ == "__main__":
    for one in measure(*sys.argv[1:3]):
        print(json.dumps(one), flush=True)
