"""The application behind a socket."""

import socket
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette

from helpers.errors import InputError

GRACE_S = 5  # what open answers get when the server is told to stop


def door(host: str, port: int) -> socket.socket:
    """A socket at an address (port 0: any free one), to which nobody listens yet. Raises `InputError` where that cannot
    be, such as at a port that another process has."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"serve: nothing can listen at {host}, port {port} ({why}); give another one") from None
    return made


def listen(application: Starlette, at: socket.socket) -> None:
    """Serve at a door until an interrupt."""
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=GRACE_S)
    with suppress(KeyboardInterrupt), at:
        uvicorn.Server(config).run(sockets=[at])
