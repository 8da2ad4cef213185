"""How `make docs` turns the pages and the docstrings into a site. Its sources begin at the repository's root."""

from __future__ import annotations

import nri_fast

project = "nri_fast"
author = "the nri_fast contributors"
release = nri_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/*.md"]
root_doc = "docs/index"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
default_role = "code"

html_theme = "furo"
html_title = f"nri_fast {release}"
