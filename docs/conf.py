"""Configuration of Sphinx. The site is built from this checkout, offline:

sphinx-build -E -W --keep-going -b html docs docs/_build
"""

import importlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))  # jaxcnn, experiments and docs

project = "jaxcnn"
release = importlib.import_module("jaxcnn").__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "docs._reference", "docs._concepts", "docs._notebooks"]
exclude_patterns = ["_build", "*.py"]
myst_heading_anchors = 3
smartquotes = False  # "VALID" is code
highlight_language = "text"  # of a block that names no language

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_use_type_comments = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "jaxcnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_copyright = False  # the license is in the repository
