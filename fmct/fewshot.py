"""`fmct fewshot`: curves of what a few labeled patients give, for several initializations."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError, nearest
from fmct.console.files import atomic_path, write_text_atomically

if TYPE_CHECKING:
    from fmct.evaluation.few_shot import FewShot, Shot
    from fmct.experiment.combination import Combination, EvaluationConfig
    from fmct.experiment.schema import Experiment
    from fmct.experiment.starting import Start

QUICK = [
    *("--data.val_splits=[]", "--trainer.checkpoints=false", "--trainer.tensorboard=false"),
    *("--trainer.pictures_every_steps=0", "--trainer.devices=1", "--trainer.nodes=1", "--trainer.strategy=auto"),
]
"""How a run that lasts seconds is run: on one device, without validation, and over again if it is killed."""


class Fewshot(Command):
    """Few-shot curves: train on k positive and k negative patients of each label, from several initializations.

    Patients are drawn without replacement: the same ones for all initializations of a seed, those of a smaller k among
    those of a larger one. All runs are evaluated on the same test scans. Writes RUNS/NAME/fewshot.parquet (every run)
    and fewshot.json (means over seeds with intervals, and differences to scratch); each run has its folder there, with
    its predictions. Run again, it does only what is left to do.

    Example: fmct fewshot --config experiments/fewshot_cq500.yaml --init mae=runs/pretrain_mae_vitb --init scratch
    """

    config: list[Path] = Field(min_length=1, description="experiment of a classifier, then overlays")
    shots: str = Field("8,16,32,64", description="k: so many patients of each class")
    seeds: int = Field(5, gt=0, description="draws of patients, each with weights and batches of its own")
    init: list[str] = Field(
        min_length=1,
        description="NAME=PATH of a weight package, a run, or a YAML file laid over the experiment; scratch: random "
        "weights. Give it repeatedly",
    )
    labels: str = Field("", description="labels, each learned by itself (default: those of the experiment)")
    data: Path | None = Field(None, description="manifest of the test scans (default: the experiment's)")
    split: str = Field("test", description="split to test on; `all` takes every row")
    sites: str = Field("", description="test on these sites only, separated by commas")
    name: str | None = Field(None, description="names the study's folder (default: the experiment's name)")
    runs: Path | None = Field(None, description="folder that holds it (default: the experiment's trainer.runs)")
    keep_weights: bool = Field(False, description="keep every run's weights, not only its predictions")
    bootstrap: int = Field(1000, ge=100, description="bootstrap replicates, resampling test patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    batch_size: int = Field(8, gt=0, description="test scans at a time; results don't depend on it")
    workers: int = Field(0, ge=0, description="loader processes for the test scans")
    fresh: bool = Field(False, description="set an earlier study in the same folder aside, under a numbered name")
    dry_run: bool = Field(False, description="print the commands of the runs and stop")
    json_output: bool = Field(False, alias="json", description="print fewshot.json")

    def run(self) -> ExitCode:
        """Run what is left to do, and write both files and the tables."""
        from fmct.evaluation.confidence import Bootstrap
        from fmct.evaluation.few_shot import summarize_shots
        from fmct.evaluation.predictions import read_predictions
        from fmct.experiment.combination import check_unchanged
        from fmct.experiment.runs import set_aside
        from fmct.experiment.separation import check_apart
        from fmct.experiment.starting import SCRATCH
        from fmct.experiment.turns import in_turn, print_commands

        base, starts = self._experiment(), self._starts()
        folder = (self.runs or base.trainer.runs) / (self.name or base.name)
        if self.fresh and folder.exists() and not self.dry_run:
            print(f"the earlier study is now in {set_aside(folder)}", file=sys.stderr)
        planned, skipped = self._plan(base, starts, folder)
        check_unchanged(list(planned.values()))
        check_apart(list(planned.values()))
        if self.dry_run:
            print_commands(list(planned.values()), as_json=self.json_output)
            return ExitCode.DONE
        start = time.monotonic()
        failures = in_turn(list(planned.values()), "few-shot runs", quiet=True)
        failed = {shot: failures[one.folder] for shot, one in planned.items() if one.folder in failures}
        evaluation = self._evaluation(base).name
        predictions = {
            shot: read_predictions(one.folder / "evaluations" / evaluation / "predictions.parquet")
            for shot, one in planned.items()
            if shot not in failed
        }
        names = [one.name for one in starts]
        everything = sorted({**planned, **skipped}, key=lambda shot: (names.index(shot.initialization), *shot[1:]))
        settings = Bootstrap.of(self.bootstrap, self.seed, 0.95)
        baseline = SCRATCH if SCRATCH in names else None
        curves, table = summarize_shots(everything, predictions, skipped, failed, settings, baseline)
        with atomic_path(folder / "fewshot.parquet") as temporary:
            table.assign(data=evaluation).to_parquet(temporary, index=False)
        text = curves.model_dump_json(indent=2)
        write_text_atomically(folder / "fewshot.json", text + "\n")
        if self.json_output:
            print(text)
        else:
            self._show(curves, folder)
            print(f"{len(predictions)} runs in {time.monotonic() - start:.0f} s; wrote {folder / 'fewshot.json'}")
        return ExitCode.FAILED if failed else ExitCode.SOME_REJECTED if skipped else ExitCode.DONE

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

    def _starts(self) -> list[Start]:
        from fmct.experiment.starting import Start

        starts = [Start.of(text) for text in self.init]
        names = [one.name for one in starts]
        if len(set(names)) < len(names):
            raise UsageError("two initializations have one name", "--init", "give each a name of its own")
        return starts

    def _shots(self) -> list[int]:
        try:
            shots = sorted({int(text) for text in names_in(self.shots)})
        except ValueError:
            shots = []
        if not shots or shots[0] < 1:
            raise UsageError(f"{self.shots!r} are no numbers of patients", "--shots", "as in --shots 8,16,32,64")
        return shots

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

    def _plan(
        self, base: Experiment, starts: Sequence[Start], folder: Path
    ) -> tuple[dict[Shot, Combination], dict[Shot, str]]:
        """Return the runs that there can be, and why there can't be others."""
        from fmct.data.sampling import ShuffledSampling
        from fmct.data.shots import ShotsConfig
        from fmct.evaluation.few_shot import Shot
        from fmct.experiment.combination import Combination
        from fmct.experiment.grid import file_text
        from fmct.experiment.loading import load_experiment

        labels, evaluation = self._labels(base), self._evaluation(base)
        more = ["--batch-size", str(self.batch_size), "--workers", str(self.workers), "--bootstrap", "100"]
        planned: dict[Shot, Combination] = {}
        skipped: dict[Shot, str] = {}
        for start in starts:
            configs = [*self.config, *start.overlay]
            common = [*QUICK, f"--trainer.runs={folder}", *start.flags(configs)]
            experiment = load_experiment(configs, common)
            plain = {"shots": None, "sampling": ShuffledSampling(), "soft_labels": False}
            pool = experiment.data.model_copy(update=plain).build((), 0).train.frame
            for label in labels:
                for k in self._shots():
                    for seed in range(self.seeds):
                        shot = Shot(start.name, label, k, seed)
                        try:
                            ShotsConfig(label=label, k=k, seed=seed).choose(pool, experiment.data.manifest)
                        except UsageError as error:
                            skipped[shot] = error.what
                            continue
                        flags = [
                            *common,
                            f"--name={start.name}-{file_text(label)}-k{k}-seed{seed}",
                            f"--task.labels={json.dumps([label])}",
                            f"--data.shots={json.dumps({'label': label, 'k': k, 'seed': seed})}",
                            f"--seed={base.seed + seed}",
                        ]
                        planned[shot] = Combination(
                            load_experiment(configs, flags),
                            configs,
                            flags,
                            shot._asdict(),
                            [evaluation],
                            more,
                            self.keep_weights,
                        )
        return planned, skipped

    def _show(self, curves: FewShot, folder: Path) -> None:
        from fmct.evaluation.curve_table import shot_table

        print(f"AUROC, mean of {curves.seeds} draws (95 % CI over test patients and draws)\n")
        print(shot_table(curves))
        if curves.baseline and len(curves.initializations) > 1:
            print("\nAUROC, difference to scratch, draw by draw (95 % CI)\n")
            print(shot_table(curves, differences=True))
        if curves.mean.left_out and len(curves.labels) > 1:
            print(f"\nnot in the mean, for lack of runs or of a class: {', '.join(curves.mean.left_out)}")
        for kind, gaps in (("skipped", curves.skipped), ("failed", curves.failed)):
            seeds: dict[tuple[str, str, int, str], list[int]] = {}
            for gap in gaps:
                seeds.setdefault((gap.initialization, gap.label, gap.k, gap.reason), []).append(gap.seed)
            for (name, label, k, reason), numbers in seeds.items():
                print(f"{kind}: {name}, {label}, k = {k}, seeds {', '.join(map(str, numbers))}: {reason}")
            if kind == "failed" and gaps:
                print(f"what they printed is in {folder / 'logs'}")
        print()


COMMAND = Fewshot

if __name__ == "__main__":
    sys.exit(main(COMMAND))
