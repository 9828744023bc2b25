"""The recipe of a full training as users name it: the paper's, or a file."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cmtscale.arch.network import Network, fit_to_data
from cmtscale.model.blocks import Attention
from cmtscale.train.full_recipe import FullRecipe, read_recipe
from cmtscale.train.paper_recipe import PaperRecipe, nearest_recipe, paper_recipe, with_epochs
from cmtscale.train.recipe import require_count
from cmtscale.train.save_model import size_of

PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """Values that are asked for in place of a recipe's own; None keeps these."""

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    drop_path: float | None = None
    accumulate: int | None = None
    attention: Attention | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None:  # the length of the warm-up is computed with it
            require_count("epochs", self.epochs)


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A recipe, the `name` that records have for it, and `words` that say where it is from."""

    recipe: FullRecipe
    name: str
    words: str

    def changed(self, changes: RecipeChanges) -> "NamedRecipe":
        """The same with other values; for another length the warm-up keeps its part of it."""
        given = {name: value for name, value in asdict(changes).items() if value is not None}
        recipe = self.recipe
        if changes.epochs is not None:
            recipe = with_epochs(recipe, changes.epochs)
        return replace(self, recipe=replace(recipe, **given))


def named_recipe(text: str, network: Network) -> NamedRecipe:
    """The recipe of `paper` for this network, or of a TOML file, which may be refused."""
    if text != PAPER:
        return _from_file(Path(text))
    return _of_paper(paper_recipe(network, size_of(fit_to_data(network, 1000, 3)).macs))


def recipe_at(text: str, macs: int) -> NamedRecipe:
    """The same for a network of which nothing but its MACs is known yet."""
    return _from_file(Path(text)) if text != PAPER else _of_paper(nearest_recipe(macs))


def _from_file(path: Path) -> NamedRecipe:
    return NamedRecipe(recipe=read_recipe(path), name=path.name, words=f"the recipe in {path}")


def _of_paper(paper: PaperRecipe) -> NamedRecipe:
    words = f"the paper's recipe for {paper.variant}"
    if not paper.is_own:
        words += ", the nearest in MACs"
    return NamedRecipe(recipe=paper.recipe, name=PAPER, words=words)
