"""What a process of the runner does: one line with its task in, one line for each finished piece out.

It ends when its work is done, or when the process that started it closes the line to it, dead or alive.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from threading import Thread

from helpers.bench.cells import sample_of, unnoticed_faults
from helpers.bench.decision_trace import write_trace
from helpers.bench.frozen import thawed
from helpers.bench.order import Cell
from helpers.bench.targets.registry import load
from helpers.bench.targets.sizes import sized
from helpers.bench.targets.target import Target
from helpers.workload.request import Workload

ORPHANED = 3  # the exit code of a process that nobody waits for any more


def main() -> None:
    """Work off the task on the input stream."""
    lines, sys.stdout = sys.stdout, sys.stderr  # what else is printed must not come between the results
    task = json.loads(sys.stdin.readline())
    Thread(target=_leave_with_parent, daemon=True).start()
    for one in results(task):
        lines.write(json.dumps(one, allow_nan=False) + "\n")
        lines.flush()


def _leave_with_parent() -> None:
    """Wait for the end of the input; past the stream object, whose lock the end of this process would wait for."""
    while os.read(0, 1024):
        pass
    os._exit(ORPHANED)


def results(task: dict) -> Iterator[dict]:
    """A record for each cell of a task, as it is finished. What is run again draws its workload again too."""
    target = sized(load(task["target"]), task["nproc"], task["prefill_ranks"], task["device"])
    folder = Path(task["frozen"])
    for one in task["cells"]:
        cell = Cell(**one)
        scenario = target.scenario(cell.scenario)
        drawn_again = cell.kind == "again"
        requests = task["requests"]
        workload = (
            scenario.workload(cell.seed, requests) if drawn_again else thawed(folder, target, scenario, cell.seed)
        )
        if cell.kind == "corrupt":
            yield {"cell": one, "unnoticed": unnoticed_faults(target, cell, workload)}
            continue
        sample = sample_of(target, cell, workload, task["iterations"], task["on"])
        yield {"cell": one, "sample": asdict(sample)}
        if cell.kind == "run" and task["trace"] and cell.seed == task["trace_seed"]:
            yield from _traced(task, target, cell, workload, sample.digests)


def _traced(task: dict, target: Target, cell: Cell, workload: Workload, expected: dict[str, str]) -> Iterator[dict]:
    """The decisions of a cell, in a run of its own that must decide as the one that was measured did."""
    found = write_trace(Path(task["trace"]), target, cell, workload, task["commit"])
    if found:
        same = found["decisions_sha256"] == expected["decisions"]
        yield {"cell": {**asdict(cell), "kind": "trace"}, "trace": found["file"], "same": same}


if __name__ == "__main__":
    main()
