"""The engine against the float64 reference on steps of every kind, and controls that must fail.

`run` needs no test framework, so it also runs where the GPU is; `table` prints what it found.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from helpers.engine import kernel_checks
from helpers.engine.config import ModelConfig, MoEConfig, RopeScaling
from helpers.engine.error_bounds import BOUNDS, Check, relative_error
from helpers.engine.kernels.prefill import tiles_of
from helpers.engine.model import Decoder
from helpers.engine.moe import run_experts
from helpers.engine.pages import KVPages
from helpers.engine.reference import Choices, reference_logits
from helpers.engine.step import Batch
from helpers.engine.weights import ExpertWeights, Weights, random_weights

CHOICE_BOUNDS = {torch.float32: 0.0, torch.bfloat16: 0.05}
# Three bits of a number's fraction are kept, so each is off by up to 1 / 16. What logits make of that depends on the
# draw of the weights, which is another on a GPU: 0.06 to 0.096 in fp32 over twelve of them, 0.105 in bf16 on one.
FP8_BOUND = 0.15
CONTROL_BOUND = 1e-3  # a planted fault must move the logits by more

_SMALL = {"layers": 2, "hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "vocab": 320, "max_context": 512}
CONFIGS = (
    ModelConfig("llama-like", intermediate=352, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64), **_SMALL),
    ModelConfig("qwen3-like", intermediate=352, qk_norm=True, tied=True, **_SMALL),
    ModelConfig(
        "qwen3-moe-like", intermediate=0, qk_norm=True, moe=MoEConfig(experts=8, top_k=2, intermediate=96), **_SMALL
    ),
    ModelConfig(
        "deepseek-like",
        intermediate=352,
        moe=MoEConfig(
            16, 4, 64, "sigmoid", bias=True, shared_experts=1, groups=4, top_groups=2, scaling=2.5, dense_layers=1
        ),
        **_SMALL,
    ),
)


class Playground:
    """Sequences on pages in random order, stepped by hand with tokens that are known beforehand."""

    def __init__(
        self, decoder: Decoder, lengths: list[int], page_tokens: int = 16, kv_dtype: torch.dtype | None = None
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        config = decoder.config
        self.decoder, self.page_tokens = decoder, page_tokens
        self.owner = torch.empty(0)  # the sequence of each token of the last batch
        self.choices: list[Choices] = [{} for _ in lengths]  # experts that the engine took, -1 where none yet
        self.tokens = [torch.randint(config.vocab, (n,), generator=generator) for n in lengths]
        columns = -(-max(lengths) // page_tokens)
        order = torch.randperm(columns * len(lengths) + 1, generator=generator)[: columns * len(lengths)]
        self.table = order.view(-1, columns).int()
        self.pages = KVPages(config, len(order) + 1, page_tokens, decoder.device, kv_dtype or decoder.dtype)
        self.computed = [0] * len(lengths)

    def share_prefix(self, owner: int, other: int, pages: int) -> None:
        """`other` begins with the first tokens and pages of `owner`, as after a hit in the prefix cache."""
        n = pages * self.page_tokens
        self.tokens[other][:n] = self.tokens[owner][:n]
        self.table[other, :pages] = self.table[owner, :pages]
        self.computed[other] = n
        for layer, taken in self.choices[owner].items():
            self._choices_of(other, layer, taken.shape[1])[:n] = taken[:n]

    def batch(self, decode: Iterable[int] = (), chunks: Iterable[tuple[int, int]] = ()) -> Batch:
        """The step of one token of each sequence in `decode` and of (sequence, new tokens) in `chunks`."""
        decode, chunks = list(decode), list(chunks)
        rows = [(s, 1) for s in decode] + chunks
        spans = [(s, self.computed[s], self.computed[s] + n) for s, n in rows]
        positions = torch.cat([torch.arange(a, b) for _, a, b in spans])
        self.owner = torch.cat([torch.full((b - a,), s) for s, a, b in spans])
        page = self.table[self.owner, positions // self.page_tokens].long()
        ends = torch.tensor([n for _, n in rows]).cumsum(0)
        for s, _, b in spans:
            self.computed[s] = b
        on, config, n = self.decoder.device, self.decoder.config, len(decode)
        chunk_spans = [(b - a, a) for _, a, b in spans[n:]]
        slots = page * self.page_tokens + positions % self.page_tokens
        lengths = torch.tensor([b for _, _, b in spans], dtype=torch.int32, device=on)
        return Batch(
            tokens=torch.cat([self.tokens[s][a:b] for s, a, b in spans]).to(on),
            positions=positions.to(on),
            slots=torch.cat([torch.full((n,), -1), slots[n:]]).to(on),
            page_table=self.table[[s for s, _ in rows]].to(on),
            lengths=lengths,
            query_starts=torch.tensor([0, *(n for _, n in rows)], dtype=torch.int32, device=on).cumsum(0).int(),
            last=(ends - 1).to(on),
            decode_slots=slots[:n].to(on),
            decode_lengths=lengths[:n],
            tiles=tiles_of(chunk_spans, n, config.heads // config.kv_heads, self.decoder.dtype, on),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the batch's rows; notes which experts its tokens were sent to."""
        layer = iter(range(self.decoder.config.dense_layers, self.decoder.config.layers))
        owner, positions = self.owner, batch.positions.cpu()

        def noted(hidden: Tensor, chosen: Tensor, gates: Tensor, weights: ExpertWeights) -> Tensor:
            number = next(layer)
            for sequence in owner.unique().tolist():
                mine = owner == sequence
                self._choices_of(sequence, number, chosen.shape[1])[positions[mine]] = chosen.cpu()[mine]
            return run_experts(hidden, chosen, gates, weights.w13, weights.w2)

        self.decoder.dispatcher = noted
        return self.decoder.forward(batch.tokens, batch, self.pages)

    def _choices_of(self, sequence: int, layer: int, top_k: int) -> Tensor:
        empty = torch.full((len(self.tokens[sequence]), top_k), -1)
        return self.choices[sequence].setdefault(layer, empty)


