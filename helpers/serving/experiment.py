"""`Experiment(workload, fleet, router, …).run(on="simulator")`: one call for every backend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from helpers.checkout import commit
from helpers.errors import InputError
from helpers.policies import registry
from helpers.policies.facts import Facts
from helpers.policies.scaling.fixed import Fixed
from helpers.policies.view import Admission, Router, Scaler
from helpers.scheduling.sequence import Sequence as ServingSequence
from helpers.serving import provenance as made
from helpers.serving.fleet import ROLE_CHANGE_S, Fleet
from helpers.serving.packs import read_pack
from helpers.serving.run import SIMULATED, Provenance, Run
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import Disturbance
from helpers.simulator.frontend import OnDecision
from helpers.simulator.oracle import ENTRY, Oracle
from helpers.workload.request import Workload
from helpers.workload.slo import SLO, SLOs

BACKENDS = ("simulator", "recording", "engine")


@dataclass(frozen=True)
class Experiment:
    """A question: this workload, this fleet, these policies, this SLO.

    `router` is a name (see `hybrid-serving policies`, and `oracle`, which knows what no router can) or
    a function that makes a router for a number of workers, so that one's own class can be tried;
    `router_parameters` go to a named one. `admission` is a name too, or a function that makes a policy
    from the `Facts`. `routers` front ends share the arrivals; each has a router and an admission policy of
    its own, which see only its own requests. `scaler` is a name or a function of the `Facts` too; `fixed`
    without parameters is no scaler at all. A worker that it starts serves after `startup_s` (None: what the
    fleet's model takes, `Fleet.startup_s`), one that has drained to change its role after `role_change_s`.
    Raises `InputError` for names and values that do not exist.
    """

    workload: Workload
    fleet: Fleet = field(default_factory=Fleet)
    router: str | Callable[[int], Router] = "round_robin"
    admission: str | Callable[[Facts], Admission] = "none"
    slo: SLOs = field(default_factory=lambda: SLO(ttft_s=2.0, tpot_s=0.05))
    seed: int = 0
    routers: int = 1
    router_parameters: dict = field(default_factory=dict)
    admission_parameters: dict = field(default_factory=dict)
    disturbances: tuple[Disturbance, ...] = ()
    scaler: str | Callable[[Facts], Scaler] = "fixed"
    scaler_parameters: dict = field(default_factory=dict)
    startup_s: float | None = None
    role_change_s: float = ROLE_CHANGE_S

    def __post_init__(self) -> None:
        if self.routers < 1:
            raise InputError(f"{self.routers} routers route nothing; give at least one")
        self.make_routers()
        self.make_admissions()
        self.make_scaler()

    def facts(self) -> Facts:
        """What the policies are told before the first request."""
        fleet, blocks = self.fleet, self.workload.block_tokens
        return Facts(len(fleet.roles), blocks, fleet.chunk_tokens, fleet.kv_blocks(blocks), fleet.predictor(), self.slo)

    def make_routers(self, facts: Facts | None = None) -> list[Router]:
        """Fresh routers, one a front end; `facts` in place of those of the fleet, where others are known."""
        if callable(self.router):
            return [self.router(len(self.fleet.roles)) for _ in range(self.routers)]
        entry = ENTRY if self.router == Oracle.name else registry.find("router", self.router)
        label, facts = f"router {self.router}", facts or self.facts()
        return [registry.build(entry, label, facts, self.router_parameters) for _ in range(self.routers)]

    def make_admissions(self, facts: Facts | None = None) -> list[Admission]:
        """Fresh admission policies, one a front end; none at all when everything is accepted anyway."""
        facts, fronts = facts or self.facts(), range(self.routers)
        if callable(self.admission):
            return [self.admission(facts) for _ in fronts]
        made = [registry.make("admission", self.admission, facts, **self.admission_parameters) for _ in fronts]
        return [] if self.admission == "none" else made

    def make_scaler(self) -> Scaler | None:
        """A fresh scaler, None for a fleet that stays as it is."""
        facts = self.facts()
        if callable(self.scaler):
            return self.scaler(facts)
        made = registry.make("scaler", self.scaler, facts, **self.scaler_parameters)
        return made if self.scaler != Fixed.name or self.scaler_parameters else None

    def run(
        self,
        on: str = "simulator",
        *,
        pack: str | None = None,
        stepwise: bool = False,
        explain: bool = False,
        tick: Callable[[int], None] | None = None,
        engine: object | None = None,
    ) -> Run:
        """Run on a backend: `simulator` anywhere, `recording` from the `pack` file given, `engine` on this machine.

        `stepwise` uses the slow reference worker; `explain` keeps every decision in the run. `engine` are
        `serving.engine_backend.EngineOptions`: which model serves, on what, how much of the workload. A fleet of
        several workers is a live cluster of processes, and so is one of a single worker when `engine` are
        `serving.cluster_backend.ClusterOptions`. Raises `InputError` for another backend, and for what one cannot do.
        """
        if on == "recording":
            if pack is None:
                raise InputError("a recording needs the file of a pack: run(on='recording', pack=FILE)")
            return read_pack(pack)
        if on == "engine":
            from helpers.serving import cluster_backend, engine_backend

            one = len(self.fleet.roles) == 1 and not isinstance(engine, cluster_backend.ClusterOptions)
            return (engine_backend if one else cluster_backend).run(self, engine)
        if on != "simulator":
            raise InputError(f"backend {on!r} is unknown; use one of {', '.join(BACKENDS)}")
        return self._simulate(stepwise, explain, tick)

    def _simulate(self, stepwise: bool, explain: bool, tick: Callable[[int], None] | None) -> Run:
        decisions: list[dict] = []
        cluster = self.cluster(stepwise, recorder(decisions) if explain else None, tick)
        start = perf_counter()
        log = cluster.run(self.workload.requests)
        wall_s = perf_counter() - start
        changes = tuple(cluster.changes.actions) if cluster.changes else ()
        return Run(log, self.provenance(), wall_s, tuple(decisions), changes)

    def cluster(
        self,
        stepwise: bool = False,
        on_decision: OnDecision | None = None,
        tick: Callable[[int], None] | None = None,
    ) -> Cluster:
        """A fresh simulated cluster under fresh policies, to be run once on the requests of the workload."""
        startup_s = self.fleet.startup_s() if self.startup_s is None else self.startup_s
        spec = self.fleet.cluster(self.workload.block_tokens)
        return Cluster(
            replace(spec, startup_s=startup_s, role_change_s=self.role_change_s),
            self.make_routers(),
            self.make_admissions(),
            self.seed,
            self.disturbances,
            closed_loop=any(r.parent is not None for r in self.workload.requests),
            stepwise=stepwise,
            on_decision=on_decision,
            tick=tick,
            scaler=self.make_scaler(),
        )

    def provenance(self, command: str = "Experiment.run") -> Provenance:
        """What a simulated run of this experiment says of itself."""
        policy = {
            "router": _name(self.router),
            "routers": self.routers,
            **{f"router.{k}": v for k, v in self.router_parameters.items()},
            "admission": _name(self.admission),
            **{f"admission.{k}": v for k, v in self.admission_parameters.items()},
            "disturbances": [repr(d) for d in self.disturbances],
            "scaler": _name(self.scaler),
            **{f"scaler.{k}": v for k, v in self.scaler_parameters.items()},
        }
        if self.make_scaler():
            policy["startup_s"] = self.fleet.startup_s() if self.startup_s is None else self.startup_s
            policy["role_change_s"] = self.role_change_s
        return Provenance(
            kind=SIMULATED,
            hardware_key=f"sim_{len(self.fleet.roles)}x{self.fleet.tp}_{self.fleet.hardware}",
            command=command,
            commit=commit(),
            made=made.now_utc(),
            seeds=(self.seed,),
            workload=self.workload.name,
            workload_sha256=self.workload.sha256,
            repairs=self.workload.repairs,
            policy=policy,
            fleet=self.fleet.describe(),
            versions=made.versions(),
            cost=self.fleet.cost.kind if self.fleet.cost else "predicted",
        )


def _name(policy: str | Callable) -> str:
    """What the record calls a policy: its name, or that of the function that makes it."""
    return policy if isinstance(policy, str) else getattr(policy, "__name__", "own")


def recorder(decisions: list[dict]) -> Callable:
    """Notes each decision with what became of it."""

    def note(sequence: ServingSequence, decision, verdict, now: float) -> None:
        decisions.append(
            {
                "time_s": now,
                "request": sequence.request.id,
                "prefill": decision.prefill,
                "decode": decision.decode,
                "kv_source": decision.kv_source,
                "action": verdict.action,
                "reason": verdict.reason,
                "scores": list(decision.scores),
            }
        )

    return note


def seeds_of(first: int, count: int) -> Sequence[int]:
    """`count` seeds from `first` on; raises `InputError` for none."""
    if count < 1:
        raise InputError(f"{count} seeds make no run; give 1 or more")
    return range(first, first + count)
