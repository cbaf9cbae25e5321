"""What makes one head differ from another: parameters, drawn once from a seed, applied when the head is rendered."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from fmct.data.phantom.shapes import Array, transformed
from fmct.experiment.config import Config

Triple = tuple[float, float, float]


class Pose(Config):
    """How a head lies in the scanner: patient coordinates are RAS in mm, the couch lies behind it along x and z."""

    pitch_deg: float = Field(0.0, description="rotation about x, positive chin up")
    roll_deg: float = Field(0.0, description="rotation about y")
    yaw_deg: float = Field(0.0, description="rotation about z")
    shift_mm: Triple = Field((0.0, 0.0, 0.0), description="anterior commissure in patient coordinates")
    neck_mm: float = Field(62.0, description="scanned length below the anterior commissure")
    vertex_mm: float = Field(8.0, description="air scanned above the vertex")

    @property
    def matrix(self) -> Array:
        """Rotation from the head's frame to patient coordinates, (3, 3)."""
        return rotation(self.yaw_deg, self.pitch_deg, self.roll_deg)

    def to_head(self, points_mm: Array) -> Array:
        """Return (3, N) patient coordinates in the head's frame."""
        return transformed(self.matrix.T, points_mm - np.array(self.shift_mm, np.float32)[:, None])

    def to_patient(self, points_mm: Array) -> Array:
        """Return (3, N) points of the head's frame in patient coordinates."""
        return transformed(self.matrix, points_mm) + np.array(self.shift_mm, np.float32)[:, None]


@lru_cache(maxsize=64)
def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Array:
    """Return the rotation by yaw about z, then pitch about the new x, then roll about the newest y, (3, 3)."""
    angles = (yaw_deg, pitch_deg, roll_deg)
    matrix = np.asarray(Rotation.from_euler("ZXY", angles, degrees=True).as_matrix(), np.float32)
    matrix.setflags(write=False)  # it is shared
    return matrix


class HeadParameters(Config):
    """The anatomy of one person. Lengths in mm; the head's frame is described in `skull`."""

    seed: int = Field(description="seeds the fields that fold the cortex and roughen the bone")
    age_years: int = Field(55, ge=18, le=95)
    sex: Literal["F", "M"] = "F"
    scale: Triple = Field((1.0, 1.0, 1.0), description="size against the average along x, y, z")
    taper: float = Field(0.05, description="how much narrower the forehead is than the middle")
    skew: float = Field(0.0, description="positional asymmetry of the vault")
    irregularity_mm: float = Field(1.5, ge=0)
    skull_mm: float = Field(6.0, gt=2, description="usual thickness of the vault's bone")
    scalp_mm: float = Field(5.5, gt=2, description="thickness of the scalp over the vault")
    gap_mm: float = Field(1.5, ge=0, description="cerebrospinal fluid between inner table and cortex")
    sulcus_mm: float = Field(0.7, ge=0, description="half the width of a sulcus at the surface")
    ventricle_scale: float = Field(1.0, gt=0, description="width of the ventricles against the average")
    ventricle_asymmetry: float = Field(0.0, gt=-0.5, lt=0.5, description="how much wider the right lateral one is")
    temporal_horn_scale: float = Field(1.0, gt=0, description="width of the temporal horns beyond the other ventricles")
    third_ventricle_scale: float = Field(1.0, gt=0, description="width of the third beyond the other ventricles")
    sinus_scale: float = Field(1.0, gt=0, description="size of the paranasal sinuses and mastoid cells")
    detailed: bool = Field(False, description="vessels, calcium, sutures and unevenness, by the seed (see `details`)")
    pose: Pose = Pose()


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw how a head lies: a few degrees and millimeters off, anywhere along the couch."""
    return Pose(
        pitch_deg=float(rng.normal(0.0, 6.0)),
        roll_deg=float(rng.normal(0.0, 2.5)),
        yaw_deg=float(rng.normal(0.0, 4.0)),
        shift_mm=(float(rng.normal(0.0, 4.0)), float(rng.normal(15.0, 5.0)), float(rng.uniform(-80.0, 80.0))),
        neck_mm=float(rng.uniform(56.0, 84.0)),
        vertex_mm=float(rng.uniform(2.0, 12.0)),
    )


def draw_head(rng: np.random.Generator) -> HeadParameters:
    """Draw a head. With age, fluid spaces widen; men's heads are larger on average.

    Args:
        rng: all randomness comes from here; the same state gives the same head.
    """
    age = int(rng.integers(20, 92))
    sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
    atrophy = float(np.clip((age - 20) / 70.0 + rng.normal(0.0, 0.22), 0.0, 1.2))
    size = (0.96 if sex == "F" else 1.0) * (1.0 + rng.normal(0.0, 0.02))
    scale = tuple(float(size * (1.0 + np.clip(rng.normal(0.0, 0.025), -0.06, 0.06))) for _ in range(3))
    return HeadParameters(
        seed=int(rng.integers(2**31)),
        age_years=age,
        sex=sex,
        scale=(scale[0], scale[1], scale[2]),
        taper=float(rng.uniform(0.02, 0.11)),
        skew=float(rng.normal(0.0, 0.025)),
        irregularity_mm=float(rng.uniform(0.8, 2.2)),
        skull_mm=float(np.clip(rng.normal(6.2, 1.0), 4.2, 9.0)),
        scalp_mm=float(np.clip(rng.normal(5.5, 1.2), 3.5, 9.0)),
        gap_mm=float(0.7 + 2.2 * atrophy * rng.uniform(0.6, 1.2)),
        sulcus_mm=float(0.25 + 1.0 * atrophy * rng.uniform(0.7, 1.2)),
        ventricle_scale=float(np.exp(rng.normal(-0.15, 0.16)) * (1.0 + 0.6 * atrophy)),
        ventricle_asymmetry=float(np.clip(rng.normal(0.0, 0.08), -0.25, 0.25)),
        sinus_scale=float(rng.uniform(0.75, 1.2)),
        pose=draw_pose(rng),
    )
