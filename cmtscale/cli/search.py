"""`cmtscale search`: from a budget to the CMT to train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cmtscale.cli.options import (
    DATA_HELP,
    DEFAULT_BASE,
    NETWORKS_HELP,
    VARIANTS_HELP,
    AcceptChanges,
    Address,
    Attention,
    CacheDir,
    Device,
    EngineOption,
    HangTimeout,
    Json,
    RunTimeout,
    Slurm,
    SplitSeed,
    Workers,
    WorkersPerDevice,
    read_engine,
)
from cmtscale.cli.torchrun import require_one_process

if TYPE_CHECKING:
    from cmtscale.search.request import SearchRequest

Sampler = Literal["grid", "tpe", "gp", "random"]
SecondCost = Literal["latency", "params", "activations", "macs"]
NO_LIMIT = "none"  # lifts a limit of the search that --from goes on with


def search(
    context: typer.Context,
    budget: Annotated[
        str | None,
        typer.Option(
            help="MACs of the network: 4.0G, 600M, 4e9; or of a family, 0.6G,1.5G,4.0G: the "
            "largest is searched, the others get its shares."
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Repeat or extend the search in this folder; flags override."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"{DATA_HELP} By default digits."),
    ] = None,
    split_seed: SplitSeed = None,
    base: Annotated[
        str | None,
        typer.Option(help=f"{VARIANTS_HELP} By default {DEFAULT_BASE}."),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(help="A fixed grid (default), or points that Optuna asks for."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="At most so many candidates, in a grid beside the base and the three pure ones; "
            "by default 20 (digits: 5)."
        ),
    ] = None,
    proxy: Annotated[
        bool | None,
        typer.Option(help="Train small twins with the same shares, or the real variants."),
    ] = None,
    proxy_macs: Annotated[
        str | None, typer.Option(help="MACs of a twin; by default 6.25 x its base or more.")
    ] = None,
    target_images: Annotated[
        int | None,
        typer.Option(
            help="Images seen in the training that the answer is for; by default what the longest "
            "runs see, at most three times that."
        ),
    ] = None,
    target_epochs: Annotated[
        int | None, typer.Option(help="The same in epochs of the training split.")
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option(
            help="How long runs get: flat (one length), quick (two), standard (three; default), "
            "thorough (four), each three times as long, or a TOML file."
        ),
    ] = None,
    spend: Annotated[
        float | None,
        typer.Option(
            help="How much all runs may cost, of what every candidate would at the longest length "
            "with three seeds; 0.3, quick 0.5."
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Losses that are so much higher are as good; 0.01.")
    ] = None,
    prefer: Annotated[
        SecondCost | None, typer.Option(help="What decides among equals; latency, measured here.")
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option(help="The most parameters of the real network: 25M, or none."),
    ] = None,
    max_activations: Annotated[
        str | None,
        typer.Option(help="The most activations of an image in it: 30M, or none."),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="All the time there is: 2h, 90m. Twins and runs get as large and long as fit; "
            "by default the plan says how long it takes."
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="The longest that it takes for an image, here: 8ms, 0.5s, or none."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of the shortest runs; by default they see 6,000 images."),
    ] = None,
    train_images: Annotated[
        str | None,
        typer.Option(help="Images of an epoch of the shortest runs, or `all` of the split."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option(help="Flip and shift the images; by default on small data sets."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Shortest runs of each candidate; 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampler and the decisions; 0.")] = None,
    attention: Attention = None,
    device: Device = "auto",
    workers: Workers = None,
    workers_per_device: WorkersPerDevice = None,
    engine: EngineOption = "local",
    slurm: Slurm = None,
    address: Address = None,
    run_timeout: RunTimeout = None,
    hang_timeout: HangTimeout = "5m",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default results/<what is searched>.")
    ] = None,
    cache_dir: CacheDir = None,
    train_winner: Annotated[
        bool,
        typer.Option(
            "--train-winner", help="Train the choice fully, at real size, when it is made."
        ),
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(help=f"Train this one too, alike (repeatable): {NETWORKS_HELP}"),
    ] = None,
    winner_recipe: Annotated[
        str | None,
        typer.Option(help="Of these trainings: paper (default), or a recipe's TOML file."),
    ] = None,
    winner_epochs: Annotated[
        int | None, typer.Option(help="Their epochs; by default the recipe's.")
    ] = None,
    winner_batch_size: Annotated[
        int | None, typer.Option(help="Their images per step; by default the recipe's.")
    ] = None,
    winner_accumulate: Annotated[
        int | None, typer.Option(help="Parts that a step's images are seen in, to save memory; 1.")
    ] = None,
    winner_test: Annotated[
        bool,
        typer.Option("--winner-test", help="Read the test split, once, with the trained choice."),
    ] = False,
    accept_changes: AcceptChanges = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: Json = False,
) -> None:
    """Search for the CMT to train at a budget with short proxy trainings.

    Every candidate trains shortly; a forecast of the loss at the target decides who trains longer.
    The same command again goes on where it was stopped; with another ladder, target, or more trials
    it goes on in the same folder. With --train-winner it ends in a trained model, in DIR/winner.
    """
    from cmtscale.arch.budget import (
        parse_budgets,
        parse_count,
        parse_duration,
        parse_macs,
        parse_seconds,
    )
    from cmtscale.arch.errors import RequestError
    from cmtscale.arch.variant import variant

    require_one_process("a search runs")
    if dry_run and as_json:
        raise RequestError("--json prints the choice, and a dry run makes none; drop one of them")
    asked: dict[str, Any] = {
        "budget_macs": None if budget is None else max(parse_budgets(budget)),
        "family": None if budget is None else tuple(sorted(parse_budgets(budget))[:-1]),
        "data": data,
        "split_seed": split_seed,
        "base": None if base is None else variant(base),
        "sampler": sampler,
        "trials": trials,
        "proxy": proxy,
        "proxy_macs": None if proxy_macs is None else parse_macs(proxy_macs, "--proxy-macs"),
        "target_images": target_images,
        "target_epochs": target_epochs,
        "tolerance": tolerance,
        "prefer": prefer,
        "epochs": epochs,
        "train_images": None if train_images is None else _images(train_images),
        "batch_size": batch_size,
        "lr": lr,
        "augment": augment,
        "seeds": seeds,
        "seed": seed,
        "attention": attention,
        "device": device,
        "workers": workers,
        "engine": read_engine(
            engine,
            slurm=slurm,
            address=address,
            workers_per_device=workers_per_device,
            run_timeout=run_timeout,
            hang_timeout=hang_timeout,
        ),
        "out": out,
        "cache_dir": cache_dir,
        "accept_changes": accept_changes or None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    for name, flag, text, parse in (
        ("max_params", "--max-params", max_params, parse_count),
        ("max_activations", "--max-activations", max_activations, parse_count),
        ("max_latency_seconds", "--max-latency", max_latency, parse_seconds),
        ("max_seconds", "--max-time", max_time, parse_duration),
    ):
        if text is not None:
            asked[name] = None if text == NO_LIMIT else parse(text, flag)
    if from_ is None and budget is None:
        raise RequestError("a search needs a budget; use --budget 4.0G, or --from a run folder")
    request = _request(from_, asked)
    if spend is not None and request.max_seconds is not None:
        raise RequestError(
            "--spend and --max-time both say how much to train; drop one of them, or add "
            "--max-time none where it is the search's"
        )
    request = _with_ladder(request, ladder, spend)
    from cmtscale.cli.search_winner import conclude, prepared_winner, refuse_options

    winner = None
    if not train_winner:
        refuse_options(context)
    else:
        if engine != "local":
            raise RequestError(
                f"--train-winner trains on this machine, not by --engine {engine}; leave it away, "
                "and train the choice there: cmtscale train --variant results/NAME/best.toml"
            )
        from cmtscale.deploy.winner_request import WinnerRequest
        from cmtscale.train.named_recipe import PAPER, RecipeChanges

        changes = RecipeChanges(
            epochs=winner_epochs, batch_size=winner_batch_size, accumulate=winner_accumulate
        )
        winner_request = WinnerRequest(
            recipe=winner_recipe or PAPER,
            changes=changes,
            beside=beside or [],
            test=winner_test,
            device=request.device,
            cache_dir=request.cache_dir,
        )
        winner = prepared_winner(request, winner_request)
    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.search_view import SearchView
    from cmtscale.search.driver import search as run_search

    with make_bars() as bars:
        outcome = run_search(request, watcher=SearchView(bars, winner), dry_run=dry_run)
    if outcome is not None:
        conclude(outcome, winner, as_json)


def _images(text: str) -> Any:
    """A number of images, or `all`; what is neither is left for the request to refuse."""
    return int(text) if text.isdecimal() else text


def _with_ladder(
    request: "SearchRequest", ladder: str | None, spend: float | None
) -> "SearchRequest":
    """The request with the ladder of the flags; `spend` changes it alone."""
    from dataclasses import replace

    from cmtscale.search.ladder import read_ladder
    from cmtscale.search.request import TOUR_DATA

    chosen = request.ladder if ladder is None else read_ladder(ladder)
    if spend is not None:
        default = "flat" if request.data == TOUR_DATA else "standard"
        chosen = replace(chosen or read_ladder(default), spend=spend)
    return replace(request, ladder=chosen)


def _request(folder: Path | None, asked: dict[str, Any]) -> "SearchRequest":
    """The request of the flags, over that of the folder's search if there is a folder."""
    from dataclasses import replace

    from cmtscale.arch.errors import RequestError
    from cmtscale.search.request import SearchRequest
    from cmtscale.search.settings import stored_settings

    if folder is None:
        return SearchRequest(**asked)
    if "out" in asked:
        raise RequestError(f"--from goes on in {folder}; leave --out away, or leave --from away")
    stored = stored_settings(folder)
    if stored is None:
        raise RequestError(f"{folder} holds no search; give --from a folder with a request.toml")
    request = replace(stored.as_request(), out=folder)
    if asked.get("proxy") is False:
        request = replace(request, proxy_base=None, proxy_macs=None)
    if "target_images" in asked or "target_epochs" in asked:
        request = replace(request, target_images=None)
    return replace(request, **asked)
