"""A track in the making on disk: landmarks, the person, then frames, with the state in which each of them goes on."""
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fitting import checkpoint
from fitting.follow import Following

RAW = ("status", "expression", "rotation", "translation", "light", "photometric_error", "landmark_error", "confidence")
SMOOTHED = ("expression", "rotation", "translation")


class UnfinishedTrack:
    """What fitting.track.track_clip keeps of its work in a folder, all for the same arguments; with None, nothing."""

    def __init__(self, folder):
        self._folder = None if folder is None else Path(folder)
        self._frames = self._journal("frames")

    def following(self, read):
        """(Following, remark on damage): what was kept, or else read(journal) gives."""
        known = self._load("landmarks.npz")
        if known is not None:
            return Following(**known["following"]), known["damage"]
        journal = self._journal("landmarks")
        following, damage = read(journal)
        self._save("landmarks.npz", {"following": asdict(following), "damage": damage})
        if journal is not None:
            journal.clear()                     # all of it is in landmarks.npz now
        return following, damage

    def person(self, fit):
        """The fitting.track.Person that was kept, or else fit() gives."""
        known = self._load("person.npz")
        if known is None:
            person = fit()
            self._save("person.npz", asdict(person))
            return person
        from fitting.parameters import Shared
        from fitting.track import Person  # which imports this module

        return Person(Shared(**known.pop("shared")), **known)

    def restore(self, raw, smooth, tracker, smoother):
        """Fills two Tracks with the frames that were kept, and brings tracker and smoother there; their number."""
        end = 0
        for piece in self._frames.pieces() if self._frames else ():
            start, end = end, piece["end"]
            for name in RAW:
                getattr(raw, name)[start:end] = piece["raw"][name]
            rows = slice(piece["smooth_from"], end)
            for name in SMOOTHED:
                getattr(smooth, name)[rows] = piece["smooth"][name]
        if end:
            tracker.restore(self._frames.state["tracker"])
            smoother.restore(self._frames.state["smoother"])
        return end

    def append(self, end, raw, smooth, tracker, smoother):
        """Keeps the frames up to `end`; called every checkpoint.EVERY of them."""
        if self._frames is None:
            return
        new = slice(end - checkpoint.EVERY, end)
        held = self._frames.state["smoother"] if self._frames.state else {"frames": [], "done": 0}
        # the smoother has changed no frame before those that waited in it when the last piece was kept
        first = min([new.start, *(frame[0] for frame in held["frames"][held["done"]:])])
        self._frames.append(
            {"end": end, "raw": {name: getattr(raw, name)[new] for name in RAW}, "smooth_from": first,
             "smooth": {name: getattr(smooth, name)[first:end] for name in SMOOTHED}},
            {"tracker": tracker.state(), "smoother": smoother.state()})

    def _journal(self, name):
        return None if self._folder is None else checkpoint.Journal(self._folder / name)

    def _load(self, name):
        return None if self._folder is None else checkpoint.load(self._folder / name)

    def _save(self, name, tree):
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(self._folder / name, tree)
