"""The GPU table against the figures of the reference, and the probe of a machine."""

import sys
import types
from dataclasses import replace

import pytest

from helpers import hardware
from helpers.errors import InputError
from helpers.hardware import Device, gpu, gpus, hardware_key, load_gpus, probe
from helpers.sources import Figure, Source

# Section 5 of the reference, as printed there: dense peak / datasheet bandwidth, rounded.
RIDGES = {
    "a100": {"fp64": 10, "tf32": 77, "bf16": 153},
    "h100": {"fp64": 20, "tf32": 148, "bf16": 295, "fp8": 591},
    "h200": {"fp64": 14, "tf32": 103, "bf16": 206, "fp8": 412},
    "h20": {"fp64": 0.25, "tf32": 18, "bf16": 37, "fp8": 74},
    "b100": {"fp64": 4, "tf32": 112, "bf16": 219, "fp8": 438, "fp4": 875},
    "b200": {"fp64": 5, "tf32": 141, "bf16": 281, "fp8": 562, "fp4": 1125},
    "b300": {"fp64": 0.16, "tf32": 141, "bf16": 281, "fp8": 562, "fp4": 1641},
    "gb200": {"fp64": 5, "tf32": 156, "bf16": 312, "fp8": 625, "fp4": 1250},
    "gb300": {"fp64": 0.17, "tf32": 156, "bf16": 312, "fp8": 625, "fp4": 1875},
    "rtx4090": {"tf32": 82, "bf16": 164, "fp8": 328},
    "rtx5090": {"tf32": 58, "bf16": 117, "fp8": 234, "fp4": 935},
    "l40s": {"tf32": 212, "bf16": 419, "fp8": 848},
    "mi300x": {"fp64": 31, "tf32": 123, "bf16": 247, "fp8": 493},
    "mi355x": {"fp64": 10, "bf16": 315, "fp8": 629, "fp4": 1258},
}
FABRIC_RIDGES = {"a100": 1040, "h100": 2199, "h200": 2199, "h20": 329, "b200": 2500, "gb200": 2778, "mi300x": 2918}
NIC_RIDGES = {"h100": 19788, "h20": 2960, "b200": 45000, "b300": 22500}


def wrong_ridges(parts) -> list[tuple[str, str]]:
    """The entries of RIDGES that `parts` do not reproduce to the printed digits."""
    return [
        (key, dtype)
        for key, printed in RIDGES.items()
        for dtype, value in printed.items()
        if abs(parts[key].ridge(dtype) - value) > (0.005 if value < 1 else 0.51)
    ]


def changed(part, **figures: float):
    """`part` with some figures replaced, for controls."""
    source = Source("C", "a control")
    return replace(part, figures={**part.figures, **{k: Figure(v, source) for k, v in figures.items()}})


def test_every_part_of_the_reference_is_there():
    assert set(RIDGES) | {"a800", "h800"} == set(gpus())


def test_ridge_points():
    assert wrong_ridges(gpus()) == []


def test_ridge_points_notice_a_sparse_peak_or_another_bandwidth():
    sparse = {
        key: changed(g, **{f"peak_flops.{d}": 2 * g.peak_flops(d) for d in g.dtypes}) for key, g in gpus().items()
    }
    assert len(wrong_ridges(sparse)) == sum(map(len, RIDGES.values()))
    aic_b200 = {**gpus(), "b200": changed(gpu("b200"), hbm_bytes_per_s=7.7e12)}
    assert {key for key, _ in wrong_ridges(aic_b200)} == {"b200"}


@pytest.mark.parametrize(("link", "printed"), [("nvlink", FABRIC_RIDGES), ("nic", NIC_RIDGES)])
def test_second_ridge_points(link, printed):
    for key, value in printed.items():
        assert gpu(key).ridge("bf16", link) == pytest.approx(value, abs=0.51)
        assert changed(gpu(key), **{f"{link}_bytes_per_s": 2 * gpu(key).figure(f"{link}_bytes_per_s")}).ridge(
            "bf16", link
        ) != pytest.approx(value, abs=0.51)  # control: both directions counted


# SMs x FLOP/clock/SM x clock reproduces the published peak where the vendor's clock is known.
@pytest.mark.parametrize("key", ["a100", "h100", "h200", "mi300x", "mi355x"])
def test_tensor_peak_is_sms_times_flops_times_clock(key):
    part = gpu(key)
    clock = part.figure("clock_hz")
    assert part.clock_product_flops("bf16", clock) == pytest.approx(part.peak_flops("bf16"), rel=1e-3)
    one_more = changed(part, sms=part.sms + 1)
    assert one_more.clock_product_flops("bf16", clock) != pytest.approx(part.peak_flops("bf16"), rel=1e-3)


