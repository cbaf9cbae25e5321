"""How true volumes are to what was scanned: a ball of brain in a skull, with lesions, known exactly everywhere.

It is scanned in several ways; each pixel is the mean over its area and its slice's thickness. What is resampled from
that is compared with the ball itself. Beside it stands SimpleITK's linear interpolation, with the geometry that its
reader of series gives: one spacing, and slices straight above each other.

    python -m fmct.benchmarks.accuracy
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from fmct.data.geometry import SliceStack, Vectors
from fmct.data.grid import Grid
from fmct.data.resampling import resample

Floats = NDArray[np.float32]
Resampled = NDArray[np.int16]
BRAIN_HU, BONE_HU, AIR_HU = 30.0, 900.0, -1000.0
BRAIN_MM, SKULL_MM = 62.0, 68.0
PIXEL_MM, PIXELS = 0.5, 288
SPACING_MM, VOXELS = 1.5, 98
LESIONS = (
    ((-24.3, 11.2, 9.4), 6.5, 75.0), ((17.1, -23.4, -13.8), 8.0, 5.0), ((4.7, 24.9, -15.2), 12.0, 65.0),
    ((8.1, -4.5, 28.3), 7.0, 80.0),
)  # fmt: skip
"""Center (mm, RAS), radius and HU of each: 1.2 to 7.2 mL, fresh blood and an old infarct."""
MARGIN_MM = 8.5
"""So far from an edge the thickest slices spread it; a lesion's excess is summed up to there, HU are true beyond."""
NOISE_HU = 12.0
LOST = 0.1
"""A lesion of which less is found has no place."""


@dataclass(frozen=True)
class Way:
    """How the ball is scanned.

    Attributes:
        name: of the way.
        slices_mm: thickness of each slice; they lie side by side.
        tilt_deg: of the gantry, about x; slices still follow each other along z.
        turn_deg: of the slices about z.
        sharp: whether the kernel overshoots at edges.
    """

    name: str
    slices_mm: tuple[float, ...]
    tilt_deg: float = 0.0
    turn_deg: float = 0.0
    sharp: bool = False


WAYS = (
    Way("1 mm", (1.0,) * 144),
    Way("1 mm, sharp kernel", (1.0,) * 144, sharp=True),
    Way("5 mm", (5.0,) * 30),
    Way("5 mm, tilt 18.5", (5.0,) * 40, tilt_deg=18.5),
    Way("3 mm, tilt 12, turned 15", (3.0,) * 64, tilt_deg=12.0, turn_deg=15.0),
    Way("4 and 7 mm", (4.0,) * 18 + (7.0,) * 11),
    Way("4 and 7 mm, tilt -18.5", (4.0,) * 24 + (7.0,) * 16, tilt_deg=-18.5),
)


def ball_hu(x: Floats, y: Floats, z: Floats) -> Floats:
    """Return the HU of the ball at some points, float32."""
    square = x * x + y * y + z * z
    hu = np.where(square < BRAIN_MM**2, BRAIN_HU, np.where(square < SKULL_MM**2, BONE_HU, AIR_HU)).astype(np.float32)
    for (a, b, c), radius, value in LESIONS:
        hu[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2] = value
    return hu


def scan_of(way: Way) -> SliceStack:
    """Scan the ball without noise: means over 2 x 2 points of each pixel, and one per half millimeter of its slice."""
    tilt, turn = np.radians([way.tilt_deg, way.turn_deg])
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    columns = turned @ [PIXEL_MM, 0, 0]
    rows = turned @ [0, PIXEL_MM * np.cos(tilt), PIXEL_MM * np.sin(tilt)]
    normal = np.cross(columns, rows) / PIXEL_MM**2
    thick_mm = np.array(way.slices_mm)
    heights = (np.cumsum(thick_mm) - thick_mm / 2 - thick_mm.sum() / 2) / np.cos(tilt)
    corner = -(PIXELS - 1) / 2 * (rows + columns)
    origins = corner + heights[:, None] * np.array([0, 0, 1.0])
    half = (np.arange(2 * PIXELS) - 0.5) / 2
    hu = np.empty((len(origins), PIXELS, PIXELS), np.int16)
    for k, origin in enumerate(origins):
        total = np.zeros((2 * PIXELS, 2 * PIXELS), np.float32)
        depths = (np.arange(round(2 * thick_mm[k])) + 0.5) / round(2 * thick_mm[k]) - 0.5
        for depth in depths * thick_mm[k]:
            point = [
                (origin[n] + depth * normal[n] + np.add.outer(half * rows[n], half * columns[n])).astype(np.float32)
                for n in range(3)
            ]
            total += ball_hu(*point)
        plane = total.reshape(PIXELS, 2, PIXELS, 2).mean(axis=(1, 3)) / len(depths)
        plane = sharpened(plane) if way.sharp else plane
        hu[k] = np.clip(np.rint(plane), -1024, 3071)
    return SliceStack(hu, origins, rows, columns)


