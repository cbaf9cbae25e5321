"""The experiment file: its sections, and the checks across them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fmct.callbacks.watching import CallbacksConfig
from fmct.data.datamodule import DataConfig
from fmct.data.sampling import BalancedSampling
from fmct.experiment.optim import OptimizerConfig
from fmct.experiment.probe_checks import refuse_what_does_nothing
from fmct.experiment.trainer import TrainerConfig
from fmct.models.backbones import BackboneConfig
from fmct.tasks.anomaly import AnomalyConfig
from fmct.tasks.classifier import ClassifierConfig
from fmct.tasks.dino import DINOConfig
from fmct.tasks.mae import MAEConfig
from fmct.views.network_input import InputConfig

TaskConfig = Annotated[MAEConfig | DINOConfig | AnomalyConfig | ClassifierConfig, Field(discriminator="kind")]


class Experiment(BaseSettings):
    """One complete run: what is learned, by what network, from which scans, how and on what hardware."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="FMCT_", env_nested_delimiter="__", validate_default=True
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run's folder")
    seed: int = Field(42, ge=0, description="of weights, order and views")
    task: TaskConfig
    backbone: BackboneConfig
    input: InputConfig = InputConfig()
    data: DataConfig
    optimizer: OptimizerConfig | None = Field(None, description="only task.mode logreg and knn go without")
    trainer: TrainerConfig = TrainerConfig()
    callbacks: CallbacksConfig = CallbacksConfig()

    @model_validator(mode="after")
    def _input_fits_backbone(self) -> Experiment:
        patch = getattr(self.backbone, "patch_voxels", 1)  # convolutional networks take any size
        sides = {"input.voxels": self.input.voxels}
        if isinstance(self.task, DINOConfig) and self.task.local_views:
            sides["task.local_voxels"] = self.task.local_voxels
        for name, side in sides.items():
            for patch_side in {patch} if isinstance(patch, int) else set(patch):
                if side % patch_side:
                    nearest_side = max(patch_side, round(side / patch_side) * patch_side)
                    raise ValueError(
                        f"{name} {side} is no multiple of backbone.patch_voxels {patch_side}: use {nearest_side}"
                    )
        return self

    @model_validator(mode="after")
    def _batch_norm_needs_two(self) -> Experiment:
        if isinstance(self.task, ClassifierConfig) and not self.task.is_probe and self.data.batch_size < 2:
            raise ValueError("the classifier's batch norm needs data.batch_size of at least 2")
        return self

    @model_validator(mode="after")
    def _averages_are_whole(self) -> Experiment:
        if isinstance(self.task, ClassifierConfig) and self.task.ema_decay and "fsdp" in self.trainer.strategy:
            raise ValueError(
                f"task.ema_decay averages whole weights: with trainer.strategy {self.trainer.strategy} set it to null"
            )
        return self

    @model_validator(mode="after")
    def _what_is_encoded_once_is_whole(self) -> Experiment:
        if isinstance(self.task, ClassifierConfig) and self.task.views == "whole" and "fsdp" in self.trainer.strategy:
            raise ValueError("task.views whole encodes scans one by one: set trainer.strategy to auto or ddp")
        return self

    @model_validator(mode="after")
    def _probe_does_what_it_says(self) -> Experiment:
        refuse_what_does_nothing(self.task, self.backbone, self.input, self.data, self.trainer)
        return self

    @model_validator(mode="after")
    def _what_trains_says_how_long(self) -> Experiment:
        if isinstance(self.task, ClassifierConfig) and self.task.is_probe:
            return self
        if self.optimizer is None:
            raise ValueError("optimizer is missing: add it; experiments/ has complete files to start from")
        if self.trainer.max_epochs is None and self.trainer.max_steps is None:
            raise ValueError("a run must end: give trainer.max_epochs, trainer.max_steps or both")
        return self

    @model_validator(mode="after")
    def _dino_has_no_validation(self) -> Experiment:
        if isinstance(self.task, DINOConfig) and self.data.val_splits:
            raise ValueError("self-distillation has no validation loss: set data.val_splits to []")
        return self

    @model_validator(mode="after")
    def _soft_labels_need_labels(self) -> Experiment:
        if self.data.soft_labels and not self.labels:
            raise ValueError("data.soft_labels is for the classifier: a pretext task learns no labels")
        return self

    @model_validator(mode="after")
    def _sampling_needs_labels(self) -> Experiment:
        sampling, shots = self.data.sampling, self.data.shots
        named = [("data.shots.label", shots.label)] if shots else []
        if isinstance(sampling, BalancedSampling):
            named += [("data.sampling.labels", name) for name in sampling.labels or ()]
            if not self.labels:
                raise ValueError("data.sampling balanced is for the classifier: a pretext task learns no labels")
            if isinstance(self.task, ClassifierConfig) and self.task.balance != "none":
                raise ValueError("data.sampling balanced and task.balance would both make up for rare labels: use one")
        for key, name in named:
            if name not in self.labels:
                raise ValueError(f"{key} {name} isn't among the labels the task learns: {', '.join(self.labels)}")
        return self

    @model_validator(mode="after")
    def _bad_scans_leave_a_batch(self) -> Experiment:
        least = 2 if self.labels else 1
        if self.data.max_bad_scans and self.data.batch_size <= least:
            raise ValueError(f"data.max_bad_scans needs data.batch_size of at least {least + 1}: nothing would be left")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the task learns; none for pretext tasks."""
        return self.task.labels if isinstance(self.task, ClassifierConfig) else ()
