"""The server of the built book: this machine alone, packed texts, right types, and what a browser may keep."""

import gzip
import urllib.error
import urllib.request
from threading import Thread

import pytest

from helpers.bench.site import FOR_GOOD, site_server

FILES = {
    "index.html": b"<p>the book</p>" * 100,
    "_static/page.js": b"let a = 1;" * 100,
    "_static/pyodide-1.2.3/python.wasm": b"\0asm" * 100,
    "_static/pyodide-1.2.3/python.mjs": b"export {};" * 100,
    "_static/core-0a1b.zip": b"PK" * 100,
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, body in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    with site_server(folder) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(address: str, **headers: str):
    request = urllib.request.Request(address, headers={key.replace("_", "-"): text for key, text in headers.items()})
    return urllib.request.urlopen(request, timeout=5)


@pytest.mark.parametrize("name", FILES)
def test_every_file_comes_whole_and_texts_come_packed_when_asked(address, name):
    with get(f"{address}/{name}") as plain, get(f"{address}/{name}", Accept_Encoding="gzip") as asked:
        assert plain.read() == FILES[name] and plain.headers["Content-Encoding"] is None
        body = asked.read()
        is_text = name.endswith((".html", ".js", ".mjs"))
        assert asked.headers["Content-Encoding"] == ("gzip" if is_text else None)
        assert (gzip.decompress(body) if is_text else body) == FILES[name]
        assert (len(body) < len(FILES[name])) is is_text


@pytest.mark.parametrize(
    ("name", "kind"),
    [("python.wasm", "application/wasm"), ("python.mjs", "text/javascript")],
)
def test_browsers_get_the_types_that_they_insist_on(address, name, kind):
    with get(f"{address}/_static/pyodide-1.2.3/{name}", Accept_Encoding="gzip") as answer:
        assert answer.headers["Content-Type"] == kind


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("index.html", "no-cache"),
        ("_static/page.js", "no-cache"),
        ("_static/page.js?v=1234", FOR_GOOD),
        ("_static/core-0a1b.zip", FOR_GOOD),
        ("_static/pyodide-1.2.3/python.wasm", FOR_GOOD),
    ],
)
def test_what_is_named_by_its_content_is_kept_for_good_and_the_rest_is_asked_for_again(address, name, kept):
    with get(f"{address}/{name}") as answer:
        assert answer.headers["Cache-Control"] == kept
        seen = answer.headers["Last-Modified"]
    with pytest.raises(urllib.error.HTTPError, match="304"):
        get(f"{address}/{name}", If_Modified_Since=seen, Accept_Encoding="gzip")


def test_a_changed_file_is_packed_again(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("one " * 50)
    with site_server(tmp_path) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        for text in ("one " * 50, "two " * 60):
            page.write_text(text)
            with get(f"http://127.0.0.1:{server.server_port}/a.html", Accept_Encoding="gzip") as answer:
                assert gzip.decompress(answer.read()).decode() == text
        server.shutdown()


def test_the_server_is_for_this_machine_alone_and_passes_over_a_taken_port(tmp_path):
    with site_server(tmp_path, 18400) as first, site_server(tmp_path, 18400) as second:
        assert first.server_address[0] == second.server_address[0] == "127.0.0.1"
        assert first.server_port != second.server_port
