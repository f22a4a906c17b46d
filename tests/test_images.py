"""Photos: upright RGB from every kind of file, one clear line for everything else."""

import struct

import av
import cv2
import numpy as np
import pytest

from facemodel.errors import InputError
from fitting.images import read_image, to_uint8


def picture(height=48, width=64):
    """Return a smooth (H, W, 3) uint8 RGB picture whose four corners differ."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 97 + 60], -1).astype(np.uint8)


def exif(orientation, order="<"):
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def with_exif(data, block):
    """Insert an APP1 segment after the start marker of a JPEG."""
    body = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def encode(suffix, rgb, *parameters):
    return cv2.imencode(suffix, rgb[..., ::-1], list(parameters))[1].tobytes()


def save(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_formats(tmp_path, suffix):
    rgb = read_image(save(tmp_path / f"a{suffix}", encode(suffix, picture())))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_agrees_with_opencv(tmp_path, orientation, order):
    path = save(tmp_path / "a.jpg", with_exif(encode(".jpg", picture()), exif(orientation, order)))
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_malformed_exif_is_ignored(tmp_path):
    plain = read_image(save(tmp_path / "a.jpg", encode(".jpg", picture())))
    for block in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", exif(77)):
        path = save(tmp_path / "b.jpg", with_exif(encode(".jpg", picture()), block))
        np.testing.assert_array_equal(read_image(path), plain)


def test_alpha_lies_over_grey(tmp_path):
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    rgba = np.dstack([picture()[..., ::-1], alpha])
    cv2.imwrite(str(tmp_path / "a.png"), rgba)
    rgb = read_image(tmp_path / "a.png")
    assert (rgb[:, :20] == 128).all()
    np.testing.assert_allclose(rgb[:, 20:40], picture()[:, 20:40] * (128 / 255) + 128 * (127 / 255), atol=0.51)
    np.testing.assert_array_equal(rgb[:, 40:], picture()[:, 40:])


def test_grey_sixteen_bit_and_float(tmp_path):
    grey = picture()[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    deep = picture()[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), picture())
    cv2.imwrite(str(tmp_path / "float.tiff"), picture()[..., ::-1].astype(np.float32) / 255)
    np.testing.assert_array_equal(read_image(tmp_path / "float.tiff"), picture())


def test_conversions_round_and_clip():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every / np.float32(255)), every)
    assert to_uint8(every) is every
    np.testing.assert_array_equal(to_uint8(np.array([-1, 0.4 / 255, 0.6 / 255, 2], np.float32)), [0, 0, 1, 255])
    with pytest.raises(TypeError):
        to_uint8(every.astype(np.int64))


def error_line(path):
    """Return the message of the `InputError` for `path`, checked to be one line that names the file."""
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert len(message) < 250
    return message


def test_errors_name_the_file_and_the_remedy(tmp_path):
    assert "does not exist" in error_line(tmp_path / "none.jpg")
    assert "folder" in error_line(tmp_path)
    assert "empty" in error_line(save(tmp_path / "empty.jpg", b""))
    assert "not an image" in error_line(save(tmp_path / "text.jpg", b"hello " * 50))
    assert "16 x 12" in error_line(save(tmp_path / "tiny.png", encode(".png", picture(12, 16))))
    assert "HEIC" in error_line(save(tmp_path / "a.heic", b"\0\0\0\x18ftypheic" + bytes(100)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.95])
def test_cut_off_image(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    data = encode(suffix, noise)
    message = error_line(save(tmp_path / f"cut{suffix}", data[: int(len(data) * kept)]))
    assert "cut off" in message


def test_jpeg_cut_off_behind_a_whole_thumbnail(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    data = with_exif(encode(".jpg", noise), exif(1) + encode(".jpg", picture()))
    assert read_image(save(tmp_path / "whole.jpg", data)).shape == (200, 200, 3)
    assert read_image(save(tmp_path / "trailer.jpg", data + b"maker's notes")).shape == (200, 200, 3)
    assert "cut off" in error_line(save(tmp_path / "cut.jpg", data[:-2000]))


def test_video_in_place_of_a_photo(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), "rgb24")))
        container.mux(stream.encode(None))
    message = error_line(path)
    assert "is a video" in message
    assert "ffmpeg" in message
