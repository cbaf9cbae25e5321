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
        weights: the earlier pretraining that it goes on from; empty: random weights.
    """

    name: str
    config: str
    probe: str
    seconds: float
    flags: tuple[str, ...] = ()
    weights: str = ""


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
        shot_cnn: whether the study has the convolutional network, too.
        whiten: principal components that probes of the study are fitted on.
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
    shot_cnn: bool = True
    whiten: int = 32
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
    scans=64,
    grid=("--pixel-mm", "3", "--matrix", "80", "--slice-mm", "6"),
    home=5,
    fractions="pretrain=0.15,train=0.5,val=0.1,test=0.25",
    pretraining=(
        Pretraining("pretrain_mae", "demo/pretrain_mae.yaml", "mae-probe", 8, (*TINY, *FEW, "--trainer.max_steps=40")),
        Pretraining(
            "pretrain_anomaly",
            "demo/pretrain_anomaly.yaml",
            "anomaly-probe",
            8,
            (*TINY, *FEW, "--trainer.max_steps=40"),
            "pretrain_mae",
        ),
        Pretraining(
            "pretrain_dino", "demo/pretrain_dino.yaml", "dino-probe", 8, (*TINY, *FEW, "--trainer.max_steps=24")
        ),
    ),
    adaptation=(
        Adaptation("attentive_anomaly", "demo/attentive.yaml", 2, "pretrain_anomaly", TINY),
        Adaptation("attentive_random", "demo/attentive.yaml", 2, "", TINY),
        Adaptation(
            "finetune_anomaly", "demo/finetune.yaml", 2, "pretrain_anomaly", (*TINY, *FEW, "--trainer.max_steps=4")
        ),
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
    scans=440,
    grid=GRID,
    home=5,
    fractions="pretrain=0.25,train=0.45,val=0.08,test=0.22",
    pretraining=(
        Pretraining("pretrain_mae", "demo/pretrain_mae.yaml", "mae-probe", 101),
        Pretraining("pretrain_anomaly", "demo/pretrain_anomaly.yaml", "anomaly-probe", 112, (), "pretrain_mae"),
        Pretraining("pretrain_dino", "demo/pretrain_dino.yaml", "dino-probe", 50),
    ),
    adaptation=(
        Adaptation("attentive_anomaly", "demo/attentive.yaml", 20, "pretrain_anomaly"),
        Adaptation("attentive_random", "demo/attentive.yaml", 20),
        Adaptation("finetune_anomaly", "demo/finetune.yaml", 52, "pretrain_anomaly"),
        Adaptation("scratch", "demo/scratch.yaml", 52),
        Adaptation("cnn", "demo/cnn.yaml", 84),
    ),
    shots=(8,),
    draws=2,
    shot_labels=("IPH", "MidlineShift"),
    shot_cnn=False,
    shot_seconds=250,
    cohort_seconds=155,
    evaluation_seconds=12,
    tuned=("pretrain_anomaly",),
)

SEEDS = (42, 43, 44)
SHARES_OF_SCANS = {"3": 0.03, "10": 0.1, "33": 0.33}
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
            Pretraining(f"pretrain_mae_{seed}", "headline_mae.yaml", "mae-probe", 1500, (f"--seed={seed}",))
            for seed in SEEDS
        ),
        *(
            Pretraining(
                f"pretrain_mae_{percent}_percent",
                "headline_mae.yaml",
                f"mae-{percent}-percent-probe",
                1500,
                (f"--data.fraction={share}", "--data.val_splits=[]"),
            )
            for percent, share in SHARES_OF_SCANS.items()
        ),
        *(
            Pretraining(
                f"pretrain_anomaly_{seed}",
                "headline_anomaly.yaml",
                "anomaly-probe",
                1200,
                (f"--seed={seed}",),
                f"pretrain_mae_{seed}",
            )
            for seed in SEEDS
        ),
        Pretraining("pretrain_joint", "headline_joint.yaml", "joint-probe", 4800),
        Pretraining("pretrain_dino", "headline_dino.yaml", "dino-probe", 4800),
    ),
    adaptation=(
        Adaptation("attentive_mae", "demo/attentive.yaml", 60, f"pretrain_mae_{SEEDS[0]}"),
        Adaptation("attentive_anomaly", "demo/attentive.yaml", 60, f"pretrain_anomaly_{SEEDS[0]}"),
        Adaptation("attentive_joint", "demo/attentive.yaml", 60, "pretrain_joint"),
        Adaptation("attentive_dino", "demo/attentive.yaml", 60, "pretrain_dino"),
        Adaptation("attentive_random", "demo/attentive.yaml", 60),
        Adaptation("finetune_mae", "demo/finetune.yaml", 400, f"pretrain_mae_{SEEDS[0]}", LONG),
        Adaptation("finetune_anomaly", "demo/finetune.yaml", 400, f"pretrain_anomaly_{SEEDS[0]}", LONG),
        Adaptation("scratch", "demo/scratch.yaml", 400, "", LONG),
        Adaptation("cnn", "demo/cnn.yaml", 600, "", LONG),
    ),
    shots=(8,),
    draws=3,
    shot_labels=LABELS,
    shot_seconds=10_500,
    cohort_seconds=830,
    evaluation_seconds=40,
    tuned=tuple(f"pretrain_anomaly_{seed}" for seed in SEEDS),
    shot_config="headline_fewshot.yaml",
)

SIZES: dict[SizeName, Size] = {"quick": QUICK, "demo": DEMO, "headline": HEADLINE}
