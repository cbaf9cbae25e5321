"""What lies around heads in scanners, painted around a phantom of which every voxel is known.

Coordinates are the phantom's: x right, y to the front, z up, mm, origin in the middle of its brain. A hazard is painted
only where there is air.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from synthetic_heads import HEAD

from fmct.data.geometry import SliceStack
from fmct.data.phantom.couch import couch_hu
from fmct.data.phantom.render import Grid, render

STEP_MM = 1.5
LOW_MM, HIGH_MM = (-170.0, -190.0, -135.0), (170.0, 150.0, 190.0)
PLASTIC, WATER, FLESH, BONE, METAL, FOAM, AIR = 120, 0, 55, 900, 3071, -900, -1000


@dataclass(frozen=True, eq=False)
class Scene:
    """A head alone, as rendered, and the coordinates of its voxels."""

    hu: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @cached_property
    def head(self) -> np.ndarray:
        """(Z, Y, X) the head with its cavities."""
        tissue = ndimage.binary_closing(np.pad(self.hu > -500, 4, mode="edge"), iterations=3)[4:-4, 4:-4, 4:-4]
        return np.stack([ndimage.binary_fill_holes(plane) for plane in tissue | (self.hu > -500)])

    @cached_property
    def off_skin_mm(self) -> np.ndarray:
        """(Z, Y, X) distance to the head."""
        return ndimage.distance_transform_edt(~self.head, STEP_MM)

    def rod(self, start: tuple[float, ...], end: tuple[float, ...], radius_mm: float) -> np.ndarray:
        """A straight piece of something round."""
        a, b = np.array(start, np.float32), np.array(end, np.float32)
        along = ((self.x - a[0]) * (b - a)[0] + (self.y - a[1]) * (b - a)[1] + (self.z - a[2]) * (b - a)[2]) / sum(
            (b - a) ** 2
        )
        t = np.clip(along, 0, 1)
        at = (a[n] + t * (b - a)[n] for n in range(3))
        return sum((c - p) ** 2 for c, p in zip((self.x, self.y, self.z), at, strict=True)) < radius_mm**2


def scene() -> Scene:
    """Render the head."""
    grid = Grid.spanning(LOW_MM, HIGH_MM, STEP_MM)
    x, y, z = (grid.axis_mm(axis) for axis in range(3))
    return Scene(render(HEAD, grid, couch=False).hu, x[None, None], y[None, :, None], z[:, None, None])


Painted = list[tuple[np.ndarray, float]]


def couch(s: Scene) -> Painted:
    """The phantom's own head rest and table."""
    hu = couch_hu(HEAD, s.x.ravel(), s.y.ravel(), STEP_MM)
    return [(np.broadcast_to((hu > -990)[None], s.hu.shape), hu[None])]


def plates(s: Scene) -> Painted:
    """Two walls of a head rest, pressed to both ears."""
    ear = np.abs(np.broadcast_to(s.x, s.hu.shape)[s.head & (np.abs(s.z + 38) < 25)]).max()
    return [((np.abs(np.abs(s.x) - ear - 2) < 2.5) & (np.abs(s.y + 20) < 60) & (s.z > -500), PLASTIC)]


def arms_beside(s: Scene) -> Painted:
    """Arms held up along both sides of the head, lying against it."""
    painted: Painted = []
    for side in (-1, 1):
        ends = (side * 128.0, -20.0, -140.0), (side * 118.0, -10.0, 190.0)
        painted += [(s.rod(*ends, 40), FLESH), (s.rod(*ends, 13), BONE)]
    return painted


def arm_above(s: Scene) -> Painted:
    """An arm across the vertex."""
    ends = (-170.0, -20.0, 138.0), (170.0, -20.0, 128.0)
    return [(s.rod(*ends, 40), FLESH), (s.rod(*ends, 13), BONE)]


def hands(s: Scene) -> Painted:
    """Both hands above the head, fingers on the vertex."""
    fingers = [((n * 17.0, -20.0, 90.0), (n * 20.0, -10.0, 150.0)) for n in range(-3, 4)]
    painted: Painted = [(s.rod(*ends, 8), FLESH) for ends in fingers] + [(s.rod(*ends, 4), BONE) for ends in fingers]
    return [*painted, (s.rod((-60.0, -10.0, 165.0), (60.0, -10.0, 165.0), 22), FLESH)]


def cushions(s: Scene) -> Painted:
    """Foam on both sides and under the head, in a thin cover, and an inflated bag on the forehead."""
    d = s.off_skin_mm
    foam = (d > 0) & (d < 45) & ((np.abs(s.x) > 70) | (s.y < -60)) & (s.y < 40)
    bag = (d > 2) & (d < 40) & (s.y > 60) & (s.z > -10) & (np.abs(s.x) < 60)
    skin = bag & ~ndimage.binary_erosion(bag)
    cover = foam & ~ndimage.binary_erosion(foam) & (d > 6)
    return [(foam, FOAM), (cover, -150), (skin, -100)]


