"""The frame of a self-contained HTML page, and what its parts share. No script, font or image from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = (Path(__file__).parent / "page.css").read_text()
SCRIPT = (Path(__file__).parent / "page.js").read_text()


def document(title: str, body: Iterable[str], *, style: str = STYLE, script: str = "") -> str:
    """A whole page. title: text; body: HTML."""
    parts = "\n".join(body) + (f"\n<script>\n{script}</script>" if script else "")
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body>\n{parts}\n</body></html>\n"
    )


def wide(head: str, rows: Sequence[str], *, caption: str = "", kind: str = "", columns: int = 0) -> str:
    """A table that scrolls by itself where the page is narrow.

    head: cells. rows: whole rows. caption: text. columns: of a table whose style sets their widths.
    """
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    above += "<colgroup>" + "<col>" * columns + "</colgroup>" if columns else ""
    return (
        f"<div class=wide tabindex=0 role=region aria-label='{escape(caption or 'table')}'>"
        f"<table{f' class={kind}' if kind else ''}>{above}<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def notes(texts: Iterable[str]) -> str:
    return "".join(f"<p class=note>{escape(text)}</p>" for text in texts)


def link(href: str, text: str) -> str:
    return f'<a href="{escape(href)}">{escape(text)}</a>'
