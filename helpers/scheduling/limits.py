"""How much one worker may hold and do in a step."""

from dataclasses import dataclass

from helpers.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a worker's scheduler.

    `kv_blocks` blocks of `block_tokens` tokens; at most `max_batch` running sequences; at most
    `token_budget` tokens a step, decodes first, prefill chunks with what is left. While others
    run, admission leaves a share `watermark` of the blocks free, so that a new prompt is not
    preempted by the next growing decode. Raises `InputError` for values that cannot work.
    """

    kv_blocks: int
    block_tokens: int
    token_budget: int = 2048
    max_batch: int = 256
    watermark: float = 0.01

    def __post_init__(self) -> None:
        for name in ("kv_blocks", "block_tokens", "token_budget", "max_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.token_budget < self.max_batch:
            raise InputError(
                f"token_budget {self.token_budget} is below max_batch {self.max_batch}: "
                "every running sequence needs a token in each step; raise the budget or lower the batch"
            )
        if not 0.0 <= self.watermark < 1.0:
            raise InputError(f"watermark is {self.watermark}; give a share from 0 up to 1")

    @property
    def reserve_blocks(self) -> int:
        """Blocks that admission leaves free while others run."""
        return int(self.watermark * self.kv_blocks)
