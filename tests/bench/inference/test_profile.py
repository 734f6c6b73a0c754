"""The profile of a few served steps: kinds by name, sums by hand, and a watched engine that is left as it was."""

import pytest

from helpers.bench.inference.host_time import HostWatch, watched
from helpers.bench.inference.profile import OTHER, TOP, Event, Window, kind_of, one_after_another, summary
from helpers.bench.inference.rungs import EngineExperiment, Load, close_engines, engine_for, served
from helpers.bench.targets.target import UNDRAWN
from helpers.serving.fleet import Fleet

BASE = EngineExperiment(UNDRAWN, Fleet(workers=1, chunk_tokens=128, max_batch=4, kv_gib=0.125))
FEW = Load(2000.0, 4, 64, "lognormal:90:0.1", "8").draw(0)


@pytest.fixture(scope="module")
def engine():
    yield engine_for(BASE.model, BASE.device, BASE.fleet)
    close_engines()


@pytest.mark.parametrize(("name", "kind"), [
    ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", "matrix products"),
    ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm>", "matrix products"),
    ("void cublasLt::splitKreduce_kernel<32, 16, int, __nv_bfloat16>", "matrix products"),
    ("_decode_attention", "attention"),
    ("_prefill_attention", "attention"),
    ("_store_kv", "attention"),
    ("_add_norm", "norms and SwiGLU"),
    ("_swiglu", "norms and SwiGLU"),
    ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<c10::BFloat16, at::native::MaxOps>>", "sampling"),
    ("Memcpy HtoD (Pinned -> Device)", "memory copies"),
    ("void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda>", "memory copies"),
    ("aten::addmm", "matrix products"),
    ("aten::_softmax", "attention"),
    ("void at::native::vectorized_elementwise_kernel<4, FillFunctor>", OTHER),
])  # fmt: skip
def test_kernels_are_of_a_kind_by_their_names(name, kind):
    assert kind_of(name) == kind


def test_our_own_kernels_are_named_for_what_they_do():
    """Control: a kernel called `_kernel`, as all were, is of no kind."""
    from helpers.engine.kernels import decode, few_rows, norm, prefill, rope, swiglu

    if not decode.runs_triton:
        pytest.skip("no Triton here")
    known = (decode._decode_attention, norm._add_norm, prefill._prefill_attention, rope._store_kv, swiglu._swiglu)
    assert kind_of(few_rows._linear_few_rows.__name__) == "matrix products"
    assert OTHER not in [kind_of(one.__name__) for one in known if hasattr(one, "__name__")]
    assert kind_of("_kernel") == OTHER


EVENTS = [
    Event("nvjet_a", 8, 0.008, True),
    Event("_decode_attention", 4, 0.002, True),
    Event("cudaLaunchKernelExC", 8, 0.004, False),
    Event("cuLaunchKernelEx", 4, 0.002, False),
    Event("cudaEventRecord", 9, 0.5, False),
]


def test_a_window_by_hand():
    """Four steps in 20 ms: 10 ms of kernels are half of it, 12 kernels and 12 launches are 3 a step, 6 ms of launching
    1.5 ms a step. The call that launches nothing does not count."""
    found = summary(EVENTS, "cuda", 4, 0.020)
    assert (found["busy_of_window"], found["kernels_a_step"], found["launches_a_step"]) == pytest.approx((0.5, 3, 3))
    assert (found["step_mean_s"], found["launching_s_a_step"]) == pytest.approx((0.005, 0.0015))
    assert found["kinds_s_a_step"] == pytest.approx({"matrix products": 0.002, "attention": 0.0005})
    assert [one["name"] for one in found["top"]] == ["nvjet_a", "_decode_attention"]
    assert found["top"][0]["of_busy"] == pytest.approx(0.8)
    graph = summary([*EVENTS[:2], Event("cudaGraphLaunch", 4, 0.001, False)], "cuda", 4, 0.020)
    assert graph["launches_a_step"] == 1 and graph["kernels_a_step"] == 3
    many = [Event(f"k{i}", 1, 0.001, True) for i in range(TOP + 5)]
    assert len(summary(many, "cuda", 1, 1.0)["top"]) == TOP


def test_a_kernel_that_waits_for_the_one_ahead_counts_from_its_end():
    """b starts at 1 s, waits until a has ended at 4 s and ends at 6: 2 s are its own. After a pause of 1 s comes a."""
    found = one_after_another([("a", 0.0, 4.0), ("b", 1.0, 6.0), ("a", 7.0, 8.0)])
    assert found == [Event("a", 2, 5.0, True), Event("b", 1, 2.0, True)]
    apart = one_after_another([("a", 0.0, 4.0), ("b", 4.0, 6.0)])
    assert [one.seconds for one in apart] == [4.0, 2.0]
    assert sum(one.seconds for one in found) == 7.0, "more than there was from 0 to 8, less the pause"


def test_a_window_that_saw_nothing_divides_by_nothing():
    assert summary([], "cuda", 0, 0.0)["busy_of_window"] == 0.0


def test_on_a_cpu_operations_stand_for_kernels(engine):
    with Window(engine, 0.0, 3) as window:
        served(BASE, FEW)
    assert window.seen == 3 and window.host_s > 0
    found = summary(window.events(), "cpu", window.seen, window.host_s)
    assert found["launches_a_step"] == 0 and found["kernels_a_step"] > 20
    assert found["kinds_s_a_step"]["matrix products"] > 0 and 0 < found["busy_of_window"] <= 1
    assert not {"step", "restart_clock"} & set(vars(engine))


def test_control_a_window_that_is_never_reached_is_empty(engine):
    with Window(engine, 1e6, 3) as window:
        found = served(BASE, FEW)
    assert window.events() == [] and window.seen == 0 and len(found.run.samples) > 8


def test_a_watch_counts_steps_and_no_warm_up(engine):
    found = served(BASE, FEW)
    assert found.host.steps == len(found.run.samples)
    assert all(seconds >= 0 for seconds in found.host.seconds.values())
    assert sum(found.host.seconds.values()) <= found.run.wall_s
    assert found.host.seconds["launch"] > found.host.seconds["schedule"] > 0


def test_watches_lie_over_each_other_and_leave_nothing_behind():
    class Counter:
        def add(self, n: int) -> int:
            return n

    one = Counter()
    with watched(one, "add", lambda usual, n: usual(n) + 1):
        with watched(one, "add", lambda usual, n: 10 * usual(n)):
            assert one.add(2) == 30  # the inner watch calls the outer one
        assert one.add(2) == 3
    assert one.add(2) == 2 and not vars(one)


def test_a_watch_ends_where_a_step_fails(engine):
    watch = HostWatch(engine)
    with watch, pytest.raises(RuntimeError, match="planted"):
        engine.runner.launch = lambda step: (_ for _ in ()).throw(RuntimeError("planted"))
        try:
            engine.submit(FEW.requests[0])
            engine.step()
        finally:
            engine.abandon("after a planted fault")
    assert "step" not in vars(engine) and "launch" not in vars(engine.runner)
