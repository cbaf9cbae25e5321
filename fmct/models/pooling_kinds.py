"""The poolings that can be asked for by name; what each computes, is said in `pooling`."""

from __future__ import annotations

from typing import Literal

Pooling = Literal["cls", "mean", "max", "mean+max", "mean+std", "mean+std+mirror"]
POOLING = (
    "what stands for a scan: cls, its CLS token; mean, max: over its patches; mean+max, mean+std: both, twice as wide; "
    "mean+std+mirror: also what differs from the scan's mirror image, four times as wide, in twice the time"
)
