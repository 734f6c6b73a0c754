"""What the tests of this room share: a property that holds, and a broken version that does not."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import HypothesisException


def holds(check, strategy, examples: int = 100) -> None:
    """Assert that `check` passes on every example of `strategy`."""

    @settings(max_examples=examples)
    @given(strategy)
    def passes(example):
        check(example)

    passes()


def refuted(check, strategy, examples: int = 300) -> None:
    """Assert that `check` fails on some example of `strategy`: the control of a property."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def passes(example):
        check(example)

    try:
        passes()
    except HypothesisException:
        raise  # the control itself is broken
    except Exception:
        return
    pytest.fail("the broken version passed: the property cannot fail")


@pytest.fixture(scope="session", name="holds")
def holds_fixture():
    """The function, as a fixture: test modules cannot import each other."""
    return holds


@pytest.fixture(scope="session", name="refuted")
def refuted_fixture():
    """The function, as a fixture: test modules cannot import each other."""
    return refuted
