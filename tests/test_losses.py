import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fmct.console.errors import UsageError
from fmct.losses.centering import sinkhorn
from fmct.losses.dino import DINOLoss
from fmct.losses.reconstruction import patchify, reconstruction_loss, unpatchify
from fmct.models.masking import draw_noise, random_keep

SCANS, PROTOTYPES = 3, 40


def logits(views: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(views * SCANS, PROTOTYPES, generator=torch.Generator().manual_seed(seed))


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def dino_in_numpy(student: np.ndarray, teacher: np.ndarray, center: np.ndarray, temperature: float) -> float:
    """All pairs, one by one, from the paper's pseudocode, in float64."""
    students = log_softmax(student.astype(np.float64) / 0.1).reshape(-1, SCANS, PROTOTYPES)
    teachers = np.exp(log_softmax((teacher.astype(np.float64) - center) / temperature)).reshape(2, SCANS, PROTOTYPES)
    pairs = [(t, s) for t in range(2) for s in range(len(students)) if t != s]
    return float(np.mean([-(teachers[t] * students[s]).sum(-1).mean() for t, s in pairs]))


@pytest.mark.parametrize("local_views", [0, 1, 6])
def test_dino_loss_and_center_follow_numpy(local_views: int) -> None:
    criterion, center = DINOLoss(PROTOTYPES), np.zeros((1, PROTOTYPES))
    for step, temperature in enumerate((0.04, 0.055, 0.07)):
        student, teacher = logits(2 + local_views, step), logits(2, 10 + step)
        expected = dino_in_numpy(student.numpy(), teacher.numpy(), center, temperature)
        assert criterion(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)
        criterion.update_center(teacher)
        center = 0.9 * center + 0.1 * teacher.numpy().mean(0)
        np.testing.assert_allclose(criterion.center.numpy(), center, atol=1e-6)


def test_dino_gradient_is_that_of_the_plain_formula() -> None:
    criterion, teacher = DINOLoss(PROTOTYPES), logits(2, 1).requires_grad_()
    student = logits(4, 0).requires_grad_()
    criterion(student, teacher, 0.05).backward()
    assert teacher.grad is None
    targets = (teacher.detach() / 0.05).softmax(-1).chunk(2)
    twin = student.detach().clone().requires_grad_()
    views = (twin / 0.1).log_softmax(-1).chunk(4)
    pairs = [-(targets[t] * views[s]).sum(-1).mean() for t in range(2) for s in range(4) if t != s]
    torch.stack(pairs).mean().backward()
    torch.testing.assert_close(student.grad, twin.grad, rtol=1e-4, atol=1e-6)


def test_dino_loss_of_uniform_logits_is_log_k() -> None:
    loss = DINOLoss(PROTOTYPES)(torch.zeros(4 * SCANS, PROTOTYPES), torch.zeros(2 * SCANS, PROTOTYPES), 0.04)
    assert loss.item() == pytest.approx(math.log(PROTOTYPES))


def test_dino_loss_is_finite_and_float32_for_sharp_bfloat16() -> None:
    student, teacher = logits(4, 0, 1e3).bfloat16().requires_grad_(), logits(2, 1, 1e3).bfloat16()
    loss = DINOLoss(PROTOTYPES)(student, teacher, 0.04)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_the_loss_leaves_the_center_alone_and_the_state_holds_it() -> None:
    criterion = DINOLoss(PROTOTYPES)
    criterion(logits(4, 0), logits(2, 1), 0.04)
    assert not criterion.center.any()
    criterion.update_center(logits(2, 1).requires_grad_())
    assert not criterion.center.requires_grad
    twin = DINOLoss(PROTOTYPES)
    twin.load_state_dict(criterion.state_dict())
    assert torch.equal(twin.center, criterion.center)
    assert twin.center.any()


@pytest.mark.parametrize(("student_rows", "teacher_rows"), [(12, 5), (3, 6), (11, 6), (0, 0)])
def test_views_that_do_not_fit_are_refused(student_rows: int, teacher_rows: int) -> None:
    with pytest.raises(UsageError, match="don't fit"):
        DINOLoss(PROTOTYPES)(torch.zeros(student_rows, PROTOTYPES), torch.zeros(teacher_rows, PROTOTYPES), 0.04)


def _update_on_rank(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    criterion = DINOLoss(PROTOTYPES)
    criterion.update_center(logits(2, 1)[:4] if rank == 0 else logits(2, 1)[4:])
    torch.save(criterion.center, f"{folder}/center_{rank}.pt")
    torch.save(sinkhorn(logits(2, 1)[:4] if rank == 0 else logits(2, 1)[4:], 0.1), f"{folder}/assigned_{rank}.pt")
    dist.destroy_process_group()


def test_center_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    mp.spawn(_update_on_rank, (str(tmp_path),), nprocs=2)
    criterion = DINOLoss(PROTOTYPES)
    criterion.update_center(logits(2, 1))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"center_{rank}.pt", weights_only=True), criterion.center)
    assigned = [torch.load(tmp_path / f"assigned_{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(torch.cat(assigned), sinkhorn(logits(2, 1), 0.1))


def test_sinkhorn_follows_numpy_and_uses_all_prototypes_alike() -> None:
    teacher = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    teacher[:, 3] += 2.0  # a favorite prototype, which centering alone would need many steps to see
    expected = np.exp(teacher.double().numpy() / 0.5)
    for _ in range(3):
        expected = expected / expected.sum(0) / 8
        expected = expected / expected.sum(1, keepdims=True) / 64
    np.testing.assert_allclose(sinkhorn(teacher, 0.5).numpy(), expected * 64, rtol=1e-4)
    assigned = sinkhorn(teacher, 0.5, iterations=50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(64))
    torch.testing.assert_close(assigned.sum(0), torch.full((8,), 8.0), rtol=1e-3, atol=0)
    assert (teacher / 0.5).softmax(-1).sum(0)[3] > 30


def test_sinkhorn_at_a_low_temperature_leaves_no_prototype_and_no_row_empty() -> None:
    """Cosines span 2 / .005 = 400 powers of e, and float32 has 88 below 1."""
    teacher = torch.randn(5000, 64, generator=torch.Generator().manual_seed(0)).tanh()
    teacher[:, 5] = -1.0  # a prototype that nothing is like
    teacher[7] = -1.0  # and a row like nothing
    expected = teacher.double().numpy() / 0.005
    for _ in range(3):
        expected = expected - np.logaddexp.reduce(expected, 0)
        expected = expected - np.logaddexp.reduce(expected, 1, keepdims=True)
    assigned = sinkhorn(teacher, 0.005)
    torch.testing.assert_close(assigned.sum(1), torch.ones(5000), rtol=1e-4, atol=0)
    assert assigned[:, 5].sum() > 1
    np.testing.assert_allclose(assigned.numpy(), np.exp(expected), atol=1e-4)


def test_sinkhorn_targets_enter_the_loss() -> None:
    student, teacher = logits(3, 0), logits(2, 1)
    targets = sinkhorn(teacher, 0.05).chunk(2)
    views = (student / 0.1).log_softmax(-1).chunk(3)
    pairs = [-(targets[t] * views[s]).sum(-1).mean() for t in range(2) for s in range(3) if t != s]
    loss = DINOLoss(PROTOTYPES, centering="sinkhorn")(student, teacher, 0.05)
    torch.testing.assert_close(loss, torch.stack(pairs).mean())


def test_patchify_orders_voxels_and_unpatchify_undoes_it() -> None:
    x = torch.rand(2, 3, 4, 6, 10)
    patches = patchify(x, (2, 3, 5))
    assert patches.shape == (2, 8, 90)
    corner = x[1, :, 2:4, 3:6, 0:5].permute(1, 2, 3, 0).reshape(-1)  # the patch at grid (1, 1, 0) of (2, 2, 2)
    assert torch.equal(patches[1, 6], corner)
    assert torch.equal(unpatchify(patches, (2, 3, 5), (4, 6, 10)), x)
    with pytest.raises(UsageError, match="don't divide"):
        patchify(x, (2, 4, 5))
    with pytest.raises(UsageError, match="takes 16 patches"):
        unpatchify(patches, (2, 3, 5), (8, 6, 10))


@pytest.mark.parametrize("normalize", [False, True])
def test_reconstruction_loss_follows_numpy(normalize: bool) -> None:
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 3, 5, 7)).astype(np.float32)
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 1, 0, 0]], dtype=np.float32)
    expected = []
    for b, n in zip(*mask.nonzero(), strict=True):
        patch = target[b, n].astype(np.float64)
        if normalize:
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        expected.append(((prediction[b, n] - patch) ** 2).mean())
    tensors = [torch.from_numpy(a) for a in (prediction, target, mask)]
    assert reconstruction_loss(*tensors, normalize).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_seen_patches_do_not_count() -> None:
    prediction, target = torch.rand(1, 2, 4, requires_grad=True), torch.rand(1, 2, 4)
    loss = reconstruction_loss(prediction, target, torch.tensor([[0.0, 1.0]]), normalize=False)
    gradient = torch.autograd.grad(loss, prediction)[0]
    assert not gradient[0, 0].any()
    assert gradient[0, 1].all()


