"""Films in and out: real files made by PyAV, compared by PyAV. A tiny untrained network colours them."""

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="films need PyAV: pip install 'scsnet[video]'")

from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc  # noqa: E402

from scsnet import checkpoint  # noqa: E402
from scsnet.__main__ import main  # noqa: E402
from scsnet.films.formats import choose_codec  # noqa: E402
from scsnet.films.read import FilmReader, Frame  # noqa: E402
from scsnet.films.write import FilmWriter  # noqa: E402

UNEVEN = [0, 40, 90, 100, 180, 240, 250, 300, 400, 460]  # milliseconds


@pytest.fixture
def work(tmp_path, monkeypatch, tiny_net):
    """A folder to work in, with weights outside of it."""
    folder = tmp_path / "work"
    folder.mkdir()
    checkpoint.save(tmp_path / "tiny.safetensors", tiny_net)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("scsnet.cli.args._WEIGHTS", str(tmp_path / "tiny.safetensors"))
    return folder


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def one_line(err):
    return err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def picture(n, width=64, height=48):
    """A gray pattern that moves two pixels a frame."""
    y, x = np.mgrid[:height, :width]
    gray = 128 + 60 * np.sin((x + 2 * n) / 7) + 50 * np.cos(y / 5 + x / 40)
    return np.repeat(gray.round().astype(np.uint8)[..., None], 3, 2)


