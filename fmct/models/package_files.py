"""What a weight package is on disk: its files, their checksums, and its configuration.

DIR/model.safetensors  the tensors
DIR/config.json        backbone, preprocessing, windows, head and labels
DIR/MODEL_CARD.md      for people
DIR/SHA256SUMS         the checksum of every file; written last, so that half a package has none
DIR/training.json      what the weights learned from, in figures; only in packages that `fmct export` made
DIR/model.onnx         the network for other runtimes; only with `fmct export --onnx`
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from fmct.console.errors import UsageError, require_file
from fmct.console.files import sha256, write_text_atomically
from fmct.data.presets import AnySettings
from fmct.experiment.config import Config
from fmct.models.backbones import BackboneConfig
from fmct.models.probe_heads import AnyHeadConfig
from fmct.views.network_input import InputConfig

WEIGHTS, CONFIG, CARD, SUMS = "model.safetensors", "config.json", "MODEL_CARD.md", "SHA256SUMS"
TRAINING, ONNX = "training.json", "model.onnx"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""What a `Path` makes of `https://host/name` begins like this; a drive's letter doesn't."""


class PackageConfig(Config):
    """What config.json holds."""

    format: Literal[1] = 1
    name: str = Field(description="the experiment that made the weights")
    task: str = Field(description="mae, dino, classifier or the kind of an imported checkpoint")
    fmct_version: str
    steps: int = Field(description="optimizer steps that made the weights")
    backbone: BackboneConfig
    input: InputConfig | None = Field(description="null: the weights take features, not scans")
    preprocessing: Annotated[AnySettings, Field(discriminator="preset")] | None = Field(
        description="null: the weights' own preprocessing isn't known here"
    )
    head: AnyHeadConfig | None = None
    labels: tuple[str, ...] = ()


def package_folder(path: Path) -> Path:
    """Return the package that a path means: the folder itself, or the `weights` folder of a run.

    Raises:
        UsageError: when there is neither, or it is a URL.
    """
    if URL.match(str(path)):
        raise UsageError(
            "weights are never fetched from a URL", path, "download the package yourself, and name its folder"
        )
    require_file(path, "the weight package", "name a folder that holds model.safetensors, or a finished run")
    for folder in (path, path / "weights"):
        if (folder / CONFIG).exists():
            return folder
    raise UsageError(
        "no weight package here",
        path,
        "name a folder with config.json and model.safetensors, or a finished run; of others, `fmct export` makes one",
    )


def write_sums(folder: Path) -> None:
    """Write the checksums of all files of a package that are there."""
    present = [name for name in (WEIGHTS, CONFIG, CARD, TRAINING, ONNX) if (folder / name).exists()]
    write_text_atomically(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in present))


def check_sums(folder: Path) -> None:
    """Check every file of a package against its checksum.

    Raises:
        UsageError: when a file is missing or altered, or the weights or their configuration have no checksum.
    """
    sums = require_file(folder / SUMS, "the checksum file", "export the package again with `fmct export`")
    lines = [line.partition("  ") for line in sums.read_text(encoding="utf-8").splitlines()]
    listed = {name for _, _, name in lines}
    for name in (WEIGHTS, CONFIG):
        if name not in listed:
            raise UsageError(f"no checksum of {name}", sums, "copy the package again from its source")
    for expected, _, name in lines:
        path = require_file(folder / Path(name).name, "a file of the weight package", "copy the package again")
        if sha256(path) != expected:
            raise UsageError("the file doesn't match its checksum", path, "copy the package again from its source")


def read_config(folder: Path) -> PackageConfig:
    """Read and check config.json and the checksums of a package.

    Raises:
        UsageError: when a file is missing or altered.
    """
    check_sums(folder)
    try:
        return PackageConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{key}: {first['msg']}", folder / CONFIG, "use the fmct version that wrote the package, or export it again"
        ) from error
