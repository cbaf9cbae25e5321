"""How a process ends, also one of several of which another has failed."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End this process with an exit status.

    One that failed while it is connected to others ends without tearing the connection down: what waits there for a
    process that is gone would abort this one, with a signal in place of the status.
    """
    distributed = sys.modules.get("torch.distributed")
    if status and distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
