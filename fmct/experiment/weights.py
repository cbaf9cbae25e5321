"""From a run to a weight package, and from a package to the start of a run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmct import __version__
from fmct.callbacks.best_weights import BestWeights
from fmct.console.errors import UsageError
from fmct.data.datamodule import ScanDataModule
from fmct.experiment.config import differences
from fmct.experiment.loading import from_record
from fmct.experiment.schema import Experiment
from fmct.models.backbones import Backbone
from fmct.models.lora import merged
from fmct.models.packaged import (
    PackageConfig,
    PackagedModel,
    load_package,
    package_folder,
    save_package,
)
from fmct.models.strict_loading import load_tensors
from fmct.release.card import model_card
from fmct.release.training_facts import TrainingFacts
from fmct.tasks.base import Setting, Task
from fmct.tasks.classifier import ClassifierTask


def setting_of(experiment: Experiment, record: dict[str, Any], data: ScanDataModule) -> Setting:
    """Return what a task needs of its experiment, given as plain values too, and of the volumes that it learns from."""
    spacing_mm = getattr(data.cache.settings, "spacing_mm", None)
    assert experiment.optimizer is not None  # of what is trained in steps
    return Setting(experiment.input, experiment.optimizer, experiment.seed, record, spacing_mm)


def initial_backbone(experiment: Experiment, data: ScanDataModule) -> Backbone:
    """Build the backbone, with the weights that the task starts from if it names any.

    Raises:
        UsageError: when the weights were made for another architecture, other windows or other preprocessing, or the
            cache's volumes went through other windows than the experiment's.
    """
    experiment.input.check_preprocessing(data.cache.settings)
    backbone = experiment.backbone.build(experiment.input.channels, experiment.input.voxels)
    weights = experiment.task.weights
    if weights is None:
        return backbone
    folder = package_folder(weights)
    package = load_package(folder)
    config = package.config
    comparisons = {
        "backbone": (config.backbone.model_dump(), experiment.backbone.model_dump()),
        "input": (
            config.input.model_dump(mode="json") if config.input else {},
            experiment.input.model_dump(mode="json"),
        ),
    }
    if config.preprocessing is not None:
        comparisons["preprocessing"] = (config.preprocessing.model_dump(), data.cache.settings.model_dump())
    for section, (theirs, ours) in comparisons.items():
        changes = differences(theirs, ours)
        if changes:
            source = (
                "a cache made with the package's preprocessing" if section == "preprocessing" else "the same values"
            )
            raise UsageError(
                f"the weights were made with another {section} (weights -> here: {'; '.join(changes)})",
                folder,
                f"use {source}; they are in the package's config.json",
            )
    load_tensors(backbone, package.backbone.state_dict(), folder)
    return backbone


def export_run(
    task: Task, tensors: Mapping[str, Tensor], experiment: Experiment, data: ScanDataModule, folder: Path, steps: int
) -> Path:
    """Write the weights that a run arrived at as a package.

    Args:
        task: says which of the tensors are packaged.
        tensors: the whole task's, by name, none of them divided among processes.
        experiment: what was run.
        data: what it learned from.
        folder: where to.
        steps: optimizer steps that were made.

    Returns:
        The folder.
    """
    classifier = task if isinstance(task, ClassifierTask) else None
    config = PackageConfig(
        name=experiment.name,
        task=experiment.task.kind,
        fmct_version=__version__,
        steps=steps,
        backbone=experiment.backbone,
        input=experiment.input,
        preprocessing=data.cache.settings,
        head=classifier.config.head if classifier else None,
        labels=classifier.config.labels if classifier else (),
    )
    model = PackagedModel(config)
    learned = tensors_of(task.packaged_backbone(), task, tensors)
    if classifier and classifier.config.lora:
        plain = experiment.backbone.build(experiment.input.channels, experiment.input.voxels)
        learned = merged(plain, classifier.config.lora, learned)
    model.backbone.load_state_dict(learned)
    if classifier and model.head is not None:
        model.head.load_state_dict(tensors_of(classifier.head, task, tensors))
    return save_package(folder, model, model_card(config, TrainingFacts.of(experiment, data)))


def tensors_of(part: nn.Module, whole: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick a part's tensors out of those of the whole, and name them as the part does."""
    prefix = next(name for name, module in whole.named_modules() if module is part) + "."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def export_checkpoint(path: Path, folder: Path) -> Path:
    """Write the weights in a run's checkpoint as a package, as the run itself does at its end.

    Args:
        path: the checkpoint, in one file. The manifest and the cache that it was made from must still be there.
        folder: where to.

    Returns:
        The folder.

    Raises:
        UsageError: when the file can't be read, or the manifest or the cache can't.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"the checkpoint can't be read: {str(error).splitlines()[0]}",
            path,
            "name a run of strategy auto, ddp or fsdp2",
        ) from error
    experiment = from_record(checkpoint["experiment"])
    data = experiment.data.build(experiment.labels, experiment.seed)
    backbone = experiment.backbone.build(experiment.input.channels, experiment.input.voxels)
    task = experiment.task.build(backbone, setting_of(experiment, checkpoint["experiment"], data))
    best = BestWeights(experiment.trainer.keep_metric)
    if best.state_key in checkpoint["callbacks"]:
        best.load_state_dict(checkpoint["callbacks"][best.state_key])
    tensors, steps = best.chosen(checkpoint["state_dict"], checkpoint["global_step"])
    return export_run(task, tensors, experiment, data, folder, steps)
