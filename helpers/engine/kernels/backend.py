"""Where Triton is imported, and which of a kernel's two bodies runs.

A CUDA tensor goes to the Triton kernel, anything else to its plain-torch twin. Triton is imported
only where it can run: with a GPU, or when TRITON_INTERPRET is set before this module is imported (1:
kernels run on the CPU in Triton's interpreter, as the tests do; 0: they can be compiled for a GPU
that is not there).
"""

import os
from types import SimpleNamespace

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LOG2_E = 1.4426950408889634  # kernels take exponents to base 2, which the hardware has an instruction for


def _import_triton():
    if not torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ:
        # Without Triton a kernel stays a plain function that nobody calls.
        return SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=None)
    import triton
    import triton.language as tl

    return triton, tl


triton, tl = _import_triton()


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether kernels on this tensor run in Triton."""
    return tensor.is_cuda or INTERPRETED


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
