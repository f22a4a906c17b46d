"""A visible label in the picture, such as 'synthetic': white letters on a dark plate in a corner, never over the face.

The plate darkens what is below it to `PLATE`, so that the letters stand out from any ground by a contrast of 7 to 1 or
more (WCAG 2 asks for 4.5). Its corners lie on even pixels, so that no sample of its neighbours changes in 4:2:0.
"""
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageFont

from facemodel.errors import InputError

DEFAULT_TEXT = "synthetic"
PLATE = 0.25                    # share of the picture's brightness that shows through the plate
LETTERS = 0.97                  # grey of the letters
FONT_SHARE = 1 / 18             # the font's size over the picture's shorter side
SMALLEST_FONT = 14              # pixels
LONGEST_TEXT = 200              # characters, beyond which nobody meant a label
FACE_MARGIN = 1.15              # how far the face is thought to reach beyond its landmarks, from their middle
FOREHEAD = 0.5                  # height of the forehead over the distance from chin to brows
_BROWS, _CHIN = slice(17, 27), 8
_CORNERS = ((1, 1), (1, 0), (0, 1), (0, 0))        # (bottom, right), in order of preference


def add_option(parser):
    """Adds --label to the parser of a command that writes a video."""
    parser.add_argument("--label", nargs="?", const=DEFAULT_TEXT, metavar="TEXT",
                        help="write a visible label into every replaced frame, in a corner where no face is; TEXT is "
                             f"'{DEFAULT_TEXT}' if not given (then put another option or nothing after --label)")


def check_label(text, height=None, width=None):
    """Raises InputError, before any work, for a label that can't be drawn into pictures of a size, or at all.

    Parameters
    ----------
    text : str, or None for no label
    height, width : int pixels; by default only the text is looked at
    """
    if text is None:
        return
    if not text.strip() or len(text) > LONGEST_TEXT:
        raise InputError(f"--label: give a text of 1 to {LONGEST_TEXT} characters")
    missing = sorted({c for c in text if not _drawable(c)})
    if missing:
        raise InputError(f"--label {text}: the embedded font lacks {' '.join(map(ascii, missing))}; use unaccented "
                         "Latin letters")
    with suppress(OSError):                          # a name that no file can have
        if Path(text).is_file():
            raise InputError(f"--label {text}: took a file for its text; put --label after SOURCE and TARGET")
    if height is not None:
        draw_plate(text, height, width)


class Labeller:
    """Puts a label into the frames of a clip, in one corner for all of them unless the face comes there.

    What it draws in a frame depends on nothing but the clip's landmarks, so that work can be taken up at any frame.

    Parameters
    ----------
    text : str, or None, which leaves all frames alone
    height, width : int pixels, of the frames
    landmarks : (F, 68, 2) pixels, nan where no face was found; or a list of such arrays, one per face
    first : int, frame that the landmarks begin with

    Raises
    ------
    InputError : as check_label
    """

    def __init__(self, text, height, width, landmarks, first=0):
        self._letters, self._first = None, int(first)
        if text is None:
            return
        check_label(text)
        self._letters = draw_plate(text, height, width)
        faces = [landmarks] if isinstance(landmarks, np.ndarray) else list(landmarks)
        self._outlines = [[o for o in map(face_outline, marks) if o is not None] for marks in zip(*faces)]
        boxes = [self._box(height, width, *corner) for corner in _CORNERS]
        covered = np.array([[self._covered(outlines, box).sum() for box in boxes] for outlines in self._outlines])
        order = np.argsort((covered > 0).sum(axis=0), kind="stable")
        first = covered[:, order].argmin(axis=1)       # the first that is free, else the one that is least covered
        self._boxes = [boxes[i] for i in order[first]]

    def draw(self, picture, alpha, t):
        """The picture of frame t with the label, and the alpha that says which pixels changed.

        Parameters
        ----------
        picture : (H, W, 3) float32 in [0, 1], the finished picture, or None for a frame that is passed through
        alpha : (H, W) float32, above 0 where the picture differs from the source; these pixels are left as they are
        t : int, frame

        Returns
        -------
        picture, alpha : copies, or what came in where there is nothing to draw; alpha is 1 in the label
        """
        if self._letters is None or picture is None:
            return picture, alpha
        box = self._boxes[t - self._first]
        free = ~self._covered(self._outlines[t - self._first], box) & (alpha[box] <= 0)
        letters = self._letters[..., None]
        plate = picture[box] * PLATE * (1 - letters) + LETTERS * letters
        picture, alpha = picture.copy(), alpha.copy()
        picture[box][free] = plate[free]
        alpha[box][free] = 1
        return picture, alpha

    def _box(self, height, width, bottom, right):
        rows, columns = self._letters.shape
        margin = _even(min(height, width) * FONT_SHARE / 2)
        place = lambda size, whole, far: _even(whole) - size - margin if far else margin
        top, left = place(rows, height, bottom), place(columns, width, right)
        return np.s_[top:top + rows, left:left + columns]

    def _covered(self, outlines, box):
        """Where faces lie in a box: (h, w) bool."""
        mask = np.zeros(self._letters.shape, np.uint8)
        for outline in outlines:
            cv2.fillConvexPoly(mask, np.round(outline - [box[1].start, box[0].start]).astype(np.int32), 1)
        return mask > 0


def face_outline(landmarks):
    """The convex outline of a face with its forehead, (n, 2) pixels, or None without landmarks (68, 2)."""
    if not np.isfinite(landmarks).all():
        return None
    brows = landmarks[_BROWS]
    forehead = brows + FOREHEAD * (brows.mean(axis=0) - landmarks[_CHIN])
    hull = cv2.convexHull(np.concatenate([landmarks, forehead]).astype(np.float32))[:, 0]
    middle = (hull.min(axis=0) + hull.max(axis=0)) / 2
    return middle + FACE_MARGIN * (hull - middle)


def draw_plate(text, height, width):
    """The letters on their plate for pictures of a size.

    Returns
    -------
    (h, w) float32 in [0, 1], 1 in the letters and 0 on the plate; h and w are even

    Raises
    ------
    InputError : the text is too long, or the picture too small, for letters that can be read
    """
    size = max(SMALLEST_FONT, round(min(height, width) * FONT_SHARE))
    while True:
        font = ImageFont.load_default(size)
        left, _, right, _ = font.getbbox(text)
        ascent, descent = font.getmetrics()
        pad = max(2, size // 4)
        rows, columns = _even(ascent + descent + pad, up=True), _even(right - left + 2 * pad, up=True)
        margin = _even(min(height, width) * FONT_SHARE / 2)
        if rows <= height - 1 - 2 * margin and columns <= width - 1 - 2 * margin:
            break
        size -= 1
        if size < SMALLEST_FONT:
            raise InputError(f"--label {text}: does not fit in legible letters into a picture of {width} x {height}; "
                             "give a shorter text")
    plate = np.zeros((rows, columns), np.float32)
    mask, (x, y) = font.getmask2(text, mode="L")
    glyphs = np.array(mask, np.float32).reshape(mask.size[::-1]) / 255
    x, y = pad + x - left, (rows - ascent - descent) // 2 + y
    plate[y:y + glyphs.shape[0], x:x + glyphs.shape[1]] = glyphs
    return plate


def _drawable(character):
    """Whether the embedded font has a character; it draws a box for those that it lacks."""
    font = ImageFont.load_default(32)
    return character.isprintable() and (character == " " or bytes(font.getmask(character)) != bytes(
        font.getmask("\uffff")))


def _even(size, up=False):
    """The even int next to a size, below or above."""
    return 2 * int(-(-size // 2) if up else size // 2)
