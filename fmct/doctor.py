"""`fmct doctor`: what wouldn't work here, and how to mend it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from fmct.checkup.finding import Finding


class Doctor(Command):
    """Look at packages, processors, GPU, memory, disks, limits and clock, and say what is wrong and how to mend it.

    With --config, the experiment's manifest, cache and weights are looked at too, and a probe of a few steps suggests
    data.batch_size and data.workers. Nothing but a probe file is written. Exit code 1 when something must be mended.

    Example: fmct doctor
    Example: fmct doctor --config experiments/pretrain_mae_vitb.yaml
    """

    config: list[Path] = Field([], description="experiment file, then overlays; repeat for several")
    cache: Path = Field(Path("cache"), description="where the cache shall be written")
    runs: Path = Field(Path("runs"), description="where runs shall be written")
    probe_s: float = Field(10.0, ge=0, description="with --config: about how long steps are tried; 0: not at all")
    json_output: bool = Field(False, alias="json", description="print the findings as JSON")

    def run(self) -> ExitCode:
        """Look at everything and print what was found, as it is found."""
        from fmct.checkup.finding import MARKS

        if not self.config and "probe_s" in self.model_fields_set:
            fix = "add --config EXPERIMENT.yaml, whose steps are tried"
            raise UsageError("--probe-s means nothing without --config", "the command line of `fmct doctor`", fix)
        findings = []
        for finding in self._findings():
            findings.append(finding)
            if not self.json_output:
                print(finding.line(), flush=True)
        counts = {level: sum(one.level == level for one in findings) for level in MARKS}
        if self.json_output:
            print(json.dumps({"findings": [one.as_json() for one in findings], "counts": counts}, indent=2))
        elif counts["problem"]:
            print(f"\n{counts['problem']} to be mended, {counts['warning']} to think about.")
        else:
            print(f"\nReady; {counts['warning']} to think about.")
        return ExitCode.FAILED if counts["problem"] else ExitCode.DONE

    def _findings(self) -> Iterator[Finding]:
        from fmct.checkup.packages import check_packages

        packages = list(check_packages())
        yield from packages
        if any(finding.level == "problem" for finding in packages):
            return  # importing what is broken tells no more
        from fmct.checkup.machine import check_machine

        yield from check_machine({"cache folder": self.cache, "runs folder": self.runs})
        if self.config:
            from fmct.checkup.experiment_check import check_experiment

            yield from check_experiment(self.config, self.probe_s)


COMMAND = Doctor

if __name__ == "__main__":
    sys.exit(main(COMMAND))
