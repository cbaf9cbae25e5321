"""Checkpoints: killed while they are saved, damaged, out of room, or not what they seem."""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fmct.console.errors import FmctError, UsageError
from fmct.experiment.checkpoint_files import CheckpointFiles, Hashed, checksum_of, what_is_wrong
from fmct.experiment.checkpoint_folder import CheckpointFolder

KEEP = 2


def checkpoint(step: int) -> dict[str, Any]:
    """Return a checkpoint whose every tensor says of what step it is."""
    return {"global_step": step, "state_dict": {str(n): torch.full((40_000,), float(step)) for n in range(8)}}


def save(folder: CheckpointFolder, *steps: int) -> None:
    for step in steps:
        CheckpointFiles().save_checkpoint(checkpoint(step), folder.path_of(step))
        folder.publish(step, KEEP)


def step_of(path: Path | None) -> int:
    """Load a checkpoint and return its step, of which all tensors must be."""
    assert path is not None
    loaded = CheckpointFiles().load_checkpoint(path)
    step: int = loaded["global_step"]
    assert all(bool((tensor == step).all()) for tensor in loaded["state_dict"].values())
    return step


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_kill_9_in_save(tmp_path: Path, kills: int) -> None:
    folder, rng = CheckpointFolder(tmp_path), random.Random(kills)
    reached = 0
    for kill in range(kills):
        told, tells = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)  # after a fork, the threads of OpenMP are gone, and waited for
                os.close(told)
                for step in range(reached + 1, 10**6):
                    save(folder, step)
                    os.write(tells, step.to_bytes(4, "big"))
            finally:
                os._exit(1)
        os.close(tells)
        published = int.from_bytes(os.read(told, 4), "big")  # the first is done: from now on at any moment
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        while word := os.read(told, 4):
            published = int.from_bytes(word, "big")
        os.close(told)
        newest = folder.newest_sound(aloud=False)
        assert newest == folder.last, f"kill {kill}: what the run goes on from was damaged"
        reached = step_of(newest)
        assert reached >= published
    save(folder, reached + 1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 * KEEP + 1, "the remains of killed saves are gone"


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "gone", "empty"])
@pytest.mark.parametrize("has_checksum", [True, False], ids=["sha256", "zip only"])
def test_newest_checkpoint_corrupt(
    tmp_path: Path, damage: str, has_checksum: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CheckpointFolder(tmp_path)
    save(folder, 4, 8, 12)
    newest = folder.path_of(12)
    if not has_checksum:
        for step in (8, 12):
            checksum_of(folder.path_of(step)).unlink()
    assert step_of(folder.newest_sound(aloud=True)) == 12
    assert capsys.readouterr().err == ""
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"flipped byte": content, "truncated": content[: len(content) // 2]}.get(damage, b""))
    if damage == "gone":
        newest.unlink()
    found = folder.newest_sound(aloud=True)
    assert found == folder.path_of(8)
    assert step_of(found) == 8
    said = capsys.readouterr().err
    assert said.startswith("damaged: step0000012.ckpt, ")
    assert said.endswith("the run goes on from step0000008.ckpt\n")
    assert len(said.splitlines()) == 1
    save(folder, 9)  # of the past that went another way, nothing is left
    assert [path.name for path in sorted(tmp_path.glob("*.ckpt"))] == [
        *("last.ckpt", "step0000008.ckpt", "step0000009.ckpt")
    ]
    assert step_of(folder.newest_sound(aloud=False)) == 9


def test_no_checkpoint_is_sound(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.newest_sound(aloud=True) is None
    save(folder, 1, 2)
    for step in (1, 2):
        folder.path_of(step).write_bytes(b"PK")
    with pytest.raises(FmctError, match=r"no checkpoint of the run is sound: step0000002.ckpt, its SHA-256.*0000001"):
        folder.newest_sound(aloud=True)


def test_a_checksum_is_one_that_sha256sum_knows(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    save(folder, 5)
    assert os.system(f"cd {tmp_path} && sha256sum --check --quiet *.sha256") == 0


def test_checkpoints_copied_without_links_are_found(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    save(folder, 1, 2)
    content = folder.last.read_bytes()
    folder.last.unlink()
    folder.last.write_bytes(content)
    assert step_of(folder.newest_sound(aloud=False)) == 2
    folder.last.write_bytes(content[:-50])
    assert step_of(folder.newest_sound(aloud=False)) == 2, "its original is there"


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    save(folder, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    room = sum(map(len, before.values())) // 3
    write = Hashed.write

    def limited(self: Hashed, data: Any) -> int:
        if self.file.tell() + len(data) > room:
            self.failed = OSError(errno.ENOSPC, "No space left on device")
            raise self.failed
        return write(self, data)

    monkeypatch.setattr(Hashed, "write", limited)
    with pytest.raises(OSError, match="No space left on device") as raised:
        CheckpointFiles().save_checkpoint(checkpoint(2), folder.path_of(2))
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(folder.path_of(2))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert step_of(folder.newest_sound(aloud=True)) == 1


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.ran}",)


@pytest.mark.parametrize("by_torch", [True, False])
def test_pickle_payload(tmp_path: Path, by_torch: bool) -> None:
    path, ran = tmp_path / "x.ckpt", tmp_path / "ran"
    poisoned = checkpoint(1) | {"hparams": Payload(ran)}
    if by_torch:
        torch.save(poisoned, path)
    else:
        path.write_bytes(pickle.dumps(poisoned))
    with pytest.raises(UsageError) as raised:
        CheckpointFiles().load_checkpoint(path, weights_only=False)
    assert "checkpoint" in str(raised.value)
    assert not ran.exists()


@pytest.mark.parametrize("address", ["https://example.org/last.ckpt", "s3://bucket/last.ckpt"])
def test_url_checkpoint(address: str) -> None:
    with pytest.raises(UsageError, match="aren't read from an address"):
        CheckpointFiles().load_checkpoint(address)


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step0000001.ckpt"
    CheckpointFiles().save_checkpoint(checkpoint(1), path)

    def fail(*_: Any) -> None:
        raise RuntimeError("can't be serialized")

    monkeypatch.setattr("fmct.experiment.checkpoint_files.save_into", fail)
    with pytest.raises(RuntimeError, match="serialized"):
        CheckpointFiles().save_checkpoint(checkpoint(2), path)
    assert what_is_wrong(path) is None
    assert step_of(path) == 1
