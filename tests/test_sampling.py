"""What an epoch draws: shuffled, balanced, few shots, and each process's share of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmct.console.errors import UsageError
from fmct.data.sampling import BalancedSampling, Order, ShuffledSampling, class_weights, repeats, shuffled, weighted
from fmct.data.sharding import Draw, Shard
from fmct.data.shots import ShotsConfig

UNKNOWN = np.nan


def order_of(scans: int, seed: int = 0) -> Order:
    return ShuffledSampling().build(np.zeros((scans, 0), np.float32), (), seed)


def rows(shard: Shard, epoch: int) -> list[int]:
    return [draw.row for draw in draws_of(shard, epoch)]


def draws_of(shard: Shard, epoch: int) -> list[Draw]:
    shard.set_epoch(epoch)
    return list(shard)


def test_an_epoch_is_a_stated_function_of_seed_and_epoch() -> None:
    shard = Shard(order_of(40, seed=7), batch_size=4)
    assert rows(shard, 3) == np.random.default_rng([7, 3]).permutation(40).tolist()
    assert rows(shard, 3) != rows(shard, 4)
    assert rows(shard, 3) != rows(Shard(order_of(40, seed=8), batch_size=4), 3)


@settings(max_examples=60, deadline=None)
@given(
    scans=st.integers(1, 60),
    batch=st.integers(1, 7),
    world=st.integers(1, 5),
    epoch=st.integers(0, 3),
    keep=st.booleans(),
)
def test_processes_share_one_order_and_make_equally_many_batches(
    scans: int, batch: int, world: int, epoch: int, keep: bool
) -> None:
    shards = [Shard(order_of(scans), batch, rank, world, keep_all=keep) for rank in range(world)]
    assert len({(shard.batches, len(shard)) for shard in shards}) == 1
    together = [draw.row for draws in zip(*(draws_of(s, epoch) for s in shards), strict=True) for draw in draws]
    order = shuffled(scans, 0, epoch).tolist()
    if scans >= batch * world and not keep:
        assert together == order[: len(together)]  # some dropped, none twice
        assert scans - len(together) < batch * world
        assert shards[0].smallest_batch == batch
    else:
        assert together[:scans] == order  # none dropped, some twice
        assert len(together) - scans < world
        again = [draw.repeat for shard in shards for draw in draws_of(shard, epoch)]
        assert sum(r > 0 for r in again) == len(together) - scans


def test_the_batches_of_two_processes_are_those_of_one_with_twice_the_size() -> None:
    one = rows(Shard(order_of(25), 8), 1)
    two = [rows(Shard(order_of(25), 4, rank, 2), 1) for rank in range(2)]
    assert len(one) == 24
    for batch in range(3):
        assert set(one[8 * batch : 8 * batch + 8]) == {row for own in two for row in own[4 * batch : 4 * batch + 4]}


def test_draws_go_on_from_their_state() -> None:
    shard = Shard(order_of(12), 3)
    shard.set_epoch(5)
    draws = iter(shard)
    first = [next(draws) for _ in range(7)]
    state = draws.state_dict()
    assert state == {"epoch": 5, "taken": 7}
    other = iter(Shard(order_of(12), 3))  # which is in epoch 0
    other.load_state_dict(state)
    assert first + list(other) == draws_of(shard, 5)


def test_repeats_count_what_came_before() -> None:
    assert repeats(np.array([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert repeats(np.array([], dtype=np.int64)).tolist() == []


# -- balanced ---------------------------------------------------------------------------------------------------------


def test_one_label_is_balanced_in_every_epoch_and_unknown_scans_are_never_drawn() -> None:
    targets = np.array([[1.0]] * 10 + [[0.0]] * 90 + [[UNKNOWN]] * 20, np.float32)
    order = BalancedSampling().build(targets, ["ICH"], seed=0)
    assert order.draws == 100
    totals = np.zeros(120)
    for epoch in range(200):
        drawn = order.of_epoch(epoch)
        counts = Counter(drawn.tolist())
        assert len(drawn) == 100
        assert sum(counts[row] for row in range(10)) == 50
        assert all(counts[row] == 5 for row in range(10))  # due 5 times each
        assert all(counts[row] in {0, 1} for row in range(10, 100))  # due 5/9 times each
        assert all(counts[row] == 0 for row in range(100, 120))
        totals += np.bincount(drawn, minlength=120)
    assert totals[10:100].mean() / 200 == pytest.approx(5 / 9)
    assert np.abs(totals[10:100] / 200 - 5 / 9).max() < 5 * np.sqrt(5 / 9 * 4 / 9 / 200)
    assert not np.array_equal(order.of_epoch(0), order.of_epoch(1))
    assert np.array_equal(order.of_epoch(3), BalancedSampling().build(targets, ["ICH"], seed=0).of_epoch(3))


def test_weights_of_several_labels_add_up_by_inverse_frequency() -> None:
    targets = np.array([[1, 0], [0, UNKNOWN], [0, 1], [UNKNOWN, UNKNOWN], [0, 0]], np.float32)
    expected = [1 + 1 / 2, 1 / 3, 1 / 3 + 1, 0, 1 / 3 + 1 / 2]
    assert class_weights(targets) == pytest.approx(expected)
    chosen = BalancedSampling(labels=("B",)).build(targets, ["A", "B"], 0)
    assert Counter(chosen.of_epoch(0).tolist())[2] in {1, 2}  # half of three draws
    assert 1 not in chosen.of_epoch(0)


def test_a_share_of_readers_counts_as_so_much_of_a_positive() -> None:
    assert class_weights(np.array([[0.25], [0.75]], np.float32)) == pytest.approx([0.25 + 0.75, 0.75 + 0.25])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-6), st.integers(0, 99))
def test_a_row_comes_as_often_as_it_is_due_give_or_take_one(weights: list[float], seed: int) -> None:
    due = np.array(weights) / sum(weights) * np.count_nonzero(weights)
    counts = np.bincount(weighted(np.array(weights), seed, 0), minlength=len(weights))
    assert counts.sum() == np.count_nonzero(weights)
    assert (np.abs(counts - due) < 1 + 1e-6).all()
    assert (counts[np.array(weights) == 0] == 0).all()


def test_a_scan_drawn_again_gets_other_views() -> None:
    targets = np.array([[1.0]] + [[0.0]] * 9, np.float32)
    order = BalancedSampling().build(targets, ["ICH"], 0)
    draws = [draw for rank in range(2) for draw in draws_of(Shard(order, 5, rank, world_size=2), 0)]
    assert sorted(draw.repeat for draw in draws if draw.row == 0) == [0, 1, 2, 3, 4]
    assert len(set(draws)) == 10


# -- few shots --------------------------------------------------------------------------------------------------------


def cohort(patients: int = 40) -> pd.DataFrame:
    """Three scans per patient: patient 4 n is positive on one of them, 4 n + 3 is unknown, the others are negative."""
    rows = []
    for patient in range(patients):
        for scan in range(3):
            value = {0: int(scan == 1), 3: pd.NA}.get(patient % 4, 0)
            rows.append({"scan_id": f"s{patient:02d}{scan}", "patient_id": f"p{patient:02d}", "label:ICH": value})
    return pd.DataFrame(rows).astype({"label:ICH": "Int8"})


def test_shots_are_k_patients_of_each_class_with_one_scan_each() -> None:
    chosen = ShotsConfig(label="ICH", k=4).choose(cohort(), Path("m.csv"))
    assert chosen["patient_id"].is_unique
    assert chosen["label:ICH"].tolist().count(1) == chosen["label:ICH"].tolist().count(0) == 4
    of_positive = chosen["patient_id"].str[1:].astype(int) % 4 == 0
    assert (of_positive == (chosen["label:ICH"] == 1)).all()  # a positive patient's negative scan isn't a negative


def test_shots_are_the_same_in_any_order_of_the_rows_and_nested_in_k() -> None:
    frame = cohort()
    small, large = (ShotsConfig(label="ICH", k=k).choose(frame, Path("m.csv"))["scan_id"].tolist() for k in (3, 8))
    assert set(small) < set(large)
    shuffled_frame = frame.sample(frac=1, random_state=1)
    assert ShotsConfig(label="ICH", k=8).choose(shuffled_frame, Path("m.csv"))["scan_id"].tolist() == large
    others = ShotsConfig(label="ICH", k=8, seed=1).choose(frame, Path("m.csv"))["scan_id"].tolist()
    assert others != large


def test_every_patient_is_drawn_alike_often_over_seeds() -> None:
    frame = cohort()
    counts: Counter[str] = Counter()
    for seed in range(150):
        counts.update(ShotsConfig(label="ICH", k=2, seed=seed).choose(frame, Path("m.csv"))["patient_id"])
    positive = [counts[f"p{patient:02d}"] for patient in range(0, 40, 4)]
    assert sum(positive) == 300
    assert max(abs(count - 30) for count in positive) < 5 * np.sqrt(150 * 0.2 * 0.8)


def test_too_few_patients_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(UsageError, match="ICH has 10 positive and 20 negative patients") as caught:
        ShotsConfig(label="ICH", k=11).choose(cohort(), Path("m.csv"))
    assert "at most 10 shots" in caught.value.fix
