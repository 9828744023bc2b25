"""The script that `benchmarks/search_speed.py` times a search against does the same work."""

import importlib
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cmtscale.arch.scaling import resize
from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import open_dataset, training_part
from cmtscale.train.recipe import Recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPE = Recipe(epochs=2, train_images=300, batch_size=50, flip=False, shift_fraction=0.0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("textbook_training")
    monkeypatch.setattr(module, "LOADER_WORKERS", 0)
    return module


def test_the_script_reads_the_images_of_the_search(script, digits_ref, make_variant):
    dataset, network = open_dataset(digits_ref), make_variant(resolution_px=64)
    loaders = script.loaders(network, dataset, asdict(RECIPE))
    indices = training_part(dataset, RECIPE.train_images), dataset.splits.val
    for loader, part in zip(loaders, indices, strict=True):
        loader = torch.utils.data.DataLoader(loader.dataset, batch_size=len(part))  # in order
        split = device_split(dataset, part, device=torch.device("cpu"))
        ((images, labels),) = eval_batches(split, batch_size=len(part), resolution_px=64)
        ((script_images, script_labels),) = loader
        torch.testing.assert_close(script_images, images, rtol=0, atol=1e-5)
        assert torch.equal(script_labels, labels)


def test_the_script_trains_and_counts_every_network(script, digits_ref, make_variant, monkeypatch):
    accuracies = []
    validate = script.validate

    def watched(model, val_loader):
        accuracies.append(validate(model, val_loader)[1])

    monkeypatch.setattr(script, "validate", watched)
    networks = [make_variant(dim1=8), make_variant(dim1=8, resolution_px=64)]
    recipe = replace(RECIPE, batch_size=10)  # 60 steps: BatchNorm's statistics need them
    timing = script.train_all(networks, open_dataset(digits_ref), asdict(recipe))
    assert (timing.networks, timing.images) == (2, 2 * 2 * 300)
    assert 0 < timing.epoch_seconds < timing.training_seconds
    assert len(accuracies) == 4
    assert min(accuracies[1::2]) > 0.3  # chance: 0.1


def test_the_script_rebuilds_the_networks_of_a_record(script, make_variant, make_row, finished):
    base = make_variant()
    larger = resize(base, name="larger", dim1=6, depths=(1, 2, 3, 1), resolution_px=96)
    rows = [
        make_row(
            candidate=network.name,
            role=role,
            seed=seed,
            proxy_macs=script.cost(network).macs,
            proxy_dims=network.dims,
            proxy_depths=network.depths,
            proxy_resolution_px=network.resolution_px,
        )
        for network, role in ((base, "base"), (larger, "compound"))
        for seed in (0, 1)
    ]
    networks = script.trained_networks(replace(finished.settings, trained_base=base), rows)
    assert len(networks) == 2
    assert networks[0].same_network(base)
    assert networks[1].same_network(larger)


def test_the_script_refuses_augmented_searches(script, digits_ref, make_variant):
    with pytest.raises(SystemExit, match="flips or shifts"):
        script.loaders(make_variant(), open_dataset(digits_ref), asdict(Recipe()))
