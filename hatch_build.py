"""Builds the manual: the pages of docs/ as a site, which the server shows at `/manual`; a wheel contains it.

The pages are written for the repository, where they link to its files. In the site, texts of the repository become
pages, links to its sources become their names, drawings become pictures, and a paragraph that only links to an example
becomes its code.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SITE = ROOT / "src/vultus/console/site"
CONFIG = "zensical.toml"
ROOT_PAGES = {
    "README.md": "start.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
OMITTED = ("docs/examples/", f"docs/{CONFIG}")
MARK = "src/vultus/console/static/mark.svg"
DRAWING = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
EXAMPLE = re.compile(r"^\[[^\]]*\]\(([\w./-]*examples/[\w.-]+)\)$", re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\(([^)#:\s]+)(#[^)]*)?\)")
PICTURE = re.compile(r'(\b(?:src|srcset)=)"([^":#]+)"')
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
LANGUAGES = {".py": "python", ".sh": "sh", ".ts": "typescript", ".java": "java"}
UNUSED = ("sitemap.xml", "404.html", "assets/stylesheets/classic")


class ManualHook(BuildHookInterface[Any]):
    """Builds the manual before a wheel is built or the package is installed in place."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what builds it, as in the group `manual`; nothing in a source archive that contains it."""
        if is_packed():
            return []
        groups: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
        return groups["manual"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it."""
        if not is_packed():
            build_manual(SITE)


def is_packed() -> bool:
    """Tell whether this is a source archive in which the manual was packed."""
    return (ROOT / "PKG-INFO").exists() and SITE.exists()


def build_manual(site: Path, root: Path = ROOT) -> None:
    """Build the pages of a repository into a folder, which the site replaces.

    Raises:
        SystemExit: A link, an anchor or a page of the navigation does not exist, or the builder is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="vultus-manual-") as work:
        _Staging(root, Path(work)).prepare()
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(Path(work) / CONFIG)]
        built = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  a constant
        if built.returncode:
            raise SystemExit(f"The manual was not built.\n{ESCAPES.sub('', built.stdout or built.stderr)}")
        for unused in UNUSED:
            path = Path(work, "site", unused)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(Path(work, "site"), site)


class _Staging:
    """A copy of docs/ whose pages are those of the site."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work, self.pages = root, work, work / "docs"

    def prepare(self) -> None:
        shutil.copytree(self.root / "docs", self.pages, ignore=shutil.ignore_patterns("examples"))
        shutil.copy(self.root / MARK, self.pages)
        config = re.sub(r'"([^"]*\*[^"]*)"', self._list_pages, (self.pages / CONFIG).read_text())
        (self.work / CONFIG).write_text(config)
        (self.pages / CONFIG).unlink()
        for page in sorted(self.pages.rglob("*.md")):
            self._prepare_page(self.root / "docs" / page.relative_to(self.pages), page)
        for source, name in ROOT_PAGES.items():
            self._prepare_page(self.root / source, self.pages / name)

    def _list_pages(self, pattern: re.Match[str]) -> str:
        return ", ".join(f'"{page.relative_to(self.pages)}"' for page in sorted(self.pages.glob(pattern[1])))

    def _prepare_page(self, source: Path, page: Path) -> None:
        text = EXAMPLE.sub(lambda match: _quote_example(source.parent / match[1]), source.read_text())
        text = LINK.sub(lambda match: self._turn_link(match, source, page), text)
        text = PICTURE.sub(
            lambda match: f'{match[1]}"{self._move_address(self._find_name(match[2], source), page)}"', text
        )
        page.write_text(DRAWING.sub(lambda match: _draw(match[1], page), text))

    def _turn_link(self, match: re.Match[str], source: Path, page: Path) -> str:
        """Return a link between pages as it is in the site, and the name instead of a link to a file that is not."""
        picture, text, address, anchor = match.groups(default="")
        name = self._find_name(address, source)
        if moved := self._move_address(name, page):
            return f"{picture}[{text}]({moved}{anchor})"
        return text if text.strip("`") in name else f"{text} (`{name}`)"

    def _find_name(self, address: str, source: Path) -> str:
        target = Path(os.path.normpath(source.parent / address))
        if not target.exists():
            raise SystemExit(f"The manual was not built.\n{source.name} links to {address}, which does not exist.")
        return target.relative_to(self.root).as_posix()

    def _move_address(self, name: str, page: Path) -> str | None:
        """Return the address of a file of the repository, seen from a page; None if the site does not have it."""
        if name in ROOT_PAGES or (name.startswith("docs/") and not name.startswith(OMITTED)):
            return os.path.relpath(self.pages / ROOT_PAGES.get(name, name.removeprefix("docs/")), page.parent)
        return None


def _quote_example(path: Path) -> str:
    return f'```{LANGUAGES[path.suffix]} title="{path.name}"\n{path.read_text().rstrip()}\n```'


def _draw(drawing: str, page: Path) -> str:
    """Draw a Mermaid diagram as a picture beside the page, so that no script of another origin has to."""
    number = len(list(page.parent.glob(f"{page.stem}-*.svg"))) + 1
    picture = page.with_name(f"{page.stem}-{number}.svg")
    picture.write_text(importlib.import_module("mmdr").render(drawing).svg())
    return f"![Drawing {number} of this page]({picture.name}){{ .drawing }}"


if __name__ == "__main__":
    build_manual(SITE)
