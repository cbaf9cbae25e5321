"""A frozen backbone and what it makes of scans: the input of probes that are fitted rather than trained in steps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmct import __version__
from fmct.console.errors import UsageError
from fmct.console.progress import track
from fmct.data.datamodule import DataConfig, ScanDataModule
from fmct.data.dataset import ScanDataset
from fmct.data.feature_data import FeatureDataModule
from fmct.data.loader import scan_loader
from fmct.data.manifest import LABEL_PREFIX
from fmct.evaluation.probes import Labeled
from fmct.experiment.schema import Experiment
from fmct.experiment.weights import initial_backbone
from fmct.models.backbones import BackboneConfig
from fmct.models.features import FeaturesConfig
from fmct.models.packaged import PackageConfig, PackagedModel
from fmct.models.pooling_kinds import Pooling


def device_of(experiment: Experiment) -> torch.device:
    """Return where scans are embedded.

    Raises:
        UsageError: when the experiment wants a GPU and there is none.
    """
    wanted = experiment.trainer.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU", "trainer.accelerator", "set it to auto or cpu")
    return torch.device("cuda" if torch.cuda.is_available() and wanted != "cpu" else "cpu")


def encoder_of(experiment: Experiment, data: ScanDataModule) -> PackagedModel:
    """Make the frozen backbone with what it needs to read scans, or to take features.

    Raises:
        UsageError: as `initial_backbone`, or when the table's features aren't those that the backbone names.
    """
    backbone: nn.Module
    config: BackboneConfig
    if isinstance(data, FeatureDataModule):
        assert isinstance(experiment.backbone, FeaturesConfig)
        config, seen, settings = features_of(experiment.backbone, data), None, None
        backbone = config.build(0, 0)
    else:
        backbone = initial_backbone(experiment, data)
        config, seen, settings = experiment.backbone, experiment.input, data.cache.settings
    packaged = PackagedModel(
        PackageConfig(
            name=experiment.name,
            task="classifier",
            fmct_version=__version__,
            steps=0,
            backbone=config,
            input=seen,
            preprocessing=settings,
        )
    )
    packaged.backbone.load_state_dict(backbone.state_dict())
    return packaged


def features_of(config: FeaturesConfig, data: FeatureDataModule) -> FeaturesConfig:
    """Fill in the names of the table's features; where the configuration has them, take their order from there."""
    if config.columns is not None:
        data.reorder(config.columns)
    elif config.width not in {None, len(data.table.columns)}:
        raise UsageError(
            f"the table has {len(data.table.columns)} features, and backbone.width is {config.width}",
            data.table.where,
            "give the table that is meant, or leave backbone.width out",
        )
    return config.of(data.table.columns)


def embedded(
    encoder: PackagedModel, scans: ScanDataset, pooling: Pooling, config: DataConfig, device: torch.device
) -> Labeled:
    """Embed scans, each once and whole, in float32, as evaluation does, and put their labels beside."""
    batches = track(scan_loader(scans, config.batch_size, config.workers), f"embed {len(scans)} scans, batches")
    with torch.inference_mode():
        parts = [encoder.features(batch["hu"].to(device), pooling).cpu().numpy() for batch in batches]
    columns = [scans.frame[LABEL_PREFIX + label].astype("float64").to_numpy() for label in scans.labels]
    truth: NDArray[np.float64] = np.stack(columns, 1) if columns else np.empty((len(scans), 0))
    return Labeled(np.concatenate(parts), scans.targets, truth, scans.frame["patient_id"].to_numpy(object))
