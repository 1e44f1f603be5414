"""Films in and out: real files made by PyAV, compared by PyAV."""

import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="films need PyAV: pip install 'scsnet[video]'")

from scsnet.films.formats import choose_codec  # noqa: E402
from scsnet.films.parts import ShotDealer  # noqa: E402
from scsnet.films.read import FilmReader, Frame  # noqa: E402
from scsnet.films.write import FilmWriter, to_planes  # noqa: E402

UNEVEN = [0, 40, 90, 100, 180, 240, 250, 300, 400, 460]  # milliseconds
MILLISECOND = Fraction(1, 1000)
KEPT = "--strength 0 --keep-luminance"


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def gray_pattern(n, width=64, height=48):
    """(H, W, 3) uint8, moving two pixels a frame."""
    y, x = np.mgrid[:height, :width]
    gray = 128 + 60 * np.sin((x + 2 * n) / 7) + 50 * np.cos(y / 5 + x / 40)
    return np.repeat(gray.round().astype(np.uint8)[..., None], 3, 2)


def make_film(
    path, frames, codec="libx264", pixels="yuv420p", *, stored="rgb24", times=None, sound=False, turn=0, aspect=None,
    options=None, **colors,
):  # fmt: skip
    """Write a film of arrays in the format `stored`, or so many patterns, at `times` in milliseconds or 25 a second."""
    if isinstance(frames, int):
        frames = [gray_pattern(n) for n in range(frames)]
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(f), stored) for f in frames]
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, 25, options=options or {})
        stream.height, stream.width = frames[0].height, frames[0].width
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = MILLISECOND
        stream.codec_context.gop_size = 4
        stream.metadata["language"] = "deu"
        if turn:
            stream.set_display_rotation(turn)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        film.metadata["title"] = "Großmutter 1941"
        if sound:
            chapter = {"id": 1, "start": 0, "end": 200, "time_base": MILLISECOND}
            film.set_chapters([chapter | {"metadata": {"title": "one"}}])
            audio = film.add_stream("aac", 48000)
            audio.metadata["language"] = "fra"
        for name, value in colors.items():
            for item in (stream.codec_context, *frames):
                setattr(item, name, value)
        for n, frame in enumerate(frames):
            frame.pts, frame.time_base = times[n] if times else 40 * n, MILLISECOND
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
        if sound:
            for n in range(30):
                tone = np.sin(np.arange(1024) * 0.05 * (n + 1)).astype(np.float32)[None] * 0.3
                samples = av.AudioFrame.from_ndarray(np.repeat(tone, 2, 0), "fltp", "stereo")
                samples.rate, samples.pts = 48000, 1024 * n
                film.mux(audio.encode(samples))
            film.mux(audio.encode(None))


def read_luma(frame):
    plane = frame.planes[0]
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return np.frombuffer(plane, dtype).reshape(frame.height, -1)[:, : frame.width].astype(int)


def look(path):
    """What a film holds."""
    with av.open(str(path)) as film:
        video = film.streams.video[0]
        context = video.codec_context
        sound = [bytes(p) for p in film.demux() if p.stream.type == "audio" and p.size]
        film.seek(0)
        frames = list(film.decode(video))
        colors = ("color_range", "colorspace", "color_primaries", "color_trc")
        return {
            "codec": context.name,
            "pixels": context.pix_fmt,
            "colour": tuple(int(getattr(context, name)) for name in colors),
            "aspect": video.sample_aspect_ratio or 1,
            "title": film.metadata.get("title"),
            "languages": [s.metadata.get("language") for s in film.streams if s.type != "data"],
            "chapters": [chapter["metadata"] for chapter in film.chapters()],
            "sound": sound,
            "size": (frames[0].width, frames[0].height),
            "times": [round(1000 * frame.time) for frame in frames],
            "lumas": [read_luma(frame) for frame in frames],
        }


