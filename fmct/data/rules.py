"""Which rules are on: all that judge a scan, but for those switched off by their code, and optional ones on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fmct.console.errors import UsageError, nearest
from fmct.data.rejection import RejectCode

OPTIONAL = frozenset({RejectCode.CONTRAST})
SKIPPABLE = frozenset({
    RejectCode.NOT_CT, RejectCode.LOCALIZER, RejectCode.SECONDARY, RejectCode.MIXED_ORIENTATION,
    RejectCode.TOO_FEW_SLICES, RejectCode.DUPLICATE_POSITION, RejectCode.GAP, RejectCode.SHORT_COVERAGE,
    RejectCode.SMALL_FIELD, RejectCode.SPLIT_HEAD, RejectCode.IMPLAUSIBLE_HU, RejectCode.NOT_A_HEAD,
})  # fmt: skip
"""The others can't be switched off: without them there would be no volume to make."""


@dataclass(frozen=True)
class Rules:
    """Which rules judge a scan.

    Attributes:
        skipped: codes that are switched off.
        added: optional codes that are switched on.
    """

    skipped: frozenset[RejectCode] = frozenset()
    added: frozenset[RejectCode] = frozenset()

    def on(self, code: RejectCode) -> bool:
        """Tell whether a rule is on."""
        return code in self.added if code in OPTIONAL else code not in self.skipped

    @property
    def skipped_text(self) -> str:
        """The codes that are switched off, separated by blanks, as the manifest's column `skipped_rules` has them."""
        return " ".join(sorted(code.name for code in self.skipped))


ALL_RULES = Rules()
ON_SLICES = frozenset({RejectCode.NOT_CT, RejectCode.LOCALIZER, RejectCode.SECONDARY})


def loading_rules(skipped_text: str) -> Rules:
    """Return the rules by which a scan's slices are found again.

    Those on single slices are as they were, for a scout must stay out; the scan as a whole isn't judged again.

    Args:
        skipped_text: the manifest's `skipped_rules`.
    """
    return Rules(SKIPPABLE - ON_SLICES | codes_in(skipped_text))


def codes_in(text: str) -> frozenset[RejectCode]:
    """Return the codes in a manifest's `skipped_rules`; names that this version doesn't know skip nothing."""
    return frozenset(RejectCode[name] for name in text.split() if name in RejectCode.__members__)


def parse_rules(skip: Iterable[str], add: Iterable[str]) -> Rules:
    """Build the rules from the names on a command line.

    Raises:
        UsageError: on an unknown code (naming the nearest) or one that can't be switched.
    """
    return Rules(
        frozenset(parse_code(name, SKIPPABLE, "--skip-rules", "switched off") for name in skip),
        frozenset(parse_code(name, OPTIONAL, "--add-rules", "added: it is no optional one") for name in add),
    )


def parse_code(name: str, allowed: frozenset[RejectCode], flag: str, action: str) -> RejectCode:
    """Return the code of a name, if it is among those allowed."""
    listed = sorted(code.name for code in allowed)
    if name.upper() not in RejectCode.__members__:
        guess = nearest(name.upper(), listed)
        fix = f"did you mean {guess}?" if guess else f"the codes are {', '.join(listed)}"
        raise UsageError(f"there is no rule {name}", flag, fix)
    code = RejectCode[name.upper()]
    if code not in allowed:
        raise UsageError(f"the rule {code.name} can't be {action}", flag, f"those that can: {', '.join(listed)}")
    return code
