"""Everything below and before the cranial cavity: orbits, sinuses, nose, petrous bones, jaw, neck.

It's here so that the lower slices look like those of a head to a model; it is not an atlas of the face.
All coordinates are of the average head (see `skull`), |x| standing for both sides.
"""

from __future__ import annotations

import numpy as np

from fmct.data.phantom.features import MOUTH_MM, Features
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.noise import NoiseField
from fmct.data.phantom.shapes import (
    Array,
    box,
    capsule,
    ellipsoid,
    mirrored,
    mix,
    share_between,
    share_inside,
    smooth_min,
    smooth_step,
    within,
)
from fmct.data.phantom.skull import AIR_HU, COMPACT_HU, FAT_HU, MARROW_HU, MUSCLE_HU

PETROUS_HU, TOOTH_HU, LENS_HU, VITREOUS_HU = 1750.0, 2300.0, 90.0, 12.0
MUSCLE_MM, DETAILED_MUSCLE_MM = 22.0, 38.0  # wavelength of the sheets of fat between muscles
EYE_MM = (32.0, 62.0, -38.0)
ORBIT_MM = ((28.0, 50.0, -38.0), (18.5, 30.0, 17.0))
MASTOID_MM = ((60.0, -44.0, -46.0), (12.0, 17.0, 20.0))
# Boxes (|x|, y, z) that hold each group of bodies with a margin for coarse voxels; nothing else is touched by it.
FACE_BOX_MM = ((-1.0, -74.0, -150.0), (102.0, 94.0, -2.0))
BASE_BOX_MM = ((-1.0, -58.0, -122.0), (78.0, 86.0, -12.0))
JAW_BOX_MM = ((-1.0, -8.0, -128.0), (60.0, 80.0, -60.0))
PETROUS_BOX_MM = ((-1.0, -74.0, -76.0), (102.0, 10.0, -12.0))
NOSE_BOX_MM = ((-1.0, -22.0, -150.0), (56.0, 86.0, -18.0))
ORBIT_BOX_MM = ((-1.0, 8.0, -68.0), (60.0, 94.0, -8.0))


