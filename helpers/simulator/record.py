"""From the mutable state of a sequence to the record of a request."""

from helpers.metrics.timeline import Timeline
from helpers.scheduling.sequence import Sequence


def timeline_of(s: Sequence) -> Timeline:
    """The record of a sequence that has left, or never will."""
    r = s.request
    return Timeline(
        r.id,
        s.arrival_s,
        s.prompt,
        s.output,
        s.status,
        s.reason,
        s.prefill_worker,
        s.decode_worker,
        s.dispatched_s,
        s.prefill_start_s,
        s.first_token_s,
        s.finished_s,
        s.generated,
        s.cached_tokens,
        s.fetched_tokens,
        s.prefilled_tokens,
        s.preemptions,
        s.requeues,
        s.transfer_start_s,
        s.transfer_end_s,
        r.session,
        r.tenant,
        r.slo_class,
        r.priority,
        s.spans,
    )
