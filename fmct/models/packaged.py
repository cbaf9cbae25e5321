"""The model in a weight package, from a scan on disk to an embedding; what the files are: `fmct.models.package_files`.

B scans, C windows, N tokens, D width, L labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fmct.console.errors import UsageError, require_file
from fmct.console.files import atomic_path, write_text_atomically
from fmct.data.presets import AnySettings
from fmct.data.series import find_scans
from fmct.data.volume_file import Volume, Voxels
from fmct.data.volume_making import make_volume
from fmct.models.features import Features
from fmct.models.package_files import CARD, CONFIG, WEIGHTS, write_sums
from fmct.models.package_files import SUMS as SUMS
from fmct.models.package_files import PackageConfig as PackageConfig
from fmct.models.package_files import package_folder as package_folder
from fmct.models.package_files import read_config as read_config
from fmct.models.pooling import encode, is_mirrored, pooled, prefix_tokens_of
from fmct.models.pooling_kinds import Pooling
from fmct.models.strict_loading import load_tensors
from fmct.views.network_input import InputConfig


class PackagedModel(nn.Module):
    """A backbone with what it needs to read scans, and a head if it was adapted."""

    def __init__(self, config: PackageConfig) -> None:
        super().__init__()
        self.config = config
        seen = config.input or InputConfig()  # of no account where there is none: the backbone takes features
        self.backbone = config.backbone.build(seen.channels, seen.voxels)
        self.head: nn.Module | None = None
        if config.head:
            self.head = config.head.build(self.backbone.width, len(config.labels), prefix_tokens_of(self.backbone))
        self.eval().requires_grad_(False)

    def tokens(self, x: Tensor) -> Tensor:
        """Encode windowed views.

        Args:
            x: (B, C, Z, Y, X) float32 windows in [0, 1].

        Returns:
            (B, 1 + registers + patches, D) after the final norm: CLS, registers, patches.
        """
        tokens: Tensor = self.backbone(x)
        return tokens

    def features(self, volumes: Tensor, pooling: Pooling = "cls") -> Tensor:
        """Embed preprocessed volumes, each by itself: a scan's bits don't depend on its batch.

        Args:
            volumes: (B, ...) as `InputConfig.view` takes them, or (B, D) features where these are the input.
            pooling: what stands for a scan, see `fmct.models.pooling`.

        Returns:
            (B, D) float32; wider where the pooling is, see `pooled_width`.
        """
        prefix = prefix_tokens_of(self.backbone)
        encoded = self._one_by_one(volumes, mirrored=is_mirrored(pooling))
        return torch.cat([pooled(tokens, pooling, prefix).float() for tokens in encoded])

    @property
    def input(self) -> InputConfig:
        """How volumes become the network's input.

        Raises:
            UsageError: when the weights take features.
        """
        if self.config.input is None:
            raise self._takes_features()
        return self.config.input

    def _takes_features(self) -> UsageError:
        return UsageError(
            "these weights read no scans: they were fitted on features that another model made",
            f"the package {self.config.name}",
            "make features of the scans with that model, and give them to `fmct evaluate RUN --features TABLE`",
        )

    def probabilities(self, volumes: Tensor) -> Tensor:
        """Classify preprocessed volumes, as `InputConfig.view` takes them, or features where these are the input.

        Args:
            volumes: (B, ...).

        Returns:
            (B, L) in [0, 1].

        Each by itself: a scan's bits don't depend on its batch.

        Raises:
            UsageError: when the package has no head.
        """
        if self.head is None:
            raise UsageError(
                "these weights have no classification head",
                f"the package {self.config.name} ({self.config.task})",
                "adapt them first: a classifier experiment with task.weights naming this package",
            )
        encoded = self._one_by_one(volumes, mirrored=self.head_is_mirrored)
        return torch.cat([torch.sigmoid(self.head(tokens).float()) for tokens in encoded])

    @property
    def head_is_mirrored(self) -> bool:
        """Whether the head takes tokens of mirror images, too, see `fmct.models.pooling.encode`."""
        head: Any = self.head
        return bool(head is not None and head.mirrored)

    def _one_by_one(self, volumes: Tensor, *, mirrored: bool) -> Iterator[Tensor]:
        """Encode volumes: (1, N, D) for each. Matrix products of another size sum in another order, in the last bit."""
        takes_features = isinstance(self.backbone, Features)
        for volume in torch.split(volumes, 1):
            yield encode(self.backbone, volume if takes_features else self.input.whole(volume), mirrored=mirrored)

    def read(self, path: str | Path) -> Volume:
        """Read the one scan at a path and preprocess it as the weights expect.

        Raises:
            UsageError: when there is no scan, or more than one.
        """
        path = require_file(Path(path), "the scan", "give a DICOM folder or a NIfTI file")
        scans, rejects = find_scans([path])
        if len(scans) != 1:
            reasons = ", ".join(sorted({str(reject.code) for reject in rejects}))
            found = f"{len(scans)} scans" + (f" and rejects ({reasons})" if rejects else "")
            raise UsageError(
                f"expected one scan, found {found}", path, "name one series' folder or file; `fmct embed` takes many"
            )
        return make_volume(scans[0].load(), self.preprocessing, str(path))

    @property
    def preprocessing(self) -> AnySettings:
        """The preprocessing that the weights expect.

        Raises:
            UsageError: when the package doesn't know it, or takes features.
        """
        if self.config.input is None:
            raise self._takes_features()
        if self.config.preprocessing is None:
            raise UsageError(
                "the package doesn't say how scans are to be preprocessed",
                f"the package {self.config.name}",
                "give windowed tensors to model.tokens(x) yourself",
            )
        return self.config.preprocessing

    def embed(self, path: str | Path, pooling: Pooling = "cls") -> NDArray[np.float32]:
        """Embed a scan on disk: file -> preprocessing -> embedding (D,) float32, see `features`."""
        embedding: NDArray[np.float32] = self.features(as_batch(self.read(path).voxels), pooling)[0].numpy()
        return embedding


def as_batch(voxels: Voxels) -> Tensor:
    """Return a volume's voxels, (Z, Y, X) or (C, Z, Y, X), as a batch of one scan, (1, C, Z, Y, X)."""
    return torch.from_numpy(voxels).reshape(1, -1, *voxels.shape[-3:])


def save_package(folder: Path, model: PackagedModel, card: str) -> Path:
    """Write a package; each file appears whole, the checksums last.

    Args:
        folder: where to; files of an earlier package there are replaced.
        model: what to write.
        card: the text of MODEL_CARD.md.

    Returns:
        The folder.
    """
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}, temporary)
    write_text_atomically(folder / CONFIG, json.dumps(model.config.model_dump(mode="json"), indent=2) + "\n")
    write_text_atomically(folder / CARD, card)
    write_sums(folder)
    return folder


def load_package(path: Path, *, allow_partial: bool = False) -> PackagedModel:
    """Load a package or a finished run's weights.

    Raises:
        UsageError: on a missing or altered file, or tensors that don't fit (listed).
    """
    folder = package_folder(path)
    model = PackagedModel(read_config(folder))
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UsageError(f"not a safetensors file: {error}", folder / WEIGHTS, "export the package again") from error
    load_tensors(model, tensors, folder / WEIGHTS, allow_partial=allow_partial)
    return model
