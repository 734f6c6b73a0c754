"""Started by torchrun: which rank this process is, and how it finds the others.

    torchrun --nproc-per-node 4 -m helpers serve --split 2P2D                                 # one machine
    torchrun --nnodes 2 --nproc-per-node 2 --node-rank 0 --master-addr HOST --master-port PORT \\
        -m helpers serve --split 2P2D --mover group                                           # on each of two

Rank r holds worker r, on the GPU of its LOCAL_RANK when there are GPUs. Rank 0 runs the command besides; the others do
what it says over a line of TCP (`hosts`, `host`), and end when that line does, however that came about. Between
machines the network is trusted, as torchrun's own store trusts it: on one machine nothing listens but on loopback.
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helpers.errors import InputError

MARK = "TORCHELASTIC_RUN_ID"  # what torchrun sets and nobody else does
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_PORT")
LEADER = "HYBRID_SERVING_LEADER"  # the number of the process that is rank 0: what it starts inherits its environment
FRONT_KEY = "hybrid-serving/front"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a launch: `rank` of `ranks`, of which `local_ranks` are on its machine, `node` of `nodes`."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    node: int
    nodes: int
    master: str

    @property
    def leads(self) -> bool:
        """Whether it runs the command."""
        return self.rank == 0


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a worker is: on which machine, and its place among those who share the GPUs there."""

    node: int
    local_rank: int
    local_ranks: int
    gpus: int


def rank_of(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """What torchrun says of this process, None outside of it. Raises `InputError` for what cannot be."""
    if MARK not in environment:
        return None
    found = {}
    for name in (*NUMBERS, "MASTER_ADDR"):
        value = environment.get(name, "")
        if not value or (name in NUMBERS and not value.isdigit()):
            raise InputError(f"torchrun set {name} to {value!r}; start every rank with torchrun, and leave its "
                             "variables alone")  # fmt: skip
        found[name] = int(value) if name in NUMBERS else value
    if not found["RANK"] < found["WORLD_SIZE"] or not found["LOCAL_RANK"] < found["LOCAL_WORLD_SIZE"]:
        raise InputError(
            f"rank {found['RANK']} of {found['WORLD_SIZE']}, {found['LOCAL_RANK']} of {found['LOCAL_WORLD_SIZE']} on "
            "this machine: the variables of torchrun do not fit together; leave them alone"
        )
    return Rank(
        found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"], found["GROUP_RANK"],
        found["GROUP_WORLD_SIZE"], found["MASTER_ADDR"],
    )  # fmt: skip


def listener(rank: Rank) -> socket.socket:
    """Where rank 0 listens for the others. Raises `InputError` for an address that is not its own."""
    host = LOOPBACK if rank.nodes == 1 else rank.master
    try:
        return socket.create_server((host, 0), backlog=rank.ranks)
    except OSError as error:
        raise InputError(
            f"rank 0 cannot listen at {host} ({error.strerror or error}); give torchrun a --master-addr of the machine "
            "of rank 0 that the others can reach"
        ) from None


class Store:
    """The store of a launch, in which rank 0 says where it listens, and that it does not any more."""

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        self._store, *_ = next(rendezvous("env://"))

    def publish(self, address: str) -> None:
        """Say where rank 0 listens; nowhere: it has left."""
        self._store.set(FRONT_KEY, address)

    def front(self) -> str:
        """Where rank 0 listens, empty when it has left; waits until it says so."""
        return self._store.get(FRONT_KEY).decode()


def line_to(store: Store, rank: int, limit_s: float = 60.0) -> socket.socket | None:
    """A line to rank 0, None when it has left. Raises `InputError` when there is no way."""
    address = store.front()
    if not address:
        return None
    host, port = address.rsplit(":", 1)
    try:
        made = socket.create_connection((host, int(port)), timeout=limit_s)
    except OSError as error:
        if not store.front():
            return None
        raise InputError(
            f"rank {rank} cannot reach rank 0 at {address} ({error.strerror or error}); give torchrun a --master-addr "
            "that every machine can reach"
        ) from None
    made.settimeout(None)
    keep_alive(made)
    return made


def keep_alive(line: socket.socket) -> None:
    """Let a line end by itself when the machine at its other end is gone, in 20 s where the system lets us say so."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def run(command: Callable[[], int | None]) -> int | None:
    """A command as this process is to run it: as it is, or under torchrun with the workers of all ranks, if it is rank
    0; the other ranks hold a worker for it instead. Returns the exit code.

    Raises `InputError` where a rank lacks a package.
    """
    rank = rank_of()
    if rank is None:
        return command()
    try:
        from helpers.cluster.host import serve
        from helpers.cluster.hosts import launch

        if not rank.leads:
            return serve(rank)
        os.environ[LEADER] = str(os.getpid())
        hosts = launch()
    except ModuleNotFoundError as error:
        raise InputError(
            f"ranks of torchrun hold workers, and those need {error.name}; pip install -e '.[engine,serve]'"
        ) from None
    try:
        return command()
    finally:
        hosts.close()
