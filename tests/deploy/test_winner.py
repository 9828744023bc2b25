"""From a search's answer to trained networks: alike, resumed, recorded, and never mixed up."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cmtscale
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import (
    CmtscaleError,
    DoesNotFitError,
    RequestError,
    ResultsError,
    StoppedError,
)
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.variant import Variant
from cmtscale.deploy import winner as winner_module
from cmtscale.deploy.winner import (
    NullWinnerWatcher,
    WinnerWatcher,
    all_trained,
    train_winner,
)
from cmtscale.deploy.winner_request import (
    PreparedWinner,
    WinnerRequest,
    prepare_winner,
    requests_in,
)
from cmtscale.record.choice import answered
from cmtscale.record.folder import BEST, REQUEST, held
from cmtscale.record.metrics import read_metrics
from cmtscale.record.model_folder import find_model, read_description
from cmtscale.record.reads import readings
from cmtscale.record.winner import WinnerRecord, read_winner
from cmtscale.search.outcome import Outcome
from cmtscale.train.full import plan_full
from cmtscale.train.full_recipe import read_recipe
from cmtscale.train.named_recipe import RecipeChanges
from cmtscale.train.paper_recipe import published_recipe, with_epochs

OTHER = "timm:test_efficientnet@64"  # 0.1 M parameters
OTHER_FOLDER = "winner/timm-test_efficientnet@64"
pytestmark = pytest.mark.usefixtures("single_threaded")
Train = Callable[..., WinnerRecord]


@pytest.fixture
def folder(finished: Outcome, tmp_path: Path, tiny_base: Variant, few_images: str) -> Path:
    """A finished search whose choice and images are so small that it trains in a second."""
    copy = tmp_path / "search"
    shutil.copytree(finished.folder, copy)
    (copy / BEST).write_text(tiny_base.to_toml())
    asked = (copy / REQUEST).read_text()
    (copy / REQUEST).write_text(asked.replace('data = "digits"', f'data = "{few_images}"'))
    return copy


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two epochs of two steps."""
    path = tmp_path / "mine.toml"
    path.write_text(replace(with_epochs(published_recipe("cmt-ti"), 2), batch_size=20).to_toml())
    return path


@pytest.fixture
def prepare(recipe: Path, cache_dir: Path, few_images: str) -> Callable[..., PreparedWinner]:
    """Prepare a training; arguments are those of the request and of its changes."""

    def call(**changes: Any) -> PreparedWinner:
        sizes = {name: changes.pop(name) for name in ("epochs", "batch_size") if name in changes}
        values = {"recipe": str(recipe), "device": "cpu", "cache_dir": cache_dir, **changes}
        values["changes"] = RecipeChanges(**sizes)
        return prepare_winner(
            WinnerRequest(**values), data=few_images, split_seed=0, budget_macs=4_000_000_000
        )

    return call


@pytest.fixture
def train(folder: Path, prepare: Callable[..., PreparedWinner]) -> Train:
    """Train the choice of `folder`; arguments are those of the request."""

    def call(watcher: WinnerWatcher | None = None, **changes: Any) -> WinnerRecord:
        return train_winner(folder, prepare(**changes), watcher=watcher)

    return call


