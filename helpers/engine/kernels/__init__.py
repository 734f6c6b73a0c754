"""Triton kernels, each beside a plain-torch twin of the same signature; the device chooses."""
