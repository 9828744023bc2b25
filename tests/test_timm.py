"""The published variants as timm models, held to what timm asks of its own."""

import copy
import pickle
from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

import cmtscale.timm
from cmtscale.arch.errors import VariantError, WeightsError
from cmtscale.arch.variant import variant
from cmtscale.model.cmt import CMT, build
from cmtscale.model.weights import load_published, published_state_dict

NAMES = ("cmt_ti", "cmt_xs", "cmt_s", "cmt_b")


@pytest.fixture(scope="module")
def built() -> cmtscale.timm.TimmCMT:
    """CMT-Ti with five classes, in eval. Tests change copies of it."""
    torch.manual_seed(0)
    return timm.create_model("cmt_ti", num_classes=5).eval()


@pytest.fixture
def model(built):
    return copy.deepcopy(built)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def same(left, right) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_the_four_variants_are_registered():
    assert timm.list_models("cmt_*") == sorted(NAMES)
    assert timm.list_models("cmt_*", pretrained=True) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_the_network_of_its_variant_with_its_names(name):
    model = on_meta(name)
    assert isinstance(model, CMT)
    assert model.variant == variant(name)
    with torch.device("meta"):
        network = build(variant(name))
    shapes = [(key, value.shape) for key, value in network.state_dict().items()]
    assert [(key, value.shape) for key, value in model.state_dict().items()] == shapes


