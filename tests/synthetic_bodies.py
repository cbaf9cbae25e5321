"""Parts of the body that are no head, as stacks of slices: bones, organs and fat where they are, simply drawn.

All are RAS, 2 x 2 mm pixels, 5 mm slices, on a table, with a little noise. Lengths in mm; each body lies along z.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmct.data.geometry import SliceStack

PIXEL_MM, SLICE_MM = 2.0, 5.0
AIR, LUNG, FAT, WATER, MUSCLE, ORGAN, MARROW, SPONGY, BONE = -1000, -850, -95, 5, 55, 50, 60, 230, 800
Array = np.ndarray


class Canvas:
    """Where bodies are drawn: coordinates x, y, z (K, J, I) and HU; later strokes cover earlier ones."""

    def __init__(self, height_mm: float, width_mm: float = 440.0, depth_mm: float = 320.0) -> None:
        self.z, self.y, self.x = np.meshgrid(
            np.arange(0, height_mm, SLICE_MM),
            np.arange(-depth_mm / 2, depth_mm / 2, PIXEL_MM),
            np.arange(-width_mm / 2, width_mm / 2, PIXEL_MM),
            indexing="ij",
            sparse=True,
        )
        self.hu = np.full((self.z.size, self.y.size, self.x.size), AIR, np.int16)

    def paint(self, where: Array, hu: int) -> None:
        """Lay one kind of tissue."""
        self.hu[np.broadcast_to(where, self.hu.shape)] = hu

    def tube(self, x: float | Array, y: float | Array, rx: float | Array, ry: float | Array) -> Array:
        """A body of elliptical cross section along z."""
        return ((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 < 1

    def ball(self, x: float, y: float, z: float, rx: float, ry: float, rz: float) -> Array:
        """An ellipsoid."""
        return ((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 + ((self.z - z) / rz) ** 2 < 1

    def bone(self, x: float | Array, y: float | Array, rx: float, ry: float, marrow: int = SPONGY) -> None:
        """A long bone: a cortex of 4 mm around marrow."""
        self.paint(self.tube(x, y, rx, ry), BONE)
        self.paint(self.tube(x, y, rx - 4, ry - 4), marrow)

    def trunk(self, rx: float, ry: float, fat_mm: float = 15.0, wall_mm: float = 14.0) -> None:
        """Skin and fat, the muscular wall, and fat inside it."""
        self.paint(self.tube(0, 0, rx, ry), FAT)
        self.paint(self.tube(0, 0, rx - fat_mm, ry - fat_mm), MUSCLE)
        self.paint(self.tube(0, 0, rx - fat_mm - wall_mm, ry - fat_mm - wall_mm), FAT)

    def spine(self, y: float = -60.0, size: float = 1.0) -> None:
        """Vertebrae 28 mm high with disks between them, the canal, processes and the muscles of the back."""
        for side in (-1, 1):
            self.paint(self.tube(side * 32 * size, y - 22 * size, 28 * size, 22 * size), MUSCLE)
        vertebra = (self.z % 36) < 28
        self.paint(self.tube(0, y, 22 * size, 17 * size), MUSCLE)
        self.paint(self.tube(0, y, 22 * size, 17 * size) & vertebra, BONE)
        self.paint(self.tube(0, y, 18 * size, 13 * size) & vertebra, SPONGY)
        self.paint(self.tube(0, y - 26 * size, 17 * size, 14 * size) & vertebra, BONE)
        self.paint((abs(self.x) < 4) & (abs(self.y - y + 44 * size) < 14 * size) & vertebra, BONE)
        self.paint(self.tube(0, y - 26 * size, 10 * size, 8 * size), 30)

    def ribs(self, rx: float, ry: float, thick_mm: float = 6.0) -> None:
        """Twelve pairs that fall by 40 mm from the spine to the front, 26 mm apart, half of it bone."""
        rho = np.sqrt((self.x / rx) ** 2 + (self.y / ry) ** 2)
        shell = abs(rho - 1) * min(rx, ry) < thick_mm
        fall = 40 * (self.y / ry + 1) / 2
        self.paint(shell & ((self.z + fall) % 26 < 13) & (self.y < 0.8 * ry), BONE)
        self.paint((abs(rho - 1) * min(rx, ry) < thick_mm - 4) & ((self.z + fall - 4) % 26 < 5), SPONGY)

    def stack(self, noise_hu: float = 8.0) -> SliceStack:
        """Return what was drawn, on a table."""
        self.paint(
            (abs(self.y - self.y.min() - 12) < 6) & (abs(self.x) < 0.47 * np.ptp(self.x)) & (self.hu < -500), -150
        )
        noise = np.random.default_rng(0).normal(0, noise_hu, self.hu.shape)
        origins = np.array([self.x.min(), self.y.min(), 0.0]) + self.z.ravel()[:, None] * np.array([0, 0, 1.0])
        hu = (self.hu + noise).clip(-1024, 3071).astype(np.int16)
        return SliceStack(hu, origins, np.array([0, PIXEL_MM, 0]), np.array([PIXEL_MM, 0, 0]))


def chest(fat_mm: float = 15.0) -> SliceStack:
    """Ribs, sternum, spine, shoulder blades, lungs, the heart and great vessels, arms at the sides."""
    c = Canvas(300)
    c.trunk(165, 115, fat_mm)
    c.ribs(165 - fat_mm - 10, 115 - fat_mm - 10)
    for side in (-1, 1):
        c.paint(c.tube(side * 68, 5, 52, 72), LUNG)
        c.bone(side * 192, 0, 16, 16)
        c.paint(c.tube(side * 95, -78, 45, 5), BONE)
    c.paint(c.ball(-15, 25, 90, 62, 48, 60), ORGAN)
    c.paint(c.tube(0, 5, 32, 34), ORGAN)
    c.paint(c.tube(0, 0, 8, 8) & (c.z > 160), AIR)
    c.bone(0, 78, 22, 8)
    c.spine()
    return c.stack()


def abdomen(fat_mm: float = 12.0) -> SliceStack:
    """Liver and spleen under the lower ribs, stomach with gas, kidneys in fat, bowel, spine. A thin patient's."""
    c = Canvas(260)
    c.trunk(145, 100, fat_mm, 10)
    c.paint(c.tube(0, 12, 118, 70), ORGAN)
    c.ribs(145 - fat_mm - 8, 100 - fat_mm - 8)
    for x, y, r in [(-40, 45, 22), (5, 50, 20), (45, 40, 24), (70, 5, 18)]:
        c.paint(c.tube(x + 8 * np.sin(c.z / 18), y, r, r) & (c.z < 140), WATER)
        c.paint(c.tube(x + 8 * np.sin(c.z / 18), y + 6, r / 2, r / 2) & (c.z < 140), AIR)
    for side in (-1, 1):
        c.paint(c.ball(side * 62, -45, 120, 38, 36, 65), FAT)
        c.paint(c.ball(side * 62, -45, 120, 28, 26, 52), ORGAN)
    c.spine(-55)
    return c.stack()


