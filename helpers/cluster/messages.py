"""What the processes of a cluster say to each other: plain values, packed by msgpack. Nothing is pickled.

A message is a dictionary with a `kind`. A request is known by its *ticket*: a number that the front end gives
out once for every time it sends a request to a worker, so that an answer to an earlier try is nobody's.
"""

from typing import Any

import msgpack

from helpers.workload.request import Request

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """A message as bytes."""
    return msgpack.packb(message, use_bin_type=True)


def unpack(data: bytes) -> Message:
    """The message in `data`; raises `ValueError` for bytes that are none."""
    message = msgpack.unpackb(data, raw=False, strict_map_key=False)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError("not a message of a cluster: it has no kind")
    return message


def request_values(request: Request) -> list:
    """The fields of a request that a worker needs, in the order of `request_of_values`."""
    return [
        request.id, request.arrival_s, request.prompt_tokens, request.output_tokens, list(request.prefix_blocks),
        request.tenant, request.slo_class, request.priority,
    ]  # fmt: skip


def request_of_values(values: list) -> Request:
    """The request that `request_values` took apart."""
    number, arrival_s, prompt, output, blocks, tenant, slo_class, priority = values
    return Request(
        number, arrival_s, prompt, output, tuple(blocks), tenant=tenant, slo_class=slo_class, priority=priority
    )