class Face:
    """The soft outline below the vault, and what lies inside it."""

    def __init__(self, head: HeadParameters) -> None:
        self.head = head
        self.features = Features(head.seed)
        self.cells = NoiseField(head.seed + 4, wavelength_mm=7.0, nodes=48, nodes_per_wavelength=4.0)
        muscle_mm = DETAILED_MUSCLE_MM if head.detailed else MUSCLE_MM
        self.marbling = NoiseField(head.seed + 5, wavelength_mm=muscle_mm, nodes=36)

    def skin(self, template_mm: Array, vault_skin_mm: Array) -> Array:
        """Return the distance to the skin, negative inside, joining face, neck, nose and ears to the vault's skin.

        Args:
            template_mm: (3, N) in the average head's frame.
            vault_skin_mm: (N,) distance to the skin around the vault.
        """
        pair = mirrored(template_mm)
        face = ellipsoid(template_mm, (0.0, 22.0, -58.0), (69.0, 64.0, 62.0))
        neck = capsule(template_mm, (0.0, -40.0, -52.0), (0.0, -45.0, -200.0), 64.0, 58.0)
        jaw = capsule(pair, (48.0, 0.0, -70.0), (14.0, 58.0, -112.0), 20.0, 18.0)
        skin = smooth_min(smooth_min(vault_skin_mm, face, 18.0), smooth_min(neck, jaw, 12.0), 18.0)
        self.features.added(template_mm, skin)
        return skin

    def paint(self, hu: Array, template_mm: Array, edge_mm: float) -> None:
        """Lay bones, sinuses and eyes into the soft tissue in `hu`, in place; `template_mm` is (3, N)."""
        pair = mirrored(template_mm)
        face = within(pair, FACE_BOX_MM)
        cells = np.zeros_like(hu)
        cells[face] = self.cells.at(template_mm[:, face])
        for body, around in (
            (self._paint_base, BASE_BOX_MM),
            (self._paint_jaw, JAW_BOX_MM),
            (self._paint_petrous, PETROUS_BOX_MM),
            (self._paint_nose_and_sinuses, NOSE_BOX_MM),
            (self._paint_orbits, ORBIT_BOX_MM),
        ):
            near = face[within(pair[:, face], around)]
            if near.size:
                part = hu[near]
                body(part, template_mm[:, near], pair[:, near], cells[near], edge_mm)
                hu[near] = part

    def _paint_base(self, hu: Array, template_mm: Array, pair: Array, cells: Array, edge_mm: float) -> None:
        """Body of the sphenoid and clivus, cheek bones, jaw joints, occipital condyles."""
        clivus = capsule(template_mm, (0.0, 12.0, -38.0), (0.0, -24.0, -56.0), 13.0, 8.0)
        pterygoid = capsule(pair, (14.0, 18.0, -40.0), (17.0, 12.0, -72.0), 5.0, 3.0)
        wing = capsule(pair, (20.0, 22.0, -34.0), (52.0, 20.0, -32.0), 4.5)
        condyle = capsule(pair, (52.0, -9.0, -50.0), (52.0, -4.0, -60.0), 6.0)
        ramus = capsule(pair, (52.0, -4.0, -60.0), (46.0, 4.0, -110.0), 4.5)
        occipital = capsule(pair, (14.0, -40.0, -66.0), (20.0, -44.0, -74.0), 7.0)
        marrow = smooth_min(smooth_min(clivus, pterygoid, 4.0), smooth_min(condyle, occipital, 1.0), 2.0)
        marrow = np.minimum(np.minimum(marrow, wing), ramus)
        cheek = capsule(pair, (52.0, 60.0, -50.0), (64.0, 30.0, -54.0), 5.0, 3.5)
        arch = capsule(pair, (64.0, 30.0, -54.0), (66.0, -14.0, -46.0), 2.8)
        rim = capsule(pair, (49.0, 56.0, -24.0), (52.0, 58.0, -50.0), 4.0)
        maxilla = capsule(pair, (30.0, 72.0, -58.0), (14.0, 76.0, -56.0), 2.5)
        compact = np.minimum(np.minimum(cheek, arch), np.minimum(rim, maxilla))
        mix(hu, COMPACT_HU, share_inside(np.minimum(marrow, compact), edge_mm))
        mix(hu, MARROW_HU + np.float32(90.0) * cells, share_inside(marrow + 2.0, edge_mm))

    def _paint_petrous(self, hu: Array, template_mm: Array, pair: Array, cells: Array, edge_mm: float) -> None:
        """Petrous pyramids with mastoid cells and ear canals."""
        petrous = capsule(pair, (15.0, -17.0, -40.0), (58.0, -36.0, -38.0), 7.5, 11.0)
        center, radii = MASTOID_MM
        mastoid = ellipsoid(pair, center, radii)
        bone = smooth_min(petrous, mastoid, 6.0)
        mix(hu, PETROUS_HU + np.float32(120.0) * cells, share_inside(bone, edge_mm))
        pneumatized = smooth_min(mastoid, ellipsoid(pair, (52.0, -32.0, -38.0), (9.0, 9.0, 8.0)), 4.0)
        air = share_inside(pneumatized + 3.0, edge_mm) * smooth_step(
            cells + 0.4 * (self.head.sinus_scale - 1.0), -0.5, 0.2
        )
        mix(hu, AIR_HU + 300.0, air)
        ear_canal = capsule(pair, (56.0, -26.0, -40.0), (86.0, -27.0, -40.0), 3.2)
        mix(hu, AIR_HU, share_inside(ear_canal, edge_mm))

    def _paint_jaw(self, hu: Array, template_mm: Array, pair: Array, cells: Array, edge_mm: float) -> None:
        """Body of the jaw, and both rows of teeth in the bone that holds them."""
        x, y, z = pair
        body = capsule(pair, (46.0, 4.0, -110.0), (9.0, 62.0, -116.0), 6.5)
        mix(hu, COMPACT_HU, share_inside(body, edge_mm))
        mix(hu, MARROW_HU, share_inside(body + 2.0, edge_mm))
        from_mouth = np.abs(z - np.float32(MOUTH_MM))
        arch = ((24.0, 36.0, 0.0), (6.0, 66.0, 0.0))
        jaw = capsule(np.stack([x, y, from_mouth - np.float32(15.0)]), *arch, 5.5)
        mix(hu, MARROW_HU + 300.0, share_inside(jaw, edge_mm))
        beyond = from_mouth - np.clip(from_mouth, 1.0, 14.0)
        teeth = capsule(np.stack([x, y, beyond]), *arch, 3.4)
        mix(hu, TOOTH_HU, share_inside(teeth, edge_mm))

    def _paint_nose_and_sinuses(self, hu: Array, template_mm: Array, pair: Array, cells: Array, edge_mm: float) -> None:
        """Nasal cavity with septum and conchae, ethmoid cells, sphenoid and maxillary sinuses, pharynx."""
        size = self.head.sinus_scale
        maxillary = ellipsoid(pair, (29.0, 50.0, -70.0), (13.0 * size, 18.0, 15.0))
        sphenoid = box(pair, (8.0, 10.0, -38.0), (6.5 * size, 9.0, 7.0), 5.0)
        ethmoid = box(template_mm, (0.0, 42.0, -37.0), (11.0, 24.0, 8.5), 5.0)
        nasal = box(template_mm, (0.0, 50.0, -60.0), (13.0, 28.0, 16.0), 8.0)
        pharynx = capsule(template_mm, (0.0, 8.0, -66.0), (0.0, -4.0, -130.0), 9.0, 8.0)
        lumen = np.minimum(np.minimum(maxillary, sphenoid), np.minimum(ethmoid, nasal))
        mix(hu, COMPACT_HU * 0.75, share_between(lumen, 0.0, 1.6, edge_mm))
        mix(hu, AIR_HU, share_inside(np.minimum(lumen, pharynx), edge_mm))
        mix(hu, 350.0, share_inside(ethmoid, edge_mm) * share_between(cells, -0.22, 0.22, 0.2))
        septum = share_between(template_mm[0] + np.float32(1.5) * cells, -0.9, 0.9, edge_mm)
        concha = share_inside(np.abs(pair[0] - np.float32(7.0) + cells) - 1.9, edge_mm)
        concha *= smooth_step(np.sin(template_mm[2] * np.float32(0.42)), -0.6, 0.2)
        mix(hu, 160.0, share_inside(nasal, edge_mm) * np.maximum(septum, concha))

    def _paint_orbits(self, hu: Array, template_mm: Array, pair: Array, cells: Array, edge_mm: float) -> None:
        """Orbital fat, eyeball with lens, optic nerve and straight muscles."""
        orbit = ellipsoid(pair, *ORBIT_MM)
        behind = pair[1] < 62.0
        mix(hu, COMPACT_HU * 0.85, share_between(orbit, 0.0, 1.8, edge_mm) * behind)
        mix(hu, FAT_HU + 5.0, share_inside(orbit, edge_mm))
        nerve = capsule(pair, (31.0, 52.0, -38.0), (14.0, 22.0, -33.0), 2.3)
        muscle = np.minimum(
            capsule(pair, (43.0, 60.0, -38.0), (19.0, 26.0, -35.0), 2.4),
            capsule(pair, (21.0, 60.0, -38.0), (13.0, 26.0, -35.0), 2.4),
        )
        above = capsule(pair, (32.0, 58.0, -26.0), (17.0, 26.0, -30.0), 2.4)
        below = capsule(pair, (32.0, 58.0, -50.0), (17.0, 26.0, -40.0), 2.4)
        muscle = np.minimum(muscle, np.minimum(above, below))
        mix(hu, MUSCLE_HU, share_inside(np.minimum(nerve, muscle), edge_mm))
        eye = ellipsoid(pair, EYE_MM, (12.3, 12.3, 12.3))
        mix(hu, 50.0, share_inside(eye, edge_mm))
        mix(hu, VITREOUS_HU, share_inside(eye + 1.6, edge_mm))
        lens = ellipsoid(pair, (EYE_MM[0], EYE_MM[1] + 8.5, EYE_MM[2]), (4.6, 2.2, 4.6))
        mix(hu, LENS_HU, share_inside(lens, edge_mm))