def pelvis() -> SliceStack:
    """Iliac wings and sacrum above, hip joints and the pubic arch below: a ring of bone with the bladder inside."""
    c = Canvas(240)
    c.trunk(170, 110, 18)
    c.paint(c.tube(0, 5, 110, 62), MUSCLE)
    rho = np.sqrt((c.x / 112) ** 2 + ((c.y + 10) / 70) ** 2)
    wings = (abs(rho - 1) < 0.08) & (c.y < 45 - 0.15 * c.z)
    c.paint(wings & (c.z > 90), BONE)
    c.paint((abs(rho - 1) < 0.03) & (c.y < 40 - 0.15 * c.z) & (c.z > 90), SPONGY)
    c.paint((abs(rho - 0.85) < 0.12) & (c.y < 58) & (c.z <= 90) & (abs(c.x) > 25), BONE)
    c.paint((abs(rho - 0.85) < 0.08) & (c.y < 54) & (c.z <= 90) & (abs(c.x) > 30), SPONGY)
    c.paint((abs(c.x) < 70) & (abs(c.y - 48) < 9) & (c.z > 30) & (c.z < 60), BONE)
    for side in (-1, 1):
        c.paint(c.ball(side * 98, 0, 70, 26, 26, 26), BONE)
        c.paint(c.ball(side * 98, 0, 70, 23, 23, 23), SPONGY)
    c.paint(c.ball(0, 18, 85, 46, 36, 42), WATER)
    c.paint(c.ball(0, -25, 95, 26, 22, 60), ORGAN)
    c.paint(c.ball(0, -35, 110, 12, 10, 40), AIR)
    c.paint(c.tube(0, -78, 45, 16) & (c.z > 50), BONE)
    c.paint(c.tube(0, -78, 40, 11) & (c.z > 50), SPONGY)
    return c.stack()


