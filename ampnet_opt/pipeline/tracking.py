"""Which face of a frame is which of the frames before, by where they are and what they look like. numpy alone.

Libraries for this (norfair, trackers, motpy) bring SciPy, a Kalman filter for crowds of many kinds or a whole OpenCV; faces
are few, large, and found in nearly every frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.faces.detection import Box, Detection, overlap

# Measured on drawn videos: tracks that live for 1 second are lost behind hands (8 switches in 80 seconds), with 2 seconds
# one is, 3 gain nothing. A speed that fades costs switches or gains none.
KEPT = 2.0  # seconds that a track lives without a detection
# Who is covered by a person that passes must not lose the track to that person: shortly after a face was seen, it can only
# be near and of about the same size. Over the 120 seconds of drawn video that this was tuned on, 9 switches became 3; over
# 80 more, 5 became 2 or 4 stayed, by the detector. A fall of 1 to 3 leaves 2 or 3 of the 9; 0.5 has 10. Without the size in
# the choice there are 5.
NEAR, FALLS = 0.3, 1.5  # the least `closeness` of a track and a detection, at once, and how much it falls a second
FARTHEST = -0.42  # which it does not fall below: two equal squares 2.1 sides apart
ALIKE, CHANGES, MOST = 0.3, 0.5, float(np.log(2))  # the most that the logarithm of the size differs by, likewise
# Weight of that difference in the choice between several: over 400 seconds of drawn video, 0.5 leaves 10 switches, 0.75 to
# 1.5 leave 8.
SIZE = 1.0
# A track that was not seen in the last frame has to be this much closer. Over 520 seconds of drawn video, this choice among
# all tracks (before, those that were missed chose last) and a `FARTHEST` of -0.42 (before, -0.35) turned 12 switches into 8;
# with -0.5, 8 stay as well, one of them a track that another face took.
MISSED = 0.1
MEMORY = 0.2  # seconds over which a speed is averaged
# Colours tell apart whom places confuse. Over 200 seconds of drawn video, weak detections alone left 6 switches, with
# colours 1 stays; neighbouring settings leave 1 to 5, and 240 seconds that were not tuned on went from 13 to 9: the gain
# is not certain.
COLOURS, USUAL = 1.0, 0.1  # what a difference of colours counts against `closeness`, and the one that counts nothing
GAIN = 0.3  # the most that equal colours count for
CELLS, SAMPLES = 5, 4  # cells across a face and down it, and pixels that are looked at across a cell and down it
HAIR, CHIN, WIDE = 0.2, 1.05, 0.9  # where the cells end: above the box, from its top, across; in its height and width
LOOKS = 0.5  # seconds over which colours are averaged
SAME = 0.3  # the least share of the union of the boxes of a face without a number in two frames
# Weak detections of faces that are half covered have other boxes: with these gates 73 false faces are shown in 200 seconds
# (65 without weak detections); 0.3 as the lowest score shows 97.
WEAK_NEAR, WEAK_ALIKE = 0.4, 0.2  # the least `closeness` and the most change of size of a weak detection
# A face that comes out from behind another is half covered at first, and cannot be told from a new one. Over 800 seconds of
# drawn video, waiting for its number turned 20 switches into 13 (over 320 of them, which were only scored, 7 stayed 7); 0.6
# seconds do as much as 0.4. If faces apart from others wait as well, visible ones are not shown (0.7 %).
WAIT, BESIDE = 0.4, 0.1  # seconds, and the least share of the union of its box and another face's


@dataclass
class _Track:
    """A face as it was last seen, and how it moves: centre in pixels a second, size in factors of e a second."""

    number: int
    seen: float
    face: Detection
    speed: np.ndarray  # [3]: x, y, logarithm of the size
    begun: float  # when it was first seen
    colours: Optional[np.ndarray]  # of `_colours`

    def at(self, time: float) -> Detection:
        """The face moved to a later time, at constant speed."""
        after = time - self.seen
        dx, dy, growth = (float(value) for value in self.speed * after)
        return _moved(self.face, dx, dy, float(np.exp(growth)))

    def gates(self, time: float) -> Tuple[float, float]:
        """The least `closeness` of the face at a later time to where it is expected, and the most that its size changes.

        How fast a face moves that has just come is not known: it may be as far away as after a long time.
        """
        after = time - self.seen
        known = self.seen - self.begun >= MEMORY
        return max(FARTHEST, NEAR - FALLS * after) if known else FARTHEST, min(MOST, ALIKE + CHANGES * after)

    def see(self, face: Detection, time: float, colours: Optional[np.ndarray]) -> None:
        after = time - self.seen
        if self.colours is None or colours is None:
            self.colours = colours
        else:
            share = 1 - np.exp(-after / LOOKS)
            seen = np.where(np.isnan(colours), self.colours, colours)
            known = np.where(np.isnan(self.colours), seen, self.colours)
            self.colours = known + share * (seen - known)
        if after > 0:
            # An exponential average over `MEMORY` seconds, however many frames they hold.
            share = 1 - np.exp(-after / MEMORY)
            self.speed = self.speed + share * ((_state(face) - _state(self.face)) / after - self.speed)
        self.face, self.seen = face, time


class Tracker:
    """Numbers faces from frame to frame by where they are and by their colours.

    Each face takes the track whose box, moved on at constant speed, is closest to it in place, size and colours; those seen
    in the last frame are preferred. The longer ago a track was seen, the farther away and more different its face may be.
    Detections of low score continue a track of the last frame that no other face took, and never start one (after ByteTrack,
    Zhang et al. 2022). While a track is missed, a new face beside another waits for its number: it may turn out to be the
    missed one, which was covered. Times, not frames, decide, so that dropped frames and a variable rate do no harm. A number
    is never given twice.

    Attributes:
        threshold: detections whose score is not above it are weak.
        kept: seconds that a track lives without a detection. Faces that are further apart in time are new ones.
        ended: the numbers of the tracks that ended at the last update.
    """

    def __init__(self, threshold: float = 0.0, *, kept: float = KEPT) -> None:
        self.threshold = threshold
        self.kept = kept
        self.ended: List[int] = []
        self._tracks: Dict[int, _Track] = {}
        self._updated = -np.inf
        self._next = 1
        self._waiting: List[Tuple[Box, float]] = []  # new faces of the last update without a number, and when they came

    def update(
        self, detections: Sequence[Detection], time: float, image: Optional[np.ndarray] = None
    ) -> List[Optional[int]]:
        """The track of each detection of a frame, in the order given.

        None for a weak one that continues no track, and for a face that waits for its number.

        A time before the last one (a seek) ends all tracks.

        Args:
            detections: all faces of the frame, and weak detections.
            time: of the frame, in seconds.
            image: uint8 [height, width, 3] of the frame, whose colours are compared; without it places alone decide.
        """
        self._end(time)
        colours = [None if image is None else _colours(image, face.box) for face in detections]
        tracks = list(self._tracks.values())
        fresh = [track for track in tracks if track.seen == self._updated]
        weak = {index for index, face in enumerate(detections) if face.score <= self.threshold}
        sure = set(range(len(detections))) - weak
        numbers: List[Optional[int]] = [None] * len(detections)
        for able, indices in ((tracks, sure), (fresh, weak)):
            left = [track for track in able if track.number not in numbers]
            free = sorted(index for index in indices if numbers[index] is None)
            seen = [(detections[index], colours[index]) for index in free]
            for track, index in _pairs(left, seen, time, self._updated, weak=indices is weak):
                numbers[free[index]] = track.number
        numbered = [face.box for face, number in zip(detections, numbers) if number is not None]
        missed = any(track.number not in numbers for track in tracks)
        waiting = []
        # New numbers by what the faces are, not by the order in which they are given.
        for index in sorted((i for i in sure if numbers[i] is None), key=lambda i: _rank(detections[i])):
            box = detections[index].box
            came = min((came for place, came in self._waiting if overlap(place, box) >= SAME), default=time)
            if missed and time - came < WAIT and any(overlap(other, box) >= BESIDE for other in numbered):
                waiting.append((box, came))
            else:
                numbers[index] = self._next
                self._next += 1
        self._waiting = waiting
        for number, face, colour in zip(numbers, detections, colours):
            if number is None:
                continue
            if number in self._tracks:
                self._tracks[number].see(face, time, colour)
            else:
                self._tracks[number] = _Track(number, time, face, np.zeros(3), time, colour)
        self._updated = time
        return numbers

    def follow(self, time: float) -> List[Tuple[int, Detection]]:
        """The faces of the last update, moved on to a frame in which none were sought, largest first.

        The landmarks move with the box, for the detector to refine. Nothing is remembered of it: the next update starts from
        the last detections.
        """
        seen = [track for track in self._tracks.values() if track.seen == self._updated]
        moved = [(track.number, track.at(time)) for track in seen if 0 <= time - track.seen <= self.kept]
        return sorted(moved, key=lambda item: _rank(item[1]))

    def forget(self) -> None:
        """End all tracks: at a cut, or when another source begins."""
        self.ended = list(self._tracks)
        self._tracks.clear()

    def _end(self, time: float) -> None:
        back = time < self._updated
        self.ended = [number for number, track in self._tracks.items() if back or time - track.seen > self.kept]
        for number in self.ended:
            del self._tracks[number]


def closeness(one: Box, other: Box) -> float:
    """How close two boxes are, from -1 to 1: where they overlap and where they do not.

    Distance-IoU (Zheng et al., Distance-IoU Loss, 2020): intersection over union, less the squared distance of the centres
    as a share of the squared diagonal of the smallest box round both.
    """
    wide = max(one[0] + one[2], other[0] + other[2]) - min(one[0], other[0])
    high = max(one[1] + one[3], other[1] + other[3]) - min(one[1], other[1])
    dx = one[0] + one[2] / 2 - other[0] - other[2] / 2
    dy = one[1] + one[3] / 2 - other[1] - other[3] / 2
    return overlap(one, other) - (dx**2 + dy**2) / max(wide**2 + high**2, 1e-9)


def _pairs(
    tracks: Sequence[_Track],
    faces: Sequence[Tuple[Detection, Optional[np.ndarray]]],
    time: float,
    last: float,
    *,
    weak: bool,
) -> List[Tuple[_Track, int]]:
    """Tracks with the index of their face, the closest first; a track or a face is in one pair at most.

    faces: with their colours. last: the time of the frame before.
    """
    candidates = []
    for track in tracks:
        expected = track.at(time)
        least, most = track.gates(time)
        if weak:
            least, most = max(least, WEAK_NEAR), min(most, WEAK_ALIKE)
        for index, (face, colours) in enumerate(faces):
            close, grown = closeness(expected.box, face.box), abs(float(np.log(_size(face) / _size(track.face))))
            if close + GAIN < least or grown > most:
                continue  # colours, which take longer to compare, cannot change that
            close += min(GAIN, COLOURS * (USUAL - _difference(track.colours, colours)))
            if close >= least:
                distance = SIZE * grown - close + MISSED * (track.seen != last)
                candidates.append((distance, _rank(face), track.number, index, track))
    pairs: List[Tuple[_Track, int]] = []
    taken_tracks, taken_faces = set(), set()
    for _, _, number, index, track in sorted(candidates, key=lambda candidate: candidate[:3]):
        if number not in taken_tracks and index not in taken_faces:
            pairs.append((track, index))
            taken_tracks.add(number)
            taken_faces.add(index)
    return pairs


def _colours(image: np.ndarray, box: Box) -> np.ndarray:
    """Mean colours float32 [cells, 3], 0 to 1, of a grid over hair and face; NaN where a cell lies outside the image."""
    x, y, width, height = box
    height_there, width_there = image.shape[:2]
    share = (np.arange(CELLS * SAMPLES) + 0.5) / (CELLS * SAMPLES)
    columns = np.floor(x + width * (0.5 + WIDE * (share - 0.5))).astype(int)
    rows = np.floor(y + height * (share * (HAIR + CHIN) - HAIR)).astype(int)
    if rows[0] >= 0 and columns[0] >= 0 and rows[-1] < height_there and columns[-1] < width_there:
        pixels = image[rows[:, None], columns]  # averaging whole numbers is faster
    else:
        pixels = image[rows.clip(0, height_there - 1)[:, None], columns.clip(0, width_there - 1)].astype(np.float32)
        pixels[((rows < 0) | (rows >= height_there))[:, None] | (columns < 0) | (columns >= width_there)] = np.nan
    cells = pixels.reshape(CELLS, SAMPLES, CELLS, SAMPLES, 3)
    return cells.mean(axis=(1, 3), dtype=np.float32).reshape(-1, 3) / np.float32(255)


def _difference(one: Optional[np.ndarray], other: Optional[np.ndarray]) -> float:
    """The median over cells of the mean difference of their colours, which a hand over some of them leaves small.

    `USUAL`, which counts nothing, where no cell is known in both.
    """
    if one is None or other is None:
        return USUAL
    cells = np.abs(one - other).mean(axis=1)
    known = np.sort(cells)  # NaN at the end
    count = len(known) - int(np.isnan(known).sum())
    return float(known[count // 2]) if count else USUAL


def _rank(face: Detection) -> Tuple[float, Box]:
    return -face.side, face.box


def _size(face: Detection) -> float:
    return max(1e-6, float(np.sqrt(face.box[2] * face.box[3])))


def _state(face: Detection) -> np.ndarray:
    x, y, width, height = face.box
    return np.array([x + width / 2, y + height / 2, np.log(_size(face))])


def _moved(face: Detection, dx: float, dy: float, scale: float) -> Detection:
    """A face that moved by (dx, dy) pixels and grew by `scale` about its centre."""
    x, y, width, height = face.box
    centre = np.array([x + width / 2, y + height / 2])
    new = centre + np.array([dx, dy])
    box = (float(new[0] - scale * width / 2), float(new[1] - scale * height / 2), scale * width, scale * height)
    landmarks = (new + scale * (face.landmarks - centre)).astype(np.float32)
    return Detection(box, face.score, landmarks)
