"""The pictures of a folder, and those that are of formats not read here."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import listed
from ampnet_opt.faces.pictures import OTHER_PICTURES, PICTURES, is_picture, remedy


def pictures_in(folder: Path) -> List[Path]:
    """The pictures in a folder, by name. Raises MisuseError when there are none; it names those that are not read here."""
    inside = sorted(file for file in folder.iterdir() if is_picture(file))
    unread = [] if inside else [Path(file.name) for file in left_out([folder])]
    if unread:
        raise MisuseError(f"folder {folder} holds no pictures that are read here, but {name_unread(unread)}")
    if not inside:
        raise MisuseError(f"folder {folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return inside


def left_out(paths: Sequence[Path]) -> List[Path]:
    """Pictures in the folders among `paths` that are of a format that is not read here."""
    folders = [path for path in paths if path.is_dir()]
    return sorted(file for folder in folders for file in folder.iterdir() if is_picture(file, OTHER_PICTURES))


def name_unread(files: Sequence[Path]) -> str:
    """Pictures that `left_out` found, and what to do with each kind of them."""
    remedies = dict.fromkeys(remedy(file.suffix) for file in files)
    of_each = ([file for file in files if remedy(file.suffix) == what] for what in remedies)
    return "; ".join(f"{listed(some)} ({what})" for what, some in zip(remedies, of_each))
