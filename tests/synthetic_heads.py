"""Synthetic heads as stacks of slices: phantoms in other sizes, poses and directions, and a plain one on a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fmct.data.geometry import LPS_TO_RAS, SliceStack
from fmct.data.grid import Grid
from fmct.data.phantom import bleeds, distractors, mass_effect  # noqa: F401 - registers the findings
from fmct.data.phantom.acquisition import Scan, scan
from fmct.data.phantom.findings import draw_findings
from fmct.data.phantom.head import HeadParameters, Pose
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.resampling import resample

HEAD = HeadParameters(seed=8)
Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]


def stack_of(made: Scan) -> SliceStack:
    """A phantom's scan as a stack, in RAS."""
    origins = made.origins_mm * LPS_TO_RAS
    order = np.argsort(origins[:, 2])
    steps = (cosine * made.protocol.pixel_mm * LPS_TO_RAS for cosine in (made.column_cosine, made.row_cosine))
    return SliceStack(made.hu[order], origins[order], *steps)


def phantom(
    pixel_mm: float = 1.5,
    slice_mm: float = 5.0,
    scanner: str = "scanner_a",
    parameters: HeadParameters = HEAD,
    findings: tuple[str, ...] = (),
) -> SliceStack:
    """A phantom's scan; by default its anterior commissure is at the origin."""
    rng = np.random.default_rng(0)
    overrides = Overrides(pixel_mm=pixel_mm, slice_mm=slice_mm)
    lesions = draw_findings(rng, parameters, findings)
    return stack_of(scan(parameters, SCANNERS[scanner], rng, lesions, overrides))


def posed(**pose: float) -> HeadParameters:
    """The usual phantom, lying in another way."""
    return HEAD.model_copy(update={"pose": Pose(**pose)})


def scaled(stack: SliceStack, factor: float) -> SliceStack:
    """The same head in another size."""
    return SliceStack(
        stack.hu, stack.origins_ras_mm * factor, stack.row_step_ras_mm * factor, stack.column_step_ras_mm * factor
    )


def points(stack: SliceStack) -> Coordinates:
    """(K, J, I) x, y, z of all pixels."""
    _, rows, columns = stack.hu.shape
    along_rows = np.arange(rows)[:, None, None] * stack.row_step_ras_mm
    plane = along_rows + np.arange(columns)[:, None] * stack.column_step_ras_mm
    x, y, z = np.moveaxis(stack.origins_ras_mm[:, None, None] + plane, -1, 0)
    return x, y, z


def repainted(stack: SliceStack, paint: Callable[[np.ndarray, Coordinates], np.ndarray]) -> SliceStack:
    """The stack with other values, made of its values and coordinates."""
    values = paint(stack.hu.astype(np.float64), points(stack))
    return replace(stack, hu=np.clip(np.rint(values), -1024, 3071).astype(np.int16))


def between(stack: SliceStack, low_mm: float, high_mm: float) -> SliceStack:
    """The slices within a range of heights."""
    kept = (stack.origins_ras_mm[:, 2] >= low_mm) & (stack.origins_ras_mm[:, 2] <= high_mm)
    return replace(stack, hu=stack.hu[kept], origins_ras_mm=stack.origins_ras_mm[kept])


def reformatted(stack: SliceStack, axis: int) -> SliceStack:
    """The same in sagittal (0) or coronal (1) slices 3 mm apart, rows from the top down."""
    grid = Grid.covering(*stack.bounds_ras_mm(), 1.5)
    hu = resample(stack, grid).transpose((2, 0, 1) if axis == 0 else (1, 0, 2))[::2, ::-1]
    steps = 1.5 * np.eye(3)
    top = grid.first_ras_mm + steps[2] * (grid.shape_zyx[0] - 1)
    origins = top + np.arange(len(hu))[:, None] * 2 * steps[axis]
    return SliceStack(hu, origins, -steps[2], steps[1 - axis])


def head_on_a_table(top_mm: float = 260.0) -> tuple[SliceStack, dict[str, np.ndarray]]:
    """A head (skull, brain, ears, nose) on neck and shoulders, a head rest behind it and a table: 2 x 2 x 4 mm, RAS.

    Returns:
        The stack and masks (K, J, I) of its parts.
    """
    z, y, x = np.meshgrid(
        np.arange(0, top_mm, 4.0), np.arange(-160, 140, 2.0), np.arange(-250, 250, 2.0), indexing="ij"
    )
    skull = (x / 75) ** 2 + (y / 95) ** 2 + ((z - 165) / 85) ** 2
    parts = {
        "brain": skull < 0.85,
        "bone": (skull >= 0.85) & (skull < 1),
        "ears": (np.abs(np.abs(x) - 80) < 14)
        & (np.abs(y) < 15)
        & (np.abs(z - 150) < 30)
        & (np.abs(np.abs(x) - 82) < 12),
        "nose": (np.abs(x) < 8) & (y > 80) & (y < 112) & (np.abs(z - 130) < 20),
        "neck": (x**2 + (y + 10) ** 2 < 55**2) & (z < 110) & (z > 30),
        "shoulders": ((x / 230) ** 2 + ((y + 10) / 100) ** 2 < 1) & (z <= 40),
        "rest": (np.abs(np.hypot(x, y) - 118) < 4) & (y < -20) & (z > 60),
        "table": (np.abs(y + 140) < 10) & (np.abs(x) < 220),
    }
    hu = np.full(x.shape, -1000, np.int16)
    for name, value in [("table", 100), ("rest", 60), ("shoulders", 30), ("neck", 30), ("ears", 20), ("nose", 20),
                        ("bone", 900), ("brain", 35)]:  # fmt: skip
        hu[parts[name]] = value
    hu += np.random.default_rng(0).integers(-9, 10, hu.shape).astype(np.int16)
    origins = np.array([-250.0, -160, 0]) + np.arange(len(hu))[:, None] * np.array([0, 0, 4.0])
    return SliceStack(hu, origins, np.array([0, 2.0, 0]), np.array([2.0, 0, 0])), parts