class Stopping(NullWinnerWatcher):
    """Stops the `number`th training, which begins now, at its first step."""

    def __init__(self, number: int) -> None:
        self.wanted, self.number = number, 0
        self.first_steps: list[int] = []

    def begun(self, number: int, *_: Any) -> None:
        self.number = number
        self.first_steps.append(0)

    def logged(self, line: dict[str, Any]) -> None:
        self.first_steps[-1] = self.first_steps[-1] or line["step"]
        if self.number == self.wanted:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_choice_and_those_beside_it_are_trained_alike_and_recorded(
    train: Train, folder: Path, tiny_base: Variant
) -> None:
    record = train(beside=[OTHER], test=True)
    choice, other = record.networks
    assert read_winner(folder) == record
    assert [choice.role, other.role] == ["choice", "beside"]
    assert [choice.folder, other.folder] == ["winner/tiny", OTHER_FOLDER]
    own = cost(fit_to_data(tiny_base, 2, 1))
    assert (choice.macs, choice.params) == (own.macs, own.params)
    assert (record.recipe, record.epochs, record.steps) == ("mine.toml", 2, 4)
    recipes = [read_recipe(folder / one.folder / "recipe.toml") for one in record.networks]
    assert recipes[0] == recipes[1]
    for trained in record.networks:
        description, _ = read_description(find_model(folder / trained.folder))
        assert description.network.name == trained.network
        assert description.scores.val_accuracy == trained.val_accuracy
        assert description.scores.val_loss == trained.val_loss
        assert (description.chosen_by is not None) == (trained.role == "choice")
        assert trained.latency_seconds is not None
        assert 0 < trained.latency_seconds <= trained.p95_seconds
    (reading,) = readings(folder / choice.folder)
    assert choice.test_accuracy == reading.accuracy
    assert other.test_accuracy is None
    assert readings(folder / other.folder) == []

    watcher = Stopping(0)
    assert train(watcher, beside=[OTHER], test=True) == record  # nothing is trained or timed again
    assert watcher.first_steps == [0, 0]
    assert train(test=False) == record  # what an earlier command trained, or read, is kept
    assert len(readings(folder / choice.folder)) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_stopped_training_goes_on_and_ends_as_if_it_had_not(
    train: Train, folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmtscale.train.full_loop.LOG_STEPS", 1)
    whole = train(beside=[OTHER])
    shutil.rmtree(folder / "winner")
    (folder / "winner.json").unlink()
    with pytest.raises(StoppedError, match="the same command goes on"):
        train(Stopping(number), beside=[OTHER])
    before = read_winner(folder)
    assert (before and len(before.networks)) == (None if number == 1 else 1)
    resumed = Stopping(0)
    record = train(resumed, beside=[OTHER])
    assert resumed.first_steps == ([2, 1] if number == 1 else [0, 2])
    for one, other in zip(whole.networks, record.networks, strict=True):
        assert one.val_loss == other.val_loss
        assert one.val_accuracy == other.val_accuracy
        assert other.latency_seconds is not None


def test_another_choice_is_trained_beside_the_earlier_one(
    train: Train, folder: Path, tiny_base: Variant
) -> None:
    first = train(beside=[OTHER]).choice
    steps = read_metrics(folder / first.folder)
    (folder / BEST).write_text(replace(tiny_base, name="other", stem_channels=4).to_toml())
    record = train()
    assert [(one.network, one.role) for one in record.networks] == [
        ("other", "choice"),
        ("tiny", "earlier choice"),
        ("timm:test_efficientnet", "beside"),
    ]
    assert read_metrics(folder / first.folder) == steps
    earlier = record.networks[1]
    assert earlier.val_loss == first.val_loss
    assert earlier.latency_seconds != first.latency_seconds  # measured again, in turn with the new


def test_a_folder_of_another_recipe_is_refused_before_anything_trains(
    train: Train, folder: Path, recipe: Path
) -> None:
    record = train(epochs=1)
    with pytest.raises(RequestError, match=r"winner/tiny holds another training.*epochs.*differ"):
        train(beside=[OTHER])
    assert not (folder / OTHER_FOLDER).exists()
    assert read_winner(folder) == record
    shutil.move(folder / "winner" / "tiny", folder / "winner" / "kept")
    assert [one.network for one in train().networks] == ["tiny"]  # the other is not alike
    assert read_recipe(recipe).epochs == 2


def test_a_folder_in_use_is_refused_without_options_that_search_has_not(
    train: Train, folder: Path
) -> None:
    message = "; wait for it, or copy the search to another folder, and train there$"
    for used in (folder / "winner", folder / "winner" / "tiny"):
        with (
            held(used),
            pytest.raises(ResultsError, match=rf"process is at work in {used} \(.*\){message}"),
        ):
            train()
    assert not list(folder.rglob("run.json"))


def test_what_fails_or_diverges_is_recorded_and_the_others_go_on(
    train: Train,
    prepare: Callable[..., PreparedWinner],
    folder: Path,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = winner_module.train_full

    def out_of_memory(request: Any, **more: Any) -> Any:
        if "timm" in request.folder.name:
            raise DoesNotFitError("", problem="it is large", parts=2, is_begun=False)
        return trained(request, **more)

    monkeypatch.setattr(winner_module, "train_full", out_of_memory)
    choice, other = train(beside=[OTHER], epochs=1).networks
    assert choice.latency_seconds is not None
    assert (other.status, other.val_loss, other.latency_seconds) == ("failed", None, None)
    assert other.cause == (
        "it is large; free some of it, then the same command goes on; "
        f"or move {folder}/winner away and use --winner-accumulate 2"
    )
    again = train(epochs=1)
    assert again.in_folder(other.folder) == other
    assert all_trained(again, prepare())
    assert not all_trained(again, prepare(beside=[OTHER]))
    shutil.rmtree(folder / "winner")
    recipe.write_text(replace(read_recipe(recipe), lr=1e30).to_toml())
    record = train()
    assert (record.choice.status, record.choice.val_accuracy) == ("diverged", None)
    assert record.timed is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DoesNotFitError("", problem="it is large", parts=4, is_begun=False),
            r"^it is large; use --winner-accumulate 4$",
        ),
        (
            DoesNotFitError("", problem="it is large", parts=None, is_begun=True),
            r"^it is large; free some of it, then the same command goes on; or move .*/winner/tiny "
            r"away and use a smaller --winner-batch-size$",
        ),
        (RequestError("freeze 'x' is no name"), "^freeze 'x' is no name$"),
    ],
)
def test_a_choice_that_does_not_fit_ends_the_command_with_options_of_search(
    train: Train,
    folder: Path,
    error: CmtscaleError,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Path] = []

    def too_large(request: Any, **_: Any) -> Any:
        begun.append(request.folder)
        raise error

    monkeypatch.setattr(winner_module, "train_full", too_large)
    with pytest.raises(type(error), match=message) as caught:
        train(beside=[OTHER])
    assert caught.value.exit_code == (1 if isinstance(error, DoesNotFitError) else 2)
    assert begun == [folder / "winner" / "tiny"]
    assert read_winner(folder) is None


