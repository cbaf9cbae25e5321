"""`fmct import-reference`: turn a published FM-HCT checkpoint into a weight package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct import __version__
from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError, require_empty_folder


class ImportReference(Command):
    """Read a checkpoint as the published code writes it and write a weight package.

    Every tensor that is loaded, dropped (heads, decoder), missing or unexpected is listed; missing or unexpected ones
    are an error.

    Example: fmct import-reference dino_checkpoint.pt --out weights/fmhct_dino
    """

    checkpoint: CliPositionalArg[Path] = Field(description="published checkpoint (.pt)")
    out: Path = Field(description="folder to write; must not hold files yet")
    which: Literal["teacher", "student"] = Field("teacher", description="which network of a DINO checkpoint")
    heads: int = Field(12, gt=0, description="attention heads: the checkpoint doesn't say")

    def run(self) -> ExitCode:
        """Read, report and write."""
        from fmct.data.presets import FmhctSettings
        from fmct.models.packaged import PackageConfig, PackagedModel, load_package, save_package
        from fmct.models.reference import load_reference
        from fmct.models.reference_axes import reordered
        from fmct.views.network_input import InputConfig
        from fmct.views.windows import Window

        require_empty_folder(self.out)
        imported = load_reference(self.checkpoint, self.which, self.heads)
        backbone = reordered(imported.model)
        report = imported.report
        print(f"{report.source}: {report.kind}, {report.which}")
        for name, ours in report.loaded.items():
            print(f"  loaded      {name} -> {ours}")
        for name, reason in report.dropped.items():
            print(f"  dropped     {name} ({reason})")
        print(
            f"{len(report.loaded)} loaded, {len(report.dropped)} dropped, {len(report.missing)} missing, "
            f"{len(report.unexpected)} unexpected"
        )
        side = {grid * patch for grid, patch in zip(backbone.grid_zyx, backbone.patch_zyx, strict=True)}
        if len(side) != 1:
            raise UsageError(
                f"the input isn't a cube: sides {sorted(side)}", self.checkpoint, "only cubes are packaged"
            )
        channels = backbone.in_channels
        if channels not in {1, 3}:
            raise UsageError(
                f"the checkpoint has {channels} input channels", self.checkpoint, "published checkpoints have 1 or 3"
            )
        settings = FmhctSettings.model_validate({"channels": channels, "shape_voxels": side.pop()})
        windows = tuple(Window(level_hu=center, width_hu=width) for center, width in settings.windows_hu)
        config = PackageConfig(
            name=f"fmhct_{imported.kind}",
            task=imported.kind,
            fmct_version=__version__,
            steps=0,
            backbone=backbone.config,
            input=InputConfig(voxels=settings.shape_voxels, windows=windows),
            preprocessing=settings,
        )
        model = PackagedModel(config)
        model.backbone.load_state_dict(backbone.state_dict())
        card = (
            f"# {config.name}\n\nWeights of a published FM-HCT checkpoint ({imported.kind}), converted by fmct "
            f"{__version__}. Their terms of use are those of their authors. For research only; no diagnosis.\n\n"
            f"Input: {channels} windows of {settings.shape_voxels}³ voxels in [0, 1], made by the preset fmhct, which "
            "is the published preprocessing; `fmct embed` and `model.embed(path)` apply it to scans on disk. Windows "
            "come before the resize there, so the volumes of such a cache are windowed already.\n\n"
            "`model.tokens(x)` takes (B, C, Z, Y, X) like every model of fmct: the published order of axes, right, "
            "anterior, superior, was turned in the weights. The number of attention heads, "
            f"{backbone.config.heads}, was given by whoever converted them: checkpoints don't say it.\n"
        )
        save_package(self.out, model, card)
        load_package(self.out)
        print(f"wrote {self.out}")
        return ExitCode.DONE


COMMAND = ImportReference

if __name__ == "__main__":
    sys.exit(main(COMMAND))
