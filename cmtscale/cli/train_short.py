"""`cmtscale train` with the short recipe: one variant as a search trains it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from cmtscale.cli.options import AttentionName


def train_short(
    context: typer.Context,
    *,
    variant: str,
    data: str,
    out: Path,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    train_images: int | None,
    augment: bool | None,
    drop_path: float | None,
    seed: int,
    split_seed: int,
    test: bool,
    attention: AttentionName,
    device: str,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Train one variant; None takes the recipe's own value."""
    from cmtscale.arch.variant import Variant
    from cmtscale.data.sources import open_source, parse_spec
    from cmtscale.model.networks import read_network
    from cmtscale.train.recipe import Recipe

    chosen = read_network(variant)
    assert isinstance(chosen, Variant)  # timm's are refused before
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    given["drop_path"] = drop_path
    recipe = replace(
        Recipe(train_images=train_images, attention=attention),
        **{name: value for name, value in given.items() if value is not None},
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
    source = open_source(data, split_seed=split_seed, cache_dir=cache_dir)
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
            source={"data": parse_spec(data).text, "split_seed": split_seed},
            test=test,
            chosen_by=chosen_by(Path(variant)),
            planned=view.planned,
            watch=view.logged,
        )
    if as_json:
        print_json(result, test_accuracy, folder=out)
    else:
        print_result(result, test_accuracy, folder=out, test=test)
        longer = {"epochs": 2 * recipe.epochs, "out": f"{out}-{2 * recipe.epochs}-epochs"}
        longer["augment"] = recipe.flip  # the same images, however often they are seen
        print(f"longer: {repeated(context, longer)}")
    if result.status != "complete":
        raise typer.Exit(1)
