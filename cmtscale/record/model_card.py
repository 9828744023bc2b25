"""The README.md of a trained model: what it is, how good, how trained, how used."""

from cmtscale.arch.variant import Variant
from cmtscale.record.model_folder import ModelDescription

SHOWN_CLASSES = 20


def model_card(description: ModelDescription) -> str:
    """The card as Markdown; every number in it is from `model.toml`."""
    network, training = description.network, description.training
    title = f"# {network.name}, trained on {training.data}"
    parts = [
        title,
        _summary(description),
        _table(description),
        _use(),
        "Trained by [cmtscale](https://arxiv.org/abs/2107.06263 "
        f'"the CMT paper") ({training.versions}). Everything above is in `model.toml`.',
    ]
    return "\n\n".join(parts) + "\n"


def _summary(description: ModelDescription) -> str:
    network = description.network
    classes = description.classes
    shown = ", ".join(classes[:SHOWN_CLASSES])
    rest = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    shape = ""
    if isinstance(network, Variant):
        dims, depths = ("-".join(map(str, part)) for part in (network.dims, network.depths))
        shape = f", a CMT with dims {dims} and {depths} blocks"
    return (
        f"An image classifier{shape}: {network.resolution_px} px, "
        f"{network.in_channels} channel{'s' if network.in_channels > 1 else ''}, "
        f"{len(classes)} classes ({shown}{rest})."
    )


def _table(description: ModelDescription) -> str:
    scores, training = description.scores, description.training
    lines = [
        ("MACs of one image", f"{description.size.macs:,}"),
        ("parameters", f"{description.size.params:,}"),
        (
            "validation accuracy",
            f"{100 * scores.val_accuracy:.2f} % of {scores.val_images:,} images",
        ),
        ("validation loss", f"{scores.val_loss:.4f} at temperature {scores.temperature:.3f}"),
    ]
    if scores.test_accuracy is None:
        lines.append(("test accuracy", "not read"))
    else:
        lines.append(
            (
                "test accuracy",
                f"{100 * scores.test_accuracy:.2f} % of {scores.test_images:,} images",
            )
        )
    lines += [
        ("recipe", training.recipe),
        ("images seen", f"{training.images_seen:,}"),
        ("training", f"{training.seconds / 60:.0f} min on {training.device}, seed {training.seed}"),
    ]
    if training.started_from:
        lines.append(("started from", training.started_from))
    if chosen := description.chosen_by:
        lines.append(
            (
                "chosen by",
                f"the search {chosen.search} at {chosen.budget_macs / 1e9:g} GMACs: "
                f"{chosen.verdict}, probability {chosen.probability:.2f}",
            )
        )
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines)
    return f"| | |\n|---|---|\n{rows}"


def _use() -> str:
    return """```python
import cmtscale

model, preprocess, classes = cmtscale.load_model("this folder")
logits = model(preprocess("image.jpg")[None])
print(classes[int(logits.argmax())])
```

or `cmtscale predict FOLDER IMAGE`."""
