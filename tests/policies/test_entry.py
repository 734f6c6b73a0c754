"""What the text of a command line means for a parameter: its own type decides, never the look of the text."""

from types import NoneType

import pytest

from helpers.policies.entry import Parameter


def parameter(*types):
    return Parameter("p", types, None, "")


@pytest.mark.parametrize(
    ("types", "text", "value"),
    [
        ((int,), "4", 4),
        ((float,), "4", 4.0),
        ((float,), "1e-3", 0.001),
        ((bool,), "true", True),
        ((int, NoneType), "none", None),
        ((int, NoneType), "7", 7),
        ((float, int), "7", 7),
        ((str,), "7", "7"),
        ((str,), "none", "none"),
    ],
)
def test_text_is_read_as_the_type(types, text, value):
    found = parameter(*types).read(text)
    assert (type(found), found) == (type(value), value)
    assert parameter(*types).accepts(found)


@pytest.mark.parametrize(("types", "text"), [((int,), "4.5"), ((bool,), "1"), ((int,), "none"), ((float,), "fast")])
def test_text_that_does_not_fit_stays_text_and_is_refused(types, text):
    assert parameter(*types).read(text) == text
    assert not parameter(*types).accepts(text)
