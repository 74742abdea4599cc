"""Picture files, one frame each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.pictures import opened_photo
from ampnet_opt.core.text import count, printable
from ampnet_opt.pipeline.frames import Frame
from ampnet_opt.pipeline.sources.source import Source


class Pictures(Source):
    """Pictures in the order given; one that cannot be read is left out and stands in `failures`."""

    still = True

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(printable(files[0]) if len(files) == 1 else count(len(files), "picture"))
        self._files = list(files)
        self.count = len(self._files)
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            if self._closed:
                return
            try:
                with opened_photo(file) as photo:
                    image, scale = np.asarray(photo.image), photo.scale
            except AmpnetError as error:
                self.failures.append(error)
                continue
            yield Frame(image, index, name=str(file), captured=time.monotonic(), scale=scale)

    def close(self) -> None:
        self._closed = True
