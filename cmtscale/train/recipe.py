"""What a training is: the recipe and one run, as plain data without torch."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import DataRef
from cmtscale.record.identity import identity, network_fields

Attention = Literal["auto", "explicit", "sdpa"]
LARGEST_SEED = 2**31 - 1  # what every generator in use takes
ESTIMATION_IMAGES = 1536  # that BatchNorm statistics are estimated from anew before each score

# Flip and shift slow learning down where an image is seen a few times, and pay where it is seen
# more often (`results/augmentation`).
AUGMENTED_EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A short training with its own full schedule: warm-up, then linear decay to zero.

    Linear decay to zero stands in for weight averaging in a short run; mixup, RandAugment and drop
    path only pay in long ones. Raises `RequestError` for values that cannot train.
    """

    epochs: int = 10
    train_images: int | None = None  # a fixed stratified part of the training split; None: all
    batch_size: int = 32  # in short trainings steps count: `results/short-trainings`
    lr: float = 2e-3  # of vectors, and of hidden matrices at `reference_dim`
    reference_dim: int = 16  # dim 1 at which hidden matrices train at `lr`; see train/optimizer.py
    warmup_fraction: float = 0.1
    weight_decay: float = 0.05  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.98
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    flip: bool = True  # where the data set allows it
    shift_fraction: float = 0.05  # of the side, each way
    drop_path: float = 0.0
    dropout: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, else fp32
    attention: Attention = "auto"  # auto: by device; see model/blocks.py

    def augmented(self, augment: bool | None = None) -> "Recipe":
        """With flip and shift, or without; None: with, if an image is seen often enough."""
        if augment is None:
            augment = self.epochs >= AUGMENTED_EPOCHS
        return replace(self, flip=augment, shift_fraction=Recipe.shift_fraction if augment else 0.0)

    def precision_on(self, device_type: str) -> Literal["fp32", "bf16"]:
        """What `precision` means on a device of this type ("cpu", "cuda", "mps")."""
        if self.precision == "auto":
            return "bf16" if device_type == "cuda" else "fp32"
        return self.precision

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "reference_dim"):
            require_count(name, getattr(self, name))
        if self.train_images is not None:
            require_count("train_images", self.train_images)
        require_number("lr", self.lr, 1e-12, 100, "use e.g. 0.002")
        require_number("weight_decay", self.weight_decay, 0, 100, "use e.g. 0.05")
        require_number("clip_norm", self.clip_norm, 1e-12, math.inf, "use e.g. 1.0")
        for name in (
            "warmup_fraction",
            "label_smoothing",
            "drop_path",
            "dropout",
            "beta1",
            "beta2",
        ):
            require_number(name, getattr(self, name), 0, 0.9999, "use a fraction from 0 to below 1")
        require_number("shift_fraction", self.shift_fraction, 0, 0.5, "use a fraction up to 0.5")
        if not isinstance(self.flip, bool):
            raise RequestError(f"flip {self.flip!r} is neither true nor false; use one of them")
        if self.attention not in get_args(Attention):
            raise RequestError(
                f"attention {self.attention!r} is not one of auto, explicit, sdpa; use auto"
            )
        if self.precision not in ("auto", "fp32", "bf16"):
            raise RequestError(
                f"precision {self.precision!r} is not one of auto, fp32, bf16; use auto"
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a pure function's arguments. It knows no study, storage or siblings."""

    run_id: str
    variant: Variant
    recipe: Recipe
    seed: int
    data: DataRef

    @property
    def identity(self) -> str:
        """A hash of what decides the result; see `run_fields`."""
        return identity(self.identity_fields())

    def identity_fields(self) -> dict[str, Any]:
        """What `identity` covers."""
        return run_fields(self.variant, self.recipe, self.data.content_hash, self.seed)


def run_fields(variant: Variant, recipe: Recipe, data_hash: str, seed: int) -> dict[str, Any]:
    """What decides a run's result: network, recipe, images and splits (by their hash), and seed.

    Neither names nor where the images and the cache lie.
    """
    described = asdict(recipe)
    described["train_images"] = recipe.train_images or 0  # schema 1 writes all of them as 0
    return {
        "network": network_fields(variant),
        "recipe": described,
        "data": data_hash,
        "seed": seed,
    }


def require_number(name: str, value: object, low: float, high: float, advice: str) -> None:
    """Raise `RequestError` unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} {value!r} is out of range; {advice}")


def require_count(name: str, value: object) -> None:
    """Raise `RequestError` unless `value` is a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{name} {value!r} is not a whole number from 1 on; use 1 or more")


def require_seed(name: str, value: object) -> None:
    """Raise `RequestError` unless `value` is a seed that every generator takes."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
        raise RequestError(f"{name} {value!r} is not a seed; use 0 to {LARGEST_SEED}")
