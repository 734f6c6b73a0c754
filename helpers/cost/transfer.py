"""The time to move KV between workers: latency plus bytes over bandwidth, and what of it is exposed."""

from dataclasses import dataclass
from math import inf

from helpers.errors import InputError

MODES = ("blocking", "layerwise", "batched")


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a worker's connection: `latency_s` per transfer, `bytes_per_s` of payload.

    `mode` says how a hand-off from prefill to decode uses it. `blocking`: the whole cache is sent
    after the prefill and the sender computes nothing meanwhile. `layerwise`: each layer is sent
    while the next ones compute, so that only the tail is exposed. `batched`: after the prefill,
    without stopping the sender; hand-offs that end in the same step share one latency.
    """

    latency_s: float
    bytes_per_s: float
    mode: str = "layerwise"

    def __post_init__(self) -> None:
        if not (0 <= self.latency_s < inf and 0 < self.bytes_per_s < inf):
            raise InputError(
                f"a link with latency {self.latency_s} s and {self.bytes_per_s} bytes/s; "
                "give a finite latency of 0 or more and a positive bandwidth"
            )
        if self.mode not in MODES:
            raise InputError(f"transfer mode {self.mode!r}; use one of {', '.join(MODES)}")

    def transfer_s(self, size_bytes: float) -> float:
        """Seconds for one transfer alone on the link (alpha-beta model)."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def wire_s(self, size_bytes: float, prefill_s: float, layers: int, idle_s: float = inf) -> float:
        """Seconds of the link that are left after the prefill has ended, without latency.

        Layer-wise, all but the last layer can hide behind the computation of the layers after it:
        max(bytes / (layers * rate), bytes / rate - prefill * (layers - 1) / layers). What hides has to cross the link
        as well: no more of it than in the `idle_s` before the end of the prefill in which nothing else did.
        """
        whole = size_bytes / self.bytes_per_s
        if self.mode != "layerwise":
            return whole
        return max(whole / layers, whole - min(prefill_s * (layers - 1) / layers, idle_s))
