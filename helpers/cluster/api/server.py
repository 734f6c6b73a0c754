"""The application behind a socket."""

import uvicorn
from starlette.applications import Starlette

GRACE_S = 5  # what open answers get when the server is told to stop


def listen(application: Starlette, host: str, port: int) -> None:
    """Serve until an interrupt."""
    uvicorn.run(application, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE_S)
