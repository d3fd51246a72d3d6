"""One page as one file: what is drawn, the program that draws it, and nothing from elsewhere.

In goes a view; out comes HTML that shows it in any browser, from a disk, a notebook or a mail. The
program is built by `make studio`. A Content-Security-Policy lets nothing else run and nothing be
fetched, and what a model has written stands in it as JSON: it can only ever become text.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from functools import cache
from html import escape
from importlib import resources
from typing import Final

from nprdsl.studio.reports import ReportView
from nprdsl.studio.schemas import SchemaView
from nprdsl.studio.traces import TraceView

_IN_SCRIPTS: Final = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
}  # JSON has them in strings alone
_FRAME: Final = 720  # pixels


class StudioNotBuiltError(FileNotFoundError):
    """The pages are not there: a checkout builds them by `make studio`, wheels hold them."""


@cache
def static_file(name: str) -> str:
    """The text of a built file. Raises StudioNotBuiltError."""
    file = resources.files("nprdsl.studio") / "static" / name
    if not file.is_file():
        raise StudioNotBuiltError(
            f"the pages are not built: `{name}` is missing; run `make studio` in the checkout, "
            "which needs Node.js 20 and npm"
        )
    return file.read_text(encoding="utf-8")


def page(view: TraceView | SchemaView | ReportView) -> str:
    """The page of one view. Raises StudioNotBuiltError."""
    style = static_file("viewer.css")
    script = static_file("viewer.js").replace("</script", "<\\/script")
    data = f'<script type="application/json" id="view">{in_script(view.model_dump_json())}</script>'
    return document(
        title=view.title or view.kind,
        policy=f"script-src {_source(script)}; style-src {_source(style)}",
        head=f"<style>{style}</style>",
        body=f"{data}\n<script>{script}</script>",
    )


def framed(view: TraceView | SchemaView) -> str:
    """The page inside a frame of another, as in a notebook; its script can do nothing outside of
    it. Raises StudioNotBuiltError."""
    style = f"width: 100%; height: {_FRAME}px; border: 0"
    return (
        f'<iframe title="{escape(view.title or view.kind)}" sandbox="allow-scripts" '
        f'style="{style}" srcdoc="{escape(page(view))}"></iframe>'
    )


def document(*, title: str, policy: str, head: str, body: str) -> str:
    """A page's HTML; `policy` is what its Content-Security-Policy allows."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; base-uri 'none'; form-action 'none'; {escape(policy)}\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n{head}\n</head>\n<body>\n"
        f'<div id="app"></div>\n{body}\n</body>\n</html>\n'
    )


def in_script(text: str) -> str:
    """JSON that stands inside a `script` element."""
    return "".join(_IN_SCRIPTS.get(character, character) for character in text)


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def served_page(start: str) -> tuple[str, str]:
    """The page that a server gives, which begins with the JSON `start`, and the policy for its
    header: it may talk to that server alone. Raises StudioNotBuiltError."""
    nonce = secrets.token_urlsafe(16)  # the editor makes styles of its own, and puts it there
    script = static_file("studio.js").replace("</script", "<\\/script")
    data = f'<script type="application/json" id="view">{in_script(start)}</script>'
    policy = f"script-src {_source(script)}; style-src 'nonce-{nonce}'; connect-src 'self'"
    html = document(
        title="nprdsl studio",
        policy=policy,
        head=f'<style nonce="{nonce}">{static_file("studio.css")}</style>',
        body=f'{data}\n<script data-nonce="{nonce}" id="program">{script}</script>',
    )
    return html, f"default-src 'none'; img-src data:; base-uri 'none'; {policy}"
