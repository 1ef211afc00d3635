"""What the site has beside docs/: README, CHANGELOG, CONTRIBUTING, and every file that a page links to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
NAMED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(\[[^\]]*\])\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
AT: dict[str, str] = {}  # a page's address in the site -> its file in the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what these pages link to."""
    AT.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    left = [*AT.values(), *NAMED]
    while left:
        source = left.pop()
        uri = _uri(source)
        if files.get_file_from_path(uri) is None:
            AT[uri] = source
            files.append(_added(source, uri, config))
        if source.endswith(".md"):
            text = (ROOT / source).read_text(encoding="utf-8")
            found = (_target(source, link) for _, link, _ in LINK.findall(text))
            left += [each for each in found if (ROOT / each).is_file() and _uri(each) not in AT and not _in_docs(each)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages; of a folder only the text stays."""
    source = AT[page.file.src_uri]

    def linked(match: re.Match[str]) -> str:
        text, link, anchor = match.groups(default="")
        target = _target(source, link)
        if (ROOT / target).is_dir():
            return text[1:-1]
        return f"{text}({posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(linked, markdown) if source.endswith(".md") else markdown


def _added(source: str, uri: str, config: MkDocsConfig) -> File:
    """Return a file of the repository as one of the site, code as a page."""
    if not source.endswith(".py"):
        return File.generated(config, uri, abs_src_path=str(ROOT / source))
    text = (ROOT / source).read_text(encoding="utf-8")
    return File.generated(config, uri, content=f"# {source}\n\n```python\n{text}```\n")


def _target(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_docs(target: str) -> bool:
    return target.startswith("docs/")


def _uri(target: str) -> str:
    """Return where a file of the repository is in the site."""
    if _in_docs(target):
        return target.removeprefix("docs/")
    return NAMED.get(target, f"repository/{target}{'.md' if target.endswith('.py') else ''}")
