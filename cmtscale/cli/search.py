"""`cmtscale search`: from a budget to the CMT to train."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmtscale.cli.options import VARIANTS_HELP, CacheDir, Device

Sampler = Literal["grid", "tpe", "gp", "random"]


def search(
    budget: Annotated[str, typer.Option(help="MACs of the network: 4.0G, 600M, 4e9.")],
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, cifar10, cifar100 or folder:PATH.")
    ] = "digits",
    base: Annotated[
        str | None,
        typer.Option(
            help=f"{VARIANTS_HELP} By default the largest at most half the budget, or else the "
            "smallest at least twice it."
        ),
    ] = None,
    sampler: Annotated[
        Sampler, typer.Option(help="A fixed grid, or points that Optuna asks for.")
    ] = "grid",
    trials: Annotated[
        int, typer.Option(help="At most so many candidates; 0: 9 twins on digits, else 20.")
    ] = 0,
    proxy: Annotated[
        bool, typer.Option(help="Train small twins with the same shares, or the real variants.")
    ] = True,
    proxy_macs: Annotated[
        str | None, typer.Option(help="MACs of a twin; by default 6.25 x its base or more.")
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Epochs of each run; 0: until 25,600 images are seen (digits: 3).")
    ] = 0,
    train_images: Annotated[
        int | None, typer.Option(help="Train on a fixed part of the training split; 0: all.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option(help="Flip and shift the images; by default from 5 epochs on."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each candidate.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of the sampler and of the data splits.")] = 0,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Runs at a time; 0: one per core or per GPU.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default results/<what is searched>.")
    ] = None,
    cache_dir: CacheDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
) -> None:
    """Search for the CMT to train at a budget with short proxy trainings.

    The same command again goes on where it was stopped.
    """
    from cmtscale.data.sources import one_spelling
    from cmtscale.spec.budget import parse_macs
    from cmtscale.spec.variant import variant

    budget_macs = parse_macs(budget)
    data = one_spelling(data)
    origin = variant(base) if base else None
    from cmtscale.search.request import SearchRequest

    request = SearchRequest(
        budget_macs=budget_macs,
        data=data,
        base=origin,
        sampler=sampler,
        trials=trials,
        proxy=proxy,
        proxy_macs=parse_macs(proxy_macs) if proxy_macs else 0,
        epochs=epochs,
        train_images=train_images,
        batch_size=batch_size,
        lr=lr,
        augment=augment,
        seeds=seeds,
        seed=seed,
        device=device,
        workers=workers,
        out=out,
        cache_dir=cache_dir,
    )
    from cmtscale.cli.search_view import make_view, print_outcome
    from cmtscale.search.driver import search as run_search

    with make_view() as view:
        outcome = run_search(request, watcher=view, dry_run=dry_run)
    if outcome is not None:
        print_outcome(outcome)
        if outcome.choice is None:
            raise typer.Exit(1)
