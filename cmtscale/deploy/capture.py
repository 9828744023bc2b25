"""A trained network as a graph, by `torch.export`: what ONNX and .pt2 files are made from."""

import copy
import itertools

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from cmtscale.arch.errors import ExportError, first_line
from cmtscale.deploy.any_side import AnySide
from cmtscale.deploy.sides import Sides
from cmtscale.model.cmt import CMT

BATCH = 2  # of the images that are traced; 1 would be taken for a constant
BATCHES = (1, 2, 3, 4, 5, 8)  # for which conditions of the graph must hold
LOCATIONS = ("stack_trace", "source_fn_stack")  # of code on this machine, in the graph's nodes


def capture(model: nn.Module, *, channels: int, sides: Sides) -> tuple[ExportedProgram, Sides]:
    """The graph of `model` (in eval, on the CPU) for any batch, and the sides that it takes.

    Those are `sides`, or, where no one graph holds for all, the network's own. Raises
    `ExportError` for a network that is no graph.
    """
    if not sides.fixed_because:
        try:
            free = AnySide(model) if isinstance(model, CMT) else model
            return _trace(free, channels, sides), sides
        except Exception as error:  # torch raises whatever the network leads it to
            sides = sides.fixed(f"no one graph holds for others: {first_line(error)}")
    try:
        return _trace(model, channels, sides), sides
    except Exception as error:
        raise ExportError(
            f"the network cannot be captured as one graph: {first_line(error)}; "
            f"use --format safetensors"
        ) from error


def _trace(model: nn.Module, channels: int, sides: Sides) -> ExportedProgram:
    # a channels-last weight is one that torch.export.save takes for part of a larger one
    network = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    height, width = sides.tried[-1]
    dims: dict[int, Dim] = {0: Dim("batch", min=1)}
    if not sides.fixed_because:
        least = sides.least_px // sides.step_px
        dims[2] = sides.step_px * Dim("rows", min=least)
        dims[3] = sides.step_px * Dim("columns", min=least)
    images = torch.zeros(BATCH, channels, height, width)
    program = torch.export.export(network, (images,), dynamic_shapes=(dims,), strict=False)
    for node in program.graph.nodes:
        for name in LOCATIONS:
            node.meta.pop(name, None)
    _require_unconditional(program, channels, sides)
    return program


def _require_unconditional(program: ExportedProgram, channels: int, sides: Sides) -> None:
    """Raise `ExportError` for a condition that a legal input does not meet.

    While tracing, torch notes what the network asked of its input. A `.pt2` file checks it again;
    an ONNX file would answer wrongly. Versions of torch without these notes raise by themselves.
    """
    conditions = getattr(program.module(), "_guards_fn", None)
    if conditions is None:
        return
    own, step, least = sides.own_px, sides.step_px, sides.least_px
    tried = [own] if sides.fixed_because else [least, least + step, *sides.other, 2 * own, 4 * own]
    for batch, height, width in itertools.product(BATCHES, tried, tried):
        try:
            conditions(torch.empty(batch, channels, height, width, device="meta"))
        except AssertionError as error:
            raise ExportError(first_line(error)) from error
