"""Networks as users name them: a variant of the family, or `timm:NAME` (timm's own)."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cmtscale.arch.errors import CountError, VariantError, first_line
from cmtscale.arch.network import TIMM, Network, TimmNetwork, split_side
from cmtscale.arch.variant import Variant
from cmtscale.arch.variant import variant as read_variant
from cmtscale.model.blocks import Attention
from cmtscale.model.cmt import build
from cmtscale.model.operators import OperatorCounts, count_operators


@dataclass(frozen=True, kw_only=True)
class TimmCount:
    """What a timm network costs for one image; `operators` says what `macs` are made of."""

    macs: int
    params: int
    operators: OperatorCounts


def read_network(text: str) -> Network:
    """`cmt-s`, a variant's TOML file, or `timm:resnet50`; with `@288` for another side in px.

    Raises `VariantError` for a network that does not exist.
    """
    name, side_px = split_side(text)
    if side_px is not None:
        return replace(read_network(name), resolution_px=side_px)
    return _timm_network(text[len(TIMM) :]) if text.startswith(TIMM) else read_variant(text)


def build_network(
    network: Network,
    *,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    attention: Attention = "auto",
) -> nn.Module:
    """The network with fresh weights; see `cmtscale.model.cmt.build` for CMTs.

    It lies channels-last in memory, unless it has three-dimensional convolutions. timm's networks
    take the rates as `drop_path_rate` and `drop_rate`, and their attention is their own. Raises
    `VariantError` for a rate that timm's network does not know.
    """
    if isinstance(network, Variant):
        return build(network, drop_path=drop_path, dropout=dropout, attention=attention)
    import timm

    rates = {"drop_path_rate": drop_path, "drop_rate": dropout}
    wanted: dict[str, Any] = {name: rate for name, rate in rates.items() if rate}
    if network.resolution_px != _native_px(network.model) and _has_fixed_size(network.model):
        wanted["img_size"] = network.resolution_px
    try:
        model: nn.Module = timm.create_model(
            network.model,
            num_classes=network.num_classes,
            in_chans=network.in_channels,
            **wanted,
        )
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        given = ", ".join(f"{name} {value:g}" for name, value in wanted.items())
        raise VariantError(
            f"{network.name} cannot be built with {given or 'these classes'}: {error}"
        ) from error
    if any(parameter.ndim == 5 for parameter in model.parameters()):
        return model  # of a three-dimensional convolution, which has another channels-last format
    return model.to(memory_format=torch.channels_last)


def count_timm(network: TimmNetwork) -> TimmCount:
    """MACs and parameters of a timm network at its resolution, on the meta device.

    Matrix products and convolutions count, as everywhere here, by `torch.utils.flop_counter`.
    Raises `CountError` for a network that does not run at this resolution, or not without data.
    """
    with torch.device("meta"):
        # torch's counter fails on parameters that are arguments of a module, if they want gradients
        model = build_network(network).eval().requires_grad_(False)
        side = network.resolution_px
        images = torch.zeros(1, network.in_channels, side, side)
        try:
            operators = count_operators(model, images)
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            native = _native_px(network.model)
            advice = "choose another network" if side == native else f"use {native} px"
            raise CountError(
                f"{network.name} cannot be counted at {side} px: {first_line(error)}; {advice}"
            ) from error
    params = sum(parameter.numel() for parameter in model.parameters())
    return TimmCount(macs=operators.total_macs, params=params, operators=operators)


def _timm_network(name: str) -> TimmNetwork:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        (near,) = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.0)
        raise VariantError(f"timm has no network {name!r}; use {TIMM}{near}")
    return TimmNetwork(model=name, resolution_px=_native_px(name))


def _native_px(name: str) -> int:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config else 224


def _has_fixed_size(name: str) -> bool:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)
