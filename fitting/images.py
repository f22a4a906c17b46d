"""Still images at the file border: upright 8-bit RGB, whatever the file holds, or one clear line about why not."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np

from facemodel.errors import InputError
from fitting.video_reader import check_file, media_kind

MIN_SIDE = 32
"""Shortest side in pixels below which no face can be found."""

MATTE = 128
"""Grey level, of 255, behind transparent pixels."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings, in lower case, of the pictures that are looked for in a folder."""

_ORIENTATION_TAG = 0x0112
_TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">"}
_REMEDY = "give a JPEG, PNG or WebP file"


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a photo.

    The EXIF orientation is applied, transparency is laid over mid grey, grey becomes RGB, 16-bit samples are rounded
    to 8 bits, and floating-point samples are clipped to [0, 1]. Embedded colour profiles are ignored: samples are
    taken as sRGB.

    Parameters
    ----------
    path : path of any format that OpenCV decodes (JPEG, PNG, WebP, TIFF, BMP, ...).

    Returns
    -------
    (H, W, 3) uint8 RGB, upright, C-contiguous.

    Raises
    ------
    InputError
        The file is missing, a folder, empty, not an image, a video, cut off, or smaller than `MIN_SIDE`.
    """
    path = check_file(path, "photo")
    data = path.read_bytes()
    try:
        decoded, kinds, blobs = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded, kinds, blobs = None, (), ()
    if decoded is None or decoded.size == 0:
        raise InputError(_why_undecodable(path, data))
    if _is_cut_off(data):
        raise InputError(f"{path} is cut off before its end; copy or download the file again")
    rgb = _to_rgb8(decoded)
    exif = next((bytes(blob) for kind, blob in zip(kinds, blobs) if kind == cv2.IMAGE_METADATA_EXIF), b"")
    rgb = _apply_orientation(rgb, _exif_orientation(exif))
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{path} is only {width} x {height} pixels; give a photo of at least {MIN_SIDE} pixels a side, "
            "better 256 or more across the face"
        )
    return np.ascontiguousarray(rgb)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Turn samples in [0, 1] of any shape into 8 bits, clipped and rounded to nearest; uint8 is returned as it is.

    Raises ``TypeError`` for other integer types.
    """
    if image.dtype == np.uint8:
        return image
    if np.issubdtype(image.dtype, np.floating):
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    raise TypeError(f"expected uint8 or floating-point samples, got {image.dtype}")


def _to_rgb8(decoded: np.ndarray) -> np.ndarray:
    """Bring what OpenCV decoded, (H, W[, 1..4]) BGR(A) of any depth, to (H, W, 3) uint8 RGB."""
    if decoded.dtype == np.uint8:
        samples = decoded
    elif np.issubdtype(decoded.dtype, np.floating):
        samples = to_uint8(np.nan_to_num(decoded))
    else:
        limits = np.iinfo(decoded.dtype)
        samples = to_uint8((decoded.astype(np.float64) - limits.min) / (limits.max - limits.min))
    if samples.ndim == 2:
        samples = samples[..., None]
    channels = samples.shape[2]
    colour, alpha = (samples[..., :-1], samples[..., -1:]) if channels in (2, 4) else (samples, None)
    colour = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour[..., ::-1]
    if alpha is None or alpha.min() == 255:
        return colour
    weight = alpha.astype(np.float32) / 255
    return (colour * weight + MATTE * (1 - weight) + 0.5).astype(np.uint8)


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block; 1 where there is none or it is malformed."""
    starts = [at for at in (exif.find(head) for head in _TIFF_HEADS) if at >= 0]
    if not starts:
        return 1
    tiff = exif[min(starts) :]
    order = _TIFF_HEADS[tiff[:4]]
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _apply_orientation(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels upright. `orientation` is EXIF 2.3 tag 274: where the stored row 0 and column 0 belong."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG, PNG or WebP file lacks its end; OpenCV fills the missing part with grey and says nothing."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < _jpeg_scan_start(data)
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:] and b"IEND\xaeB`\x82" not in data
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < struct.unpack_from("<I", data, 4)[0] + 8
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Return the offset of the first scan, past the header segments (which may hold a complete thumbnail)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        # fill bytes and the markers without a length
        at += 1 if marker == 0xFF else 2 if marker == 1 or 0xD0 <= marker <= 0xD8 else (
            2 + struct.unpack_from(">H", data, at + 2)[0]
        )
    return len(data)


def _why_undecodable(path: Path, data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"):
        return f"{path} is a HEIC photo, which cannot be read here; save it as JPEG and give that"
    kind = media_kind(path)
    if kind == "video":
        return (
            f"{path} is a video; give a photo, for example a frame of it: "
            f"ffmpeg -ss 1 -i {path.name} -frames:v 1 {path.stem}.png"
        )
    if kind == "audio":
        return f"{path} is a sound file, not a photo; {_REMEDY}"
    if data.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"II*", b"MM\0*", b"GIF8")):
        return f"{path} is damaged or cut off and cannot be decoded; copy the file again or {_REMEDY}"
    return f"{path} is not an image that can be read; {_REMEDY}"
