"""`fmct export`: write a run's weights as a portable package."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, require_empty_folder


class Export(Command):
    """Copy a run's weight package out of the run, checked; make it of the last checkpoint if the run isn't finished.

    Example: fmct export runs/pretrain_mae_vitb --out weights/
    """

    run_folder: CliPositionalArg[Path] = Field(description="folder of a run")
    out: Path = Field(description="folder to write; must not hold files yet")

    def run(self) -> ExitCode:
        """Check the checksums and the tensors, copy or write, and check what was written."""
        from fmct.experiment.runs import LAST
        from fmct.models.packaged import CONFIG, load_package, package_folder

        checkpoint = self.run_folder / LAST
        if checkpoint.exists() and not (self.run_folder / "weights" / CONFIG).exists():
            from fmct.experiment.weights import export_checkpoint

            require_empty_folder(self.out)
            export_checkpoint(checkpoint, self.out)
        else:
            folder = package_folder(self.run_folder)
            load_package(folder)
            require_empty_folder(self.out)
            shutil.copytree(folder, self.out, dirs_exist_ok=True)
        model = load_package(self.out)
        print(f'wrote {self.out}, {model.config.steps} steps; load it with fmct.load("{self.out}")')
        return ExitCode.DONE


COMMAND = Export

if __name__ == "__main__":
    sys.exit(main(COMMAND))
