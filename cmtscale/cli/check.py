"""`cmtscale check`: what a search takes for granted, measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmtscale.cli.options import (
    AcceptChanges,
    Address,
    CacheDir,
    Device,
    EngineOption,
    HangTimeout,
    Json,
    RunTimeout,
    Slurm,
    Workers,
    WorkersPerDevice,
    read_engine,
)
from cmtscale.cli.torchrun import require_one_process

if TYPE_CHECKING:
    from cmtscale.search.check_side import CheckRequest
    from cmtscale.search.check_twins import TwinRequest


def check(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The run folder of a search.")],
    twin: Annotated[
        bool,
        typer.Option(
            "--twin", help="Train up to eight networks as larger twins: do these rank them alike?"
        ),
    ] = False,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="How the ranking moves with the length of training; trains nothing."
        ),
    ] = False,
    lr: Annotated[
        bool,
        typer.Option(
            "--lr",
            help="Train the corners and the centre at half and twice the learning rate: does one "
            "rate serve all?",
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="MACs of a twin, as 14.4M,29.6M; by default the search's own and the next two "
            "that cost at most eight times that."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each network at each size or rate.")] = 2,
    rung: Annotated[
        int, typer.Option(help="The length of the runs: that of this rung, 1 the shortest.")
    ] = 1,
    threshold: Annotated[
        float, typer.Option(help="Kendall's tau that smaller twins must keep.")
    ] = 0.7,
    device: Device = "auto",
    workers: Workers = None,
    workers_per_device: WorkersPerDevice = None,
    engine: EngineOption = "local",
    slurm: Slurm = None,
    address: Address = None,
    run_timeout: RunTimeout = None,
    hang_timeout: HangTimeout = "5m",
    cache_dir: CacheDir = None,
    accept_changes: AcceptChanges = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: Json = False,
) -> None:
    """Check what a search takes for granted: its twins, its learning rate, or its horizons.

    A check of --twin trains beside the search, in DIR/twins, one of --lr in DIR/rates; the same
    command goes on where it was stopped, and no run is repeated.
    """
    from cmtscale.arch.budget import parse_macs
    from cmtscale.arch.errors import RequestError

    require_one_process("a check runs")
    if [twin, drift, lr].count(True) != 1:
        raise RequestError("a check is of one thing; use --twin, --drift or --lr")
    if drift:
        machines = ("device", "workers", "workers_per_device", "engine", "slurm", "address")
        limits = ("run_timeout", "hang_timeout")
        training = ("seeds", "rung", *machines, *limits, "accept_changes", "dry_run")
        _refuse(context, "--drift trains nothing", ("sizes", "threshold", *training))
        _check_drift(folder, as_json)
        return
    if lr:
        _refuse(context, "--lr ranks no twins", ("sizes", "threshold"))
    if dry_run and as_json:
        raise RequestError("--json prints what was found, and a dry run finds nothing; drop one")
    macs = () if sizes is None else tuple(parse_macs(size, "--sizes") for size in sizes.split(","))

    from cmtscale.search.check_side import CheckRequest
    from cmtscale.search.check_twins import TwinRequest

    where = read_engine(
        engine,
        slurm=slurm,
        address=address,
        workers_per_device=workers_per_device,
        run_timeout=run_timeout,
        hang_timeout=hang_timeout,
    )
    if lr:
        rates = CheckRequest(
            folder=folder,
            seeds=seeds,
            rung=rung,
            device=device,
            workers=workers,
            engine=where,
            cache_dir=cache_dir,
            accept_changes=accept_changes,
        )
        _check_rates(rates, dry_run, as_json)
        return
    twins = TwinRequest(
        folder=folder,
        sizes=macs,
        seeds=seeds,
        rung=rung,
        threshold=threshold,
        device=device,
        workers=workers,
        engine=where,
        cache_dir=cache_dir,
        accept_changes=accept_changes,
    )
    _check_twins(twins, dry_run, as_json)


def _refuse(context: typer.Context, reason: str, names: tuple[str, ...]) -> None:
    """Raise `RequestError` for flags that were given and do not fit the check."""
    from cmtscale.arch.errors import RequestError

    given = [name for name in names if _is_given(context, name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise RequestError(f"{reason} and takes no {flags}; leave it away")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_twins(request: "TwinRequest", dry_run: bool, as_json: bool) -> None:
    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.check_view import TwinView, print_twins, print_twins_json
    from cmtscale.search.check_twins import check_twins

    with make_bars() as bars:
        found = check_twins(request, watcher=TwinView(bars), dry_run=dry_run)
    if found is not None:
        if as_json:
            print_twins_json(request.folder, found)
        else:
            print_twins(request.folder, found)


def _check_rates(request: "CheckRequest", dry_run: bool, as_json: bool) -> None:
    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.rate_view import RateView, print_rates, print_rates_json
    from cmtscale.search.check_rates import check_rates

    with make_bars() as bars:
        found = check_rates(request, watcher=RateView(bars), dry_run=dry_run)
    if found is not None:
        if as_json:
            print_rates_json(request.folder, found)
        else:
            print_rates(request.folder, found)


def _check_drift(folder: Path, as_json: bool) -> None:
    from cmtscale.cli.drift_view import print_drift, print_drift_json
    from cmtscale.search.check_drift import check_drift

    found = check_drift(folder)
    if as_json:
        print_drift_json(folder, found)
    else:
        print_drift(folder, found)
