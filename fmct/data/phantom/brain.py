"""The brain: folded cortex over white matter, deep nuclei, fluid, falx and tentorium, cerebellum and brainstem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.phantom.cortex import Folding
from fmct.data.phantom.details import Details
from fmct.data.phantom.fluid import Fluid
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
    smooth_max,
    smooth_min,
    smooth_step,
)
from fmct.data.phantom.ventricles import fluid_spaces

GREY_HU, WHITE_HU, CSF_HU, DURA_HU, CORD_HU = 37.0, 29.5, 8.0, 52.0, 34.0
FAR_MM, NEAR_SULCUS_MM = 99.0, 7.0
CORTEX_MM, FOLIA_WAVELENGTH_MM = 3.2, 9.0


@dataclass(frozen=True)
class BrainPoints:
    """Points in the cranial cavity.

    Attributes:
        points_mm: (3, N) where they are, in the head's frame.
        depth_mm: (N,) depth under the inner table.
        template_mm: (3, N) what lies there: the place in the average head of the tissue now at each point.
        tissue_depth_mm: (N,) depth that this tissue had before anything displaced it.
        edge_mm: width of a voxel.
        fluid: where cerebrospinal fluid is, once the brain has been painted; None when nobody asks.
    """

    points_mm: Array
    depth_mm: Array
    template_mm: Array
    tissue_depth_mm: Array
    edge_mm: float
    fluid: Fluid | None = None


class Brain:
    """The contents of one cranial cavity, without findings."""

    def __init__(self, head: HeadParameters) -> None:
        self.head = head
        self.details = Details(head) if head.detailed else None
        self.folding = Folding(head, self.details)
        self.texture = PlaneWaves(head.seed + 8, wavelength_mm=34.0, waves=6)
        self.folia = NoiseField(head.seed + 9, FOLIA_WAVELENGTH_MM, nodes=48, nodes_per_wavelength=5.0)

    def paint(self, hu: Array, at: BrainPoints) -> None:
        """Fill `hu`, (N,), in place at all points of the cavity, and `at.fluid` where it is wanted."""
        template, edge, fluid = at.template_mm, at.edge_mm, at.fluid
        texture = self.texture.at(template)
        behind = tentorial_side(template)
        lower = np.flatnonzero(behind < edge)
        upper = np.flatnonzero(behind > -edge)
        hu[:] = CSF_HU
        below = wet_below = np.empty(0, np.float32)
        if lower.size:
            below, wet_below = self._hindbrain(template[:, lower], at.tissue_depth_mm[lower], behind[lower], edge)
        if upper.size:
            hu[upper], wet = self._cerebrum(template[:, upper], at.tissue_depth_mm[upper], texture[upper], edge)
            if fluid is not None:
                fluid.subarachnoid[upper] = wet
        if lower.size:
            share = share_inside(behind[lower], edge)
            hu[lower] += share * (below - hu[lower])
            if fluid is not None:
                fluid.subarachnoid[lower] += share * (wet_below - fluid.subarachnoid[lower])
        dura = share_between(behind, -0.6, 0.6, edge) * smooth_step(-template[1], 30.0, 42.0)
        dura *= smooth_step(np.abs(template[0]), 8.0, 16.0)
        mix(hu, DURA_HU, dura)
        inner = self._around_spaces(template, at.tissue_depth_mm)
        spaces = fluid_spaces(self.head, template[:, inner])
        ventricles, cisterns = share_inside(spaces.ventricles, edge), share_inside(spaces.cisterns, edge)
        part = hu[inner]
        mix(part, CSF_HU, np.maximum(ventricles, cisterns))
        hu[inner] = part
        stem = np.flatnonzero((np.abs(template[0]) < 26.0) & (template[2] < 4.0) & (template[1] < 0.0))
        stem_share = brainstem(template[:, stem], edge)
        part = hu[stem]
        mix(part, CORD_HU, stem_share)
        hu[stem] = part
        if fluid is not None:
            fluid.displaced_by(dura)
            fluid.add_inner(inner, ventricles, cisterns)
            fluid.displaced_by(stem_share, stem)
        if self.details is not None:
            to_ventricles = np.full(hu.shape, FAR_MM, np.float32)
            to_ventricles[inner] = spaces.ventricles
            self.details.paint_brain(hu, template, at.tissue_depth_mm, to_ventricles, edge)

    def _around_spaces(self, template: Array, depth: Array) -> Indices:
        """Return where ventricles and cisterns can be: deep in the brain; and over the sella, but in plain heads."""
        x, y, z = np.abs(template[0]), template[1], template[2]
        deep = (x < 60.0) & (depth > 12.0)
        if self.head.detailed:
            deep |= (x < 36.0) & (np.abs(y - 2.0) < 18.0) & (np.abs(z + 20.0) < 10.0) & (depth > 1.0)
        return np.flatnonzero(deep)

    def _cerebrum(self, template: Array, depth: Array, texture: Array, edge: float) -> tuple[Array, Array]:
        """Return HU and share of fluid of both hemispheres.

        From outside: fluid, ribbon of grey matter, white matter, deep nuclei; the falx between.
        """
        head = self.head
        surface = depth - np.float32(head.gap_mm) * (1.0 + 0.35 * texture)
        sheet, reach = self.folding.sulcus(template)
        middle = template if self.details is None else self.details.bent(template)
        fissure, falx = midline(middle, depth)
        narrowing = np.maximum(1.0 - np.maximum(surface, 0.0) / reach, 0.0)
        half_width = np.float32(head.sulcus_mm) * narrowing * (1.0 + 0.4 * texture)
        if self.details is not None:
            near = np.flatnonzero((narrowing > 0.0) & (np.abs(sheet) < NEAR_SULCUS_MM))
            half_width[near] *= self.details.unevenness(template[:, near])
        open_sulcus = narrowing > 0.0
        sylvian = sylvian_fissure(template, 0.35 * head.gap_mm + 0.6 * head.sulcus_mm)
        fissure_fluid = fissure - np.float32(0.5 + 0.35 * head.gap_mm)
        # Distance of the tissue from the nearest fluid; at the bottom of a sulcus the ribbon closes around it.
        to_sheet = np.abs(sheet) - half_width
        bottom = np.maximum(surface - reach, 0.0)
        to_sulcus = np.where(open_sulcus, to_sheet, np.sqrt(np.maximum(to_sheet, 0.0) ** 2 + bottom**2))
        to_fluid = np.minimum(np.minimum(surface, to_sulcus), np.minimum(fissure_fluid, sylvian))
        to_base = tentorial_side(template)
        to_fluid = np.minimum(to_fluid, np.maximum(to_base, 0.5))
        hu = WHITE_HU + np.float32(0.7) * texture
        grey = share_inside(to_fluid - np.float32(CORTEX_MM), max(edge, 1.5))
        deep = deep_nuclei(template)
        mix(hu, GREY_HU + np.float32(0.7) * texture, np.maximum(grey, share_inside(deep, 2.5)))
        sulcal = share_between(sheet, -half_width, half_width, edge) * open_sulcus
        fluid = np.maximum(share_inside(surface, edge), np.maximum(sulcal, share_inside(fissure_fluid, edge)))
        fluid = np.maximum(fluid, share_inside(sylvian, edge))
        mix(hu, CSF_HU, fluid)
        dura = share_between(middle[0], -0.7, 0.7, edge) * falx
        mix(hu, DURA_HU, dura)
        return hu, fluid - dura * fluid

    def _hindbrain(self, template: Array, depth: Array, behind: Array, edge: float) -> tuple[Array, Array]:
        """Return HU and share of fluid below the tentorium: cerebellum, fluid around it and for the brainstem."""
        cerebellum = np.minimum(depth - np.float32(self.head.gap_mm * 0.7), -behind - np.float32(0.8))
        pair = mirrored(template)
        body = smooth_min(
            ellipsoid(pair, (25.0, -64.0, -34.0), (30.0, 34.0, 27.0)),
            ellipsoid(template, (0.0, -64.0, -27.0), (18.0, 27.0, 25.0)),
            8.0,
        )
        cerebellum = smooth_min(cerebellum, -body, 4.0)
        folia = self.folia.at(template * np.array([[0.45], [1.0], [1.0]], np.float32))
        core = smooth_step(cerebellum + 2.5 * folia, 8.0, 13.0)
        hu = GREY_HU + np.float32(1.0) * folia - core * np.float32(GREY_HU - WHITE_HU)
        fluid = 1.0 - share_inside(-cerebellum, edge)
        mix(hu, CSF_HU, fluid)
        return hu, fluid


def tentorial_side(template: Array) -> Array:
    """Return the distance to the tentorium with the petrous ridges, negative below and behind (cerebellum's side)."""
    x, y, z = np.abs(template[0]), template[1], template[2]
    above = (z + np.float32(1.0) + np.float32(0.46) * x - np.float32(0.32) * np.minimum(y + 42.0, 0.0)) * np.float32(
        0.87
    )
    before = (y + np.float32(9.0) + np.float32(0.58) * x) * np.float32(0.86)
    return smooth_max(above, before, 4.0)


def midline(template: Array, depth: Array) -> tuple[Array, Array]:
    """Return the distance to the interhemispheric fissure, and where the falx hangs in it (0 to 1).

    The fissure ends at the corpus callosum and the hypothalamus.
    """
    x, y, z = template
    around = np.sqrt(((y + 9.0) / 43.0) ** 2 + ((z - 8.0) / 21.0) ** 2)
    within = np.maximum((1.0 - around) * np.float32(24.0), 0.0)
    fissure = np.sqrt(x * x + within * within)
    falx = smooth_step(around, 1.12, 1.3) * smooth_step(z - 0.25 * y, -14.0, 0.0)
    falx *= 1.0 - smooth_step(depth, 38.0, 50.0) * smooth_step(y, 0.0, 20.0)
    return fissure, falx


def sylvian_fissure(template: Array, half_width: float) -> Array:
    """Return the distance to the Sylvian fissures: a sheet in from the side, ending on the insula."""
    x, y, z = np.abs(template[0]), template[1], template[2]
    slanted = (z + np.float32(6.0) - np.float32(0.35) * (8.0 - y) + np.float32(0.8) * np.sin(x * 0.3)) * np.float32(
        0.94
    )
    across = np.maximum(np.maximum(np.float32(37.0) - x, y - 24.0), -y - 34.0)
    stem = smooth_max(np.abs(slanted) - np.float32(half_width), across, 2.0)
    bend = np.float32(0.009) * (y + 2.0) ** 2
    shell = np.abs(x + bend - np.float32(38.0)) - np.float32(0.5 * half_width)
    insula = smooth_max(shell, np.sqrt(((y + 2.0) / 20.0) ** 2 + ((z - 3.0) / 11.0) ** 2) * 12.0 - 12.0, 2.0)
    return smooth_min(stem, insula, 3.0)


def deep_nuclei(template: Array) -> Array:
    """Return the distance to thalami, caudate heads and lentiform nuclei."""
    pair = mirrored(template)
    thalamus = ellipsoid(pair, (11.0, -17.0, 6.0), (8.5, 14.0, 8.5))
    caudate = ellipsoid(pair, (15.0, 14.0, 10.0), (6.0, 11.0, 9.0))
    x, y = pair[0] - np.float32(26.0), pair[1] - np.float32(0.0)
    turned = np.stack([x * 0.95 + y * 0.3, y * 0.95 - x * 0.3, pair[2]])
    lentiform = ellipsoid(turned, (0.0, 0.0, 2.0), (6.5, 17.0, 9.5))
    return np.minimum(np.minimum(thalamus, caudate), lentiform)


def brainstem(template: Array, edge: float) -> Array:
    """Return the share of midbrain, pons, medulla and cord, which leave third and fourth ventricle open."""
    pair = mirrored(template)
    peduncle = capsule(pair, (6.0, -17.0, -2.0), (10.0, -15.0, -17.0), 7.0, 7.5)
    tectum = capsule(template, (0.0, -28.0, -4.0), (0.0, -30.0, -18.0), 10.5)
    pons = ellipsoid(template, (0.0, -27.0, -31.0), (17.0, 11.0, 14.0))
    arm = capsule(pair, (10.0, -30.0, -33.0), (25.0, -48.0, -36.0), 8.0)
    medulla = capsule(template, (0.0, -35.0, -42.0), (0.0, -46.0, -62.0), 8.5, 6.5)
    cord = capsule(template, (0.0, -46.0, -62.0), (0.0, -52.0, -140.0), 6.5, 5.5)
    stem = smooth_min(smooth_min(peduncle, tectum, 5.0), smooth_min(pons, arm, 5.0), 5.0)
    stem = smooth_min(stem, smooth_min(medulla, cord, 3.0), 5.0)
    third = ellipsoid(template, (0.0, -10.0, 1.0), (3.0, 16.0, 12.0))
    fourth = ellipsoid(template, (0.0, -47.0, -34.0), (6.0, 7.0, 13.0))
    keep = smooth_step(np.minimum(third, fourth), -0.5, 1.0)
    return share_inside(stem, edge) * keep
