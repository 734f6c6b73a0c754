"""The accelerator table (`data/hardware.toml`) and the machine at hand.

Standard library only; torch is imported inside `probe` alone, and its absence is no error.
"""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from helpers.errors import InputError
from helpers.paths import data_file
from helpers.sources import Entry, Figure, Source, one_of, read_tables

LABELS = {"name", "vendor", "architecture", "memory_type", "fabric", "device_names"}
FIELDS = {
    *("memory_bytes", "usable_bytes", "hbm_bytes_per_s", "l2_bytes", "sms", "warps_per_sm", "tdp_w"),
    *("shared_bytes_per_sm", "shared_bytes_per_cta", "tensor_memory_bytes_per_sm", "clock_hz", "max_clock_hz"),
    *("bf16_flop_per_clock_per_sm", "fp32_flop_per_clock_per_sm", "scale_up_gpus"),
    *("nvlink_bytes_per_s", "peer_bytes_per_s", "host_bytes_per_s", "nic_bytes_per_s"),
}
REQUIRED = ("memory_bytes", "hbm_bytes_per_s", "host_bytes_per_s", "peak_flops.bf16")
DTYPES = (
    *("fp64", "fp64_vector", "fp32", "tf32", "bf16", "fp16", "fp16_accumulate_fp16"),
    *("fp8", "fp8_accumulate_fp16", "int8", "fp6", "fp4"),
)
MAKERS = "nvidia|amd"  # left out of the names of measurements
LINKS = {"hbm": "hbm_bytes_per_s", "nvlink": "nvlink_bytes_per_s", "host": "host_bytes_per_s", "nic": "nic_bytes_per_s"}


@dataclass(frozen=True)
class GPU:
    """One accelerator. Figures are in base units (FLOP/s, bytes, bytes/s one direction, Hz, W), peaks dense.

    A figure that the table does not hold raises `InputError` when asked for; it is never guessed.
    """

    key: str
    name: str
    vendor: str
    architecture: str
    memory_type: str
    fabric: str
    device_names: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)

    def has(self, name: str) -> bool:
        """Whether the table holds the figure `name`, such as `nvlink_bytes_per_s` or `peak_flops.fp8`."""
        return _figure_name(self, name) in self.figures

    def figure(self, name: str) -> float:
        """A figure by name in base units; raises `InputError` when the part has none."""
        return self._figure(name).value

    def source_of(self, name: str) -> Source:
        """Mark and document of a figure; raises `InputError` when the part has none."""
        return self._figure(name).source

    def _figure(self, name: str) -> Figure:
        found = self.figures.get(_figure_name(self, name))
        if found is None:
            raise InputError(f"{self.name}: data/hardware.toml has no {name} for {self.key}; has() tells what it holds")
        return found

    @property
    def unverified(self) -> tuple[str, ...]:
        """The names of the figures that may only be shown as unverified."""
        return tuple(name for name, figure in self.figures.items() if not figure.source.verified)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The number formats with a published peak, fp16 not repeated where it equals bf16."""
        return tuple(name.removeprefix("peak_flops.") for name in self.figures if name.startswith("peak_flops."))

    def peak_flops(self, dtype: str = "bf16") -> float:
        """Dense peak in FLOP/s (int8: operations/s). `fp16` is the `bf16` rate on every part here.

        Raises `InputError` for an unknown format and for one that the part has no units or no figure for.
        """
        if dtype not in DTYPES:
            raise one_of("number format", dtype, DTYPES)
        if not self.has(f"peak_flops.{dtype}"):
            raise InputError(f"{self.name} has no published {dtype} peak; it has {', '.join(self.dtypes)}")
        return self.figure(f"peak_flops.{dtype}")

    @property
    def hbm_bytes_per_s(self) -> float:
        """Datasheet bandwidth of the device memory, bytes/s."""
        return self.figure("hbm_bytes_per_s")

    @property
    def memory_bytes(self) -> float:
        """Usable device memory in bytes: what the device reports, else the nominal size."""
        return self.figure("memory_bytes")

    @property
    def sms(self) -> int:
        """Streaming multiprocessors (compute units on AMD) that the device reports."""
        return int(self.figure("sms"))

    @property
    def nvlink_bytes_per_s(self) -> float:
        """Scale-up fabric of one GPU (NVLink or xGMI), bytes/s one direction; `InputError` without a fabric."""
        return self._link("nvlink")

    @property
    def host_bytes_per_s(self) -> float:
        """Link to the host (PCIe x16 or C2C), bytes/s one direction."""
        return self._link("host")

    @property
    def nic_bytes_per_s(self) -> float:
        """Network of one GPU in the reference system, bytes/s one direction; `InputError` where none is stated."""
        return self._link("nic")

    def _link(self, link: str) -> float:
        if link not in LINKS:
            raise one_of("link", link, LINKS)
        if not self.has(LINKS[link]):
            raise InputError(f"{self.name} has no {link} link in data/hardware.toml (fabric: {self.fabric})")
        return self.figure(LINKS[link])

    def ridge(self, dtype: str = "bf16", link: str = "hbm") -> float:
        """FLOP per byte above which arithmetic, not `link`, is the bound: dense peak / datasheet bandwidth.

        `link` is `hbm`, `nvlink` (the second ridge), `nic` or `host`.
        """
        return self.peak_flops(dtype) / self._link(link)

    def clock_product_flops(self, dtype: str, clock_hz: float) -> float:
        """SMs x FLOP/clock/SM x clock: what the peak should be at that clock. `dtype` is `bf16` or `fp32`."""
        return self.sms * self.figure(f"{dtype}_flop_per_clock_per_sm") * clock_hz


def _figure_name(gpu: GPU, name: str) -> str:
    if name == "peak_flops.fp16":
        return "peak_flops.bf16"
    if name == "memory_bytes" and "usable_bytes" in gpu.figures:
        return "usable_bytes"
    return "memory_bytes" if name == "nominal_bytes" else name


def load_gpus(path: Path) -> dict[str, GPU]:
    """All GPUs of a table file by key; raises `InputError` for an unknown or a missing field."""
    return {key: _gpu_of(entry, f"{path.name}: {key}") for key, entry in read_tables(path).items()}


def _gpu_of(entry: Entry, where: str) -> GPU:
    unknown = sorted(entry.labels.keys() - LABELS)
    unknown += [name for name in entry.figures if not _is_field(name)]
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}; fields are listed in helpers/hardware.py")
    missing = [name for name in (*LABELS, *REQUIRED) if name not in entry.labels and name not in entry.figures]
    if missing:
        raise InputError(f"{where} lacks {sorted(missing)[0]!r}; every part needs it")
    labels = dict(entry.labels)
    return GPU(key=entry.key, device_names=tuple(labels.pop("device_names")), figures=entry.figures, **labels)


def _is_field(name: str) -> bool:
    section, _, rest = name.partition(".")
    if section == "peak_flops":
        return rest in DTYPES
    return name in FIELDS or (section == "measured" and bool(rest))


@lru_cache(maxsize=1)
def gpus() -> Mapping[str, GPU]:
    """All GPUs of the course's table by key, in the order of the file."""
    return load_gpus(data_file("hardware.toml"))


