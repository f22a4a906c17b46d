"""Vertices of the 68 iBUG landmarks in public models, and where each list comes from. All indices count from 0."""
from __future__ import annotations

# github.com/anilbas/BFMLandmarks, Landmarks68_BFM.anl (which counts from 1), for the 53,490 vertices of
# 01_MorphableModel.mat; A. Bas et al., "Fitting a 3D Morphable Model to Edges", 2016, doi:10.1007/978-3-319-54427-4_28.
# Checked against the MPEG-4 points of github.com/patrikhuber/eos, share/ibug_to_bfm.txt: see tests/test_readers.py.
BFM_2009 = dict(enumerate((
    22142, 22812, 22839, 23249, 44123, 45883, 47084, 47667, 48187, 48707, 49298, 50497, 52456, 32021, 32385, 32358,
    32978, 38885, 39635, 40029, 40237, 40432, 41171, 41367, 41577, 42010, 42645, 8290, 8304, 8313, 8319, 6782, 7686,
    8330, 8976, 9878, 1831, 3759, 5049, 6086, 4545, 3515, 10730, 11757, 12918, 14858, 13190, 12156, 5522, 6154, 7441,
    8344, 9505, 10798, 11198, 10178, 9276, 8373, 7470, 6565, 5908, 7321, 8353, 9385, 10940, 9140, 8366, 7193)))

# MPEG-4 feature points on the same mesh (eos, share/ibug_to_bfm.txt), an independent second list of 16 of them
BFM_2009_MPEG4 = {17: 38792, 19: 40087, 21: 40514, 22: 41091, 24: 41511, 26: 42825, 30: 8319, 33: 8334, 36: 2088,
                  39: 5959, 42: 10603, 45: 14472, 48: 5006, 51: 8344, 54: 11714, 57: 8374}

# github.com/patrikhuber/eos, share/ibug_to_bfm2017-1_bfm_nomouth.txt, for the 53,149 vertices of
# model2017-1_bfm_nomouth.h5; the landmarks that it leaves out are transferred from the embedded model.
BFM_2017_NOMOUTH = {
    8: 47846, 30: 8156, 36: 2602, 39: 5830, 42: 10390, 45: 13481, 48: 5522, 49: 6026, 50: 7355, 51: 8181, 52: 9007,
    53: 10329, 54: 10857, 55: 9730, 56: 8670, 57: 8199, 58: 7726, 59: 6898, 60: 6291, 61: 7364, 62: 8190, 63: 9016,
    64: 10088, 65: 8663, 66: 8191, 67: 7719}
BFM_2017_NOMOUTH_VERTICES = 53149

# names of the points in /metadata/landmarks/json of the Basel models of 2017 and 2019 that are iBUG landmarks too
BASEL_NAMES = {
    "center.chin.tip": 8, "center.nose.tip": 30, "center.nose.attachement_to_philtrum": 33,
    "right.eye.corner_outer": 36, "right.eye.corner_inner": 39, "left.eye.corner_inner": 42,
    "left.eye.corner_outer": 45, "right.lips.corner": 48, "center.lips.upper.outer": 51, "left.lips.corner": 54,
    "center.lips.lower.outer": 57, "center.lips.upper.inner": 62, "center.lips.lower.inner": 66}
