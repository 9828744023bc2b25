"""A full training as it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import RequestError
from cmtscale.arch.network import Network
from cmtscale.data.stream import ImageSet
from cmtscale.record.model_folder import ChosenBy
from cmtscale.train.full_recipe import FullRecipe
from cmtscale.train.recipe import require_seed
from cmtscale.train.start import Start


@dataclass(frozen=True, kw_only=True)
class FullRequest:
    """A full training as it is asked for.

    `network` gets the classes and channels of the images. `recipe_name` and `source` (`data`,
    `split_seed`) say where recipe and images come from. `start` holds the weights to begin with, of
    which `frozen` do not train. `workers` read images, None: none on a CPU, whose cores train.
    """

    network: Network
    recipe: FullRecipe
    recipe_name: str
    image_set: ImageSet
    source: Mapping[str, Any]
    seed: int
    folder: Path
    device: str = "auto"
    workers: int | None = None
    compiled: bool = False
    start: Start | None = None
    frozen: str = ""
    test: bool = False
    chosen_by: ChosenBy | None = None

    def __post_init__(self) -> None:
        require_seed("seed", self.seed)
        if self.workers is not None and self.workers < 0:
            raise RequestError(f"workers {self.workers} is no number of processes; use 0 or more")
        if self.frozen and self.start is None:
            raise RequestError(f"freeze {self.frozen!r} would keep random weights; add --from")
        if self.start is not None:
            self.start.require_same_splits(
                self.source["data"], self.source["split_seed"], self.image_set.set_hash
            )
