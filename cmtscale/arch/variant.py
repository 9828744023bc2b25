"""What a CMT architecture is: `Stage`, `Variant`, the four published ones, TOML in and out."""

import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from cmtscale.arch import paper
from cmtscale.arch.errors import VariantError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the four stages.

    `dim` channels, `depth` blocks, `heads` attention heads, `reduction` the K/V reduction ratio k,
    `expansion` the FFN expansion ratio R; the FFN's hidden width is int(dim * expansion).
    """

    dim: int
    depth: int
    heads: int
    reduction: int
    expansion: float

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "reduction"):
            _require_positive_int(name, getattr(self, name))
        if self.dim % self.heads:
            raise VariantError(
                f"dim {self.dim} is not divisible by {self.heads} heads; "
                f"use {nearest_multiple(self.dim, self.heads)}"
            )
        if isinstance(self.expansion, bool) or not isinstance(self.expansion, int | float):
            raise VariantError(f"expansion {self.expansion!r} is not a number; use 4.0")
        if not 0 < self.expansion < 1e3 or self.hidden < 1:
            raise VariantError(
                f"expansion {self.expansion} gives dim {self.dim} no FFN width between 1 and "
                f"{1000 * self.dim}; use a ratio such as 4.0"
            )

    @property
    def hidden(self) -> int:
        """Width of the FFN, truncated as in the published code."""
        return int(self.dim * self.expansion)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One architecture of the family, complete: what `build` builds and `cost` counts.

    `resolution_px` is the side of the square input for which the position bias is laid out.
    Raises `VariantError` if the architecture cannot exist.
    """

    name: str
    resolution_px: int
    stem_channels: int
    stages: tuple[Stage, Stage, Stage, Stage]
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.+-]+", self.name):
            raise VariantError(
                f"name {self.name!r} is not a plain word; use letters, digits and . _ + -"
            )
        for name in ("resolution_px", "stem_channels", "num_classes", "in_channels"):
            _require_positive_int(name, getattr(self, name))
        require_resolution(self.resolution_px)
        object.__setattr__(self, "stages", tuple(self.stages))
        if not all(isinstance(stage, Stage) for stage in self.stages):
            raise VariantError(f"{self.name} has stages that are no Stage; build each with Stage")
        if len(self.stages) != len(paper.STAGE_STRIDES):
            raise VariantError(
                f"{self.name} has {len(self.stages)} stages; a CMT has {len(paper.STAGE_STRIDES)}"
            )
        for number, (stage, stride) in enumerate(
            zip(self.stages, paper.STAGE_STRIDES, strict=True), start=1
        ):
            grid = self.resolution_px // stride
            if stage.reduction > grid:
                raise VariantError(
                    f"stage {number}: reduction {stage.reduction} is larger than its "
                    f"{grid}x{grid} grid at {self.resolution_px} px; use {grid} or less"
                )

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(stage.dim for stage in self.stages)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of the four stages."""
        return tuple(stage.depth for stage in self.stages)

    @property
    def least_resolution_px(self) -> int:
        """The smallest legal side in px: each stage's grid must hold one reduced key."""
        coarsest = paper.STAGE_STRIDES[-1]
        return max(
            -(-stage.reduction * stride // coarsest) * coarsest
            for stage, stride in zip(self.stages, paper.STAGE_STRIDES, strict=True)
        )

    def to_toml(self) -> str:
        """The variant as TOML; `variant_from_toml` gives back an equal one."""
        return tomli_w.dumps(asdict(self))

    def same_network(self, other: "Variant") -> bool:
        """Whether both are the same architecture, whatever they are called."""
        return replace(self, name=other.name) == other


def variant_from_toml(text: str, *, source: str = "TOML") -> Variant:
    """Read a `Variant` from TOML text; `source` names it in errors.

    Raises `VariantError` for broken TOML, missing or unknown keys and illegal values.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise VariantError(f"{source} is not valid TOML: {error}") from error
    return variant_from_table(table, source=source)


def variant_from_table(table: dict[str, Any], *, source: str) -> Variant:
    """Read a `Variant` from a parsed TOML table; errors as in `variant_from_toml`."""
    if not isinstance(table, dict):
        raise VariantError(f"{source} is no table; a variant is one")
    stages = table.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise VariantError(f"{source} has no [[stages]] tables; write four of them")
    _require_keys(table, Variant, optional={"num_classes", "in_channels"}, source=source)
    for number, stage in enumerate(stages, start=1):
        _require_keys(stage, Stage, optional=set(), source=f"{source}, stage {number}")
    try:
        return Variant(**{**table, "stages": tuple(Stage(**stage) for stage in stages)})
    except VariantError as error:
        raise VariantError(f"{source}: {error}") from error


def variant(name_or_path: str | Path) -> Variant:
    """A published variant by name (`cmt-s`; `CMT_S` is accepted too) or a variant from a TOML file.

    Raises `VariantError` if there is neither.
    """
    row = paper.VARIANTS.get(str(name_or_path).lower().replace("_", "-"))
    if row is None:
        return _read_variant(Path(name_or_path))
    return Variant(
        name=str(name_or_path).lower().replace("_", "-"),
        resolution_px=row.resolution_px,
        stem_channels=row.stem_channels,
        stages=_four(
            Stage(dim=dim, depth=depth, heads=heads, reduction=reduction, expansion=row.expansion)
            for dim, depth, heads, reduction in zip(
                row.dims, row.depths, paper.HEADS, paper.REDUCTIONS, strict=True
            )
        ),
    )


def published_variants() -> tuple[Variant, ...]:
    """The four variants of Table 1, smallest first."""
    return tuple(variant(name) for name in paper.VARIANTS)


def network_name(network: Variant) -> str:
    """`d3.3.12.3-w52-r160`: blocks of each stage, first dim, side in px.

    For people, and to tell networks grown from one base apart; nothing reads it back.
    """
    depths = ".".join(map(str, network.depths))
    return f"d{depths}-w{network.dims[0]}-r{network.resolution_px}"


def require_resolution(resolution_px: int) -> None:
    """Raise `VariantError` unless the side is a positive multiple of the coarsest stride, 32."""
    stride = paper.STAGE_STRIDES[-1]
    if resolution_px < stride or resolution_px % stride:
        raise VariantError(
            f"resolution {resolution_px} px is not a positive multiple of {stride}; "
            f"use {nearest_multiple(resolution_px, stride)}"
        )


def nearest_multiple(value: float, multiple: int) -> int:
    """The positive multiple nearest to `value`; halves go up."""
    return max(multiple, int(value / multiple + 0.5) * multiple)


def _four(stages: Any) -> tuple[Stage, Stage, Stage, Stage]:
    first, second, third, fourth = stages
    return first, second, third, fourth


def _read_variant(path: Path) -> Variant:
    names = ", ".join(paper.VARIANTS)
    if path.is_dir() or not (path.exists() or path.suffix == ".toml"):
        raise VariantError(f"variant {str(path)!r} is not one of {names}, nor a TOML file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise VariantError(f"variant file {path} cannot be read: {reason}") from error
    return variant_from_toml(text, source=str(path))


def _require_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise VariantError(f"{name} {value!r} is not a positive whole number; use 1 or more")


def _require_keys(table: dict[str, Any], cls: type, *, optional: set[str], source: str) -> None:
    names = {field.name for field in fields(cls)}
    if missing := sorted(names - optional - table.keys()):
        raise VariantError(f"{source} lacks {', '.join(missing)}; add it")
    if unknown := sorted(table.keys() - names):
        raise VariantError(
            f"{source} has unknown {', '.join(unknown)}; a {cls.__name__.lower()} has "
            f"{', '.join(sorted(names))}"
        )
