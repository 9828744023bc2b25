"""What a run of a candidate is: as it is trained, and as it is recorded."""

from pathlib import Path

from cmtscale.arch.cost import cost
from cmtscale.data.dataset import DataRef
from cmtscale.record.folder import RUNS
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate
from cmtscale.search.jobs import TrainRun
from cmtscale.search.runs import RungRun, run_id
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings
from cmtscale.train.recipe import Run


def job_of(
    settings: Settings, folder: Path, data: DataRef, candidate: Candidate, run: RungRun
) -> TrainRun:
    """The training of a candidate, as it is named and identified.

    Its folder is absolute: other machines work in other folders.
    """
    name = run_id(settings, run)
    training = Run(
        run_id=name,
        variant=candidate.trained,
        recipe=settings.run_recipe(run.rung),
        seed=run.seed,
        data=data,
    )
    run_folder = (folder / RUNS / name).absolute()
    return TrainRun(run=training, folder=run_folder, candidate=candidate.name)


def make_row(asked: Asked, run: Run, result: RunResult) -> Row:
    """The row of `trials.csv` of one run."""
    candidate = asked.candidate
    real, trained = cost(candidate.real), cost(candidate.trained)
    assert run.recipe.train_images is not None
    return Row(
        run_id=run.run_id,
        candidate=candidate.name,
        alpha=candidate.shares.alpha,
        beta=candidate.shares.beta,
        gamma=candidate.shares.gamma,
        phi=candidate.phi,
        macs=real.macs,
        params=real.params,
        proxy_macs=trained.macs,
        resolution_px=candidate.real.resolution_px,
        dims=candidate.real.dims,
        depths=candidate.real.depths,
        seed=run.seed,
        epochs=run.recipe.epochs,
        train_images=run.recipe.train_images,
        val_loss=result.val_loss,
        val_loss_raw=result.val_loss_raw,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        images_per_second=result.images_per_second,
        seconds=round(result.seconds, 3),
        status=result.status,
        cause=result.cause,
        role=candidate.role,
        on_budget=candidate.on_budget,
        stray=candidate.stray,
        activations=real.activations,
        proxy_params=trained.params,
        proxy_resolution_px=candidate.trained.resolution_px,
        proxy_dims=candidate.trained.dims,
        proxy_depths=candidate.trained.depths,
        temperature=result.temperature,
        asked=asked.number,
        asked_after=asked.after,
        asked_by=asked.by,
        scoring=result.scoring,
        identity=run.identity,
    )
