"""Loaded by the workers of a local cluster: Ctrl-C goes to all processes of a terminal, and isn't meant for them."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(_: Any) -> None:
    """Leave SIGINT to the process that started this worker: it ends the worker when it has seen to the rest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
