"""The course's own text and code as bytes to learn from, part of it held out, and what simple models make of it."""

import json
import lzma
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from helpers.paths import ROOT

PIECE = 1024  # bytes; of every `HOLD_OUT` pieces of a domain the last is held out
HOLD_OUT = 10
PROSE = ("README.md", "CONTRIBUTING.md", "chapters/*.md", "chapters/*.ipynb", "labs/*.ipynb", "data/*/README.md")
CODE = ("helpers/**/*.py",)


def corpus(root: Path = ROOT) -> dict[str, tuple[bytes, bytes]]:
    """(to learn from, held out) of each domain: `prose` and `code`."""
    return {"prose": split(b"".join(_texts(root, PROSE))), "code": split(b"".join(_texts(root, CODE)))}


def _texts(root: Path, patterns: tuple[str, ...]) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            yield (_markdown(text) if path.suffix == ".ipynb" else text).encode() + b"\n"


def _markdown(notebook: str) -> str:
    cells = json.loads(notebook)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def split(text: bytes) -> tuple[bytes, bytes]:
    """Learn from most pieces, hold out every tenth."""
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    held = [i % HOLD_OUT == HOLD_OUT - 1 for i in range(len(pieces))]
    learn = b"".join(piece for piece, out in zip(pieces, held, strict=True) if not out)
    return learn, b"".join(piece for piece, out in zip(pieces, held, strict=True) if out)


def baselines(learn: bytes, held: bytes) -> dict[str, float]:
    """Bits per held-out byte of what has seen the same text: two compressors and the counts of byte pairs."""

    def extra(compress) -> float:
        return 8 * (len(compress(learn + held)) - len(compress(learn))) / len(held)

    return {
        "zlib": extra(lambda text: zlib.compress(text, 9)),
        "lzma": extra(lambda text: lzma.compress(text, preset=9)),
        "bigram": bigram_bits(learn, held),
    }


def bigram_bits(learn: bytes, held: bytes) -> float:
    """-log2 of (pairs + the byte's own share) / (firsts + 1), the mean over held-out bytes after the first."""
    pairs, firsts, single = Counter(pairwise(learn)), Counter(learn[:-1]), Counter(learn)

    def probability(a: int, b: int) -> float:
        own = (single[b] + 1) / (len(learn) + 256)
        return (pairs[a, b] + own) / (firsts[a] + 1)

    return -sum(math.log2(probability(a, b)) for a, b in pairwise(held)) / (len(held) - 1)
