"""A CMT that can be captured as one graph for all sizes of images."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmtscale.arch import paper
from cmtscale.model.cmt import CMT, Stage


class AnySide(nn.Module):
    """The network of `model`, in eval and with the same numbers, without a question about sizes.

    `CMT` leaves the position bias alone at its own side and resizes it at others, so that a graph
    of it holds for one of the two. Here the bias is always resized, which at its own side gives the
    same numbers back. The stem's first convolution is padded by hand, and only where it reads, so
    that its size is exactly half the input's, not the floor of a fraction that grows with every
    layer.
    """

    def __init__(self, model: CMT) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        self.stem, self.stages, self.head = model.stem, model.stages, model.head
        first = self.stem[0]
        assert isinstance(first, nn.Conv2d)
        assert (first.kernel_size, first.stride, first.padding) == ((3, 3), (2, 2), (1, 1))
        first.padding = (0, 0)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), H and W multiples of 32 → logits (B, classes)."""
        # from the input, so that a graph refuses other sides, but for up to 3 px at an edge
        coarsest = paper.STAGE_STRIDES[-1]
        rows, columns = (side // coarsest for side in images.shape[2:])
        finer = [coarsest // stride for stride in paper.STAGE_STRIDES]
        grids = [(factor * rows, factor * columns) for factor in finer]
        images = images.contiguous(memory_format=torch.channels_last)
        maps = self.stem(F.pad(images, (1, 0, 1, 0)))
        for stage, (height, width) in zip(self.stages, grids, strict=True):
            assert isinstance(stage, Stage)
            maps = stage.patch_embedding(maps)
            bias = stage.resize_bias(height, width)
            for block in stage.blocks:
                maps = block(maps, bias)
        logits: Tensor = self.head(maps)
        return logits
