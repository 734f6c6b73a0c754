"""Who is taken for a person in front: an open notebook is, a run in a test or while the book is built is not."""

import sys

import pytest

from helpers.lessons import front_end
from helpers.lessons.front_end import TOLD, has_front_end, show


class Shell:
    """A stand-in for IPython: in a kernel, or on a terminal."""

    def __init__(self, in_a_kernel: bool, **names) -> None:
        self.user_ns = names
        if in_a_kernel:
            self.kernel = object()


@pytest.fixture
def shell(monkeypatch):
    """Make IPython say what shell it is, with no mark of a front end around."""
    monkeypatch.delenv(TOLD)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    ipython = type(sys)("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)

    def use(one) -> None:
        ipython.get_ipython = lambda: one

    use(None)
    return use


def test_plain_python_has_none(shell, monkeypatch):
    assert not has_front_end()
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")  # a script that an open notebook started
    assert not has_front_end()


def test_a_kernel_that_only_runs_a_notebook_has_none(shell):
    shell(Shell(in_a_kernel=True))
    assert not has_front_end()


def test_a_terminal_has_none(shell, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")
    shell(Shell(in_a_kernel=False))
    assert not has_front_end()


def test_an_open_notebook_has_one(shell, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")
    shell(Shell(in_a_kernel=True))
    assert has_front_end()


def test_an_editor_and_colab_leave_their_marks(shell, monkeypatch):
    shell(Shell(in_a_kernel=True, __vsc_ipynb_file__="lab.ipynb"))
    assert has_front_end()
    shell(Shell(in_a_kernel=True))
    monkeypatch.setitem(sys.modules, "google.colab", type(sys)("google.colab"))
    assert has_front_end()


@pytest.mark.parametrize(("told", "expected"), [("1", True), ("0", False), ("maybe", False)])
def test_the_environment_decides_when_it_says_something_clear(shell, monkeypatch, told, expected):
    monkeypatch.setenv(TOLD, told)
    assert has_front_end() == expected


def test_without_ipython_there_is_none_and_things_are_printed(monkeypatch, capsys):
    monkeypatch.delenv(TOLD)
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    assert not front_end.has_front_end()
    show("words")
    assert capsys.readouterr().out == "words\n"
