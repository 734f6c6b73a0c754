"""A section of a recording in a process of its own: a line with the task in, one line for each point out.

What hangs there, on a device or in a group of processes, is ended from outside, and costs one section.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from queue import Empty, Queue
from threading import Thread
from time import perf_counter

from helpers.bench.disagg.live import RUNGS, SETUPS, TOGETHER, compared
from helpers.bench.disagg.sharing import shared
from helpers.errors import InputError
from helpers.paths import ROOT

CHUNKS = (512,)  # of the rival, besides those of the ladder
MOVERS = ("layerwise", "slabs", "asynchronous", "blocking", "synced", "bounce")
GRACE_S = 5.0


class OutOfTime(RuntimeError):
    """A section was ended before it was through."""


ROLES, PROCESSES = "two roles on one device", "two processes on one GPU"


def sections(device: str, gpus: int = 2) -> tuple[str, ...]:
    """The sections of a recording, the most valuable first: on one GPU those in which it is shared (times last, as
    they take whatever time there is)."""
    if device == "cuda" and gpus < 2:
        return (PROCESSES, ROLES)
    rivals = (f"rival, chunks of {chunk}" for chunk in CHUNKS)
    two = ("link", "ladder", "group", "movers and controls", *rivals)
    return (*two, ROLES) if device == "cpu" else two


def points(section: str, device: str, model: str, budget_s: float, seeds: int) -> Iterator[dict]:
    """The points of a section, measured in this process. Raises `InputError` for one that does not exist."""
    setup = replace(SETUPS[device], model=model)
    if section == "link":
        from helpers.bench.disagg.link import link

        yield from link(setup)
    elif section == "ladder":
        yield from compared(setup, (*RUNGS, TOGETHER), seeds, budget_s, check=True)
    elif section == "group":
        yield from compared(setup, ("group", "bounce"), seeds, budget_s)
    elif section.startswith("rival"):
        chunk = int(section.rpartition(" ")[2])
        yield from compared(setup, (TOGETHER,), seeds, budget_s, chunk)
    elif section == "movers and controls":
        yield from _verdicts(device, (*MOVERS, "group"))
    elif section == PROCESSES:  # without the group: NCCL takes no two processes on one GPU
        yield from _verdicts(device, MOVERS)
    elif section == ROLES:
        yield from shared(setup, seeds, budget_s)
    else:
        known = dict.fromkeys((*sections(device), *sections("cuda", 1)))
        raise InputError(f"section {section!r} is unknown; use one of {', '.join(known)}")


def _verdicts(device: str, movers: tuple[str, ...]) -> Iterator[dict]:
    """Every mover exact in float32, every planted error caught."""
    from helpers.bench.cluster import exactness
    from helpers.bench.engine.report import point

    for verdict in exactness.check(exactness.arms(("1P1D",), movers)[: len(movers) + 5], device=device):
        wanted = {"target": exactness.BOUND, "met": verdict.as_wanted}
        yield point(verdict.arm.name, verdict.logits_error, "relative logits error", **verdict.record()) | wanted


def supervised(section: str, device: str, model: str, limit_s: float, seeds: int) -> Iterator[dict]:
    """The points of a section as its own process sends them; it and its workers are ended after `limit_s`.

    Raises `OutOfTime` then, and `RuntimeError` for a process that fails; what came before has been yielded.
    """
    task = {"section": section, "device": device, "model": model, "budget_s": limit_s - GRACE_S, "seeds": seeds}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.bench.disagg.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    lines: Queue = Queue()
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.close()
        Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        until_s = perf_counter() + limit_s
        while (line := _next(lines, until_s - perf_counter())) is not None:
            yield json.loads(line)
        if code := process.wait(GRACE_S):
            raise RuntimeError(f"the process of {section} ended with code {code}")
    except Empty:
        raise OutOfTime(f"{section} was not through after {limit_s:.0f} s") from None
    finally:
        _end(process)


def _read(stream, lines: Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _next(lines: Queue, seconds: float) -> str | None:
    return lines.get(timeout=max(0.0, seconds))


def _end(process: subprocess.Popen) -> None:
    """End the process with all that it has started, which is its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def main() -> None:
    """Work off the task on the input stream."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries and workers print must not come between the points
    task = json.loads(sys.stdin.readline())
    for one in points(**task):
        out.write(json.dumps(one) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
