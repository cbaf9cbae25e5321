"""`fmct schema`: the JSON schema of experiment files, for editors."""

from __future__ import annotations

import json
import sys
from typing import Literal

from pydantic import Field

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode


class Schema(Command):
    """Print the JSON schema of experiment files, with which editors complete keys and mark mistakes.

    The files that come with fmct name theirs in their first line, as the YAML extensions of editors expect it:
    # yaml-language-server: $schema=schema.json

    Example: fmct schema > experiments/schema.json
    Example: fmct schema --of sweep > experiments/schema_sweep.json
    """

    of: Literal["experiment", "overlay", "sweep"] = Field(
        "experiment", description="experiment: a complete run; overlay: laid over one; sweep: a grid of runs"
    )

    def run(self) -> ExitCode:
        """Print it."""
        from fmct.experiment.json_schema import schema_of

        print(json.dumps(schema_of(self.of), indent=1, ensure_ascii=False))
        return ExitCode.DONE


COMMAND = Schema

if __name__ == "__main__":
    sys.exit(main(COMMAND))
