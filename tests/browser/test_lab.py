"""An explorer in JupyterLab: the cell runs, a slider moves, the kernel computes, the figure changes; all offline."""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.browser.conftest import ROOT, free_port
from tests.browser.explorers import figure_data, move, outside_requests, settled

TOKEN = "test"
CELLS = ("from helpers.widgets import explore", 'explore("serving", requests=200)')
MISSING = [name for name in ("jupyterlab", "anywidget") if importlib.util.find_spec(name) is None]
READY_S, ANSWER_MS = 60, 60_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on a folder with one notebook; gives its address."""
    if MISSING:
        pytest.skip(f"NO {' AND NO '.join(MISSING).upper()}: JupyterLab was not opened; pip install -e '.[labs]'")
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), folder / "explorer.ipynb")
    port = free_port()
    options = ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    options += [f"--ServerApp.root_dir={folder}", "--expose-app-in-browser", "--no-browser", "--allow-root"]
    home = {"JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTER_RUNTIME_DIR": str(folder / ".runtime")}
    home |= {"PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings")}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=os.environ | home, stdout=log, stderr=log, cwd=folder
        )
    try:
        await_answer(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, folder / "log.txt")
        yield f"http://127.0.0.1:{port}/lab/tree/explorer.ipynb?token={TOKEN}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def await_answer(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer within {READY_S} s: {log.read_text()}")


RUN_ALL = """
async () => {
  const app = window.jupyterapp;
  for (let i = 0; i < 600 && !app?.shell?.currentWidget?.sessionContext; i++)
    await new Promise((done) => setTimeout(done, 100));
  const session = app.shell.currentWidget.sessionContext;
  await session.ready;
  await session.session.kernel.info;
  await app.commands.execute("notebook:run-all-cells");
}
"""


def test_a_slider_in_jupyterlab_changes_the_figure(browser, lab):
    context = browser.new_context(viewport={"width": 1280, "height": 1600})
    outside = outside_requests(context, lab)
    page = context.new_page()
    page.goto(lab, wait_until="load")
    page.wait_for_function("window.jupyterapp?.restored !== undefined", timeout=ANSWER_MS)
    page.evaluate(RUN_ALL)
    page.wait_for_selector(".hs-body figure[data-state=drawn]", timeout=ANSWER_MS)
    before = figure_data(page)
    said = page.text_content(".hs-summary")

    move(page, "rate_per_s", 190)
    settled(page, ANSWER_MS)
    assert figure_data(page) != before and page.text_content(".hs-summary") != said

    page.select_option(".hs-body select[name=router]", label="random: any worker")
    settled(page, ANSWER_MS)
    assert "random" in page.text_content(".hs-summary")
    # Prefill workers without a decode worker: the kernel says so, and the figures stay.
    kept = figure_data(page)
    move(page, "prefill_workers", 63)
    settled(page, ANSWER_MS)
    assert "none decodes" in page.text_content(".hs-trouble") and figure_data(page) == kept
    assert outside == []
    page.screenshot(path=os.environ.get("LAB_PICTURE") or None) if os.environ.get("LAB_PICTURE") else None
    context.close()
