"""The demo's stages: commands as a user would type them, and a file that exists once each is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmct.demo.sizes import LABELS, SITES, Adaptation, Pretraining, Size
from fmct.demo.stage import Stage
from fmct.evaluation.wording import count
from fmct.experiment.shipped import experiments_folder

VOXELS, SPACING_MM = 48, 4.5
STUDY = "fewshot"
AWAY = "away"
"""The name of all hospitals but the first, together."""
SHOWN = "IPH"
SHOWN_OF_EACH_SITE = 1
"""The finding that maps are drawn for, on so many test scans of every hospital: the first in the manifest with it."""


@dataclass(frozen=True)
class Plan:
    """All stages of a demo.

    Attributes:
        size: how large it is.
        out: the demo's folder.
        seed: of the cohort.
        workers: processes that make and preprocess scans, and that train few-shot runs.
    """

    size: Size
    out: Path
    seed: int
    workers: int

    @property
    def cohort(self) -> Path:
        """Folder of the synthetic archive."""
        return self.out / "cohort"

    @property
    def manifest(self) -> Path:
        """The manifest with labels and splits."""
        return self.cohort / "manifest.csv"

    @property
    def rejects(self) -> Path:
        """What the index rejected, and why."""
        return self.cohort / "rejects.csv"

    @property
    def cache(self) -> Path:
        """Folder of the volumes."""
        return self.out / "cache"

    @property
    def overlay(self) -> Path:
        """Where the scans are, laid over the few-shot experiments."""
        return self.out / "fewshot.yaml"

    @property
    def shown(self) -> Path:
        """The manifest of the scans that maps are drawn of; the maps are in the folder beside it."""
        return self.out / "shown.csv"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Which hospitals are tested on together: each by itself, and all but the first."""
        return {**{site: (site,) for site in SITES}, AWAY: SITES[1:]}

    def run(self, name: str) -> Path:
        """Return a run's folder."""
        return self.out / name

    def stages(self) -> list[Stage]:
        """Return all stages in order."""
        return [*self._archive(), *self._pretraining(), self._few_shot(), *self._adaptation(), *self._looking()]

    def _archive(self) -> Iterator[Stage]:
        size, cohort = self.size, self.cohort
        indexed, labeled, truth = cohort / "indexed.csv", cohort / "labeled.csv", cohort / "truth.csv"
        shares = ",".join(f"{share:g}" for share in size.shares)
        phantom = ["phantom", "--n", str(size.scans), "--sites", str(len(SITES)), "--shares", shares]
        phantom += ["--seed", str(self.seed), "--workers", str(self.workers), "--hard-cases", *size.grid]
        yield Stage(
            "phantom",
            f"write {size.scans} synthetic heads: DICOM series with tilt, scouts and broken ones, and NIfTI files",
            ((*phantom, "--out", str(cohort)),),
            size.cohort_seconds,
            truth,
        )
        index = (
            "index",
            str(cohort),
            "--out",
            str(indexed),
            "--table",
            str(truth),
            "--key-file",
            str(self.out / "key"),
        )
        yield Stage(
            "index",
            "find the scans, read their geometry, reject what is no head CT",
            (index,),
            size.cohort_seconds * 0.1,
            self.rejects,
        )
        yield Stage(
            "label",
            f"add the labels {', '.join(LABELS)}",
            (("label", str(indexed), "--table", str(truth), "--on", "path", "--out", str(labeled)),),
            1,
            labeled,
        )
        split = ("split", str(labeled), "--fractions", size.fractions, "--test-sites", ",".join(SITES[1:]))
        yield Stage(
            "split",
            f"divide the patients of {SITES[0]}; {' and '.join(SITES[1:])} are hospitals that training never sees",
            ((*split, "--out", str(self.manifest)),),
            1,
            self.manifest,
        )
        preprocess = ("preprocess", str(self.manifest), "--cache", str(self.cache), "--spacing-mm", f"{SPACING_MM:g}")
        yield Stage(
            "preprocess",
            "true geometry, one grid, one cache",
            ((*preprocess, "--shape-voxels", str(VOXELS), "--workers", str(self.workers)),),
            size.cohort_seconds * 0.3,
            self.cache,
        )

    def fit(self, name: str, config: str, flags: Sequence[str]) -> tuple[str, ...]:
        """Return the command that trains a run."""
        where = (
            "--data.manifest",
            str(self.manifest),
            "--data.cache",
            str(self.cache),
            "--trainer.runs",
            str(self.out),
        )
        return ("fit", "--config", str(experiments_folder() / config), "--name", name, *where, *flags)

    def _pretraining(self) -> Iterator[Stage]:
        for one in self.size.pretraining:
            start = (f"--task.weights={self.run(one.weights) / 'weights'}",) if one.weights else ()
            yield Stage(
                one.name,
                f"pretrain without labels on {SITES[0]}: {one.name}",
                (self.fit(one.name, one.config, (*one.flags, *start)),),
                one.seconds,
                self.run(one.name) / "weights" / "SHA256SUMS",
            )

    def _few_shot(self) -> Stage:
        size = self.size
        named = {one.name: one for one in size.pretraining}
        starts = ["--init", "scratch"]
        if size.shot_cnn:
            starts += ["--init", f"cnn={experiments_folder() / 'demo' / 'fewshot_cnn.yaml'}"]
        for name in size.tuned:
            starts += ["--init", f"{tuned_name(named[name])}={self.run(name)}"]
        for one in size.pretraining:
            starts += ["--probe", f"{one.probe}={self.run(one.name)}"]
        groups = [word for name, sites in self.groups.items() for word in ("--group", f"{name}={'+'.join(sites)}")]
        command = [
            *("fewshot", "--config", str(experiments_folder() / size.shot_config), "--config", str(self.overlay)),
            *("--shots", ",".join(map(str, size.shots)), "--seeds", str(size.draws)),
            *("--labels", ",".join(size.shot_labels), "--name", STUDY, "--runs", str(self.out), "--batch-size", "16"),
            *("--jobs", str(self.workers)),
            *starts,
            *("--probe", "random-probe=scratch", "--pooling", "mean+std+mirror", "--whiten", str(size.whiten)),
            *groups,
        ]
        return Stage(
            STUDY,
            f"learn {', '.join(size.shot_labels)} from {' and '.join(map(str, size.shots))} patients of each class",
            (tuple(command),),
            size.shot_seconds,
            self.out / STUDY / "fewshot.json",
        )

    def _adaptation(self) -> Iterator[Stage]:
        for one in self.size.adaptation:
            yield Stage(
                one.name,
                f"learn from all labels of {SITES[0]}: {one.name}",
                (self.fit(one.name, one.config, self._flags(one)),),
                one.seconds,
                self.run(one.name) / "weights" / "SHA256SUMS",
            )
        for one in self.size.adaptation:
            test = ("evaluate", str(self.run(one.name)), "--data", str(self.manifest), "--batch-size", "16")
            folder = self.run(one.name) / "evaluations"
            yield Stage(
                f"evaluate_{one.name}",
                f"test {one.name} on {', '.join(SITES)}",
                tuple((*test, "--sites", site, "--name", site) for site in SITES),
                self.size.evaluation_seconds,
                folder / SITES[-1] / "metrics.json",
            )

    def _flags(self, one: Adaptation) -> tuple[str, ...]:
        labels = "[" + ",".join(f'"{label}"' for label in LABELS) + "]"
        weights = str(self.run(one.weights) / "weights") if one.weights else "null"
        return (f"--task.labels={labels}", f"--task.weights={weights}", *one.flags)

    def _looking(self) -> Iterator[Stage]:
        size = self.size
        first = size.pretraining[0]
        table, page = self.out / "embeddings.parquet", self.out / "report.html"
        embed = ("embed", str(self.manifest), "--cache", str(self.cache), "--weights", str(self.run(first.name)))
        yield Stage(
            "embed",
            f"embed every scan by {first.name}, and lay them out for TensorBoard's projector",
            ((*embed, "--pooling", "mean+std", "--out", str(table), "--projector", str(self.run(first.name) / "tb")),),
            size.evaluation_seconds * 2,
            table,
        )
        adapted, maps = size.adaptation[0].name, self.shown.with_suffix("")
        predict = ("predict", str(self.shown), "--cache", str(self.cache), "--weights", str(self.run(adapted)))
        yield Stage(
            "maps",
            f"show what {adapted} goes by for {SHOWN}: {count(SHOWN_OF_EACH_SITE, 'test scan')} of each hospital",
            ((*predict, "--maps", "occlusion", "--labels", SHOWN, "--out", str(maps)),),
            size.evaluation_seconds * 2,
            maps / "probabilities.csv",
        )
        runs = [*(self.run(one.name) for one in size.pretraining), *(self.run(one.name) for one in size.adaptation)]
        studies = [self.out / STUDY / group for group in (SITES[0], AWAY)]
        report = ("report", *map(str, [*runs, *studies]), "--out", str(page), "--embeddings", str(table))
        report += ("--maps", str(maps))
        title = f"Synthetic heads: learned at {SITES[0]}, tested there and elsewhere"
        yield Stage("report", "compare everything in one page", ((*report, "--title", title),), 20, page)


def tuned_name(one: Pretraining) -> str:
    """Return the name of a few-shot start that is fine-tuned: mae-finetuned for mae-probe."""
    return f"{one.probe.removesuffix('-probe')}-finetuned"
