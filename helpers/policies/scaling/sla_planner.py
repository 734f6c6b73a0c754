"""As in Dynamo's planner: react to predicted latencies, and keep a floor that follows the demand.

Sources: Dynamo's planner guide and design (docs.nvidia.com/dynamo, components/planner) and pull requests
6145 (load mode), 9294 (the look at the survivors) and 6985 (what no traffic means) of ai-dynamo/dynamo.
"""

from dataclasses import dataclass, field
from math import ceil, inf
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.routing import STATE, parameter
from helpers.policies.scaling.capacity import (
    batch_capacity_per_s,
    latency,
    own_prefill_s,
    prefill_capacity_per_s,
    scaled,
)
from helpers.policies.scaling.demand import DEMAND_EVENTS, Demand, RecentDemand, WindowedDemand
from helpers.policies.scaling.pools import Pool, check_period, check_range, in_flight, pools_of
from helpers.policies.view import Event, FleetViews, Plan, WorkerView

SLACK = 1e-9  # a tick that is early by rounding is on time


@dataclass(frozen=True, slots=True)
class SLAPlanner:
    """Two modes that look at the same fleet at different paces.

    Load mode, every `period_s`: each worker's TTFT and ITL are predicted for the next request. A pool gets
    one worker more when all of its workers are over the SLA, in TTFT or in ITL, and loses one when all are
    under `sensitivity` x SLA in both. With `consolidation` the second is asked of those who would be left:
    of N workers each takes N / (N - 1) of its load, then queue < sensitivity x (TTFT - own prefill),
    ITL < sensitivity x ITL bound, and the KV must fit. Without it a fleet whose load one worker cannot bear
    goes 2, 1, 2, 1 for ever.

    Throughput mode, every `throughput_s`: the demand of the last `windows` windows, divided by what one
    worker takes under the SLA, is the least that load mode may leave of each pool.

    While a worker starts or leaves nothing is changed. Where a prompt alone takes longer than the TTFT
    bound no fleet keeps it, and only the queue is compared with it (else the fleet would grow to its limit).

    Where this differs from Dynamo: latencies come from the predictor of a step and not from a regression
    over samples, and the demand from the arrivals.
    """

    name: ClassVar[str] = "sla_planner"
    observes: ClassVar[frozenset[type]] = DEMAND_EVENTS
    predictor: CostPredictor
    block_tokens: int = 512
    kv_blocks: int = 1000
    ttft_s: float = parameter(0.5, "TTFT bound, seconds")
    itl_s: float = parameter(0.05, "ITL bound, seconds")
    sensitivity: float = parameter(0.8, "share of the bounds below which a worker can be spared")
    consolidation: bool = parameter(True, "before a worker goes, look at the load that the others would have")
    load_mode: bool = parameter(True, "react to predicted latencies; false: follow the demand alone")
    period_s: float = parameter(5.0, "seconds between two looks at the load")
    throughput_s: float = parameter(180.0, "seconds between two looks at the demand; 0: load mode alone")
    windows: int = parameter(1, "windows of demand that are averaged; 1: the last one is the prediction")
    max_batch: int = parameter(256, "requests that a worker decodes at once at most")
    min_workers: int = parameter(1, "workers of each pool at least")
    max_workers: int = parameter(8, "workers of all pools at most")
    recent: RecentDemand = field(default_factory=RecentDemand, **STATE)
    _roles: list[str] = field(default_factory=list, **STATE)  # roles that the fleet has had
    floors: dict[str, int] = field(default_factory=dict, **STATE)
    _windows: list[WindowedDemand] = field(default_factory=list, **STATE)
    _next_s: list[float] = field(default_factory=list, **STATE)  # when the demand is looked at next

    def __post_init__(self) -> None:
        if self.predictor is None:
            raise InputError("scaler sla_planner predicts times; give it a predictor, such as Fleet(...).predictor()")
        check_period(self.name, self.period_s)
        check_range(self.name, "any", self.min_workers, self.max_workers)
        for name in ("ttft_s", "itl_s"):
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"scaler sla_planner: {name} is {getattr(self, name)}; give a number above 0")
        if not 0 < self.sensitivity <= 1:
            raise InputError(f"scaler sla_planner: sensitivity is {self.sensitivity}; give a share above 0, at most 1")
        for name in ("windows", "max_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"scaler sla_planner: {name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.throughput_s < inf or not (self.load_mode or self.throughput_s):
            raise InputError(
                f"scaler sla_planner: throughput_s is {self.throughput_s} with load_mode {self.load_mode}; "
                "give a number of seconds, above 0 when the load is not looked at"
            )
        self._windows.append(WindowedDemand(self.windows))
        self._next_s.append(self.throughput_s or inf)

    def observe(self, event: Event, now: float) -> None:
        self.recent.observe(event, now)
        self._windows[0].observe(event, now)

    def scale(self, views: FleetViews, now: float) -> Plan:
        pools = pools_of(views, self._roles)
        self._follow_demand(pools, now)
        if in_flight(pools):
            return Plan({}, "a change is under way")
        wanted, reasons = {}, []
        demand = self.recent.at(now)
        for role, pool in pools.items():
            step, reason = self._react(pool, demand) if self.load_mode and demand else (0, "")
            floor = max(self.floors.get(role, 0), self.min_workers)
            target = max(pool.size + step, floor) if self.load_mode or role not in self.floors else floor
            if target > pool.size + step:
                reason = f"{role}: {floor} at least for the demand"
            wanted[role] = target
            reasons += [reason] if reason else []
        return Plan(fitted(wanted, pools, self.max_workers), "; ".join(reasons))

    # -- load mode

    def _react(self, pool: Pool, demand: Demand) -> tuple[int, str]:
        """One more, one fewer or neither, and why."""
        over = [self._over(view, demand, len(pool.open)) for view in pool.open]
        for bound in ("TTFT", "ITL"):
            if over and all(bound in one for one in over):
                return 1, f"{pool.role}: all over the {bound}"
        if len(pool.open) < 2 or not all(self._spares(view, demand, len(pool.open)) for view in pool.open):
            return 0, ""
        return -1, f"{pool.role}: one can be spared"

    def _over(self, view: WorkerView, demand: Demand, workers: int) -> tuple[str, ...]:
        """The bounds that a worker is predicted to miss, of those that any fleet could keep."""
        now = latency(self.predictor, view, demand, workers)
        waits = view.role != "decode" and self._late(now.own_s, now.queue_s, 1.0)
        paces = now.itl_s > self.itl_s and self._itl_alone(demand) < self.itl_s
        return (*(("TTFT",) if waits else ()), *(("ITL",) if paces else ()))

    def _late(self, own_s: float, queue_s: float, share: float) -> bool:
        """Whether a queue takes more than a share of what the prompt's own time leaves of the TTFT bound."""
        return queue_s > share * (self.ttft_s - own_s if own_s < self.ttft_s else self.ttft_s)

    def _itl_alone(self, demand: Demand) -> float:
        base, slope = self.predictor.cost.decode(1)
        return base + slope * demand.context_tokens

    def _spares(self, view: WorkerView, demand: Demand, workers: int) -> bool:
        """Whether a worker is far enough below the bounds, now or with the load that it would have."""
        share = self.sensitivity
        if not self.consolidation:
            now = latency(self.predictor, view, demand, workers)
            fast = view.role == "decode" or now.ttft_s < share * self.ttft_s
            return fast and now.itl_s < share * self.itl_s
        after = scaled(view, workers / (workers - 1))
        then = latency(self.predictor, after, demand, workers - 1)
        fast = view.role == "decode" or (then.own_s < self.ttft_s and not self._late(then.own_s, then.queue_s, share))
        return fast and then.itl_s < share * self.itl_s and after.kv_used_blocks <= view.kv_total_blocks

    # -- throughput mode

    def _follow_demand(self, pools: dict[str, Pool], now: float) -> None:
        """When it is time, set the floors of the pools from the demand."""
        if now < self._next_s[0] - SLACK:
            return
        self._next_s[0] = now + self.throughput_s
        demand = self._windows[0].close(now)
        for role in pools:
            needed = ceil(demand.rate_per_s / self.capacity_per_s(role, demand)) if demand else 0
            self.floors[role] = min(needed, self.max_workers)

    def capacity_per_s(self, role: str, demand: Demand) -> float:
        """Requests a second that one worker of a role takes under the SLA."""
        own_s = own_prefill_s(self.predictor, demand) if role != "decode" else 0.0
        prefills = prefill_capacity_per_s(own_s, self.ttft_s) if own_s else inf
        if role == "prefill":
            return prefills
        kv_tokens = self.kv_blocks * self.block_tokens
        return min(prefills, batch_capacity_per_s(self.predictor, demand, self.itl_s, kv_tokens, self.max_batch, own_s))


def fitted(wanted: dict[str, int], pools: dict[str, Pool], most: int) -> dict[str, int]:
    """The wanted numbers, cut to `most` in all: first what pools would gain, the largest gain first, then the largest.

    No pool is cut below one worker.
    """
    wanted = dict(wanted)
    while sum(wanted.values()) > most:
        role = max(wanted, key=lambda r: (wanted[r] > 1, max(0, wanted[r] - pools[r].size), wanted[r]))
        if wanted[role] == 1:
            break
        wanted[role] -= 1
    return wanted
