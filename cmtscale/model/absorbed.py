"""The IRFFN's training pass, its two wide BatchNorms absorbed into the convolutions behind them.

BatchNorm is g → a·g + c per channel, with a = γ/σ, c = β - μ·a. The convolution that reads it can
carry a in its weights and c in its bias, so the normalised map, the largest of a block, is never
written or kept; its gradient falls out of the weight gradient, so it is never reduced over either.
On a CPU these passes over memory cost as much as the matrix products. The numbers are those of the
plain layers up to rounding; a test holds outputs, gradients and running statistics against them.

Shapes: maps (B, C, H, W) channels-last, `hidden` channels inside; rows are (B·H·W, C).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Matrix products with a width such as 165 run up to 2.5 times slower than with 176.
ALIGNMENT = 16

Grads = tuple[Tensor | None, ...]


class Running(NamedTuple):
    """The running statistics of one BatchNorm, aligned, and how they move."""

    mean: Tensor
    var: Tensor
    momentum: float
    eps: float

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "Running":
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        return cls(aligned(norm.running_mean), aligned(norm.running_var), norm.momentum, norm.eps)

    def store(self, norm: nn.BatchNorm2d) -> None:
        """Put the updated statistics back where `aligned` had to copy them."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        if self.mean is not norm.running_mean:
            norm.running_mean.copy_(self.mean[: norm.num_features])
            norm.running_var.copy_(self.var[: norm.num_features])


