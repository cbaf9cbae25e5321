"""Occlusion maps: they are the fall of a logit, place by place, and point at a lesion where attention may not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_attention import SIDE, head_volume, vit
from torch import Tensor

from fmct.data.volumes import Volume
from fmct.evaluation.explanations import Explainer
from fmct.evaluation.occlusion import PLAIN_HU, hu_of_windows, occlusion
from fmct.models.heads import AttentiveHeadConfig
from fmct.models.pooling import with_mirror_image
from fmct.views.windows import BONE, BRAIN, SUBDURAL, windows

WINDOWS = (BRAIN, BONE)


def brain(**lesions: tuple[slice, slice, slice]) -> Tensor:
    """HU of 8 x 8 x 8 voxels: plain tissue, blood of 70 HU where a lesion is, bone and air in two corners."""
    hu = torch.full((8, 8, 8), PLAIN_HU)
    for place in lesions.values():
        hu[place] = 70.0
    hu[:2, :2, :2] = 900.0
    hu[6:, 6:, 6:] = -1024.0
    return hu


def falls(hu: Tensor, logits_of: object, cell: tuple[int, int, int] = (2, 2, 2)) -> Tensor:
    return occlusion(windows(hu[None, None], WINDOWS), hu, WINDOWS, cell, logits_of)  # type: ignore[arg-type]


def test_a_map_is_the_fall_of_each_logit_at_each_place() -> None:
    hu = brain(lesion=(slice(2, 4), slice(4, 6), slice(2, 4)))
    shown = windows(hu[None, None], WINDOWS)
    asked: list[int] = []

    def logits_of(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.stack([x[:, 0].sum((1, 2, 3)), -x[:, 0].sum((1, 2, 3)), x[:, 1].amax((1, 2, 3))], 1)

    found = falls(hu, logits_of)
    expected = torch.zeros(3, 4, 4, 4)
    expected[0, 1, 2, 1] = 8 * (70 - PLAIN_HU) / BRAIN.width_hu  # eight voxels become plain
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # bone stays, and a logit that rises counts 0
    assert sum(asked) == 1 + 4**3 - 2  # places of nothing but bone or air are not asked about
    assert torch.equal(shown, windows(hu[None, None], WINDOWS))


def test_places_at_the_edge_may_be_smaller() -> None:
    hu = brain(lesion=(slice(6, 8), slice(0, 2), slice(6, 8)))
    found = falls(hu, lambda x: x[:, 0].sum((1, 2, 3))[:, None], (3, 3, 3))
    assert found.shape == (1, 3, 3, 3)
    assert found[0].argmax() == 2 * 9 + 0 * 3 + 2


def test_of_two_sides_that_differ_the_one_with_the_lesion_is_lit() -> None:
    """For |own - mirrored| alone both sides count alike: a lesion made plain ends it, the place opposite doesn't."""
    hu = brain(lesion=(slice(4, 6), slice(2, 4), slice(0, 2)))

    def asymmetry(x: Tensor) -> Tensor:
        own, mirrored = with_mirror_image(x[:, :1]).split(len(x))
        return (own - mirrored).abs().sum((1, 2, 3, 4))[:, None]

    found = falls(hu, asymmetry)[0]
    assert found.argmax() == 2 * 16 + 1 * 4 + 0
    assert found[2, 1, 3] == 0


def test_hounsfield_units_come_back_from_windows() -> None:
    hu = torch.tensor([-700.0, -10.0, 33.0, 70.0, 1500.0]).reshape(1, 1, 1, 1, 5)
    shown = (BRAIN, SUBDURAL, BONE)
    torch.testing.assert_close(hu_of_windows(windows(hu, shown)[0], shown), hu[0, 0], atol=0.01, rtol=0)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_models_map_is_what_occluding_by_hand_gives(mirror: bool) -> None:
    model, volume = vit(head=AttentiveHeadConfig(heads=2, mirror=mirror)), head_volume()
    one = Explainer(model, ["occlusion"], ["SDH"]).maps(volume)[0]
    assert (one.name, one.values.shape) == ("occlusion-SDH", (3, 3, 3))
    before = torch.logit(model.probabilities(torch.from_numpy(volume.voxels)[None, None]))[0, 1]
    most = np.unravel_index(one.values.argmax(), one.values.shape)
    for z, y, x in (most, (1, 1, 1), (0, 1, 2), (2, 0, 1)):
        place = tuple(slice(8 * n, 8 * n + 8) for n in (z, y, x))
        hu = volume.voxels.copy()
        hu[place] = np.where((hu[place] > -15) & (hu[place] < 110), 33, hu[place])
        after = torch.logit(model.probabilities(torch.from_numpy(hu)[None, None]))[0, 1]
        assert one.values[z, y, x] == pytest.approx(max(float(before - after), 0), abs=2e-5)
    assert one.values.max() > 1e-3


def test_cached_windows_give_the_map_that_hounsfield_units_give() -> None:
    model, volume = vit(head=AttentiveHeadConfig(heads=2)), head_volume()
    shown = model.input.whole(torch.from_numpy(volume.voxels)[None, None])[0].half().numpy()
    maps = [
        Explainer(model, ["occlusion"], ["ICH"]).maps(one)[0].values for one in (volume, Volume(shown, volume.affine))
    ]
    assert SIDE == 24
    np.testing.assert_allclose(*maps, atol=0.02 * maps[0].max())
