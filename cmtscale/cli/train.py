"""`cmtscale train`: one variant on one data set with the proxy recipe."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.cli.options import VARIANTS_HELP, Attention, CacheDir, Device, Json, SplitSeed


def train(
    context: typer.Context,
    variant: Annotated[str, typer.Option("--variant", "-v", help=VARIANTS_HELP)],
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, cifar10, cifar100 or folder:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics and result.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    train_images: Annotated[
        int | None,
        typer.Option(help="Train on a fixed part of the training split; by default on all of it."),
    ] = None,
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
    as_json: Json = False,
) -> None:
    """Train one variant with the short recipe; the same command goes on where it was stopped."""
    from cmtscale.arch.variant import variant as read_variant
    from cmtscale.data.sources import open_source, parse_spec
    from cmtscale.train.recipe import Recipe, require_seed

    chosen = read_variant(variant)
    data = parse_spec(data).text
    require_seed("split_seed", split_seed or 0)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        train_images=train_images,
        drop_path=drop_path,
        attention=attention or "auto",
    ).augmented(augment)

    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.next_steps import repeated
    from cmtscale.cli.train_view import TrainView, print_json, print_result
    from cmtscale.record.choice import chosen_by
    from cmtscale.record.folder import require_free
    from cmtscale.train.devices import device_slots
    from cmtscale.train.memory import keep_freed_memory
    from cmtscale.train.single import train_single

    device_slots(device)  # before images are packed
    require_free(out)
    source = open_source(data, split_seed=split_seed or 0, cache_dir=cache_dir)
    dataset = source.pack(chosen.resolution_px)
    keep_freed_memory()
    with make_bars() as bars:
        view = TrainView(bars)
        result, test_accuracy = train_single(
            chosen,
            recipe,
            dataset,
            seed=seed,
            device=device,
            folder=out,
            source={"data": data, "split_seed": split_seed or 0},
            test=test,
            chosen_by=chosen_by(Path(variant)),
            planned=view.planned,
            watch=view.logged,
        )
    if as_json:
        print_json(result, test_accuracy, folder=out)
    else:
        print_result(result, test_accuracy, folder=out, test=test)
        longer = {"epochs": 2 * epochs, "out": f"{out}-{2 * epochs}-epochs"}
        longer["augment"] = recipe.flip  # the same images, however often they are seen
        print(f"longer: {repeated(context, longer)}")
    if result.status != "complete":
        raise typer.Exit(1)
