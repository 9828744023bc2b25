"""One full training as plain data: what decides its result."""

from dataclasses import asdict, dataclass
from typing import Any

from cmtscale.arch.network import Network
from cmtscale.record.identity import identity, network_fields
from cmtscale.record.model_folder import Preprocessing
from cmtscale.train.full_recipe import SYSTEM_FIELDS, FullRecipe


@dataclass(frozen=True, kw_only=True)
class FullRun:
    """A network, how it is trained, on which images, and what its weights begin with.

    Each step's images are seen in `step_parts`, of all processes together: BatchNorm normalises
    each by its own statistics. `started_from` is the sha256 of the weights it begins with, or ""
    for fresh ones; of those, `frozen` says which do not train. `preprocessing` is that of
    evaluation and follows from the rest.
    """

    network: Network
    recipe: FullRecipe
    step_parts: int
    seed: int
    data_hash: str
    preprocessing: Preprocessing
    started_from: str = ""
    frozen: str = ""

    @property
    def identity(self) -> str:
        """A hash of what decides the result."""
        return identity(self.identity_fields())

    @property
    def alike(self) -> str:
        """A hash of what decides the result beside the network: trainings that share it compare."""
        fields = self.identity_fields()
        del fields["network"]
        return identity(fields)

    def identity_fields(self) -> dict[str, Any]:
        """What `identity` covers."""
        recipe = {
            name: value for name, value in asdict(self.recipe).items() if name not in SYSTEM_FIELDS
        }
        if self.recipe.sync_batch_norm:  # one part of each process shares statistics
            recipe["accumulate"] = self.recipe.accumulate
        return {
            "network": network_fields(self.network),
            "recipe": recipe,
            "step_parts": self.step_parts,
            "data": self.data_hash,
            "seed": self.seed,
            "started_from": self.started_from,
            "frozen": self.frozen,
        }
