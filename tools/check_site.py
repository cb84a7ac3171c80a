"""Follow every link of the built documentation site, without the network: `python tools/check_site.py build/site`.

Sphinx checks the links that it resolves itself. This program checks the pages as a browser gets them: each link to a
page, file or anchor of the site must lead somewhere, and each link to a file of the project on GitHub must name a file
that exists. Other external links are not followed.
"""

import sys
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).parent.parent
SOURCE_URL = dict(url.split(", ") for url in metadata.metadata("aiosyncpool").get_all("Project-URL", []))["Source"]


class Page(HTMLParser):
    """The anchors and the links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors = {""}
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by HTMLParser."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src", "data") and value:
                self.links.append(value)


def dead_links(site: Path) -> list[str]:
    """One line for each link that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {link}"
        for path, page in pages.items()
        for link in dict.fromkeys(page.links)
        if not _leads_somewhere(link, path, pages)
    ]


def _leads_somewhere(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    address, anchor = urldefrag(link)
    address = address.partition("?")[0]
    for kind in ("blob", "tree"):
        prefix = f"{SOURCE_URL}/{kind}/main/"
        if address.startswith(prefix):
            return (ROOT / address.removeprefix(prefix)).exists()
    if "://" in address or address.startswith(("mailto:", "data:", "//")):
        return True
    target = (path.parent / unquote(address)).resolve() if address else path
    if target in pages:
        return unquote(anchor) in pages[target].anchors
    return target.is_file()


def main() -> int:
    """Print the dead links; return the exit code."""
    dead = dead_links(Path(sys.argv[1]))
    print("\n".join(dead) if dead else "all links lead somewhere")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
