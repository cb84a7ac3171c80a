"""How Sphinx builds the documentation site; `nox -s docs` runs it with warnings as errors.

The pages are Markdown and read well on GitHub too, so their links lead from file to file. On the site, links out of
`docs/` lead to the file on GitHub.
"""

import os
import re
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

# Signatures with types come from the Python implementation; both have the same docstrings.
os.environ["AIOPOOL_NO_EXTENSIONS"] = "1"

ROOT = Path(__file__).parent.parent
DISTRIBUTION = metadata.metadata("aiosyncpool")
SOURCE_URL = dict(url.split(", ") for url in DISTRIBUTION.get_all("Project-URL", []))["Source"]

project = "aiopool"
author = "the aiopool authors"
copyright = "the aiopool authors, MIT licence"
release = version = DISTRIBUTION["Version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

# Docstrings mark code with single backquotes.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"aiopool {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {"source_repository": SOURCE_URL, "source_branch": "main", "source_directory": "docs/"}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def link_to_source(app: Sphinx, page: str, content: list[str]) -> None:
    """Turn links that lead out of `docs/` into links to the same file on GitHub."""
    folder = Path(app.srcdir, page).parent

    def absolute(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if target.is_relative_to(app.srcdir) or not target.exists():
            return link[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"]({SOURCE_URL}/{kind}/main/{target.relative_to(ROOT).as_posix()}{link[2] or ''})"

    content[0] = re.sub(r"\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)", absolute, content[0])


def list_guides(app: Sphinx, page: str, content: list[str]) -> None:
    """Put each page that `index.md` names nowhere else among the how-to guides, so that a new page needs no entry."""
    if page == "index":
        named = re.findall(r"^[\w-]+$", content[0], re.M)
        others = sorted({path.stem for path in Path(app.srcdir).glob("*.md")} - {"changelog", "index", *named})
        content[0] = content[0].replace("OTHER-GUIDES", "\n".join(others))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", link_to_source)
    app.connect("source-read", list_guides)
