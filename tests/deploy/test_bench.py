"""Benchmarks: turns and statistics on a fake clock, failures that stop nobody else, real passes."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.deploy import bench as bench_module
from cmtscale.deploy.bench import WARM_UP, bench, take_turns
from cmtscale.deploy.bench_request import TIMED, BenchRequest
from cmtscale.deploy.memory import weight_bytes
from cmtscale.deploy.passes import Pass, build_for_timing, onnx_pass
from cmtscale.deploy.subjects import Subject
from cmtscale.record.bench import Measurement


@dataclass
class Machine:
    """A clock, and passes that take the seconds they are told; `log` has who ran."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def make(self, name: str, *seconds: float) -> Pass:
        left = list(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def measurement(*seconds: float, batch: int = 1, macs: int = 10) -> Measurement:
    return Measurement(
        name="n",
        resolution_px=64,
        macs=macs,
        params=1,
        batch=batch,
        seconds=seconds,
        peak_bytes=None,
        accuracy=None,
        accuracy_of="",
    )


def make_failing_pass(fails: Callable[[str, int], bool], error: Exception) -> Callable[..., Pass]:
    """A `torch_pass` whose passes do nothing, or fail for some names and batch sizes."""

    def torch_pass(_model: object, network: Variant, batch: int, _device: object) -> Pass:
        def run() -> None:
            if fails(network.name, batch):
                raise error

        return run

    return torch_pass


@pytest.fixture
def subject(tiny_base: Variant) -> Subject:
    return Subject(name="tiny", network=tiny_base)


# --- turns and statistics


def test_networks_take_turns_and_the_first_pass_of_a_turn_is_not_timed() -> None:
    machine = Machine()
    a, b = machine.make("a", 9.0, 1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0), machine.make("b", 0.5)
    first, second = take_turns([a, b], rounds=2, clock=machine.clock)
    assert first == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert second == (0.5,) * 6
    turn = TIMED + 1
    assert machine.log == (["a"] * turn + ["b"] * turn) * 2


def test_what_is_left_is_said_after_each_round() -> None:
    machine, heard = Machine(), list[str]()
    take_turns([machine.make("a", 2.0)], rounds=3, clock=machine.clock, watch=heard.append)
    assert heard == [
        "round 1 of 3, about 16 s left", "round 2 of 3, about 8 s left",
        "round 3 of 3, about 0 s left",
    ]  # fmt: skip


def test_median_p95_and_rates_follow_from_the_seconds() -> None:
    seconds = np.random.default_rng(0).lognormal(size=30).tolist()
    measured = measurement(*seconds, batch=4, macs=1000)
    assert measured.median_seconds == pytest.approx(np.median(seconds))
    assert measured.p95_seconds == pytest.approx(np.percentile(seconds, 95))
    assert measured.images_per_second == pytest.approx(4 / np.median(seconds))
    assert measured.macs_per_second == pytest.approx(4000 / np.median(seconds))


# --- failures


def test_a_network_that_runs_out_of_memory_is_left_out_and_the_others_go_on(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    fails = make_failing_pass(lambda _, batch: batch == 4, error)
    monkeypatch.setattr(bench_module, "torch_pass", fails)
    request = BenchRequest(batches=(1, 4, 8), device="cpu", rounds=1)
    measured = bench([subject, subject], request)
    assert [(entry.name, entry.batch) for entry in measured.measurements] == [
        ("tiny", 1), ("tiny", 8), ("tiny", 1), ("tiny", 8),
    ]  # fmt: skip
    assert [(entry.name, entry.batch) for entry in measured.left_out] == [("tiny", 4)] * 2
    assert measured.left_out[0].reason.startswith("it runs out of memory beside the others; use")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out of memory"),
        (MemoryError(), "it runs out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "it runs out of memory"),
        (RuntimeError("\"gelu\" not implemented for 'Half'\nStack"), '"gelu" not implemented'),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_pass_that_fails_on_its_way_takes_only_its_own_times_along(
    error: Exception, reason: str
) -> None:
    machine = Machine()
    steps = iter([None] * (TIMED + 2))

    def fails() -> None:
        if next(steps, "over") == "over":
            raise error

    failed, others = take_turns([fails, machine.make("b", 0.5)], rounds=3, clock=machine.clock)
    assert isinstance(failed, str)
    assert reason in failed
    assert "\n" not in failed
    assert others == (0.5,) * 3 * TIMED


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        ({"batches": (0,)}, "batch 0 is not a whole number from 1 on"),
        ({"rounds": 0}, "rounds 0 is not"),
        ({"threads": 0}, "threads 0 is not"),
        ({"dtype": "fp8"}, "dtype 'fp8' is not one of fp32, bf16, fp16"),
        ({"backend": "tvm"}, "backend 'tvm' is neither torch nor onnxruntime"),
        ({"backend": "onnxruntime", "dtype": "bf16"}, "onnxruntime has neither dtype nor"),
        ({"backend": "onnxruntime", "compiled": True}, "onnxruntime has neither dtype nor"),
    ],
)
def test_a_request_that_makes_no_sense_cannot_exist(
    request_of: dict[str, object], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        BenchRequest(**request_of)  # type: ignore[arg-type]


def test_half_precision_and_devices_are_refused_where_they_are_not() -> None:
    with pytest.raises(RequestError, match="fp16 is measured on GPUs only; use bf16 or fp32"):
        BenchRequest(dtype="fp16", device="cpu").torch_device()
    with pytest.raises(RequestError, match="device 'tpu' is not one of"):
        BenchRequest(device="tpu").torch_device()
    with pytest.raises(RequestError, match="measured on the CPU, not on 'cuda'"):
        BenchRequest(backend="onnxruntime", device="cuda").torch_device()


# --- conditions of a pass


def test_passes_run_as_requested_and_everything_is_as_before_afterwards(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def torch_pass(*_: object) -> Pass:
        def run() -> None:
            is_low = torch.is_autocast_enabled("cpu")
            seen.add((torch.get_num_threads(), torch.is_inference_mode_enabled(), is_low))

        return run

    monkeypatch.setattr(bench_module, "torch_pass", torch_pass)
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    request = BenchRequest(device="cpu", threads=before + 1, dtype="bf16", rounds=1)
    measured = bench([subject], request)
    assert seen == {(before + 1, True, True)}
    assert measured.conditions.threads == before + 1
    assert measured.measurements[0].peak_bytes is None  # the weights in bf16 would be missing
    assert measured.conditions.memory.startswith("not measured: it is kept between passes")
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_compiled_network_is_what_is_timed(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def compiled(model: nn.Module, *, dynamic: bool) -> Callable[[Tensor], Tensor]:
        assert not dynamic

        def forward(images: Tensor) -> Tensor:
            calls.append(len(images))
            return model(images)  # type: ignore[no-any-return]

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    bench([subject], BenchRequest(batches=(2,), device="cpu", compiled=True, rounds=1))
    # warm-up, the pass whose memory is measured, an untimed one, the timed ones
    assert calls == [2] * (WARM_UP + 1 + 1 + TIMED)


@pytest.mark.usefixtures("single_threaded")
def test_a_real_measurement_says_what_it_is(subject: Subject, tiny_base: Variant) -> None:
    request = BenchRequest(batches=(2, 1), device="cpu", rounds=2)
    content = bench([subject], request).as_json()
    assert list(content) == ["conditions", "measurements", "left_out"]
    assert content["conditions"]["threads"] == 1
    assert content["conditions"]["device"] == "cpu"
    assert not content["conditions"]["tf32"]
    assert [entry["batch"] for entry in content["measurements"]] == [1, 2]
    for entry in content["measurements"]:
        assert entry["macs"] == cost(tiny_base).macs
        assert entry["params"] == cost(tiny_base).params
        assert len(entry["seconds"]) == 2 * TIMED
        assert min(entry["seconds"]) <= entry["median_seconds"] <= entry["p95_seconds"]
        assert entry["p95_seconds"] <= max(entry["seconds"])
        rate = entry["batch"] / entry["median_seconds"]
        assert entry["images_per_second"] == pytest.approx(rate, rel=1e-3)  # rounded
        if entry["peak_bytes"] is not None:  # the weights at least
            assert entry["peak_bytes"] >= 4 * cost(tiny_base).params


GROWTH = """
import torch
from cmtscale.deploy.memory import resident_growth

def run():
    for _ in range(3):
        torch.ones(25_000_000).sum()  # 100 MB, freed before the next

resident_growth(run)
print(resident_growth(run))
"""


def test_growth_is_the_memory_that_a_pass_holds_at_once() -> None:
    # in a process of its own: others of this one tell the allocator to keep what is freed
    command = [sys.executable, "-P", "-c", GROWTH]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if printed == "None":
        pytest.skip("this system has no resettable peak of a process's memory")
    # pages are counted in batches, and the allocator adds headers
    assert int(printed) == pytest.approx(100e6, rel=0.05)


def test_weights_are_all_parameters_and_buffers() -> None:
    assert weight_bytes(nn.BatchNorm2d(10)) == 4 * 4 * 10 + 8


# --- onnxruntime


def test_onnxruntime_computes_the_same_network(tiny_base: Variant) -> None:
    pytest.importorskip("onnxruntime")
    model = build_for_timing(tiny_base, torch.device("cpu"))
    outputs = onnx_pass(model, tiny_base, 2, threads=1)()
    assert isinstance(outputs, list)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        expected = model(torch.randn(2, 1, 64, 64, generator=generator))
    torch.testing.assert_close(torch.from_numpy(outputs[0]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
def test_memory_on_cuda_holds_weights_and_grows_with_the_batch(tiny_base: Variant) -> None:
    subject = Subject(name="tiny", network=tiny_base)
    small, large = bench([subject], BenchRequest(batches=(1, 64), device="cuda")).measurements
    assert small.peak_bytes is not None
    assert large.peak_bytes is not None
    assert 4 * cost(tiny_base).params < small.peak_bytes < large.peak_bytes
