"""A smile's folds are taken out of a photo that smiles, and nothing else is."""
import cv2
import numpy as np
import pytest

from compositing.smile import DARK, smile_of, without_folds
from facemodel.atlas import build_atlas
from fitting.lift import Texture
from fitting.texture import skin_weight, weight_texture
from tests.synthetic import LARGE, drawn


@pytest.fixture(scope="module")
def chart(model):
    return build_atlas(model, LARGE)


@pytest.fixture(scope="module")
def folded(model, chart):
    """Skin with pores and, from the nose's wings past the mouth's corners, folds: (Texture, the folds (S, S))."""
    place = lambda *marks: model.uv[model.landmarks[list(marks)]] * [LARGE, -LARGE] + [0, LARGE]
    line = np.zeros((LARGE, LARGE), np.float32)
    for wing, corner, outwards in ((31, 48, -1), (35, 54, 1)):
        (x, y), (u, v) = place(wing)[0] + [14 * outwards, 0], place(corner)[0] + [20 * outwards, 0]
        cv2.line(line, (round(x), round(y)), (round(u), round(v)), 1.0, 5)
    line = cv2.GaussianBlur(line, (0, 0), 2.0) * (skin_weight(model, chart) > 0.9)
    pores = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, line.shape).astype(np.float32), (0, 0), 0.7)
    face = drawn(model)
    rgb = face.rgb * np.exp(0.03 * pores / pores.std() - 0.4 * line)[..., None]
    return Texture(rgb, face.validity), line


def depth(texture, line):
    """How much darker the folds are than the skin some texels beside them."""
    near = (cv2.dilate(line, np.ones((25, 25))) > 0.5) & (line < 0.01)
    log = np.log(texture.rgb.mean(axis=2))
    return log[near].mean() - log[line > 0.8].mean()


def test_folds_get_shallower_and_pores_stay(model, chart, folded):
    texture, line = folded
    assert depth(texture, line) > 0.3
    out = without_folds(model, texture, chart, 1.0)
    assert depth(out, line) < (1 - 0.4 * DARK) * depth(texture, line)
    half = depth(without_folds(model, texture, chart, 0.5), line)
    assert depth(out, line) < half < depth(texture, line)
    fine = lambda t: (log := np.log(t.rgb.mean(axis=2))) - cv2.GaussianBlur(log, (0, 0), 1.0)
    cheek = (skin_weight(model, chart) > 0.9) & (line < 0.01) & (cv2.dilate(line, np.ones((61, 61))) > 0.5)
    assert np.corrcoef(fine(out)[cheek], fine(texture)[cheek])[0, 1] > 0.99
    assert abs(fine(out)[cheek].std() / fine(texture)[cheek].std() - 1) < 0.1


def test_what_lies_above_and_lips_beards_and_faces_that_do_not_smile_stay(model, chart, folded):
    texture, line = folded
    assert without_folds(model, texture, chart, 0.0) is texture
    out = without_folds(model, texture, chart, 1.0)
    eyes = model.mean[model.landmarks[[36, 45]], 1].mean()
    above = weight_texture(model, np.float32(model.mean[:, 1] < eyes), chart) > 0.99
    for same in (above, skin_weight(model, chart) == 0):
        np.testing.assert_array_equal(out.rgb[same], texture.rgb[same])
    beard = np.float32(line > 0.5)
    kept = without_folds(model, texture, chart, 1.0, beard)
    np.testing.assert_array_equal(kept.rgb[beard > 0], texture.rgb[beard > 0])


def test_how_much_a_face_smiles(model):
    expression = np.zeros(model.expression_count)
    assert smile_of(model, expression) == 0
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        expression[list(model.expression_names).index(name)] = 0.3
    assert 0.4 < smile_of(model, expression) < 0.6
    assert smile_of(model, 2 * expression) == 1
