"""Sphinx: `make docs`."""

project = "infold"
copyright = "the infold authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["figures"]
html_theme = "furo"
html_title = "infold"
