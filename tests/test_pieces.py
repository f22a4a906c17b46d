"""Videos written in pieces, and unfinished work on disk."""
from fractions import Fraction

import av
import numpy as np
import pytest

from compositing.video_writer import VideoWriter
from facemodel.errors import InputError
from fitting.checkpoint import Journal, load, save
from fitting.video_reader import VideoReader
from tests import clips


def write(source, out, size, kept=(), keep=False):
    """Copies a clip in pieces of `size` frames, the first of them as they were kept; the pieces."""
    pieces = []
    with VideoReader(source) as reader, VideoWriter(out, reader, keep_pieces=keep) as writer:
        for piece in kept:
            writer.add_piece(piece)
        for frame in reader:
            if frame.index < writer.frames_written:
                continue
            writer.write(frame)
            if writer.frames_written % size == 0:
                pieces.append(writer.end_piece())
    return pieces


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("uneven", [False, True])
def test_pieces_follow_each_other(tmp_path, suffix, uneven):
    """Times, sound and pictures are those of a video in one piece; kept pieces give the same bytes again."""
    source = clips.write_clip(tmp_path / "s.mp4", [clips.pattern(t, 96, 64) for t in range(29)], clips.NTSC, sound=True)
    if uneven:
        source = uneven_times(tmp_path / "u.mp4", source)
    out = tmp_path / f"out{suffix}"
    pieces = write(source, out, 8, keep=True)
    assert [len(p.pts) for p in pieces] == [8, 8, 8] and all(p.key[0] and p.key.sum() == 1 for p in pieces)
    write(source, tmp_path / f"whole{suffix}", 1000)
    assert clips.video_times(out) == clips.video_times(tmp_path / f"whole{suffix}")
    assert clips.sound_packets(out) == clips.sound_packets(tmp_path / f"whole{suffix}")
    for a, b in zip(clips.decoded(out), clips.decoded(source), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    with av.open(str(out)) as container:
        stamps = [(p.dts, p.pts) for p in container.demux(video=0) if p.dts is not None]
    assert all(a[0] < b[0] for a, b in zip(stamps, stamps[1:])) and all(dts <= pts for dts, pts in stamps)
    for number in range(4):
        again = tmp_path / f"again{number}{suffix}"
        write(source, again, 8, pieces[:number])
        assert again.read_bytes() == out.read_bytes()


def uneven_times(path, source):
    """The clip with frames at uneven times."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "video":
                packet.pts = packet.dts = packet.pts + (packet.pts // 1001) ** 2 * 60
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    return path


def test_plain_data_comes_back_exactly(tmp_path):
    tree = {"a": [None, True, 3, 0.1, float("inf"), "ü", [np.float64(1 / 3), np.arange(6).reshape(2, 3)]], "b": {}}
    save(tmp_path / "t.npz", tree)
    back = load(tmp_path / "t.npz")
    assert back["a"][:6] == tree["a"][:6] and back["b"] == {}
    assert back["a"][6][0] == 1 / 3 and back["a"][6][0].dtype == np.float64
    assert (back["a"][6][1] == tree["a"][6][1]).all()
    with pytest.raises(TypeError, match="Fraction"):
        save(tmp_path / "no.npz", [Fraction(1)])
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]
    data = (tmp_path / "t.npz").read_bytes()
    for damage in (data[:-30], data.replace(bytes(np.int64([3])), bytes(np.int64([4])), 1), b""):
        (tmp_path / "t.npz").write_bytes(damage)
        assert load(tmp_path / "t.npz") is None
    assert load(tmp_path / "none.npz") is None


def test_a_journal_goes_on_from_any_moment(tmp_path, monkeypatch):
    """Whichever of its steps on the disk was the last one, pieces and state fit each other."""
    journal = Journal(tmp_path / "j")
    assert journal.count == 0 and journal.state is None and not journal.folder.exists()
    for step in range(12):
        steps = iter(range(step))
        for module, name in (("facemodel.files.os", "replace"), ("pathlib.Path", "unlink")):
            monkeypatch.setattr(f"{module}.{name}", stopping(steps, module, name))
        journal = Journal(tmp_path / f"j{step}")
        with pytest.raises(KeyboardInterrupt):
            for k in range(10):
                journal.append({"k": k}, {"sum": sum(range(k + 1))})
        monkeypatch.undo()
        again = Journal(tmp_path / f"j{step}")
        done = [p["k"] for p in again.pieces()]
        assert done == list(range(again.count)) and len(done) >= (step - 1) // 3
        assert again.state == ({"sum": sum(done)} if done else None)
    (again.folder / "piece_000000.npz").write_bytes(b"")
    with pytest.raises(InputError, match="--no-resume"):
        list(again.pieces())
    (again.folder / f"state_{again.count:06d}.npz").unlink()
    assert Journal(again.folder).count == 0


def stopping(steps, module, name):
    """The function, until `steps` is used up."""
    import importlib
    owner = importlib.import_module("os") if module.endswith("os") else importlib.import_module("pathlib").Path
    function = getattr(owner, name)

    def run(*args, **options):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return function(*args, **options)
    return run
