"""Whether a face is still the same person's: descriptors (fitting.detection) compared with those seen so far."""
from __future__ import annotations

import numpy as np

STRANGER = 0.6        # distance of two descriptors from which on dlib's authors take them for two people's
SURE, NEW_VIEW = 0.45, 0.2       # a view this close to the known ones is learned, unless it is closer than that
MOST_VIEWS = 16


class Gallery:
    """What one person has looked like so far.

    views : (n, 128) float64, descriptors, n <= MOST_VIEWS; () before the first
    """

    def __init__(self, views=()):
        self.views = np.asarray(views, np.float64).reshape(-1, 128)

    def distance(self, descriptor):
        """Distance of a descriptor (128,) to the closest view; 0 when there is none yet: anybody will do."""
        if not len(self.views):
            return 0.0
        return float(np.linalg.norm(self.views - descriptor, axis=1).min())

    def learn(self, descriptor):
        """Adds a descriptor (128,) that is surely this person's and shows something new."""
        new = not len(self.views) or NEW_VIEW < self.distance(descriptor) < SURE
        if new and len(self.views) < MOST_VIEWS:
            self.views = np.concatenate([self.views, [descriptor]])
