"""A request, and a workload: what arrives, before anything decides or runs."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf

from helpers.errors import InputError


@dataclass(frozen=True, slots=True)
class Request:
    """One generation request, as the client would send it.

    `prefix_blocks` are the chained hashes of the prompt's blocks of `Workload.block_tokens`
    tokens each: two requests share a prefix of k blocks exactly when their first k hashes are
    equal. The last hash stands for a partial block when the prompt does not fill it.
    `arrival_s` is the scheduled arrival in seconds from the start (open loop). A request with
    a `parent` arrives `think_time_s` after the parent's last token instead, and not before
    `arrival_s`. A lower `priority` is served first. `deadline_s` counts from the arrival.
    """

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()
    session: int | None = None
    parent: int | None = None
    think_time_s: float = 0.0
    tenant: str = "default"
    slo_class: str = "standard"
    priority: int = 0
    deadline_s: float | None = None


@dataclass(frozen=True)
class Workload:
    """A frozen list of requests in arrival order, with the block size of their hashes.

    `source` says where it came from (a file, or the generator and its parameters), `repairs`
    what was changed on the way (a tick spread, rows skipped), each with its seed.
    """

    name: str
    requests: tuple[Request, ...]
    block_tokens: int = 512
    source: str = ""
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise InputError(f"workload {self.name}: block_tokens is {self.block_tokens}; use 1 or more")

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last scheduled arrival."""
        return self.requests[-1].arrival_s - self.requests[0].arrival_s if self.requests else 0.0

    @property
    def sha256(self) -> str:
        """A digest of everything that a backend can see of the workload."""
        return digest(self.requests, self.block_tokens)

    def at_rate(self, scale: float) -> "Workload":
        """The same requests arriving `scale` times as fast (arrivals and think times divided)."""
        if not 0 < scale < inf:
            raise InputError(f"the rate scale is {scale}; give a finite number above 0")
        scaled = tuple(
            replace(r, arrival_s=r.arrival_s / scale, think_time_s=r.think_time_s / scale) for r in self.requests
        )
        return replace(self, requests=scaled, repairs=(*self.repairs, f"rate x{scale:g}"))

    def without_prefixes(self) -> "Workload":
        """The same requests with prompts that share nothing, so that no cache holds any part of one."""
        bare = tuple(replace(r, prefix_blocks=()) for r in self.requests)
        return replace(self, requests=bare, repairs=(*self.repairs, "no shared prefixes"))


def digest(requests: Iterable[Request], block_tokens: int) -> str:
    """SHA-256 over the fields of each request, floats by `hex()` so that nothing is rounded."""
    h = hashlib.sha256(f"block_tokens={block_tokens}\n".encode())
    for r in requests:
        h.update(
            f"{r.id} {float(r.arrival_s).hex()} {r.prompt_tokens} {r.output_tokens} {r.prefix_blocks} {r.session} "
            f"{r.parent} {float(r.think_time_s).hex()} {r.tenant} {r.slo_class} {r.priority} {r.deadline_s}\n".encode()
        )
    return h.hexdigest()
