"""Markup that escapes by default: what is not markup already is text, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

VOID = {"br", "col", "img", "meta", "wbr"}
MINUS = "\N{MINUS SIGN}"
# Should something foreign ever get in, the browser still fetches and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Markup, safe to embed as it is. Only `element` and `join` make it from text of others."""


def element(tag: str, *children: str | None, **attributes: object) -> Html:
    """One element. Children: markup as it is, text escaped, None left out. Attributes: None left out.

    An attribute is named by its keyword without a last underscore, others being hyphens: class_, aria_label.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{named}>" if tag in VOID else f"<{tag}{named}>{join(*children)}</{tag}>")


def join(*children: str | None) -> Html:
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children if c is not None))


def document(title: str, *body: Html | None) -> str:
    """A whole page that needs nothing else: no script, no font, no picture from anywhere."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n"


def table(title: str, heads: Sequence[str], rows: Sequence[Html], kind: str) -> Html:
    """heads: of the columns after the first, which names the rows; markup is a whole cell, text the inside of one.

    A column of pictures that repeat the one before it has the head "".
    """
    top = [h if isinstance(h, Html) else element("th", h, scope="col") if h else element("td") for h in heads]
    return element(
        "table",
        element("caption", title),
        element("thead", element("tr", element("td"), *top)),
        element("tbody", *rows),
        class_=kind,
    )


def row(name: str, *cells: str) -> Html:
    """A row and its name; a cell that is markup of a cell stays, anything else is the inside of one."""
    return element("tr", element("th", name, scope="row"), *[_cell(cell) for cell in cells])


def _cell(content: str) -> Html:
    return content if isinstance(content, Html) and content.startswith("<td") else element("td", content)


def signed(value: float, digits: int) -> str:
    """With its sign, a real minus: +1.2, but 0.0 for what rounds to nothing."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"
