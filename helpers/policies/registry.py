"""The policies by name: what each is, where it comes from, what its parameters are."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.admission import AcceptAll, QueueCap
from helpers.policies.mooncake import Mooncake
from helpers.policies.prefix_routing import PrefixApprox, PrefixExact
from helpers.policies.routing import (
    LeastRequests,
    LeastTokens,
    PowerOfTwo,
    RandomRouter,
    RoundRobin,
    StaticShard,
)
from helpers.policies.scaling import Fixed
from helpers.policies.view import Admission, Router, Scaler


@dataclass(frozen=True)
class Parameter:
    """A parameter of a policy: the types it takes, its default, and what it means."""

    name: str
    types: tuple[type, ...]
    default: object
    meaning: str

    def accepts(self, value: object) -> bool:
        """Whether `value` has a type of this parameter; a whole number is also a number, true and false are none."""
        return type(value) in self.types or (type(value) is int and float in self.types)


@dataclass(frozen=True)
class Entry:
    """A policy in the registry: its constructor, one line on what it does, and its source."""

    make: Callable[..., Any]
    summary: str
    source: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that may be set, in the order of the constructor."""
        return tuple(
            Parameter(one.name, get_args(one.type) or (one.type,), one.default, one.metadata["meaning"])
            for one in fields(self.make)
            if "meaning" in one.metadata
        )

    @property
    def takes_blocks(self) -> bool:
        """Whether it has to be told the workload's tokens per block."""
        return any(one.name == "block_tokens" for one in fields(self.make))

    @property
    def takes_predictor(self) -> bool:
        """Whether it has to be given predicted latencies."""
        return any(one.name == "predictor" for one in fields(self.make))


ROUTERS = {
    "random": Entry(RandomRouter, "a worker drawn uniformly", "textbook"),
    "round_robin": Entry(RoundRobin, "the workers in turn", "textbook"),
    "static_shard": Entry(
        StaticShard,
        "the worker that the session (else the prompt's first blocks, else the id) hashes to",
        "textbook; as vLLM production-stack's hash of the conversation key",
    ),
    "least_requests": Entry(
        LeastRequests, "the worker with the fewest requests, waiting or running", "textbook: join the shortest queue"
    ),
    "least_tokens": Entry(
        LeastTokens,
        "the worker with the fewest tokens: waiting_tokens + kv_weight x kv_tokens",
        "as Splitwise's token-based join the shortest queue; the weight is this course's",
    ),
    "power_of_two": Entry(
        PowerOfTwo, "of two workers drawn uniformly, the one with fewer requests", "Mitzenmacher, IEEE TPDS 2001"
    ),
    "prefix_approx": Entry(
        PrefixApprox,
        "least uncached prompt + load, the cache guessed from this router's own dispatches",
        "the form of Dynamo's KV router without KV events",
    ),
    "prefix_exact": Entry(
        PrefixExact,
        "least uncached prompt + load, the cache known from KV events",
        "the form of Dynamo's KV router with KV events",
    ),
    "mooncake": Entry(
        Mooncake,
        "least predicted TTFT: copy of a prefix + queue + prefill, the cache known from KV events",
        "Mooncake's Conductor, FAST'25, Algorithm 1",
    ),
}

ADMISSIONS = {
    "none": Entry(AcceptAll, "every request is accepted", "textbook"),
    "queue_cap": Entry(
        QueueCap,
        "rejects when the chosen worker has max_waiting requests waiting",
        "as vLLM --max-num-queued-reqs (PR 49445), at the front end",
    ),
}

SCALERS = {"fixed": Entry(Fixed, "always the same number of workers", "textbook")}

WORDS = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "nothing"}

KINDS = {"router": ROUTERS, "admission": ADMISSIONS, "scaler": SCALERS}


def router(
    name: str,
    workers: int,
    block_tokens: int = 512,
    predictor: CostPredictor | None = None,
    **parameters: object,
) -> Router:
    """A fresh router for a fleet of `workers` workers and prompts hashed in blocks of `block_tokens` tokens.

    A router that predicts times is given `predictor`, the others are not.
    Raises `InputError` for an unknown name or parameter, a value of the wrong type or range, or
    a fleet without workers.
    """
    if workers < 1:
        raise InputError(f"router {name}: the fleet has {workers} workers; give it 1 or more")
    entry = find("router", name)
    if block_tokens < 1:
        raise InputError(f"router {name}: block_tokens is {block_tokens}; give 1 or more")
    facts = {"block_tokens": block_tokens} if entry.takes_blocks else {}
    if entry.takes_predictor:
        facts["predictor"] = predictor
    return entry.make(**facts, **checked("router", name, parameters))


def admission(name: str, **parameters: object) -> Admission:
    """A fresh admission policy; raises `InputError` as `router` does."""
    return find("admission", name).make(**checked("admission", name, parameters))


def scaler(name: str, **parameters: object) -> Scaler:
    """A fresh scaler; raises `InputError` as `router` does."""
    return find("scaler", name).make(**checked("scaler", name, parameters))


def find(kind: str, name: str) -> Entry:
    """The policy `name` of a kind (`router`, `admission`, `scaler`); raises `InputError` listing the known names."""
    known = KINDS[kind]
    if name not in known:
        raise InputError(f"{kind} {name!r} is unknown; use one of {', '.join(known)}")
    return known[name]


def checked(kind: str, name: str, given: dict[str, object]) -> dict[str, object]:
    """`given`, when each is a parameter of the policy and of its type; else raises `InputError`."""
    known = {one.name: one for one in find(kind, name).parameters}
    for key, value in given.items():
        if key not in known:
            which = f"its parameters are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{kind} {name}: parameter {key!r} is unknown; {which}")
        if not known[key].accepts(value):
            wanted = " or ".join(WORDS[one] for one in known[key].types)
            raise InputError(f"{kind} {name}: {key} is {value!r}; give {wanted}")
    return given
