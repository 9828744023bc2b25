"""Evaluation over a whole split, and the fitted temperature."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import open_dataset
from cmtscale.model.cmt import build
from cmtscale.train.evaluate import fit, fit_temperature, predict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def calibrated():
    """Logits (20000, 5) and labels drawn from their softmax: the true temperature is 1."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()
    return logits, labels


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_a_known_temperature_is_recovered(calibrated, temperature):
    logits, labels = calibrated
    fitted = fit_temperature(logits * temperature, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)  # 20,000 labels: sd about 0.01
    assert fitted == pytest.approx(temperature * fit_temperature(logits, labels), rel=1e-4)


def test_the_temperature_stays_within_its_limits(calibrated):
    logits, labels = calibrated
    assert fit_temperature(logits * 1e6, labels) == pytest.approx(50.0, rel=1e-3)
    assert fit_temperature(logits * 1e-6, labels) == pytest.approx(1 / 50, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 20), st.integers(2, 5), st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
def test_fitting_never_raises_the_loss(data, count, classes, scale):
    values = data.draw(arrays(np.float64, (count, classes), elements=st.floats(-1, 1)))
    labels = data.draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    logits, labels = scale * torch.from_numpy(values), torch.from_numpy(labels)
    raw = float(F.cross_entropy(logits, labels))
    fitted = float(F.cross_entropy(logits / fit_temperature(logits, labels), labels))
    # the search stops 1e-5 from the optimum in log T, where the loss is flat
    assert fitted <= raw + 1e-8 * (1 + scale)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_have_no_temperature(calibrated, bad):
    logits, labels = calibrated
    logits = logits.clone()
    logits[3, 1] = bad
    assert math.isnan(fit_temperature(logits, labels))


@pytest.fixture
def validation(digits_ref):
    dataset = open_dataset(digits_ref)
    return dataset, device_split(dataset, dataset.splits.val, device=CPU)


@pytest.fixture
def model(make_variant):
    torch.manual_seed(0)
    return build(make_variant()).train()


def no_autocast():
    return torch.autocast("cpu", enabled=False)


def test_every_image_is_evaluated_the_last_partial_batch_too(model, validation):
    dataset, split = validation
    assert len(split) % 64
    predictions = predict(model, split, batch_size=64, autocast=no_autocast())
    logits, labels = predictions.logits, predictions.labels
    assert np.array_equal(labels.numpy(), dataset.labels[dataset.splits.val])
    ((images, _),) = eval_batches(split, batch_size=10_000, resolution_px=32)
    with torch.no_grad():
        expected = model.eval()(images)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, expected.double(), atol=1e-4, rtol=0)


def test_the_scores_are_those_of_the_logits(model, validation):
    _, split = validation
    predictions = predict(model, split, batch_size=64, autocast=no_autocast())
    fitted = fit(predictions)
    logits, labels = predictions.logits, predictions.labels
    probabilities = logits.softmax(dim=1)[torch.arange(len(labels)), labels]
    assert predictions.loss == pytest.approx(float(-probabilities.log().mean()), rel=1e-12)
    scaled = (logits / fitted.temperature).softmax(dim=1)[torch.arange(len(labels)), labels]
    assert fitted.loss == pytest.approx(float(-scaled.log().mean()), rel=1e-12)
    assert fitted.image_losses == pytest.approx(-scaled.log().numpy(), rel=1e-9)
    assert predictions.accuracy == int((logits.argmax(dim=1) == labels).sum()) / len(labels)
    assert fitted.loss < predictions.loss


def test_the_batch_size_does_not_change_the_scores(model, validation):
    one = predict(model, validation[1], batch_size=270, autocast=no_autocast())
    other = predict(model, validation[1], batch_size=37, autocast=no_autocast())
    assert other.loss == pytest.approx(one.loss, rel=1e-4)  # float32 sums in other orders
    assert other.accuracy == pytest.approx(one.accuracy, abs=1.01 / 270)


def test_evaluation_leaves_the_network_in_eval_and_unchanged(model, validation):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    predict(model, validation[1], batch_size=64, autocast=no_autocast())
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_broken_network_scores_nan(model, validation):
    with torch.no_grad():
        model.head.classifier.bias[4] = math.nan
    predictions = predict(model, validation[1], batch_size=64, autocast=no_autocast())
    assert math.isnan(predictions.loss)
    assert math.isnan(fit(predictions).loss)
    assert math.isnan(fit(predictions).temperature)


def test_images_are_resized_to_the_networks_own_resolution(make_variant, validation):
    spec = replace(make_variant(), resolution_px=64)
    seen = []
    network = build(spec)
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    predict(network, validation[1], batch_size=135, autocast=no_autocast())
    assert seen == [(135, 1, 64, 64)] * 2
