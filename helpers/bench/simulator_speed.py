"""How fast the simulator is, in parts that each run in a process of their own.

Every part simulates with a KV memory limit, prefix cache, chunked prefill and step logs on; parsing
and statistics are outside the timed region. The peer is the step-by-step reference worker, on a
slice that it can finish.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from helpers.errors import InputError
from helpers.policies import registry
from helpers.policies.catalogue import ROUTERS
from helpers.serving.fleet import Fleet
from helpers.simulator.cluster import Cluster
from helpers.workload.generate import open_workload, stream
from helpers.workload.hygiene import find_ticks, spread_ticks
from helpers.workload.request import Request, Workload

REAL_HOUR = "mooncake_conversation.jsonl.gz"
SLICE = 1500  # requests that the step-by-step peer gets
MILLION_RATE_PER_S = 870.0  # over 1,024 workers: the load a worker of the conversation hour has on a fleet of four


@dataclass(frozen=True)
class Part:
    """One measurement: what is run, and the goal it is held against (wall seconds, or requests per second)."""

    name: str
    what: str
    router: str
    workers: int
    goal_wall_s: float | None = None
    goal_per_s: float | None = None
    goal_gb: float | None = None
    peer: bool = True


HOUR = "the conversation hour"
USUAL = (
    Part("hour-round_robin", HOUR, "round_robin", 4, goal_wall_s=1.1),
    Part("hour-prefix_exact", HOUR, "prefix_exact", 4, goal_wall_s=1.1),
    Part("steady", "10,000 requests of 1000 in and 100 out", "round_robin", 4, goal_per_s=100_000),
    Part("million-power_of_two", "streamed requests", "power_of_two", 1024, goal_wall_s=120, goal_gb=2.0),
    Part("million-prefix_approx", "streamed requests", "prefix_approx", 1024, goal_wall_s=120, goal_gb=2.0),
)
# The hour once for each router, to see that none makes it slow. What a router decides by costs time here too: news from
# the caches brings it to 1.0 s, views of all workers and a prediction for each to 1.4 s, and a tenth is left for noise.
EVERY_HOUR = tuple(Part(f"hour-{name}", HOUR, name, 4, goal_wall_s=1.5, peer=False) for name in ROUTERS)
PARTS = {part.name: part for part in (*EVERY_HOUR, *USUAL)}
GROUPS = {"hour-every-router": tuple(part.name for part in EVERY_HOUR)}
NAMES = ", ".join((*(part.name for part in USUAL), *GROUPS, "hour-ROUTER"))


def named(words: Iterable[str]) -> list[Part]:
    """The parts of these names, groups taken apart; for no name the usual ones. Raises `InputError` for an unknown."""
    names = [name for word in words for name in GROUPS.get(word, (word,))]
    for name in names:
        if name not in PARTS:
            raise InputError(f"bench simulator: part {name!r} is unknown; use one of {NAMES}")
    return [PARTS[name] for name in names] or list(USUAL)


def real_hour() -> Path | None:
    """The real conversation hour in the folder named by TRACES_DIR, None without it."""
    folder = os.environ.get("TRACES_DIR")
    path = Path(folder) / REAL_HOUR if folder else None
    return path if path and path.is_file() else None


def hour(trace: str | None) -> Workload:
    """The hour to simulate: the trace given, the real one, or the generated one that ships; ticks, if any, spread."""
    workload, _ = open_workload(trace or real_hour() or "conversation")
    ticks = find_ticks([r.arrival_s for r in workload.requests])
    return workload if ticks.tick_s is None else spread_ticks(workload, 0)


def steady() -> Workload:
    """10,000 requests of 1000 tokens in and 100 out, one each 20 ms, in blocks of 64 tokens."""
    return Workload("steady", tuple(Request(i, i * 0.02, 1000, 100) for i in range(10_000)), 64, "10,000 x 1000/100")


def measure(part: Part, trace: str | None, repeats: int, requests: int) -> dict:
    """Run one part in this process; the record has wall seconds of each repeat, their median and the peak memory."""
    if part.name.startswith("million"):
        knobs = {"rate_per_s": MILLION_RATE_PER_S, "requests": requests, "seed": 0}
        label, count, block_tokens = f"generated:documents {knobs}", requests, 512
        walls = [_timed(part, lambda: stream("documents", **knobs), block_tokens, sink=_forget)]
    else:
        workload = steady() if part.name == "steady" else hour(trace)
        label, count, block_tokens = workload.name, len(workload), workload.block_tokens
        walls = [_timed(part, lambda: workload.requests, block_tokens) for _ in range(repeats)]
    record = {
        "part": part.name,
        "workload": label,
        "router": part.router,
        "workers": part.workers,
        "requests": count,
        "wall_s": median(walls),
        "wall_s_all": walls,
        "requests_per_s": count / median(walls),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 1e9,
    }
    if part.peer and not part.name.startswith("million"):
        record["peer"] = _peer(part, workload)
    return {**record, **_goals(part, record, requests)}


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in


def _timed(part: Part, requests: Callable[[], Iterable[Request]], block_tokens: int, sink=None, **mode) -> float:
    fleet = Fleet(workers=part.workers)
    router = registry.router(part.router, part.workers, block_tokens, fleet.predictor())
    cluster = Cluster(fleet.cluster(block_tokens), [router], sink=sink, **mode)
    arriving = requests()
    start = perf_counter()
    cluster.run(arriving)
    return perf_counter() - start


def _forget(_: object) -> None:
    """Where a streamed run leaves its timelines."""


def _peer(part: Part, workload: Workload) -> dict:
    """Fast-forward against the step-by-step worker on the first requests of the workload, in turns."""
    some = workload.requests[:SLICE]
    pairs = [
        (
            _timed(part, lambda: some, workload.block_tokens),
            _timed(part, lambda: some, workload.block_tokens, stepwise=True),
        )
        for _ in range(3)
    ]
    ratios = sorted(slow / fast for fast, slow in pairs)
    return {"name": "step by step", "requests": len(some), "n": len(pairs), "ratio": ratios[1], "ratio_all": ratios}


def _goals(part: Part, record: dict, requests: int) -> dict:
    """The goals that hold for this size, and whether they were met."""
    goals, met = {}, []
    if part.goal_wall_s is not None and (not part.name.startswith("million") or requests == 1_000_000):
        goals["wall_s"] = part.goal_wall_s
        met.append(record["wall_s"] <= part.goal_wall_s)
    if part.goal_per_s is not None:
        goals["requests_per_s"] = part.goal_per_s
        met.append(record["requests_per_s"] >= part.goal_per_s)
    if part.goal_gb is not None and requests == 1_000_000:
        goals["peak_gb"] = part.goal_gb
        met.append(record["peak_gb"] <= part.goal_gb)
    return {"goal": goals, "met": all(met) if met else None}


def in_own_process(part: Part, trace: str | None, repeats: int, requests: int) -> dict:
    """Run one part in a fresh process and return its record; raises `InputError` with what it said when it fails."""
    words = ["bench", "simulator", "--part", part.name, "--repeats", str(repeats), "--requests", str(requests)]
    words += ["--trace", trace] if trace else []
    done = subprocess.run([sys.executable, "-m", "helpers", *words], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"the part {part.name} failed: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])["parts"][0]