def test_the_older_h100_clock_does_not_reproduce_the_peak():
    assert gpu("h100").clock_product_flops("bf16", 1.98e9) == pytest.approx(1070e12, rel=1e-3)


@pytest.mark.parametrize("key", ["a100", "h100", "h200", "b200", "gb200", "l40s"])
def test_vector_peak_is_sms_times_flops_times_maximum_clock(key):
    part = gpu(key)
    assert part.clock_product_flops("fp32", part.figure("max_clock_hz")) == pytest.approx(
        part.peak_flops("fp32"), rel=0.01
    )


# The web's wrong counts for a B200 (192, 132, the 160 of the full die) fail either check.
@pytest.mark.parametrize("sms", [132, 160, 192])
def test_wrong_sm_counts_of_a_b200_fail(sms):
    part = changed(gpu("b200"), sms=sms)
    vector = part.clock_product_flops("fp32", part.figure("max_clock_hz"))
    assert vector != pytest.approx(part.peak_flops("fp32"), rel=0.01)


@pytest.mark.parametrize("key", ["h100", "h200", "b200", "gb200"])
def test_the_clock_behind_the_tensor_peak_is_one_the_part_has(key):
    def share_of_maximum(part) -> float:
        return part.peak_flops("bf16") / part.clock_product_flops("bf16", part.figure("max_clock_hz"))

    assert 0.9 < share_of_maximum(gpu(key)) <= 1.0
    assert not 0.9 < share_of_maximum(changed(gpu(key), sms=192)) <= 1.0
    assert share_of_maximum(changed(gpu("b200"), sms=132)) > 1.0


def test_measured_ceilings_lie_below_the_peaks():
    shares = {}
    for part in gpus().values():
        for name, figure in part.figures.items():
            dtype = name.removeprefix("measured.").partition("_")[0]
            if name.startswith("measured.") and name.endswith("_flops"):
                shares[part.key, name] = figure.value / part.peak_flops(dtype)
    assert len(shares) >= 15
    assert all(0.5 < share < 1 for share in shares.values())
    assert shares["h200", "measured.bf16_8192_zeros_flops"] > shares["h200", "measured.bf16_8192_flops"]


def test_usable_memory_is_what_the_device_reports():
    assert gpu("h200").memory_bytes == 143771 * 1024**2
    assert gpu("h200").memory_bytes / 1e9 == pytest.approx(150.8, abs=0.05)  # section 6.12
    assert gpu("h200").figure("nominal_bytes") == 141e9
    assert gpu("h20").memory_bytes == gpu("h20").figure("nominal_bytes") == 96e9  # nothing reported: nominal
    assert "device" not in gpu("h20").source_of("memory_bytes").text


def test_links_are_one_direction():
    assert (gpu("h100").nvlink_bytes_per_s, gpu("h100").nic_bytes_per_s) == (450e9, 50e9)
    assert gpu("a800").nvlink_bytes_per_s == gpu("a100").nvlink_bytes_per_s * 2 / 3  # 400 of 600 GB/s
    assert gpu("gb200").host_bytes_per_s == 450e9


def test_fp16_is_the_bf16_rate_and_missing_formats_are_refused():
    assert gpu("H100").peak_flops("fp16") == gpu("h100").peak_flops("bf16") == 989.4e12
    with pytest.raises(InputError, match="A100-80G SXM has no published fp8 peak"):
        gpu("a100").peak_flops("fp8")
    with pytest.raises(InputError, match="unknown number format 'bf8'"):
        gpu("h100").peak_flops("bf8")
    with pytest.raises(InputError, match="RTX 4090 has no nvlink link"):
        _ = gpu("rtx4090").nvlink_bytes_per_s
    with pytest.raises(InputError, match="unknown link 'pcie'"):
        gpu("h100").ridge("bf16", "pcie")
    with pytest.raises(InputError, match="no sms for b100"):
        _ = gpu("b100").sms


def test_unknown_hardware_lists_the_known():
    with pytest.raises(InputError, match=r"unknown hardware 'h300'; known: a100, .*h100.*mi355x"):
        gpu("h300")


def test_unverified_figures_are_known_as_such():
    assert "peak_flops.fp64" in gpu("gb300").unverified
    assert gpu("gb300").source_of("peak_flops.fp64").mark == "M"
    assert gpu("h200").unverified == ()


