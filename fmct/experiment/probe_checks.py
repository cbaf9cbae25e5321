"""What an experiment can't ask of a probe, or of features without scans: refused, so that no key does nothing."""

from __future__ import annotations

from pydantic import BaseModel

from fmct.data.datamodule import DataConfig
from fmct.data.sampling import BalancedSampling
from fmct.experiment.config import Config
from fmct.experiment.trainer import TrainerConfig
from fmct.models.backbones import BackboneConfig
from fmct.models.features import FeaturesConfig
from fmct.tasks.classifier import ClassifierConfig
from fmct.views.network_input import InputConfig


def refuse_what_does_nothing(
    task: Config, backbone: BackboneConfig, seen: InputConfig, data: DataConfig, trainer: TrainerConfig
) -> None:
    """Check the sections of an experiment against each other.

    Raises:
        ValueError: naming the key that would do nothing, and why.
    """
    probe = task if isinstance(task, ClassifierConfig) and task.is_probe else None
    if isinstance(backbone, FeaturesConfig) != (data.features is not None):
        raise ValueError("backbone {kind: features} and data.features go together: one is missing")
    if data.features is not None:
        if probe is None:
            raise ValueError(
                "data.features holds no scans to make views of: only task.mode logreg and knn can learn from it"
            )
        if probe.weights is not None:
            raise ValueError("task.weights are of a network that makes features; data.features were made already")
        if seen != InputConfig():
            raise ValueError("input is about volumes, and data.features holds none: leave it out")
        if probe.probe.pooling != "cls":
            raise ValueError(
                "task.probe.pooling pools a network's tokens; data.features is taken as it is: leave it out"
            )
    if probe is None:
        if isinstance(task, ClassifierConfig) and changed(task.probe):
            raise ValueError(f"task.probe is for mode logreg and knn, not {task.mode}: leave it out")
        return
    of_the_other = {"logreg": ("k", "temperature"), "knn": ("c", "whiten")}[probe.mode]
    wrong = [name for name in changed(probe.probe) if name in of_the_other]
    if wrong:
        raise ValueError(f"task.probe.{wrong[0]} has no part in mode {probe.mode}: leave it out")
    if isinstance(data.sampling, BalancedSampling):
        raise ValueError(f"data.sampling balanced draws batches, and mode {probe.mode} has none: use task.balance")
    if probe.mode == "knn" and probe.balance != "none":
        raise ValueError("task.balance weighs a loss, and nearest neighbors have none: set it to none")
    if data.max_bad_scans:
        raise ValueError(
            f"data.max_bad_scans is for training in steps; mode {probe.mode} leaves out no scan: set it to 0"
        )
    if trainer.devices not in {1, "auto"} or trainer.nodes != 1:
        raise ValueError(f"mode {probe.mode} runs in one process: set trainer.devices and trainer.nodes to 1")


def changed(config: BaseModel) -> list[str]:
    """Name the fields that have another value than by default."""
    return [name for name, field in type(config).model_fields.items() if getattr(config, name) != field.default]
