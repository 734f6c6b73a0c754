"""Every arm in fresh processes, in random order; what they send is kept as it comes.

A process that dies takes nothing with it but the cell that it was at. Whatever ends the run ends the processes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from threading import Lock, Thread

from helpers.bench.frozen import freeze
from helpers.bench.order import Cell, Task, ordered
from helpers.bench.targets.registry import load
from helpers.bench.targets.sizes import CPU, sized
from helpers.bench.targets.target import Sample, Target
from helpers.checkout import commit
from helpers.errors import InputError
from helpers.paths import ROOT

POLL_S = 0.1
GRACE_S = 5.0
CHILD = "helpers.bench.child"


@dataclass(frozen=True)
class Plan:
    """How targets are run: the seeds, how many requests (None: the target's own), repetitions, processes at once.

    Where seconds are measured, one process runs at a time, however many there may be.
    `order_seed` draws the order. `trace` names the folder for decisions of the first seed. `on` is the backend.
    `nproc` workers serve what is measured live, `prefill_ranks` of them prefill where a fleet is split; `device` has
    them all.
    """

    seeds: tuple[int, ...]
    requests: int | None = None
    iterations: int = 1
    jobs: int = 1
    order_seed: int = 0
    trace: Path | None = None
    on: str = "simulator"
    nproc: int | None = None
    prefill_ranks: int | None = None
    device: str = CPU

    def sized(self, target: Target) -> Target:
        """A target as this plan runs it."""
        return sized(target, self.nproc, self.prefill_ranks, self.device)

    def __post_init__(self) -> None:
        if len(self.seeds) < 2:
            raise InputError(f"bench run: {len(self.seeds)} seeds give no interval; use 2 or more")
        for name in ("requests", "iterations", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"bench run: {value} {name}; give 1 or more")


@dataclass
class Results:
    """What came of a target: samples by cell, repeated ones, faults not noticed, traces, and processes that died."""

    target: Target
    plan: Plan
    tasks: list[Task]
    commit: str
    frozen: dict[str, dict[int, str]]  # digests by scenario and seed, taken before the first run
    samples: dict[Cell, Sample] = field(default_factory=dict)
    again: dict[Cell, Sample] = field(default_factory=dict)
    unnoticed: list[str] | None = None
    traces: list[str] = field(default_factory=list)
    retraced: list[str] = field(default_factory=list)  # traced runs that decided otherwise
    failures: list[str] = field(default_factory=list)

    def take(self, line: dict) -> None:
        """Keep what a process sent."""
        cell = Cell(**line["cell"])
        if cell.kind == "corrupt":
            self.unnoticed = line["unnoticed"]
        elif cell.kind == "trace":
            self.traces.append(line["trace"])
            if not line["same"]:
                self.retraced.append(f"{cell.scenario}, {cell.arm}")
        else:
            sent = line["sample"]
            kept = {**sent, "breaches": tuple(sent["breaches"]), "wall_s": tuple(sent["wall_s"])}
            (self.samples if cell.kind == "run" else self.again)[cell] = Sample(**kept)

    def of(self, scenario: str, arm: str) -> dict[int, Sample]:
        """The samples of an arm of a scenario, by seed."""
        return {
            cell.seed: one
            for cell, one in sorted(self.samples.items(), key=lambda item: item[0].seed)
            if (cell.scenario, cell.arm) == (scenario, arm)
        }

    @property
    def wall_s(self) -> float:
        """The measured work alone."""
        return sum(sum(one.wall_s) for one in self.samples.values())


def by_seed(samples: Mapping[int, Sample], name: str) -> dict[int, float]:
    """A statistic by seed; seeds that do not have it are left out."""
    return {seed: one.values[name] for seed, one in samples.items() if one.values.get(name) is not None}


def run_targets(
    places: Sequence[str], plan: Plan, tick: Callable[[int], None] | None = None, keep: list[Results] | None = None
) -> list[Results]:
    """Run every target; `keep` is filled as results come, so that whoever is interrupted has what was finished."""
    found = keep if keep is not None else []
    work: list[tuple[Results, dict, Task]] = []
    told = commit()
    with TemporaryDirectory(prefix="bench-frozen-") as folder:
        for place in places:
            target = plan.sized(load(place))
            tasks = ordered(target, plan.seeds, plan.order_seed)
            frozen = freeze(Path(folder), target, plan.seeds, plan.requests or target.requests)
            found.append(Results(target, plan, tasks, told, frozen))
            work += [(found[-1], _message(place, folder, target, task, plan, told), task) for task in tasks]
        done = count(1)
        for timed, jobs in ((False, plan.jobs), (True, 1)):
            some = [one for one in work if _is_timed(one[0].target, one[2]) is timed]
            _Processes(jobs).work_off(some, lambda: tick(next(done)) if tick else None)
    return found


def _is_timed(target: Target, task: Task) -> bool:
    """Whether seconds are what a task measures: then nothing else may run beside it."""
    return any(target.scenario(cell.scenario).timed for cell in task.cells)


def task_count(places: Sequence[str], plan: Plan) -> int:
    """How many processes a plan starts."""
    targets = (plan.sized(load(place)) for place in places)
    return sum(len(ordered(target, plan.seeds, plan.order_seed)) for target in targets)


def _message(place: str, folder: str, target: Target, task: Task, plan: Plan, told: str) -> dict:
    return {
        "target": place,
        "frozen": folder,
        "cells": [asdict(cell) for cell in task.cells],
        "requests": plan.requests or target.requests,
        "iterations": plan.iterations,
        "on": plan.on,
        "nproc": plan.nproc,
        "prefill_ranks": plan.prefill_ranks,
        "device": plan.device,
        "trace": None if plan.trace is None else str(plan.trace),
        "trace_seed": plan.seeds[0],
        "commit": told,
    }


class _Processes:
    """A few processes at a time, each fresh; none is left when `work_off` returns or raises."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._lock = jobs, Lock()
        self._live: set[subprocess.Popen] = set()
        self._stopped = False

    def work_off(self, work: Sequence[tuple[Results, dict, Task]], tick: Callable[[], None]) -> None:
        waiting, done = Queue(), Queue()
        for one in work:
            waiting.put(one)
        threads = [Thread(target=self._serve, args=(waiting, done), daemon=True) for _ in range(self._jobs)]
        try:
            for thread in threads:
                thread.start()
            for _ in work:
                self._next(done)
                tick()
        finally:
            self._stop()
            for thread in threads:
                thread.join(GRACE_S)

    @staticmethod
    def _next(done: Queue) -> None:
        """Wait for one task to be over; in short waits, so that an interrupt is heard."""
        while True:
            try:
                error = done.get(timeout=POLL_S)
            except Empty:
                continue
            if error:
                raise error
            return

    def _serve(self, waiting: Queue, done: Queue) -> None:
        while not self._stopped:
            try:
                results, message, task = waiting.get_nowait()
            except Empty:
                return
            try:
                self._one(results, message, task)
                done.put(None)
            except BaseException as error:
                done.put(error)

    def _one(self, results: Results, message: dict, task: Task) -> None:
        """Run one process to its end, and keep what it sends."""
        process = self._start()
        if process is None:
            return
        errors: list[str] = []
        reader = Thread(target=lambda: errors.extend(process.stderr), daemon=True)
        reader.start()
        finished = 0
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died before it could hear; its exit code says so
        for line in process.stdout:
            one = json.loads(line)
            with self._lock:
                results.take(one)
            finished += one["cell"]["kind"] != "trace"
        code = process.wait()
        reader.join(GRACE_S)
        self._forget(process)
        if (code or finished < len(task.cells)) and not self._stopped:
            results.failures.append(_epitaph(results.target, task, code, errors, finished))

    def _start(self) -> subprocess.Popen | None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment,
            )
            self._live.add(process)
        return process

    def _forget(self, process: subprocess.Popen) -> None:
        with self._lock:
            self._live.discard(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()

    def _stop(self) -> None:
        """End what still runs, and wait until it is gone."""
        with self._lock:
            self._stopped, live = True, list(self._live)
        for process in live:
            process.terminate()
        for process in live:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _epitaph(target: Target, task: Task, code: int, errors: Sequence[str], finished: int) -> str:
    """Which process died, of what, and what it had finished."""
    last = next((line.strip() for line in reversed(errors) if line.strip()), "it said nothing")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return (
        f"{target.name}, {task.label}: its process ended with {how} after {finished} of {len(task.cells)} runs ({last})"
    )