def noisy(stack: SliceStack) -> SliceStack:
    """Return a scan with the noise of a scanner."""
    noise = np.random.default_rng(0).normal(0, NOISE_HU, stack.hu.shape)
    return replace(stack, hu=np.clip(np.rint(stack.hu + noise), -1024, 3071).astype(np.int16))


def sharpened(plane: Floats) -> Floats:
    """Return a slice as a kernel for bone shows it: edges overshoot, means stay."""
    around = np.pad(plane, 1, mode="edge")
    mean = (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
    return (plane + 0.8 * (plane - mean)).astype(np.float32)


def grid_around() -> Grid:
    """Return the grid that volumes are compared on."""
    return Grid.centered(np.zeros(3), SPACING_MM, (VOXELS, VOXELS, VOXELS))


def truth_on(grid: Grid, points: int = 3) -> Floats:
    """Return the ball's means over voxels (Z, Y, X), of so many points along each axis."""
    offsets = ((np.arange(points) + 0.5) / points - 0.5) * grid.spacing_mm
    x, y, z = (np.add.outer(grid.centers_mm(axis), offsets).ravel().astype(np.float32) for axis in range(3))
    shape = (grid.shape_zyx[1], points, grid.shape_zyx[2], points)
    planes = []
    for heights in z.reshape(-1, points):
        fine = sum(ball_hu(*np.broadcast_arrays(x[None], y[:, None], height)) for height in heights)
        planes.append(np.asarray(fine).reshape(shape).mean(axis=(1, 3)) / points)
    return np.stack(planes)


def by_fmct(stack: SliceStack, grid: Grid) -> Resampled:
    """Resample as volumes are."""
    return resample(stack, grid)


def by_simpleitk(stack: SliceStack, grid: Grid) -> Resampled:
    """Resample as SimpleITK does, linearly at voxel centers, with what its reader makes of the geometry."""
    image = SimpleITK.GetImageFromArray(stack.hu)
    normal = stack.normal_ras
    row_mm, column_mm = stack.pixel_mm
    travel = float(np.linalg.norm(stack.origins_ras_mm[-1] - stack.origins_ras_mm[0]))
    axes = np.stack([stack.column_step_ras_mm / column_mm, stack.row_step_ras_mm / row_mm, normal], axis=1)
    image.SetDirection(axes.ravel().tolist())
    image.SetSpacing((column_mm, row_mm, travel / (len(stack.hu) - 1)))
    image.SetOrigin(stack.origins_ras_mm[0].tolist())
    x, y, z = (int(count) for count in grid.shape_zyx[::-1])
    spacing = (grid.spacing_mm,) * 3
    target = SimpleITK.Resample(
        image, (x, y, z), SimpleITK.Transform(), SimpleITK.sitkLinear, grid.first_ras_mm.tolist(), spacing,
        np.eye(3).ravel().tolist(), -1024,
    )  # fmt: skip
    resampled: Resampled = SimpleITK.GetArrayFromImage(target)
    return resampled


@dataclass(frozen=True)
class Accuracy:
    """How far a volume is from the truth.

    Attributes:
        lesion_mm: largest distance of a lesion's centroid from its true place.
        lesion_volume: largest error of a lesion's volume, as a share; of the sum of what it has more than brain.
        bias_hu: largest difference of the mean of brain, or of the inside of the largest lesion, from the true HU.
    """

    lesion_mm: float
    lesion_volume: float
    bias_hu: float


def accuracy(hu: Resampled, grid: Grid) -> Accuracy:
    """Compare a volume with the truth."""
    z, y, x = np.meshgrid(*(grid.centers_mm(axis) for axis in (2, 1, 0)), indexing="ij")
    at: Vectors = np.stack([x, y, z], axis=-1)
    off_lesions = np.min([np.linalg.norm(at - center, axis=-1) - radius for center, radius, _ in LESIONS], axis=0)
    plain = (np.linalg.norm(at, axis=-1) < BRAIN_MM - MARGIN_MM) & (off_lesions > MARGIN_MM)
    biases = [abs(float(hu[plain].mean()) - BRAIN_HU)]
    distances, volumes = [], []
    for center, radius, value in LESIONS:
        away = np.linalg.norm(at - center, axis=-1)
        near = away < radius + MARGIN_MM
        excess = (hu[near] - BRAIN_HU) / (value - BRAIN_HU)
        share = float(excess.sum()) * grid.spacing_mm**3 / (4 / 3 * np.pi * radius**3)
        volumes.append(abs(share - 1))
        found = abs(share) > LOST
        middle = np.average(at[near], axis=0, weights=excess) if found else np.full(3, np.inf)
        distances.append(float(np.linalg.norm(middle - center)))
        if radius > MARGIN_MM + grid.spacing_mm:
            biases.append(abs(float(hu[away < radius - MARGIN_MM].mean()) - value))
    return Accuracy(max(distances), max(volumes), max(biases))


def mean_error_hu(hu: Resampled, grid: Grid, truth: Floats) -> float:
    """Return the mean absolute error of all voxels of brain that are not next to bone."""
    z, y, x = np.meshgrid(*(grid.centers_mm(axis) ** 2 for axis in (2, 1, 0)), indexing="ij")
    return float(np.abs(hu - truth)[z + y + x < (BRAIN_MM - MARGIN_MM) ** 2].mean())


def checkerboard_left(resampled: Callable[[SliceStack, Grid], Resampled]) -> float:
    """Return how much of a checkerboard of single pixels shows in a volume: its spread as a share of the board's."""
    pattern = 200 * (-1) ** np.add.outer(np.arange(PIXELS), np.arange(PIXELS))
    hu = np.broadcast_to(pattern, (40, PIXELS, PIXELS)).astype(np.int16)
    origins = np.arange(40)[:, None] * np.array([0, 0, 1.0])
    steps = PIXEL_MM * np.eye(3)
    grid = Grid.centered(np.array([58.3, 57.9, 20.0]), 1.6, (8, 40, 40))
    return float(resampled(SliceStack(hu, origins, steps[1], steps[0]), grid).std()) / 200


def measure_accuracy() -> list[str]:
    """Return a table of accuracies, a line for each way of scanning and of resampling."""
    grid = grid_around()
    truth = truth_on(grid)
    lines = ["| scanned | resampled by | centroid, mm | lesion volume | bias, HU | error with noise, HU |"]
    lines.append("|---|---|--:|--:|--:|--:|")
    for way in WAYS:
        stack = scan_of(way)
        for name, resampled in (("fmct", by_fmct), ("SimpleITK", by_simpleitk)):
            found = accuracy(resampled(stack, grid), grid)
            error = mean_error_hu(resampled(noisy(stack), grid), grid, truth)
            lost = found.lesion_volume > 1 - LOST
            lesions = "lost | lost" if lost else f"{found.lesion_mm:.2f} | {100 * found.lesion_volume:.1f} %"
            lines.append(f"| {way.name} | {name} | {lesions} | {found.bias_hu:.2f} | {error:.1f} |")
    for name, resampled in (("fmct", by_fmct), ("SimpleITK", by_simpleitk)):
        lines.append(f"checkerboard of single pixels left by {name}: {100 * checkerboard_left(resampled):.1f} %")
    return lines


if __name__ == "__main__":
    print("\n".join(measure_accuracy()))