def make_film(
    path,
    pictures,
    *,
    codec="libx264",
    pixels="yuv420p",
    times=None,
    sound=False,
    turn=0,
    aspect=None,
):
    """Write a film of gray pictures (H, W, 3), at `times` in milliseconds or 25 a second."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, 25, options={"x265-params": "log-level=none"})
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 4
        stream.metadata["language"] = "deu"
        if turn:
            stream.set_display_rotation(turn)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        film.metadata["title"] = "Großmutter 1941"
        if sound:
            film.set_chapters(
                [
                    {
                        "id": 1,
                        "start": 0,
                        "end": 200,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": "one"},
                    }
                ]
            )
            audio = film.add_stream("aac", 48000)
            audio.metadata["language"] = "fra"
        for n, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb)
            frame.pts, frame.time_base = times[n] if times else 40 * n, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
        for n in range(30 if sound else 0):
            tone = np.sin(np.arange(1024) * 0.05 * (n + 1)).astype(np.float32)[None] * 0.3
            samples = av.AudioFrame.from_ndarray(np.repeat(tone, 2, 0), "fltp", "stereo")
            samples.rate, samples.pts = 48000, 1024 * n
            film.mux(audio.encode(samples))
        if sound:
            film.mux(audio.encode(None))


def read_luma(frame):
    plane = frame.planes[0]
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    lines = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype().itemsize)
    return lines[: frame.height, : frame.width]


def look(path):
    """What a film holds."""
    with av.open(str(path)) as film:
        video = film.streams.video[0]
        facts = {
            "codec": video.codec_context.name,
            "pixels": video.codec_context.pix_fmt,
            "colour": tuple(
                int(getattr(video.codec_context, name))
                for name in ("color_range", "colorspace", "color_primaries", "color_trc")
            ),
            "aspect": video.sample_aspect_ratio or 1,
            "title": film.metadata.get("title"),
            "languages": [s.metadata.get("language") for s in film.streams if s.type != "data"],
            "chapters": [chapter["metadata"] for chapter in film.chapters()],
        }
        sound = [bytes(p) for p in film.demux() if p.stream.type == "audio" and p.size]
        film.seek(0)
        frames = list(film.decode(video))
    facts["sound"] = sound
    facts["size"] = (frames[0].width, frames[0].height)
    facts["times"] = [round(1000 * frame.time) for frame in frames]
    facts["lumas"] = [read_luma(frame) for frame in frames]
    return facts


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_sound_times_and_words_stay(work, capsys, ending):
    make_film("a.mkv", [picture(n) for n in range(10)], times=UNEVEN, sound=True)
    code, out, err = run(capsys, "colorize", "a.mkv", "-o", f"b.{ending}")
    assert (code, err) == (0, "")
    assert out.startswith(f"b.{ending}: 64 x 48, 10 frames, ")
    before, after = look("a.mkv"), look(f"b.{ending}")
    for name in ("times", "sound", "title", "languages", "chapters", "size"):
        assert after[name] == before[name], name
    assert len(after["sound"]) > 20
    assert after["codec"] == "h264"
    assert after["colour"] == (1, 1, 1, 1)  # limited range, BT.709 thrice
    assert names() == ["a.mkv", f"b.{ending}"]


def test_colours_are_there_and_luminance_can_stay(work, capsys):
    make_film("a.mkv", [picture(n) for n in range(4)], codec="ffv1", pixels="yuv444p")
    run(capsys, "colorize", "a.mkv", "-o", "b.mkv", "--codec", "ffv1")
    run(
        capsys,
        "colorize",
        "a.mkv",
        "-o",
        "c.mkv",
        "--codec",
        "ffv1",
        "--strength",
        "0",
        "--keep-luminance",
    )
    with FilmReader(Path("b.mkv")) as film:
        colored = [item.rgb.astype(int) for item in film]
    assert np.ptp(colored[0], axis=2).mean() > 1
    with FilmReader(Path("c.mkv")) as film:
        kept = [item.rgb.astype(int) for item in film]
    assert len(kept) == 4
    for n, rgb in enumerate(kept):
        assert abs(rgb - picture(n)).max() <= 2


def test_odd_sides_become_even_where_they_must(work, capsys):
    make_film("a.mkv", [picture(n, 33, 21) for n in range(3)], codec="ffv1", pixels="yuv444p")
    code, _, err = run(capsys, "colorize", "a.mkv", "-o", "b.mp4")
    assert code == 0
    assert err == "a.mkv: 33 x 21 becomes 34 x 22: this codec needs even sides\n"
    assert look("b.mp4")["size"] == (34, 22)
    assert run(capsys, "colorize", "a.mkv", "-o", "c.mkv", "--codec", "ffv1")[2] == ""
    assert look("c.mkv")["size"] == (33, 21)
    run(capsys, "colorize", "a.mkv", "-o", "d.mp4", "--long-side", "100")
    assert look("d.mp4")["size"] == (100, 64)


def test_ten_bits_stay_ten(work, capsys):
    make_film("a.mkv", [picture(n) for n in range(3)], codec="ffv1", pixels="yuv444p10le")
    assert run(capsys, "colorize", "a.mkv", "-o", "b.mp4", "--codec", "h265", "--crf", "8")[0] == 0
    assert look("b.mp4")["pixels"] == "yuv420p10le"
    options = ("--codec", "ffv1", "--strength", "0", "--keep-luminance")
    assert run(capsys, "colorize", "a.mkv", "-o", "c.mkv", *options)[0] == 0
    before, after = look("a.mkv"), look("c.mkv")
    assert after["pixels"] == "yuv444p10le"
    difference = np.abs(after["lumas"][1].astype(int) - before["lumas"][1])
    assert difference.max() <= 2


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_turned_films_come_out_upright(work, capsys, turn):
    pictures = [np.full((48, 64, 3), 40, np.uint8) for _ in range(3)]
    for rgb in pictures:
        rgb[:24, :32] = 220  # top left as stored
    make_film("a.mp4", pictures, turn=turn, aspect=Fraction(4, 3))
    run(capsys, "colorize", "a.mp4", "-o", "b.mp4", "--strength", "0")
    after = look("b.mp4")
    upright = after["lumas"][0]
    assert after["size"] == ((64, 48) if turn == 180 else (48, 64))
    assert after["aspect"] == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which turns films by itself, is not installed")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        "a.mp4",
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "gray",
        "-",
    ]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(upright.shape)
    assert np.corrcoef(expected.ravel(), upright.ravel())[0, 1] > 0.98


def test_a_damaged_frame_is_named_and_the_one_before_shown(work, capsys):
    make_film("a.mkv", [picture(n) for n in range(12)], codec="ffv1", pixels="yuv444p")
    with av.open("a.mkv") as film:
        packet = [p for p in film.demux(video=0) if p.size][6]
        data, stored = bytes(packet), Path("a.mkv").read_bytes()
    assert stored.count(data) == 1
    broken = bytes((7 * k + 13) % 251 for k in range(len(data) - 16))
    Path("a.mkv").write_bytes(stored.replace(data, data[:8] + broken + data[-8:]))
    code, _, err = run(capsys, "colorize", "a.mkv", "-o", "b.mkv", "--codec", "ffv1", "--quiet")
    assert code == 0
    assert err == "a.mkv: the frame at 0:00:00.240 is damaged and shows the one before\n"
    after = look("b.mkv")
    assert after["times"] == [40 * n for n in range(12)]
    assert np.array_equal(after["lumas"][6], after["lumas"][5])
    assert not np.array_equal(after["lumas"][7], after["lumas"][5])


def test_a_part_of_a_film(work, capsys):
    make_film("a.mp4", [picture(n) for n in range(20)], sound=True)
    kept = ("--strength", "0", "--keep-luminance")
    assert (
        run(
            capsys, "colorize", "a.mp4", "-o", "b.mp4", "--from", "0:00:00.2", "--to", "0.52", *kept
        )[0]
        == 0
    )
    after, before = look("b.mp4"), look("a.mp4")
    assert after["times"] == [40 * n for n in range(8)]
    assert 10 <= len(after["sound"]) < len(before["sound"])
    assert abs(after["lumas"][0].astype(int) - before["lumas"][5]).mean() < 4
    assert abs(after["lumas"][0].astype(int) - before["lumas"][4]).mean() > 8
    code, _, err = run(capsys, "colorize", "a.mp4", "-o", "c.mp4", "--from", "7")
    assert code == 2
    assert one_line(err)


# numbers of H.273 -> Kr, Kb
COEFFICIENTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
BARS = np.array(
    [[235, 235, 235], [235, 235, 16], [16, 235, 235], [16, 235, 16], [235, 16, 235], [235, 16, 16], [16, 16, 235], [90, 90, 90]]
)  # fmt: skip


def encode_bars(matrix, full):
    """Y'CbCr of the bars by the formulas of BT.601, BT.709 and BT.2020, 8 bits."""
    red, blue = COEFFICIENTS[matrix]
    r, g, b = (BARS / 255).T
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if full:
        return np.stack([255 * y, 255 * cb + 128, 255 * cr + 128])
    return np.stack([219 * y + 16, 224 * cb + 128, 224 * cr + 128])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_colour_bars_are_read_by_their_matrix_and_range(tmp_path, matrix, full):
    planes = encode_bars(matrix, full).round().clip(0, 255).astype(np.uint8)
    yuv = np.repeat(np.repeat(planes[:, None], 16, 1), 8, 2)  # (3, 16, 64)
    path = tmp_path / "bars.mkv"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 16, "yuv444p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = ColorRange.JPEG if full else ColorRange.MPEG
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(yuv), format="yuv444p")
        frame.pts, frame.colorspace, frame.color_range = 0, matrix, 2 if full else 1
        film.mux([*stream.encode(frame), *stream.encode(None)])
    with FilmReader(path) as film:
        (item,) = [item for item in film if isinstance(item, Frame)]
    seen = item.rgb[8, 4::8].astype(int)
    assert np.abs(seen - BARS).max() <= 2


