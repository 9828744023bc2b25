"""The end of a full training: its test split, where that is asked for, and its model."""

from cmtscale.record.model_folder import ModelDescription, Training
from cmtscale.record.reads import accuracy_read_by_training, log_reading
from cmtscale.record.result import RunResult
from cmtscale.train.checkpoint import has_checkpoint
from cmtscale.train.full_recipe import recipe_table
from cmtscale.train.full_request import FullRequest
from cmtscale.train.full_run import FullRun
from cmtscale.train.full_setup import Setup, System, set_up
from cmtscale.train.moments import with_moments
from cmtscale.train.save_model import model_stands, save_model, scores_of, size_of, versions


def conclude(
    request: FullRequest, run: FullRun, system: System, setup: Setup | None, result: RunResult
) -> float | None:
    """Read the test split if that is asked for, and write the model; the test accuracy."""
    folder, processes = system.folder, system.processes
    earlier = processes.first(lambda: accuracy_read_by_training(folder))
    accuracy = earlier if request.test else None
    is_read = request.test and earlier is None
    if not is_read and processes.first(lambda: model_stands(folder, accuracy)):
        return accuracy
    if setup is None:  # trained by an earlier command
        if not processes.first(lambda: has_checkpoint(folder)):
            return accuracy
        run = with_moments(run, request.image_set, folder, processes)
        setup = set_up(run, request.image_set, system)
        if not setup.is_resumed:
            return accuracy
        setup.scorer.load(setup.state.best_network)
    test = request.image_set.splits.test
    if is_read:
        accuracy = setup.scorer.predict(test, between=lambda: None).accuracy
    if processes.is_first:
        if is_read:
            assert accuracy is not None
            log_reading(folder, by="train", run_id=folder.name, images=len(test), accuracy=accuracy)
        description = _describe(request, run, setup, result, accuracy)
        save_model(folder, description, setup.scorer.model.state_dict())
    return accuracy


def _describe(
    request: FullRequest,
    run: FullRun,
    setup: Setup,
    result: RunResult,
    test_accuracy: float | None,
) -> ModelDescription:
    image_set, order = request.image_set, setup.order
    return ModelDescription(
        network=run.network,
        size=size_of(run.network),
        classes=image_set.class_names,
        preprocessing=run.preprocessing,
        training=Training(
            data=request.source["data"],
            data_hash=image_set.set_hash,
            split_seed=request.source["split_seed"],
            recipe=request.recipe_name,
            seed=run.seed,
            images_seen=setup.state.step * order.batch_images,
            seconds=result.seconds,
            device="; then ".join(setup.state.devices),
            started_from=request.start.label if request.start else "",
            versions=versions(),
        ),
        scores=scores_of(result, image_set.splits, test_accuracy),
        recipe=recipe_table(run.recipe),
        chosen_by=request.chosen_by,
    )