def knees() -> SliceStack:
    """Two knees of an old patient: the marrow of the condyles has the HU of brain and a closed cortex around it."""
    c = Canvas(300)
    flare = np.exp(-(((c.z - 150) / 38) ** 2))
    for side in (-1, 1):
        x = side * 90
        c.paint(c.tube(x, 0, 68, 66), FAT)
        c.paint(c.tube(x, -5, 60, 58), MUSCLE)
        joint = abs(c.z - 150) < 5
        c.paint(c.tube(x, 0, 15 + 28 * flare, 15 + 20 * flare), BONE)
        c.paint(c.tube(x, 0, 11 + 28 * flare, 11 + 20 * flare) & ~joint, MARROW)
        c.paint(c.tube(x, 0, 15 + 28 * flare, 15 + 20 * flare) & joint, MUSCLE)
        c.bone(x, 50, 22, 11)
    return c.stack()


def neck(height_mm: float = 220.0) -> SliceStack:
    """From the shoulders to the jaw: vertebrae, airway, larynx, tongue within the mandible."""
    c = Canvas(height_mm)
    c.paint(c.tube(0, -10, 205, 85) & (c.z < 50), FAT)
    c.paint(c.tube(0, -10, 195, 75) & (c.z < 50), MUSCLE)
    c.paint(c.tube(0, 0, 66, 66), FAT)
    c.paint(c.tube(0, 0, 60, 60), MUSCLE)
    for side in (-1, 1):
        c.paint(c.tube(side * 45, -45, 14, 14), FAT)
        c.paint(c.tube(side * 38, 5, 9, 9), FAT)
        c.paint(c.tube(side * 120, -20, 60, 7) & (c.z > 25) & (c.z < 40), BONE)
    c.spine(-15, 0.75)
    jaw = np.sqrt((c.x / 46) ** 2 + ((c.y - 5) / 58) ** 2)
    c.paint((jaw < 1.1) & (c.y > 0) & (c.z > 160), MUSCLE)
    c.paint((abs(jaw - 1) < 0.13) & (c.y > -12) & (c.z > 165), BONE)
    c.paint(c.tube(0, 10, 10, 8) & (c.z > 30), AIR)
    return c.stack()


def water_cylinder() -> SliceStack:
    """A cylinder of water, 200 mm wide, in 8 mm of acrylic glass."""
    c = Canvas(200)
    c.paint(c.tube(0, 0, 108, 108), 125)
    c.paint(c.tube(0, 0, 100, 100), 0)
    return c.stack(4.0)


def empty_table() -> SliceStack:
    """Nobody there."""
    return Canvas(180).stack()


def head() -> SliceStack:
    """Skull, brain and scalp over a face with teeth, and the upper neck."""
    c = Canvas(220)
    c.paint(c.tube(0, -20, 55, 55) & (c.z < 110), MUSCLE)
    c.paint(c.ball(0, 30, 60, 55, 65, 70), MUSCLE)
    c.paint(c.ball(0, 70, 25, 35, 25, 14), BONE)
    c.paint(c.ball(0, 50, 25, 25, 25, 20), MUSCLE)
    c.paint(c.ball(0, 65, 65, 22, 25, 30), AIR)
    for radius, hu in ((6, FAT), (0, BONE), (-6, 32)):
        c.paint(c.ball(0, 0, 130, 72 + radius, 90 + radius, 70 + radius), hu)
    for side in (-1, 1):
        c.paint(c.ball(side * 14, 0, 135, 8, 28, 12), WATER)
    c.spine(-40, 0.7)
    c.paint(c.ball(0, 0, 130, 66, 84, 64) & (c.z > 75), 32)
    return c.stack()


def on_top(*parts: SliceStack) -> SliceStack:
    """Parts one above the other, the lowest first."""
    hu = np.concatenate([part.hu for part in parts])
    origins = parts[0].origins_ras_mm[0] + np.arange(len(hu))[:, None] * np.array([0, 0, SLICE_MM])
    return SliceStack(hu, origins, parts[0].row_step_ras_mm, parts[0].column_step_ras_mm)


def whole_body() -> SliceStack:
    """From the knees to the vertex."""
    return on_top(knees(), pelvis(), abdomen(), chest(), neck(60), head())


BODIES: dict[str, Callable[[], SliceStack]] = {
    body.__name__: body for body in (chest, abdomen, pelvis, knees, neck, water_cylinder, empty_table, whole_body)
}