def read_rgb(path):
    with FilmReader(Path(path)) as film:
        return [item.rgb.astype(int) for item in film if isinstance(item, Frame)]


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_keeps_sound_times_titles_and_chapters(work, colorize, ending):
    make_film("a.mkv", 10, times=UNEVEN, sound=True)
    _, out, err = colorize(f"a.mkv -o b.{ending}")
    assert err == ""
    assert out.startswith(f"b.{ending}: 64 x 48, 10 frames, ")
    before, after = look("a.mkv"), look(f"b.{ending}")
    for name in ("times", "sound", "title", "languages", "chapters", "size"):
        assert after[name] == before[name], name
    assert len(after["sound"]) > 20
    assert after["codec"] == "h264"
    assert after["colour"] == (1, 1, 1, 1)
    assert names() == ["a.mkv", f"b.{ending}"]


def test_colours_appear_and_luminance_can_stay(work, colorize):
    make_film("a.mkv", 4, codec="ffv1", pixels="yuv444p")
    colorize("a.mkv -o b.mkv --codec ffv1")
    assert np.ptp(read_rgb("b.mkv")[0], axis=2).mean() > 1
    colorize(f"a.mkv -o c.mkv --codec ffv1 {KEPT}")
    kept = read_rgb("c.mkv")
    assert len(kept) == 4
    for n, rgb in enumerate(kept):
        assert abs(rgb - gray_pattern(n)).max() <= 2


def test_odd_sides_become_even_where_they_must(work, colorize):
    make_film("a.mkv", [gray_pattern(n, 33, 21) for n in range(3)], codec="ffv1", pixels="yuv444p")
    notes = colorize("a.mkv -o b.mp4").err
    assert notes == "a.mkv: 33 x 21 becomes 34 x 22: this codec needs even sides\n"
    assert look("b.mp4")["size"] == (34, 22)
    assert colorize("a.mkv -o c.mkv --codec ffv1").err == ""
    assert look("c.mkv")["size"] == (33, 21)
    colorize("a.mkv -o d.mp4 --long-side 100")
    assert look("d.mp4")["size"] == (100, 64)


