"""What a device could do at best, in operations per second: for a GPU what its maker says, a CPU is tried."""

from __future__ import annotations

import re
import time
from functools import cache

import torch

BF16_DENSE_TFLOPS = (
    (("b200",), 2250.0),  # HGX B200 datasheet: 36 PFLOP/s sparse for eight
    (("h200", "nvl"), 835.5),  # H200 datasheet, here and below half of "with sparsity"
    (("gh200",), 989.5),
    (("h200",), 989.5),
    (("h100", "nvl"), 835.5),  # H100 datasheet
    (("h100", "pcie"), 756.0),
    (("h100",), 989.5),
    (("a100",), 312.0),  # A100 datasheet
    (("a30",), 165.0),
    (("a40",), 149.7),
    (("a10",), 125.0),
    (("l40s",), 362.0),  # L40S datasheet
    (("l40",), 181.0),
    (("l4",), 121.0),
)
"""Words of a GPU's name, and its dense bfloat16 peak by NVIDIA's datasheets. Sparsity, which doubles the figures in
advertisements, is no use here."""

SIDE, TRIES = 1024, 3


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return a device's peak for matrix products.

    Args:
        device: CPU or GPU.
        dtype: that matrix products run in.

    Returns:
        FLOP/s, or None where it isn't known: another GPU, a slice of one, another type than bfloat16 on a GPU.
    """
    if device.type == "cpu":
        return cpu_peak_flops(dtype, torch.get_num_threads())
    if device.type != "cuda" or dtype is not torch.bfloat16:
        return None
    return gpu_peak_flops(torch.cuda.get_device_name(device))


def gpu_peak_flops(name: str) -> float | None:
    """Look up a GPU's dense bfloat16 peak, FLOP/s, by its name; None where it isn't listed."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if "mig" in words:  # a slice of a GPU
        return None
    return next((1e12 * peak for needed, peak in BF16_DENSE_TFLOPS if words.issuperset(needed)), None)


@cache
def cpu_peak_flops(dtype: torch.dtype, threads: int) -> float:
    """Measure this CPU with so many threads, once per process: many short runs would wait for it each time."""
    return measured_flops(dtype)


def measured_flops(dtype: torch.dtype) -> float:
    """Measure what square matrix products reach on this CPU with torch's present threads: FLOP/s, the best of some."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype)
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