def test_the_same_seed_gives_the_same_network(images):
    logits = []
    for make in (lambda: build(variant("cmt-ti")), lambda: timm.create_model("cmt_ti")):
        torch.manual_seed(3)
        logits.append(make().eval()(images))
    assert torch.equal(*logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_trains_with_any_number_of_classes(name):
    model = timm.create_model(name, num_classes=42).train()
    logits = model(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    assert logits.shape == (2, 42)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_default_configuration_names_layers_and_sizes_of_the_network(name):
    model, side = on_meta(name), variant(name).resolution_px
    config = model.default_cfg
    assert config["input_size"] == (3, side, side)
    assert config["pool_size"] == (side // 32, side // 32)
    assert model.get_submodule(config["classifier"]) is model.get_classifier()
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert model.get_submodule(config["first_conv"]) is first
    features = model.forward_features(torch.empty(1, *config["input_size"], device="meta"))
    assert features.shape == (1, model.num_features, *config["pool_size"])
    assert (model.num_classes, model.in_chans) == (config["num_classes"], 3) == (1000, 3)


def test_images_are_prepared_as_in_the_authors_evaluation(built):
    data = timm.data.resolve_data_config(model=built)
    assert data["input_size"] == (3, 160, 160)
    assert (data["crop_pct"], data["interpolation"]) == (224 / 256, "bicubic")
    assert data["mean"] == timm.data.IMAGENET_DEFAULT_MEAN
    assert data["std"] == timm.data.IMAGENET_DEFAULT_STD


def test_features_and_head_make_the_network(built, images):
    features = built.forward_features(images)
    assert torch.equal(built.forward_head(features), built(images))
    vectors = built.forward_head(features, pre_logits=True)
    assert torch.allclose(vectors, features.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert vectors.shape == (2, built.head_hidden_size)
    assert torch.equal(built.get_classifier()(vectors), built(images))


def test_the_classifier_and_the_pooling_can_be_taken_off_and_put_on(model, images):
    features = model.forward_features(images)
    vectors = model.forward_head(features, pre_logits=True)
    model.reset_classifier(0)
    assert torch.equal(model(images), vectors)
    model.reset_classifier(0, "")
    assert torch.equal(model(images), features)
    assert torch.equal(model.forward_head(features, pre_logits=True), features)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert (model.num_classes, model.global_pool) == (0, "")
    model.reset_classifier(3, "avg")
    assert torch.equal(model(images), model.get_classifier()(vectors))
    assert (model.num_classes, model.variant.num_classes) == (3, 3)


@pytest.mark.parametrize(("pool", "shape"), [("avg", (2, 1280)), ("", (2, 1280, 2, 3))])
def test_a_model_can_be_created_without_classifier_and_pooling(images, pool, shape):
    model = timm.create_model("cmt_ti", num_classes=0, global_pool=pool).eval()
    assert model(images).shape == shape
    assert torch.equal(model(images), model.forward_head(model.forward_features(images)))
    assert not any(name.startswith("head.classifier") for name in model.state_dict())


def test_other_channels_and_rates_reach_the_network():
    model = timm.create_model("cmt_ti", in_chans=1, drop_rate=0.3, drop_path_rate=0.2)
    assert (model.in_chans, model.variant.in_channels) == (1, 1)
    assert model.head.dropout.p == 0.3
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.2 * number / 15 for number in range(16)])
    images = torch.randn(2, 1, 64, 64)
    assert not torch.equal(model(images), model(images))
    assert torch.equal(*[model.eval()(images) for _ in range(2)])


@pytest.mark.parametrize("img_size", [96, (96, 96)])
def test_img_size_lays_out_the_position_biases_and_other_sizes_are_taken_too(img_size):
    model = timm.create_model("cmt_ti", img_size=img_size, num_classes=5).eval()
    assert model.variant == replace(variant("cmt-ti"), resolution_px=96, num_classes=5)
    assert [stage.side for stage in model.stages] == [24, 12, 6, 3]
    for sides in ((96, 96), (64, 96), (160, 32)):
        assert model(torch.randn(1, 3, *sides)).isfinite().all()


def test_device_and_dtype_are_those_asked_for():
    model = timm.create_model("cmt_ti", device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def backbone(**options: object) -> nn.Module:
    """`features_only`, with the weights of `built`: the same seed and arguments."""
    torch.manual_seed(0)
    return timm.create_model("cmt_ti", num_classes=5, features_only=True, **options).eval()


@pytest.mark.parametrize("options", [{}, {"feature_cls": "hook"}, {"feature_cls": "fx"}], ids=str)
def test_features_only_gives_the_four_stages(built, images, options):
    features = backbone(**options)
    assert features.feature_info.channels() == list(variant("cmt-ti").dims)
    assert features.feature_info.reduction() == [4, 8, 16, 32]
    assert same(features(images), built.forward_stages(images))


@pytest.mark.parametrize(
    ("out_indices", "stages"), [((1,), [1]), ((0, 2), [0, 2]), ((-2, -1), [2, 3]), (2, [2, 3])]
)
def test_a_backbone_has_what_its_features_need_and_no_more(built, images, out_indices, stages):
    features = backbone(out_indices=out_indices)
    channels = [variant("cmt-ti").dims[number] for number in stages]
    assert features.feature_info.channels() == channels
    maps = built.forward_stages(images)
    assert same(features(images), [maps[number] for number in stages])
    sum(output.square().sum() for output in features(images)).backward()
    assert all(parameter.grad is not None for parameter in features.parameters())
    assert len(features.model.stages) == stages[-1] + 1


@pytest.mark.parametrize(
    ("indices", "stages"),
    [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, 2], [0, 2]), ((-1,), [3]), ([-3], [1])],
)
def test_intermediates_are_the_maps_of_the_stages_asked_for(built, images, indices, stages):
    maps = built.forward_stages(images)
    wanted = [maps[number] for number in stages]
    features, intermediates = built.forward_intermediates(images, indices)
    assert torch.equal(features, built.forward_features(images))
    assert same(intermediates, wanted)
    assert same(built.forward_intermediates(images, indices, intermediates_only=True), wanted)


def test_stopping_early_runs_no_later_stage(model, images):
    maps = model.forward_stages(images)
    for stage in model.stages[2:]:
        stage.register_forward_hook(lambda *_: pytest.fail("a stage after the last wanted one ran"))
    features, intermediates = model.forward_intermediates(images, [1], stop_early=True)
    assert torch.equal(features, maps[1])
    assert same(intermediates, [maps[1]])


def test_pruning_leaves_the_stages_that_are_needed(model, images):
    maps = model.forward_stages(images)
    assert model.prune_intermediate_layers([0, -2]) == [0, 2]
    assert torch.equal(model.forward_features(images), maps[2])
    assert torch.equal(model(images), maps[2])
    assert model.num_features == model.head_hidden_size == variant("cmt-ti").dims[2]
    assert {name.split(".")[0] for name in model.state_dict()} == {"stem", "stages"}
    with pytest.raises(VariantError, match="the head was pruned away"):
        model.reset_classifier(5, "avg")


def test_pruning_nothing_keeps_the_head(model, images):
    logits = model(images)
    assert model.prune_intermediate_layers(4, prune_norm=True, prune_head=False) == [0, 1, 2, 3]
    assert torch.equal(model(images), logits)


def test_checkpointing_changes_no_output(model, images):
    logits = model(images)
    features, intermediates = model.forward_intermediates(images)
    model.set_grad_checkpointing()
    assert torch.equal(model(images), logits)
    again, intermediates_again = model.forward_intermediates(images)
    assert same([again, *intermediates_again], [features, *intermediates])


def test_torch_fx_traces_the_network_for_evaluation_and_training(model, images):
    traced = timm.models.create_feature_extractor(model, {"head.classifier": "logits"})
    assert torch.equal(traced.eval()(images)["logits"], model.eval()(images))
    traced.train()(images)["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_traces_the_network_for_one_size(tiny_base, images):
    model = cmtscale.timm.TimmCMT(tiny_base).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, images)
        other = torch.randn(3, 3, 64, 96)
        assert torch.allclose(traced(other), model(other), rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_are_the_same_network(built, images):
    for twin in (copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        assert torch.equal(twin(images), built(images))


def test_names_that_are_not_arguments_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'window_size'"):
        timm.create_model("cmt_ti", window_size=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "global_pool 'max' is not one of 'avg', ''; use 'avg'"),
        ({"global_pool": ""}, "without pooling 1000 classes have no vector .* num_classes=0 or"),
        ({"num_classes": -1}, "num_classes -1 is not a positive whole number"),
        ({"in_chans": 0}, "in_channels 0 is not a positive whole number"),
        ({"img_size": 100}, "resolution 100 px is not a positive multiple of 32; use 96"),
        ({"img_size": (64, 96)}, "img_size 64x96 is not square; use 96"),
        ({"drop_rate": 1.0}, "dropout 1.0 is not a fraction"),
        ({"drop_path_rate": -0.1}, "drop_path -0.1 is not a fraction"),
        (
            {"features_only": True, "out_indices": (2, 4)},
            r"stages \(2, 4\) are not there; use a number from 1 to 4, or indices from 0 to 3",
        ),
        ({"features_only": True, "out_indices": ()}, r"stages \(\) are not there"),
    ],
)
def test_values_that_make_no_network_are_one_clear_line(options, message):
    with pytest.raises(VariantError, match=message) as caught:
        timm.create_model("cmt_ti", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [0, 5, -1, [4], [-5], []])
def test_stages_that_there_are_not_are_refused(built, images, indices):
    with pytest.raises(VariantError, match="use a number from 1 to 4, or indices from 0 to 3"):
        built.forward_intermediates(images, indices)


def test_only_maps_are_given(built, images):
    with pytest.raises(VariantError, match="output_fmt 'NLC' is not supported; use 'NCHW'"):
        built.forward_intermediates(images, output_fmt="NLC")


def test_illegal_images_are_refused_by_a_backbone_too():
    with pytest.raises(VariantError, match="multiples of 32, 32 or more; use 64x96"):
        backbone()(torch.randn(1, 3, 70, 96))


@pytest.mark.parametrize("options", [{}, {"features_only": True}, {"num_classes": 3}])
def test_pretrained_weights_that_there_are_not_are_one_clear_line(options):
    with pytest.raises(WeightsError, match=r"no weights of cmt_s; .*load_published") as caught:
        timm.create_model("cmt_s", pretrained=True, **options)
    assert "\n" not in str(caught.value)


def test_the_authors_file_is_read_whole_fitted_and_as_a_backbone(images, tmp_path):
    network = timm.create_model("cmt_ti").eval()
    path = tmp_path / "cmt_tiny.pth"
    torch.save({"model": published_state_dict(network)}, path)
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}

    whole = timm.create_model("cmt_ti", **options).eval()
    assert torch.equal(whole(images), network(images))
    features = timm.create_model("cmt_ti", features_only=True, **options).eval()
    assert same(features(images), network.forward_stages(images))
    fitted = timm.create_model("cmt_ti", num_classes=7, in_chans=1, **options).eval()
    grey = images[:, :1].expand(-1, 3, -1, -1)
    expected = network.forward_features(grey)  # of the same sums, in another order
    assert torch.allclose(fitted.forward_features(images[:, :1]), expected, rtol=1e-3, atol=1e-4)
    assert fitted(images[:, :1]).shape == (2, 7)


