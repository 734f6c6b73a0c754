"""KV that arrives wrong on purpose: what a check of the hand-off has to catch."""

from torch import Tensor

from helpers.errors import InputError

KINDS = ("corrupt_page", "swap_layers", "missing_last_page", "stale_page", "zero_cache")


def checked(kind: str) -> str:
    """`kind`, when it is one of `KINDS` or empty; raises `InputError`."""
    if kind and kind not in KINDS:
        raise InputError(f"there is no way to tamper called {kind!r}; use one of {', '.join(KINDS)}")
    return kind


def tamper(kind: str, pool: Tensor, pages: list[int], before: Tensor) -> None:
    """Damage the `pages` of a request that has just arrived in `pool`; `before` is what lay in them until then.

    corrupt_page: the first page of the last layer has its sign turned. swap_layers: the first two layers change
    places. missing_last_page, stale_page: the last page, or the first, is as it was before the transfer. zero_cache:
    nothing arrives but zeros, which a check that compares zeros with zeros would pass.
    """
    if kind == "corrupt_page":
        pool[-1, :, pages[0]] *= -1
    elif kind == "swap_layers":
        first = pool[0, :, pages].clone()
        pool[0, :, pages] = pool[1, :, pages]
        pool[1, :, pages] = first
    elif kind == "missing_last_page":
        pool[:, :, pages[-1]] = before[:, :, -1]
    elif kind == "stale_page":
        pool[:, :, pages[0]] = before[:, :, 0]
    elif kind == "zero_cache":
        pool[:, :, pages] = 0
