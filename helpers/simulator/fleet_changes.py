"""A fleet that changes while it serves: a scaler is asked, workers start, drain and change their role.

A worker that is started occupies its GPUs at once and takes requests `startup_s` later. One that is to
go takes no new requests from that moment, routers hear `WorkerLost` (its cache is of no use to them any
more), and it stops when the last request that was sent to it has left it: finished there, or with its KV
on another worker. One that changes its role drains in the same way; then a worker with a new id takes
over its GPUs and serves `role_change_s` later. Ids are never used twice, so that an id has one role and
one cache, in the step logs as in the routers' books.

The last worker that takes prefills, or decodes, does not go before another one is there.
"""

from dataclasses import dataclass, replace

from helpers.errors import InputError
from helpers.metrics.steps import row_duration_s, row_end_s
from helpers.metrics.timeline import WorkerInfo
from helpers.policies.view import Plan, Scaler, WorkerLost, WorkerView
from helpers.scheduling.sequence import Sequence
from helpers.simulator.ranks import ARRIVAL, FLEET
from helpers.simulator.spec import ROLES, WorkerSpec


@dataclass(slots=True)
class Stay:
    """When a worker occupies its GPUs, and from when on it serves; None for what has not happened."""

    start_s: float | None = 0.0
    ready_s: float | None = 0.0
    stop_s: float | None = None

    def info(self, spec: WorkerSpec, end_s: float) -> WorkerInfo:
        """What the run says of the worker; nothing that happened after `end_s`, the end of the run, counts."""
        start_s, ready_s, stop_s = self.start_s, self.ready_s, self.stop_s
        if start_s is None or start_s >= end_s > 0.0:
            return replace(spec.info(), start_s=end_s, ready_s=None, stop_s=end_s)
        ready_s = None if ready_s is None or ready_s > end_s else ready_s
        stop_s = None if stop_s is None or stop_s > end_s else stop_s
        return replace(spec.info(), start_s=start_s, ready_s=ready_s, stop_s=stop_s)


class ScalerViews:
    """`FleetViews` of a cluster: counters are read when asked for, the load is as old as the telemetry."""

    def __init__(self, cluster, changes: "FleetChanges") -> None:
        self._cluster, self._changes = cluster, changes
        self._booked: dict[int, tuple[int, float]] = {}  # worker -> rows of its log that were added up, their seconds

    @property
    def prefill(self) -> tuple[int, ...]:
        return self._cluster.views.prefill

    @property
    def decode(self) -> tuple[int, ...]:
        return self._cluster.views.decode

    @property
    def starting(self) -> tuple[int, ...]:
        return tuple(self._changes.starting)

    @property
    def leaving(self) -> tuple[int, ...]:
        return tuple(self._changes.leaving)

    def __getitem__(self, worker: int) -> WorkerView:
        return self._cluster.views[worker]

    def busy_s(self, worker: int) -> float:
        """The steps booked so far, less what the one in flight has still to go; only new rows are looked at."""
        now, one = self._cluster.views.now, self._cluster.workers[worker]
        one.advance(now)
        log = one.log
        row, seconds = self._booked.get(worker, (0, 0.0))
        for new in range(row, len(log)):
            seconds += row_duration_s(log, new)
        self._booked[worker] = len(log), seconds
        return seconds - max(0.0, row_end_s(log, len(log) - 1) - now) if len(log) else 0.0


