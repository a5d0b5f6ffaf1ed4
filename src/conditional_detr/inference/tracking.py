"""Follow objects through the frames of a video: ByteTrack (Zhang et al., ECCV 2022), within each category.

A Kalman filter predicts where each object will be. Confident detections are matched to the predictions first, and the others to
what is left of the objects seen in the frame before, so that an object keeps its number while it is hard to see.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from conditional_detr.boxes import center_to_corners, corners_to_center, iou_and_giou
from conditional_detr.structures import Detections

LOW_SCORE = 0.1  # detections below it are not used at all
_LEAST_IOU = 0.2  # of a confident detection with the prediction of its track, times its score
_LEAST_IOU_UNSURE = 0.5  # of any other detection
_POSITION_NOISE, _SPEED_NOISE = 1 / 20, 1 / 160  # standard deviations as parts of the size of the box, as published


@dataclass
class _Track:
    """An object. mean: value and speed of cx, cy, w, h. covariance: of value and speed, for each of the four."""

    id: int
    label: int
    mean: np.ndarray  # [4, 2]
    covariance: np.ndarray  # [4, 2, 2]
    unseen: int = 0  # updates since it was seen

    @property
    def size(self) -> np.ndarray:
        """Width, height, width and height, at least a pixel, which the noise of the four values depends on."""
        return np.tile(self.mean[2:, 0].clip(min=1), 2)

    def predict(self) -> None:
        """Move the object by its speed. The four values do not depend on each other."""
        step = np.array([[1.0, 1.0], [0.0, 1.0]])
        if self.unseen:
            self.mean[2:, 1] = 0  # the box of an object that is out of sight neither grows nor shrinks
        self.mean = self.mean @ step.T
        noise = np.stack([_POSITION_NOISE * self.size, _SPEED_NOISE * self.size], -1) ** 2
        self.covariance = step @ self.covariance @ step.T + noise[:, :, None] * np.eye(2)

    def see(self, box: np.ndarray) -> None:
        """Correct the object by a detected box (cx, cy, w, h)."""
        variance = self.covariance[:, 0, 0] + (_POSITION_NOISE * self.size) ** 2
        gain = self.covariance[:, :, 0] / variance[:, None]
        self.mean = self.mean + gain * (box - self.mean[:, 0])[:, None]
        self.covariance = self.covariance - gain[:, :, None] * self.covariance[:, None, 0, :]
        self.unseen = 0


class Tracker:
    """Gives every object of a video a number that stays the same from frame to frame."""

    def __init__(self, patience: int = 30) -> None:
        """patience: number of frames after which an object out of sight is forgotten."""
        self._patience = patience
        self._tracks: list[_Track] = []
        self._count = 0

    def update(self, confident: Detections, unsure: Detections) -> list[int]:
        """Return the numbers of the objects that were detected confidently in the next frame; new ones count on from 1.

        unsure: further detections of the frame, with lower scores. They keep objects in mind, but start none.
        """
        for track in self._tracks:
            track.predict()
        tracks = list(self._tracks)
        boxes = corners_to_center(confident.boxes).double().numpy()
        found = _matched(tracks, confident, _LEAST_IOU, by_score=True)
        for i, track in found.items():
            track.see(boxes[i])
        taken = {id(track) for track in found.values()}
        rest = [track for track in tracks if id(track) not in taken and not track.unseen]
        unsure_boxes = corners_to_center(unsure.boxes).double().numpy()
        seen_again = _matched(rest, unsure, _LEAST_IOU_UNSURE)
        for i, track in seen_again.items():
            track.see(unsure_boxes[i])
        taken |= {id(track) for track in seen_again.values()}
        for track in tracks:
            track.unseen += id(track) not in taken
        self._tracks = [track for track in tracks if track.unseen <= self._patience]
        return [(found[i] if i in found else self._start(boxes[i], label)).id for i, label in _labels(confident)]

    def _start(self, box: np.ndarray, label: int) -> _Track:
        self._count += 1
        track = _Track(self._count, label, np.stack([box, np.zeros(4)], -1), np.zeros((4, 2, 2)))
        track.covariance[:, 0, 0] = (2 * _POSITION_NOISE * track.size) ** 2
        track.covariance[:, 1, 1] = (10 * _SPEED_NOISE * track.size) ** 2
        self._tracks.append(track)
        return track


def _labels(found: Detections) -> "list[tuple[int, int]]":
    return list(enumerate(found.labels.tolist()))


def _matched(tracks: list[_Track], found: Detections, least: float, *, by_score: bool = False) -> dict[int, _Track]:
    """Return the tracks of detections by the indices of these, where the sum of the overlaps (IoU) is highest.

    by_score: multiply overlaps with scores.
    """
    if not tracks or not len(found):
        return {}
    predicted = center_to_corners(torch.from_numpy(np.stack([track.mean[:, 0] for track in tracks])))
    overlap = iou_and_giou(predicted[:, None], found.boxes.double()[None])[0].numpy()  # NaN of two boxes without area
    if by_score:
        overlap = overlap * found.scores.double().numpy()
    same = np.array([track.label for track in tracks])[:, None] == found.labels.numpy()
    overlap = np.where(same & (overlap >= least), overlap, 0)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return {int(j): tracks[i] for i, j in zip(rows, columns, strict=True) if overlap[i, j] > 0}
