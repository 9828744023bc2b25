"""From a search's choice to its model: trained at real size, others beside it, all compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from cmtscale.arch.errors import DoesNotFitError
from cmtscale.deploy.winner_request import AWAY, PreparedWinner, requests_in
from cmtscale.deploy.winner_times import timed
from cmtscale.record.choice import Answered, answered
from cmtscale.record.folder import WINNER, held, require_free
from cmtscale.record.reads import accuracy_read_by_training
from cmtscale.record.result import RunResult
from cmtscale.record.winner import (
    Role,
    TrainedNetwork,
    WinnerRecord,
    read_winner,
    write_winner,
)
from cmtscale.train.claim import require_ours
from cmtscale.train.full import FullPlan, plan_full, train_full
from cmtscale.train.memory import keep_freed_memory
from cmtscale.train.named_recipe import NamedRecipe

ELSEWHERE = "copy the search to another folder, and train there"


class WinnerWatcher(Protocol):
    """Hears how the trainings go."""

    def begun(self, number: int, count: int, network: str, recipe: NamedRecipe) -> None:
        """A training begins, or is looked up: the `number`th of `count`."""
        ...

    def planned(self, plan: FullPlan) -> None:
        """Before its first step."""
        ...

    def logged(self, line: dict[str, Any]) -> None:
        """A line of its log."""
        ...

    def measuring(self, text: str) -> None:
        """What goes on while latencies are measured."""
        ...


class NullWinnerWatcher:
    """Shows nothing."""

    def begun(self, number: int, count: int, network: str, recipe: NamedRecipe) -> None: ...

    def planned(self, plan: FullPlan) -> None: ...

    def logged(self, line: dict[str, Any]) -> None: ...

    def measuring(self, text: str) -> None: ...


def train_winner(
    folder: Path, prepared: PreparedWinner, *, watcher: WinnerWatcher | None = None
) -> WinnerRecord:
    """Train what the search in `folder` chose, and the networks beside it, in `folder/winner`.

    Each has a folder there, as `train_full` writes it; what is trained already is not repeated, and
    what an earlier command trained alike stays in the record. Latencies are measured at the end, of
    all in turn. The record is written after each training. Raises `ResultsError` for a folder
    without an answer, `RequestError` where a training of another recipe is in the way,
    `DoesNotFitError` for a choice that the memory is too small for (a network beside it is recorded
    as failed), and `StoppedError` once the state of a training is kept.
    """
    watcher = watcher or NullWinnerWatcher()
    answer = answered(folder)
    with held(folder / WINNER, instead=ELSEWHERE):
        requests = requests_in(folder, answer, prepared)
        plans = [plan_full(request) for request in requests]
        for request, plan in zip(requests, plans, strict=True):
            require_ours(request.folder, plan.run, instead=AWAY)
            require_free(request.folder, instead=ELSEWHERE)
        keep_freed_memory()
        earlier = read_winner(folder)
        if earlier is not None and earlier.alike != plans[0].run.alike:
            earlier = None
        trained: list[TrainedNetwork] = []
        for number, (request, plan) in enumerate(zip(requests, plans, strict=True), start=1):
            watcher.begun(number, len(requests), plan.run.network.name, prepared.recipe)
            try:
                result, accuracy = train_full(
                    request, planned=watcher.planned, watch=watcher.logged
                )
            except DoesNotFitError as error:
                if number == 1:
                    raise _with_advice(error, request.folder if error.is_begun else None) from error
                cause = str(_with_advice(error, folder / WINNER))  # of other parts, all are anew
                result, accuracy = RunResult(status="failed", cause=cause), None
            role: Role = "choice" if number == 1 else "beside"
            if result.status == "complete" and accuracy is None:  # `train` may have read it here
                accuracy = accuracy_read_by_training(request.folder)
            trained_folder = request.folder.relative_to(folder).as_posix()
            before = None if earlier is None else earlier.in_folder(trained_folder)
            trained.append(_trained(role, trained_folder, plan, result, accuracy, before))
            record = _record(answer, prepared, plans[0], trained, earlier)
            write_winner(folder, record)
        record = timed(folder, record, prepared.stand_in.device, watch=watcher.measuring)
        write_winner(folder, record)
    return record


def _with_advice(error: DoesNotFitError, in_the_way: Path | None) -> DoesNotFitError:
    """The error with what to do here; `in_the_way` is what was trained in too few parts."""
    smaller = "a smaller --winner-batch-size"
    if error.parts is not None:
        smaller = f"--winner-accumulate {error.parts}"
    advice = f"use {smaller}"
    if in_the_way is not None:
        advice = (
            f"free some of it, then the same command goes on; or move {in_the_way} away "
            f"and {advice}"
        )
    adapted = DoesNotFitError(
        f"{error.problem}; {advice}",
        problem=error.problem,
        parts=error.parts,
        is_begun=error.is_begun,
    )
    adapted.exit_code = 1  # the search is done
    return adapted


def all_trained(record: WinnerRecord, prepared: PreparedWinner) -> bool:
    """Whether the choice and those asked for beside it came to their end.

    Networks that earlier commands trained do not count.
    """
    folders = [request.folder.as_posix() for request in prepared.beside]
    asked = [record.choice, *map(record.in_folder, folders)]
    return all(network is not None and network.status == "complete" for network in asked)


def _trained(
    role: Role,
    trained_folder: str,
    plan: FullPlan,
    result: RunResult,
    test_accuracy: float | None,
    earlier: TrainedNetwork | None,
) -> TrainedNetwork:
    network = plan.run.network
    trained = TrainedNetwork(
        role=role,
        network=network.name,
        resolution_px=network.resolution_px,
        folder=trained_folder,
        macs=plan.size.macs,
        params=plan.size.params,
        status=result.status,
        cause=result.cause,
        val_accuracy=result.val_accuracy,
        val_loss=result.val_loss,
        test_accuracy=test_accuracy,
        seconds=result.seconds,
    )
    if earlier is None or result.status != "complete":
        return trained
    return replace(
        trained, latency_seconds=earlier.latency_seconds, p95_seconds=earlier.p95_seconds
    )


def _record(
    answer: Answered,
    prepared: PreparedWinner,
    plan: FullPlan,
    trained: Sequence[TrainedNetwork],
    earlier: WinnerRecord | None,
) -> WinnerRecord:
    """All that is trained so far, now and by earlier commands alike."""
    trained_folders = {network.folder for network in trained}
    others = [
        replace(network, role="beside" if network.role == "beside" else "earlier choice")
        for network in (earlier.networks if earlier else ())
        if network.folder not in trained_folders
    ]
    recipe, stand_in = prepared.recipe, prepared.stand_in
    splits = stand_in.image_set.splits
    return WinnerRecord(
        data=str(stand_in.source["data"]),
        recipe=recipe.name,
        epochs=recipe.recipe.epochs,
        batch_images=plan.batch_images,
        steps=recipe.recipe.epochs * plan.steps_per_epoch,
        seed=stand_in.seed,
        alike=plan.run.alike,
        val_images=len(splits.val),
        test_images=len(splits.test),
        verdict=answer.verdict,
        tour=answer.tour,
        networks=(*trained, *others),
        timed=earlier.timed if earlier else None,
    )
