"""What makes a head less perfect than its outline: vessels, calcium, leukoaraiosis; sutures, dense and thin bone.

All of it follows from the head's seed and age, and is there only in heads that are `detailed`. Coordinates are of the
average head (see `skull`), |x| standing for both sides; distances are in mm, negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.noise import NoiseField, PlaneWaves
from fmct.data.phantom.shapes import (
    Array,
    Indices,
    capsule,
    ellipsoid,
    mirrored,
    mix,
    share_between,
    share_inside,
    smooth_step,
)

CALCIUM_HU, PALE_HU = 220.0, 22.0
BETWEEN_HU = 33.5  # grey matter is brighter, white matter darker
MIDLINE_MM, FALX_BULGE_MM = 25.0, 1.1
# Center lines with their radii: basilar artery, carotid siphons with the middle cerebral arteries.
BASILAR_MM = ((0.0, -13.0, -44.0), (0.0, -9.0, -22.0), 1.9)
CAROTID_MM = ((12.0, 2.0, -31.0), (11.0, 4.0, -20.0), 2.3)
MIDDLE_CEREBRAL_MM = ((11.0, 4.0, -19.0), (33.0, 8.0, -15.0), 1.4)
TRANSVERSE_MM = ((6.0, -96.0, -22.0), (54.0, -62.0, -24.0), 3.6)
TORCULA_MM = ((0.0, -98.0, -20.0), (5.5, 4.0, 6.0))


@dataclass(frozen=True)
class Traits:
    """How much of each detail a head has."""

    blood_hu: float
    wall_calcium: float
    falx_plaques: float
    pallidum: float
    pale: float
    contrast: float
    warp_mm: float
    bone_grain: float

    @classmethod
    def of(cls, head: HeadParameters) -> Traits:
        """Draw them; the same head always has the same."""
        rng = np.random.default_rng([head.seed, 21])
        old = float(np.clip((head.age_years - 45) / 40.0, 0.0, 1.0))
        falx, pallidum, wall, pale = rng.random(4)
        return cls(
            blood_hu=float(rng.uniform(42.0, 54.0)),
            wall_calcium=float(rng.uniform(80.0, 320.0)) if wall < 0.1 + 0.7 * old else 0.0,
            falx_plaques=float(rng.uniform(0.3, 1.0)) if falx < 0.08 + 0.2 * old else 0.0,
            pallidum=float(rng.uniform(0.3, 1.0)) if pallidum < 0.04 + 0.14 * old else 0.0,
            pale=float(rng.uniform(0.2, 1.0) * old) if pale < 0.75 else 0.0,
            contrast=float(rng.uniform(0.1, 0.45)),
            warp_mm=float(rng.uniform(3.0, 5.0)),
            bone_grain=float(rng.uniform(1.5, 4.0)),
        )


class Details:
    """The details of one head."""

    def __init__(self, head: HeadParameters) -> None:
        self.head = head
        self.traits = Traits.of(head)
        self.wander = NoiseField(head.seed + 11, wavelength_mm=26.0, nodes=40, nodes_per_wavelength=5.0)
        self.bulge = PlaneWaves(head.seed + 13, wavelength_mm=75.0, waves=3)
        self.fine = NoiseField(head.seed + 12, wavelength_mm=9.0, nodes=48, nodes_per_wavelength=5.0)

    def warped(self, template_mm: Array) -> Array:
        """Return (3, N) places displaced so that sulci wind and branch, instead of running straight inward."""
        amount = np.float32(self.traits.warp_mm)
        moved = np.empty_like(template_mm)
        for axis in range(3):
            # The same field at places far apart serves as three.
            shift = np.zeros((3, 1), np.float32)
            shift[axis] = 71.0
            moved[axis] = template_mm[axis] + amount * self.wander.at(template_mm + shift)
        return moved

    def bent(self, template_mm: Array) -> Array:
        """Return (3, N) places as they would be if the falx were straight: it bulges a little to either side."""
        straight = template_mm.copy()
        near = np.flatnonzero(np.abs(template_mm[0]) < MIDLINE_MM)
        straight[0, near] += np.float32(FALX_BULGE_MM) * self.bulge.at(template_mm[:, near])
        return straight

    def unevenness(self, template_mm: Array) -> Array:
        """Return how much wider than usual a sulcus is at (3, N) places, (N,); winding, by itself, narrows them."""
        wide: Array = np.float32(1.7) + np.float32(0.8) * self.wander.at(template_mm * np.float32(0.8))
        return np.maximum(wide, np.float32(0.3), out=wide)

    def paint_brain(self, hu: Array, template_mm: Array, depth_mm: Array, ventricles_mm: Array, edge_mm: float) -> None:
        """Lay pale white matter around the ventricles, vessels and calcium into (N,) `hu`, in place.

        Args:
            hu: of the cavity's contents.
            template_mm: (3, N) places in the average head of the tissue there.
            depth_mm: (N,) that this tissue had under the inner table.
            ventricles_mm: (N,) distance to the ventricles; far from them, any large value.
            edge_mm: width of a voxel.
        """
        traits, pair = self.traits, mirrored(template_mm)
        tissue = smooth_step(hu, 22.0, 27.0) * smooth_step(-hu, -45.0, -40.0)
        hu += tissue * np.float32(traits.contrast) * (hu - np.float32(BETWEEN_HU))
        if traits.pale:
            self._paint_pale(hu, template_mm, ventricles_mm)
        base = np.flatnonzero((template_mm[2] < -8.0) & (template_mm[2] > -52.0) & (pair[0] < 42.0) & (pair[1] > -22.0))
        if base.size:
            self._paint_arteries(hu, template_mm, pair, base, edge_mm)
        back = np.flatnonzero((depth_mm < 14.0) & (template_mm[2] > -40.0))
        if back.size:
            self._paint_sinuses(hu, template_mm, pair, depth_mm, back, edge_mm)
        if traits.pallidum:
            near = np.flatnonzero(ellipsoid(pair, (20.0, 0.0, 2.0), (6.0, 9.0, 7.0)) < 0.0)
            grain = smooth_step(self.fine.at(template_mm[:, near]), 0.3, 1.0)
            hu[near] += grain * np.float32(70.0 * traits.pallidum)

    def _paint_pale(self, hu: Array, template_mm: Array, ventricles_mm: Array) -> None:
        """Darken white matter in caps and bands around the lateral ventricles, as small vessels' disease does."""
        near = np.flatnonzero((ventricles_mm < 14.0) & (template_mm[2] > 2.0) & (hu > 20.0))
        if not near.size:
            return
        reach = np.float32(2.0 + 8.0 * self.traits.pale) * (
            np.float32(1.0) + np.float32(0.5) * self.wander.at(template_mm[:, near])
        )
        share = smooth_step(reach - ventricles_mm[near], 0.0, 4.0) * np.float32(0.35 + 0.6 * self.traits.pale)
        part = hu[near]
        # Grey matter keeps its density.
        part -= share * np.clip(part - np.float32(PALE_HU), 0.0, 9.0) * smooth_step(-part, -36.0, -31.0)
        hu[near] = part

    def _paint_arteries(self, hu: Array, template_mm: Array, pair: Array, base: Indices, edge_mm: float) -> None:
        """Lay the arteries of the base into the cisterns, with calcium in the siphons' walls."""
        part, own, folded = hu[base], template_mm[:, base], pair[:, base]
        wind = self.wander.at(own)
        basilar = capsule(own + np.float32(1.2) * wind, *BASILAR_MM)
        middle = capsule(folded + np.float32(0.9) * wind, *MIDDLE_CEREBRAL_MM)
        carotid = capsule(folded, *CAROTID_MM)
        blood = share_inside(np.minimum(np.minimum(basilar, middle), carotid), edge_mm)
        mix(part, self.traits.blood_hu, blood)
        if self.traits.wall_calcium:
            wall = share_between(carotid, -0.9, 0.3, edge_mm) * smooth_step(wind, 0.0, 0.7)
            part += wall * np.float32(self.traits.wall_calcium)
        hu[base] = part

    def _paint_sinuses(
        self, hu: Array, template_mm: Array, pair: Array, depth_mm: Array, back: Indices, edge_mm: float
    ) -> None:
        """Lay the dural sinuses along the vault, with plaques of calcium in the falx before the vertex."""
        part, own, folded, depth = hu[back], template_mm[:, back], pair[:, back], depth_mm[back]
        # A triangle under the vault, wider toward the back.
        width = np.float32(3.2) + np.float32(2.2) * smooth_step(-own[1], 10.0, 90.0)
        sagittal = np.maximum(folded[0] + np.float32(0.55) * depth - width, -own[2] - np.float32(14.0))
        sagittal = np.maximum(sagittal, np.float32(30.0) - own[2] - np.maximum(-own[1] - 40.0, np.float32(0.0)) * 2.0)
        transverse = np.minimum(capsule(folded, *TRANSVERSE_MM), ellipsoid(own, TORCULA_MM[0], (7.0, 5.0, 6.0)))
        blood = share_inside(np.minimum(sagittal, transverse), edge_mm) * share_inside(-depth, edge_mm)
        mix(part, self.traits.blood_hu, blood)
        if self.traits.falx_plaques:
            plaque = smooth_step(self.wander.at(own), 0.9, 1.3) * smooth_step(own[1], -20.0, 10.0)
            plaque *= smooth_step(own[2], 20.0, 35.0)
            thick = 1.4 * self.traits.falx_plaques
            part += share_between(own[0], -thick, thick, edge_mm) * plaque * np.float32(CALCIUM_HU)
        hu[back] = part

    def spongy(self, template_mm: Array, grain: Array) -> Array:
        """Return how much denser or thinner diploe is than usual, (N,) HU: lakes of marrow and dense islands."""
        uneven: Array = np.float32(60.0 * self.traits.bone_grain) * grain
        return uneven + np.float32(190.0) * self.wander.at(template_mm) - np.float32(60.0)

    def compact(self, template_mm: Array) -> Array:
        """Return how much denser compact bone is than usual, (N,) HU."""
        denser: Array = np.float32(140.0) * self.wander.at(template_mm * np.float32(0.9)) + np.float32(120.0)
        return denser

    def tables(self, template_mm: Array) -> Array:
        """Return by how much each table of the bone is thicker than usual, (N,) mm; the inner one is the uneven one."""
        thicker: Array = np.float32(0.35) * self.wander.at(template_mm * np.float32(1.3))
        thicker += np.float32(0.2) * self.fine.at(template_mm)
        return thicker

    def sutures(self, template_mm: Array, edge_mm: float) -> Array:
        """Return the share of (3, N) voxels that lie in sagittal, coronal or lambdoid suture, (N,)."""
        x, y, z = template_mm
        teeth = np.float32(1.6) * self.fine.at(template_mm * np.float32(1.5))
        half = 0.45
        behind_crown = smooth_step(-y, 0.0, 6.0) * smooth_step(z, 20.0, 40.0)
        sagittal = share_between(x + teeth, -half, half, edge_mm) * behind_crown * smooth_step(y, -88.0, -80.0)
        crown = (y - np.float32(12.0) + np.float32(0.18) * np.abs(x)) * np.float32(0.98)
        coronal = share_between(crown + teeth, -half, half, edge_mm) * smooth_step(z, 0.0, 15.0)
        slope = (z - np.float32(38.0) + np.float32(0.62) * np.abs(x)) * np.float32(0.85)
        lambdoid = share_between(slope + teeth, -half, half, edge_mm) * smooth_step(-y, 62.0, 76.0)
        seams: Array = np.maximum(np.maximum(sagittal, coronal), lambdoid)
        return seams