@pytest.mark.parametrize("averaged", ["model_ema", "state_dict_ema"])
def test_of_a_file_timm_and_load_published_take_the_same_weights(averaged, tmp_path):
    states = [published_state_dict(timm.create_model("cmt_ti")) for _ in range(2)]
    path = tmp_path / "cmt_tiny.pth"
    torch.save({"model": states[0], averaged: states[1]}, path)
    overlay = {"file": str(path)}
    by_timm = timm.create_model("cmt_ti", pretrained=True, pretrained_cfg_overlay=overlay)
    ours = build(variant("cmt-ti"))
    load_published(ours, path)
    assert not torch.equal(states[0]["stem_conv1.weight"], states[1]["stem_conv1.weight"])
    for network in (by_timm, ours):
        assert torch.equal(network.state_dict()["stem.0.weight"], states[1]["stem_conv1.weight"])


def test_a_checkpoint_with_our_names_is_read_and_another_is_refused(built, images):
    def create(state: dict[str, Tensor]) -> nn.Module:
        overlay = {"state_dict": state}
        return timm.create_model(
            "cmt_ti", num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay
        )

    read = create(dict(built.state_dict())).eval()
    assert torch.equal(read.forward_features(images), built.forward_features(images))
    with pytest.raises(WeightsError, match="the checkpoint does not fit the network"):
        create({"layer1.weight": torch.zeros(1)})
