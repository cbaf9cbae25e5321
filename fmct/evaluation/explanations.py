"""The maps that a model gives of one scan: where it looks, and what counts for each label.

`Explainer` knows which maps a model can give and runs it; the mathematics is in `attention`, `layer_cam`,
`occlusion` and `token_colors`, the millimeters in `map_geometry`.

Shapes: 1 scan, N patches, T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmct.console.errors import UsageError, nearest
from fmct.data.own_grid import VoxelGrid
from fmct.data.volumes import Volume
from fmct.evaluation.attention import cls_heads, read_weights, relevance, rollout
from fmct.evaluation.layer_cam import CAM_STAGES, fused, layer_cam
from fmct.evaluation.map_geometry import INPUT_VOXELS, Lattice, lattice_affine
from fmct.evaluation.map_kinds import MapKind
from fmct.evaluation.occlusion import hu_of_windows, occlusion
from fmct.evaluation.token_colors import TokenColors
from fmct.models.attention_maps import AttentionMaps
from fmct.models.cnn import ResNet
from fmct.models.features import Features
from fmct.models.packaged import PackagedModel, as_batch
from fmct.models.pooling import encode, over_the_mirror_image, side_by_side, with_mirror_image
from fmct.models.vit3d import ViT3D
from fmct.views.crops import identity
from fmct.views.network_input import is_windowed

OF_TRANSFORMERS: tuple[MapKind, ...] = ("rollout", "heads", "relevance", "pca", "occlusion")
OF_CONVOLUTIONS: tuple[MapKind, ...] = ("layercam", "occlusion")
OF_LABELS: tuple[MapKind, ...] = ("relevance", "layercam", "occlusion")
ABOUT_CELLS_PER_SIDE = 8
"""Of an occlusion where the network has no patches."""


@dataclass(frozen=True, eq=False)
class ExplanationMap:
    """A map of one scan.

    Attributes:
        kind: which.
        label: that it is about; "" where it is about none.
        values: (z, y, x) float32 at its places; heads (H, z, y, x); pca (3, z, y, x) in [0, 1].
        lattice: where the places are on the network's input.
        affine: (4, 4) from indices of places (x, y, z) to RAS millimeters.
    """

    kind: MapKind
    label: str
    values: NDArray[np.float32]
    lattice: Lattice
    affine: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The map's name, as files have it."""
        return f"{self.kind}-{self.label}" if self.label else self.kind


