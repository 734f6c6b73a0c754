"""`bench engine`: every part in turn, the cheap and the decisive ones first."""

import platform
from collections.abc import Sequence
from pathlib import Path

from helpers.bench.engine import decode, parts, peers, serving
from helpers.bench.engine.report import Report
from helpers.checkout import commit
from helpers.errors import InputError
from helpers.hardware import hardware_key, probe, probe_cpu
from helpers.paths import DATA
from helpers.serving.provenance import now_utc

PARTS = (
    "ceilings",
    "decode",
    "prefill",
    "mixed",
    "end to end",
    "check",
    "loops",
    "scheduler",
    "kernels",
    "moe",
    "peers",
)
BATCHES = (1, 8, 32, 128)
PREFILLS = (512, 2048, 8192)


def bench_engine(
    preset: str = "llama-8b",
    device: str = "auto",
    peer: Sequence[str] = (),
    only: Sequence[str] = (),
    check: bool = False,
    path: Path | None = None,
    budget_s: float = 480.0,
    report: Report | None = None,
    ours: dict[str, float] | None = None,
    command: str = "bench_engine",
) -> Report:
    """Run the parts named in `only` (all; `check` only when asked for) and return the report.

    Writes `path` after each point; a `report` that is given is filled in place of a new one. `ours` are rates
    that were measured before, for peers to be held against. Raises `InputError` for names that do not exist,
    before anything runs.
    """
    for name in only:
        if name not in PARTS:
            raise InputError(f"bench engine: part {name!r} is unknown; use one of {', '.join(PARTS)}")
    for name in peer:
        peers.check(name)
    if not budget_s > 0:
        raise InputError(f"bench engine: a budget of {budget_s:g} s measures nothing; give seconds above 0")
    from helpers.engine.load import check_name

    check_name(preset)
    wanted = set(only or PARTS) - (set() if check or "check" in only else {"check"})
    report = report or Report(path, budget_s, head={"command": command, **provenance(preset, device, peer)})
    return _Run(report, preset, device, wanted, tuple(peer), ours or {}).everything()


def pack_path(hardware_key: str, preset: str) -> Path:
    """Where the record of a device lies among the packs: one file a preset."""
    folder = DATA / "packs" / hardware_key
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"engine_{preset}.json"


def key_of(device: str) -> str:
    """The key of the hardware that a device is."""
    from helpers.engine.load import device_of

    return hardware_key(probe() if device_of(device).type == "cuda" else probe_cpu())


class _Run:
    """The parts of one report; the engine is made when the first part needs it and closed before the peers run."""

    def __init__(
        self, report: Report, preset: str, device: str, wanted: set[str], peer: tuple[str, ...], ours: dict[str, float]
    ) -> None:
        from helpers.engine.load import device_of, dtype_of

        self.report, self.preset, self.wanted, self.peer = report, preset, wanted, peer
        self.measured_before = ours
        self.device = device_of(device)
        self.dtype = dtype_of(None, self.device)
        self.copy_bytes_per_s = self.matmul_flop_per_s = float("nan")
        self._bench: decode.Bench | None = None

    def everything(self) -> Report:
        report, wanted = self.report, self.wanted
        found = report.run("ceilings", lambda: parts.ceilings(self.device, self.dtype))
        if len(found) == 2:
            self.copy_bytes_per_s, self.matmul_flop_per_s = found[0]["value"] * 1e9, found[1]["value"] * 1e12
        steps = {
            "decode": lambda: decode.decode(self.bench(), BATCHES),
            "prefill": lambda: decode.prefill(self.bench(), PREFILLS),
            "mixed": lambda: decode.mixed(self.bench()),
            "end to end": lambda: serving.end_to_end(self.bench()),
            "check": lambda: parts.checks(self.device),
            "loops": lambda: serving.loops(self.bench()),
            "scheduler": lambda: serving.scheduler(),
            "kernels": lambda: parts.kernels(self.bench()),
        }
        for name, part in steps.items():
            if name in wanted:
                report.run(name, part)
        self.close()
        if "moe" in wanted:
            ceilings = (self.matmul_flop_per_s, self.copy_bytes_per_s)
            report.run("moe", lambda: parts.moe(self.device, self.dtype, *ceilings))
        if "peers" in wanted:
            self.run_peers()
        report.write(whole=True)
        return report

    def bench(self) -> decode.Bench:
        """The engine with room for the largest batch, and the ceilings."""
        if self._bench is None:
            import torch

            from helpers.engine.engine import Engine
            from helpers.engine.load import load, use_threads
            from helpers.scheduling.limits import Limits

            decoder = load(self.preset, str(self.device), self.dtype)
            use_threads(decoder)
            self.report.head["threads"] = torch.get_num_threads()
            context = min(9216, decoder.config.max_context)
            blocks = max(BATCHES) * (decode.CONTEXT + 128) // 64 + 64
            engine = Engine(decoder, Limits(blocks, 64, 8192, max(BATCHES)), max_context=context)
            decode.fill_pages(engine)
            engine.runner.warm_up(list(BATCHES))
            self._bench = decode.Bench(engine, self.copy_bytes_per_s, self.matmul_flop_per_s)
        return self._bench

    def close(self) -> None:
        if self._bench is not None:
            self._bench.engine.close()
            self._bench = None

    def run_peers(self) -> None:
        if not self.peer:
            print("-- peers: none was named (--peers transformers, --peers gpt-fast=DIR)", flush=True)
        ours = self.ours()
        for i, name in enumerate(self.peer):  # none takes the time of those behind it
            limit_s = max(30.0, self.report.left_s / (len(self.peer) - i))
            part = lambda n=name, s=limit_s: peers.run(n, self.preset, self.device.type, s, ours)  # noqa: E731
            self.report.run(f"peer {name.partition('=')[0]}", part)

    def ours(self) -> dict[str, float]:
        """What peers are held against: by name, in output tokens per second."""
        return self.measured_before | rates_of(self.report.parts)


def rates_of(parts: dict[str, dict]) -> dict[str, float]:
    """What peers are held against, from the parts `decode` and `end to end` of a record."""
    found = {}
    for name in ("decode", "end to end"):
        for one in parts.get(name, {}).get("points", ()):
            found[one["name"] if name == "decode" else name] = one["value"]
    return found


def provenance(preset: str, device: str, peer: Sequence[str]) -> dict:
    """Where and with what the numbers were made."""
    import numpy
    import torch

    from helpers.engine.load import device_of

    at_hand = probe() if device_of(device).type == "cuda" else probe_cpu()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    for package in ("triton", "transformers"):
        versions[package] = version_of(package)
    record = {
        "kind": "measured",
        "preset": preset,
        "asked_device": device,
        "hardware_key": hardware_key(at_hand),
        "device": at_hand.name,
        "threads": torch.get_num_threads(),
        "peers": [name.partition("=")[0] for name in peer],
        "commit": commit(),
        "made": now_utc(),
        "versions": versions,
    }
    return record | (gpu_facts() if at_hand.kind == "gpu" else {})


def version_of(package: str) -> str:
    """The version of an installed package, `absent` without it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def gpu_facts() -> dict:
    """Driver, clocks, power limit and temperature as nvidia-smi tells them; nothing without a GPU."""
    import subprocess

    names = ("driver_version", "clocks.max.sm", "clocks.max.mem", "clocks.sm", "power.limit", "temperature.gpu")
    words = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    first = done.stdout.strip().splitlines()[:1]
    return {"gpu": dict(zip(names, (v.strip() for v in first[0].split(",")), strict=False))} if first else {}
