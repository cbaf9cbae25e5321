"""Masking of blocks and of the foreground: what is hidden, and that no scan depends on its batch mates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.models.decoder import DecoderConfig
from fmct.models.mask_orders import BlockMasking, RandomMasking
from fmct.models.masking import Foreground, foreground_keep, random_keep
from fmct.models.vit3d import ViT3D, ViT3DConfig
from fmct.tasks.masked_modeling import MaskedModelingConfig, require_vit
from fmct.views.crops import identity
from fmct.views.foreground import foreground_patches
from fmct.views.network_input import InputConfig
from fmct.views.windows import BRAIN, SUBDURAL

GRID = (3, 4, 2)
PATCHES = math.prod(GRID)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def some_foreground(scans: int, seed: int = 0) -> Foreground:
    """Scans with different numbers of foreground patches, the first with all and the second with two."""
    marked = torch.rand(scans, PATCHES, generator=torch.Generator().manual_seed(seed)) < 0.6
    marked[0] = True
    marked[1] = False
    marked[1, [5, 17]] = True
    return Foreground.of(marked)


def encoder() -> ViT3D:
    torch.manual_seed(0)
    config = ViT3DConfig(width=24, depth=2, heads=4, patch_voxels=(4, 3, 5), registers=2)
    return config.build(2, (12, 12, 10)).eval()


def test_foreground_is_what_has_any_voxel_above_air() -> None:
    hu = torch.full((2, 1, 4, 4, 4), -1024.0)
    hu[0, 0, 3, 1, 0] = -699
    hu[0, 0, 0, 0, 3] = -700
    hu[0, 0, 0, 3, 1] = 40
    assert foreground_patches(hu, (2, 2, 2)).tolist() == [
        [False, False, True, False, True, False, False, False],
        [True] * 8,  # nothing but air: everything counts
    ]


def test_foreground_of_windowed_volumes_asks_the_window_that_knows() -> None:
    hu = torch.full((1, 1, 4, 4, 4), -1024, dtype=torch.int16)
    hu[0, 0, :2, :2, 2:] = -650
    hu[0, 0, 2:, :2, :2] = 40
    sees = InputConfig(voxels=4)
    shown = sees.view(hu, identity(1))
    windowed = shown.half()
    expected = sees.foreground(sees.sampled(hu, identity(1)), hu, (2, 2, 2))
    assert torch.equal(sees.foreground(sees.sampled(windowed, identity(1)), windowed, (2, 2, 2)), expected)
    assert expected.sum() == 2
    narrow = InputConfig(voxels=4, windows=(BRAIN, SUBDURAL))
    with pytest.raises(UsageError, match="none of them tells -700 HU"):
        narrow.foreground(shown[:, :2], windowed[:, :2], (2, 2, 2))


def test_masking_of_the_foreground_hides_its_share_and_leaves_air_out() -> None:
    scans, foreground = 6, some_foreground(6)
    masking = foreground_keep(RandomMasking().draw(generators(scans), GRID), 0.75, foreground)
    assert masking.absent_BK is not None
    assert masking.shown_BM is not None
    assert masking.absent_BM is not None
    for b, count in enumerate(foreground.counts):
        marked = set(foreground.patches_BN[b].nonzero().flatten().tolist())
        seen = masking.keep_BK[b][~masking.absent_BK[b]].tolist()
        hidden = masking.mask_BN[b].nonzero().flatten().tolist()
        assert len(seen) == max(1, int(count * 0.25 + 1e-6))
        assert set(seen) | set(hidden) == marked
        assert not set(seen) & set(hidden)
        shown = masking.shown_BM[b][~masking.absent_BM[b]].tolist()
        assert shown == sorted(marked)
        place = masking.restore_BN[b].tolist()
        for n, patch in enumerate(shown):
            assert seen[place[n]] == patch if patch in seen else place[n] == masking.keep_BK.shape[1]
        assert masking.scored[b].nonzero().flatten().tolist() == [shown.index(patch) for patch in hidden]


def test_equal_numbers_need_no_filling_up() -> None:
    noise = RandomMasking().draw(generators(3), GRID)
    everything = Foreground.of(torch.ones(3, PATCHES, dtype=torch.bool))
    plain, same = random_keep(noise, 0.5), foreground_keep(noise, 0.5, everything)
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], same[:3], strict=True))
    assert same[3:] == (None, None, None)
    marked = torch.zeros(3, PATCHES, dtype=torch.bool)
    marked[0, :10], marked[1, 5:15], marked[2, ::2][:10] = True, True, True
    equal = foreground_keep(noise, 0.5, Foreground.of(marked))
    assert equal.keep_BK.shape == (3, 5)
    assert (equal.absent_BK, equal.absent_BM) == (None, None)
    assert equal.shown_BM is not None


def reconstruct(
    config: MaskedModelingConfig, x: Tensor, noise: Tensor, foreground: Foreground
) -> tuple[Tensor, Tensor]:
    """The loss, and features of all scans."""
    model = encoder()
    torch.manual_seed(1)
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 2)
    return config.loss(model, decoder, x, noise, foreground)


@pytest.mark.parametrize("masking", [RandomMasking(), BlockMasking()])
def test_batched_equals_one_by_one(masking: RandomMasking | BlockMasking) -> None:
    config = MaskedModelingConfig(normalize_target=True, target_blur_voxels=0.7, masking=masking)
    foreground, noise = some_foreground(5), masking.draw(generators(5), GRID)
    x = torch.rand(5, 2, 12, 12, 10, generator=torch.Generator().manual_seed(3))
    loss, features = reconstruct(config, x, noise, foreground)
    alone = [
        reconstruct(
            config, x[b : b + 1], noise[b : b + 1], Foreground(foreground.patches_BN[b : b + 1], [foreground.counts[b]])
        )
        for b in range(5)
    ]
    torch.testing.assert_close(loss, torch.stack([one for one, _ in alone]).mean())
    order = [view for group in foreground.groups() for view in group]
    torch.testing.assert_close(features, torch.cat([alone[view][1] for view in order]))


def test_groups_are_of_about_equal_lengths_and_take_all() -> None:
    counts = [5, 400, 100, 120, 6, 126, 500, 499, 2]
    groups = Foreground(torch.zeros(9, 512), counts).groups()
    assert [[counts[view] for view in group] for group in groups] == [[2], [5, 6], [100, 120], [126], [400, 499, 500]]
    assert sorted(view for group in groups for view in group) == list(range(9))


def test_one_group_or_several_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config, foreground = MaskedModelingConfig(), some_foreground(5)
    noise = RandomMasking().draw(generators(5), GRID)
    x = torch.rand(5, 2, 12, 12, 10, generator=torch.Generator().manual_seed(3))
    several, _ = reconstruct(config, x, noise, foreground)
    assert len(foreground.groups()) > 1
    monkeypatch.setattr(Foreground, "groups", lambda self: [list(range(5))])
    torch.testing.assert_close(reconstruct(config, x, noise, foreground)[0], several)


def test_air_is_neither_seen_nor_scored() -> None:
    config, foreground = MaskedModelingConfig(), some_foreground(4)
    noise = RandomMasking().draw(generators(4), GRID)
    x = torch.rand(4, 2, 12, 12, 10, generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss, _ = reconstruct(config, x, noise, foreground)
    loss.backward()
    assert x.grad is not None
    blocks = x.grad.reshape(4, 2, 3, 4, 4, 3, 2, 5).abs().amax((1, 3, 5, 7)).reshape(4, PATCHES)
    assert torch.equal(blocks > 0, foreground.patches_BN)


def test_the_target_may_be_smoothed_and_the_input_stays() -> None:
    noise = RandomMasking().draw(generators(2), GRID)
    x = torch.rand(2, 2, 12, 12, 10, generator=torch.Generator().manual_seed(3))
    model = encoder()
    decoder = DecoderConfig(depth=1, width=12, heads=2).build(model, 2)
    plain, smooth = (
        config.reconstruct(model, decoder, x, config.mask(noise, None))
        for config in (MaskedModelingConfig(), MaskedModelingConfig(target_blur_voxels=1.0))
    )
    assert torch.equal(plain.prediction_BMP, smooth.prediction_BMP)
    assert smooth.target_BMP.var() < 0.1 * plain.target_BMP.var()


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
def test_blocks_hide_the_exact_share_in_pieces_larger_than_chance(ratio: float) -> None:
    grid = (8, 8, 8)

    def hidden(masking: RandomMasking | BlockMasking) -> Tensor:
        return random_keep(masking.draw(generators(40), grid), ratio).mask_BN

    blocks, single = hidden(BlockMasking()), hidden(RandomMasking())
    assert torch.equal(blocks.sum(1), single.sum(1))

    def neighbors_alike(mask: Tensor) -> float:
        cube = mask.view(-1, *grid)
        return float((cube[:, 1:] == cube[:, :-1]).float().mean())

    assert neighbors_alike(blocks) > neighbors_alike(single) + 0.05
    assert neighbors_alike(hidden(BlockMasking(share=(0.4, 0.5)))) > neighbors_alike(blocks)


def test_a_single_block_is_a_cuboid_of_its_share() -> None:
    noise = BlockMasking(share=(0.125, 0.125), aspect=1.0).draw(generators(20), (8, 8, 8))
    for scan in random_keep(noise, 0.125).mask_BN.view(-1, 8, 8, 8):
        z, y, x = (scan.amax(axes).bool() for axes in ((1, 2), (0, 2), (0, 1)))
        assert (z.sum(), y.sum(), x.sum()) == (4, 4, 4)
        assert scan.sum() == 64


def test_blocks_may_lie_anywhere_and_depend_on_their_generator_alone() -> None:
    masking = BlockMasking()
    drawn = masking.draw(generators(400), (4, 4, 4))
    assert torch.equal(masking.draw(generators(400)[7:8], (4, 4, 4))[0], drawn[7])
    share = random_keep(drawn, 0.5).mask_BN.mean(0)
    assert share.min() > 0.15
    with pytest.raises(ValueError, match="least <= greatest"):
        BlockMasking(share=(0.5, 0.2))


def test_only_transformers_leave_patches_out() -> None:
    with pytest.raises(UsageError, match="mae needs a backbone of kind vit3d"):
        require_vit(torch.nn.Linear(2, 2), "mae")  # type: ignore[arg-type]
