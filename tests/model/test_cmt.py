"""The network: inputs, outputs, gradients, position bias and its cache, initialisation."""

import copy
import pickle
from dataclasses import replace

import pytest
import timm.optim
import torch
import torch.nn.functional as F

from cmtscale.arch.errors import VariantError
from cmtscale.model import blocks
from cmtscale.model.cmt import build


def channels_last(maps):
    return maps.is_contiguous(memory_format=torch.channels_last)


def test_features_have_strides_4_8_16_32_and_feed_the_head(tiny):
    model = build(tiny).eval()
    images = torch.randn(2, 3, 96, 128)
    features = model.forward_stages(images)
    assert [tuple(f.shape) for f in features] == [
        (2, dim, 96 // stride, 128 // stride)
        for dim, stride in zip(tiny.dims, (4, 8, 16, 32), strict=True)
    ]
    assert all(channels_last(f) for f in features)
    assert torch.equal(model.head(features[-1]), model(images))


def test_any_classes_and_channels_learn(tiny):
    model = build(replace(tiny, num_classes=3, in_channels=1), drop_path=0.1, dropout=0.1)
    images, labels = torch.randn(6, 1, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_every_parameter_gets_a_gradient_and_no_map_is_copied_to_nchw(tiny):
    model = build(tiny)
    layouts = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _module, _args, out, name=name: layouts.update({name: channels_last(out)})
            )
    model.eval()(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert len(layouts) > 40
    assert all(layouts.values())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_sdpa_equals_explicit_attention_and_its_gradients(tiny):
    explicit = build(tiny, attention="explicit").double()
    fused = build(tiny, attention="sdpa").double()
    fused.load_state_dict(explicit.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for model in (explicit, fused):
        model(images).square().sum().backward()
    for (name, one), other in zip(explicit.named_parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9), name


def test_the_device_decides_in_each_forward_pass_unless_told(tiny, monkeypatch):
    first, second, third, fourth = tiny.stages
    mixed = replace(tiny, stages=(first, replace(second, heads=1), replace(third, heads=2), fourth))
    assert [stage.dim // stage.heads for stage in mixed.stages] == [4, 8, 8, 4]
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(query, *inputs, **options):
        calls.append(query.shape[-1])
        return fused(query, *inputs, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    images = torch.randn(2, 3, 64, 64)
    model, explicit = build(mixed).eval(), build(mixed, attention="explicit").eval()
    explicit.load_state_dict(model.state_dict())
    expected = model(images)
    assert calls == []
    decide = blocks.is_fused
    monkeypatch.setattr(
        blocks,
        "is_fused",
        lambda attention, *, device_type, head_dim: decide(
            attention, device_type="cuda" if device_type == "cpu" else "", head_dim=head_dim
        ),
    )
    assert torch.allclose(model(images), expected, atol=1e-5)
    assert calls == [8] * 3  # two blocks of stage 2, one of stage 3
    assert torch.equal(explicit(images), expected)
    assert len(calls) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("heads", [1, 2])
def test_attention_left_to_a_gpu_equals_the_explicit_one(tiny, heads):
    stages = tuple(replace(stage, dim=8 * stage.dim, heads=heads) for stage in tiny.stages)
    spec = replace(tiny, stages=stages)
    auto, explicit = (build(spec, attention=name).cuda().eval() for name in ("auto", "explicit"))
    auto.load_state_dict(explicit.state_dict())
    images = torch.randn(2, 3, 64, 64, device="cuda")
    for model in (auto, explicit):
        model(images).square().sum().backward()
    for (name, one), other in zip(auto.named_parameters(), explicit.parameters(), strict=True):
        largest = other.grad.abs().max()  # TF32 in the convolutions leaves three digits
        assert torch.allclose(one.grad, other.grad, rtol=0, atol=1e-2 * float(largest)), name


def test_attention_that_there_is_not_is_refused(tiny):
    with pytest.raises(VariantError, match="'flash' is not one of auto, explicit, sdpa; use auto"):
        build(tiny, attention="flash")


def test_position_bias_is_resized_over_the_query_grid_then_the_key_grid():
    bias = torch.randn(2, 16, 4)
    queries, keys, to_queries, to_keys = (4, 4), (2, 2), (6, 8), (3, 4)
    resized = blocks.resize_position_bias(
        bias, queries=queries, keys=keys, to_queries=to_queries, to_keys=to_keys
    )
    assert resized.shape == (2, 48, 12)

    def bicubic(plane, size):
        return F.interpolate(plane[None, None], size, mode="bicubic", align_corners=False)[0, 0]

    for head in range(2):
        over_queries = torch.stack(
            [bicubic(bias[head, :, key].view(queries), to_queries).flatten() for key in range(4)], 1
        )
        over_keys = torch.stack(
            [bicubic(row.view(keys), to_keys).flatten() for row in over_queries]
        )
        assert torch.allclose(resized[head], over_keys, atol=1e-6)


def test_a_resized_constant_bias_is_constant_and_the_built_size_is_untouched(tiny):
    model = build(tiny).eval()
    for stage in model.stages:
        torch.nn.init.constant_(stage.position_bias, 0.7)
        assert stage.bias_for(stage.side, stage.side) is stage.position_bias
        resized = stage.bias_for(stage.side + 8, stage.side + 16)
        assert torch.allclose(resized, torch.full_like(resized, 0.7), atol=1e-6)


@torch.no_grad()
def test_resized_bias_is_cached_per_size_but_never_stale(tiny):
    model = build(tiny).eval()
    stage = model.stages[0]
    first = stage.bias_for(24, 32)
    assert stage.bias_for(24, 32) is first
    assert stage.bias_for(32, 24) is not first

    def changed(what):
        fresh = stage.bias_for(24, 32)
        expected = copy.deepcopy(stage).resize_bias(24, 32)
        assert fresh is not first, what
        assert torch.equal(fresh, expected), what

    stage.position_bias.add_(1.0)
    changed("in-place update")
    stage.position_bias.data.mul_(2.0)
    changed("update through .data")
    model.load_state_dict(build(tiny).state_dict())
    changed("load_state_dict")
    model.train().eval()
    assert not stage._resized
    model.double()
    changed("another dtype")


def test_cache_is_bounded_and_stays_out_of_state_copies_and_gradients(tiny):
    model = build(tiny).eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        expected = model(images)
        for side in range(96, 353, 32):
            model.stages[3].bias_for(side // 32, side // 32)
    assert len(model.stages[3]._resized) == 4
    assert model.state_dict().keys() == build(tiny).state_dict().keys()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not twin.stages[3]._resized
        assert torch.equal(twin(images), expected)
    for _ in range(2):  # the graph of an earlier pass must not be reused
        model(images).sum().backward()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 100, 64), "images are 100x64 px; .* multiples of 32, 32 or more; use 96x64"),
        ((1, 3, 10, 10), "use 32x32"),
        ((1, 1, 64, 64), "images have 1 channels, tiny takes 3; .* in_channels = 1"),
        ((3, 64, 64), "give a batch"),
    ],
)
def test_illegal_images_are_one_clear_line(tiny, shape, message):
    with pytest.raises(VariantError, match=message) as caught:
        build(tiny)(torch.randn(shape))
    assert "\n" not in str(caught.value)


def test_a_side_without_a_key_is_refused_with_the_least_that_works(tiny):
    coarse = replace(tiny.stages[0], reduction=16)
    model = build(replace(tiny, stages=(coarse, *tiny.stages[1:]))).eval()
    with pytest.raises(VariantError, match="multiples of 32, 64 or more; use 64x96"):
        model(torch.randn(1, 3, 32, 96))
    assert model(torch.randn(1, 3, 64, 96)).isfinite().all()


def test_training_one_image_without_statistics_is_one_clear_line(tiny):
    model = build(replace(tiny, resolution_px=32))
    with pytest.raises(VariantError, match="batch 1 at 32x32 px leaves BatchNorm in stage 1"):
        model(torch.randn(1, 3, 32, 32))
    assert model(torch.randn(2, 3, 32, 32)).isfinite().all()
    assert model.eval()(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_drop_path_rises_linearly_and_drops_whole_images(tiny):
    model = build(tiny, drop_path=0.4)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    drop = blocks.DropPath(0.25)
    kept = drop(torch.ones(4000, 2, 3))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept.flatten(1).amax(1) == kept.flatten(1).amin(1)).all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(kept), kept)


def test_initialisation_is_the_published_one(tiny):
    model = build(replace(tiny, num_classes=1000))
    head = model.requires_grad_(False).head
    assert head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.project.weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert not head.classifier.bias.any()
    biases = torch.cat([stage.position_bias.flatten() for stage in model.stages])
    assert biases.mean().item() == pytest.approx(0, abs=0.03)
    assert biases.std().item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("is_training", [False, True])
def test_compiling_breaks_the_graph_nowhere(tiny, is_training):
    model = build(tiny, drop_path=0.1).train(is_training)
    whole = torch.compile(model, fullgraph=True, backend="eager")  # raises where it would break
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        expected = model(images)
        torch.manual_seed(0)
        assert torch.equal(whole(images), expected)


@pytest.mark.gpu
def test_compiling_for_a_gpu_breaks_the_graph_nowhere(tiny):
    model = build(tiny).cuda().eval()
    images = torch.randn(2, 3, 64, 64, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16), torch.inference_mode():
        whole = torch.compile(model, fullgraph=True)(images)
        torch.testing.assert_close(whole, model(images), rtol=0.05, atol=0.05)


def test_bfloat16_autocast_agrees_with_float32(tiny):
    model = build(tiny)
    images = torch.randn(4, 3, 64, 96)
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
        logits.float().sum().backward()
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.1 * expected.std()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_drop_path_that_is_no_fraction_is_refused(tiny, rate):
    with pytest.raises(VariantError, match="drop_path"):
        build(tiny, drop_path=rate)


def test_a_network_can_be_built_on_the_meta_device(tiny):
    with torch.device("meta"):
        assert build(tiny).stem[0].weight.is_meta


def test_a_new_classifier_is_as_initialised_and_the_rest_is_as_before(tiny):
    model = build(tiny).double().eval()
    before = copy.deepcopy(model.state_dict())
    model.reset_classifier(700)
    classifier = model.head.classifier
    assert (model.variant, classifier.training) == (replace(tiny, num_classes=700), False)
    assert classifier.weight.dtype == torch.float64
    assert classifier.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not classifier.bias.any()
    assert model(torch.randn(1, 3, 64, 64, dtype=torch.float64)).shape == (1, 700)
    for name, value in model.state_dict().items():
        assert name.startswith("head.classifier") or torch.equal(value, before[name]), name
    with pytest.raises(VariantError, match="num_classes 0 is not a positive"):
        model.reset_classifier(0)
    assert model.head.classifier is classifier


def test_checkpointing_changes_neither_gradients_nor_statistics_nor_random_numbers(tiny):
    plain = build(tiny, drop_path=0.3, dropout=0.3).double()
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    images = torch.randn(4, 3, 64, 96, dtype=torch.float64)
    for model in (plain, thrifty):
        torch.manual_seed(1)
        for _ in range(2):
            loss = model(images).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()
    for (name, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        assert torch.equal(one, other), name


def test_checkpointed_blocks_keep_less_until_they_are_plain_again(tiny):
    model = build(tiny)
    stage = model.stages[1]
    parameters = {parameter.data_ptr() for parameter in stage.parameters()}
    maps = torch.randn(8, 4, 16, 16)

    def kept_bytes():
        sizes = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = stage(maps)
        assert out.requires_grad
        return sum(sizes.values())

    plain = kept_bytes()
    model.set_grad_checkpointing()
    assert kept_bytes() < plain / 3
    model.set_grad_checkpointing(False)
    assert kept_bytes() == plain


def test_layers_decay_by_depth_and_only_matrices_decay_to_zero(tiny):
    model = build(tiny)
    optimizer = timm.optim.create_optimizer_v2(
        model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        (names[id(parameter)], parameter.ndim, group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(name for name, *_ in groups) == sorted(names.values())
    for name, ndim, lr_scale, weight_decay in groups:
        assert lr_scale == 0.5 ** (6 - layer_of(name)), name
        spared = ndim == 1 or name.endswith("position_bias")
        assert weight_decay == (0.0 if spared else 0.1), name


def layer_of(name: str) -> int:
    """The layer of a parameter of a network with 1, 2, 1, 1 blocks: stem 0, blocks 1 to 5, 6."""
    match name.split("."):
        case ["stem", *_]:
            return 0
        case ["stages", stage, "blocks", block, *_]:
            return [1, 2, 4, 5][int(stage)] + int(block)
        case ["stages", stage, *_]:
            return [1, 2, 4, 5][int(stage)]
        case ["head", "classifier", _]:
            return 6
        case _:
            return 5


def test_coarse_layers_are_stem_stages_and_classifier(tiny):
    model = build(tiny)
    layers = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    first = [names[0].split(".")[:2] for _, names in sorted(layers.items())]
    assert first == [["stem", "0"], *[["stages", str(n)] for n in range(4)], ["head", "classifier"]]
    assert {"head.project.weight", "stages.3.position_bias"} <= set(layers[4])
