"""A package's network as ONNX, for other runtimes: written, run, and held against torch.

B scans of any number, C windows, D width, L labels.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fmct.console.errors import FmctError, UsageError
from fmct.console.files import atomic_path
from fmct.models.features import Features
from fmct.models.packaged import PackagedModel
from fmct.models.pooling import encode, pooled, prefix_tokens_of

TOLERANCE = 1e-4
OPSET = 18
CHECKED_BATCHES = (1, 3)
"""Both other than the batch that the network is traced with: one that stayed fixed would show."""


class Network(nn.Module):
    """What the ONNX file computes: from windows to the CLS embedding, and to probabilities if there is a head."""

    def __init__(self, model: PackagedModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Turn windows (B, C, Z, Y, X) into embeddings (B, D), and probabilities (B, L)."""
        tokens = encode(self.model.backbone, x, mirrored=self.model.head_is_mirrored)
        embedding = pooled(tokens, "cls", prefix_tokens_of(self.model.backbone))[:, : self.model.backbone.width]
        if self.model.head is None:
            return (embedding,)
        return embedding, torch.sigmoid(self.model.head(tokens).float())


def require_onnx() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        UsageError: when it isn't.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} isn't installed", "--onnx", "pip install 'fmct[onnx]'")


def write_onnx(model: PackagedModel, path: Path) -> float:
    """Write a network as ONNX and check that it computes what torch does, for batches of other sizes.

    Args:
        model: with weights.
        path: the file; appears whole, and only if it is right.

    Returns:
        The largest difference that was seen between its outputs and torch's.

    Raises:
        UsageError: when the packages for it aren't installed.
        FmctError: when the network can't be written, or differs by more than `TOLERANCE`.
    """
    require_onnx()
    network = Network(model)
    example = example_of(model, 2)
    outputs = ["embedding"] if model.head is None else ["embedding", "probabilities"]
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision is missed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own insides
        try:
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["x"],
                output_names=outputs,
                opset_version=OPSET,
                dynamic_shapes={"x": {0: torch.export.Dim("scans", min=1)}},
                dynamo=True,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise FmctError(
                f"the network can't be written as ONNX: {str(error).strip().splitlines()[0]}",
                f"the package {model.config.name}",
                "leave out --onnx; a neighbor head (knn) can't be written",
            ) from error
    assert program is not None
    program.model.metadata_props.update(about(model))
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
        difference = largest_difference(network, model, temporary)
        if not difference <= TOLERANCE:
            raise FmctError(
                f"the ONNX file computes something else than torch: outputs differ by {difference:.2g}",
                path,
                "leave out --onnx, and report the architecture",
            )
    return difference


def about(model: PackagedModel) -> dict[str, str]:
    """Return what a reader of the file should know: whose it is, and what its input is."""
    config = model.config
    facts = {"name": config.name, "fmct_version": config.fmct_version, "labels": ",".join(config.labels)}
    if config.input:
        facts["windows_level_width_hu"] = json.dumps([[w.level_hu, w.width_hu] for w in config.input.windows])
    if config.preprocessing:
        facts["preprocessing"] = config.preprocessing.canonical_json()
    return facts


def example_of(model: PackagedModel, scans: int) -> Tensor:
    """Make an input: (B, C, Z, Y, X) in [0, 1], or (B, D) for weights that take features."""
    generator = torch.Generator().manual_seed(scans)
    if isinstance(model.backbone, Features):
        return torch.randn(scans, model.backbone.width, generator=generator)
    side = model.input.voxels
    return torch.rand(scans, model.input.channels, side, side, side, generator=generator)


def largest_difference(network: Network, model: PackagedModel, path: Path) -> float:
    """Run a file with onnxruntime on the CPU and compare all outputs with torch's; NaN where either has one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    with torch.inference_mode():
        for scans in CHECKED_BATCHES:
            x = example_of(model, scans)
            for ours, theirs in zip(network(x), session.run(None, {"x": x.numpy()}), strict=True):
                differences.append(np.abs(ours.numpy() - theirs).max())
    return float(np.max(differences))
