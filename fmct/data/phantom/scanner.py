"""Four scanners, and the protocols they draw: where each slice lies, how thick it is, how far the gantry tilts."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fmct.console.errors import UsageError
from fmct.data.phantom.effects import Effects, Habits
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.kernel import Kernel
from fmct.experiment.config import Config

SMALLEST_FIELD_MM = 200.0  # a narrower field of view cuts the skull
BASE_SHARE = 0.4  # of an uneven scan is done in thin slices: skull base and posterior fossa


class Overrides(Config):
    """What a user fixes instead of leaving it to the scanner."""

    slice_mm: float | None = Field(None, gt=0.3, le=10, description="slice thickness")
    pixel_mm: float | None = Field(None, gt=0.2, le=6, description="pixel size")
    matrix: int | None = Field(None, ge=32, le=1024, description="rows and columns of a slice")
    effects: bool = Field(False, description="whether heads have finer detail, and scans artifacts and missed coverage")

    @model_serializer(mode="wrap")
    def _without_usual(self, usual: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is off: identifiers that follow from a plan stay what they were without it."""
        values: dict[str, object] = usual(self)
        return values if self.effects else {name: value for name, value in values.items() if name != "effects"}

    def plane(self, pixel_mm: float, matrix: int) -> tuple[float, int]:
        """Return pixel size and matrix; where one is given, the other keeps the scanner's field of view.

        Raises:
            UsageError: when both are given and no head fits into the field of view.
        """
        field_mm = pixel_mm * matrix
        if self.pixel_mm is not None:
            pixel_mm, matrix = self.pixel_mm, self.matrix or max(32, math.ceil(field_mm / self.pixel_mm))
        elif self.matrix is not None:
            pixel_mm, matrix = field_mm / self.matrix, self.matrix
        if pixel_mm * matrix < SMALLEST_FIELD_MM:
            what = f"a field of view of {pixel_mm * matrix:.0f} mm can't hold a head"
            fix = f"choose them so that pixel size times matrix is {SMALLEST_FIELD_MM:.0f} mm or more"
            raise UsageError(what, "--pixel-mm and --matrix", fix)
        return pixel_mm, matrix


NO_OVERRIDES = Overrides()


class Protocol(Config):
    """How one scan is done, in LPS patient coordinates (DICOM's) and millimeters.

    The gantry turns about x through (center, table position); with a tilt, slices still follow each other along z.
    """

    kvp: int
    tilt_deg: float = Field(description="positive: the plane falls toward the back of the head")
    slice_mm: tuple[float, ...] = Field(description="thickness of each slice, in order of acquisition")
    table_z_mm: tuple[float, ...] = Field(description="z of each slice at the center of rotation")
    pixel_mm: float
    matrix: int
    center_mm: tuple[float, float] = Field(description="x and y of the center of the field of view")
    effects: Effects | None = Field(None, description="what disturbs it; None: nothing but stationary noise")

    @property
    def even(self) -> bool:
        """Whether all slices have one thickness and distance."""
        steps = np.diff(self.table_z_mm)
        return len(set(self.slice_mm)) == 1 and bool(np.allclose(steps, steps[0], rtol=0.0, atol=1e-3))


class Scanner(Config):
    """A model of scanner with its site's habits."""

    name: str
    manufacturer: str
    model: str
    kernel: str = Field(description="convolution kernel, as its header says it")
    kvp: tuple[int, ...]
    pixel_mm: tuple[float, ...] = Field(description="pixel sizes in use")
    matrix: int = 512
    slice_mm: tuple[float, ...] = Field(description="slice thicknesses in use")
    uneven_slice_mm: tuple[tuple[float, float], ...] = Field((), description="thin at the base, thick above, in use")
    uneven_share: float = Field(0.0, ge=0, le=1, description="of scans have uneven slices")
    tilts_deg: tuple[float, ...] = (0.0,)
    noise_hu: float = Field(gt=0, description="standard deviation at 5 mm thickness")
    noise_correlation_mm: float = Field(ge=0, description="its spatial correlation in the plane, by the kernel")
    blur_mm: float = Field(gt=0, description="standard deviation of the kernel's point spread")
    signed: bool = Field(description="pixels are signed 16 bit and already HU; otherwise 12 bit with intercept -1024")
    padding_hu: int | None = Field(
        None, description="stands outside the circular field of view; None: air measured there"
    )
    upward: bool = Field(True, description="whether slices are acquired from the neck to the vertex")
    enhancement: float = Field(0.0, ge=0, description="how much the kernel overshoots at edges, against their height")
    sharp: Kernel | None = Field(None, description="a second kernel")
    habits: Habits = Field(Habits(), description="what disturbs scans of this site")

    def draw(
        self, rng: np.random.Generator, head: HeadParameters, overrides: Overrides = NO_OVERRIDES, even: bool = False
    ) -> Protocol:
        """Draw the protocol of one scan.

        Args:
            rng: all randomness comes from here, the same amount whatever is overridden.
            head: whose head; it says how much is scanned.
            overrides: what the user fixes.
            even: whether all slices must have one thickness and distance.

        Raises:
            UsageError: when no head fits into the field of view.
        """
        kvp = int(rng.choice(self.kvp))
        tilt = float(rng.choice(self.tilts_deg))
        pixel = float(rng.choice(self.pixel_mm))
        usual = float(rng.choice(self.slice_mm))
        uneven = rng.random() < self.uneven_share
        pair = (
            self.uneven_slice_mm[int(rng.integers(len(self.uneven_slice_mm)))]
            if self.uneven_slice_mm
            else (usual, usual)
        )
        off_center = (round(float(rng.normal(0.0, 2.0)), 1), round(float(rng.normal(0.0, 2.0)), 1))
        if not uneven or even:
            pair = (usual, usual)
        if overrides.slice_mm is not None:
            pair = (overrides.slice_mm, overrides.slice_mm)
        slices, table = slice_positions(head, pair, tilt)
        if not self.upward:
            slices, table = slices[::-1], table[::-1]
        pixel, matrix = overrides.plane(pixel, self.matrix)
        # From a generator of their own, so that all else is the same with and without them.
        effects = self.habits.draw(rng.spawn(1)[0]) if overrides.effects else None
        return Protocol(
            kvp=kvp,
            tilt_deg=tilt,
            slice_mm=slices,
            table_z_mm=table,
            pixel_mm=pixel,
            matrix=matrix,
            center_mm=off_center,
            effects=effects,
        )

    def as_used(self, protocol: Protocol) -> Scanner:
        """Return the scanner with the kernel that a protocol asks for."""
        if self.sharp is None or protocol.effects is None or not protocol.effects.sharp:
            return self
        kernel = self.sharp.model_dump(exclude={"name"})
        return self.model_copy(update={**kernel, "kernel": self.sharp.name})


