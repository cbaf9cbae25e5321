"""The display windows of radiologists, for pictures: HU to gray values.

The same levels and widths as the windows that networks see; those live among code that needs torch, pictures don't.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

WINDOWS_HU = {"brain": (40.0, 80.0), "subdural": (80.0, 200.0), "bone": (600.0, 2800.0)}
"""Level and width by name."""
SOFT_TISSUE_HU = (40.0, 400.0)


def gray(values: NDArray[Any], level: float, width: float) -> Gray:
    """Scale values to 0..255 within a window, clipped."""
    share = (values.astype(np.float32) - np.float32(level - width / 2)) / np.float32(width)
    scaled: Gray = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return scaled


def full_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return level and width from the 1st to the 99th percentile, for values of unknown meaning."""
    low, high = (float(end) for end in np.percentile(values, (1, 99)))
    return (low + high) / 2, max(high - low, 1e-6)
