"""Counts by operator: published totals, the exact cost of a CMT, and nothing silently left out."""

import pytest
import torch
from torch import Tensor, nn

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CountError
from cmtscale.arch.network import TimmNetwork
from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import build
from cmtscale.model.networks import count_timm, read_network
from cmtscale.model.operators import count_operators
from cmtscale.report.frames import load_literature


def timm_network(text: str) -> TimmNetwork:
    network = read_network(text)
    assert isinstance(network, TimmNetwork)
    return network


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [  # torchvision's metadata has 4.089 and 4.394 GFLOPs; DeiT's paper 4.6 and 22 M
        ("timm:resnet50", 4_089_184_256, 25_557_032),
        ("timm:efficientnet_b4@380", 4_393_771_024, 19_341_616),
        ("timm:deit_small_patch16_224", 4_598_882_304, 22_050_664),
    ],
)
def test_known_networks_have_their_published_cost(name: str, macs: int, params: int) -> None:
    counted = count_timm(timm_network(name))
    assert counted.macs == macs
    assert counted.params == params
    assert counted.operators.uncounted == ()
    assert sum(counted.operators.kind_macs().values()) == macs


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("timm:regnety_016", "RegNetY-1.6GF"),
        ("timm:convnext_tiny", "ConvNeXt-T"),
        ("timm:swin_tiny_patch4_window7_224", "Swin-T"),
        ("timm:vit_base_patch16_224", "ViT-B/16"),
    ],
)
def test_costs_are_those_of_torchvision_where_it_has_the_network(name: str, published: str) -> None:
    table = load_literature().set_index("model")
    counted = count_timm(timm_network(name))
    assert round(counted.macs / 1e9, 3) == table.loc[published, "gflops"]
    assert counted.operators.uncounted == ()


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "levit_128s", "pit_ti_224", "lambda_resnet26t"]
)
def test_networks_with_rare_operators_are_counted_whole(name: str) -> None:
    counted = count_timm(timm_network(f"timm:{name}"))
    assert counted.macs > 0
    assert counted.operators.uncounted == ()


def test_a_cmt_costs_what_its_arithmetic_says_kind_by_kind(tiny: Variant) -> None:
    side = tiny.resolution_px
    counts = count_operators(build(tiny).eval(), torch.zeros(1, 3, side, side))
    totals = cost(tiny).totals
    kinds = {"conv": totals.conv, "linear": totals.linear, "matmul": totals.matmul}
    assert counts.kind_macs() == kinds
    assert counts.total_macs == totals.macs
    assert counts.uncounted == ()
    assert "native_layer_norm" in counts.negligible["norms"]


class WithMatmulNobodyCounts(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        return torch.cdist(rows, rows) + torch.mv(rows, rows[0])


def test_a_product_that_is_not_counted_is_named() -> None:
    counts = count_operators(WithMatmulNobodyCounts(), torch.zeros(2, 3, 8, 8))
    assert "mv" in counts.uncounted
    assert any("cdist" in name for name in counts.uncounted)
    assert "add" in counts.negligible["elementwise"]
    assert counts.total_macs == 0


def test_attention_counts_as_its_two_products() -> None:
    class Attention(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            heads = images.flatten(3)  # (B, heads, N, D)
            return nn.functional.scaled_dot_product_attention(heads, heads, heads)

    counts = count_operators(Attention(), torch.zeros(1, 2, 16, 4, device="meta"))
    assert counts.kind_macs() == {"conv": 0, "linear": 0, "matmul": 2 * 2 * 16 * 16 * 4}


def test_a_network_that_does_not_run_at_a_side_is_an_error_that_names_one() -> None:
    with pytest.raises(CountError, match=r"cannot be counted at 32 px: .*; use 299 px"):
        count_timm(timm_network("timm:inception_v3@32"))