def test_constant_patches_and_low_precision_are_finite() -> None:
    prediction = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    loss = reconstruction_loss(prediction, torch.full((1, 2, 4), 0.3), torch.ones(1, 2), normalize=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_masking() -> None:
    noise = draw_noise(5, 27, torch.Generator().manual_seed(0))
    masking = random_keep(noise, 0.75)
    assert masking.keep_BK.shape == (5, 6)  # 6.75 rounded down
    assert torch.equal(masking.mask_BN.sum(1), torch.full((5,), 21.0))
    assert not masking.mask_BN.gather(1, masking.keep_BK).any()
    for i in range(5):
        assert masking.keep_BK[i].tolist() == sorted(range(27), key=noise[i].tolist().__getitem__)[:6]
    shuffled = torch.cat([masking.keep_BK, masking.mask_BN.nonzero()[:, 1].reshape(5, 21)], dim=1)
    order = masking.restore_BN.argsort(1)
    assert torch.equal(shuffled[:, :6], order[:, :6])
    assert torch.equal(order.gather(1, masking.restore_BN), torch.arange(27).expand(5, -1))


def test_masking_is_drawn_by_its_generator_and_uniform() -> None:
    first, again = (draw_noise(4_000, 8, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    share = random_keep(first, 0.75).mask_BN.mean(0)
    assert (share - 0.75).abs().max() < 4 * math.sqrt(0.75 * 0.25 / 4_000)


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(20, 0.9, 2), (64, 0.75, 16), (4, 0.99, 1), (4, 0.01, 3)])
def test_masking_keeps_and_hides_at_least_one(patches: int, ratio: float, kept: int) -> None:
    assert random_keep(torch.rand(2, patches), ratio).keep_BK.shape == (2, kept)


def test_masking_refuses_what_cannot_be() -> None:
    for ratio in (0.0, 1.0, 1.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            random_keep(torch.rand(2, 8), ratio)
    with pytest.raises(UsageError, match="one patch"):
        random_keep(torch.rand(2, 1), 0.5)