def slice_positions(
    head: HeadParameters, thin_thick_mm: tuple[float, float], tilt_deg: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return thickness and table position of contiguous slices from the neck to above the vertex."""
    z, height = head.pose.shift_mm[2], head.scale[2]
    tilt = math.radians(tilt_deg)
    allowance = 25.0 * abs(math.tan(tilt))
    low = z - head.pose.neck_mm - allowance
    high = z + 96.0 * height + head.pose.vertex_mm + allowance
    change = low + BASE_SHARE * (high - low)
    thin, thick = thin_thick_mm
    positions, thicknesses = [round(low, 2)], [thin]
    while positions[-1] < high:
        following = thin if positions[-1] < change else thick
        step = 0.5 * (thicknesses[-1] + following) / math.cos(tilt)
        positions.append(positions[-1] + step)
        thicknesses.append(following)
    return tuple(thicknesses), tuple(round(p, 4) for p in positions)


SCANNERS: dict[str, Scanner] = {
    scanner.name: scanner
    for scanner in (
        Scanner(
            name="scanner_a",
            manufacturer="PHANTOM ALPHA",
            model="Alpha 64",
            kernel="H31s",
            kvp=(120,),
            pixel_mm=(0.4297, 0.4883),
            slice_mm=(3.0, 5.0, 5.0),
            noise_hu=2.6,
            noise_correlation_mm=0.8,
            blur_mm=0.55,
            signed=False,
            habits=Habits(hardening=(0.3, 0.55), motion=0.03, missed=0.05),
        ),
        Scanner(
            name="scanner_b",
            manufacturer="PHANTOM BETA",
            model="Beta Dual",
            kernel="STANDARD",
            kvp=(120, 140),
            pixel_mm=(0.4883,),
            slice_mm=(2.5, 5.0),
            uneven_slice_mm=((2.5, 5.0), (4.0, 7.0)),
            uneven_share=0.4,
            tilts_deg=(0.0, 12.0, 18.5, -8.0),
            noise_hu=3.4,
            noise_correlation_mm=0.6,
            blur_mm=0.45,
            signed=True,
            padding_hu=-2000,
            habits=Habits(hardening=(0.75, 1.0), motion=0.07, missed=0.08, rests=("tray", "tray", "cup")),
        ),
        Scanner(
            name="scanner_c",
            manufacturer="PHANTOM GAMMA",
            model="Gamma Spiral",
            kernel="UB",
            kvp=(100, 120),
            pixel_mm=(0.4492, 0.5273),
            slice_mm=(0.6, 1.0, 2.0, 3.0),
            noise_hu=3.0,
            noise_correlation_mm=0.45,
            blur_mm=0.3,
            signed=False,
            upward=False,
            habits=Habits(hardening=(0.45, 0.75), motion=0.02, missed=0.12, rests=("cup", "pillow")),
        ),
        Scanner(
            name="scanner_d",
            manufacturer="PHANTOM DELTA",
            model="Delta Volume",
            kernel="FC26",
            kvp=(120, 135),
            pixel_mm=(0.4297, 0.5859),
            slice_mm=(0.5, 1.0, 4.0, 8.0),
            tilts_deg=(0.0, -15.0, 22.0),
            noise_hu=4.2,
            noise_correlation_mm=0.7,
            blur_mm=0.5,
            signed=True,
            enhancement=0.05,
            sharp=Kernel(name="FC30", noise_hu=9.0, noise_correlation_mm=0.3, blur_mm=0.25, enhancement=0.35),
            habits=Habits(
                hardening=(0.6, 0.9), motion=0.06, metal=0.05, missed=0.15, sharp=0.25, rests=("pillow", "tray")
            ),
        ),
    )
}
