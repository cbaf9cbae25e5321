"""Filling the templates of pages: the report's, and those of others that share its style."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fmct.evaluation import wording


def fill(template: str, context: dict[str, Any], *folders: str) -> str:
    """Fill a template; whatever comes from names, files or headers of scans is escaped.

    Args:
        template: its file's name.
        context: what it is filled with.
        folders: subpackages to look for it and what it includes in, the first first.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("fmct", folder) for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["say"] = wording
    return environment.get_template(template).render(context)
