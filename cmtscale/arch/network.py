"""Any network that can be trained: a `Variant` of the family, or one of timm's by name."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from cmtscale.arch.errors import VariantError
from cmtscale.arch.variant import Variant, variant_from_table

TIMM = "timm:"


@dataclass(frozen=True, kw_only=True)
class TimmNetwork:
    """A network of timm: `model` is what `timm.create_model` calls it."""

    model: str
    resolution_px: int
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        # timm takes more for a name: a hub to download from, a folder to read
        if not isinstance(self.model, str) or not re.fullmatch(r"[\w.+-]+", self.model):
            raise VariantError(f"{self.model!r} is no name of a network; use e.g. {TIMM}resnet50")
        for name in ("resolution_px", "num_classes", "in_channels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise VariantError(f"{self.name}: {name} {value!r} is not a whole number from 1 on")

    @property
    def name(self) -> str:
        """`timm:resnet50`, as users write it."""
        return f"{TIMM}{self.model}"


Network = Variant | TimmNetwork
AnyNetwork = TypeVar("AnyNetwork", Variant, TimmNetwork, Variant | TimmNetwork)


def split_side(text: str) -> tuple[str, int | None]:
    """(`cmt-s`, 288) of `cmt-s@288`: what a user names, and another side in px if one is given."""
    match = re.fullmatch(r"(.+)@(\d+)", text, re.DOTALL)
    return (match[1], int(match[2])) if match else (text, None)


def fit_to_data(network: AnyNetwork, num_classes: int, channels: int) -> AnyNetwork:
    """The network with the data set's classes and channels."""
    return replace(network, num_classes=num_classes, in_channels=channels)


def network_table(network: Network) -> dict[str, Any]:
    """The network as a TOML table, which `network_from_table` reads back."""
    kind = "cmt" if isinstance(network, Variant) else "timm"
    return {"kind": kind, **asdict(network)}


def network_from_table(table: dict[str, Any], *, source: str) -> Network:
    """Read a network from a parsed TOML table; `VariantError` for one that cannot exist."""
    kind, rest = table.get("kind"), {k: value for k, value in table.items() if k != "kind"}
    if kind == "cmt":
        return variant_from_table(rest, source=source)
    if kind != "timm":
        raise VariantError(f"{source}: kind {kind!r} is neither cmt nor timm")
    names = {"model", "resolution_px", "num_classes", "in_channels"}
    if rest.keys() != names or not isinstance(rest["model"], str):
        raise VariantError(f"{source}: a timm network has {', '.join(sorted(names))}")
    return TimmNetwork(**rest)
