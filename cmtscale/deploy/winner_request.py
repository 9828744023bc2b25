"""What is to be trained of a search's choice, and beside it; refused before anything trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cmtscale.arch.errors import RequestError
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant
from cmtscale.data.sources import open_source
from cmtscale.model.networks import read_network
from cmtscale.record.choice import Answered, chosen_by
from cmtscale.record.folder import BEST, WINNER
from cmtscale.train.claim import require_ours
from cmtscale.train.devices import device_slots
from cmtscale.train.full import FullPlan, plan_full
from cmtscale.train.full_request import FullRequest
from cmtscale.train.named_recipe import PAPER, NamedRecipe, RecipeChanges, recipe_at
from cmtscale.train.paper_recipe import nearest_variant
from cmtscale.train.recipe import require_seed

AWAY = "move it away"  # where a folder of the winner's is not what would be trained there


@dataclass(frozen=True, kw_only=True)
class WinnerRequest:
    """How a search's choice is trained, and which networks beside it, alike.

    `recipe` is `paper` (that of the published variant nearest to the budget) or a TOML file, with
    `changes`. `beside` are networks as `cmtscale train` names them. `test` reads the test split,
    once, with the trained choice alone. It trains on one device, the first of `device`.
    """

    recipe: str = PAPER
    changes: RecipeChanges = field(default_factory=RecipeChanges)
    beside: Sequence[str] = ()
    test: bool = False
    seed: int = 0
    device: str = "auto"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.beside, str):
            raise RequestError(f"beside {self.beside!r} is no list; use [{self.beside!r}]")
        object.__setattr__(self, "beside", tuple(self.beside))
        require_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class PreparedWinner:
    """Trainings that can be done once a search has chosen.

    `stand_in` trains a published variant in place of the choice, which is not known yet; `beside`
    are the others. Their folders are within that of the search. `plans` are of all, in this order.
    """

    recipe: NamedRecipe
    stand_in: FullRequest
    beside: tuple[FullRequest, ...]
    plans: tuple[FullPlan, ...]


def prepare_winner(
    request: WinnerRequest,
    *,
    data: str,
    split_seed: int,
    budget_macs: int,
    folder: Path | None = None,
) -> PreparedWinner:
    """Read the networks, the recipe and the images of a search, and plan all but the choice.

    `folder` is that of the search, where it is known yet. Raises a `CmtscaleError` for whatever
    cannot be trained, or is in the way there; writes nothing but packed images.
    """
    recipe = recipe_at(request.recipe, budget_macs).changed(request.changes)
    device = device_slots(request.device)[0]
    networks = tuple(read_network(text) for text in request.beside)
    names = [folder_name(network) for network in networks]
    for text, name in zip(request.beside, names, strict=True):
        if names.count(name) > 1:
            raise RequestError(f"--beside {text} is given twice, or has the name of another")
    variant = nearest_variant(budget_macs)
    stand_in = FullRequest(
        network=variant,
        recipe=recipe.recipe,
        recipe_name=recipe.name,
        image_set=open_source(data, split_seed=split_seed, cache_dir=request.cache_dir).stream(),
        source={"data": data, "split_seed": split_seed},
        seed=request.seed,
        folder=Path(WINNER, variant.name),
        device=device,
        test=request.test,
    )
    beside = tuple(
        replace(stand_in, network=network, folder=Path(WINNER, name), test=False)
        for network, name in zip(networks, names, strict=True)
    )
    plans = tuple(map(plan_full, (stand_in, *beside)))
    if folder is not None:
        for other, plan in zip(beside, plans[1:], strict=True):
            require_ours(folder / other.folder, plan.run, instead=AWAY)
    return PreparedWinner(recipe=recipe, stand_in=stand_in, beside=beside, plans=plans)


def requests_in(folder: Path, answer: Answered, prepared: PreparedWinner) -> list[FullRequest]:
    """The trainings of the choice of the search in `folder`, and of the others."""
    choice = replace(
        prepared.stand_in,
        network=answer.network,
        folder=folder / WINNER / answer.network.name,
        chosen_by=chosen_by(folder / BEST),
    )
    return [choice, *(replace(other, folder=folder / other.folder) for other in prepared.beside)]


def folder_name(network: Network) -> str:
    """`cmt-ti@160`, `timm-efficientnet_b0@224`: where a network beside the choice is trained."""
    name = network.name if isinstance(network, Variant) else f"timm-{network.model}"
    return f"{name}@{network.resolution_px}"
