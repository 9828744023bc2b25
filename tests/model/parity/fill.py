"""The weights and images behind the records beside this file.

NumPy's legacy generator never changes, and each tensor is seeded by its name: implementations that
agree on names and shapes hold the same numbers without a checkpoint.
"""

import zlib

import numpy as np


def fill_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values (float64) of the tensor that the authors' code calls `name`."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if name.startswith("relative_pos"):
        return 0.5 * draw(shape)
    if name.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(draw(shape))
    if len(shape) == 1:  # biases, norm scales and shifts, running means
        is_norm_scale = name.endswith("weight")
        return (1.0 if is_norm_scale else 0.0) + 0.1 * draw(shape)
    return draw(shape) / np.sqrt(np.prod(shape[1:]))


def input_batch(resolution_px: int) -> np.ndarray:
    """Two images (2, 3, resolution_px, resolution_px), float64, standard normal."""
    return np.random.RandomState(0).standard_normal((2, 3, resolution_px, resolution_px))
