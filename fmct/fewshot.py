"""`fmct fewshot`: curves of what a few labeled patients give, for several initializations."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError, nearest
from fmct.console.files import atomic_path, write_text_atomically
from fmct.models.pooling_kinds import Pooling

if TYPE_CHECKING:
    import pandas as pd

    from fmct.evaluation.few_shot import FewShot, Shot
    from fmct.experiment.combination import EvaluationConfig
    from fmct.experiment.schema import Experiment
    from fmct.experiment.shot_plan import Plan
    from fmct.experiment.starting import Start


class Fewshot(Command):
    """Few-shot curves: learn from k positive and k negative patients of each label, from several initializations.

    Patients are the same ones for all initializations of a seed, those of a smaller k among those of a larger one; all
    are tested on the same scans. Writes RUNS/NAME/fewshot.parquet (every run) and fewshot.json (means over seeds with
    intervals, and differences to scratch), and the predictions. Probes embed scans once: many draws take seconds.

    Example: fmct fewshot --config experiments/fewshot_cq500.yaml --init scratch --probe mae=runs/pretrain_mae_vitb
    """

    config: list[Path] = Field(min_length=1, description="experiment of a classifier, then overlays")
    shots: str = Field("8,16,32,64", description="k: so many patients of each class")
    seeds: int = Field(5, gt=0, description="draws of patients, each with weights and batches of its own")
    init: list[str] = Field(
        [],
        description="NAME=PATH of a weight package, a run, or a YAML file laid over the experiment (a whole "
        "experiment: instead of it); scratch: random weights. Repeatedly; PATHs of one NAME serve the draws in turn",
    )
    probe: list[str] = Field(
        [],
        description="NAME=PATH of a weight package or a run that stays as it is, with a logistic regression on its "
        "features; NAME=scratch: on those of random weights. Repeatedly, as --init",
    )
    pooling: Pooling = Field("mean+std", description="features of --probe, as in `fmct embed`")
    c: str = Field(
        "0.01",
        description="inverse strength of --probe's penalty, or several to choose from by cross-validation",
    )
    whiten: int | None = Field(
        None, gt=0, description="fit --probe on so many principal components over pretrain and train, without labels"
    )
    labels: str = Field("", description="labels, each learned by itself (default: those of the experiment)")
    data: Path | None = Field(None, description="manifest of the test scans (default: the experiment's)")
    split: str = Field("test", description="split to test on; `all` takes every row")
    sites: str = Field("", description="test on these sites only, separated by commas")
    group: list[str] = Field(
        [], description="NAME=SITE+SITE: the same of the test scans of some sites, in RUNS/NAME/GROUP. Repeatedly"
    )
    name: str | None = Field(None, description="of the study's folder (default: the experiment's)")
    runs: Path | None = Field(None, description="folder that holds it (default: the experiment's trainer.runs)")
    keep_weights: bool = Field(False, description="keep every trained run's weights, not only its predictions")
    bootstrap: int = Field(1000, ge=100, description="bootstrap replicates, resampling test patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    batch_size: int = Field(8, gt=0, description="test scans at a time; results don't depend on it")
    workers: int = Field(0, ge=0, description="loader processes for the test scans")
    jobs: int = Field(1, gt=0, description="runs at a time, sharing cores and GPUs")
    fresh: bool = Field(False, description="set an earlier study in the same folder aside, under a numbered name")
    dry_run: bool = Field(False, description="print the commands of the trained runs and stop")
    json_output: bool = Field(False, alias="json", description="print fewshot.json")

    def run(self) -> ExitCode:
        """Run what is left to do, and write the files and the tables."""
        from fmct.console.occupied import occupied

        base = self._experiment()
        folder = (self.runs or base.trainer.runs) / (self.name or base.name)
        with nullcontext() if self.dry_run else occupied(folder):
            return self._go(base, folder)

    def _go(self, base: Experiment, folder: Path) -> ExitCode:
        """Plan, run and summarize, alone in the study's folder."""
        from fmct.evaluation.few_shot_text import study_text
        from fmct.experiment.combination import check_unchanged
        from fmct.experiment.runs import set_aside
        from fmct.experiment.separation import check_apart
        from fmct.experiment.shot_options import groups_of_sites, numbers_of_patients
        from fmct.experiment.shot_plan import Grid
        from fmct.experiment.turns import do_all, print_commands

        starts, groups = self._starts(), groups_of_sites(self.group)
        if self.fresh and folder.exists() and not self.dry_run:
            print(f"the earlier study is now in {set_aside(folder)}", file=sys.stderr)
        evaluation = self._evaluation(base)
        more = ["--batch-size", str(self.batch_size), "--workers", str(self.workers), "--bootstrap", "100"]
        labels, shots = self._labels(base), numbers_of_patients(self.shots)
        grid = Grid(self.config, starts, labels, shots, self.seeds, evaluation, folder, more, self.keep_weights)
        plan = grid.plan()
        trained = list(plan.trained.values())
        check_unchanged(trained)
        check_apart([*trained, *plan.probes(evaluation)])
        if self.dry_run:
            print_commands(trained, as_json=self.json_output)
            return ExitCode.DONE
        start = time.monotonic()
        predictions = self._probe(plan, evaluation, folder)
        failures = do_all(trained, "few-shot runs", jobs=self.jobs, quiet=True)
        failed = {shot: failures[one.folder] for shot, one in plan.trained.items() if one.folder in failures}
        predictions |= self._read(plan, evaluation, failed)
        names = list(starts)
        curves = self._summarize(plan, predictions, failed, folder, names, evaluation.name)
        for name, sites in groups.items():
            part = {shot: frame[frame["site"].isin(sites)] for shot, frame in predictions.items()}
            self._summarize(plan, part, failed, folder / name, names, evaluation.name)
        if self.json_output:
            print(curves.model_dump_json(indent=2))
        else:
            print(study_text(curves, folder))
            print(f"{len(predictions)} runs in {time.monotonic() - start:.0f} s; wrote {folder / 'fewshot.json'}")
        if failed:
            print(f"error: {len(failed)} runs failed, the first: {next(iter(failed.values()))}", file=sys.stderr)
        return ExitCode.FAILED if failed else ExitCode.SOME_REJECTED if plan.skipped else ExitCode.DONE

    def _probe(self, plan: Plan, evaluation: EvaluationConfig, folder: Path) -> dict[Shot, pd.DataFrame]:
        """Fit all probes and keep what they say of the test scans."""
        import pandas as pd

        from fmct.experiment.shot_probing import probed

        found = dict(pair for one in plan.probed for pair in probed(one, evaluation, folder))
        if found:
            rows = [frame.assign(**{**shot._asdict(), "draw": shot.seed}) for shot, frame in found.items()]
            with atomic_path(folder / "probes.parquet") as temporary:
                pd.concat(rows, ignore_index=True).drop(columns="seed").to_parquet(temporary, index=False)
        return found

    def _read(self, plan: Plan, evaluation: EvaluationConfig, failed: Collection[Shot]) -> dict[Shot, pd.DataFrame]:
        from fmct.evaluation.predictions import read_predictions

        return {
            shot: read_predictions(evaluation.folder(one.folder) / "predictions.parquet")
            for shot, one in plan.trained.items()
            if shot not in failed
        }

    def _summarize(
        self,
        plan: Plan,
        predictions: dict[Shot, pd.DataFrame],
        failed: dict[Shot, str],
        folder: Path,
        names: list[str],
        tested_on: str,
    ) -> FewShot:
        """Compute the curves and write fewshot.json and fewshot.parquet."""
        from fmct.evaluation.confidence import Bootstrap
        from fmct.evaluation.few_shot import summarize_shots
        from fmct.experiment.starting import SCRATCH

        everything = sorted(plan.shots, key=lambda shot: (names.index(shot.initialization), *shot[1:]))
        settings = Bootstrap.of(self.bootstrap, self.seed, 0.95)
        baseline = SCRATCH if SCRATCH in names else None
        curves, table = summarize_shots(everything, predictions, plan.skipped, failed, settings, baseline)
        with atomic_path(folder / "fewshot.parquet") as temporary:
            table.assign(data=tested_on).to_parquet(temporary, index=False)
        write_text_atomically(folder / "fewshot.json", curves.model_dump_json(indent=2) + "\n")
        return curves

    def _experiment(self) -> Experiment:
        from fmct.experiment.loading import load_experiment

        experiment = load_experiment(self.config)
        if not experiment.labels:
            raise UsageError(
                f"the experiment learns no labels (task {experiment.task.kind})",
                ", ".join(map(str, self.config)),
                "give an experiment of a classifier, as experiments/fewshot_cq500.yaml",
            )
        return experiment

    def _starts(self) -> dict[str, list[Start]]:
        from fmct.experiment.shot_options import penalties
        from fmct.experiment.starting import Start

        starts: dict[str, list[Start]] = {}
        probe: dict[str, object] = {"pooling": self.pooling, "c": penalties(self.c)}
        if self.whiten:
            probe["whiten"] = {"components": self.whiten}
        for one in [*(Start.of(text) for text in self.init), *(Start.of_probe(text, probe) for text in self.probe)]:
            others = starts.setdefault(one.name, [])
            if others and (others[0].probe != one.probe or None in (one.source, others[0].source) or one in others):
                raise UsageError(
                    "two initializations have one name",
                    f"--init and --probe: {one.name}",
                    "give each a name of its own; only different weights for the draws share one",
                )
            others.append(one)
        if not starts:
            raise UsageError("there is nothing to start from", "--init and --probe", "give one: --init scratch")
        return starts

    def _labels(self, base: Experiment) -> list[str]:
        from fmct.data.manifest import label_names, read_manifest

        labels = names_in(self.labels) or list(base.labels)
        for manifest in dict.fromkeys([base.data.manifest, self.data or base.data.manifest]):
            known = label_names(read_manifest(manifest))
            for label in labels:
                if label not in known:
                    guess = nearest(label, known)
                    fix = f"did you mean {guess}?" if guess else f"it has {', '.join(known) or 'none'}"
                    raise UsageError(f"the manifest has no label {label}", manifest, fix)
        return labels

    def _evaluation(self, base: Experiment) -> EvaluationConfig:
        from fmct.experiment.combination import EvaluationConfig

        data, sites = self.data or base.data.manifest, names_in(self.sites)
        name = "-".join([data.stem, self.split, *sites])
        return EvaluationConfig(name=name, data=data, split=self.split, sites=tuple(sites))


COMMAND = Fewshot

if __name__ == "__main__":
    sys.exit(main(COMMAND))
