"""Taking the face off a volume: everything in front of a plane that just clears the space inside the skull.

The plane is found from the brain's own shape. Its long axis tells how the head is turned and pitched; the plane leans
back from it by `LEAN_DEG` and is pushed up against the front of the space inside the skull, `MARGIN_MM` away. So it
runs from the brows through the eyeballs to behind lips and chin; the forehead above, the temples and the ears stay. All
in front of it, air too, becomes padding, so that the cut says nothing but where the plane is. Where the skull is open,
the plane moves forward by what sticks out: after an operation above an orbit, part of the lids can stay.

Optionally, two more planes take the ears off, with the cheeks and the sides of the neck below them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmct.data.intracranial import Intracranial, Mask, find_intracranial
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode, ScanError

Vector = NDArray[np.float64]

UP = np.array([1.0, 0.0, 0.0])
LEAN_DEG, MARGIN_MM = 50.0, 8.0
EAR_LEAN_DEG, EAR_MARGIN_MM = 12.0, 6.0
HOLD_MM = 10.0
"""How firmly the long axis is held to the front and level; it matters where a head is nearly as wide as long."""
PITCH_DEG, TURN_DEG = (-30.0, 70.0), 45.0
"""Directions of the long axis that are believed; in a head that lies straight it rises by 10 to 25 degrees."""
LONGEST_MM, FARTHEST_REACH = 225.0, 1.45
"""Of the space inside a skull; the reach is that toward the face against an ellipsoid's, usually 1.0 to 1.2."""
FACE_MM, LEAST_FACE_ML = 15.0, 1.0
"""A face stands out this far from the space inside the skull, a forehead doesn't."""
STRAY_LEAN_DEG, STRAY_BONE_ML, STRAY_RATIO = 30.0, 4.0, 1.5


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane; what lies beyond it is taken off.

    Attributes:
        normal: (3,) z, y, x, of length 1, away from the brain.
        at_mm: how far it is from the low corner of the volume, along the normal.
    """

    normal: Vector
    at_mm: float

    def beyond(self, shape_zyx: tuple[int, ...], spacing_mm: float) -> Mask:
        """Return the voxels of a volume that lie beyond the plane, (Z, Y, X)."""
        axis = int(np.abs(self.normal).argmax())
        indices = np.ogrid[tuple(slice(count) for count in shape_zyx)]
        others = sum(self.normal[i] * (indices[i] + 0.5) for i in range(3) if i != axis) * spacing_mm
        crossing = ((self.at_mm - others) / (self.normal[axis] * spacing_mm) - 0.5).astype(np.float32)
        along = indices[axis].astype(np.float32)
        mask: Mask = along > crossing if self.normal[axis] > 0 else along < crossing
        return mask


@dataclass(frozen=True, eq=False)
class Lie:
    """How the space inside a skull lies in a volume: directions are (3,) z, y, x, of length 1.

    Attributes:
        points_mm: (N, 3) its coarse voxels, from the low corner of the volume.
        center_mm: (3,) their mean.
        covariance_mm2: (3, 3) about it.
        front: its long axis.
    """

    points_mm: NDArray[np.float32]
    center_mm: Vector
    covariance_mm2: Vector
    front: Vector

    @property
    def up(self) -> Vector:
        """Upward, at right angles to the long axis."""
        up: Vector = UP - self.front[0] * self.front
        return up / np.linalg.norm(up)

    @property
    def toward_face(self) -> Vector:
        """To the front and down."""
        lean = np.deg2rad(LEAN_DEG)
        normal: Vector = np.cos(lean) * self.front - np.sin(lean) * self.up
        return normal

    def toward_ear(self, side: int) -> Vector:
        """To the right (1) or left (-1) and a little down."""
        lean = np.deg2rad(EAR_LEAN_DEG)
        right = np.cross(self.front[::-1], self.up[::-1])[::-1]
        normal: Vector = side * np.cos(lean) * right - np.sin(lean) * self.up
        return normal

    def reach_mm(self, normal: Vector) -> float:
        """Return how far the space reaches in a direction, from the low corner of the volume."""
        return float((self.points_mm @ normal.astype(np.float32)).max())

    def plane(self, normal: Vector, margin_mm: float) -> Plane:
        """Return the plane that clears the space by a margin."""
        return Plane(normal, self.reach_mm(normal) + margin_mm)


def deface(hu: NDArray[np.int16], settings: IsotropicSettings, name: str = "the scan") -> None:
    """Take the face off a volume in place, where the settings say so.

    Args:
        hu: (Z, Y, X) HU on the grid of the preset.
        settings: whether to, and how the volume was made.
        name: how errors call the scan.

    Raises:
        ScanError: NOT_DEFACED, see `face_mask`.
    """
    if settings.deface:
        hu[face_mask(hu, settings.spacing_mm, settings.hu_min, settings.deface_ears, name)] = settings.hu_min


def face_mask(
    hu: NDArray[np.int16], spacing_mm: float, air_hu: int, ears: bool = False, name: str = "the scan"
) -> Mask:
    """Return what is to become padding so that no face is left.

    Args:
        hu: (Z, Y, X) HU on an axis-aligned grid whose indices grow to S, A and R.
        spacing_mm: distance of voxels.
        air_hu: the value outside the scan.
        ears: whether to take off the ears too.
        name: how errors call the scan.

    Returns:
        (Z, Y, X); nothing where the scan ends above the orbits.

    Raises:
        ScanError: NOT_DEFACED, where the space inside the skull can't be found or doesn't look like one, or the bones
            of a face lie in another direction.
    """
    space = find_intracranial(hu, spacing_mm, air_hu)
    if space is None:
        raise not_defaced(name, "no brain surrounded by bone was found")
    lie = lie_of(space)
    check_plausible(lie, name)
    check_direction(space, lie, name)
    slack_mm = space.step_mm  # what was found may end a coarse voxel short of the bone
    planes = [lie.plane(lie.toward_face, MARGIN_MM + slack_mm)] if shows_face(space, lie) else []
    if ears:
        planes += [lie.plane(lie.toward_ear(side), EAR_MARGIN_MM + slack_mm) for side in (-1, 1)]
    mask = np.zeros(hu.shape, bool)
    for plane in planes:
        mask |= plane.beyond(hu.shape, spacing_mm)
    return mask


def lie_of(space: Intracranial) -> Lie:
    """Return how the space inside a skull lies."""
    points = ((np.argwhere(space.mask) + 0.5) * space.step_mm).astype(np.float32)
    center = points.mean(axis=0, dtype=np.float64)
    offsets = points - center.astype(np.float32)
    covariance = (offsets.T @ offsets).astype(np.float64) / len(points)
    _, axes = np.linalg.eigh(covariance + np.diag([0.0, HOLD_MM**2, 0.0]))
    front = axes[:, 2] * np.sign(axes[1, 2])
    return Lie(points, center, covariance, front)


def check_plausible(lie: Lie, name: str) -> None:
    """Check that the space found could be that inside a skull.

    Raises:
        ScanError: NOT_DEFACED, saying what is odd.
    """
    pitch = float(np.rad2deg(np.arcsin(lie.front[0])))
    turn = float(np.rad2deg(np.arctan2(lie.front[2], lie.front[1])))
    if not (PITCH_DEG[0] <= pitch <= PITCH_DEG[1] and abs(turn) <= TURN_DEG):
        raise not_defaced(name, f"the brain's long axis is pitched by {pitch:.0f} and turned by {turn:.0f} degrees")
    length = lie.reach_mm(lie.front) + lie.reach_mm(-lie.front)
    normal = lie.toward_face
    of_ellipsoid = float(np.sqrt(5.0 * normal @ lie.covariance_mm2 @ normal))
    reach = (lie.reach_mm(normal) - float(lie.center_mm @ normal)) / of_ellipsoid
    if length > LONGEST_MM or reach > FARTHEST_REACH:
        found = f"{length:.0f} mm long, toward the face {reach:.2f} times as far as an ellipsoid"
        raise not_defaced(name, f"what bone surrounds isn't a brain alone: {found}")


def shows_face(space: Intracranial, lie: Lie) -> bool:
    """Tell whether anything stands out as far as a face does; otherwise the scan ends above it."""
    return (
        space.volume_ml(space.solid & lie.plane(lie.toward_face, FACE_MM).beyond(space.mask.shape, space.step_mm))
        >= LEAST_FACE_ML
    )


def check_direction(space: Intracranial, lie: Lie, name: str) -> None:
    """Check that there isn't more bone outside the skull elsewhere than where the face should be.

    So a scan is told whose header is wrong about front and back, or up and down.

    Raises:
        ScanError: NOT_DEFACED, saying where the bone lies.
    """

    def bone_ml(normal: Vector) -> float:
        beyond = lie.plane(normal, FACE_MM).beyond(space.mask.shape, space.step_mm)
        return space.volume_ml(space.bone & beyond)

    level = lie.front * (0.0, 1.0, 1.0) / np.hypot(lie.front[1], lie.front[2])
    lean = np.deg2rad(STRAY_LEAN_DEG)
    elsewhere = {
        f"{'in front of' if front > 0 else 'behind'} and {'above' if up > 0 else 'below'}": bone_ml(
            np.cos(lean) * front * level + np.sin(lean) * up * UP
        )
        for front, up in ((1, 1), (-1, 1), (-1, -1))
    }
    side, stray_ml = max(elsewhere.items(), key=lambda item: item[1])
    face_ml = bone_ml(lie.toward_face)
    if stray_ml > max(STRAY_BONE_ML, STRAY_RATIO * face_ml):
        found = f"{stray_ml:.0f} mL of bone lie {side} the skull, {face_ml:.0f} mL where the face should be"
        raise not_defaced(name, f"the header may be wrong about directions: {found}")


def not_defaced(name: str, detail: str) -> ScanError:
    """Return the error about a scan whose face can't be taken off."""
    return ScanError(RejectCode.NOT_DEFACED, name, f"{detail}; without --deface it is kept as it is, with its face")