BARE = """
[x]
name = "X"
vendor = "V"
architecture = "A"
memory_type = "T"
fabric = "none"
device_names = []
memory_gb = { value = 1, mark = "C", source = "s" }
hbm_tb_per_s = { value = 2, mark = "C", source = "s" }
host_gb_per_s = { value = 3, mark = "C", source = "s" }
"""
PEAK = '[x.peak_tflops]\nbf16 = { value = 4, mark = "C", source = "s" }\n'


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(BARE + PEAK)
    assert load_gpus(path)["x"].ridge("bf16") == 2.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BARE, "own.toml: x lacks 'peak_flops.bf16'"),
        (BARE + "color = 'red'\n" + PEAK, "own.toml: x has the unknown field 'color'"),
        (BARE + 'smms = { value = 4, mark = "C", source = "s" }\n' + PEAK, "unknown field 'smms'"),
        (BARE + PEAK + 'bf15 = { value = 4, mark = "C", source = "s" }\n', r"unknown field 'peak_flops.bf15'"),
    ],
)
def test_tables_with_gaps_or_unknown_fields_are_refused(tmp_path, text, sentence):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_gpus(path)


# ------------------------------------------------------------------ the machine at hand


def fake_torch(name: str = "NVIDIA H200", count: int = 2, available: bool = True, fails: bool = False):
    """A stand-in for torch that knows one kind of GPU."""

    def properties(index: int):
        if fails:
            raise RuntimeError("no kernel image")
        return types.SimpleNamespace(
            name=name, total_memory=150_754_820_096, multi_processor_count=132, L2_cache_size=62_914_560
        )

    cuda = types.SimpleNamespace(
        is_available=lambda: available, device_count=lambda: count, get_device_properties=properties
    )
    return types.SimpleNamespace(cuda=cuda)


def test_probe_of_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    device = probe()
    assert (device.kind, device.count, device.cores, device.table_key) == ("gpu", 2, 132, "h200")
    assert hardware_key(device) == "h200"
    assert hardware_key(device, used=2) == "2x_h200"
    # What the probe would see is what the table says of an H200.
    assert (device.memory_bytes, device.l2_bytes) == (gpu("h200").memory_bytes, gpu("h200").figure("l2_bytes"))


def test_probe_does_not_take_one_part_for_another(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch("NVIDIA H100 PCIe", count=1))
    device = probe()
    assert device.table_key is None
    assert hardware_key(device) == "h100_pcie"


@pytest.mark.parametrize("torch", [None, fake_torch(available=False), fake_torch(fails=True)])
def test_probe_without_a_usable_gpu_gives_the_cpu(monkeypatch, torch):
    monkeypatch.setitem(sys.modules, "torch", torch)  # None makes the import fail
    device = probe()
    assert (device.kind, device.count, device.table_key) == ("cpu", 1, None)
    assert device.cores >= 1
    assert hardware_key(device).startswith("cpu_")
    assert hardware_key(device).endswith(f"_{device.cores}c")


@pytest.mark.parametrize(
    ("name", "cores", "key"),
    [
        ("Intel(R) Xeon(R) Platinum 8468 CPU @ 2.10GHz", 96, "cpu_intel_xeon_platinum_8468_96c"),
        ("AMD EPYC 9654 96-Core Processor", 2, "cpu_amd_epyc_9654_2c"),
        ("Apple M3 Max", 14, "cpu_apple_m3_max_14c"),
        ("", 1, "cpu_unknown_1c"),
    ],
)
def test_hardware_key_of_a_cpu(name, cores, key):
    assert hardware_key(Device("cpu", name, cores, 0)) == key


def test_hardware_key_counts_devices_used_not_visible():
    eight = Device("gpu", "NVIDIA H100 80GB HBM3", 132, 0, count=8)
    assert hardware_key(eight, used=1) == "h100_80gb_hbm3"
    assert hardware_key(eight, used=4) == "4x_h100_80gb_hbm3"
    for used in (0, 9):
        with pytest.raises(InputError, match=f"{used} devices used of 8 visible"):
            hardware_key(eight, used)
    with pytest.raises(InputError, match="2 devices used of 1 visible"):
        hardware_key(Device("cpu", "x", 4, 0), used=2)


def test_the_cpu_is_described_by_its_files(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763\nprocessor\t: 1\n")
    assert hardware._cpu_name(cpuinfo) == "AMD EPYC 7763"
    assert hardware._cpu_name(tmp_path / "missing") not in ("", "AMD EPYC 7763")
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    assert hardware._cpu_memory_bytes(limit) == 1048576
    limit.write_text("max\n")
    assert hardware._cpu_memory_bytes(limit) > 1048576
