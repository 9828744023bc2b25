"""Scale, count, search and train CMT vision networks (arXiv 2107.06263).

Everything here works without torch until something needs a network: `build`, `load_published` and
`search` import it when they are called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Loaded first, so that the function `search` below keeps its name: importing a submodule of the
# sub-package later does not bind `cmtscale.search` again.
import cmtscale.search  # noqa: F401
from cmtscale.arch.cost import Cost, cost
from cmtscale.arch.errors import CmtscaleError
from cmtscale.arch.scaling import Scaling, Shares, scale
from cmtscale.arch.solve import Solution, solve
from cmtscale.arch.variant import Stage, Variant, variant

if TYPE_CHECKING:
    import pandas as pd

    from cmtscale.deploy.load import LoadedModel
    from cmtscale.model.cmt import CMT
    from cmtscale.record.winner import WinnerRecord
    from cmtscale.search.executors.base import Executor
    from cmtscale.search.ladder import Ladder as Ladder
    from cmtscale.search.outcome import Outcome
    from cmtscale.search.request import SearchRequest as SearchRequest

__version__ = "0.1.0"

__all__ = [
    "CmtscaleError",
    "Cost",
    "Ladder",
    "Scaling",
    "SearchRequest",
    "Shares",
    "Solution",
    "Stage",
    "Variant",
    "build",
    "cost",
    "load_model",
    "load_published",
    "load_results",
    "scale",
    "search",
    "solve",
    "train_winner",
    "variant",
]


def build(variant: Variant, *, drop_path: float = 0.0, dropout: float = 0.0) -> "CMT":
    """The network of a variant, as published; see `cmtscale.model.cmt.build`."""
    from cmtscale.model.cmt import build as build_network

    return build_network(variant, drop_path=drop_path, dropout=dropout)


def load_model(path: str | Path, *, device: str = "cpu") -> "LoadedModel":
    """(model, preprocess, classes) of a trained model; see `cmtscale.deploy.load.load_model`."""
    from cmtscale.deploy.load import load_model as load

    return load(path, device=device)


def load_published(
    model: "CMT", source: Mapping[str, Any] | str | Path, *, ema: bool = True
) -> None:
    """Load a checkpoint of the authors' code; see `cmtscale.model.weights.load_published`."""
    from cmtscale.model.weights import load_published as load

    load(model, source, ema=ema)


def search(request: "SearchRequest", *, executor: "Executor | None" = None) -> "Outcome":
    """Search for the CMT to train at a budget; see `cmtscale.search.driver.search`.

    Without an `executor` it starts processes: in a script call it under
    `if __name__ == "__main__":`.
    """
    from cmtscale.search.driver import search as run_search

    outcome = run_search(request, executor=executor)
    assert outcome is not None
    return outcome


def train_winner(
    folder: str | Path,
    *,
    beside: Sequence[str] = (),
    recipe: str = "paper",
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    test: bool = False,
    device: str = "auto",
    cache_dir: str | Path | None = None,
) -> "WinnerRecord":
    """Train what the search in `folder` chose, and networks beside it, to full accuracy.

    See `cmtscale.deploy.winner_request.WinnerRequest` for the arguments, and
    `cmtscale.deploy.winner.train_winner` for what it leaves.
    """
    from cmtscale.deploy.winner import train_winner as train
    from cmtscale.deploy.winner_request import WinnerRequest, prepare_winner
    from cmtscale.record.choice import answered
    from cmtscale.train.named_recipe import RecipeChanges

    answer = answered(Path(folder))
    request = WinnerRequest(
        recipe=recipe,
        changes=RecipeChanges(epochs=epochs, batch_size=batch_size, accumulate=accumulate),
        beside=beside,
        test=test,
        device=device,
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )
    prepared = prepare_winner(
        request,
        data=answer.data,
        split_seed=answer.split_seed,
        budget_macs=answer.budget_macs,
        folder=Path(folder),
    )
    return train(Path(folder), prepared)


def load_results(path: str | Path) -> "pd.DataFrame":
    """The runs of a run folder, or of all in a root; see `cmtscale.report.frames.load_results`."""
    from cmtscale.report.frames import load_results as load

    return load(path)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    """What a search is asked with, whose modules need more than the arithmetic, when asked for."""
    if name == "SearchRequest":
        from cmtscale.search.request import SearchRequest

        return SearchRequest
    if name == "Ladder":
        from cmtscale.search.ladder import Ladder

        return Ladder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
