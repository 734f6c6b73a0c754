"""A browser and a served book for the page tests, which are collected only when BOOK_HTML names a built book."""

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from helpers.bench.site import site_server

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BOOK = os.environ.get("BOOK_HTML", "")
collect_ignore_glob = [] if BOOK else ["test_*.py"]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def browser():
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("NO CHROMIUM: no page was opened; install it, or name it with CHROMIUM=")
    api = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: no page was opened")
    with api.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield one
        one.close()


@pytest.fixture(scope="session")
def site() -> Path:
    return (ROOT / BOOK).resolve()


@pytest.fixture(scope="session")
def serve():
    """A function that serves a folder on 127.0.0.1 and gives its address."""
    servers = []

    def start(folder: Path) -> str:
        server = site_server(folder, first_port=0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def axe_file() -> Path | None:
    """The accessibility checker, if npm has brought it."""
    file = ROOT / "node_modules" / "axe-core" / "axe.min.js"
    return file if file.is_file() else None
