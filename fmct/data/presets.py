"""What preprocessing does, as settings whose hash names the cache.

A new preset is a class here, its name in `AnySettings` and `PRESETS`, and a line in `volume_making`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from fmct.console.errors import UsageError, nearest
from fmct.experiment.config import Config, differences

DEFACING_HU = (-500, 500)


class Settings(Config):
    """How a preset makes volumes; base of all presets."""

    preset: str = Field(description="which way of preprocessing this is")
    version: int = Field(description="raised whenever the same settings would give other volumes")

    def canonical_json(self) -> str:
        """Return the settings as JSON in one fixed form, for hashing."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def folder_name(self) -> str:
        """Return the name of the cache folder: the preset's, and 8 hex digits of the settings' SHA-256."""
        return f"{self.preset}-{hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]}"

    def described(self) -> dict[str, Any]:
        """Return the settings and what each means, as settings.json has them."""
        fields = type(self).model_fields
        return {
            "settings": self.model_dump(mode="json"),
            "meaning": {name: field.description for name, field in fields.items()},
        }


class IsotropicSettings(Settings):
    """True geometry, one spacing on all axes, cropped on the head, HU kept as they are."""

    preset: Literal["isotropic"] = Field("isotropic", description="which way of preprocessing this is")
    version: Literal[3] = Field(3, description="raised whenever the same settings would give other volumes")
    spacing_mm: float = Field(
        1.5, gt=0.2, le=10, description="distance of voxel centers on all axes; each is the mean over its extent"
    )
    shape_voxels: int | None = Field(
        144, ge=8, le=1024, description="volumes are cubes of this many voxels a side; null: as large as need be"
    )
    head_crop: bool = Field(
        True, description="center on the head and set what isn't head to air; false: the scan's whole bounding box"
    )
    head_height_mm: float = Field(190.0, gt=0, description="how much is kept below the vertex, with head_crop")
    head_margin_mm: float = Field(
        1.5, ge=0, description="how far around the skin the scan is kept, with head_crop; beyond there is hu_min"
    )
    hu_min: int = Field(
        -1024, ge=-1024, description="HU are raised to at least this before resampling; also the padding"
    )
    hu_max: int = Field(3071, le=32767, description="HU are lowered to at most this before resampling")

    deface: bool = Field(
        False, description="everything in front of a plane that clears the brain is hu_min: eyes, nose, mouth, chin"
    )
    deface_ears: bool = Field(False, description="with deface, so is what lies beyond a plane at each side")

    @model_validator(mode="before")
    @classmethod
    def whole_scan_has_no_shape(cls, values: Any) -> Any:
        """Without a head crop volumes are as large as the scan, so the default shape doesn't apply."""
        if isinstance(values, Mapping) and values.get("head_crop") is False:
            return {"shape_voxels": None, **values}
        return values

    @model_validator(mode="after")
    def fits_together(self) -> IsotropicSettings:
        """Refuse a shape that nothing would be cropped to, and an empty range of HU."""
        if not self.head_crop and self.shape_voxels is not None:
            raise ValueError("without head_crop the shape follows from the scan: leave shape_voxels out")
        if self.hu_min >= self.hu_max:
            raise ValueError(f"hu_min {self.hu_min} must be below hu_max {self.hu_max}")
        if self.deface_ears and not self.deface:
            raise ValueError("deface_ears goes with deface: a face without ears is still a face")
        if self.deface and not (self.hu_min <= DEFACING_HU[0] and self.hu_max >= DEFACING_HU[1]):
            raise ValueError(f"deface needs air and bone: HU from {DEFACING_HU[0]} to {DEFACING_HU[1]} must be kept")
        return self


class FmhctSettings(Settings):
    """What the published networks were trained on: 1 mm by cubic splines, cropped to what is above 0 HU, windows."""

    preset: Literal["fmhct"] = Field("fmhct", description="which way of preprocessing this is")
    version: Literal[1] = Field(1, description="raised whenever the same settings would give other volumes")
    channels: Literal[1, 3] = Field(
        3, description="3: windows with center 40 and width 80, 80 and 200, 600 and 2800 HU; 1: 40 and 300"
    )
    shape_voxels: int = Field(
        96, ge=8, le=512, description="each axis of the box is averaged to so many voxels: proportions aren't kept"
    )

    @property
    def windows_hu(self) -> tuple[tuple[float, float], ...]:
        """Center and width of each channel's window, HU."""
        return ((40, 80), (80, 200), (600, 2800)) if self.channels == 3 else ((40, 300),)


AnySettings = IsotropicSettings | FmhctSettings
PRESETS: dict[str, type[AnySettings]] = {"isotropic": IsotropicSettings, "fmhct": FmhctSettings}


def parse_settings(values: Mapping[str, Any], source: str) -> AnySettings:
    """Build the settings that a cache or a weight package names.

    Args:
        values: the fields, `preset` among them.
        source: where they come from, for messages.

    Raises:
        UsageError: when the preset is unknown or a field doesn't hold.
    """
    preset = str(values.get("preset", ""))
    if preset not in PRESETS:
        guess = nearest(preset, PRESETS)
        fix = f"did you mean {guess!r}?" if guess else f"known presets: {', '.join(PRESETS)}; a newer fmct may know it"
        raise UsageError(f"the preprocessing preset {preset!r} is unknown", source, fix)
    try:
        return PRESETS[preset].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise UsageError(
            f"{field}: {first['msg']}", source, "mend the value, or use the version that wrote it"
        ) from error


def check_same_settings(expected: AnySettings, found: AnySettings, cache: Path, fix: str) -> None:
    """Check that a cache was made the way that weights expect their scans.

    Raises:
        UsageError: naming what differs.
    """
    changes = differences(expected.model_dump(), found.model_dump())
    if changes:
        raise UsageError(
            f"the cache was made with other preprocessing than the weights expect ({'; '.join(changes)})", cache, fix
        )


def require_hu(settings: AnySettings, cache: Path) -> IsotropicSettings:
    """Return the settings of a cache whose volumes are HU on an even grid: what measures and pictures are made of.

    Raises:
        UsageError: when they are something else.
    """
    if isinstance(settings, IsotropicSettings):
        return settings
    raise UsageError(
        f"the volumes of the preset {settings.preset} are display windows, not HU",
        cache,
        "name a cache of the same scans made with --preset isotropic",
    )
