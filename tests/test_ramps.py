"""Ramps: values at and beyond their ends, in both directions."""
import numpy as np

from compositing.ramps import ramp, smoothstep


def test_ramps_rise_and_fall():
    x = np.array([0.0, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_allclose(ramp(x, 1, 2), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(ramp(x, 2, 1), 1 - ramp(x, 1, 2))
    np.testing.assert_allclose(smoothstep(x, 1, 2), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(np.array([1.25]), 1, 2), 0.15625)          # 3/16 - 2/64
    step = 1e-4
    assert smoothstep(1 + step, 1, 2) / step < 1e-3 < ramp(1 + step, 1, 2) / step     # no corner at its foot
