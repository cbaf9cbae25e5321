"""`fmct demo`: the whole way of a scan on a synthetic cohort, from files on disk to a report."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, FmctError, UsageError

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
LABELS = "ICH, IPH, SDH, MidlineShift"
REPEATED = {"preprocess", "report"}  # they do only what is left to do, or are quick


class Stage(NamedTuple):
    """A command of the demo, as a user would type it, and a file that exists once it is done."""

    title: str
    command: str
    arguments: list[str]
    result: Path


class Demo(Command):
    """Synthetic head CTs -> index -> preprocess -> pretrain -> adapt -> evaluate -> report, on a laptop CPU.

    Prints each command before it runs. What is done already is not done again; --fresh starts over.

    Example: fmct demo
    """

    out: Path = Field(Path("runs/demo"), description="folder for everything that the demo makes")
    smoke: bool = Field(False, description="a handful of scans and seconds of training, to see that all parts work")
    seed: int = Field(0, ge=0, description="of the cohort")
    workers: int = Field(2, gt=0, description="processes that make and preprocess scans")
    fresh: bool = Field(False, description="set an earlier demo in the same folder aside, under a numbered name")

    def run(self) -> ExitCode:
        """Run the stages in order.

        Raises:
            FmctError: naming the stage that failed.
        """
        from fmct.experiment.runs import set_aside

        if not EXPERIMENTS.is_dir():
            raise UsageError("the experiment files aren't there", EXPERIMENTS, "run the demo from a clone of fmct")
        if self.fresh and self.out.exists():
            print(f"the earlier demo is now in {set_aside(self.out)}")
        start = time.monotonic()
        stages = list(self._stages())
        for number, stage in enumerate(stages, 1):
            print(f"\n[{number}/{len(stages)}, {time.monotonic() - start:.0f} s] {stage.title}", flush=True)
            if stage.result.exists() and stage.command not in REPEATED:
                print(f"done already: {stage.result}")
                continue
            print(f"$ fmct {stage.command} {' '.join(stage.arguments)}", flush=True)
            module = importlib.import_module(f"fmct.{stage.command}")
            code = module.main(stage.arguments) if stage.command == "fit" else main(module.COMMAND, stage.arguments)
            if code not in {ExitCode.DONE, ExitCode.SOME_REJECTED}:
                raise FmctError(
                    f"the stage «{stage.title}» ended with exit code {code}",
                    f"fmct {stage.command} {' '.join(stage.arguments)}",
                    "mend what it says above and run `fmct demo` again: it goes on from there",
                )
        print(f"\n{time.monotonic() - start:.0f} s in all. Synthetic scans: nothing here says how patients fare.")
        print(f"Open {self.out / 'report.html'}")
        return ExitCode.DONE

    def _stages(self) -> Iterator[Stage]:
        cohort, cache = self.out / "cohort", self.out / "cache"
        scans, side, spacing = (32, 48, 4.5) if self.smoke else (360, 48, 4.5)
        manifest = cohort / "manifest.csv"
        indexed, labeled = cohort / "indexed.csv", cohort / "labeled.csv"
        coarse = ["--pixel-mm", "1.5", "--matrix", "160", "--slice-mm", "4.5"]
        phantom = ["--n", str(scans), "--sites", "3", "--seed", str(self.seed), "--workers", str(self.workers)]
        yield Stage(
            f"write {scans} synthetic heads as DICOM series and NIfTI files",
            "phantom",
            [*phantom, *coarse, "--out", str(cohort)],
            cohort / "truth.csv",
        )
        yield Stage(
            "find the scans and read their geometry",
            "index",
            [
                str(cohort),
                "--out",
                str(indexed),
                "--table",
                str(cohort / "truth.csv"),
                "--key-file",
                str(self.out / "key"),
            ],
            indexed,
        )
        yield Stage(
            f"add the labels {LABELS}",
            "label",
            [str(indexed), "--table", str(cohort / "truth.csv"), "--on", "path", "--out", str(labeled)],
            labeled,
        )
        fractions = "train=0.5,val=0.25,test=0.25" if self.smoke else "pretrain=0.3,train=0.35,val=0.1,test=0.25"
        yield Stage(
            "divide the patients; site_c is a hospital that training never sees",
            "split",
            [str(labeled), "--fractions", fractions, "--test-sites", "site_c", "--out", str(manifest)],
            manifest,
        )
        size = ["--spacing-mm", str(spacing), "--shape-voxels", str(side), "--workers", str(self.workers)]
        yield Stage(
            "true geometry, one grid, one cache",
            "preprocess",
            [str(manifest), "--cache", str(cache), *size],
            cache,
        )
        yield from self._training(manifest, cache)

    def _training(self, manifest: Path, cache: Path) -> Iterator[Stage]:
        if self.smoke:
            pretraining = {"pretrain_mae_smoke": "", "pretrain_dino_smoke": ""}
            adaptation = {"classify_smoke": "pretrain_mae_smoke"}
        else:
            pretraining = {"pretrain_mae": "demo/", "pretrain_dino": "demo/"}
            adaptation = {
                "finetune_mae": "pretrain_mae",
                "finetune_dino": "pretrain_dino",
                "linear_mae": "pretrain_mae",
                "linear_dino": "pretrain_dino",
                "scratch": "",
            }
        where = ["--data.manifest", str(manifest), "--data.cache", str(cache), "--trainer.runs", str(self.out)]

        def fit(name: str, folder: str, title: str, more: list[str]) -> Stage:
            config = ["--config", str(EXPERIMENTS / folder / f"{name}.yaml")]
            return Stage(title, "fit", [*config, *where, *more], self.out / name / "weights" / "SHA256SUMS")

        for name, folder in pretraining.items():
            yield fit(name, folder, f"pretrain without labels: {name}", [])
        for name, source in adaptation.items():
            weights = ["--task.weights", str(self.out / source / "weights")] if source else []
            folder = "" if self.smoke else "demo/"
            yield fit(name, folder, f"adapt to labels: {name}", weights)
        for name in adaptation:
            for data, sites in {"internal": "site_a,site_b", "external": "site_c"}.items():
                arguments = [str(self.out / name), "--data", str(manifest), "--sites", sites, "--name", data]
                result = self.out / name / "evaluations" / data / "metrics.json"
                yield Stage(f"evaluate {name} on {data} patients ({sites})", "evaluate", arguments, result)
        report = self.out / "report.html"
        folders = [str(self.out / name) for name in [*pretraining, *adaptation]]
        yield Stage("compare the runs", "report", [*folders, "--out", str(report)], report)


COMMAND = Demo

if __name__ == "__main__":
    sys.exit(main(COMMAND))
