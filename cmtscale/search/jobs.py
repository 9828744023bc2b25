"""The jobs of a search: to time networks, to train a run, to read the test split with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmtscale.arch.variant import Variant
from cmtscale.record.files import remove_unfinished
from cmtscale.record.folder import RESULT
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.record.worker import write_worker
from cmtscale.train.recipe import Recipe, Run
from cmtscale.train.stop import CheckIn

if TYPE_CHECKING:
    from cmtscale.train.gpu_memory import Card
    from cmtscale.train.testing import SplitScore


@dataclass(frozen=True, kw_only=True)
class TimeSteps:
    """Time training steps of a network, of so many images each."""

    network: Variant
    recipe: Recipe
    batch: int

    def carry_out(self, device: str, check_in: CheckIn) -> float:
        """Seconds of a step per image; a GPU's memory is given back for what comes next."""
        import torch

        from cmtscale.train.timing import seconds_per_image

        seconds = seconds_per_image(
            self.network, self.recipe, batch=self.batch, device=device, check_in=check_in
        )
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        return seconds


@dataclass(frozen=True)
class AskCard:
    """Ask which card a slot has."""

    def carry_out(self, device: str, check_in: CheckIn) -> "Card":  # noqa: ARG002
        """Its name and memory."""
        from cmtscale.train.gpu_memory import card_of

        return card_of(device)


@dataclass(frozen=True, kw_only=True)
class MeasureMemory:
    """Measure what training a network takes of a card that does nothing else."""

    network: Variant
    recipe: Recipe
    batch: int

    def carry_out(self, device: str, check_in: CheckIn) -> int:
        """Bytes."""
        from cmtscale.train.gpu_memory import training_bytes

        return training_bytes(
            self.network, self.recipe, batch=self.batch, device=device, check_in=check_in
        )


@dataclass(frozen=True, kw_only=True)
class CountImages:
    """Count the images a second of training steps of whole batches, beside others of these jobs."""

    network: Variant
    recipe: Recipe
    batch: int
    seconds: float

    def carry_out(self, device: str, check_in: CheckIn) -> float:
        """Images a second."""
        from cmtscale.train.timing import images_per_second

        return images_per_second(
            self.network,
            self.recipe,
            batch=self.batch,
            device=device,
            seconds=self.seconds,
            check_in=check_in,
        )


@dataclass(frozen=True, kw_only=True)
class TimePrediction:
    """Time networks that predict one image at a time, in turns."""

    networks: tuple[Variant, ...]
    recipe: Recipe

    def carry_out(self, device: str, check_in: CheckIn) -> dict[str, float]:
        """Seconds per image by the networks' names."""
        from cmtscale.train.timing import prediction_seconds

        return prediction_seconds(self.networks, self.recipe, device=device, check_in=check_in)


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Train a run in the folder that keeps its checkpoint, log and result."""

    run: Run
    folder: Path
    candidate: str

    def carry_out(self, device: str, check_in: CheckIn) -> RunResult:
        """The result; the one that the folder holds already, unless the run failed.

        A result that was scored in an older way is scored again from the run's last checkpoint.
        """
        import torch

        from cmtscale.train.loop import train

        remove_unfinished(self.folder)
        path = self.folder / RESULT
        earlier = read_result(path, self.run.identity)
        if earlier is not None and earlier.status != "failed":
            return earlier
        write_worker(self.folder, device)
        result = train(self.run, device=torch.device(device), folder=self.folder, check_in=check_in)
        write_result(path, result, self.run.identity)
        return result


@dataclass(frozen=True, kw_only=True)
class ReadTestSplit:
    """Read the test split with the network that a run has trained."""

    run: Run
    folder: Path

    def carry_out(self, device: str, check_in: CheckIn) -> "SplitScore | None":
        """The score; None if the run's checkpoint is gone."""
        import torch

        from cmtscale.train.testing import read_test_split

        return read_test_split(
            self.run, device=torch.device(device), folder=self.folder, check_in=check_in
        )
