"""What may be added to self-distillation: masked patches, spread features, few logits at once, signs of a collapse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from fmct.losses.centering import sinkhorn
from fmct.losses.dino import DINOLoss
from fmct.losses.diversity import entropy, feature_std, kl_to_uniform, rankme
from fmct.losses.ibot import IBOTLoss, patch_weights
from fmct.losses.koleo import koleo
from fmct.models.heads import DINOHeadConfig
from fmct.models.mask_orders import RandomMasking
from fmct.models.masking import Foreground
from fmct.tasks.ibot import IBOTConfig
from fmct.tasks.student_teacher import follow

SCANS, PROTOTYPES, BOTTLENECK = 3, 40, 8
HIDDEN = [3, 0, 1, 4, 0, 2]  # of two views of three scans
ROWS = sum(HIDDEN)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def ibot_in_numpy(student: Tensor, teacher: Tensor, center: np.ndarray, temperature: float) -> float:
    """View by view and patch by patch, in float64."""
    views, row = [], 0
    for count in HIDDEN:
        patches = []
        for _ in range(count):
            s, t = student[row].double().numpy() / 0.1, (teacher[row].double().numpy() - center) / temperature
            log_p = s - s.max() - np.log(np.exp(s - s.max()).sum())
            target = np.exp(t - t.max()) / np.exp(t - t.max()).sum()
            patches.append(-(target * log_p).sum())
            row += 1
        views.append(np.mean(patches) if patches else 0.0)
    return float(np.mean(views))


def test_ibot_follows_numpy_and_centers_patches() -> None:
    criterion, center = IBOTLoss(PROTOTYPES), np.zeros(PROTOTYPES)
    for step, temperature in enumerate((0.04, 0.07)):
        student, teacher = normal(ROWS, PROTOTYPES, seed=step), normal(ROWS, PROTOTYPES, seed=9 + step)
        weights = patch_weights(HIDDEN, torch.device("cpu"))
        loss = criterion.of_logits(student, criterion.targets(teacher, temperature), weights)
        assert loss.item() == pytest.approx(ibot_in_numpy(student, teacher, center, temperature), rel=1e-5)
        criterion.update_center(teacher)
        center = 0.9 * center + 0.1 * teacher.numpy().mean(0)
        np.testing.assert_allclose(criterion.center[0].numpy(), center, atol=1e-6)


@pytest.mark.parametrize("chunk_rows", [None, 4])
def test_nothing_hidden_is_a_loss_of_zero_whose_gradient_exists(chunk_rows: int | None) -> None:
    head, criterion = DINOHeadConfig(hidden=12, bottleneck=4, prototypes=PROTOTYPES).build(24), IBOTLoss(PROTOTYPES)
    tokens, nothing = torch.zeros(0, 24, requires_grad=True), torch.zeros(0, PROTOTYPES)
    weights = patch_weights([0, 0], torch.device("cpu"))
    targets = criterion.targets(nothing, 0.04)
    if chunk_rows is None:
        loss = criterion.of_logits(head(tokens), targets, weights)
    else:
        loss = criterion.of_embeddings(*head.factors(tokens), targets, weights, chunk_rows)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())
    criterion.center.fill_(0.5)
    criterion.update_center(nothing)
    assert (criterion.center == 0.5).all()
    assert sinkhorn(nothing, 0.04).shape == (0, PROTOTYPES)


def result(criterion: DINOLoss | IBOTLoss, rows: int, chunk_rows: int | None) -> list[Tensor]:
    """The loss of some student, and its gradient by embeddings and prototypes."""
    embedding = F.normalize(normal(rows, BOTTLENECK), dim=-1).requires_grad_()
    directions = F.normalize(normal(PROTOTYPES, BOTTLENECK, seed=2), dim=-1).requires_grad_()
    teacher = normal(2 * SCANS if isinstance(criterion, DINOLoss) else rows, PROTOTYPES, seed=1)
    held: tuple[Tensor, ...] = (criterion.targets(teacher, 0.5),)
    if isinstance(criterion, IBOTLoss):
        held = (*held, patch_weights(HIDDEN, torch.device("cpu")))
    if chunk_rows is None:
        loss = criterion.of_logits(F.linear(embedding, directions), *held)
    else:
        loss = criterion.of_embeddings(embedding, directions, *held, chunk_rows)
    (3 * loss).backward()
    assert embedding.grad is not None
    assert directions.grad is not None
    return [loss.detach(), embedding.grad, directions.grad]


@pytest.mark.parametrize("chunk_rows", [1, 2, 7, 100])
@pytest.mark.parametrize(
    ("criterion", "rows"),
    [
        (DINOLoss(PROTOTYPES), 2 * SCANS),
        (DINOLoss(PROTOTYPES), 6 * SCANS),
        (IBOTLoss(PROTOTYPES, centering="sinkhorn"), ROWS),
    ],
    ids=["two views", "six views", "patches"],
)
def test_few_logits_at_once_give_the_same_loss_and_gradient(
    criterion: DINOLoss | IBOTLoss, rows: int, chunk_rows: int
) -> None:
    for few, all_at_once in zip(result(criterion, rows, chunk_rows), result(criterion, rows, None), strict=True):
        torch.testing.assert_close(few, all_at_once, rtol=1e-6, atol=1e-6)


def test_few_logits_at_once_are_as_precise_as_all_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        few, all_at_once = (result(DINOLoss(PROTOTYPES), 4 * SCANS, rows) for rows in (5, None))
    torch.testing.assert_close(few[0], all_at_once[0], rtol=1e-6, atol=0)  # of the same bf16 products
    exact = result(DINOLoss(PROTOTYPES), 4 * SCANS, None)
    for part in (1, 2):
        assert few[part].dtype == torch.float32
        assert (few[part] - exact[part]).norm() < 1.5 * (all_at_once[part] - exact[part]).norm()


def koleo_in_numpy(features: np.ndarray) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit, axis=-1) + np.diag(np.full(len(unit), np.inf))
    return float(-np.log(distances.min(1)).mean())


def test_koleo_follows_numpy_and_drives_neighbors_apart() -> None:
    features = normal(7, 5).requires_grad_()
    loss = koleo(features, 7)
    assert loss.item() == pytest.approx(koleo_in_numpy(features.detach().double().numpy()), rel=1e-5)
    loss.backward()
    assert features.grad is not None
    assert koleo_in_numpy((features.detach() - 0.02 * features.grad).double().numpy()) < loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        assert koleo(features.bfloat16(), 7).dtype == torch.float32


def test_koleo_of_equal_features_or_a_single_scan_is_finite() -> None:
    equal = torch.ones(4, 5, requires_grad=True)
    koleo(equal, 4).backward()
    assert equal.grad is not None
    assert equal.grad.isfinite().all()
    alone = torch.ones(1, 5, requires_grad=True)
    loss = koleo(alone, 1)
    loss.backward()
    assert loss.item() == 0
    assert alone.grad is not None
    assert not alone.grad.any()


def _losses_on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    own = slice(0, 4) if rank == 0 else slice(4, 7)
    features = normal(7, 5)[own].requires_grad_()
    loss = koleo(features, 5)
    loss.backward()
    logits = normal(9, PROTOTYPES, seed=3)
    assigned = sinkhorn(logits if rank == 0 else logits[:0], 0.1)
    torch.save((loss.detach(), features.grad, assigned), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_see_the_neighbors_and_assignments_of_one(tmp_path: Path) -> None:
    mp.spawn(_losses_on_rank, (str(tmp_path),), nprocs=2)
    features = normal(7, 5).requires_grad_()
    loss = koleo(features, 7)
    loss.backward()
    (first, by_first, assigned), (second, by_second, none) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    torch.testing.assert_close(torch.stack([first, second]), loss.detach().expand(2))
    assert features.grad is not None
    torch.testing.assert_close(torch.cat([by_first, by_second]) / 2, features.grad)  # processes are averaged
    torch.testing.assert_close(assigned, sinkhorn(normal(9, PROTOTYPES, seed=3), 0.1))
    assert none.shape == (0, PROTOTYPES)


def test_entropy_and_divergence_have_their_closed_forms() -> None:
    p = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(entropy(p), torch.tensor([0.0, math.log(4), math.log(2)]))
    torch.testing.assert_close(kl_to_uniform(p), torch.tensor([math.log(4), 0.0, math.log(2)]))


def test_spread_and_rank_of_features_follow_numpy() -> None:
    features = normal(50, 6)
    unit = features.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    assert feature_std(features).item() == pytest.approx(unit.std(0, ddof=1).mean(), rel=1e-5)
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    p = values / values.sum()
    assert rankme(features).item() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    line = torch.outer(torch.linspace(1, 2, 50), normal(6))
    assert rankme(line).item() == pytest.approx(1, abs=1e-3)
    assert feature_std(line).item() == pytest.approx(0, abs=1e-6)
    assert rankme(torch.eye(6)).item() == pytest.approx(6, rel=1e-4)


@pytest.mark.parametrize("with_foreground", [False, True])
def test_hidden_patches_are_the_first_of_each_view(with_foreground: bool) -> None:
    views, grid = 6, (2, 3, 4)
    order = RandomMasking().draw(generators(views), grid)
    foreground = Foreground.of(normal(views, 24, seed=4) > -0.3) if with_foreground else None
    ratios = [0.5, 0.0, 0.1, 0.3, 0.0, 0.49]
    hidden = IBOTConfig.hide(order, ratios, foreground)
    expected = []
    for view, ratio in enumerate(ratios):
        marked = foreground.patches_BN[view].nonzero().flatten().tolist() if foreground else list(range(24))
        count = int(ratio * len(marked))
        chosen = sorted(marked, key=order[view].tolist().__getitem__, reverse=True)[:count]
        assert hidden.counts[view] == count
        assert sorted(chosen) == hidden.hidden_VN[view].nonzero().flatten().tolist()
        expected += [view * 24 + patch for patch in chosen]
    assert hidden.index_R.tolist() == expected
    tokens = normal(views, 24, 5)
    assert torch.equal(hidden.pick(tokens), tokens.reshape(-1, 5)[expected])


def test_what_is_hidden_is_drawn_for_each_scan_alone_and_in_range() -> None:
    config = IBOTConfig(weight=1, mask_probability=0.5, mask_ratio=(0.1, 0.5))
    _, ratios = config.draw(generators(1000), (2, 2, 2))
    masked = [ratio for ratio in ratios if ratio]
    assert 0.44 < len(masked) / 1000 < 0.56
    assert 0.1 <= min(masked) < 0.13
    assert 0.47 < max(masked) <= 0.5
    order, alone = config.draw(generators(1000)[5:6], (2, 2, 2))
    assert alone == ratios[5:6]
    assert torch.equal(order[0], config.draw(generators(1000), (2, 2, 2))[0][5])
    with pytest.raises(ValueError, match="least <= greatest"):
        IBOTConfig(mask_ratio=(0.5, 0.1))


def test_the_teacher_follows_weights_and_running_statistics() -> None:
    student, teacher = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))
    follow(teacher, student, 0.0)
    for ours, theirs in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    student.train()(normal(8, 4))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    follow(teacher, student, 0.75)
    for name, value in teacher.state_dict().items():
        theirs = student.state_dict()[name]
        expected = theirs if name.endswith("tracked") else 0.75 * before[name] + 0.25 * theirs
        torch.testing.assert_close(value, expected)
    assert teacher.state_dict()["1.num_batches_tracked"] == 1
    assert not torch.equal(before["1.running_mean"], teacher.state_dict()["1.running_mean"])
