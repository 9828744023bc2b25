"""`cmtscale train`: one network on one data set, with the short recipe or to full accuracy."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.arch.network import TIMM
from cmtscale.cli.options import DATA_HELP, Attention, CacheDir, Device, Json, SplitSeed
from cmtscale.cli.torchrun import require_one_process

SHORT = "short"


def train(
    context: typer.Context,
    variant: Annotated[
        str,
        typer.Option(
            "--variant",
            "-v",
            help="cmt-ti, cmt-xs, cmt-s, cmt-b, a TOML file, or timm:NAME; @192 for another side.",
        ),
    ],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics and model.")],
    recipe: Annotated[
        str, typer.Option(help="short, paper (to full accuracy), or a recipe's TOML file.")
    ] = SHORT,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images; short: 10.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; short: 32.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate (short: 0.002); of others per 512 images."),
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(help="Short: a fixed part of the training split; by default all of it."),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(help="Short: flip and shift the images; by default from 5 epochs on."),
    ] = None,
    drop_path: Annotated[
        float | None, typer.Option(help="Stochastic depth of the last block; short: 0.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(help="Parts that a step's images are seen in, to save memory; not short."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Begin with a trained model, or an authors' checkpoint."),
    ] = None,
    freeze: Annotated[
        str, typer.Option(help="Keep the stem and so many stages as they are, or all but the head.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images, of each GPU; CPU: 0.")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network first.")] = False,
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
    """Train one network; the same command goes on where it was stopped."""
    from cmtscale.arch.errors import RequestError
    from cmtscale.data.sources import parse_spec
    from cmtscale.train.recipe import require_seed

    data = parse_spec(data).text
    require_seed("split_seed", split_seed or 0)
    if recipe == SHORT:
        from cmtscale.train.named_recipe import PAPER

        full_only: dict[str, object] = {"--from": start, "--freeze": freeze, "--compile": compiled}
        full_only |= {"--accumulate": accumulate, "--workers": workers}
        for option in [name for name, value in full_only.items() if value not in (None, "", False)]:
            raise RequestError(f"{option} is not for the short recipe; add --recipe {PAPER}")
        if variant.startswith(TIMM):
            raise RequestError(f"the short recipe is for CMTs; train {variant} by --recipe {PAPER}")
        require_one_process("the short recipe trains")
        from cmtscale.cli.train_short import train_short

        train_short(
            context,
            variant=variant,
            data=data,
            out=out,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            train_images=train_images,
            augment=augment,
            drop_path=drop_path,
            seed=seed,
            split_seed=split_seed or 0,
            test=test,
            attention=attention or "auto",
            device=device,
            cache_dir=cache_dir,
            as_json=as_json,
        )
        return
    if train_images is not None or augment is not None:
        option = "--augment" if train_images is None else "--train-images"
        raise RequestError(f"{option} is for the short recipe alone; leave it away")
    from cmtscale.cli.train_full import train_full

    train_full(
        variant=variant,
        data=data,
        out=out,
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        drop_path=drop_path,
        accumulate=accumulate,
        start=start,
        freeze=freeze,
        workers=workers,
        compiled=compiled,
        seed=seed,
        split_seed=split_seed or 0,
        test=test,
        attention=attention,
        device=device,
        cache_dir=cache_dir,
        as_json=as_json,
    )
