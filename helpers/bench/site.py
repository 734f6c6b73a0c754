"""A server of the built book on this machine, which sends files as a real host does: packed, typed, to be kept."""

import functools
import gzip
import io
import re
from functools import lru_cache
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PACKED = (".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt")
# The address of such a file changes with what is in it, so a browser may keep it for good.
NAMED_BY_CONTENT = re.compile(r"/(pyodide-[\d.]+/|core-[0-9a-f]+\.zip$)")
FOR_GOOD = "public, max-age=31536000, immutable"


@lru_cache(maxsize=256)
def packed(path: Path, modified_ns: int) -> bytes:
    """The file, gzipped; made once for as long as it does not change."""
    return gzip.compress(path.read_bytes(), 6, mtime=0)


class SiteHandler(SimpleHTTPRequestHandler):
    """Serves files, gzips texts, says how long to keep what, and does not log each request."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def send_head(self):
        path = Path(self.translate_path(self.path))
        gzips = "gzip" in self.headers.get("Accept-Encoding", "") and path.suffix in PACKED and path.is_file()
        if not gzips or "If-Modified-Since" in self.headers:
            return super().send_head()
        stat = path.stat()
        body = packed(path, stat.st_mtime_ns)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Vary", "Accept-Encoding")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.date_time_string(stat.st_mtime))
        self.end_headers()
        return io.BytesIO(body)

    def end_headers(self) -> None:
        address = urlsplit(self.path)
        for_good = NAMED_BY_CONTENT.search(address.path) or address.query.startswith("v=")
        self.send_header("Cache-Control", FOR_GOOD if for_good else "no-cache")
        super().end_headers()

    def log_message(self, format, *arguments):
        pass


def site_server(site: Path, first_port: int = 0) -> ThreadingHTTPServer:
    """A server of the site on 127.0.0.1, on the first free one of twenty ports (0: any free port).

    Raises OSError when all twenty are in use.
    """
    handler = functools.partial(SiteHandler, directory=str(site))
    for port in range(first_port, first_port + 20):
        try:
            return ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:
            continue
    raise OSError(f"ports {first_port} to {first_port + 19} are all in use on 127.0.0.1; stop a server and try again")
