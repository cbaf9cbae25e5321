"""The maps that can be asked for by name; `attention`, `layer_cam`, `occlusion` and `token_colors` say what each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from fmct.console.errors import UsageError, nearest

MapKind = Literal["rollout", "heads", "relevance", "pca", "layercam", "occlusion"]
MEANINGS: dict[str, str] = {
    "rollout": "how much of each patch reaches the scan's token through all blocks",
    "heads": "what the scan's token attends to in the last block, a picture for each attention head",
    "relevance": "how much what attention takes from a patch raises the logit; of two sides compared, both light up",
    "pca": "patches colored alike are alike to the network",
    "layercam": "where features of middle layers raise the label's logit",
    "occlusion": "by how much the label's logit falls when the soft tissue of a place is made plain brain",
}
"""What each map shows, in words for a report."""


def parse_kinds(names: Sequence[str]) -> tuple[MapKind, ...]:
    """Return the kinds of maps that names mean, each once.

    Raises:
        UsageError: on a name that isn't one.
    """
    kinds: dict[str, MapKind] = {kind: kind for kind in get_args(MapKind)}
    for name in names:
        if name not in kinds:
            guess = nearest(name, kinds)
            fix = f"did you mean {guess}?" if guess else f"choose among {', '.join(kinds)}"
            raise UsageError(f"there is no map {name}", "--maps", fix)
    return tuple(kinds[name] for name in dict.fromkeys(names))
