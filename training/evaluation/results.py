"""Results of other systems: folders of pictures, matched with the photos by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.photos import BadPhotoError, Entry, find_photos, read_photo
from training.evaluation.protocol import picture_name


class ResultFolder:
    """Pictures that another system made of photos, each named like its photo, with any suffix.

    Raises ValueError if none of the pictures has the name of a photo.
    """

    def __init__(self, folder: str, entries: Sequence[Entry]) -> None:
        self.folder = folder
        found = {picture_name(entry.name): entry for entry in find_photos([folder])}
        names = {picture_name(entry.name) for entry in entries}
        self.pictures = {name: found[name] for name in names & set(found)}
        if not self.pictures:
            raise ValueError(
                f"no picture in {folder} has the name of a photo: expected {min(names)}, got {min(found)}"
            )
        self.problems = [f"no photo for {Path(found[n].name).name}" for n in set(found) - names]
        self.problems += [f"missing: {name}" for name in names - set(found)]

    def read(self, name: str, side: int) -> np.ndarray | None:
        """Return the picture of a photo, uint8 (side, side, 3), or None and note the problem in `problems`."""
        if (entry := self.pictures.get(picture_name(name))) is None:
            return None
        try:
            picture = read_photo(entry)
            if picture.shape[:2] == (side, side):
                return picture
            got = f"{picture.shape[1]} x {picture.shape[0]}"
            problem = f"{Path(entry.name).name}: expected {side} x {side} pixels, got {got}"
        except BadPhotoError as error:
            problem = str(error)
        self.problems.append(problem)
        return None
