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
    """Copy a finished run's weight package out of the run, checked.

    Example: fmct export runs/pretrain_mae_vitb --out weights/
    """

    run_folder: CliPositionalArg[Path] = Field(description="folder of a finished run")
    out: Path = Field(description="folder to write; must not hold files yet")

    def run(self) -> ExitCode:
        """Check the checksums and the tensors, copy, and check the copy."""
        from fmct.models.packaged import load_package, package_folder

        folder = package_folder(self.run_folder)
        load_package(folder)
        require_empty_folder(self.out)
        shutil.copytree(folder, self.out, dirs_exist_ok=True)
        load_package(self.out)
        print(f'wrote {self.out}; load it with fmct.load("{self.out}")')
        return ExitCode.DONE


COMMAND = Export

if __name__ == "__main__":
    sys.exit(main(COMMAND))
