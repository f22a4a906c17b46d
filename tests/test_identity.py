"""Telling people apart."""
import numpy as np

from fitting.detection import FaceDetector
from fitting.identity import MOST_VIEWS, NEW_VIEW, STRANGER, SURE, Gallery
from tests import clips


def test_one_person_is_like_himself_and_unlike_another():
    detector = FaceDetector()

    def describe(picture):
        return detector.descriptor(picture, detector.landmarks(picture, detector.detect(picture)[0].box))

    frames = clips.demo_frames(60)
    gallery = Gallery()
    assert gallery.distance(describe(frames[0])) == 0
    gallery.learn(describe(frames[0]))
    assert gallery.distance(describe(frames[59])) < SURE
    assert gallery.distance(describe(frames[59][:, ::-1])) < SURE
    assert gallery.distance(describe(clips.stranger())) > STRANGER


def test_what_is_learned():
    """New views that are surely his; neither the same again nor a stranger's, and not without end."""
    start = np.zeros(128)
    unit = np.eye(128)
    gallery = Gallery([start])
    for step in (NEW_VIEW / 2, SURE + 0.01):
        gallery.learn(step * unit[0])
    assert len(gallery.views) == 1
    gallery.learn(0.3 * unit[0])
    assert len(gallery.views) == 2 and np.isclose(gallery.distance(0.5 * unit[0]), 0.2)
    for k in range(1, 40):
        gallery.learn(0.3 * unit[k])
    assert len(gallery.views) == MOST_VIEWS
