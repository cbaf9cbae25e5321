"""Weights that an experiment can start from, without a run that made them."""

from __future__ import annotations

from pathlib import Path

import torch

import fmct
from fmct.data.volumes import VolumeCache
from fmct.experiment.schema import Experiment
from fmct.models.packaged import PackageConfig, PackagedModel, save_package


def random_package(experiment: Experiment, cache: Path, folder: Path) -> Path:
    """Weights that an experiment could start from."""
    settings = VolumeCache.open(cache).settings
    about = {"name": "random", "task": "mae", "fmct_version": fmct.__version__, "steps": 0}
    config = PackageConfig(**about, backbone=experiment.backbone, input=experiment.input, preprocessing=settings)
    torch.manual_seed(7)
    return save_package(folder, PackagedModel(config), "# random\n")
