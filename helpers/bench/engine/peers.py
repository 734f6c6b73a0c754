"""Other engines on the same device in the same run, each in a process of its own with a time limit.

A peer is never shipped: one that is absent is skipped, and the record says so.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from helpers.bench.engine.report import median_point, point
from helpers.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
TARGETS = {
    # what of ours is held against what of theirs, and how many times theirs it should be
    "transformers eager, batch 32": ("end to end", 3.0),
    "transformers static cache + compile, batch 32": ("end to end", 1.3),
    "transformers continuous batching, paged|sdpa, batch 32": ("end to end", 3.0),
    "gpt-fast compiled, batch 1": ("batch 1 rate", 1.0),
}


def parse(peer: str) -> tuple[str, Path | None]:
    """`transformers` or `gpt-fast=DIR`; raises `InputError` for anything else."""
    name, _, folder = peer.partition("=")
    if name == "transformers" and not folder:
        return name, None
    if name == "gpt-fast" and folder:
        return name, Path(folder)
    raise InputError(f"peer {peer!r}: give transformers, or gpt-fast=DIR with the folder of its checkout")


def check(peer: str) -> None:
    """Raise `InputError`, before anything runs, for what is no peer, and for a folder that is not one's."""
    name, folder = parse(peer)
    if folder and (reason := absent(name, folder)):
        raise InputError(f"peer {peer!r}: {reason}; give the folder of its checkout")


def absent(name: str, folder: Path | None) -> str | None:
    """Why a peer cannot run here; None when it can."""
    if name == "transformers":
        return None if find_spec("transformers") else "transformers is not installed"
    return None if (folder / "model.py").is_file() else f"{folder} has no model.py of gpt-fast"


def run(peer: str, preset: str, device: str, limit_s: float, ours: dict[str, float]) -> Iterator[dict]:
    """The peer's points as they come, each with the ratio of ours to it where that is a target."""
    name, folder = parse(peer)
    reason = absent(name, folder)
    if reason:
        raise InputError(f"peer {name} is skipped: {reason}")
    module = "helpers.bench.engine.peer_" + name.replace("-", "_")
    words = [sys.executable, "-m", module, preset, device, *([str(folder)] if folder else [])]
    for record in lines_of(words, limit_s, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}):
        if "failed" in record:
            print(f"-- {record['name']}: {record['failed']}", file=sys.stderr, flush=True)
            yield point(record["name"] + " (failed)", 0.0, "output tok/s", failed=record["failed"])
            continue
        theirs = median_point(record["name"], record["samples"], "output tok/s", batch=record["batch"])
        yield theirs
        against, times = TARGETS.get(record["name"], (None, None))
        if ours.get(against):
            ratio = ours[against] / theirs["value"]
            target = {"target": times} if device != "cpu" and preset == "llama-8b" else {}
            yield point(f"ours / {record['name']}", ratio, "x", **target)


def lines_of(words: list[str], limit_s: float, settings: dict[str, str]) -> Iterator[dict]:
    """JSON lines that a process prints, until it ends or `limit_s` seconds have passed: then it is stopped.

    It imports what this process can import, wherever that was installed. `settings` are variables of its environment.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, **settings}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline_s = perf_counter() + limit_s
    try:
        while (line := lines.get(timeout=max(0.01, deadline_s - perf_counter()))) is not None:
            if line.startswith("{"):
                yield json.loads(line)
    except queue.Empty:
        raise TimeoutError(f"{words[2]} was stopped after {limit_s:.0f} s; what it gave before is kept") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (0, -9):
        raise RuntimeError(f"{words[2]} ended with code {process.returncode}")
