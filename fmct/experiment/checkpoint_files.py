"""Checkpoint files that appear whole or not at all, with a checksum beside, and are read without running code.

Lightning's own way goes through $TMPDIR: where that is another file system, the last step is a copy, which a kill can
cut short.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import secrets
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from fmct.console.errors import UsageError
from fmct.console.files import sha256

CHECKSUM_SUFFIX = ".sha256"


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's plugin that writes and reads checkpoints."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint beside its place, have it on disk, and rename it; its checksum follows.

        A kill before that leaves a checkpoint without one, which is whole all the same: see `what_is_wrong`.

        Args:
            checkpoint: plain values and tensors.
            path: where to; a whole checkpoint that is there stays until the new one is.
            storage_options: there are none.

        Raises:
            OSError: naming the path; what was there before is as it was.
        """
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                hashed = Hashed(file)
                save_into(checkpoint, hashed)
                file.flush()
                os.fsync(file.fileno())
            beside = temporary.with_name(temporary.name + CHECKSUM_SUFFIX)
            beside.write_text(f"{hashed.digest.hexdigest()}  {place.name}\n")
            checksum_of(place).unlink(missing_ok=True)
            temporary.replace(place)
            beside.replace(checksum_of(place))
            sync_folder(place.parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(place)) from error
        finally:
            temporary.unlink(missing_ok=True)
            temporary.with_name(temporary.name + CHECKSUM_SUFFIX).unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint from the local disk, as plain values and tensors only, whatever `weights_only` says.

        Raises:
            UsageError: when it is an address, isn't there, holds anything else, or can't be read.
        """
        return load_plainly(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint and its checksum."""
        Path(path).unlink(missing_ok=True)
        checksum_of(Path(path)).unlink(missing_ok=True)


def checksum_of(path: Path) -> Path:
    """Return where a checkpoint's checksum is, in the format of `sha256sum --check`."""
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on disk, as they are now."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def what_is_wrong(path: Path) -> str | None:
    """Say what is wrong with a checkpoint's file, or None when every byte is as it was written.

    Told by its checksum, or where there is none by the CRC-32 that the format keeps of each part.
    """
    if not path.is_file():
        return "it isn't there"
    try:
        if checksum_of(path).is_file():
            same = checksum_of(path).read_text(encoding="utf-8").split()[:1] == [sha256(path)]
            return None if same else "its SHA-256 isn't the one that was written beside it"
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return f"it can't be read ({error})"
    return None if broken is None else f"the checksum of {broken} in it is wrong"


class Hashed(io.RawIOBase):
    """A file that adds up the SHA-256 of what is written to it, and remembers why it couldn't be."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.digest = hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes, one after the other."""
        try:
            written = self.file.write(data)
        except OSError as error:
            self.failed = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        """Leave flushing to who opened the file."""


def save_into(checkpoint: dict[str, Any], file: Hashed) -> None:
    """Write a checkpoint in torch's format.

    Raises:
        OSError: when it can't be written; torch itself hides that behind an error of its own.
    """
    try:
        torch.save(checkpoint, file)  # type: ignore[arg-type]  # all that it needs is write and flush
    except (RuntimeError, OSError):
        if file.failed is not None:
            raise OSError(file.failed.errno, file.failed.strerror) from file.failed
        raise


def load_plainly(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint from the local disk, onto the CPU, as plain values and tensors only.

    Raises:
        UsageError: when it is an address, isn't there, holds anything else, or can't be read.
    """
    if "://" in str(path):
        raise UsageError("checkpoints aren't read from an address", str(path), "download it, and look at who made it")
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = "it holds more than plain values and tensors, which could run code"
        raise UsageError(f"the checkpoint isn't read: {reason}", str(path), "use one that `fmct fit` wrote") from error
    except (OSError, RuntimeError, EOFError) as error:
        what = f"the checkpoint can't be read: {str(error).splitlines()[0]}"
        raise UsageError(what, str(path), "name one that is whole, of strategy auto, ddp or fsdp2") from error
    return loaded