class FleetChanges:
    """The scaler of a cluster, and its workers on their way in and out.

    `holds[w]` are the sequences that worker w has yet to do something for, those on their way to it
    included. `actions` is what was done: when, what, to which worker of which role, and why.
    """

    def __init__(self, cluster, scaler: Scaler) -> None:
        self._cluster, self._scaler = cluster, scaler
        self.views = ScalerViews(cluster, self)
        self.holds: list[set[Sequence]] = [set() for _ in cluster.workers]
        self.starting: list[int] = []
        self.leaving: dict[int, int | None] = {}  # worker -> the one that takes over its GPUs
        self.actions: list[dict] = []

    @property
    def counts(self) -> dict[str, int]:
        """How many workers were started, stopped and given another role, cancelled starts not counted."""
        kinds = [action["action"] for action in self.actions]
        return {f"workers_{name}": kinds.count(name) for name in ("start", "stop", "change")}

    # -- the scaler is asked

    def begin(self) -> None:
        """The run begins: the scaler is asked after its first period."""
        self._cluster.at(self._scaler.period_s, FLEET, self._on_tick, None)

    def _on_tick(self, _: None, now: float) -> None:
        if not self._cluster.busy():
            return
        self._cluster.views.now = now
        self._apply(self._scaler.scale(self.views, now), now)
        self._cluster.at(now + self._scaler.period_s, FLEET, self._on_tick, None)

    def _apply(self, plan: Plan, now: float) -> None:
        self._check(plan)
        for worker, role in plan.role_changes:
            if not self._is_last(worker):
                self._drain(worker, now, plan.reason, self._grow(role))
        for role, wanted in plan.workers.items():
            more = wanted - self._size(role)
            for _ in range(more):
                self._start(self._grow(role), now, plan.reason)
            if more < 0:
                self._shrink(role, -more, now, plan.reason)

    def _check(self, plan: Plan) -> None:
        """Raise `InputError` for a plan that cannot be carried out, or takes a part of the service away."""
        cluster, name = self._cluster, self._scaler.name
        sizes = {role: self._size(role) for role in ROLES}
        served, changed = serves(sizes), set()
        for worker, role in plan.role_changes:
            known = 0 <= worker < len(cluster.workers) and cluster.open[worker] and worker not in changed
            if not known or role not in ROLES or role == cluster.workers[worker].spec.role:
                raise InputError(
                    f"scaler {name} gave worker {worker} the role {role!r}; name a worker that takes requests, once, "
                    f"and a role of {', '.join(ROLES)} that it does not have"
                )
            changed.add(worker)
            sizes[cluster.workers[worker].spec.role] -= 1
            sizes[role] += 1
        for role, wanted in plan.workers.items():
            if role not in ROLES or wanted < 0:
                raise InputError(f"scaler {name} wants {wanted} {role} workers; name roles of {', '.join(ROLES)}")
            sizes[role] = wanted
        if served and not serves(sizes):
            raise InputError(f"scaler {name} wants {sizes}, a fleet that cannot serve; keep a worker for each part")
        if sizes["prefill"] and cluster.spec.link is None:
            raise InputError(f"scaler {name} wants prefill workers, which hand KV over; give the fleet a link")

    def _size(self, role: str) -> int:
        """Workers of a role that take requests, or are starting."""
        cluster = self._cluster
        return sum(w.spec.role == role and (cluster.open[w.index] or w.index in self.starting) for w in cluster.workers)

    def _is_last(self, worker: int) -> bool:
        """Whether nobody else takes prefills, or nobody else decodes."""
        views = self._cluster.views
        return views.prefill == (worker,) or views.decode == (worker,)

    # -- in

    def _grow(self, role: str) -> int:
        """A worker that is not there yet; returns its id."""
        workers = self._cluster.spec.workers
        like = next((w for w in workers if w.role == role), replace(workers[0], role=role))
        self.holds.append(set())
        index = self._cluster.grow(like)
        self.starting.append(index)
        return index

    def _start(self, worker: int, now: float, reason: str) -> None:
        self._note("start", worker, now, reason)
        self._occupy(worker, now, self._cluster.spec.startup_s)

    def _occupy(self, worker: int, now: float, seconds: float) -> None:
        self._cluster.stays[worker].start_s = now
        self._cluster.at(now + seconds, FLEET, self._ready, worker)

    def _ready(self, worker: int, now: float) -> None:
        if worker not in self.starting:
            return  # called off meanwhile
        cluster = self._cluster
        self.starting.remove(worker)
        cluster.stays[worker].ready_s = now
        cluster.alive[worker] = True
        cluster.set_open(worker, True)
        cluster.at(now, ARRIVAL, self._retry, None)

    def _retry(self, _: None, now: float) -> None:
        if self._cluster.front.held:
            self._cluster.front.retry_held(now)

    # -- out

    def _shrink(self, role: str, count: int, now: float, reason: str) -> None:
        """Call off the latest starts; then the workers with the fewest requests go, the highest id among equals."""
        cluster = self._cluster
        called_off = [w for w in reversed(self.starting) if cluster.workers[w].spec.role == role][:count]
        for worker in called_off:
            self._call_off(worker, now, reason)
        staying = [w.index for w in cluster.workers if w.spec.role == role and cluster.open[w.index]]
        staying.sort(key=lambda w: (len(self.holds[w]), -w))
        for worker in staying[: count - len(called_off)]:
            if not self._is_last(worker):
                self._drain(worker, now, reason, None)

    def _call_off(self, worker: int, now: float, reason: str) -> None:
        self._note("call off", worker, now, reason)
        self.starting.remove(worker)
        self.leaving.update({old: None for old, new in self.leaving.items() if new == worker})
        if self._cluster.stays[worker].start_s is not None:
            self._cluster.stays[worker].stop_s = now

    def _drain(self, worker: int, now: float, reason: str, successor: int | None) -> None:
        """The worker takes no new requests, and goes when it has finished what it has."""
        self._note("stop" if successor is None else "change", worker, now, reason)
        self.leaving[worker] = successor
        self._cluster.set_open(worker, False)
        self._cluster.front.tell_all(WorkerLost(worker), now)
        self._go_when_done(worker, now)

    def _go_when_done(self, worker: int, now: float) -> None:
        if self.holds[worker] or worker not in self.leaving:
            return
        successor = self.leaving.pop(worker)
        self._cluster.alive[worker] = False
        self._cluster.stays[worker].stop_s = now
        if successor is not None:
            self._occupy(successor, now, self._cluster.spec.role_change_s)

    def _note(self, action: str, worker: int, now: float, reason: str) -> None:
        role = self._cluster.workers[worker].spec.role
        self.actions.append({"time_s": now, "action": action, "worker": worker, "role": role, "reason": reason})

    # -- what the cluster tells

    def dispatched(self, sequence: Sequence) -> None:
        """A sequence was sent to its workers."""
        self.holds[sequence.prefill_worker].add(sequence)
        self.holds[sequence.decode_worker].add(sequence)

    def left(self, sequence: Sequence, now: float) -> None:
        """A sequence needs its workers no more, or is to be placed anew."""
        for worker in (sequence.prefill_worker, sequence.decode_worker):
            if worker is not None:
                self.released(sequence, worker, now)

    def released(self, sequence: Sequence, worker: int, now: float) -> None:
        """A sequence needs `worker` no more."""
        self.holds[worker].discard(sequence)
        self._go_when_done(worker, now)

    def lost(self, worker: int) -> None:
        """A worker has failed; when it was to change its role, nobody takes over."""
        successor = self.leaving.pop(worker, None)
        if successor is not None:
            self.starting.remove(successor)


def serves(sizes: dict[str, int]) -> bool:
    """Whether a fleet with so many workers of each role can take a request to its end."""
    return bool(sizes["mixed"] or (sizes["prefill"] and sizes["decode"]))
