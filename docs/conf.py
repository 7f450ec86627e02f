"""How Sphinx builds these pages: ``python -m sphinx -b html docs build/html``."""

import configparser
import os
import sys

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir))
sys.path.insert(0, _ROOT)  # autodoc reads the package of this checkout

_setup = configparser.ConfigParser(interpolation=None)
_setup.read(os.path.join(_ROOT, "setup.cfg"), encoding="utf-8")

project = "ensign-sync"
author = "The ensign-sync authors"
version = release = _setup.get("metadata", "version", fallback="0.0.0")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "alabaster"
html_theme_options = {"description": "A synchronous Python client for Ensign", "page_width": "1100px"}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes in docstrings are properties too: described twice they would clash
