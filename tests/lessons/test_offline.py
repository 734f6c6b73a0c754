"""Nothing is sent anywhere: a whole lab, with progress kept, opens no socket."""

import os
import subprocess
import sys

import pytest

from helpers.lessons.front_end import TOLD
from helpers.lessons.progress import PLACE
from helpers.paths import ROOT

LESSON = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)

from helpers.cli import main
from helpers.lessons import calibration, check, exercise, predict, reconcile
from helpers.lessons import load_and_latency as lab
from helpers.lessons.building import chosen, drift
from helpers.lessons.rehearsal import verdicts
from helpers.lessons.source import read_source
from helpers.lessons.versions import learner_cells

(path,) = chosen("01_load_and_latency")
source = read_source(path)
list(drift(source))
verdicts(learner_cells(source)[:20])
guess = predict("knee", "requests/s", 8, default=6)
predict("another knee", "requests/s", default=6)
guess.lock()
reconcile(guess, own=4.0).to_html()
exercise("the wait")
check("the wait", lambda rate_per_s, service_s, c2: 0.0)
calibration().to_html()
for words in (["progress"], ["reset", "--yes"]):
    try:
        main(["lessons", *words])
    except SystemExit as left:
        assert not left.code
{planted}
print("sockets:", opened)
"""


def sockets_of(planted: str, tmp_path) -> str:
    environment = {**os.environ, TOLD: "1", PLACE: str(tmp_path / "progress.json"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LESSON.replace("{planted}", planted)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert (tmp_path / "progress.json").is_file()
    return done.stdout.splitlines()[-1]


def test_a_lesson_opens_no_socket(tmp_path):
    assert sockets_of("", tmp_path) == "sockets: []"


@pytest.mark.parametrize(
    "planted", ["import socket; socket.socket()", "import socket; socket.gethostbyname('localhost')"]
)
def test_a_socket_would_be_seen(tmp_path, planted):
    assert sockets_of(planted, tmp_path) != "sockets: []"
