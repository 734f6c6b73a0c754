"""A fleet held still: the views of its workers as a plain table, for examples, tests and benchmarks."""

from collections.abc import Iterable, Mapping

from helpers.errors import InputError
from helpers.policies.view import WorkerView

PREFILL_ROLES = ("mixed", "prefill")
DECODE_ROLES = ("mixed", "decode")


IDLE = WorkerView(
    worker=0,
    role="mixed",
    age_s=0.0,
    running=0,
    waiting=0,
    waiting_tokens=0,
    kv_tokens=0,
    kv_used_blocks=0,
    kv_total_blocks=1000,
)


def view(worker: int, role: str = "mixed", **state: float) -> WorkerView:
    """A view of an idle, fresh worker with 1,000 KV blocks, changed by `state` (fields of `WorkerView`)."""
    return IDLE._replace(worker=worker, role=role, **state)


class Snapshot:
    """`Views` over a fixed set of worker views; the worker ids need not be contiguous.

    `prefill` and `decode` are tuples of ascending ids, and one and the same tuple when every
    worker is mixed, as the routers' fast path expects. Raises `InputError` for an unknown role
    or a worker named twice.
    """

    def __init__(self, views: Iterable[WorkerView]) -> None:
        table = {}
        for one in views:
            if one.role not in PREFILL_ROLES + DECODE_ROLES:
                raise InputError(f"worker {one.worker}: role {one.role!r} is unknown; use mixed, prefill or decode")
            if one.worker in table:
                raise InputError(f"worker {one.worker} is in the snapshot twice; give each worker one view")
            table[one.worker] = one
        self._views = dict(sorted(table.items()))
        self.prefill = tuple(w for w, v in self._views.items() if v.role in PREFILL_ROLES)
        decode = tuple(w for w, v in self._views.items() if v.role in DECODE_ROLES)
        self.decode = self.prefill if decode == self.prefill else decode

    def __getitem__(self, worker: int) -> WorkerView:
        return self._views[worker]


class FleetSnapshot(Snapshot):
    """`FleetViews` held still: workers that take requests, that are starting and that are leaving."""

    def __init__(
        self,
        views: Iterable[WorkerView],
        starting: Iterable[WorkerView] = (),
        leaving: Iterable[WorkerView] = (),
        busy_s: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__(views)
        starting, leaving = tuple(starting), tuple(leaving)
        self.starting, self.leaving = tuple(v.worker for v in starting), tuple(v.worker for v in leaving)
        self._views.update((v.worker, v) for v in (*starting, *leaving))
        self._busy_s = busy_s or {}

    def busy_s(self, worker: int) -> float:
        """Seconds in steps, 0 unless said."""
        return self._busy_s.get(worker, 0.0)
