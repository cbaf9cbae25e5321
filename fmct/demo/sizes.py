"""How large the demo is: one design, at the scale of a test, of a coffee and of a night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SITES = ("site_a", "site_b", "site_c", "site_d")
"""Hospitals: the first is the one whose scans are learned from, the others are only tested on."""
LABELS = ("ICH", "IPH", "SDH", "MidlineShift", "MassEffect", "Tumor", "Hydrocephalus", "ADRD")
SizeName = Literal["quick", "demo", "headline"]


@dataclass(frozen=True)
class Pretraining:
    """A run without labels.

    Attributes:
        name: of the run.
        config: experiment file below experiments/.
        probe: its probe's name in the few-shot study; runs of one name serve the study's draws in turn.
        flags: laid over the file.
        seconds: on two cores that have nothing else to do.
    """

    name: str
    config: str
    probe: str
    seconds: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adaptation:
    """A run on all labels of the first hospital.

    Attributes:
        name: of the run.
        config: experiment file below experiments/.
        weights: the pretraining that it starts from; empty: random weights.
        flags: laid over the file.
        seconds: as above.
    """

    name: str
    config: str
    seconds: float
    weights: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """What is made and trained.

    Attributes:
        scans: of the cohort.
        grid: flags of `fmct phantom`, how finely scans are sampled.
        home: scans of the first hospital for each one of another.
        fractions: splits of the first hospital's patients; both `pretrain` and `train` are learned from without labels.
        pretraining: runs without labels.
        adaptation: runs on all labels.
        tuned: runs of `pretraining` that the few-shot study fine-tunes too, beside `scratch` and the CNN.
        shots: values of k.
        draws: of patients, for each k.
        shot_labels: findings of the few-shot study, each learned by itself.
        shot_config: few-shot experiment of transformers, below experiments/.
        shot_steps: of each trained few-shot run; None: as the file says.
        shot_seconds: of the few-shot study.
        cohort_seconds: of making the cohort; other stages up to the cache take a part of it.
        evaluation_seconds: of evaluating one run.
    """

    name: SizeName
    scans: int
    grid: tuple[str, ...]
    home: float
    fractions: str
    pretraining: tuple[Pretraining, ...]
    adaptation: tuple[Adaptation, ...]
    shots: tuple[int, ...]
    draws: int
    shot_labels: tuple[str, ...]
    shot_seconds: float
    cohort_seconds: float
    evaluation_seconds: float
    tuned: tuple[str, ...] = ()
    shot_config: str = "demo/fewshot.yaml"
    shot_steps: int | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """Scans of every hospital, in proportion."""
        return (self.home, *(1.0 for _ in SITES[1:]))


GRID = ("--pixel-mm", "1.5", "--matrix", "160", "--slice-mm", "4.5", "--effects")
TINY = ("--backbone.width=48", "--backbone.depth=2", "--backbone.heads=4", "--backbone.patch_voxels=12")
TINY_CNN = ("--backbone.depth=10", "--backbone.widen=0.125")
FEW = ("--data.batch_size=8", "--trainer.max_epochs=null")

QUICK = Size(
    name="quick",
    scans=44,
    grid=("--pixel-mm", "3", "--matrix", "80", "--slice-mm", "6"),
    home=5,
    fractions="pretrain=0.25,train=0.35,val=0.15,test=0.25",
    pretraining=(
        Pretraining("pretrain_mae", "demo/pretrain_mae.yaml", "mae-probe", 8, (*TINY, *FEW, "--trainer.max_steps=40")),
        Pretraining(
            "pretrain_dino", "demo/pretrain_dino.yaml", "dino-probe", 8, (*TINY, *FEW, "--trainer.max_steps=24")
        ),
    ),
    adaptation=(
        Adaptation("probe_mae", "demo/probe.yaml", 1, "pretrain_mae", TINY),
        Adaptation("probe_dino", "demo/probe.yaml", 1, "pretrain_dino", TINY),
        Adaptation("probe_random", "demo/probe.yaml", 1, "", TINY),
        Adaptation("finetune_mae", "demo/finetune.yaml", 2, "pretrain_mae", (*TINY, *FEW, "--trainer.max_steps=4")),
        Adaptation("scratch", "demo/scratch.yaml", 2, "", (*TINY, *FEW, "--trainer.max_steps=4")),
        Adaptation("cnn", "demo/cnn.yaml", 3, "", (*TINY_CNN, *FEW, "--trainer.max_steps=4")),
    ),
    shots=(2, 4),
    draws=2,
    shot_labels=("ICH",),
    shot_seconds=10,
    cohort_seconds=20,
    evaluation_seconds=2,
    shot_steps=3,
)

DEMO = Size(
    name="demo",
    scans=560,
    grid=GRID,
    home=5,
    fractions="pretrain=0.35,train=0.35,val=0.08,test=0.22",
    pretraining=(
        Pretraining("pretrain_mae", "demo/pretrain_mae.yaml", "mae-probe", 240),
        Pretraining("pretrain_dino", "demo/pretrain_dino.yaml", "dino-probe", 150),
    ),
    adaptation=(
        Adaptation("probe_mae", "demo/probe.yaml", 8, "pretrain_mae"),
        Adaptation("probe_dino", "demo/probe.yaml", 8, "pretrain_dino"),
        Adaptation("probe_random", "demo/probe.yaml", 8),
        Adaptation("finetune_mae", "demo/finetune.yaml", 40, "pretrain_mae"),
        Adaptation("scratch", "demo/scratch.yaml", 40),
        Adaptation("cnn", "demo/cnn.yaml", 40),
    ),
    shots=(8, 32),
    draws=2,
    shot_labels=("ICH", "MidlineShift"),
    shot_seconds=200,
    cohort_seconds=150,
    evaluation_seconds=6,
)

SEEDS = (42, 43, 44)
PATCHES = {kind: (f"--backbone.patch_voxels={edge}",) for kind, edge in {"mae": 6, "dino": 8, "joint": 8}.items()}
"""As the experiments of pretraining have them."""
SHARES_OF_SCANS = {"10": 0.1, "33": 0.33}
"""The curve over unlabeled scans: percent, beside all of them."""
LONG = ("--trainer.max_epochs=40",)

HEADLINE = Size(
    name="headline",
    scans=2400,
    grid=GRID,
    home=8,
    fractions="pretrain=0.55,train=0.20,val=0.06,test=0.19",
    pretraining=(
        *(
            Pretraining(f"pretrain_{kind}_{seed}", f"headline_{kind}.yaml", f"{kind}-probe", 2400, (f"--seed={seed}",))
            for kind in ("mae", "dino", "joint")
            for seed in SEEDS
        ),
        *(
            Pretraining(
                f"pretrain_mae_{percent}_percent",
                "headline_mae.yaml",
                f"mae-{percent}-percent-probe",
                2400,
                (f"--data.fraction={share}", "--data.val_splits=[]"),
            )
            for percent, share in SHARES_OF_SCANS.items()
        ),
    ),
    adaptation=(
        *(
            Adaptation(f"probe_{kind}", "demo/probe.yaml", 60, f"pretrain_{kind}_{SEEDS[0]}", PATCHES[kind])
            for kind in ("mae", "dino", "joint")
        ),
        Adaptation("probe_random", "demo/probe.yaml", 60, "", PATCHES["mae"]),
        Adaptation("finetune_mae", "demo/finetune.yaml", 900, f"pretrain_mae_{SEEDS[0]}", (*PATCHES["mae"], *LONG)),
        Adaptation("scratch", "demo/scratch.yaml", 900, "", (*PATCHES["mae"], *LONG)),
        Adaptation("cnn", "demo/cnn.yaml", 600, "", LONG),
    ),
    shots=(8, 32),
    draws=6,
    shot_labels=LABELS,
    shot_seconds=4000,
    cohort_seconds=700,
    evaluation_seconds=40,
    tuned=tuple(f"pretrain_mae_{seed}" for seed in SEEDS),
    shot_config="headline_fewshot.yaml",
)

SIZES: dict[SizeName, Size] = {"quick": QUICK, "demo": DEMO, "headline": HEADLINE}
