"""What the tests of the engine share: one tiny decoder, and engines on it that are closed again."""

import pytest
import torch

from helpers.engine.config import preset
from helpers.engine.engine import Engine
from helpers.engine.load import load
from helpers.engine.loop_checks import ROOMY


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: more threads cost more than they bring, above all when tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def decoder():
    return load(preset("tiny"), "cpu")


@pytest.fixture
def make_engine(decoder):
    """Engines by keyword, on the tiny decoder unless another is given."""
    made = []

    def make(limits=ROOMY, on=decoder, **how):
        made.append(Engine(on, limits, max_context=1024, **how))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
