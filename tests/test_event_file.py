"""TensorBoard's curves of a run that was killed and goes on have every step once."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmct.experiment.event_file import EventFile


def write(folder: Path, steps: range, value: float) -> None:
    logger = EventFile(folder)
    for step in steps:
        if step % 4 == 0:
            logger.log_picture("picture", torch.full((2, 2), value), step)
        logger.log_metrics({"loss": value}, step)
    logger.finalize("success")


def test_points_that_come_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path, range(10), 0.0)
    time.sleep(1.0)  # TensorBoard reads files in the order of their names, which begin with the second
    write(tmp_path, range(6, 12), 1.0)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss")]
    assert points == [(step, 0.0 if step < 6 else 1.0) for step in range(12)]
    assert [event.step for event in events.Images("picture")] == [0, 4, 8]
