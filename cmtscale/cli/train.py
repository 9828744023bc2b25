"""`cmtscale train`: one variant on one data set with the proxy recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmtscale.cli.options import VARIANTS_HELP, Attention, CacheDir, Device, SplitSeed

if TYPE_CHECKING:
    from rich.console import Console

    from cmtscale.data.pack import Dataset
    from cmtscale.train.recipe import Recipe


def train(
    variant: Annotated[str, typer.Option("--variant", "-v", help=VARIANTS_HELP)],
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, cifar10, cifar100 or folder:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics and result.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    train_images: Annotated[
        int, typer.Option(help="Train on a fixed part of the training split; 0: all.")
    ] = 0,
    augment: Annotated[
        bool | None,
        typer.Option(help="Flip and shift the images; by default from 5 epochs on."),
    ] = None,
    drop_path: Annotated[float, typer.Option(help="Stochastic depth of the last block.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    split_seed: SplitSeed = None,
    test: Annotated[
        bool, typer.Option("--test", help="Read the test split, once, when training has ended.")
    ] = False,
    attention: Attention = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
) -> None:
    """Train one variant with the short recipe; the same command goes on where it was stopped."""
    from cmtscale.arch.variant import variant as read_variant
    from cmtscale.data.sources import one_spelling

    chosen = read_variant(variant)
    data = one_spelling(data)

    from cmtscale.cli.console import messages
    from cmtscale.train.devices import keep_freed_memory
    from cmtscale.train.recipe import DataRef, Recipe
    from cmtscale.train.single import train_single

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        train_images=train_images,
        drop_path=drop_path,
        attention=attention or "auto",
    ).augmented(augment)
    reference = DataRef(
        source=data,
        resolution_px=chosen.resolution_px,
        split_seed=split_seed or 0,
        cache_dir=cache_dir,
    )
    view = _View(messages(), recipe)
    keep_freed_memory()
    result, test_accuracy = train_single(
        chosen,
        recipe,
        reference,
        seed=seed,
        device=device,
        folder=out,
        test=test,
        begun=view.begun,
        watch=view.logged,
    )
    if result.status != "complete":
        print(f"{result.status}: {result.cause}")
        raise typer.Exit(1)
    assert result.val_accuracy is not None
    assert result.val_loss is not None
    tested = "" if test_accuracy is None else f"test accuracy {100 * test_accuracy:.2f} %; "
    print(
        f"validation accuracy {100 * result.val_accuracy:.2f} %, loss {result.val_loss:.4f} "
        f"(temperature {result.temperature:.3f}); {tested}"
        f"{result.images_per_second:.0f} img/s, {result.seconds:.0f} s; in {out}"
    )
    if test and test_accuracy is None:
        messages().print("the test split was not read: the checkpoint is gone")


class _View:
    """Prints what is trained on, then each line of the log with the time left."""

    def __init__(self, console: "Console", recipe: "Recipe") -> None:
        self.console = console
        self.recipe = recipe
        self.images = 0  # of the whole training

    def begun(self, dataset: "Dataset", images: int) -> None:
        from cmtscale.data.batches import images_per_epoch

        splits = dataset.splits
        self.images = self.recipe.epochs * images_per_epoch(images, self.recipe.batch_size)
        augmented = " (augmented)" if self.recipe.shift_fraction else ""
        self.console.print(
            f"{images:,} of {len(splits.train):,} training images{augmented}, "
            f"{len(splits.val):,} val, {len(splits.test):,} test",
            markup=False,
        )

    def logged(self, line: dict[str, Any]) -> None:
        from cmtscale.cli.console import duration

        text = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in line.items()
        )
        if "train_loss" in line:
            left = line["seconds"] * max(0, self.images / line["images"] - 1)
            text += f"  about {duration(left)} left"
        self.console.print(text, markup=False)
