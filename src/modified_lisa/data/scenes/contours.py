"""From a mask to polygons that give exactly that mask back, and the clean-up that keeps them sensible.

Annotations are filled polygons with their outline drawn, so a polygon cannot have a hole. A region with
holes is cut along a column through the hole, again and again, until no piece has one: the pieces share no
pixel and together are the region. A polygon runs through the centres of a piece's border pixels, so
`cv2.polylines` and `cv2.fillPoly` on its integer points draw the piece and nothing else.
"""

import cv2
import numpy as np

__all__ = ["drop_specks", "mask_to_polygons"]


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons of a bool mask (H, W): int32 (K, 2) with K >= 3, x before y, pixels; largest piece first."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    y, x = int(rows[0]), int(columns[0])
    crop = np.ascontiguousarray(mask[y : rows[-1] + 1, x : columns[-1] + 1], dtype=np.uint8)
    pieces: list[tuple[int, np.ndarray]] = []
    _collect(crop, x, y, pieces)
    pieces.sort(key=lambda piece: -piece[0])
    return [points for _, points in pieces]


def _collect(mask: np.ndarray, x: int, y: int, pieces: list[tuple[int, np.ndarray]]) -> None:
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for index, contour in enumerate(contours):
        _, _, hole, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        if hole < 0:
            points = contour[:, 0, :]
            if len(points) < 3:  # a straight line or a single pixel: same pixels, said with three points
                points = np.concatenate([points, points[:1], points[:1]])[:3]
            area = int(cv2.contourArea(contour)) + len(contour)
            pieces.append((area, (points + np.array([x, y])).astype(np.int32)))
            continue
        left, top, width, height = cv2.boundingRect(contour)
        piece = np.zeros((height, width), np.uint8)
        cv2.drawContours(piece, contours, index, 1, cv2.FILLED, 8, hierarchy, 1, (-left, -top))
        piece &= mask[top : top + height, left : left + width]
        hole_left, _, hole_width, _ = cv2.boundingRect(contours[hole])
        cut = min(max(hole_left + hole_width // 2 - left, 1), width - 1)
        for start, stop in ((0, cut), (cut, width)):
            _collect(np.ascontiguousarray(piece[:, start:stop]), x + left + start, y + top, pieces)


def drop_specks(owner: np.ndarray, count: int, smallest: int = 12) -> None:
    """Tidy the map of who owns which pixel, in place: uint8 (H, W), 0 the background, 1..count the objects.

    Scraps of an object below ``smallest`` pixels go to the background, and pinholes of background within
    one object go to it: people would neither see nor draw them.
    """
    for index in range(1, count + 1):
        region = (owner == index).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(region)
        if w == 0:
            continue
        view = owner[y : y + h, x : x + w]
        crop = region[y : y + h, x : x + w]
        n, labels, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8)
        for piece in range(1, n):
            if stats[piece, cv2.CC_STAT_AREA] < smallest:
                view[labels == piece] = 0
        n, labels, stats, _ = cv2.connectedComponentsWithStats((view == 0).astype(np.uint8), connectivity=4)
        for piece in range(1, n):
            left, top, width, height, area = stats[piece]
            inside = left > 0 and top > 0 and left + width < w and top + height < h
            if area < smallest and inside and _surrounded(view, labels == piece, index):
                view[labels == piece] = index


def _surrounded(view: np.ndarray, hole: np.ndarray, index: int) -> bool:
    rim = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~hole
    return bool((view[rim] == index).all())