def test_colour_bars_are_written_as_bt709(tmp_path):
    source, target = tmp_path / "a.mkv", tmp_path / "b.mkv"
    bars = np.ascontiguousarray(np.repeat(np.repeat(BARS[None], 16, 0), 8, 1).astype(np.uint8))
    make_film(source, [bars], codec="ffv1", pixels="yuv444p")
    codec = choose_codec(target, "ffv1", None)
    with (
        FilmReader(source) as film,
        target.open("wb") as file,
        FilmWriter(file, target, film, (16, 64), codec) as writer,
    ):
        for item in film:
            writer.write(bars, item)
    with av.open(str(target)) as film:
        (frame,) = film.decode(video=0)
    planes = frame.to_ndarray()[:, 8, 4::8]
    assert np.abs(planes - encode_bars(1, False)).max() <= 1
    assert (frame.colorspace, frame.color_range) == (1, ColorRange.MPEG)
    assert (frame.color_primaries, frame.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)


@pytest.mark.parametrize(("codec", "black", "white"), [("libx264", 16, 235), ("ffv1", 0, 255)])
def test_gray_films_have_the_range_of_their_codec(tmp_path, codec, black, white):
    path = tmp_path / "gray.mkv"
    values = np.full((16, 32), black, np.uint8)
    values[:, 16:] = white
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, 25, options={"crf": "1"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
        frame = av.VideoFrame.from_ndarray(values, format="gray")
        frame.pts = 0
        film.mux([*stream.encode(frame), *stream.encode(None)])
    with FilmReader(path) as film:
        (item,) = list(film)
    assert item.rgb[8, 4].max() <= 2
    assert item.rgb[8, 28].min() >= 253


def test_what_is_refused_in_one_line(work, capsys, monkeypatch):
    make_film("a.mp4", [picture(n) for n in range(3)])
    Path("b.mp4").write_bytes(b"no film")
    for arguments in (
        ["a.mp4", "--zoom", "0,0,8,8"],
        ["a.mp4", "--hint", "1,1=#ffffff"],
        ["a.mp4", "--from", "2", "--to", "1"],
        ["a.mp4", "--to", "x"],
        ["a.mp4", "-o", "c.avi"],
        ["a.mp4", "-o", "c.mp4", "--codec", "ffv1"],
        ["a.mp4", "-o", "c.mkv", "--codec", "ffv1", "--crf", "3"],
        ["a.mp4", "-o", "a.mp4", "--force"],
        ["b.mp4", "-o", "c.mp4"],
        ["b.mp4", "missing.mp4"],
        ["a.png", "--crf", "20"],
    ):
        code, out, err = run(capsys, "colorize", *arguments)
        assert (code, out) == (2, ""), arguments
        assert one_line(err), arguments
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = run(capsys, "colorize", "a.mp4")
    assert (code, one_line(err)) == (2, True)
    assert "scsnet[video]" in err
    assert names() == ["a.mp4", "b.mp4"]


def test_several_films_into_a_folder(work, capsys):
    make_film("a.mp4", [picture(n) for n in range(2)])
    make_film("b.avi", [picture(n) for n in range(2)], codec="mpeg4")
    Path("c.mp4").write_bytes(b"no film")
    code, out, err = run(capsys, "colorize", "*.mp4", "b.avi", "-o", "out")
    assert code == 1
    assert out.count("2 frames") == 2
    assert "c.mp4" in err
    assert names("out") == ["a.mp4", "b.mkv"]


def test_nothing_is_left_of_an_interrupted_film(work, capsys, monkeypatch):
    make_film("a.mp4", [picture(n) for n in range(9)])
    write, seen = FilmWriter.write, []

    def interrupted(self, *arguments):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(FilmWriter, "write", interrupted)
    assert run(capsys, "colorize", "a.mp4", "-o", "b.mp4")[0] == 130
    assert names() == ["a.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_one_line(work, capsys):
    import resource

    make_film(
        "a.mkv",
        [np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8) for n in range(20)],
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code, _, err = run(capsys, "colorize", "a.mkv", "-o", "b.mkv", "--codec", "ffv1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert one_line(err)
    assert "b.mkv: cannot be written: " in err
    assert names() == ["a.mkv"]
