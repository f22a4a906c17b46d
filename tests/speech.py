"""Speech of known timing from espeak-ng: the sound, and the moment at which each phoneme begins.

espeak-ng (GPL-3.0-or-later) is called through its C interface, speak_lib.h, from the library and the data that the
wheel espeakng-loader carries, or from the Debian package espeak-ng. It serves the tests only.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import difflib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RETRIEVAL, SYNCHRONOUS, PHONEME_EVENTS, RATE_PARAMETER, UTF8 = 1, 2, 1, 1, 1
DO_NOT_EXIT = 0x8000
END_OF_LIST, PHONEME = 0, 7                     # espeak_EVENT_TYPE

# of the Harvard Sentences, of which the paper's actors recited twenty; not those that the settings were chosen on
SENTENCES = ("These days a chicken leg is a rare dish. Rice is often served in round bowls. "
             "The juice of lemons makes fine punch. Four hours of steady work faced us.")


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("id", _Id)]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Speech:
    """samples : (N,) float32 in [-1, 1]; rate : Hz; phonemes : (P,) str, pauses begin with "_"; starts_s : (P,)."""

    samples: np.ndarray
    rate: int
    phonemes: tuple
    starts_s: np.ndarray


@lru_cache
def _library():
    """(library, path of its data or None for its own); raises OSError where there is no espeak-ng."""
    if importlib.util.find_spec("espeakng_loader"):
        import espeakng_loader
        return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path().encode()
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise OSError("espeak-ng is missing: pip install espeakng-loader, or apt-get install espeak-ng")
    return ctypes.CDLL(name), None


@lru_cache
def _rate():
    """Starts the library once per process; its samples per second."""
    library, data = _library()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | DO_NOT_EXIT)
    if rate <= 0:
        raise OSError("espeak-ng does not start: its data are missing")
    return rate


@lru_cache
def why_missing():
    """Why there is no speech here, or None."""
    try:
        _rate()
    except (OSError, AttributeError) as error:
        return str(error)


@lru_cache
def speak(words_per_minute, voice="en-us", text=SENTENCES):
    """The text as `voice` says it ("en-us+f3": a woman's variant) at a speed of 80 to 450 words per minute."""
    rate, (library, _), blocks, events = _rate(), _library(), [], []

    def collect(wave, count, event):
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while event[index].type != END_OF_LIST:
            if event[index].type == PHONEME:
                events.append((event[index].id.string.decode("utf-8", "replace"), event[index].sample / rate))
            index += 1
        return 0

    callback, data = _CALLBACK(collect), text.encode()
    library.espeak_SetSynthCallback(callback)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, voice
    library.espeak_SetParameter(RATE_PARAMETER, int(words_per_minute), 0)
    assert library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, UTF8, None, None) == 0
    library.espeak_Synchronize()
    library.espeak_SetSynthCallback(_CALLBACK())
    names, starts = zip(*events)
    return Speech(np.concatenate(blocks).astype(np.float32) / 32768, rate, names, np.array(starts))


def same_phonemes(one, two):
    """Where the same phonemes begin in both: (M, 2) seconds. Phonemes that one of them drops or changes are left out,
    and so are pauses."""
    matcher = difflib.SequenceMatcher(None, one.phonemes, two.phonemes, autojunk=False)
    pairs = [(one.starts_s[a + k], two.starts_s[b + k]) for a, b, size in matcher.get_matching_blocks()
             for k in range(size) if not one.phonemes[a + k].startswith("_")]
    return np.array(pairs)
