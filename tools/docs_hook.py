"""mkdocs hook: options of each command from its own help, and pages of files that lie outside docs/.

A line `<!-- options -->` in reference/NAME.md becomes the tables of options of `ampnet-opt NAME`. CHANGELOG.md and its like
are pages of the site; links to other files of the repository, which the site does not hold, become their names.
"""

from __future__ import annotations

import os
import posixpath
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OPTIONS = "<!-- options -->"
OUTSIDE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "ampnet_opt/shipped/MODEL_CARD.md": "project/model-card.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    place = page.file.src_uri
    origin = next((source for source, shown in OUTSIDE.items() if shown == place), f"docs/{place}")
    if OPTIONS in markdown:
        markdown = markdown.replace(OPTIONS, options(Path(place).stem))
    return LINK.sub(lambda link: _on_site(link, origin, place), markdown)


def _on_site(link: re.Match[str], origin: str, place: str) -> str:
    """A link of a file of the repository as the page `place` has it: to a page of the site, or its text alone."""
    text, target = link.groups()
    path, _, anchor = target.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return link[0]
    there = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if there.startswith("docs/"):
        page = there[len("docs/") :]
    elif there == "README.md":
        page = "index.md"
    elif there in OUTSIDE:
        page = OUTSIDE[there]
    elif (ROOT / there).exists():
        return text
    else:
        return link[0]  # mkdocs complains of it
    relative = posixpath.relpath(page, posixpath.dirname(place) or ".")
    return f"[{text}]({relative}{'#' + anchor if anchor else ''})"


def options(name: str) -> str:
    """What a command's help says: its description, and a table of arguments and options for each panel."""
    os.environ["TYPER_USE_RICH"] = "0"  # the texts as they are written, without rich's escapes
    import typer

    from ampnet_opt.cli.main import application

    command = typer.main.get_group(application([name])).commands[name]
    hints = get_type_hints(command.callback)
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        panel = parameter.rich_help_panel or ("Options" if parameter.opts[0].startswith("-") else "Arguments")
        panels.setdefault(panel, []).append(f"| {_names(parameter, hints[parameter.name])} | {_text(parameter)} |")
    tables = [
        f"**{panel}**\n\n| {'argument' if panel == 'Arguments' else 'option'} | meaning |\n|---|---|\n" + "\n".join(rows)
        for panel, rows in panels.items()
    ]
    return "\n\n".join([_cell(command.help), *tables])


def _names(parameter: Any, hint: Any) -> str:
    """`--output PATH`, `-o`; an argument is named by what stands in the usage."""
    if not parameter.opts[0].startswith("-"):
        return f"`{parameter.metavar}`"
    while get_args(hint):  # Optional[...], List[...]
        hint = get_args(hint)[0]
    value = parameter.metavar or _value(hint)
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=len, reverse=True)
    return ", ".join(f"`{one} {value}`" if value and one.startswith("--") else f"`{one}`" for one in names)


def _value(kind: Any) -> str:
    if issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {bool: "", int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _text(parameter: Any) -> str:
    text = _cell(parameter.help or "")
    default = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        text += " Required."
    elif default not in (None, False, True):
        text += f" Default: `{default}`."
    return text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")
