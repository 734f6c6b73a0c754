"""Whether a person sits in front of this kernel, and how a cell shows something beside its last value."""

import os
import sys

# "1" or "0" decides where the guess below is wrong.
TOLD = "HYBRID_SERVING_FRONT_END"


def has_front_end() -> bool:
    """True in a notebook that somebody has open; False in a test, while the book is built, and in plain Python.

    A server for notebooks (JupyterLab, Binder) names the open notebook in the kernel's environment; programs that only
    run a notebook do not. VS Code and Colab leave marks of their own.
    """
    told = os.environ.get(TOLD)
    if told in ("0", "1"):
        return told == "1"
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return False
    return "JPY_SESSION_NAME" in os.environ or "__vsc_ipynb_file__" in shell.user_ns or "google.colab" in sys.modules


def show(thing: object) -> None:
    """Show something now, wherever the cell goes on."""
    try:
        from IPython.display import display
    except ImportError:
        print(thing)
        return
    display(thing)
