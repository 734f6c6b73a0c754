"""How KV goes from the worker that prefilled a request to the one that decodes it.

A mover says *when* pieces go (a layer as soon as it is stored, or everything after the prefill), *what* goes together
(one request, or all whose prefill ended in one step), whether the sender goes on meanwhile, and *how* the bytes cross:

pool    one side reaches into the memory of the other: on a CPU the receiver reads the sender's pages in shared memory,
        between GPUs the sender writes into a window of the receiver (the one-sided read and write of a network)
stage   the sender packs them into memory of the host that both see, the receiver unpacks them
group   a send and a receive of a process group of the two (gloo on a CPU, NCCL between two GPUs)
"""

from dataclasses import dataclass

from helpers.errors import InputError

WIRES = ("pool", "stage", "group")


@dataclass(frozen=True, slots=True)
class Mover:
    """One way of handing KV over. `per_layer`: pieces of one layer each, else of all layers."""

    name: str
    wire: str
    early: bool = False  # pieces go while later layers are still to be computed
    per_layer: bool = False
    together: bool = False  # what ended in one step crosses as one
    waits: bool = False  # the sender computes nothing until the receiver has everything
    one_by_one: bool = False  # and sends no request before the one before it has arrived
    about: str = ""


MOVERS = {
    mover.name: mover
    for mover in (
        Mover("synced", "pool", waits=True, one_by_one=True, about="as blocking, and each request for itself"),
        Mover("blocking", "pool", waits=True, about="after the prefill, all of a step; the sender waits once"),
        Mover("asynchronous", "pool", about="after the prefill, while the sender goes on"),
        Mover("layerwise", "pool", early=True, per_layer=True, about="each layer while the next ones compute"),
        Mover("slabs", "pool", early=True, per_layer=True, together=True, about="each layer of all requests of a step"),
        Mover("batched", "stage", together=True, about="all requests of a step packed into one slab"),
        Mover("bounce", "stage", per_layer=True, about="through memory of the host, layer by layer, after the prefill"),
        Mover("group", "group", early=True, per_layer=True, about="as layerwise, through a process group of the two"),
    )
}


def checked_release(send_after: tuple[int, ...], layers: int, how: Mover) -> tuple[int, ...]:
    """After how many stored layers each of `layers` may go; empty is as soon as it is stored.

    Raises `InputError` for a layer that would go before it is stored, or never, and for a mover that sends no layers.
    """
    if not send_after:
        return ()
    if not (how.early and how.per_layer):
        raise InputError(f"the mover {how.name} sends no layers during a prefill; use layerwise with send_after")
    if len(send_after) != layers:
        raise InputError(f"send_after has {len(send_after)} numbers for {layers} layers; give one a layer")
    for layer, stored in enumerate(send_after):
        if not layer < stored <= layers:
            raise InputError(f"layer {layer} would go after {stored} layers; give {layer + 1} to {layers}")
    return tuple(send_after)


def mover(name: str) -> Mover:
    """A mover by name; raises `InputError` listing the names."""
    if name not in MOVERS:
        raise InputError(f"mover {name!r} is unknown; use one of {', '.join(MOVERS)}")
    return MOVERS[name]