def test_the_paper_s_recipe_is_that_of_the_budget_whatever_is_chosen(
    folder: Path, prepare: Callable[..., PreparedWinner]
) -> None:
    prepared = prepare(recipe="paper", epochs=1, batch_size=20, beside=[OTHER])
    requests = requests_in(folder, answered(folder), prepared)
    plans = [plan_full(request) for request in requests]
    assert prepared.recipe.recipe.lr == published_recipe("cmt-s").lr
    assert prepared.recipe.recipe.lr != published_recipe("cmt-ti").lr  # nearest to the choice
    assert {plan.run.alike for plan in (*prepared.plans, *plans)} == {prepared.plans[0].run.alike}
    assert plans[1].run.identity == prepared.plans[1].run.identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beside": ["timm:resnet51"]}, "timm has no network 'resnet51'; use timm:resnet51q"),
        ({"beside": ["cmt-ti@100"]}, "100 px is not a positive multiple of 32"),
        ({"beside": ["timm:vgg11"]}, "timm:vgg11 cannot be built with drop_path_rate"),
        ({"beside": ["cmt-ti", "cmt-ti@160"]}, "--beside cmt-ti is given twice"),
        ({"recipe": "nowhere.toml"}, "recipe nowhere.toml cannot be read"),
        ({"epochs": 0}, "epochs 0 is not a whole number"),
        ({"device": "tpu"}, "device 'tpu' is not one of auto, cpu"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_search(
    train: Train, folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CmtscaleError, match=message):
        train(**changes)
    assert not (folder / "winner").exists()


def test_from_python_a_search_s_folder_is_enough(
    folder: Path, recipe: Path, cache_dir: Path, few_images: str
) -> None:
    options: dict[str, Any] = {"epochs": 1, "device": "cpu", "cache_dir": cache_dir}
    record = cmtscale.train_winner(folder, recipe=str(recipe), **options)
    assert (record.data, record.tour, record.choice.network) == (few_images, True, "tiny")
    with pytest.raises(RequestError, match=r"beside 'cmt-ti' is no list; use \['cmt-ti'\]"):
        cmtscale.train_winner(folder, beside="cmt-ti", **options)
    (folder / "choice.json").unlink()
    with pytest.raises(ResultsError, match="holds no answer of a search"):
        cmtscale.train_winner(folder, **options)
    (folder / "winner.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"winner.json is damaged: .* lacks"):
        read_winner(folder)
