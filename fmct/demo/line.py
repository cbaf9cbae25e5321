"""The one progress line of all stages: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from fmct.demo.clock import Clock
from fmct.evaluation.wording import duration

SECONDS_BETWEEN_LINES = 60.0


class TimeColumn(ProgressColumn):
    """Elapsed time and the estimate of what is left, and with it how full the bar is."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def render(self, task: Task) -> Text:
        """Write both; called several times a second."""
        task.completed = self.clock.share * (task.total or 1.0)
        return Text(timing(self.clock))


def timing(clock: Clock) -> str:
    """Write elapsed time and what is left."""
    return f"{duration(clock.elapsed)} so far, about {duration(clock.left)} left"


@contextmanager
def shown(clock: Clock, title: str) -> Iterator[None]:
    """Show how far everything is, while a stage runs.

    Args:
        clock: knows the time.
        title: which stage it is.
    """
    console = Console(file=sys.stderr)  # as it is now: commands' output goes elsewhere
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(20), TimeColumn(clock))
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            bar.add_task(title, total=1.0)
            yield
        return
    over = threading.Event()
    stream = sys.stderr

    def speak() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            print(f"{title}: {timing(clock)}", file=stream, flush=True)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()
