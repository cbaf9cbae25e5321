"""GDCM in a process of its own, for JPEG lossless, JPEG-LS and 12-bit JPEG.

GDCM is the decoder that there is for these, and flipping bits of a stream makes it abort or fault within some hundred
tries, which takes down whatever process it is in, with all the scans that were being prepared there. So it gets a
process that may die: a frame that kills it is an unreadable file, and the next frame finds a new process. It stays up
between frames; a frame takes about a millisecond more than it would in here.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_FRAME = 60.0


class DecoderError(ValueError):
    """GDCM could not decode a frame, took too long or died of it."""


class GdcmProcess:
    """A running `gdcm_worker`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fmct.data.gdcm_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.owner = os.getpid()

    def decode(self, stream: bytes, syntax: str, rows: int, columns: int, bits: int) -> bytes:
        """Send a frame and wait for its pixels.

        Raises:
            DecoderError: when there are none.
        """
        request = {"syntax": syntax, "rows": rows, "columns": columns, "bits": bits, "bytes": len(stream)}
        requests, answers = pipes(self.process)
        alarm = threading.Timer(SECONDS_PER_FRAME, self.process.kill)
        alarm.start()
        try:
            requests.write(json.dumps(request).encode() + b"\n" + stream)
            requests.flush()
            answer: dict[str, Any] = json.loads(answers.readline() or b'{"error": "decoder died"}')
            pixels = answers.read(answer.get("bytes", 0))
        except (OSError, ValueError) as error:
            raise DecoderError("decoder died") from error
        finally:
            alarm.cancel()
        if "error" in answer or len(pixels) != answer["bytes"]:
            raise DecoderError(answer.get("error", "decoder died"))
        return pixels

    def alive(self) -> bool:
        """Tell whether the process runs and is this process's child (after a fork it isn't)."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the process."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return what a process reads from and writes to."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


running: GdcmProcess | None = None
one_at_a_time = threading.Lock()


def gdcm_pixels(stream: bytes, syntax: str, rows: int, columns: int, bits: int) -> NDArray[Any]:
    """Decode one gray frame.

    Args:
        stream: JPEG or JPEG-LS.
        syntax: UID of the transfer syntax that fits the stream.
        rows: height, as the stream has it.
        columns: width, likewise.
        bits: the stream's precision, 2 to 16.

    Returns:
        (rows, columns) uint8, above 8 bits uint16, as stored: what the sign is, a JPEG doesn't say.

    Raises:
        DecoderError: when the frame can't be decoded.
    """
    global running
    with one_at_a_time:
        if running is None or not running.alive():
            close_decoder()
            running = GdcmProcess()
        try:
            pixels = running.decode(stream, syntax, rows, columns, bits)
        except DecoderError:
            if not running.alive():
                close_decoder()
            raise
    return np.frombuffer(pixels, "u1" if bits <= 8 else "<u2").reshape(rows, columns)


def close_decoder() -> None:
    """End the decoding process, if there is one."""
    global running
    if running is not None:
        running.close()
    running = None


atexit.register(close_decoder)