Result = list[tuple[int, int, Tensor]]  # (sequence, its context, logits after it)


def play(ground: Playground) -> dict[str, Result]:
    """Steps of every kind on four sequences, the fourth sharing 64 tokens of KV with the first."""
    steps = (
        ("prefill", (), ((0, 33), (1, 1), (2, 80))),
        ("second chunk", (), ((0, 15), (1, 40))),
        ("mixed", (2,), ((0, 30), (1, 7))),
        ("decode", (0, 1, 2), ()),
        ("prefix hit", (0,), ((3, 20),)),
        ("decode after", (3, 2, 0), ()),
    )
    found: dict[str, Result] = {}
    for name, decode, chunks in steps:
        if name == "prefix hit":
            ground.share_prefix(0, 3, 64 // ground.page_tokens)
        batch = ground.batch(decode, chunks)
        logits = ground.forward(batch)
        rows = [*decode, *(s for s, _ in chunks)]
        found[name] = [(s, ground.computed[s], row) for s, row in zip(rows, logits, strict=True)]
    return found


LENGTHS = [100, 60, 90, 90]  # tokens known of each sequence


def compare(name: str, rows: Result, expected: list[Tensor], bound: float) -> Check:
    """The largest error of a row against the reference, and its greedy tokens; `close` ones differ by less than
    the bound allows: the two best reference logits are within `bound` times the row's norm."""
    error, wrong, close = 0.0, 0, 0
    for sequence, context, logits in rows:
        reference = expected[sequence][context - 1]
        error = max(error, relative_error(logits, reference))
        if int(logits.argmax()) != int(reference.argmax()):
            best = reference.topk(2).values
            within = float(best[0] - best[1]) <= bound * float(reference.norm())
            close, wrong = close + within, wrong + (not within)
    return Check(name, error, bound, len(rows), wrong, close)


def model_checks(config: ModelConfig, device="cpu", dtype: torch.dtype = torch.float32, page: int = 16) -> list[Check]:
    """Every kind of step of one model against the reference with the same weights."""
    weights = random_weights(config, 1, device, dtype)
    ground = Playground(Decoder(config, weights), LENGTHS, page)
    found = play(ground)
    best: list[Choices] = [{} for _ in LENGTHS]
    expected = [
        reference_logits(config, weights, tokens.to(device), _on(device, taken), chosen)
        for tokens, taken, chosen in zip(ground.tokens, ground.choices, best, strict=True)
    ]
    checks = [compare(f"{config.name}: {name}", rows, expected, BOUNDS[dtype]) for name, rows in found.items()]
    return [*checks, *_choice_checks(config, ground.choices, best, dtype)]


def _on(device, choices: Choices) -> Choices:
    return {layer: taken.to(device) for layer, taken in choices.items()}


def _choice_checks(config: ModelConfig, taken: list[Choices], best: list[Choices], dtype: torch.dtype) -> list[Check]:
    """The share of tokens that were sent to other experts than the reference's."""
    if config.moe is None:
        return []
    pairs = [
        (a[a[:, 0] >= 0], best[s][layer].cpu()[a[:, 0] >= 0]) for s, t in enumerate(taken) for layer, a in t.items()
    ]
    differ = torch.cat([(a.sort(-1).values != b.sort(-1).values).any(-1) for a, b in pairs])
    name = f"{config.name}: share of choices that differ"
    return [Check(name, differ.double().mean().item(), CHOICE_BOUNDS[dtype], len(differ))]


def fp8_pages_check(device="cpu", dtype: torch.dtype = torch.float32) -> Check:
    """A Llama-like model on pages of fp8 against the float64 reference, whose KV is exact."""
    config = CONFIGS[0]
    weights = random_weights(config, 1, device, dtype)
    ground = Playground(Decoder(config, weights), LENGTHS, kv_dtype=torch.float8_e4m3fn)
    rows = [row for found in play(ground).values() for row in found]
    expected = [reference_logits(config, weights, tokens.to(device)) for tokens in ground.tokens]
    return compare(f"{config.name}, fp8 pages: all steps", rows, expected, FP8_BOUND)


Fault = Callable[[Playground, Batch], None]


def _zeroed_page(ground: Playground, batch: Batch) -> None:
    ground.pages.tensor[:, :, int(ground.table[0, 2])] = 0


def _swapped_pages(ground: Playground, batch: Batch) -> None:
    # Of two full pages a decode would see nothing: keys carry their positions, and a sum has no order.
    batch.page_table[0, [1, -1]] = batch.page_table[0, [-1, 1]]


def _wrong_position(ground: Playground, batch: Batch) -> None:
    batch.positions += 1


def _short_length(ground: Playground, batch: Batch) -> None:
    batch.lengths -= 1


FAULTS: dict[str, Fault] = {
    "a zeroed page": _zeroed_page,
    "two pages swapped": _swapped_pages,
    "a wrong position": _wrong_position,
    "a length one short": _short_length,
}


def fault_error(config: ModelConfig, fault: Fault | None, device, dtype: torch.dtype, context: int = 99) -> float:
    """How far a planted fault moves the logits of a decode after `context` tokens (None: the run without one)."""
    decoder = Decoder(config, random_weights(config, 1, device, dtype))
    logits = []
    for planted in (None, fault):
        ground = Playground(decoder, [context + 1])
        ground.forward(ground.batch(chunks=[(0, context)]))
        batch = ground.batch(decode=[0])
        if planted:
            planted(ground, batch)
        logits.append(ground.forward(batch)[0])
    return relative_error(logits[1], logits[0])


def dropped_expert_error(config: ModelConfig, device, dtype: torch.dtype) -> float:
    """How far the logits move when the expert chosen most often in the first layer with experts answers zero."""
    weights = random_weights(config, 1, device, dtype)
    layer = config.dense_layers
    logits = []
    for drop in (False, True):
        used = _without_expert(weights, layer) if drop else weights
        ground = Playground(Decoder(config, used), [64])
        logits.append(ground.forward(ground.batch(chunks=[(0, 64)]))[0])
    return relative_error(logits[1], logits[0])


def _without_expert(weights: Weights, layer: int) -> Weights:
    moe = weights.layers[layer].moe
    dropped = replace(moe, w2=moe.w2.clone())
    dropped.w2[: len(moe.w2) // 2] = 0  # half of them: whatever the last token chose, some of it is gone
    return replace(weights, layers=weights.layers | {layer: replace(weights.layers[layer], moe=dropped)})


def controls(device="cpu", dtype: torch.dtype = torch.float32) -> list[Check]:
    """Planted faults, each of which must move the logits by more than `CONTROL_BOUND`."""
    found = [
        Check(f"control: {name}", fault_error(CONFIGS[0], fault, device, dtype), CONTROL_BOUND, control=True)
        for name, fault in FAULTS.items()
    ]
    error = dropped_expert_error(CONFIGS[2], device, dtype)
    return [*found, Check("control: dropped experts", error, CONTROL_BOUND, control=True)]


def run(device="cpu", dtype: torch.dtype = torch.float32) -> list[Check]:
    """Kernels, models and controls on one device."""
    models = [check for config in CONFIGS for check in model_checks(config, device, dtype)]
    return [*kernel_checks.run(device, dtype), *models, fp8_pages_check(device, dtype), *controls(device, dtype)]


def table(checks: list[Check]) -> str:
    """One line a check."""
    lines = [f"{'check':58} {'error':>8} {'bound':>8}  tokens: wrong, close"]
    for check in checks:
        tokens = f"{check.tokens:6}: {check.wrong}, {check.close}" if check.tokens else ""
        side = ">" if check.control else "<="
        verdict = "" if check.ok else "  FAILED"
        lines.append(f"{check.name:58} {check.error:8.1e} {side:>2}{check.bound:6.0e}  {tokens}{verdict}")
    return "\n".join(lines)
