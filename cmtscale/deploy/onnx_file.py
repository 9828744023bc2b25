"""ONNX files: made from a captured network, and run by onnxruntime."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cmtscale.arch.errors import ExportError, RequestError, first_line
from cmtscale.deploy.about import INPUT, KEY, OUTPUT
from cmtscale.deploy.compare import Run

OPSET = 18  # what torch's exporter writes without converting it
LARGEST_BYTES = 2**31 - 1  # of a protobuf message
ROOM_BYTES = 2**24  # for the graph beside its weights
# what torch and onnxscript log on converting to another opset, whose outcome is looked at instead
LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def require_onnx(opset: int) -> None:
    """Raise `RequestError` unless the libraries are there and know the opset."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"{error.name or error} is missing for ONNX; pip install 'cmtscale[export]'"
        ) from error
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise RequestError(
            f"opset {opset} is not one that onnx {onnx.__version__} knows, 1 to {newest}; "
            f"use --opset {OPSET}"
        )


def require_room(weight_bytes: int) -> None:
    """Raise `ExportError` for weights that do not fit one ONNX file."""
    if weight_bytes + ROOM_BYTES > LARGEST_BYTES:
        raise ExportError(
            f"weights of {weight_bytes / 1e9:.1f} GB do not fit one ONNX file, which holds 2 GB; "
            f"use --format torch-export"
        )


def to_onnx(program: ExportedProgram, *, about: str, opset: int) -> bytes:
    """The file's content; `about`, JSON, stands in its metadata under "cmtscale".

    Raises `ExportError` for an operator that ONNX lacks and for an opset that cannot hold the
    network.
    """
    import onnx

    with _quiet():
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
                external_data=False,
            )
            assert exported is not None
            model = exported.model_proto
        except Exception as error:  # the exporter passes on what its translations raise
            raise ExportError(
                f"the network cannot be written in ONNX opset {opset}: {_cause(error)}; "
                f"use another --opset or --format torch-export"
            ) from error
    written = {imported.domain: imported.version for imported in model.opset_import}
    if written.get("") != opset:
        raise ExportError(
            f"the network cannot be written in ONNX opset {opset}, only in {written.get('')}; "
            f"use --opset {written.get('')}"
        )
    _tidy(model)
    onnx.helper.set_model_props(model, {KEY: about})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"the network in ONNX opset {opset} is not legal: {first_line(error)}; "
            f"use --opset {OPSET}"
        ) from error
    content: bytes = model.SerializeToString()
    return content


def open_session(content: bytes, *, threads: int) -> Any:
    """An onnxruntime session on the CPU; raises `ExportError` where it cannot run the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class of its own for each status of the C++ library
        raise _cannot_run(error) from error


def run_onnx(content: bytes) -> Run:
    """What onnxruntime answers on the CPU; raises `ExportError` where it cannot run the file."""
    session = open_session(content, threads=torch.get_num_threads())

    def run(images: Tensor) -> Tensor:
        try:
            (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        except Exception as error:
            raise _cannot_run(error) from error
        return torch.from_numpy(logits)

    return run


def _cannot_run(error: Exception) -> ExportError:
    return ExportError(
        f"onnxruntime {metadata.version('onnxruntime')} does not run the exported network: "
        f"{first_line(error)}; use --opset {OPSET}"
    )


def _tidy(model: Any) -> None:
    """Name what is free in shapes, and drop where on this machine the code of each node stands."""
    images, logits = model.graph.input[0], model.graph.output[0]
    for value, names in ((images, ("batch", "", "height", "width")), (logits, ("batch", ""))):
        for size, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if size.dim_param:
                size.dim_param = name
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and its converter log."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _cause(error: BaseException) -> str:
    """What was raised first, which names the operator; the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error).partition(". Failure message")[0]
