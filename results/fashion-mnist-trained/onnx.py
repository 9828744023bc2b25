"""Does the exported model say the same of real images? Of all validation images of Fashion-MNIST.

cmtscale export results/fashion-mnist-trained/model --format onnx --out model.onnx
python results/fashion-mnist-trained/onnx.py model.onnx
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import cmtscale
from cmtscale.data.cache import default_cache_dir
from cmtscale.data.sources import open_source

BATCH = 250


def main(path: str) -> None:
    torch.set_num_threads(1)
    model, preprocess, _ = cmtscale.load_model(Path(__file__).parent / "model")
    images = open_source("fashion-mnist", cache_dir=default_cache_dir()).stream()
    indices = images.splits.val
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    same, furthest, largest, right = 0, 0.0, 0.0, 0
    for part in np.split(indices, len(indices) // BATCH):
        batch = torch.stack([preprocess(images.images.open(int(index))) for index in part])
        with torch.inference_mode():
            expected = model(batch).numpy()
        (logits,) = session.run(["logits"], {"images": batch.numpy()})
        same += int((logits.argmax(1) == expected.argmax(1)).sum())
        right += int((logits.argmax(1) == images.labels[part]).sum())
        furthest = max(furthest, float(np.abs(logits - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    print(f"same class for {same:,} of {len(indices):,} images, {right:,} of them right; logits")
    print(f"differ by at most {furthest:.1e}, where the largest is {largest:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