class Explainer:
    """Makes the maps that were asked for of one scan after the other.

    Args:
        model: on its device, in evaluation mode.
        kinds: which maps.
        labels: for maps of labels; of the model's.

    Raises:
        UsageError: when the model can't give a map, or has no such label.
    """

    def __init__(self, model: PackagedModel, kinds: Sequence[MapKind], labels: Sequence[str]) -> None:
        self.model = model
        self.input = model.input
        self.kinds = kinds
        self.labels = labels
        self.colors: TokenColors | None = None
        check_kinds(model, kinds)
        for label in labels:
            if label not in model.config.labels:
                known = ", ".join(model.config.labels) or "none"
                guess = nearest(label, model.config.labels)
                fix = f"did you mean {guess}?" if guess else f"it has {known}"
                raise UsageError(f"the model has no label {label}", "--labels", fix)

    def maps(self, volume: Volume) -> list[ExplanationMap]:
        """Return the maps of a scan, in the order of `kinds`, those of labels in the order of `labels`."""
        volumes = as_batch(volume.voxels).to(next(self.model.parameters()).device)
        x = self.input.whole(volumes)
        made = self._of_attention(x, volumes) if isinstance(self.model.backbone, ViT3D) else {}
        made |= self._relevance(x) if "relevance" in self.kinds else {}
        made |= self._of_convolutions(x) if "layercam" in self.kinds else {}
        made |= self._occlusion(x, volumes) if "occlusion" in self.kinds else {}
        grid = VoxelGrid.of_volume(volume)
        return [
            ExplanationMap(kind, label, values, lattice, lattice_affine(lattice, x.shape[-1], grid))
            for kind in self.kinds
            for (made_kind, label), (values, lattice) in made.items()
            if made_kind == kind
        ]

    def _of_attention(self, x: Tensor, volumes: Tensor) -> dict[tuple[MapKind, str], tuple[Any, Lattice]]:
        """One pass without gradients, for all that needs none."""
        backbone: Any = self.model.backbone
        made: dict[MapKind, Tensor | NDArray[np.float32]] = {}
        with torch.inference_mode():
            if "rollout" in self.kinds:
                with AttentionMaps(reduce=lambda map_BHTT: map_BHTT.mean(1)) as means:
                    self.model.tokens(x)
                made["rollout"] = rollout(means.kept, backbone.prefix_tokens)[0]
            if {"heads", "pca"} & set(self.kinds):
                with AttentionMaps({len(backbone.blocks) - 1}) as last:
                    tokens_ND = self.model.tokens(x)[0, backbone.prefix_tokens :]
                made["heads"] = cls_heads(last.kept[0], backbone.prefix_tokens)[0]
            if "pca" in self.kinds:
                sampled = self.input.sampled(volumes, identity(1))
                foreground_N = self.input.foreground(sampled, volumes, backbone.patch_zyx)[0]
                made["pca"] = self._colored(tokens_ND.float().cpu().numpy(), foreground_N.cpu().numpy())
        return {(kind, ""): self._on_patches(values, x) for kind, values in made.items()}

    def _colored(self, tokens_ND: NDArray[np.float32], foreground_N: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self.colors is None:  # of the first scan, so that colors mean the same in all
            self.colors = TokenColors.of(tokens_ND, foreground_N)
        return self.colors.paint(tokens_ND, foreground_N).T

    def _relevance(self, x: Tensor) -> dict[tuple[MapKind, str], tuple[Any, Lattice]]:
        backbone: Any = self.model.backbone
        made: dict[tuple[MapKind, str], tuple[Any, Lattice]] = {}
        with torch.enable_grad(), uncheckpointed(backbone), AttentionMaps() as maps:
            logits_1L, tokens_STD = self._logits(x)
        for label in self.labels:
            logit = logits_1L[:, self.model.config.labels.index(label)].sum()
            *gradients, of_tokens = torch.autograd.grad(logit, [*maps.kept, tokens_STD], retain_graph=True)
            counts_SN = relevance(maps.kept, gradients, backbone.prefix_tokens, read_weights(tokens_STD, of_tokens))
            counts_SZYX = counts_SN.reshape(-1, *backbone.grid_of(x))
            made["relevance", label] = self._on_patches(over_the_mirror_image(counts_SZYX).flatten(), x)
        return made

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's (1, L) logits and the tokens of the one scan, and of its mirror image if it reads them."""
        head: Any = self.model.head  # `check_kinds` has seen that there is one
        shown = x.clone().requires_grad_()
        tokens_STD = self.model.tokens(with_mirror_image(shown) if head.mirrored else shown)
        return head(side_by_side(tokens_STD) if head.mirrored else tokens_STD), tokens_STD

    def _occlusion(self, x: Tensor, volumes: Tensor) -> dict[tuple[MapKind, str], tuple[Any, Lattice]]:
        side, head = self.input.voxels, self.model.head
        shape = getattr(self.model.backbone, "patch_zyx", (max(1, side // ABOUT_CELLS_PER_SIDE),) * 3)
        if is_windowed(volumes):
            hu = hu_of_windows(x[0], self.input.windows)
        else:
            hu = self.input.sampled(volumes, identity(1))[0, 0]

        def logits_of(copies: Tensor) -> Tensor:
            assert head is not None  # as `check_kinds` has seen
            logits_BL: Tensor = head(encode(self.model.backbone, copies, mirrored=self.model.head_is_mirrored))
            return logits_BL

        with torch.inference_mode():
            falls_LZYX = occlusion(x, hu, self.input.windows, shape, logits_of).numpy()
        rows = {label: falls_LZYX[self.model.config.labels.index(label)] for label in self.labels}
        return {("occlusion", label): (row, Lattice.of_patches(shape)) for label, row in rows.items()}

    def _on_patches(self, values: Tensor | NDArray[np.float32], x: Tensor) -> tuple[NDArray[np.float32], Lattice]:
        backbone: Any = self.model.backbone
        array = values.cpu().numpy() if isinstance(values, Tensor) else values
        grid_zyx = backbone.grid_of(x)
        return array.reshape(*array.shape[:-1], *grid_zyx), Lattice.of_patches(backbone.patch_zyx)

    def _of_convolutions(self, x: Tensor) -> dict[tuple[MapKind, str], tuple[Any, Lattice]]:
        backbone: Any = self.model.backbone
        features: list[Tensor] = []
        stages = [getattr(backbone.net, f"layer{stage}") for stage in CAM_STAGES]
        hooks = [stage.register_forward_hook(lambda _module, _args, out: features.append(out)) for stage in stages]
        try:
            with torch.enable_grad():
                logits_1L, _ = self._logits(x)
        finally:
            for hook in hooks:
                hook.remove()
        lattices = [Lattice.of_stride(backbone.stride_of(stage)) for stage in CAM_STAGES]
        made: dict[tuple[MapKind, str], tuple[Any, Lattice]] = {}
        for label in self.labels:
            logit = logits_1L[:, self.model.config.labels.index(label)].sum()
            gradients = torch.autograd.grad(logit, features, retain_graph=True)
            maps = [layer_cam(f.detach(), g) for f, g in zip(features, gradients, strict=True)]
            cams = [over_the_mirror_image(map_SZYX).cpu().numpy() for map_SZYX in maps]
            made["layercam", label] = fused(cams, lattices, x.shape[-1]), lattices[0]
        return made


@contextmanager
def uncheckpointed(backbone: Any) -> Iterator[None]:
    """Let a backbone keep its activations: blocks that are computed twice would have two maps."""
    config = backbone.config
    backbone.config = config.model_copy(update={"checkpoint_activations": False})
    try:
        yield
    finally:
        backbone.config = config


def check_kinds(model: PackagedModel, kinds: Sequence[MapKind]) -> None:
    """Check that a model can give some maps.

    Raises:
        UsageError: naming one that it can't, and those that it can.
    """
    others: tuple[MapKind, ...] = () if isinstance(model.backbone, Features) else ("occlusion",)
    known = {ViT3D: OF_TRANSFORMERS, ResNet: OF_CONVOLUTIONS}.get(type(model.backbone), others)
    possible = [kind for kind in known if model.head is not None or kind not in OF_LABELS]
    for kind in kinds:
        if kind not in possible:
            why = "no head, so no label" if kind in known else f"the backbone {model.config.backbone.kind}"
            given = ", ".join(possible) or "none of " + ", ".join(get_args(MapKind))
            raise UsageError(f"no map `{kind}` of weights with {why}", "--maps", f"these weights give: {given}")


def network_grid(model: PackagedModel, volume: Volume) -> VoxelGrid:
    """Return where the voxels of the network's input are."""
    side = model.input.voxels
    grid = VoxelGrid.of_volume(volume)
    return VoxelGrid(lattice_affine(INPUT_VOXELS, side, grid), (side, side, side))


def head_mask(model: PackagedModel, volume: Volume) -> NDArray[np.bool_]:
    """Mark the voxels of the network's input that aren't air: (Z, Y, X) bool."""
    volumes = as_batch(volume.voxels)
    network = model.input
    marked = network.foreground(network.sampled(volumes, identity(1)), volumes, (1, 1, 1))[0]
    return marked.reshape((network.voxels,) * 3).numpy()
