"""`winner.json`: the network that a search chose, trained fully, and those trained beside it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cmtscale.arch.errors import ResultsError
from cmtscale.record.bench import Conditions
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import WINNER_RECORD
from cmtscale.record.result import Status
from cmtscale.record.typed import record_of

Role = Literal["choice", "earlier choice", "beside"]


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """One full training: its `folder` in that of the search, what it costs, and what it reached.

    `macs` of one image. `val_loss` is at the temperature that fits best; scores are None unless the
    `status` is complete, else `cause` says why. `test_accuracy` is None until the test split has
    been read. Latencies are those of one image, median and 95th percentile; None before they were
    measured, or where they could not be.
    """

    role: Role
    network: str
    resolution_px: int
    folder: str
    macs: int
    params: int
    status: Status
    cause: str = ""
    val_accuracy: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0
    latency_seconds: float | None = None
    p95_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class WinnerRecord:
    """The trained choice, first of `networks`, and what was trained alike.

    `alike` is a hash of all that decides the results beside the networks: recipe, images, seed.
    `verdict` is that of the search when it chose. `timed` says how all latencies were measured
    together, in turn; None before that.
    """

    data: str
    recipe: str
    epochs: int
    batch_images: int
    steps: int
    seed: int
    alike: str
    val_images: int
    test_images: int
    verdict: str
    tour: bool
    networks: tuple[TrainedNetwork, ...]
    timed: Conditions | None = None

    def __post_init__(self) -> None:
        if [network.role for network in self.networks[:1]] != ["choice"]:
            raise ValueError("the first network is not the choice")

    @property
    def choice(self) -> TrainedNetwork:
        """The network that the search chose."""
        return self.networks[0]

    def in_folder(self, folder: str) -> TrainedNetwork | None:
        """The network that was trained in this folder of the search's."""
        return next((network for network in self.networks if network.folder == folder), None)


def write_winner(folder: Path, record: WinnerRecord) -> None:
    """Write `winner.json` into the folder of the search, atomically."""
    write_json(folder / WINNER_RECORD, asdict(record))


def read_winner(folder: Path) -> WinnerRecord | None:
    """What was trained of a search; None before, `ResultsError` if the file is damaged."""
    path = folder / WINNER_RECORD
    try:
        return record_of(WinnerRecord, read_json(path))
    except FileNotFoundError:
        return None
    except ResultsError:
        raise
    except ValueError as error:
        raise ResultsError(
            f"{path} is damaged: {error}; remove it, and run --train-winner again"
        ) from error
