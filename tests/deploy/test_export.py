"""An exported network answers as the trained one, says what it needs, or is not written."""

import errno
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

import cmtscale
from cmtscale.arch.errors import ExportError, ModelError
from cmtscale.arch.network import TimmNetwork
from cmtscale.arch.variant import Variant, variant
from cmtscale.cli.app import run
from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import Dataset
from cmtscale.deploy.any_side import AnySide
from cmtscale.deploy.capture import capture
from cmtscale.deploy.compare import compare
from cmtscale.deploy.onnx_file import require_room, run_onnx, to_onnx
from cmtscale.deploy.sides import Sides, find_sides
from cmtscale.model.cmt import build
from cmtscale.model.networks import build_network
from cmtscale.record.model_folder import read_description, write_model

Capture = pytest.CaptureFixture[str]
README = Path(__file__).parents[2] / "README.md"
FORMATS = ("onnx", "torch-export", "safetensors")


@pytest.fixture(scope="module")
def validation(digits: Dataset) -> list[Tensor]:
    split = device_split(digits, digits.splits.val, device=torch.device("cpu"))
    return [images for images, _ in eval_batches(split, batch_size=90, resolution_px=64)]


def opened(path: Path) -> Callable[[Tensor], Tensor]:
    """The network in an exported file, as its users open it."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(
            session.run(["logits"], {"images": images.numpy()})[0]
        )
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda images: module(images)
    return cmtscale.load_model(path).model


def told(path: Path) -> dict[str, Any]:
    """The description in an exported file, as its users read it."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map["cmtscale"]
    elif path.suffix == ".pt2":
        extra = {"cmtscale.json": ""}
        torch.export.load(path, extra_files=extra)
        text = extra["cmtscale.json"]
    else:
        with safe_open(path, framework="pt") as file:
            text = file.metadata()["cmtscale"]
    content: dict[str, Any] = json.loads(text)
    return content


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_network_sees_the_validation_images_as_the_trained_one_does(
    exported: Callable[..., Any], trained: Path, validation: list[Tensor], format: str
) -> None:
    model, exported_model = cmtscale.load_model(trained).model, opened(exported(format).path)
    batches = [*validation, validation[0][:1], validation[0][:5]]
    larger = nn.functional.interpolate(validation[0][:5], (96, 128), mode="bilinear")
    with torch.inference_mode():
        for images in (*batches, larger, larger[:1]):
            expected, answered = model(images), exported_model(images)
            # sums in another order: some 1e-6 of the largest logit
            torch.testing.assert_close(answered, expected, rtol=0, atol=1e-4)
            assert torch.equal(answered.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("format", FORMATS)
def test_what_an_image_goes_through_travels_with_the_network(
    exported: Callable[..., Any], trained: Path, format: str
) -> None:
    description, _ = read_description(trained / "model")
    about = told(exported(format).path)
    for name, value in asdict(description.preprocessing).items():
        assert about[name] == (list(value) if isinstance(value, tuple) else value)
    assert about["classes"] == list(description.classes)
    assert about["temperature"] == description.scores.temperature
    assert about["sides"] == asdict(Sides(own_px=64))


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_prints_what_was_written_and_how_it_agrees(
    exported: Callable[..., Any], format: str
) -> None:
    path, stdout, stderr = exported(format)
    assert stderr == ""
    lines = stdout.splitlines()
    assert lines[0].startswith(f"{path}: {format}")
    assert lines[1] == "images: float32 (batch, 1, height, width), preprocessed"
    assert "multiples of 32 from 64 px on; trained at 64 px" in lines[2]
    rows = [line.split() for line in lines[5:9]]
    assert [row[:2] for row in rows] == [
        ["1", "64x64"], ["5", "64x64"], ["1", "96x64"], ["5", "96x64"]
    ]  # fmt: skip
    assert [row[-3] for row in rows] == ["1", "5", "1", "5"]
    assert len(lines) == 10


def test_the_onnx_file_names_its_free_sizes_and_no_place_on_this_machine(
    exported: Callable[..., Any],
) -> None:
    content = exported("onnx").path.read_bytes()
    model = onnx.load_from_string(content)
    shapes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", 1, "height", "width"], ["batch", 10]]
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert b".py" not in content


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_graph_refuses_sides_that_the_network_refuses(
    exported: Callable[..., Any], format: str
) -> None:
    exported_model = opened(exported(format).path)
    for side in (72, 80, 100):
        for size in ((side, 64), (64, side)):
            with pytest.raises(Exception, match=r"Guard failed|Reshape"):
                exported_model(torch.zeros(1, 1, *size))


def test_the_pt2_file_names_no_place_on_this_machine(exported: Callable[..., Any]) -> None:
    assert b"blocks.py" not in exported("torch-export").path.read_bytes()


def test_the_example_of_the_readme_sees_what_predict_sees(
    exported: Callable[..., Any],
    trained: Path,
    digits: Dataset,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    (example,) = re.findall(
        r"```python\n(import json.*?onnxruntime.*?)```", README.read_text(), re.S
    )
    seen = []
    for index in digits.splits.val[:5]:
        image = tmp_path / f"{index}.png"
        Image.fromarray(digits.images[index].squeeze(-1)).save(image)
        code = example.replace("runs/best.onnx", str(exported("onnx").path))
        exec(code.replace("photo.jpg", str(image)), {})
        seen.append(capsys.readouterr().out.split())
    assert run(["predict", str(trained), str(tmp_path), "--top", "1", "--json"]) == 0
    predicted = [image["classes"] for image in json.loads(capsys.readouterr().out)]
    order = sorted(range(5), key=lambda number: str(digits.splits.val[number]))
    for number, classes in zip(order, predicted, strict=True):
        ((name, probability),) = classes.items()
        assert seen[number][0] == name
        assert float(seen[number][1]) == pytest.approx(probability, abs=1e-3)


def test_predict_opens_the_single_file(
    exported: Callable[..., Any], trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    answers = []
    for model in (trained, exported("safetensors").path):
        assert run(["predict", str(model), str(tmp_path / "image.png"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "its weights were changed"),
        (lambda content: content[:-1], "its weights were changed"),
        (lambda content: content[:200], "holds no trained model"),
        (lambda _: b"", "holds no trained model"),
        (lambda content: content.replace(b"network_kind", b"x"), None),
    ],
    ids=["flipped", "cut", "torn", "empty", "same"],
)
def test_a_damaged_single_file_is_refused(
    exported: Callable[..., Any],
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    message: str | None,
) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damage(exported("safetensors").path.read_bytes()))
    if message is None:
        cmtscale.load_model(path)
        return
    with pytest.raises(ModelError, match=message):
        cmtscale.load_model(path)


def test_weights_alone_are_no_single_file(trained: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no trained model with its model\.toml"):
        cmtscale.load_model(trained / "model" / "model.safetensors")


# --- sides


def test_the_network_for_any_side_is_the_network_at_every_side() -> None:
    torch.manual_seed(0)
    ti = variant("cmt-ti")
    stages = tuple(replace(stage, depth=1) for stage in ti.stages)
    small = replace(ti, resolution_px=96, stages=stages, num_classes=5)
    model = build(small).eval()
    free = AnySide(model)
    with torch.inference_mode():
        for height, width in ((96, 96), (64, 160), (128, 32)):
            images = torch.randn(2, 3, height, width)
            assert torch.equal(free(images), model(images))


class Network(nn.Module):
    """Calls `answer` on its images."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images)


def only_64(images: Tensor) -> Tensor:
    assert images.shape[2] == 64, "Input height does not match"
    return images.mean((2, 3))


def test_sides_are_fixed_with_the_reason_where_the_network_or_its_side_is(
    tiny_base: Variant,
) -> None:
    assert find_sides(tiny_base, build(tiny_base).eval()) == Sides(own_px=64)
    small = replace(tiny_base, resolution_px=32)
    assert "32 px is below 64 px" in find_sides(small, build(small).eval()).fixed_because
    odd = TimmNetwork(model="any", resolution_px=100)
    assert "no multiple of 32" in find_sides(odd, Network(only_64)).fixed_because
    other = TimmNetwork(model="any", resolution_px=64)
    assert find_sides(other, Network(only_64)).fixed_because == (
        "the network refuses others: Input height does not match"
    )


@pytest.mark.parametrize(
    "factor",
    [
        lambda images: 2.0 if images.shape[2] > images.shape[3] else 1.0,
        lambda images: 2.0 if images.shape[2] == 64 else 1.0,
        lambda images: torch.ones(4)[: images.shape[2] // 32].sum(),
    ],
    ids=["upright", "own side", "small"],
)
def test_a_graph_that_holds_for_some_sides_only_is_taken_for_its_own(
    factor: Callable[[Tensor], Any],
) -> None:
    network = Network(lambda images: images.mean((2, 3)) * factor(images)).eval()
    program, sides = capture(network, channels=1, sides=Sides(own_px=64))
    assert "no one graph holds for others" in sides.fixed_because
    images = torch.rand(3, 1, 64, 64)
    assert torch.equal(program.module()(images), network(images))


@pytest.mark.parametrize("number", [1, 4])
def test_a_network_that_counts_its_images_is_no_graph(number: int) -> None:
    network = Network(lambda images: images.mean((2, 3)) * (2.0 if len(images) == number else 1.0))
    with pytest.raises(ExportError, match="cannot be captured as one graph"):
        capture(network, channels=1, sides=Sides(own_px=64))


def test_a_network_of_timm_is_exported_with_its_fixed_side(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    network = TimmNetwork(model="test_resnet", resolution_px=100, num_classes=10, in_channels=1)
    torch.manual_seed(0)
    model = build_network(network).eval()
    description = read_description(trained / "model")[0]
    preprocessing = replace(description.preprocessing, resolution_px=100)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    write_model(
        tmp_path / "resnet",
        replace(description, network=network, preprocessing=preprocessing),
        weights,
        card="",
    )
    assert run(["export", str(tmp_path / "resnet"), "--format", "onnx"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    assert "images: float32 (batch, 1, 100, 100), preprocessed" in stdout
    assert "sides are fixed at 100 px: its own side of 100 px is no multiple of 32" in stdout
    path = tmp_path / "resnet.onnx"
    assert "no multiple" in told(path)["sides"]["fixed_because"]
    images = torch.randn(3, 1, 100, 100)
    with torch.inference_mode():
        torch.testing.assert_close(opened(path)(images), model(images), rtol=0, atol=1e-4)


# --- refusals


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--format jpeg", 2, "--format 'jpeg' is not one of 'onnx', 'torch-export'"),
        ("", 2, "--format is missing"),
        ("--format onnx --opset new", 2, "--opset 'new' is not a whole number"),
        ("--format safetensors --opset 18", 2, "--opset does nothing with safetensors"),
        ("--format onnx --opset 99", 2, "opset 99 is not one that onnx"),
        ("--format onnx --opset 0", 2, "opset 0 is not one that onnx"),
        ("--format torch-export --out {existing}", 2, "exists already"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    trained: Path, tmp_path: Path, capsys: Capture, options: str, code: int, words: str
) -> None:
    existing = tmp_path / "existing"
    existing.touch()
    before = sorted(trained.parent.rglob("*"))
    assert run(["export", str(trained), *options.format(existing=existing).split()]) == code
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert line.startswith("cmtscale: ")
    assert words in line
    assert existing.read_bytes() == b""
    assert sorted(trained.parent.rglob("*")) == before


def test_without_the_libraries_of_onnx_the_line_says_what_to_install(
    trained: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = ["--out", str(tmp_path / "x.onnx")]
    assert run(["export", str(trained), "--format", "onnx", *out]) == 2
    assert "pip install 'cmtscale[export]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_model_is_not_exported(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run(["export", str(folder), "--format", "safetensors"]) == 2
    assert "not the file that model.toml describes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EFBIG, "(ulimit -f)")]
)
def test_a_full_disk_leaves_nothing_behind(
    trained: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    message: str,
) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    out = ["--out", str(tmp_path / "x.safetensors")]
    assert run(["export", str(trained), "--format", "safetensors", *out]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [3e-3, float("nan")])
def test_a_network_that_answers_otherwise_is_not_written(
    trained: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    error: float,
) -> None:
    class Other(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.model(images)
            return logits * (1 + error)

    model = cmtscale.load_model(trained).model
    monkeypatch.setattr("cmtscale.deploy.export.build_trained", lambda *_, **__: Other(model))
    out = ["--out", str(tmp_path / "x.safetensors")]
    assert run(["export", str(trained), "--format", "safetensors", *out]) == 1
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "does not answer as the trained one" in stderr
    assert "(batch 1, 64x64 px)" in stderr
    assert list(tmp_path.iterdir()) == []


def test_only_float_noise_is_tolerated() -> None:
    class Logits(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 10 * images.flatten(1)[:, :3]

    sides = Sides(own_px=64)
    for factor in (1.0, 1 + 9e-5):
        agreements = compare(lambda x, f=factor: f * Logits()(x), Logits(), channels=1, sides=sides)
        assert [a.same_class for a in agreements] == [1, 5, 1, 5]
    with pytest.raises(ExportError, match=r"more than 0\.0001 of it"):
        compare(lambda x: (1 + 1.2e-4) * Logits()(x), Logits(), channels=1, sides=sides)


def program(operator: Callable[[Tensor], Tensor]) -> torch.export.ExportedProgram:
    return torch.export.export(Network(operator), (torch.rand(2, 4),))


def test_an_operator_that_onnx_lacks_is_named() -> None:
    with pytest.raises(ExportError, match=r"opset 18: .*bessel_j0") as caught:
        to_onnx(program(torch.special.bessel_j0), about="{}", opset=18)
    assert "\n" not in str(caught.value)


def test_an_opset_that_cannot_hold_the_network_is_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ExportError, match="opset 7"):
            to_onnx(program(lambda x: nn.functional.layer_norm(x, (4,))), about="{}", opset=7)


def test_weights_beyond_one_onnx_file_are_refused() -> None:
    require_room(2_000_000_000)
    with pytest.raises(ExportError, match=r"weights of 2\.2 GB do not fit"):
        require_room(2_200_000_000)


def test_a_file_that_onnxruntime_cannot_run_is_refused() -> None:
    with pytest.raises(ExportError, match=r"onnxruntime .* does not run"):
        run_onnx(b"no model")