def gpu(name: str) -> GPU:
    """A GPU by key (`h100`, `gb200`, `mi300x`, any case); raises `InputError` listing the known keys."""
    found = gpus().get(name.strip().lower())
    if found is None:
        raise one_of("hardware", name, gpus())
    return found


def gpu_of(hardware_key: str) -> str | None:
    """The key in the table of the part that one device of this `hardware_key` is; None when the table has none."""
    keys = {_slug(name, drop=MAKERS): one.key for one in gpus().values() for name in one.device_names}
    return keys.get(hardware_key)


@dataclass(frozen=True)
class Device:
    """The machine at hand: `kind` is `gpu` or `cpu`, `cores` the SMs or the cores this process may use.

    `count` is how many such devices are visible. `table_key` names the row of the table with these
    figures, None when the table has none.
    """

    kind: str
    name: str
    cores: int
    memory_bytes: int
    count: int = 1
    l2_bytes: int | None = None
    table_key: str | None = None


def probe() -> Device:
    """The first GPU that torch can use, else the CPU. Never raises for a missing torch or driver."""
    return _probe_gpu() or probe_cpu()


def _probe_gpu() -> Device | None:
    try:
        import torch

        if not torch.cuda.is_available():
            return None
        count, properties = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
    except (ImportError, OSError, RuntimeError, AssertionError):  # no torch, a broken build, a driver that fails
        return None
    key = next((g.key for g in gpus().values() if properties.name in g.device_names), None)
    l2 = getattr(properties, "L2_cache_size", None)
    return Device(
        "gpu", properties.name, properties.multi_processor_count, properties.total_memory, count, l2, table_key=key
    )


def probe_cpu() -> Device:
    """The CPU, also where there is a GPU that is not used."""
    return Device("cpu", _cpu_name(), _cpu_cores(), _cpu_memory_bytes())


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine() or "unknown"


def _cpu_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cpu_memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Physical memory, or the container's limit where that is lower; 0 when the system does not tell."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        physical = 0
    try:
        return min(physical, int(limit.read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return physical


def hardware_key(device: Device, used: int = 1) -> str:
    """The name of measurements made on `used` such devices: `h200`, `2x_h200`, `cpu_<model>_<cores>c`.

    It counts devices used, not devices visible. Raises `InputError` for fewer than one, or more
    than are visible; a CPU is one device, its cores are in the name.
    """
    if not 1 <= used <= device.count:
        raise InputError(f"{used} devices used of {device.count} visible ({device.name}); give 1 to {device.count}")
    if device.kind == "cpu":
        return f"cpu_{_slug(re.sub(r'@.*', '', device.name), drop=r'cpu|processor|[0-9]+-core')}_{device.cores}c"
    slug = _slug(device.name, drop=MAKERS)
    return slug if used == 1 else f"{used}x_{slug}"


def _slug(name: str, drop: str) -> str:
    plain = re.sub(r"\((r|tm|c)\)", " ", name.lower())
    plain = re.sub(rf"\b({drop})\b", " ", plain)
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "unknown"
