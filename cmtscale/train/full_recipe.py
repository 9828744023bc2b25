"""What a full training is: every value of it, checked, as plain data, in TOML and back."""

import difflib
import math
import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

import tomli_w

from cmtscale.arch import paper
from cmtscale.arch.errors import RequestError
from cmtscale.train.recipe import Attention, require_count, require_number

Precision = Literal["auto", "fp32", "bf16", "fp16"]
NO_TEXT = "none"  # TOML has no null
# They change no weight; what `accumulate` changes, `FullRun` says.
SYSTEM_FIELDS = ("checkpoint_seconds", "validation_epochs", "accumulate")


@dataclass(frozen=True, kw_only=True)
class FullRecipe:
    """A training to full accuracy: AdamW, cosine schedule, DeiT's augmentation, averaged weights.

    Raises `RequestError` for values that cannot train.
    """

    epochs: int
    batch_size: int  # images of an optimizer step, over all processes
    accumulate: int = 1  # parts that each process sees a step's images in
    lr: float  # peak, for a batch of `reference_batch`; scaled in proportion to the batch
    reference_batch: int = paper.LR_BATCH
    warmup_epochs: float
    warmup_lr: float  # that the warm-up begins with; not scaled
    min_lr: float  # that the cosine ends with; not scaled
    weight_decay: float  # on tensors of two or more dimensions
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float | None = None
    layer_decay: float | None = None  # factor of the learning rate from a layer to the one below
    drop_path: float
    dropout: float
    label_smoothing: float = paper.LABEL_SMOOTHING
    mixup: float = paper.MIXUP  # alpha of the beta distribution; 0: none
    cutmix: float = paper.CUTMIX
    mix_probability: float = 1.0  # of a batch
    rand_augment: str | None = paper.RAND_AUGMENT  # timm's notation
    colour_jitter: float = paper.COLOUR_JITTER  # only without `rand_augment`, as in timm
    random_erasing: float = paper.RANDOM_ERASING  # probability
    repeats: int = paper.REPEATS  # of an image in an epoch, which then sees fewer of them
    smallest_crop: float = 0.08  # random-resized crop: least part of the area; 1: the whole image
    flip: bool = True  # where the data set allows it
    ema_decay: float | None = None
    crop_fraction: float = paper.CROP_FRACTION  # evaluation: part of the centre square's side
    sync_batch_norm: bool = False  # statistics over all GPUs
    precision: Precision = "auto"  # auto: bf16 on CUDA, else fp32
    attention: Attention = "auto"  # of CMTs; see model/blocks.py
    validation_epochs: int = 1  # between validations
    checkpoint_seconds: float = 600.0  # between checkpoints within an epoch

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "reference_batch", "repeats")
        for name in (*counts, "validation_epochs"):
            require_count(name, getattr(self, name))
        for name in ("lr", "checkpoint_seconds"):
            require_number(name, getattr(self, name), 1e-12, math.inf, "use a number above 0")
        for name in ("warmup_epochs", "warmup_lr", "min_lr", "weight_decay", "mixup", "cutmix"):
            require_number(name, getattr(self, name), 0, 1e6, "use 0 or more")
        for name in ("beta1", "beta2", "drop_path", "dropout", "label_smoothing"):
            require_number(
                name, getattr(self, name), 0, 0.99999, "use a fraction from 0 to below 1"
            )
        for name in ("mix_probability", "random_erasing", "colour_jitter"):
            require_number(name, getattr(self, name), 0, 1, "use a fraction from 0 to 1")
        for name in ("smallest_crop", "crop_fraction"):
            require_number(name, getattr(self, name), 0.001, 1, "use a fraction above 0, up to 1")
        for name, high in (("clip_norm", math.inf), ("layer_decay", 1.0), ("ema_decay", 0.999999)):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), 1e-12, high, "leave it away for none")
        for name in ("flip", "sync_batch_norm"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} {getattr(self, name)!r} is neither true nor false")
        for name, allowed in (("precision", Precision), ("attention", Attention)):
            if getattr(self, name) not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise RequestError(f"{name} {getattr(self, name)!r} is not one of {choices}")
        if self.warmup_epochs >= self.epochs:
            raise RequestError(
                f"warmup_epochs {self.warmup_epochs:g} leave nothing of {self.epochs} epochs; "
                "use fewer"
            )
        if self.accumulate > self.batch_size:
            raise RequestError(
                f"accumulate {self.accumulate} parts a batch of {self.batch_size} images; use less"
            )
        _require_rand_augment(self.rand_augment)

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed, by mixup or CutMix."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def precision_on(self, device_type: str) -> Literal["fp32", "bf16", "fp16"]:
        """What `precision` means on a device of this type ("cpu", "cuda", "mps")."""
        if self.precision == "fp16" and device_type != "cuda":
            raise RequestError("precision fp16 needs a CUDA device; use fp32 or bf16")
        if self.precision == "auto":
            return "bf16" if device_type == "cuda" else "fp32"
        return self.precision

    def peak_lr(self, batch_images: int) -> float:
        """The peak learning rate for optimizer steps of so many images."""
        return self.lr * batch_images / self.reference_batch

    def to_toml(self) -> str:
        """The recipe as TOML, every value of it; `read_recipe` gives back an equal one."""
        return tomli_w.dumps(recipe_table(self))


def recipe_table(recipe: FullRecipe) -> dict[str, Any]:
    """Every value, for TOML: None is "none"."""
    return {name: NO_TEXT if value is None else value for name, value in asdict(recipe).items()}


def read_recipe(path: Path) -> FullRecipe:
    """The recipe in a TOML file; raises `RequestError` for one that is not complete and right."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"recipe {path} is not valid TOML: {error}") from error
    known = {field.name: field for field in fields(FullRecipe)}
    for name in sorted(table.keys() - known.keys()):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise RequestError(f"recipe {path} has unknown {name!r}; did you mean {near[0]!r}?")
    needed = [name for name, field in known.items() if field.default is MISSING]
    if missing := [name for name in needed if name not in table]:
        raise RequestError(
            f"recipe {path} lacks {', '.join(missing)}; OUT/recipe.toml of a training is complete"
        )
    optional = [name for name, field in known.items() if NoneType in get_args(field.type)]
    values: dict[str, Any] = {
        name: None if value == NO_TEXT and name in optional else value
        for name, value in table.items()
    }
    try:
        return FullRecipe(**values)
    except RequestError as error:
        raise RequestError(f"recipe {path}: {error}") from error


def _require_rand_augment(text: object) -> None:
    """Raise `RequestError` unless `text` is None or RandAugment in timm's notation."""
    part = r"(m\d+|n\d+|p\d*\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01])"
    if text is not None and not (isinstance(text, str) and re.fullmatch(rf"rand(-{part})*", text)):
        raise RequestError(
            f"rand_augment {text!r} is not timm's notation; use {paper.RAND_AUGMENT!r} or 'none'"
        )
