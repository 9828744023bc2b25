"""The recipe of a full training as users name it: the paper's, or a file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmtscale.arch.network import Network, fit_to_data
from cmtscale.train.full_recipe import FullRecipe, read_recipe
from cmtscale.train.paper_recipe import PaperRecipe, nearest_recipe, paper_recipe, with_epochs
from cmtscale.train.save_model import size_of

PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A recipe, the `name` that records have for it, and `words` that say where it is from."""

    recipe: FullRecipe
    name: str
    words: str

    def changed(self, *, epochs: int | None, **values: Any) -> "NamedRecipe":
        """The same for another length, with other values of the recipe; None keeps its own."""
        recipe = self.recipe if epochs is None else with_epochs(self.recipe, epochs)
        given = {name: value for name, value in values.items() if value is not None}
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
