"""A command in this process, as the tests of `simulate` ask for it."""

import json

import pytest

from helpers.cli import main


def last_line(out):
    """What programs read: the JSON of the last line."""
    return json.loads(out.splitlines()[-1])


def run_main(capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return left.value.code or 0, out, err
