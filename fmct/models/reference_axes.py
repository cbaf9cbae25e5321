"""Published networks take volumes as (R, A, S), all others here (Z, Y, X): weights are turned, so volumes aren't."""

from __future__ import annotations

from fmct.models.vit3d import ViT3D


def reordered(published: ViT3D) -> ViT3D:
    """Return the same network for (B, C, Z, Y, X) input, as everything here has it; published ones take (R, A, S).

    Kernels of the patch embedding and the positions are turned; patch tokens then come in the order of the turned grid.

    Args:
        published: from `load_reference`.
    """
    config = published.config
    grid_xyz, patch_xyz = published.grid_zyx, published.patch_zyx
    patch = (patch_xyz[2], patch_xyz[1], patch_xyz[0])
    side_z, side_y, side_x = (count * size for count, size in zip(grid_xyz[::-1], patch, strict=True))
    turned = config.model_copy(update={"patch_voxels": patch}).build(published.in_channels, (side_z, side_y, side_x))
    tensors = dict(published.state_dict())
    tensors["patch_embedding.weight"] = tensors["patch_embedding.weight"].transpose(2, 4)
    positions_1XYZD = tensors["positions"].reshape(1, *grid_xyz, -1)
    tensors["positions"] = positions_1XYZD.transpose(1, 3).flatten(1, 3)
    turned.load_state_dict(tensors)
    return turned.train(published.training)
