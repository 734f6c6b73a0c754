"""`hybrid-serving`: a thin dispatcher. Each room brings its own commands.

Exit codes: 0 done, 1 a check or a process failed, 2 bad input (one sentence on the error stream).
"""

import importlib
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from helpers import __version__
from helpers.checkout import commit
from helpers.cluster.launch import run
from helpers.errors import InputError, WorkerError
from helpers.once import say_once

# A room's `commands` module has `register(app)`, which adds its commands to the application.
ROOMS = (
    "helpers.tables",
    "helpers.workload.commands",
    "helpers.policies.commands",
    "helpers.serving.commands",
    "helpers.serving.dialects.commands",
    "helpers.serving.export.commands",
    "helpers.serving.endpoint.commands",
    "helpers.engine.commands",
    "helpers.bench.commands",
    "helpers.bench.targets.commands",
    "helpers.bench.record.commands",
    "helpers.bench.cluster.commands",
    "helpers.bench.fidelity.commands",
    "helpers.lessons.commands",
)


def application() -> typer.Typer:
    """The command line with the commands of every room."""
    app = typer.Typer(
        name="hybrid-serving",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for room in ROOMS:
        importlib.import_module(room).register(app)
    say_once(app)
    return app


def _say_version(asked: bool) -> None:
    if asked:
        print(f"hybrid-serving {__version__}, commit {commit()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="print the version and the commit"),
    ] = False,
) -> None:
    """Measure, simulate and decide how to serve large language models."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code; bad input is one sentence and code 2, never a traceback.

    Under torchrun rank 0 runs it, and the other ranks hold its workers.
    """
    try:
        code = run(lambda: application()(args=arguments, prog_name="hybrid-serving", standalone_mode=False))
    except InputError as error:
        code = _refuse(str(error))
    except TyperException as error:
        code = _refuse(error.format_message())
    except WorkerError as error:
        code = _refuse(str(error), 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "helpers"):
            raise
        code = _refuse(f"this needs {error.name}; pip install -e '.[engine,serve]'")
    except OSError as error:  # of files the commands speak themselves; what is left is the output stream
        where = error.filename or "standard output"
        code = _refuse(f"{where}: it cannot be used ({error.strerror}); make room there or send the output elsewhere")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (what is still buffered would fail again at exit)
    except (KeyboardInterrupt, typer.Abort):
        print("hybrid-serving: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def _refuse(sentence: str, code: int = 2) -> int:
    if sentence:  # a group without a command has printed its help, and says nothing more
        print(f"hybrid-serving: {' '.join(sentence.split())}", file=sys.stderr)
    return code
