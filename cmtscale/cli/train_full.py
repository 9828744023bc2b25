"""`cmtscale train` with a full recipe: any network, to the accuracy that it can reach."""

from pathlib import Path

import typer

from cmtscale.cli.options import AttentionName


def train_full(
    *,
    variant: str,
    data: str,
    out: Path,
    recipe: str,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    drop_path: float | None,
    accumulate: int | None,
    start: Path | None,
    freeze: str,
    workers: int | None,
    compiled: bool,
    seed: int,
    split_seed: int,
    test: bool,
    attention: AttentionName | None,
    device: str,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Train one network; None takes the recipe's own value."""
    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.full_view import FullView
    from cmtscale.cli.train_view import print_json, print_result
    from cmtscale.data.sources import open_source, parse_spec
    from cmtscale.model.networks import read_network
    from cmtscale.record.choice import chosen_by
    from cmtscale.record.folder import require_free
    from cmtscale.train.devices import device_slots
    from cmtscale.train.full import train_full as train
    from cmtscale.train.full_request import FullRequest
    from cmtscale.train.memory import keep_freed_memory
    from cmtscale.train.named_recipe import RecipeChanges, named_recipe
    from cmtscale.train.processes import is_first_process
    from cmtscale.train.start import read_start

    network = read_network(variant)
    named = named_recipe(recipe, network).changed(
        RecipeChanges(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            drop_path=drop_path,
            accumulate=accumulate,
            attention=attention,
        )
    )
    device_slots(device)  # before images are read
    is_first = is_first_process()
    if is_first:
        require_free(out)
    request = FullRequest(
        network=network,
        recipe=named.recipe,
        recipe_name=named.name,
        image_set=open_source(data, split_seed=split_seed, cache_dir=cache_dir).stream(),
        source={"data": parse_spec(data).text, "split_seed": split_seed},
        seed=seed,
        folder=out,
        device=device,
        workers=workers,
        compiled=compiled,
        start=None if start is None else read_start(start, network),
        frozen=freeze,
        test=test,
        chosen_by=chosen_by(Path(variant)),
    )
    keep_freed_memory()
    if not is_first:
        result, test_accuracy = train(request)
    else:
        with make_bars() as bars:
            view = FullView(bars, named.words, _start_words(start, freeze))
            result, test_accuracy = train(request, planned=view.planned, watch=view.logged)
        if as_json:
            print_json(result, test_accuracy, folder=out)
        else:
            print_result(result, test_accuracy, folder=out, test=test)
            print(f"use it: cmtscale predict {out}/model IMAGE")
    if result.status != "complete":
        raise typer.Exit(1)


def _start_words(start: Path | None, frozen: str) -> str:
    """Which weights a training begins with, and which of them stay as they are."""
    words = [] if start is None else [f"begins with the weights of {start}"]
    if frozen == "all":
        words.append("all but the head stays as it is")
    elif frozen:
        words.append(f"the stem and {frozen} of the stages stay as they are")
    return "; ".join(words)
