"""KV that moves: from prefill to decode workers, and from one worker's prefix cache to another's."""

from collections import deque

from helpers.errors import InputError
from helpers.policies.view import Decision, HandedOver
from helpers.scheduling.sequence import Sequence
from helpers.simulator.links import Links
from helpers.simulator.ranks import TRANSFER


class HandOff:
    """Hand-offs and fetches of one cluster.

    A sequence whose prefill has ended waits, holding its blocks, until its decode worker has room;
    then its KV crosses the link and it decodes. A transfer under way completes even when the
    sender is lost.
    """

    def __init__(self, cluster) -> None:
        self._cluster = cluster
        spec = cluster.spec
        self._links = Links(spec.link, len(spec.workers)) if spec.link else None
        self._backlog: dict[int, deque[Sequence]] = {}
        self._batch: tuple | None = None  # (source, target, time) of the last batched hand-off

    def begin(self, sequence: Sequence, source, now: float) -> None:
        """The prefill of a sequence has ended on `source`."""
        target = self._cluster.workers[sequence.decode_worker]
        if not (self._cluster.alive[target.index] and self._cluster.alive[source.index]):
            self._free(source, source.keep(sequence), now)
            self._cluster.front.requeue(sequence, now)
            return
        if self._cluster.front.turned_away(sequence, now):
            self._free(source, source.keep(sequence), now)
            return
        self._backlog.setdefault(target.index, deque()).append(sequence)
        self.serve(target, now, sequence)

    def serve(self, target, now: float, ended: Sequence | None = None) -> None:
        """Start the transfers to `target` for which it has room, in the order of their prefills.

        The prefill of `ended` ends now. Whoever had to wait for room could send no layer during its prefill.
        """
        backlog = self._backlog.get(target.index)
        while backlog:
            sequence = backlog[0]
            source = self._cluster.workers[sequence.prefill_worker]
            if not target.has_room(sequence, now):
                return
            kept = source.keep(sequence)
            target.reserve(sequence, now)
            backlog.popleft()
            overlap_s = now - max(sequence.prefill_start_s, sequence.dispatched_s) if sequence is ended else 0.0
            self._send(sequence, kept, target, now, overlap_s)
            self._cluster.replan(target)

    def _send(self, sequence: Sequence, kept: object, target, now: float, overlap_s: float) -> None:
        spec, link = self._cluster.spec, self._cluster.spec.link
        source = self._cluster.workers[sequence.prefill_worker]
        size = sequence.computed * spec.kv_bytes_per_token
        idle_s = self._links.idle_s(source.index, target.index, now)
        seconds = link.wire_s(size, overlap_s, spec.layers, idle_s)
        batch = (source.index, target.index, now)
        if link.mode != "batched" or batch != self._batch:
            seconds += link.latency_s
        self._batch = batch
        sequence.transfer_start_s, end = self._links.send(source.index, target.index, seconds, now)
        sequence.transfer_end_s = end
        if link.mode == "blocking" and self._cluster.alive[source.index]:
            source.touch(now)
            source.stall(end)
            self._cluster.replan(source)
        self._cluster.at(end, TRANSFER, self._arrived, (sequence, source, kept, target))

    def _arrived(self, moved: tuple, now: float) -> None:
        sequence, source, kept, target = moved
        self._free(source, kept, now)
        if sequence in target.reserved:
            target.join(sequence, now)
            self._cluster.front.tell(sequence, HandedOver(sequence.request, target.index, now), now)
            self._cluster.replan(target)
            if self._cluster.changes:
                self._cluster.changes.released(sequence, source.index, now)

    def grow(self) -> None:
        """One more worker."""
        if self._links:
            self._links.grow()

    def _free(self, source, kept: object, now: float) -> None:
        if self._cluster.alive[source.index]:
            source.release(kept, now)
            self._cluster.replan(source)

    def lose(self, index: int, now: float) -> list[Sequence]:
        """Worker `index` is gone: the sequences that waited for it, or whose KV it still held."""
        lost = list(self._backlog.pop(index, ()))
        for sequence in lost:
            source = self._cluster.workers[sequence.prefill_worker]
            self._free(source, source.keep(sequence), now)
        for target, backlog in self._backlog.items():
            kept = deque(s for s in backlog if s.prefill_worker != index)
            lost += [s for s in backlog if s.prefill_worker == index]
            self._backlog[target] = kept
        return lost

    def fetch(self, sequence: Sequence, decision: Decision, now: float) -> float:
        """Copy a prefix from another worker's cache; returns when it has arrived.

        What is no longer cached at the source is not copied. Raises `InputError` for a copy that
        cannot be: from a worker that does not exist, or without a link.
        """
        cluster, index = self._cluster, decision.kv_source
        if not 0 <= index < len(cluster.workers) or decision.fetch_tokens < 0:
            raise InputError(
                f"a router chose to copy {decision.fetch_tokens} tokens of KV from worker {index}; "
                f"the fleet has 0 to {len(cluster.workers) - 1}, and the tokens are 0 or more"
            )
        if self._links is None:
            raise InputError("a router chose to copy KV from another worker, but the fleet has no link; give it one")
        source = cluster.workers[index]
        if index == decision.prefill or not cluster.alive[index]:
            return now
        source.advance(now)
        block_tokens = source.spec.limits.block_tokens
        held = source.pool.cached(sequence.hashes, sequence.matchable(block_tokens)) * block_tokens
        tokens = min(decision.fetch_tokens, held)
        if not tokens:
            return now
        seconds = cluster.spec.link.transfer_s(tokens * cluster.spec.kv_bytes_per_token)
        _, end = self._links.send(source.index, decision.prefill, seconds, now)
        sequence.imported = tokens
        return end
