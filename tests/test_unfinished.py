"""A track in the making on disk."""
import numpy as np

from fitting.follow import Following
from fitting.unfinished import UnfinishedTrack


def test_landmarks_are_read_once_and_kept_once(tmp_path):
    following = Following(np.zeros((4, 68, 2), np.float32), np.ones(4, bool), np.zeros(4, bool), 1)

    def read(journal):
        journal.append({"landmarks": following.landmarks}, {"at": 4})
        return following, "it is damaged"

    kept = UnfinishedTrack(tmp_path / "t")
    assert kept.following(read) == (following, "it is damaged")
    assert [p.name for p in (tmp_path / "t").rglob("*")] == ["landmarks.npz"]       # the journal is gone
    again, damage = UnfinishedTrack(tmp_path / "t").following(None)
    np.testing.assert_array_equal(again.landmarks, following.landmarks)
    assert damage == "it is damaged" and again.face_count == 1
    assert UnfinishedTrack(None).following(lambda journal: (following, journal)) == (following, None)
