"""What ran on the device, kernel by kernel, in a few steps of a served load: a run apart from what is timed.

The profiler sees every kernel, those of a captured step too, and every call that launches one; watching costs time,
so shares and counts are what to take from here. On a CPU there are no launches: operations are the work itself.
A kernel that is launched early waits for the one ahead of it; it counts from where that one ends.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import perf_counter

from helpers.bench.inference.host_time import watched

TOP = 12  # kernels that are listed by name
NAME_CHARACTERS = 90
# Words in the names of kernels and operations, the first kind that has one is it. Our own kernels are named for what
# they do; products of matrices are those of the library.
KINDS: dict[str, tuple[str, ...]] = {
    "attention": ("attention", "store_kv", "softmax", "bmm", "scaled_dot", "einsum"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "gemv", "splitk", "grouped", "::mm", "addmm", "linear",
                        "matmul"),
    "memory copies": ("memcpy", "memset", "copy_", "aten::to", "aten::fill_", "aten::zero_"),
    "norms and SwiGLU": ("add_norm", "swiglu", "rsqrt", "silu", "aten::pow", "aten::mean"),
    "sampling": ("argmax", "max", "gather", "sort", "where"),
}  # fmt: skip
OTHER = "other"
# Captured steps do not outlive a profiler that is taken down and set up again: it stays, and sees nothing in between.
UNDISTURBED = {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cuGraphLaunch")


@dataclass(frozen=True, slots=True)
class Event:
    """All occurrences of a kernel, or of a call of the host: how many, and the seconds of all together."""

    name: str
    count: int
    seconds: float
    on_device: bool


def kind_of(name: str) -> str:
    """Which kind of work a kernel or an operation is, by its name."""
    low = name.lower()
    return next((kind for kind, words in KINDS.items() if any(word in low for word in words)), OTHER)


class Window:
    """Profiles the steps of an engine from `from_s` on its clock on, `steps` of them, for the length of a `with`.

    `host_s` is what they took by the host's clock, `seen` how many there were.
    """

    def __init__(self, engine, from_s: float, steps: int) -> None:
        self.engine, self.from_s, self.steps = engine, from_s, steps
        self.profiler, self.seen, self.host_s = None, 0, 0.0
        self._armed = self._running = False
        self._watches = ExitStack()

    def __enter__(self) -> "Window":
        self._watches.enter_context(watched(self.engine, "restart_clock", self._restarted))
        self._watches.enter_context(watched(self.engine, "step", self._stepped))
        return self

    def __exit__(self, *error: object) -> None:
        self._watches.close()
        self._end()

    def _restarted(self, usual: Callable) -> None:
        usual()
        self._armed = True  # what was served before is the warm-up

    def _stepped(self, usual: Callable) -> object:
        if self._armed and not self._running and self.engine.now() >= self.from_s:
            self._begin()
        found = usual()
        if self._running:
            self.seen = len(self.engine.samples) - self._first
            self._last_s = perf_counter()
            if self.seen >= self.steps:
                self._wait()  # a step may be under way, and its kernels are seen: so its time counts too
                self._last_s = perf_counter()
                self._end()
        return found

    def _begin(self) -> None:
        self.profiler = _profiler(self.engine.device.type)
        self._wait()
        self.profiler.start()
        self._running, self._first = True, len(self.engine.samples)
        self._start_s = self._last_s = perf_counter()

    def _end(self) -> None:
        if self._running:
            self._wait()
            self.host_s = self._last_s - self._start_s
            self.profiler.stop()
        self._armed = self._running = False

    def _wait(self) -> None:
        if self.engine.device.type == "cuda":
            import torch

            torch.cuda.synchronize()

    def events(self) -> list[Event]:
        """What was seen."""
        if self.profiler is None:
            return []
        found = [_event(one) for one in self.profiler.key_averages()]
        seen = (one for one in self.profiler.events() if "CUDA" in str(one.device_type))
        spans = ((one.name, one.time_range.start / 1e6, one.time_range.end / 1e6) for one in seen)
        return [one for one in found if not one.on_device] + one_after_another(spans)


def _profiler(device: str):
    """Of kernels and of the calls that launch them; on a CPU of operations."""
    from torch.profiler import ProfilerActivity, profile

    os.environ.update(UNDISTURBED)
    return profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU])


def use_first(device: str) -> None:
    """Profile nothing: what the profiler makes at its first use is then there."""
    if device == "cuda":
        import torch

        with suppress(RuntimeError), _profiler(device):
            torch.zeros(1, device=device)
            torch.cuda.synchronize()


def _event(average) -> Event:
    on_device = "CUDA" in str(average.device_type)
    microseconds = average.self_device_time_total if on_device else average.self_cpu_time_total
    return Event(average.key, average.count, microseconds / 1e6, on_device)


def one_after_another(spans: Iterable[tuple[str, float, float]]) -> list[Event]:
    """Kernels by name, from (name, start, end) in seconds. What overlaps counts once, for the one that ends first."""
    found: dict[str, list[float]] = defaultdict(list)
    reached = float("-inf")
    for name, start, end in sorted(spans, key=lambda span: span[2]):
        found[name].append(max(0.0, end - max(start, reached)))
        reached = max(reached, end)
    return [Event(name, len(seconds), sum(seconds), True) for name, seconds in found.items()]


def summary(events: Iterable[Event], device: str, steps: int, host_s: float) -> dict:
    """Kernels by kind and by name, launches, and shares; `steps` of them took `host_s` in all, the profiler watching.

    On a CPU the operations stand in place of the kernels, and nothing is launched.
    """
    events = list(events)
    work = [one for one in events if one.on_device or device == "cpu"]
    launches = [one for one in events if not one.on_device and one.name.startswith(LAUNCHES)]
    busy_s = sum(one.seconds for one in work)
    steps = max(1, steps)
    top = sorted(work, key=lambda one: -one.seconds)[:TOP]
    return {
        "steps": steps,
        "step_mean_s": host_s / steps,
        "busy_of_window": busy_s / host_s if host_s else 0.0,
        "kernels_a_step": sum(one.count for one in work) / steps,
        "launches_a_step": sum(one.count for one in launches) / steps,
        "launching_s_a_step": sum(one.seconds for one in launches) / steps,
        "kinds_s_a_step": {kind: seconds / steps for kind, seconds in by_kind(work).items()},
        "top": [
            {
                "name": one.name[:NAME_CHARACTERS], "kind": kind_of(one.name), "a_step": one.count / steps,
                "s_a_step": one.seconds / steps, "of_busy": one.seconds / busy_s if busy_s else 0.0,
            }
            for one in top
        ],
    }  # fmt: skip


def by_kind(events: Iterable[Event]) -> Mapping[str, float]:
    """Seconds of each kind, the longest first."""
    found: dict[str, float] = defaultdict(float)
    for one in events:
        found[kind_of(one.name)] += one.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))