def test_keeps_ten_bits(work, colorize):
    make_film("a.mkv", 3, codec="ffv1", pixels="yuv444p10le")
    colorize("a.mkv -o b.mp4 --codec h265 --crf 8")
    assert look("b.mp4")["pixels"] == "yuv420p10le"
    colorize(f"a.mkv -o c.mkv --codec ffv1 {KEPT}")
    before, after = look("a.mkv"), look("c.mkv")
    assert after["pixels"] == "yuv444p10le"
    assert np.abs(after["lumas"][1] - before["lumas"][1]).max() <= 2


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_turned_films_come_out_upright(work, colorize, turn):
    marked = np.full((48, 64, 3), 40, np.uint8)
    marked[:24, :32] = 220  # top left as stored
    make_film("a.mp4", 3 * [marked], turn=turn, aspect=Fraction(4, 3))
    colorize("a.mp4 -o b.mp4 --strength 0")
    after = look("b.mp4")
    upright = after["lumas"][0]
    assert after["size"] == ((64, 48) if turn == 180 else (48, 64))
    assert after["aspect"] == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which turns films by itself, is not installed")
    line = "ffmpeg -v error -i a.mp4 -frames:v 1 -f rawvideo -pix_fmt gray -"
    raw = subprocess.run(line.split(" "), check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(upright.shape)
    assert np.corrcoef(expected.ravel(), upright.ravel())[0, 1] > 0.98


def test_a_damaged_frame_is_told_and_shows_the_one_before(work, colorize):
    make_film("a.mkv", 12, codec="ffv1", pixels="yuv444p")
    with av.open("a.mkv") as film:
        packet = [p for p in film.demux(video=0) if p.size][6]
        data, stored = bytes(packet), Path("a.mkv").read_bytes()
    assert stored.count(data) == 1
    broken = bytes((7 * k + 13) % 251 for k in range(len(data) - 16))
    Path("a.mkv").write_bytes(stored.replace(data, data[:8] + broken + data[-8:]))
    notes = colorize("a.mkv -o b.mkv --codec ffv1 --quiet").err
    assert notes == "a.mkv: the frame at 0:00:00.240 is damaged and shows the one before\n"
    after = look("b.mkv")
    assert after["times"] == [40 * n for n in range(12)]
    assert np.array_equal(after["lumas"][6], after["lumas"][5])
    assert not np.array_equal(after["lumas"][7], after["lumas"][5])


def test_takes_a_part_of_a_film(work, colorize, refuse):
    make_film("a.mp4", 20, sound=True)
    colorize(f"a.mp4 -o b.mp4 --from 0:00:00.2 --to 0.52 {KEPT}")
    after, before = look("b.mp4"), look("a.mp4")
    assert after["times"] == [40 * n for n in range(8)]
    assert 10 <= len(after["sound"]) < len(before["sound"])
    assert abs(after["lumas"][0] - before["lumas"][5]).mean() < 4
    assert abs(after["lumas"][0] - before["lumas"][4]).mean() > 8
    refuse("colorize a.mp4 -o c.mp4 --from 7", "nothing is at 7 s")


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
def test_reads_colour_bars_by_their_matrix_and_range(tmp_path, matrix, full):
    planes = encode_bars(matrix, full).round().clip(0, 255).astype(np.uint8)
    yuv = np.repeat(np.repeat(planes[:, None], 16, 1), 8, 2)  # (3, 16, 64)
    colors = {"colorspace": matrix, "color_range": 2 if full else 1}
    make_film(tmp_path / "a.mkv", [yuv], "ffv1", "yuv444p", stored="yuv444p", **colors)
    (rgb,) = read_rgb(tmp_path / "a.mkv")
    assert np.abs(rgb[8, 4::8] - BARS).max() <= 2


@pytest.mark.parametrize(("codec", "black", "white"), [("libx264", 16, 235), ("ffv1", 0, 255)])
def test_reads_gray_films_by_the_range_of_their_codec(tmp_path, codec, black, white):
    values = np.full((16, 32), black, np.uint8)
    values[:, 16:] = white
    options = {"crf": "1"} if codec == "libx264" else {}
    make_film(tmp_path / "a.mkv", [values], codec, "gray", stored="gray", options=options)
    (rgb,) = read_rgb(tmp_path / "a.mkv")
    assert rgb[8, 4].max() <= 2
    assert rgb[8, 28].min() >= 253


@pytest.mark.parametrize(
    ("options", "colors", "note"),
    [
        ({}, {"color_trc": 16}, "is HDR, which is read as if it were SDR: convert it before"),
        ({}, {"color_trc": 18}, "is HDR, which is read as if it were SDR: convert it before"),
        ({"x264-params": "tff=1"}, {}, "is interlaced: deinterlace it before for better details"),
    ],
)
def test_tells_of_hdr_and_interlaced_films(tmp_path, options, colors, note):
    make_film(tmp_path / "a.mkv", 1, options=options, **colors)
    with FilmReader(tmp_path / "a.mkv") as film:
        assert film.notes == [note]


def test_writes_colour_bars_as_bt709(tmp_path):
    source, target = tmp_path / "a.mkv", tmp_path / "b.mkv"
    bars = np.repeat(np.repeat(BARS[None], 16, 0), 8, 1).astype(np.uint8)
    make_film(source, [bars], "ffv1", "yuv444p")
    codec = choose_codec(target, "ffv1", None)
    with (
        FilmReader(source) as film,
        target.open("wb") as file,
        FilmWriter(file, target, film, (16, 64), codec) as writer,
    ):
        for item in film:
            writer.write(to_planes(bars, codec.choose_pixels(film.deep)), item)
    with av.open(str(target)) as film:
        (frame,) = film.decode(video=0)
    planes = frame.to_ndarray()[:, 8, 4::8]
    assert np.abs(planes - encode_bars(1, False)).max() <= 1
    assert look(target)["colour"] == (1, 1, 1, 1)  # limited range, BT.709 thrice


def test_mistakes_are_one_line_and_write_nothing(work, refuse, monkeypatch):
    make_film("a.mp4", 3)
    Path("b.mp4").write_bytes(b"no film")
    for arguments, reason in {
        "a.mp4 --zoom 0,0,8,8": "--zoom", "a.mp4 --hint 1,1=#ffffff": "--hint", "a.png --crf 20": "--crf",
        "a.mp4 --from 2 --to 1": "--to", "a.mp4 --to x": "not a number", "a.mp4 -o c.avi": "c.avi",
        "a.mp4 -o c.mp4 --codec ffv1": "c.mp4", "a.mp4 -o c.mkv --codec ffv1 --crf 3": "crf",
        "a.mp4 -o a.mp4 --force": "would overwrite", "b.mp4 -o c.mp4": "b.mp4: cannot be read as a film",
        "b.mp4 missing.mp4": "missing.mp4: No such file",
    }.items():  # fmt: skip
        refuse(f"colorize {arguments}", reason)
    monkeypatch.setitem(sys.modules, "av", None)
    refuse("colorize a.mp4", "scsnet[video]")


def test_several_films_go_into_a_folder(work, run):
    make_film("a.mp4", 2)
    make_film("b.avi", 2, codec="mpeg4")
    Path("c.mp4").write_bytes(b"no film")
    code, out, err = run("colorize *.mp4 b.avi -o out")
    assert code == 1
    assert out.count("2 frames") == 2
    assert "c.mp4" in err
    assert names("out") == ["a.mp4", "b.mkv"]


def test_ctrl_c_leaves_nothing_behind(work, run, monkeypatch):
    make_film("a.mp4", 9)
    write, seen = FilmWriter.write, []

    def interrupt(*arguments):
        seen.append(write(*arguments))
        if len(seen) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(FilmWriter, "write", interrupt)
    assert run("colorize a.mp4 -o b.mp4").code == 130
    assert names() == ["a.mp4"]


def shots_of_patterns(*lengths):
    """Shots that differ in light and dark, each of so many frames."""
    return [
        (gray_pattern(n) // 3 + 170 * (k % 2)).astype(np.uint8)
        for k, length in enumerate(lengths)
        for n in range(length)
    ]


def finish_two(processes):
    """The exit codes, what was printed, and the errors of both."""
    printed = [process.communicate(timeout=600) for process in processes]
    codes = [process.returncode for process in processes]
    return codes, *zip(*printed, strict=True)


def test_deals_each_shot_to_the_process_with_the_fewest_frames():
    dealer = ShotDealer(2)
    owners = [dealer.deal(n == 0) for length in (12, 9, 5, 14) for n in range(length)]
    assert owners == 12 * [0] + 9 * [1] + 5 * [1] + 14 * [0]
    assert (dealer.frames, dealer.shots) == ([26, 14], 4)


@pytest.mark.parametrize("line", ["b.mp4 --codec h265", "b.mkv --codec ffv1 --from 0.12 --to 1.4"])
def test_processes_share_the_shots_of_a_film(work, colorize, start_two, line):
    """The result is that of one process, frame by frame, sound and all."""
    frames = shots_of_patterns(12, 9, 5, 14)
    make_film("a.mkv", frames, codec="ffv1", pixels="yuv444p", sound=True)
    colorize(f"a.mkv -o one-{line}")
    codes, out, err = finish_two(start_two(f"a.mkv -o {line}"))
    assert codes == [0, 0], err
    assert out[0].startswith(f"{line.split()[0]}: 64 x 48, ")
    assert out[1] == err[1] == ""
    name = line.split()[0]
    one, two = look(f"one-{name}"), look(name)
    assert np.array_equal(one.pop("lumas"), two.pop("lumas"))
    assert one == two
    assert np.array_equal(read_rgb(f"one-{name}"), read_rgb(name))  # colours, too
    assert names() == sorted(["a.mkv", name, f"one-{name}"])


def test_a_film_of_one_shot_is_coloured_by_one_process(work, start_two):
    make_film("a.mkv", 6)
    codes, _, err = finish_two(start_two("a.mkv -o b.mkv"))
    assert codes == [0, 0], err
    assert err[0] == "a.mkv: has one shot, which one process colours\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_processes_end_and_clean_up_when_one_of_them_fails(work, start_two):
    make_film("a.mkv", shots_of_patterns(*[6] * 20))
    processes = start_two("a.mkv -o b.mkv")
    while not list(Path().glob(".scsnet-*")):
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes, _, err = finish_two(processes)
    assert codes == [2, 130]
    assert err == ("scsnet: error: process 1 was interrupted\n", "scsnet: interrupted\n")
    assert names() == ["a.mkv"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(work, refuse):
    import resource

    random = np.random.default_rng(0)
    make_film("a.mkv", list(random.integers(0, 255, (20, 48, 64, 3), np.uint8)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        refuse("colorize a.mkv -o b.mkv --codec ffv1", "b.mkv: cannot be written: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
