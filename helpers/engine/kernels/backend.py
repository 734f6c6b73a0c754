"""Where Triton is imported, and which of a kernel's two bodies runs.

A CUDA tensor goes to the Triton kernel, anything else to its plain-torch twin. Triton is imported
only where it can run: with a GPU, or when TRITON_INTERPRET is set before this module is imported (1:
kernels run on the CPU in Triton's interpreter, as the tests do; 0: they can be compiled for a GPU
that is not there).
"""

import os
from functools import lru_cache
from types import SimpleNamespace

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LOG2_E = 1.4426950408889634  # kernels take exponents to base 2, which the hardware has an instruction for


def _left_plain(function=None, **options):
    return (lambda function: function) if function is None else function


def _import_triton():
    if not torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ:
        # Without Triton a kernel stays a plain function that nobody calls.
        return SimpleNamespace(jit=_left_plain), SimpleNamespace(constexpr=None)
    import triton
    import triton.language as tl

    return triton, tl


triton, tl = _import_triton()


@lru_cache
def hopper() -> bool:
    """Whether the GPU is an H100 or one of its kind: what is done for these alone was measured on these alone."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9


def early_launch() -> dict:
    """What a kernel that begins with `follow` is launched with.

    On Hopper it may be launched before the one ahead has ended, and waits for it itself (programmatic dependent
    launch): its start is hidden.
    """
    return {"EARLY": True, "launch_pdl": True} if hopper() else {"EARLY": False}


@triton.jit
def follow(EARLY: tl.constexpr):
    """Wait until all that the kernels ahead have written is there, then let the next kernel be launched.

    Only what no kernel of the step writes, such as weights, may be read before.
    """
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether kernels on this tensor run in Triton."""
    return tensor.is_cuda or INTERPRETED


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
