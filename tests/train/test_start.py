"""Fine-tuning: weights that are carried over, resized, left fresh, frozen or refused."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import cmtscale
from cmtscale.arch.errors import ModelError, RequestError, WeightsError
from cmtscale.arch.network import TimmNetwork
from cmtscale.data.sources import open_source
from cmtscale.model.cmt import build
from cmtscale.model.networks import build_network
from cmtscale.model.weights import published_state_dict
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.train.freeze import freeze, train_mode
from cmtscale.train.start import read_start

CLASSES = tuple(str(digit) for digit in range(10))


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(full, trained_folder):
    """The folder of a full training on digits; the second who asks finds it done."""
    full(trained_folder)
    return trained_folder


def filled(start, network, classes=CLASSES):
    """The weights of a network begun with `start`, and those that it had before."""
    torch.manual_seed(5)
    model = build_network(network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start.fill(model, network, classes)
    return model.state_dict(), before


def test_weights_of_the_same_network_and_classes_are_carried_over_whole(trained, make_variant):
    weights, _ = filled(read_start(trained, make_variant()), make_variant())
    for name, value in cmtscale.load_model(trained).model.state_dict().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("classes", [("a", "b", "c"), tuple("abcdefghij")])
def test_other_classes_get_a_fresh_classifier(trained, make_variant, classes):
    network = make_variant(num_classes=len(classes))
    weights, before = filled(read_start(trained, network), network, classes)
    for name, value in cmtscale.load_model(trained).model.state_dict().items():
        kept = before[name] if name.startswith("head.classifier") else value
        assert torch.equal(weights[name], kept), name


def test_another_side_resizes_the_position_biases_bicubically(trained, make_variant):
    network = make_variant(resolution_px=64)
    weights, _ = filled(read_start(trained, network), network)
    loaded = cmtscale.load_model(trained).model
    for number, stage in enumerate(loaded.stages):
        side = 2 * stage.side
        expected = stage.eval().bias_for(side, side).detach()
        assert torch.equal(weights[f"stages.{number}.position_bias"], expected)


def test_other_channels_are_refused(trained, make_variant):
    network = make_variant(in_channels=3)
    with pytest.raises(RequestError, match="takes images of 1 channels, these have 3"):
        filled(read_start(trained, network), network)


def test_another_variant_is_refused_with_what_differs(trained, make_variant):
    network = make_variant(8)
    with pytest.raises(WeightsError, match=r"head\.project\.weight.* differ"):
        filled(read_start(trained, network), network)


def test_what_is_no_model_is_refused(tmp_path, make_variant):
    with pytest.raises(ModelError, match="does not exist"):
        read_start(tmp_path / "nowhere", make_variant())
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(WeightsError, match="not a file of tensors"):
        read_start(tmp_path / "notes.txt", make_variant())
    with pytest.raises(RequestError, match="are of CMTs, not of timm:test_resnet"):
        read_start(tmp_path / "notes.txt", TimmNetwork(model="test_resnet", resolution_px=32))


@pytest.mark.parametrize("side", [32, 64])
def test_an_authors_checkpoint_is_carried_over(tmp_path, make_variant, side):
    torch.manual_seed(0)
    source = build(make_variant(num_classes=1000))
    torch.save({"model": published_state_dict(source)}, tmp_path / "cmt.pth")
    network = make_variant(resolution_px=side)
    weights, before = filled(read_start(tmp_path / "cmt.pth", network), network)
    assert torch.equal(weights["stem.0.weight"], source.state_dict()["stem.0.weight"])
    assert torch.equal(weights["head.classifier.weight"], before["head.classifier.weight"])
    expected = source.stages[0].eval().bias_for(side // 4, side // 4).detach()
    assert torch.equal(weights["stages.0.position_bias"], expected)


def test_an_authors_checkpoint_of_another_variant_is_refused(tmp_path, make_variant):
    torch.save(published_state_dict(build(make_variant(8))), tmp_path / "cmt.pth")
    with pytest.raises(WeightsError, match=r"does not fit the network.*misshapen"):
        read_start(tmp_path / "cmt.pth", make_variant())


@pytest.mark.parametrize(
    ("frozen", "parts"),
    [
        ("0", {"stem"}),
        ("2", {"stem", "stages.0", "stages.1"}),
        ("all", {"stem", "stages.0", "stages.1", "stages.2", "stages.3"}),
        ("", set()),
    ],
)
def test_frozen_parts_neither_train_nor_drop_nor_follow_batches(make_variant, frozen, parts):
    model = build(make_variant(), drop_path=0.2)
    freeze(model, frozen)
    train_mode(model, frozen)
    for name, parameter in model.named_parameters():
        inside = any(name.startswith(f"{part}.") for part in parts)
        assert parameter.requires_grad != inside, name
    for name, module in model.named_modules():
        if name and name != "stages":
            inside = any(f"{name}.".startswith(f"{part}.") for part in parts)
            assert module.training != inside, name


def test_all_of_a_timm_network_but_its_head_can_be_frozen():
    model = build_network(TimmNetwork(model="test_resnet", resolution_px=32, num_classes=10))
    freeze(model, "all")
    train_mode(model, "all")
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert training == {"fc.weight", "fc.bias"}
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    with pytest.raises(RequestError, match="timm's networks take all"):
        freeze(model, "2")


def test_what_cannot_be_frozen_is_refused(make_variant):
    for frozen in ("5", "stem", "-1"):
        with pytest.raises(RequestError, match=f"freeze '{frozen}' is not 0 to 4"):
            freeze(build(make_variant()), frozen)


def test_a_fine_tuned_model_keeps_what_was_frozen_and_says_where_it_began(
    full, full_recipe, trained, make_variant, tmp_path
):
    recipe = replace(full_recipe, epochs=1, warmup_epochs=0.1, ema_decay=None)
    start = read_start(trained, make_variant())
    full(tmp_path / "tuned", recipe=recipe, start=start, frozen="2")
    before = cmtscale.load_model(trained).model.state_dict()
    after = cmtscale.load_model(tmp_path / "tuned").model.state_dict()
    for name, value in after.items():
        is_frozen = name.startswith(("stem.", "stages.0.", "stages.1."))
        assert not is_frozen or torch.equal(value, before[name]), name
    assert not torch.equal(after["head.classifier.weight"], before["head.classifier.weight"])
    training = read_description(find_model(tmp_path / "tuned"))[0].training
    assert training.started_from == str(trained)
    with pytest.raises(RequestError, match=r"\(its frozen differs\)"):
        full(tmp_path / "tuned", recipe=recipe, start=start)
    with pytest.raises(RequestError, match=r"\(its started_from, frozen differ\)"):
        full(tmp_path / "tuned", recipe=recipe)
    with pytest.raises(RequestError, match="freeze '2' would keep random weights; add --from"):
        full(tmp_path / "tuned", recipe=recipe, frozen="2")


def test_a_model_that_was_trained_on_other_splits_of_the_images_is_refused(
    full, full_recipe, few_digits, trained, make_variant, tmp_path
):
    start = read_start(trained, make_variant())
    redrawn = replace(few_digits, set_hash="another draw")
    other = {"data": "digits", "split_seed": 1}
    message = r"was trained on digits with split seed 0; with 1 .*; use --split-seed 0$"
    with pytest.raises(RequestError, match=message):
        full(tmp_path / "out", start=start, image_set=redrawn, source=other)
    assert not (tmp_path / "out").exists()
    recipe = replace(full_recipe, epochs=1, warmup_epochs=0.1)
    # splits that no seed draws, and other images
    for number, changes in enumerate(
        [{"source": other}, {"source": {**other, "data": "other"}, "image_set": redrawn}]
    ):
        result, _ = full(tmp_path / str(number), start=start, recipe=recipe, **changes)
        assert result.status == "complete"


@pytest.mark.parametrize("splits", ["given", "drawn"])
def test_a_model_of_a_folder_begins_another_training_on_the_splits_that_it_was_trained_on(
    full, full_recipe, make_variant, few_images, tmp_path, splits
):
    data = few_images
    if splits == "given":
        for split in ("train", "val", "test"):
            shutil.copytree(few_images.removeprefix("folder:"), tmp_path / "tree" / split)
        data = f"folder:{tmp_path / 'tree'}"

    def train(name, split_seed, **changes):
        image_set = open_source(data, split_seed=split_seed).stream()
        source = {"data": data, "split_seed": split_seed}
        recipe = replace(full_recipe, epochs=1, warmup_epochs=0.1)
        full(tmp_path / name, image_set=image_set, source=source, recipe=recipe, **changes)
        return tmp_path / name

    start = read_start(train("first", 0), make_variant(num_classes=2))
    assert find_model(train("same", 0, start=start))
    if splits == "given":
        assert find_model(train("other", 1, start=start))
    else:
        with pytest.raises(RequestError, match=r"split seed 0; with 1 .*; use --split-seed 0$"):
            train("other", 1, start=start)


def test_training_without_a_step_leaves_the_accuracy_that_the_weights_had(
    full, full_recipe, trained, make_variant, tmp_path
):
    still = replace(full_recipe, lr=1e-12, min_lr=0.0, warmup_lr=0.0, ema_decay=None)
    result, _ = full(tmp_path, recipe=still, start=read_start(trained, make_variant()))
    scores = read_description(find_model(trained))[0].scores
    assert result.val_accuracy == scores.val_accuracy
    assert result.val_loss == pytest.approx(scores.val_loss, rel=1e-5)


def test_all_of_a_timm_network_but_its_heads_is_frozen():
    distilled = TimmNetwork(
        model="deit_tiny_distilled_patch16_224", resolution_px=224, num_classes=3
    )
    network = build_network(distilled)
    freeze(network, "all")
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
