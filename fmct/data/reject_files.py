"""Which rejects belong to which manifest, where several manifests lie in one folder.

A manifest's rejects are `rejects.csv` beside it. Another one indexed into the same folder has its own,
`MANIFEST.rejects.csv`, so that neither writes over the other's.
"""

from __future__ import annotations

from pathlib import Path

REJECTS = "rejects.csv"
STORE_SUFFIX = ".headers.sqlite"


def store_of(manifest: Path) -> Path:
    """Return where `fmct index` keeps what it has read for a manifest."""
    return manifest.with_name(manifest.name + STORE_SUFFIX)


def named_rejects(manifest: Path) -> Path:
    """Return the name of a manifest's own rejects, apart from those of others."""
    return manifest.with_name(f"{manifest.name}.{REJECTS}")


def rejects_to_write(manifest: Path) -> Path:
    """Return where the rejects of a manifest are to be written.

    That is `rejects.csv`, unless there is one already and another manifest was indexed here without a name of its own
    for its rejects: then it is that one's.
    """
    named, shared = named_rejects(manifest), manifest.with_name(REJECTS)
    if named.exists():
        return named
    others = (
        manifest.with_name(store.name.removesuffix(STORE_SUFFIX))
        for store in manifest.parent.glob(f"*{STORE_SUFFIX}")
        if store.name != store_of(manifest).name
    )
    return named if shared.exists() and any(not named_rejects(other).exists() for other in others) else shared


def rejects_of(manifest: Path) -> Path | None:
    """Return the rejects of a manifest, None where there are none or they can't be told from another manifest's.

    A manifest that `fmct label` or `fmct split` wrote has those of the one it was made from, so long as there is one.
    """
    named, shared = named_rejects(manifest), manifest.with_name(REJECTS)
    if named.is_file():
        return named
    several = any(file.name != REJECTS for file in manifest.parent.glob(f"*.{REJECTS}"))
    if not shared.is_file() or (several and not store_of(manifest).is_file()):
        return None
    return shared
