"""Scaling by thresholds on queue, utilisation and KV memory, one worker at a time."""

from dataclasses import dataclass, field
from math import fsum
from typing import ClassVar, NamedTuple

from helpers.errors import InputError
from helpers.policies.routing import STATE, parameter
from helpers.policies.scaling.pools import PERIOD_S, Pool, check_period, check_range, pools_of
from helpers.policies.view import Event, FleetViews, Plan


class Signal(NamedTuple):
    """A figure of a pool with the values at which the pool grows and shrinks."""

    name: str
    value: float | None  # None: not known yet
    up: float
    down: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A pool grows by one when any of its signals is at or above `up`, shrinks by one when all are at or below `down`.

    Any, because one resource that has run out is enough to make requests wait; all, because a worker can
    only be spared when none is short. The signals are means over the workers that take requests:

    prefill: requests waiting; utilisation, the share of the time since the last look that was spent in steps
    decode: requests waiting; the share of KV blocks in use
    mixed: requests waiting as for prefill, KV blocks as for decode. Utilisation says nothing of a worker
           that decodes: it is in a step whenever it has a request at all.

    After a change of a pool it is left alone for `cooldown_s`. Workers that are starting count, so that the
    bounds hold, and bounds are enforced at once. The thresholds and the bounds of prefill and decode pools
    are those of the course's configuration (`data/dynamo_config.yaml`), after the example of the original
    chapter; bounds of mixed pools, period and cooldown are set by hand. Waiting on a decode worker are only
    requests that it has preempted: whoever waits for its memory holds its KV on a prefill worker.
    """

    name: ClassVar[str] = "thresholds"
    observes: ClassVar[frozenset[type]] = frozenset()
    prefill_min: int = parameter(4, "prefill workers at least")
    prefill_max: int = parameter(12, "prefill workers at most")
    prefill_queue_up: float = parameter(8.0, "requests waiting per prefill worker at which one is added")
    prefill_queue_down: float = parameter(2.0, "requests waiting per prefill worker at which one may go")
    utilisation_up: float = parameter(0.8, "share of time in steps of prefill workers at which one is added")
    utilisation_down: float = parameter(0.4, "share of time in steps of prefill workers at which one may go")
    decode_min: int = parameter(8, "decode workers at least")
    decode_max: int = parameter(24, "decode workers at most")
    decode_queue_up: float = parameter(16.0, "requests waiting per decode worker at which one is added")
    decode_queue_down: float = parameter(4.0, "requests waiting per decode worker at which one may go")
    kv_up: float = parameter(0.75, "share of KV blocks in use at which a worker is added")
    kv_down: float = parameter(0.3, "share of KV blocks in use at which one may go")
    mixed_min: int = parameter(1, "mixed workers at least")
    mixed_max: int = parameter(8, "mixed workers at most")
    cooldown_s: float = parameter(60.0, "seconds for which a pool is left alone after a change")
    period_s: float = parameter(PERIOD_S, "seconds between two looks at the fleet")
    _busy: dict[int, tuple[float, float]] = field(default_factory=dict, **STATE)  # worker -> (when, busy seconds)
    _roles: list[str] = field(default_factory=list, **STATE)  # roles that the fleet has had
    _changed: dict[str, float] = field(default_factory=dict, **STATE)  # pool -> when it was changed

    def __post_init__(self) -> None:
        check_period(self.name, self.period_s)
        for role in ("prefill", "decode", "mixed"):
            check_range(self.name, role, getattr(self, f"{role}_min"), getattr(self, f"{role}_max"))
        for name in ("prefill_queue", "utilisation", "decode_queue", "kv"):
            down, up = getattr(self, f"{name}_down"), getattr(self, f"{name}_up")
            if not 0 <= down < up:
                raise InputError(
                    f"scaler thresholds: {name} down at {down} and up at {up}; give 0 or more, down below up"
                )
        if not self.cooldown_s >= 0:
            raise InputError(f"scaler thresholds: cooldown_s is {self.cooldown_s}; give 0 or more")

    def scale(self, views: FleetViews, now: float) -> Plan:
        wanted, reasons = {}, []
        for role, pool in pools_of(views, self._roles).items():
            least, most = getattr(self, f"{role}_min"), getattr(self, f"{role}_max")
            step, reason = self._step(self._signals(pool, views, now)) if pool.open else (0, "")
            if now - self._changed.get(role, -self.cooldown_s) < self.cooldown_s:
                step = 0
            size = min(max(pool.size + step, least), most)
            if size != pool.size:
                self._changed[role] = now
                reasons.append(f"{role}: {reason}" if size == pool.size + step else f"{role}: {least} to {most}")
            wanted[role] = size
        return Plan(wanted, "; ".join(reasons))

    def observe(self, event: Event, now: float) -> None:
        """Nothing to learn from events."""

    def _signals(self, pool: Pool, views: FleetViews, now: float) -> list[Signal]:
        """What is looked at in a pool."""
        waiting = fsum(view.waiting for view in pool.open) / len(pool.open)
        kv = fsum(view.kv_used_blocks / view.kv_total_blocks for view in pool.open) / len(pool.open)
        of_kv = Signal("KV in use", kv, self.kv_up, self.kv_down)
        if pool.role == "decode":
            return [Signal("waiting", waiting, self.decode_queue_up, self.decode_queue_down), of_kv]
        queue = Signal("waiting", waiting, self.prefill_queue_up, self.prefill_queue_down)
        if pool.role == "mixed":
            return [queue, of_kv]
        return [queue, Signal("utilisation", self._share(pool, views, now), self.utilisation_up, self.utilisation_down)]

    def _share(self, pool: Pool, views: FleetViews, now: float) -> float | None:
        """The mean share of the time since the last look that workers spent in steps; None of new ones only."""
        shares = []
        for view in pool.open:
            busy_s = views.busy_s(view.worker)
            then, before_s = self._busy.get(view.worker, (now, busy_s))
            self._busy[view.worker] = now, busy_s
            if now > then:
                shares.append((busy_s - before_s) / (now - then))
        return fsum(shares) / len(shares) if shares else None

    def _step(self, signals: list[Signal]) -> tuple[int, str]:
        """One more, one fewer or neither, and why."""
        for one in signals:
            if one.value is not None and one.value >= one.up:
                return 1, f"{one.name} {one.value:.2f} >= {one.up:g}"
        if all(one.value is not None and one.value <= one.down for one in signals):
            return -1, ", ".join(f"{one.name} {one.value:.2f} <= {one.down:g}" for one in signals)
        return 0, ""
