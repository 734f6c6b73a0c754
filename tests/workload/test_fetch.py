import hashlib
import http.server
import sys
import threading

import pytest

from helpers.errors import InputError
from helpers.workload import fetch as fetching
from helpers.workload.fetch import RAW_URL, SOURCES, Source, fetch, fetched, source_of
from helpers.workload.generate import open_workload

CONTENT = b'{"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1]}\n'
SMALL = Source(
    "owner/traces", "c0ffee", "data/small.jsonl", hashlib.sha256(CONTENT).hexdigest(), 1, "CC0", "Nobody, 2026"
)


class Site:
    """A loopback server that serves `files` (path -> bytes) and counts what it was asked for."""

    def __init__(self):
        self.files = {"/owner/traces/c0ffee/data/small.jsonl": CONTENT}
        self.asked = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                body = site.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setitem(SOURCES, "small", SMALL)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    yield site
    site.close()


def test_a_good_file_is_kept_and_not_asked_for_again(site, tmp_path):
    path = fetch("small", tmp_path, site.url)
    assert path == tmp_path / "small.jsonl" and path.read_bytes() == CONTENT
    assert fetched("small", tmp_path) == path
    assert fetch("small", tmp_path, site.url) == path
    assert site.asked == ["/owner/traces/c0ffee/data/small.jsonl"]


@pytest.mark.parametrize("content", [CONTENT.replace(b"50", b"51"), CONTENT[:-5], b""])
def test_a_changed_or_cut_file_is_refused_and_not_kept(site, tmp_path, content):
    site.files = dict.fromkeys(site.files, content)
    with pytest.raises(InputError, match=r"sha256 of the download is not .* it was not kept"):
        fetch("small", tmp_path, site.url)
    assert list(tmp_path.iterdir()) == []
    assert fetched("small", tmp_path) is None


def test_a_file_spoilt_on_disk_is_fetched_again(site, tmp_path):
    fetch("small", tmp_path, site.url).write_bytes(b"spoilt")
    assert fetch("small", tmp_path, site.url).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_not_found_and_unreachable_are_one_sentence(site, tmp_path):
    site.files = {}
    with pytest.raises(InputError, match="HTTP status 404"):
        fetch("small", tmp_path, site.url)
    site.close()
    with pytest.raises(InputError, match=r"could not be fetched into .* \(ConnectionError\)"):
        fetch("small", tmp_path, site.url, timeout_s=5.0)
    with pytest.raises(InputError, match="http or https"):
        fetch("small", tmp_path, "nonsense")


def test_a_folder_that_cannot_be_written_is_one_sentence(site, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="could not be fetched into"):
        fetch("small", tmp_path / "file" / "folder", site.url)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="use mooncake_conversation, "):
        source_of("sharegpt")


def test_without_pooch_one_sentence_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match="pip install pooch"):
        fetch("mooncake_synthetic", tmp_path)


def test_a_fetched_trace_opens_by_name_and_another_says_what_to_do(site, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "cache_dir", lambda: tmp_path)
    with pytest.raises(InputError, match="hybrid-serving trace fetch small"):
        open_workload("small")
    fetch("small", None, site.url)
    workload, report = open_workload("small")
    assert (len(workload), report.format) == (1, "mooncake")


def test_sources_name_full_commits_and_raw_addresses():
    for source in SOURCES.values():
        assert len(source.sha256) == 64 and len(source.commit) == 40
        assert source.url(RAW_URL).startswith(f"{RAW_URL}/{source.repository}/{source.commit}/")
        assert source.rows > 0 and source.licence and source.citation
