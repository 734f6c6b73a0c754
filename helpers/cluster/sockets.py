"""The sockets of a cluster: one from each worker to the front end, one from each worker to each of its peers.

They lie in the folder of the cluster, so that nobody but its user can reach them.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import zmq

from helpers.cluster.messages import Message, pack, unpack

FRONT = "front"


def address(folder: Path | str, name: str) -> str:
    """The address of the socket `name`."""
    return f"ipc://{folder}/{name}"


def socket(context: zmq.Context, kind: int) -> zmq.Socket:
    """A socket that neither limits what waits in it nor holds the process back when it closes."""
    made = context.socket(kind)
    made.linger = 0
    made.set_hwm(0)
    return made


def arrived(source: zmq.Socket) -> Iterator[tuple[int, Message]]:
    """The messages that wait in a router socket, with the number of the worker that sent each."""
    with suppress(zmq.Again):
        while True:
            sender, data = source.recv_multipart(zmq.NOBLOCK)
            yield int(sender), unpack(data)


class WorkerSockets:
    """The sockets of worker `index` of `workers`."""

    def __init__(self, folder: Path, index: int, workers: int) -> None:
        self._context = zmq.Context()
        self.front = self._connected(folder, FRONT, index)
        self.peers = socket(self._context, zmq.ROUTER)
        self.peers.bind(address(folder, str(index)))
        self._to = {i: self._connected(folder, str(i), index) for i in range(workers) if i != index}
        self._poller = zmq.Poller()
        self._poller.register(self.front, zmq.POLLIN)
        self._poller.register(self.peers, zmq.POLLIN)

    def _connected(self, folder: Path, name: str, index: int) -> zmq.Socket:
        made = socket(self._context, zmq.DEALER)
        made.identity = str(index).encode()
        made.connect(address(folder, name))
        return made

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

    def close(self) -> None:
        """Close all of them."""
        self._context.destroy(linger=0)
