"""A full training on a GPU: each precision, stopped, compiled, in DDP, out of memory, and after."""

import os
import signal
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import cmtscale
from cmtscale.arch.errors import RequestError, StoppedError
from cmtscale.data.stream import packed_images
from cmtscale.deploy.bench import bench
from cmtscale.deploy.bench_request import BenchRequest
from cmtscale.deploy.subjects import Subject
from cmtscale.model.networks import build_network
from cmtscale.record.metrics import read_metrics
from cmtscale.train.full_setup import System, _in_parallel
from cmtscale.train.processes import Processes

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda:0")


@pytest.fixture
def learnable(full_recipe):
    """A recipe that tells the digits apart in twelve epochs of 19 steps."""
    return replace(
        full_recipe,
        epochs=12,
        lr=0.016,
        batch_size=64,
        warmup_epochs=1,
        repeats=1,
        mixup=0.0,
        cutmix=0.0,
        rand_augment=None,
        random_erasing=0.0,
        smallest_crop=0.8,
        drop_path=0.0,
        ema_decay=0.98,
    )


@pytest.fixture
def train(full, digits, make_variant):
    """Train on all digits on the GPU."""

    def call(folder, recipe, **changes):
        values = {
            "image_set": packed_images(digits),
            "network": make_variant(16),
            "device": "cuda",
            "workers": 2,
        }
        return full(folder, recipe=recipe, **{**values, **changes})

    return call


def train_losses(folder):
    lines = read_metrics(folder)
    return {line["step"]: line["train_loss"] for line in lines if "train_loss" in line}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_stopped_in_an_epoch_goes_on_there(
    train, learnable, tmp_path, precision, monkeypatch
):
    monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 10)
    recipe = replace(learnable, precision=precision)
    whole, _ = train(tmp_path / "whole", recipe)
    assert whole.status == "complete"
    assert whole.val_accuracy > 0.85

    def stop(line):
        if line["step"] == 5 * 19 + 10:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        train(tmp_path / "stopped", recipe, watch=stop)
    scaler = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["scaler"]
    assert bool(scaler) == (precision == "fp16")
    resumed, _ = train(tmp_path / "stopped", recipe)
    one, other = train_losses(tmp_path / "whole"), train_losses(tmp_path / "stopped")
    assert one.keys() == other.keys()
    assert other[6 * 19] == pytest.approx(one[6 * 19], rel=0.1)  # sums on a GPU vary in order
    assert resumed.val_accuracy == pytest.approx(whole.val_accuracy, abs=0.04)


def test_what_a_gpu_trained_in_half_precision_predicts_alike_on_a_cpu(
    train, learnable, digits, tmp_path
):
    result, _ = train(tmp_path, replace(learnable, precision="fp16"))
    model, preprocess, _ = cmtscale.load_model(tmp_path)
    images, indices = packed_images(digits).images, digits.splits.val
    batch = torch.stack([preprocess(images.open(int(index))) for index in indices])
    labels = torch.from_numpy(digits.labels[indices])
    with torch.inference_mode():
        logits = model(batch)
    accuracy = float((logits.argmax(1) == labels).double().mean())
    assert accuracy == pytest.approx(result.val_accuracy, abs=2 / len(labels))
    assert float(F.cross_entropy(logits, labels)) == pytest.approx(result.val_loss_raw, rel=0.02)


def test_a_compiled_training_has_the_losses_of_an_eager_one(train, learnable, tmp_path):
    recipe = replace(learnable, epochs=2, precision="fp32", drop_path=0.1)
    train(tmp_path / "eager", recipe)
    compiled, _ = train(tmp_path / "compiled", recipe, compiled=True)
    assert compiled.status == "complete"
    one, other = train_losses(tmp_path / "eager"), train_losses(tmp_path / "compiled")
    assert one.keys() == other.keys()
    for step, loss in one.items():
        assert other[step] == pytest.approx(loss, rel=0.03)


def test_batch_norm_over_several_gpus_equals_that_of_one(
    learnable, make_variant, tmp_path, monkeypatch
):
    """One process over NCCL: what DDP and SyncBatchNorm do to a network leaves its step alone."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        network = build_network(make_variant(8)).to(CUDA)
        alone = build_network(make_variant(8)).to(CUDA)
        alone.load_state_dict(network.state_dict())
        system = System(device=CUDA, folder=tmp_path, processes=Processes(count=2, local_count=2))
        together = _in_parallel(network, replace(learnable, sync_batch_norm=True), system)
        kinds = {type(module).__name__ for module in together.modules()}
        assert "SyncBatchNorm" in kinds
        assert not any(kind.startswith("BatchNorm") for kind in kinds)
        images = torch.randn(8, 1, 32, 32, device=CUDA)
        for model in (alone, together):
            model.train()
            F.cross_entropy(model(images), torch.arange(8, device=CUDA)).backward()
        gradients = dict(alone.named_parameters())
        for name, parameter in together.module.named_parameters():
            torch.testing.assert_close(
                parameter.grad, gradients[name].grad, rtol=0.01, atol=1e-3, msg=name
            )
    finally:
        dist.destroy_process_group()


def test_a_network_that_does_not_fit_is_refused_with_a_line(train, learnable, tmp_path):
    network = cmtscale.variant("cmt-ti")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(4e8 / total)
    try:
        with pytest.raises(RequestError, match="does not fit into the memory of cuda:0"):
            train(tmp_path, replace(learnable, batch_size=512, epochs=2), network=network)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_timed_eager_and_compiled(make_variant, dtype, compiled):
    subject = Subject(name="tiny", network=make_variant(16))
    request = BenchRequest(batches=(8,), dtype=dtype, device="cuda", compiled=compiled, rounds=2)
    measured = bench([subject], request)
    (measurement,) = measured.measurements
    assert measurement.peak_bytes > 0
    assert 0 < measurement.median_seconds < 1
