"""What happened to each request, and when each step of each worker ran.

Decode steps are not stored token by token. A worker writes its steps as *runs* of equal
composition into one `StepLog`, and a request refers to the runs it took part in by `Span`s.
Thousands of requests share the same rows, so an hour of traffic fits in a few megabytes; tokens
are expanded only when somebody asks.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Segment:
    """`steps` consecutive tokens of one request.

    Step k = 0 … steps-1 takes `base_s + k * growth_s` seconds, so token k is out at
    `start_s + (k+1) * base_s + growth_s * k * (k+1) / 2`.
    """

    start_s: float
    steps: int
    base_s: float
    growth_s: float

    def token_times(self) -> Iterator[float]:
        """The time at which each token of the segment is out, in seconds."""
        for k in range(1, self.steps + 1):
            yield self.start_s + k * self.base_s + self.growth_s * (k * (k - 1) // 2)


ROW = ("start_s", "steps", "base_s", "growth_s", "decoding", "prefilled")
ROW_TYPES = "dqddqq"


class StepLog:
    """The steps of one worker as columns, one row a run of equal composition.

    Row i: `steps[i]` steps from `start_s[i]`, step k taking `base_s[i] + k * growth_s[i]`
    seconds, with `decoding[i]` requests putting out a further token (not their first) in each
    step and `prefilled[i]` prompt tokens computed in the (then single) step.

    New rows wait in `pending`, each in the order of `ROW`, until somebody reads a column or calls
    `compact`: as tuples they are quick to write and four times as large.
    """

    __slots__ = ("_columns", "pending")

    def __init__(self) -> None:
        self._columns = tuple(array(kind) for kind in ROW_TYPES)
        self.pending: list[tuple[float, int, float, float, int, int]] = []

    def __len__(self) -> int:
        return len(self._columns[0]) + len(self.pending)

    def append(self, start_s: float, steps: int, base_s: float, growth_s: float, decoding: int, prefilled: int) -> None:
        """Add a run of `steps` steps."""
        self.pending.append((start_s, steps, base_s, growth_s, decoding, prefilled))

    def compact(self) -> None:
        """Write the pending rows into the columns."""
        if self.pending:
            for column, values in zip(self._columns, zip(*self.pending, strict=True), strict=True):
                column.extend(values)
            self.pending.clear()

    def column(self, name: str) -> array:
        """A column by its name in `ROW`."""
        if self.pending:
            self.compact()
        return self._columns[ROW.index(name)]

    @property
    def start_s(self) -> array:
        """When each run starts, seconds."""
        return self.column("start_s")

    @property
    def steps(self) -> array:
        """How many steps each run has."""
        return self.column("steps")

    @property
    def base_s(self) -> array:
        """Seconds of the first step of each run."""
        return self.column("base_s")

    @property
    def growth_s(self) -> array:
        """Seconds by which each further step of a run is longer."""
        return self.column("growth_s")

    @property
    def decoding(self) -> array:
        """Requests that put out a further token in each step of a run."""
        return self.column("decoding")

    @property
    def prefilled(self) -> array:
        """Prompt tokens computed in a run."""
        return self.column("prefilled")

    def segment(self, row: int) -> Segment:
        """Row `row` as a `Segment`."""
        return Segment(self.start_s[row], self.steps[row], self.base_s[row], self.growth_s[row])


class Span(NamedTuple):
    """Rows `first` … `last` (both included) of the step log of `worker`, in each of which a request decoded."""

    worker: int
    first: int
    last: int


@dataclass(slots=True)  # not frozen: of this width that costs ten times as much to make, a million times
class Timeline:
    """The life of one request; times in seconds from the start of the run, None for what never happened.

    `arrival_s` is the scheduled arrival: TTFT counts from there. The first token is out at
    `first_token_s` (the end of the prefill); `spans` hold the rest, `output_tokens - 1` tokens
    when the request finished. `cached_tokens` were found in the worker's prefix cache at the
    first admission, `fetched_tokens` came from another worker's cache; `prefilled_tokens` were
    computed in all, recomputation after preemption or loss included.
    """

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    status: str  # finished | rejected | unfinished
    reason: str = ""
    prefill_worker: int | None = None
    decode_worker: int | None = None
    dispatched_s: float | None = None
    prefill_start_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    generated_tokens: int = 0
    cached_tokens: int = 0
    fetched_tokens: int = 0
    prefilled_tokens: int = 0
    preemptions: int = 0
    requeues: int = 0
    transfer_start_s: float | None = None
    transfer_end_s: float | None = None
    session: int | None = None
    tenant: str = "default"
    slo_class: str = "standard"
    priority: int = 0
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class WorkerInfo:
    """What a run says of a worker: its role (`mixed`, `prefill`, `decode`), parallelism and KV capacity.

    It occupies its GPUs from `start_s` to `stop_s` (None: to the end of the run) and takes requests from
    `ready_s` on (None: it never did).
    """

    role: str = "mixed"
    tp: int = 1
    pp: int = 1
    ep: int = 1
    kv_blocks: int = 0
    block_tokens: int = 0
    start_s: float = 0.0
    ready_s: float | None = 0.0
    stop_s: float | None = None


@dataclass(frozen=True)
class EventLog:
    """What every backend hands to the metrics: the timelines, the step log of each worker, the horizon.

    `timelines` are sorted by id. `end_s` is the time at which the last request left
    (one that was rejected left as it came). `counts` holds what else happened, such as workers started.
    """

    timelines: tuple[Timeline, ...]
    step_logs: tuple[StepLog, ...] = ()
    workers: tuple[WorkerInfo, ...] = ()
    end_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)


def segments(timeline: Timeline, step_logs: Sequence[StepLog]) -> Iterator[Segment]:
    """The decode segments of a request, in order; the first token (`first_token_s`) is not among them."""
    for span in timeline.spans:
        log = step_logs[span.worker]
        for row in range(span.first, span.last + 1):
            yield log.segment(row)


def token_times(timeline: Timeline, step_logs: Sequence[StepLog]) -> list[float]:
    """When each token of a request was out, in seconds: the first token, then every decoded one."""
    if timeline.first_token_s is None:
        return []
    times = [timeline.first_token_s]
    for segment in segments(timeline, step_logs):
        times.extend(segment.token_times())
    return times


def by_class(timelines: Iterable[Timeline]) -> dict[str, list[Timeline]]:
    """The timelines grouped by `slo_class`, in order of first appearance."""
    groups: dict[str, list[Timeline]] = {}
    for t in timelines:
        groups.setdefault(t.slo_class, []).append(t)
    return groups
