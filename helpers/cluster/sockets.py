"""The sockets of a cluster: one from each worker to the front end, one from each worker to each of its peers.

On one machine they lie in the folder of the cluster, so that nobody but its user can reach them; under torchrun they
are ports of TCP.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import zmq

from helpers.cluster.messages import Message, pack, unpack

FRONT = "front"
HELLO = "hello"  # what a worker first says to a peer
RECONNECT_MS = 10  # until a door is tried again that was not there yet


def address(folder: Path | str, name: str) -> str:
    """The address of the socket `name` in a folder."""
    return f"ipc://{folder}/{name}"


def socket(context: zmq.Context, kind: int) -> zmq.Socket:
    """A socket that neither limits what waits in it nor holds the process back when it closes."""
    made = context.socket(kind)
    made.linger = 0
    made.reconnect_ivl = RECONNECT_MS
    made.set_hwm(0)
    return made


def opened(made: zmq.Socket, folder: Path | str, name: str, host: str) -> str:
    """Let others reach a socket: in a folder, or at a free port of `host` where one is given; returns its address."""
    made.bind(f"tcp://{host}:*" if host else address(folder, name))
    return made.last_endpoint.decode().rstrip("\0")


def arrived(source: zmq.Socket) -> Iterator[tuple[int, Message]]:
    """The messages that wait in a router socket, with the number of the worker that sent each."""
    with suppress(zmq.Again):
        while True:
            sender, data = source.recv_multipart(zmq.NOBLOCK)
            yield int(sender), unpack(data)


class WorkerSockets:
    """The sockets of worker `index` of `workers`: to the `front` end, and its own `door` for its peers.

    In a folder everybody knows the doors of the others. At a `host` they are told, and then they `meet`.
    """

    def __init__(self, index: int, workers: int, front: str, folder: Path, host: str = "") -> None:
        self._context, self._index = zmq.Context(), index
        self.front = self._connected(front)
        self.peers = socket(self._context, zmq.ROUTER)
        self.door = opened(self.peers, folder, str(index), host)
        self._to: dict[int, zmq.Socket] = {}
        self._poller = zmq.Poller()
        self._poller.register(self.front, zmq.POLLIN)
        self._poller.register(self.peers, zmq.POLLIN)
        if not host:
            self.meet({i: address(folder, str(i)) for i in range(workers) if i != index})

    def _connected(self, door: str) -> zmq.Socket:
        made = socket(self._context, zmq.DEALER)
        made.identity = str(self._index).encode()
        made.connect(door)
        return made

    def meet(self, doors: Mapping[int, str]) -> None:
        """Connect to peers, by the addresses of their doors."""
        self._to |= {peer: self._connected(door) for peer, door in doors.items()}

    def greet(self) -> None:
        """Say hello to all peers. A message waits until the door of its peer is reached, and doors in a folder are
        reached by names that are removed later: who has heard from everybody knows that all ways to it are open."""
        for peer in self._to:
            self.tell(peer, {"kind": HELLO})

    def tell_front(self, message: Message) -> None:
        """Send to the front end."""
        self.front.send(pack(message))

    def tell(self, peer: int, message: Message) -> None:
        """Send to another worker."""
        self._to[peer].send(pack(message))

    def wait(self, seconds: float) -> bool:
        """Wait until a message is there, at most so long."""
        return bool(self._poller.poll(1e3 * seconds))

    def from_front(self) -> Iterator[Message]:
        """What the front end has sent."""
        with suppress(zmq.Again):
            while True:
                yield unpack(self.front.recv(zmq.NOBLOCK))

    def from_peers(self) -> Iterator[tuple[int, Message]]:
        """What other workers have sent, and who."""
        return arrived(self.peers)

    def close(self, linger_ms: int = 0) -> None:
        """Close all of them; what was said last gets so long to leave."""
        self._context.destroy(linger=linger_ms)
