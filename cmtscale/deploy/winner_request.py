"""What is to be trained of a search's choice, and beside it; refused before anything trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import RequestError
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant
from cmtscale.data.sources import open_source
from cmtscale.data.stream import ImageSet
from cmtscale.model.networks import read_network
from cmtscale.record.choice import Answered, chosen_by
from cmtscale.record.folder import BEST, WINNER
from cmtscale.record.model_folder import ChosenBy
from cmtscale.train.claim import require_ours
from cmtscale.train.devices import device_slots
from cmtscale.train.full import FullPlan, plan_full
from cmtscale.train.full_request import FullRequest
from cmtscale.train.named_recipe import PAPER, NamedRecipe, recipe_at
from cmtscale.train.paper_recipe import nearest_variant
from cmtscale.train.recipe import require_count, require_seed

AWAY = "move it away"  # where a folder of the winner's is not what would be trained there


@dataclass(frozen=True, kw_only=True)
class WinnerRequest:
    """How a search's choice is trained, and which networks beside it, alike.

    `recipe` is `paper` (that of the published variant nearest to the budget) or a TOML file, with
    other `epochs`, `batch_size` and `accumulate` (None: its own). `beside` are networks as
    `cmtscale train` names them. `test` reads the test split, once, with the trained choice alone.
    It trains on one device, the first of `device`.
    """

    recipe: str = PAPER
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
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
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))

    def changed(self, recipe: NamedRecipe) -> NamedRecipe:
        """The recipe with the values of this request."""
        return recipe.changed(
            epochs=self.epochs, batch_size=self.batch_size, accumulate=self.accumulate
        )


@dataclass(frozen=True, kw_only=True)
class PreparedWinner:
    """A request with its images and networks, all of which can be trained.

    The first of `plans` is that of a published variant in place of the choice, which is not known
    yet; the other plans are those of `beside`.
    """

    request: WinnerRequest
    image_set: ImageSet
    source: Mapping[str, Any]
    device: str
    beside: tuple[Network, ...]
    recipe: NamedRecipe
    plans: tuple[FullPlan, ...] = ()

    def full_request(
        self,
        network: Network,
        recipe: NamedRecipe,
        folder: Path,
        *,
        test: bool = False,
        chosen_by: ChosenBy | None = None,
    ) -> FullRequest:
        """The training of one network."""
        return FullRequest(
            network=network,
            recipe=recipe.recipe,
            recipe_name=recipe.name,
            image_set=self.image_set,
            source=self.source,
            seed=self.request.seed,
            folder=folder,
            device=self.device,
            test=test,
            chosen_by=chosen_by,
        )


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
    recipe = request.changed(recipe_at(request.recipe, budget_macs))
    device = device_slots(request.device)[0]
    networks = tuple(read_network(text) for text in request.beside)
    names = [folder_name(network) for network in networks]
    for text, name in zip(request.beside, names, strict=True):
        if names.count(name) > 1:
            raise RequestError(f"--beside {text} is given twice, or has the name of another")
    source = open_source(data, split_seed=split_seed, cache_dir=request.cache_dir)
    prepared = PreparedWinner(
        request=request,
        image_set=source.stream(),
        source={"data": data, "split_seed": split_seed},
        device=device,
        beside=networks,
        recipe=recipe,
    )
    trained = [nearest_variant(budget_macs), *networks]
    requests = [prepared.full_request(network, recipe, Path()) for network in trained]
    plans = tuple(map(plan_full, requests))
    if folder is not None:
        for name, plan in zip(names, plans[1:], strict=True):
            require_ours(folder / WINNER / name, plan.run, instead=AWAY)
    return replace(prepared, plans=plans)


def requests_in(folder: Path, answer: Answered, prepared: PreparedWinner) -> list[FullRequest]:
    """The trainings of the choice of the search in `folder`, and of the others."""
    recipe = prepared.recipe
    choice = prepared.full_request(
        answer.network,
        recipe,
        folder / WINNER / answer.network.name,
        test=prepared.request.test,
        chosen_by=chosen_by(folder / BEST),
    )
    others = [
        prepared.full_request(network, recipe, folder / WINNER / folder_name(network))
        for network in prepared.beside
    ]
    return [choice, *others]


def folder_name(network: Network) -> str:
    """`cmt-ti@160`, `timm-efficientnet_b0@224`: where a network beside the choice is trained."""
    name = network.name if isinstance(network, Variant) else f"timm-{network.model}"
    return f"{name}@{network.resolution_px}"
