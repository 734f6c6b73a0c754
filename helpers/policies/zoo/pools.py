"""The live workers by the part that they take, remade only when the fleet changes."""

from helpers.errors import InputError
from helpers.policies.routing import FIXED, LiveMask, candidates
from helpers.policies.view import Views


class Pools:
    """Who prefills, who decodes and who does both, as bit masks and ids (bit w stands for worker w).

    `see` brings it up to date; the views say of a mixed worker that it takes either part, so no
    view of a worker has to be made to learn its role.
    """

    __slots__ = ("_masks", "_seen", "decode", "decode_mask", "mixed", "prefill", "prefill_mask", "size", "split")

    def __init__(self) -> None:
        self._seen: tuple = (None, None)
        self._masks = LiveMask(), LiveMask()
        self.prefill: tuple[int, ...] = ()
        self.decode: tuple[int, ...] = ()
        self.mixed: frozenset[int] = frozenset()
        self.prefill_mask = self.decode_mask = 0
        self.size = 0  # one more than the highest id
        self.split = False  # whether some worker takes one part alone

    def see(self, views: Views) -> bool:
        """Look at who is live; whether that may have changed. Raises `InputError` when nobody prefills or decodes."""
        prefill, decode = candidates(views), views.decode
        if prefill is self._seen[0] and decode is self._seen[1]:
            return False
        if not decode:
            raise InputError("no live worker takes decodes; give the fleet a mixed or a decode worker")
        self.prefill, self.decode = tuple(prefill), tuple(decode)
        self.mixed = frozenset(prefill) & frozenset(decode)
        self.prefill_mask, self.decode_mask = self._masks[0](self.prefill), self._masks[1](self.decode)
        self.split = not len(self.mixed) == len(self.prefill) == len(self.decode)
        self.size = max(*self.prefill, *self.decode) + 1
        # What may change in place is not worth remembering.
        fixed = isinstance(prefill, FIXED) and isinstance(decode, FIXED)
        self._seen = (prefill, decode) if fixed else (None, None)
        return True
