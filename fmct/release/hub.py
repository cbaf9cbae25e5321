"""Sending a package to a model hub; nothing is sent unless `fmct export --push-to-hub` says where to."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Protocol

from fmct.console.errors import FmctError, UsageError
from fmct.models.package_files import CARD, SUMS, check_sums

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a repository."""

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str) -> Any:
        """Send files."""

    def upload_file(self, *, repo_id: str, path_or_fileobj: bytes, path_in_repo: str, commit_message: str) -> Any:
        """Send one file."""


def require_hub(repository: str) -> None:
    """Check that a repository is named as OWNER/NAME, and that what sends to it is installed.

    Raises:
        UsageError: when not.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r} names no repository", "--push-to-hub", "give OWNER/NAME")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError("huggingface_hub isn't installed", "--push-to-hub", "pip install 'fmct[hub]'")


def push(package: Path, repository: str, *, private: bool, hub: Hub) -> None:
    """Send the files of a package, and its card as the README, to a repository; it is made if it isn't there.

    Args:
        package: a folder; only the files in its SHA256SUMS are sent, and these.
        repository: OWNER/NAME.
        private: whether a repository that is made is private.
        hub: what sends.

    Raises:
        UsageError: when a file doesn't match its checksum.
        FmctError: when the hub can't be reached or says no.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    check_sums(package)
    names = [line.partition("  ")[2] for line in (package / SUMS).read_text(encoding="utf-8").splitlines()]
    message = f"weights of {package.resolve().name}"
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=str(package), allow_patterns=[*names, SUMS], commit_message=message
        )
        card = (package / CARD).read_bytes()
        hub.upload_file(
            repo_id=repository, path_or_fileobj=card, path_in_repo="README.md", commit_message="the card as README"
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise FmctError(
            f"the package wasn't sent: {why[0]}",
            f"{repository}; the package itself is complete in {package}",
            "check the network and the token (`hf auth login`), and send the folder again",
        ) from error
