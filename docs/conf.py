"""Sphinx configuration. The table of options and the list of coming changes are made here, at build time."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from sphinx.application import Sphinx

from pytest_isolate.options import docs_table

HERE = Path(__file__).parent

project = "pytest-isolate-ns"
author = "The pytest-isolate developers"
project_copyright = "the pytest-isolate developers"
version = release = importlib.metadata.version("pytest-isolate-ns")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "changelog.d"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

smartquotes = False  # or --flag loses its hyphens
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__,__new__"}

html_theme = "furo"
html_title = "pytest-isolate-ns"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

# As in [tool.towncrier] of pyproject.toml.
KINDS = {
    "breaking": "Breaking changes",
    "feature": "Features",
    "bugfix": "Bug fixes",
    "doc": "Documentation",
    "misc": "Internal changes",
}


def coming_changes() -> str:
    """The fragments in changelog.d, by kind."""
    found: dict[str, list[str]] = {}
    for path in sorted((HERE / "changelog.d").glob("*.md")):
        kind = path.name.split(".")[-2]
        text = " ".join(path.read_text(encoding="utf-8").split())
        found.setdefault(kind, []).append(f"- {text}\n")
    return "\n".join(f"### {KINDS[kind]}\n\n{''.join(found[kind])}" for kind in KINDS if kind in found)


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace ``% generated: NAME`` lines."""
    made = {"options": docs_table, "changes": coming_changes}
    source[0] = re.sub(r"^% generated: (\w+)$", lambda line: made[line[1]](), source[0], flags=re.MULTILINE)


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_in)
