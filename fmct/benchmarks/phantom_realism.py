"""`python -m fmct.benchmarks.phantom_realism`: phantoms beside a real head, in figures and a picture."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from pydantic import Field
from scipy.stats import wasserstein_distance

from fmct.benchmarks.tissues import TISSUES, Tissues, measure_tissues
from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError
from fmct.data.geometry import LPS_TO_RAS, SliceStack
from fmct.data.grid import Grid
from fmct.data.phantom.acquisition import Scan, scan
from fmct.data.phantom.head import draw_head
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.resampling import resample
from fmct.data.series import find_scans

ARCHIVE = "data/dicom/ge_head_tilt/ge_head_tilt.tar.xz"
REAL = "real head"
SLICE_MM: float = 5.0  # of the phantoms; about the real head's
PIXEL_MM: float | None = None  # the scanner's
BRAIN, BONE = (0.0, 80.0), (-500.0, 1500.0)
VIEW_MM, SPACING_MM = (190.0, 230.0, 170.0), 1.0  # x, y, z shown


class PhantomRealism(Command):
    """Measure tissues of phantoms and of a real head alike, and show both.

    For each tissue: median and standard deviation in HU, and how far its histogram is from the real head's (Wasserstein
    distance in HU). The picture shows a person's scan: keep it where scans may be kept.

    Example: python -m fmct.benchmarks.phantom_realism --out realism.png
    """

    shared: Path | None = Field(None, description="folder with the real scans (default: $FMCT_SHARED or ../shared)")
    out: Path | None = Field(None, description="picture (PNG) with a row per head")
    seed: int = Field(0, ge=0, description="other seed, other heads")
    plain: bool = Field(False, description="phantoms without effects")
    json_output: bool = Field(False, alias="json", description="print the figures as JSON")

    def run(self) -> ExitCode:
        """Scan a head with each scanner, measure, print, draw."""
        shared = self.shared or Path(os.environ.get("FMCT_SHARED", "../shared"))
        stacks = {REAL: real_head(shared / ARCHIVE)}
        for number, (name, scanner) in enumerate(SCANNERS.items()):
            rng = np.random.default_rng([self.seed, number])
            overrides = Overrides(effects=not self.plain, slice_mm=SLICE_MM, pixel_mm=PIXEL_MM)
            made = scan(draw_head(rng), scanner, rng, overrides=overrides)
            stacks[name] = stack_of(made)
        measured = {name: measure_tissues(stack) for name, stack in stacks.items()}
        if self.json_output:
            print(json.dumps(figures(measured), indent=2))
        else:
            print(table(figures(measured)))
        if self.out is not None:
            draw(stacks, self.out)
            print(f"a row per head: {self.out}", file=sys.stderr)
        return ExitCode.DONE


def real_head(archive: Path) -> SliceStack:
    """Read the real head from its archive.

    Raises:
        UsageError: where there is none.
    """
    if not archive.is_file():
        raise UsageError("the real head isn't there", archive, "give the folder that holds data/dicom as --shared")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        scans, _ = find_scans([Path(folder)])
        return scans[0].load()


def stack_of(made: Scan) -> SliceStack:
    """Return a phantom's scan as a stack, in RAS."""
    origins = made.origins_mm * LPS_TO_RAS
    order = np.argsort(origins[:, 2])
    row_step, column_step = (
        cosine * made.protocol.pixel_mm * LPS_TO_RAS for cosine in (made.column_cosine, made.row_cosine)
    )
    return SliceStack(made.hu[order], origins[order], row_step, column_step)


def figures(measured: Mapping[str, Tissues]) -> dict[str, dict[str, float]]:
    """Return the figures of each head, rounded, by name."""
    rows: dict[str, dict[str, float]] = {}
    for name, tissues in measured.items():
        row: dict[str, float] = {}
        for tissue in TISSUES:
            values, real = tissues.hu[tissue], measured[REAL].hu[tissue]
            row[f"{tissue}_median_hu"] = float(np.median(values))
            row[f"{tissue}_sd_hu"] = float(values.std())
            row[f"{tissue}_distance_hu"] = float(wasserstein_distance(values[::7], real[::7]))
        row["contrast_hu"] = tissues.contrast_hu
        row["cupping_hu"] = tissues.cupping_hu
        row["noise_hu"] = tissues.noise_hu
        row["noise_per_mm"] = tissues.noise_frequency
        rows[name] = {key: round(value, 2) for key, value in row.items()}
    return rows


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return the figures as lines: a line for each measure, a column for each head."""
    names = list(rows)
    lines = [" " * 20 + "".join(f"{name:>24}" for name in names)]
    for tissue in TISSUES:
        cells = [
            "{median:.0f} ± {sd:.0f} (off {off:.1f})".format(
                median=row[f"{tissue}_median_hu"], sd=row[f"{tissue}_sd_hu"], off=row[f"{tissue}_distance_hu"]
            )
            for row in rows.values()
        ]
        lines.append(f"{tissue + ' HU':<20}" + "".join(f"{cell:>24}" for cell in cells))
    for key, says in {
        "contrast_hu": "cortex - white HU",
        "cupping_hu": "rim - depth HU",
        "noise_hu": "noise HU",
        "noise_per_mm": "noise cycles/mm",
    }.items():
        lines.append(f"{says:<20}" + "".join(f"{row[key]:>24.2f}" for row in rows.values()))
    return "\n".join(lines)


def draw(stacks: Mapping[str, SliceStack], path: Path) -> None:
    """Write a picture: two axial slices, a sagittal and a coronal one in the brain window, an axial one of bone."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(len(stacks), 6, figsize=(21, 3.9 * len(stacks)), facecolor="black")
    for row, (name, stack) in zip(axes, stacks.items(), strict=True):
        volume = middle_of_head(stack)
        depth, height, width = volume.shape
        planes: list[tuple[Any, tuple[float, float]]] = [
            (volume[int(0.36 * depth), ::-1], BRAIN),
            (volume[int(0.55 * depth), ::-1], BRAIN),
            (volume[int(0.74 * depth), ::-1], BRAIN),
            (volume[::-1, :, width // 2 + 6], BRAIN),
            (volume[::-1, height // 2], BRAIN),
            (volume[int(0.36 * depth), ::-1], BONE),
        ]
        for axis, (plane, (low, high)) in zip(row, planes, strict=True):
            axis.imshow(plane, cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
        row[0].set_title(name, color="white", loc="left")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=70, facecolor="black")
    plt.close(figure)


def middle_of_head(stack: SliceStack) -> np.ndarray:
    """Return (Z, Y, X) HU of the head down from its vertex, on a grid of `SPACING_MM`."""
    low, high = stack.bounds_ras_mm()
    coarse = resample(stack, Grid.covering(low, high, 4.0))
    grid = Grid.covering(low, high, 4.0)
    z, y, x = (np.unique(found) for found in np.nonzero(coarse > 300))
    top, middle_x, middle_y = (
        grid.centers_mm(2)[z[-1]] + 8.0,
        grid.centers_mm(0)[x].mean(),
        grid.centers_mm(1)[y].mean(),
    )
    shape = (int(VIEW_MM[2]), int(VIEW_MM[1]), int(VIEW_MM[0]))
    center = np.array([middle_x, middle_y, top - VIEW_MM[2] / 2])
    return resample(stack, Grid.centered(center, SPACING_MM, shape))


COMMAND = PhantomRealism

if __name__ == "__main__":
    sys.exit(main(COMMAND))