class AbsorbedIRFFN(torch.autograd.Function):
    """Conv1x1, GELU, BN, DWConv3x3, GELU, BN, Conv1x1; `kernel` holds the shortcut."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        w1: Tensor,
        b1: Tensor,
        gamma1: Tensor,
        beta1: Tensor,
        kernel: Tensor,
        bias: Tensor,
        gamma2: Tensor,
        beta2: Tensor,
        w2: Tensor,
        b2: Tensor,
        running1: Running,
        running2: Running,
    ) -> Tensor:
        pre1 = F.conv2d(maps, w1, b1)
        out1 = F.gelu(pre1)
        mean1, rstd1, a1, c1 = _statistics(out1, gamma1, beta1, running1)
        pre2 = _depthwise(out1, kernel * a1.view(-1, 1, 1, 1), None)
        offset = torch.addmm(bias, _taps_inside(maps).t(), kernel.flatten(1).t() * c1)  # (H·W, h)
        pre2.add_(offset.view(1, *maps.shape[2:], -1).movedim(3, 1))
        out2 = F.gelu(pre2)
        mean2, rstd2, a2, c2 = _statistics(out2, gamma2, beta2, running2)
        ctx.save_for_backward(
            *(maps, w1, pre1, out1, gamma1, mean1, rstd1, a1, c1, kernel),
            *(pre2, out2, gamma2, mean2, rstd2, a2, c2, w2),
        )
        return F.conv2d(out2, w2 * a2.view(-1, 1, 1), torch.addmv(b2, w2.flatten(1), c2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        saved = ctx.saved_tensors  # once: checkpointing computes them again at each look
        maps, w1, pre1, out1, gamma1, mean1, rstd1, a1, c1, kernel = saved[:10]
        pre2, out2, gamma2, mean2, rstd2, a2, c2, w2 = saved[10:]

        grad = grad.contiguous(memory_format=torch.channels_last)
        d_b2 = _rows(grad).sum(0)
        d_scaled = _weight_grad(grad, out2, w2).flatten(1)  # of w2 · a2
        matrix = w2.flatten(1)
        d_gamma2, d_beta2, slope, shift = _norm_grads(
            (matrix * d_scaled).sum(0), d_b2 @ matrix, gamma2, mean2, rstd2, len(_rows(grad))
        )
        d_w2 = torch.addr(d_scaled * a2, d_b2, c2).view_as(w2)
        d_hidden = F.conv2d(grad, (w2 * a2.view(-1, 1, 1)).transpose(0, 1), shift)
        d_hidden.addcmul_(out2, slope.view(-1, 1, 1))
        torch.ops.aten.gelu_backward.grad_input(d_hidden, pre2, grad_input=d_hidden)

        d_offset = _sequence(d_hidden).flatten(1).sum(0).view(-1, len(kernel))
        d_taps = (_taps_inside(maps) @ d_offset).t().view_as(kernel)  # of kernel, as c1 passes it
        d_scaled = _weight_grad(d_hidden, out1, kernel, groups=len(kernel))  # of kernel · a1
        d_gamma1, d_beta1, slope, shift = _norm_grads(
            (kernel * d_scaled).flatten(1).sum(1),
            (kernel * d_taps).flatten(1).sum(1),
            *(gamma1, mean1, rstd1, len(_rows(grad))),
        )
        d_kernel = d_scaled * a1.view(-1, 1, 1, 1) + d_taps * c1.view(-1, 1, 1, 1)
        mirrored = kernel.flip(2, 3) * a1.view(-1, 1, 1, 1)
        d_hidden = _depthwise(d_hidden, mirrored, shift).addcmul_(out1, slope.view(-1, 1, 1))
        torch.ops.aten.gelu_backward.grad_input(d_hidden, pre1, grad_input=d_hidden)

        # As if the convolution went from wide to narrow: up to 1.8 times as fast as a product.
        d_w1 = _weight_grad(maps, d_hidden, w1.transpose(0, 1)).transpose(0, 1)
        d_maps = F.conv2d(d_hidden, w1.transpose(0, 1))
        return (
            *(d_maps, d_w1, _rows(d_hidden).sum(0), d_gamma1, d_beta1, d_kernel),
            *(d_taps[:, 0, 1, 1], d_gamma2, d_beta2, d_w2, d_b2, None, None),
        )


def aligned(parameter: Tensor, *, dim: int = 0) -> Tensor:
    """`parameter` with zero channels appended along `dim`, to a multiple of `ALIGNMENT`."""
    missing = -parameter.shape[dim] % ALIGNMENT
    if not missing:
        return parameter
    return F.pad(parameter, [0, 0] * (parameter.ndim - 1 - dim) + [0, missing])


def _statistics(
    maps: Tensor, gamma: Tensor, beta: Tensor, running: Running
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, 1/σ, and the affine map (a, c) that BatchNorm is; updates the running statistics."""
    mean, var = torch.batch_norm_update_stats(maps, running.mean, running.var, running.momentum)
    rstd = (var + running.eps).rsqrt()
    a = gamma * rstd
    return mean, rstd, a, beta - mean * a


def _norm_grads(
    d_a: Tensor, d_c: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of γ and β; slope and shift: the statistics add slope·g + shift to g's own."""
    d_a = d_a - mean * d_c
    slope = -d_a * gamma * rstd**3 / count
    shift = -gamma * rstd * d_c / count - slope * mean
    return d_a * rstd, d_c, slope, shift


def _depthwise(maps: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(maps, kernel, bias, padding=1, groups=len(kernel))


def _weight_grad(grad: Tensor, maps: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """Gradient of `kernel`, whose convolution read `maps` and kept their size."""
    padding = [kernel.shape[2] // 2] * 2
    wanted = [False, True, False]
    grads = torch.ops.aten.convolution_backward(
        grad, maps, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], groups, wanted
    )
    result: Tensor = grads[1]
    return result


def _taps_inside(maps: Tensor) -> Tensor:
    """(9, H·W): 1 where a tap of a 3x3 kernel reads the map, 0 where it reads the padding.

    Zero padding follows the BatchNorm, so fewer taps carry c at the border than inside.
    """
    return F.unfold(maps.new_ones(1, 1, *maps.shape[2:]), 3, padding=1)[0]


def _sequence(maps: Tensor) -> Tensor:
    return maps.movedim(1, 3).flatten(1, 2)


def _rows(maps: Tensor) -> Tensor:
    return _sequence(maps).flatten(0, 1)
