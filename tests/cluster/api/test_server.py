"""The command `serve` as a process: clients, a client that leaves, a worker that dies, an interrupt."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.cluster.api.server import door
from helpers.errors import InputError
from helpers.serving.endpoint import commands
from helpers.serving.endpoint.commands import check_address
from tests.serving.test_simulate_command import run_main

PATIENCE_S = 90.0  # of a busy machine


@pytest.fixture(scope="module")
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def server(port):
    """A server with a prefill and a decode worker."""
    command = [sys.executable, "-m", "helpers", "serve", "--split", "1P1D", "--port", str(port), "--kv-gib", "0.02"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if ask(port, "/health")[0] == 200:
                break
        except OSError:
            time.sleep(0.2)
    assert process.poll() is None
    yield process
    process.kill()
    process.wait()


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)


def ask(port, path, body=None):
    connection = connect(port)
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def number(text, name):
    """A figure of /metrics."""
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)


GREEDY = {"prompt": "The router sees", "max_tokens": 12, "temperature": 0}


def test_many_clients_get_the_same_answer_whole_and_in_parts(server, port):
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: ask(port, "/v1/completions", GREEDY), range(6)))
    assert [status for status, _ in answers] == [200] * 6
    texts = {json.loads(text)["choices"][0]["text"] for _, text in answers}
    _, stream = ask(port, "/v1/completions", {**GREEDY, "stream": True})
    events = [one.removeprefix("data: ") for one in stream.split("\n\n") if one]
    assert events[-1] == "[DONE]"
    texts.add("".join(json.loads(one)["choices"][0]["text"] for one in events[:-1]))
    assert len(texts) == 1
    other = json.loads(ask(port, "/v1/completions", {**GREEDY, "prompt": "x"})[1])["choices"][0]["text"]
    assert other not in texts  # control
    assert number(ask(port, "/metrics")[1], 'hybrid_serving_requests_total{status="finished"}') == 8


def test_a_client_that_leaves_frees_its_place(server, port):
    connection = connect(port)
    body = json.dumps({**GREEDY, "max_tokens": 3000, "stream": True, "ignore_eos": True})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read(200)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    until = time.monotonic() + PATIENCE_S
    left = 'hybrid_serving_requests_total{status="disconnected"}'
    while number(ask(port, "/metrics")[1], left) < 1:
        assert time.monotonic() < until
        time.sleep(0.1)
    while number(ask(port, "/metrics")[1], 'hybrid_serving_worker_running{role="decode"') > 0:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_what_can_never_be_served_is_refused_at_once(server, port):
    status, text = ask(port, "/v1/completions", {**GREEDY, "prompt": "x" * 9000})
    assert status == 400 and "beyond the context" in text


def test_an_interrupt_ends_it_and_its_workers(server, port):
    workers = children(server.pid)
    assert len(workers) == 2
    os.kill(server.pid, signal.SIGINT)
    server.wait(PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while any(os.path.exists(f"/proc/{pid}/stat") for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "Traceback" not in server.stderr.read()


def children(pid):
    found = []
    for one in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{one}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(one))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("host", "port", "key", "said"),
    [("0.0.0.0", 8000, None, "give a key"), ("127.0.0.1", 70000, None, "port"), ("127.0.0.1", 8000, "", "empty")],
)
def test_an_address_for_all_needs_a_key(host, port, key, said):
    with pytest.raises(InputError, match=said):
        check_address(host, port, key)
    check_address("0.0.0.0", 8000, "key")  # controls
    check_address("::1", 8000, None)
    check_address("localhost", 8000, None)


def test_a_door_that_cannot_be_is_refused_before_workers_start(monkeypatch, capsys):
    monkeypatch.setattr(commands, "workers_for", lambda *given: pytest.fail("workers were started"))
    with door("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run_main(capsys, "serve", "--port", port)
        assert (code, out) == (2, "") and f"at 127.0.0.1, port {port} (Address already in use)" in err
    door("127.0.0.1", port).close()  # the control: it is free now
    with pytest.raises(InputError, match=r"nothing can listen at nowhere\.invalid, port 80"):
        door("nowhere.invalid", 80)


def test_a_mover_needs_a_split(monkeypatch, capsys):
    monkeypatch.setattr(commands, "workers_for", lambda *given: pytest.fail("workers were started"))
    code, _, err = run_main(capsys, "serve", "--mover", "layerwise", "--workers", 2)
    assert code == 2 and "--mover layerwise says how KV leaves a prefill worker; give --split too" in err
