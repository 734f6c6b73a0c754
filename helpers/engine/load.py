"""A decoder by name: a preset with random weights, or the folder of a checkpoint."""

from pathlib import Path

import torch

from helpers.engine.config import PRESETS, ModelConfig, preset
from helpers.engine.model import Decoder
from helpers.engine.weights import random_weights
from helpers.errors import InputError
from helpers.paths import DATA

SMALL_HIDDEN = 512
SHIPPED = DATA / "models"  # trained on the course's own text, see its README
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def device_of(name: str = "auto") -> torch.device:
    """The device called `cpu`, `cuda` or `auto` (the GPU if there is one); raises `InputError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is none; give auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use; give --device cpu")
    return device


def dtype_of(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """bf16 on a GPU and fp32 on a CPU, unless told."""
    if isinstance(name, torch.dtype):
        return name
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def use_threads(decoder: Decoder) -> None:
    """Set how many threads torch uses on a CPU: one for a small model, whose operations end before a second one is
    awake (and, where cores are shared, before it comes to run at all); for others torch's own choice stays."""
    if decoder.device.type == "cpu" and decoder.config.hidden < SMALL_HIDDEN:
        torch.set_num_threads(1)


def check_name(model: str) -> None:
    """Raise `InputError` for a name that is neither a preset, nor a model that ships, nor a folder."""
    if model not in PRESETS:
        folder_of(model)


def folder_of(model: str | Path) -> Path:
    """The folder of a checkpoint, or of a model that ships; raises `InputError` for a name that is neither."""
    folder = Path(model) if Path(model).is_dir() else SHIPPED / str(model)
    if not folder.is_dir():
        known = [*PRESETS, *sorted(path.name for path in SHIPPED.glob("*/"))]
        raise InputError(f"{model}: neither a folder nor one of the presets {', '.join(known)}")
    return folder


def load(
    model: str | Path | ModelConfig = "tiny",
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
) -> Decoder:
    """The decoder of a preset (random weights from `seed`), of a config, of a model that ships (`book-dense`,
    `book-moe`), or of a Hugging Face folder.

    Raises `InputError` for a name that is neither, for a folder that cannot be read, and for weights that do
    not fit on the device.
    """
    on = device_of(device)
    kind = dtype_of(dtype, on)
    try:
        if isinstance(model, ModelConfig):
            return Decoder(model, random_weights(model, seed, on, kind))
        if str(model) in PRESETS:
            return Decoder(preset(str(model)), random_weights(preset(str(model)), seed, on, kind))
        from helpers.engine.checkpoint import load_checkpoint

        return Decoder(*load_checkpoint(folder_of(model), on, kind))
    except torch.OutOfMemoryError:
        raise InputError(
            f"the weights of {model} do not fit on {on}; take a smaller model or free the device"
        ) from None
