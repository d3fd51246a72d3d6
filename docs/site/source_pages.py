"""Links from a page to a file outside docs/, kept alive in the site: an mkdocs hook.

In a checkout `../nprdsl/schema.py` opens the file. The site holds docs/ only, so each file that a
page names this way becomes a page of its own, with the file in it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\(\.\./(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".lark": "text", ".toml": "toml", ".yaml": "yaml", ".sh": "bash"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for every file outside docs/ that a page links to; Markdown files stay Markdown."""
    root = Path(config.docs_dir).parent
    linked = {
        found["path"]
        for file in files.documentation_pages()
        for found in _LINK.finditer(file.content_string)
    }
    for name in sorted(linked):
        files.append(File.generated(config, _page(name), content=_content(root / name, name)))
    return files


def _content(path: Path, name: str) -> str:
    """The Markdown of a file, or of a list of what a folder holds."""
    if path.is_dir():
        entries = sorted(entry.name for entry in path.iterdir() if entry.name[0] not in "._")
        body = "\n".join(f"- `{entry}`" for entry in entries)
    elif not path.is_file():
        raise SystemExit(f"a page links to ../{name}, which is not there")
    elif path.suffix == ".md":
        up = "../" * (1 + name.count("/"))
        return path.read_text(encoding="utf-8").replace("](docs/", f"]({up}")
    elif path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells)
    else:
        text, language = path.read_text(encoding="utf-8"), _LANGUAGES.get(path.suffix, "text")
        body = f"````{language}\n{text.rstrip()}\n````"
    return f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n{body}\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of docs/ pages lead to the pages made above."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    return _LINK.sub(lambda found: f"]({_page(found['path'])})", markdown)


def _cell(kind: str, source: str) -> str:
    return source if kind == "markdown" else f"````python\n{source}\n````"


def _page(name: str) -> str:
    return f"source/{name.removesuffix('.md')}.md"