def ice_pack(s: Scene) -> Painted:
    """Ice in a towel on one side of the vertex, and a second one on the forehead."""
    d = s.off_skin_mm
    ice = (d > 4.5) & (d < 40) & (((s.z > 50) & (s.x > 0)) | ((s.y > 75) & (s.z > 0) & (s.z < 45)))
    return [((d < 45) & (d > 0) & (s.z > 0) & ((s.x > 0) | (s.y > 75)), -920), (ice, -70)]


def tubes(s: Scene) -> Painted:
    """A tube out of the mouth with its holder, lines with blood along the cheek and over the ear, a wire around all."""
    tube = [((8.0, 70.0, -88.0), (10.0, 118.0, -98.0)), ((10.0, 118.0, -98.0), (90.0, 120.0, -130.0))]
    lines = [((96.0, -20.0, -135.0), (88.0, -35.0, -20.0)), ((88.0, -35.0, -20.0), (100.0, -60.0, 190.0))]
    painted: Painted = [(s.rod(*ends, 7), PLASTIC) for ends in tube] + [(s.rod(*ends, 4), AIR) for ends in tube]
    painted += [(s.rod(*ends, 6), FLESH) for ends in lines]
    wire = (s.off_skin_mm > 0) & (s.off_skin_mm < 3) & (np.abs(s.z - 20 - 0.3 * s.y) < 1.2)
    return [*painted, (wire, METAL), (s.rod((-80.0, -20.0, 20.0), (-160.0, -60.0, 150.0), 1.5), METAL)]


def mask(s: Scene) -> Painted:
    """A net of plastic 2.5 mm thick over the face, on a frame; it touches nose, chin and forehead."""
    d = s.off_skin_mm
    rim = (np.abs(np.abs(s.x) - 115) < 10) & (np.abs(s.y + 25) < 4)
    gap = 4 + 3 * np.cos(s.x / 12) + 0 * s.y
    net = (d > gap) & (d < gap + 2.5) & (s.y > -20) & ((s.x % 9 < 6) | (s.z % 9 < 6))
    return [(net, -30), (rim & (s.z > -130) & (s.z < 110), PLASTIC)]


def halo(s: Scene) -> Painted:
    """A ring of metal with four pins in the skull, and four posts down to the shoulders."""
    ring = np.abs(np.hypot(np.hypot(s.x, s.y + 15) - 128, s.z - 25)) < 7
    painted: Painted = [(ring, 2000)]
    for dx, dy in ((-1, 0.8), (1, 0.8), (-1, -0.8), (1, -0.8)):
        outer = np.array([dx, dy]) / np.hypot(dx, dy) * 128
        painted.append((s.rod((*(0.4 * outer), 25.0), (*(outer - [0, 15]), 25.0), 3), METAL))
        painted.append((s.rod((outer[0], outer[1] - 15, -140.0), (outer[0], outer[1] - 15, 25.0), 6), PLASTIC))
    return painted


def blanket(s: Scene) -> Painted:
    """Woolen cloth around back and sides of head and neck, in folds."""
    d = s.off_skin_mm + 3 * np.sin(s.z / 9 + s.x / 15)
    return [((d > 0) & (d < 14) & (s.y < 10), -820)]


HAZARDS: dict[str, Callable[[Scene], Painted]] = {
    hazard.__name__: hazard
    for hazard in (couch, plates, arms_beside, arm_above, hands, cushions, ice_pack, tubes, mask, halo, blanket)
}


def scanned(s: Scene, painted: Painted, slice_voxels: int = 1, noise_hu: float = 10.0) -> tuple[SliceStack, np.ndarray]:
    """Return a scan of the head with a hazard, and where (Z, Y, X) on the scene's grid the hazard is.

    Args:
        s: the head.
        painted: the hazard.
        slice_voxels: how many of the scene's planes are averaged in a slice.
        noise_hu: of each voxel of a slice.
    """
    hu = s.hu.copy()
    hazard = np.zeros(hu.shape, bool)
    for where, value in painted:
        free = where & ~s.head
        hu[free] = np.broadcast_to(value, hu.shape)[free]
        hazard |= free & (hu > -990)
    count = len(hu) // slice_voxels
    planes = hu[: count * slice_voxels].reshape(count, slice_voxels, *hu.shape[1:]).mean(axis=1)
    planes = planes + np.random.default_rng(0).normal(0, noise_hu, planes.shape)
    origin = np.array([s.x.min(), s.y.min(), s.z.min() + (slice_voxels - 1) / 2 * STEP_MM])
    origins = origin + np.arange(count)[:, None] * np.array([0, 0, slice_voxels * STEP_MM])
    steps = STEP_MM * np.eye(3)
    return SliceStack(np.clip(np.rint(planes), -1024, 3071).astype(np.int16), origins, steps[1], steps[0]), hazard
