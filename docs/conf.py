"""Sphinx configuration: Markdown pages, one per noun."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "rheos"
author = "the rheos authors"
release = version = _version("rheos")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "rheos"
