"""What a trained model sees in image files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmtscale.arch.errors import DataError
from cmtscale.data.folders import EXTENSIONS
from cmtscale.deploy.load import LoadedModel

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest classes of one image with their probabilities, best first.

    None of a file that cannot be read: `error` says why.
    """

    path: Path
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The given files, and of given folders all images in them; raises `DataError` for none."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give image files, or folders of them")
        if path.is_dir():
            within = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not within:
                raise DataError(f"folder {path} holds no images ({' '.join(EXTENSIONS)})")
            files += within
        else:
            files.append(path)
    return files


@torch.inference_mode()
def predict(
    loaded: LoadedModel, files: Sequence[Path], *, top: int, temperature: float = 1.0
) -> Iterator[Prediction]:
    """The `top` classes of each file, in order.

    Probabilities are those of logits / `temperature`, which calibrates them.
    """
    device = next(loaded.model.parameters()).device
    top = min(top, len(loaded.classes))
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        inputs = [_input(loaded, path) for path in part]
        images = [image for image in inputs if isinstance(image, Tensor)]
        rows: Iterator[tuple[list[float], list[int]]] = iter(())
        if images:
            logits = loaded.model(torch.stack(images).to(device)).float()
            values, indices = (logits / temperature).softmax(dim=1).topk(top)
            rows = zip(values.tolist(), indices.tolist(), strict=True)
        for path, error in zip(part, inputs, strict=True):
            if isinstance(error, str):
                yield Prediction(path=path, error=error)
                continue
            probabilities, classes = next(rows)
            yield Prediction(
                path=path,
                classes=tuple(loaded.classes[index] for index in classes),
                probabilities=tuple(probabilities),
            )


def _input(loaded: LoadedModel, path: Path) -> Tensor | str:
    try:
        return loaded.preprocess(path)
    except DataError as error:
        return str(error)
