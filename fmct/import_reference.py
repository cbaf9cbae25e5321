"""`fmct import-reference`: turn a published checkpoint – of FM-HCT, CT-FM or Merlin – into a weight package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct import __version__
from fmct.console.command import Command, check_flags, main
from fmct.console.errors import ExitCode, UsageError, require_empty_folder

if TYPE_CHECKING:
    from fmct.models.foreign import ForeignKind


class ImportReference(Command):
    """Read a checkpoint as the published code writes it and write a weight package.

    Every tensor that is loaded, dropped (heads, decoder), missing or unexpected is listed; missing or unexpected ones
    are an error. Of CT-FM and Merlin, which have many, what is dropped is counted by its reason.

    Example: fmct import-reference dino_checkpoint.pt --out weights/fmhct_dino
    """

    checkpoint: CliPositionalArg[Path] = Field(description="published checkpoint (.pt, of CT-FM .safetensors)")
    out: Path = Field(description="folder to write; must not hold files yet")
    kind: Literal["fmhct", "ctfm", "merlin"] = Field(
        "fmhct", description="whose it is: fmhct (DINO or MAE), ctfm (project-lighter), merlin (stanfordmimi)"
    )
    which: Literal["teacher", "student"] = Field("teacher", description="which network of a DINO checkpoint")
    heads: int = Field(12, gt=0, description="attention heads: the checkpoint doesn't say")
    spacing_mm: float | None = Field(
        None, gt=0, description="voxels to show ctfm or merlin (default: those that it was trained on, 1.0 and 1.5)"
    )
    shape_voxels: int | None = Field(
        None, gt=0, description="side of the cube that ctfm or merlin is shown (default: 224 and 144)"
    )

    def run(self) -> ExitCode:
        """Read, report and write."""
        foreign = ("spacing_mm", "shape_voxels")
        check_flags(self, f"--kind {self.kind}", flags_of_kinds(("which", "heads"), foreign))
        return self._fmhct() if self.kind == "fmhct" else self._foreign(self.kind)

    def _foreign(self, kind: ForeignKind) -> ExitCode:
        from fmct.data.presets import parse_settings
        from fmct.models.foreign import SHAPE_VOXELS, SPACING_MM, WINDOWS, load_foreign
        from fmct.models.packaged import PackageConfig, PackagedModel, load_package, save_package
        from fmct.views.network_input import InputConfig

        require_empty_folder(self.out)
        side = self.shape_voxels or SHAPE_VOXELS[kind]
        wanted = {"preset": "isotropic", "spacing_mm": self.spacing_mm or SPACING_MM[kind], "shape_voxels": side}
        settings = parse_settings(wanted, "the command line of `fmct import-reference`")
        imported = load_foreign(self.checkpoint, kind)
        dropped = "".join(f", {count} dropped ({reason})" for reason, count in imported.dropped.items())
        print(f"{self.checkpoint}: {kind}, {imported.loaded} tensors loaded{dropped}, 0 missing, 0 unexpected")
        window = WINDOWS[kind]
        config = PackageConfig(
            name=kind,
            task=kind,
            fmct_version=__version__,
            steps=0,
            backbone=imported.model.config,
            input=InputConfig(voxels=side, windows=(window,)),
            preprocessing=settings,
        )
        model = PackagedModel(config)
        model.backbone.load_state_dict(imported.model.state_dict())
        card = (
            f"# {kind}\n\nWeights of a published checkpoint, converted by fmct {__version__}. Their terms of use are "
            f"those of their authors. For research only; no diagnosis.\n\n"
            f"Input: one window of {window.level_hu:g} HU, width {window.width_hu:g} HU; {side}³ voxels of "
            f"{wanted['spacing_mm']:g} mm with the head alone, all else air, as the preset isotropic makes them: "
            "the authors' own preprocessing keeps the table and what is below the head. That features equal the "
            "authors' own wasn't tested.\n"
        )
        save_package(self.out, model, card)
        load_package(self.out)
        print(f"wrote {self.out}: {model.backbone.width} features, preprocessing {settings.folder_name()}")
        return ExitCode.DONE

    def _fmhct(self) -> ExitCode:
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


def flags_of_kinds(fmhct: Sequence[str], foreign: Sequence[str]) -> dict[str, Sequence[str]]:
    """Say which flags go with which kind, for `check_flags`."""
    return {"--kind fmhct": fmhct, "--kind ctfm": foreign, "--kind merlin": foreign}


COMMAND = ImportReference

if __name__ == "__main__":
    sys.exit(main(COMMAND))
