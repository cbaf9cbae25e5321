"""Help that fits a screen: no list of all flags before the list of all flags, no defaults that say nothing."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable
from typing import Any

NO_DEFAULT = re.compile(r" \(default: (None|False|\[\]|)\)$")
WIDEST = 118
FLAGS_SHOWN = 3
"""With more flags than these, the usage names only those that are required."""


class OneScreen(argparse.RawDescriptionHelpFormatter):
    """Formats the help of commands."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns - 2, WIDEST)
        super().__init__(prog, max_help_position=26, width=width)

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None
    ) -> str:
        listed = list(actions)
        flags = [action for action in listed if action.option_strings]
        if usage is not None or len(flags) <= FLAGS_SHOWN:
            return super()._format_usage(usage, listed, groups, prefix)
        needed = [
            f"{action.option_strings[0]} {action.metavar}" for action in flags if "(required)" in str(action.help)
        ]
        named = super()._format_usage(None, [action for action in listed if not action.option_strings], [], prefix)
        return f"{' '.join([named.rstrip(), *needed, '[options]'])}\n\n"

    def _get_help_string(self, action: argparse.Action) -> str:
        return NO_DEFAULT.sub("", action.help or "")
