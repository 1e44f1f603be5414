"""The command line on real files, in process mostly; a tiny untrained network stands in for the weights."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from captions import CAPTIONS, read_deep_png
from PIL import ExifTags, Image

from scsnet import checkpoint, pipeline
from scsnet.__main__ import main
from scsnet.cli import colorize as cli_colorize
from scsnet.cli import session as cli_session
from scsnet.cli.paths import plan, result_name
from scsnet.pictures import files as pictures

BASE = ExifTags.Base


@pytest.fixture
def work(tmp_path, monkeypatch, tiny_net):
    """A folder to work in, with weights outside of it."""
    folder = tmp_path / "work"
    folder.mkdir()
    checkpoint.save(tmp_path / "tiny.safetensors", tiny_net, card={"steps": 7})
    monkeypatch.chdir(folder)
    monkeypatch.setattr("scsnet.cli.args._WEIGHTS", str(tmp_path / "tiny.safetensors"))
    return folder


def gray(path, width=12, height=8, **options):
    ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    Image.fromarray(ramp).save(path, **options)


def photo(path, width=16, height=12):
    Image.effect_noise((width, height), 90).convert("RGB").save(path)


def names(folder="."):
    return sorted(entry.name for entry in os.scandir(folder))


def size(path):
    with Image.open(path) as image:
        return image.size


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def one_line(err):
    return err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err


# colorize: what comes out


def test_default_is_four_times_beside_the_input(work, capsys):
    gray("a.jpg")
    code, out, err = run(capsys, "colorize", "a.jpg")
    assert (code, err) == (0, "")
    assert out == "a-scsnet.jpg: 48 x 32\n"
    assert size("a-scsnet.jpg") == (48, 32)
    with Image.open("a-scsnet.jpg") as image:
        assert image.mode == "RGB"
        assert image.info["icc_profile"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--scale", "2.7"], (32, 22)),
        (["--scale", "0.5"], (6, 4)),
        (["--scale", "0.01"], (1, 1)),
        (["--size", "30x20"], (30, 20)),
        (["--size", "7X5"], (7, 5)),
        (["--long-side", "50"], (50, 33)),
    ],
)
def test_sizes(work, capsys, options, expected):
    gray("a.png")
    assert run(capsys, "colorize", "a.png", "-o", "b.png", *options)[0] == 0
    assert size("b.png") == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (5, 5)])
def test_tiny_pictures(work, capsys, shape):
    gray("a.png", *shape)
    assert run(capsys, "colorize", "a.png", "--reference", "a.png")[0] == 0
    assert size("a-scsnet.png") == (4 * shape[0], 4 * shape[1])


def test_same_as_the_library(work, capsys, tiny_net):
    photo("a.png")
    photo("r.png", 20, 14)
    assert (
        run(
            capsys,
            "colorize",
            "a.png",
            "-o",
            "b.png",
            "--scale",
            "2.5",
            "--reference",
            "r.png",
            "--dtype",
            "float32",
            "--strength",
            "1.5",
        )[0]
        == 0
    )
    planes = [
        torch.from_numpy(pictures.read_picture(n).rgb).permute(2, 0, 1)[None] / 255
        for n in ("a.png", "r.png")
    ]
    features = pipeline.encode_picture(tiny_net, planes[0], [planes[1]])
    expected = pipeline.render(tiny_net, features, (30, 40), strength=1.5, dtype=torch.uint8)
    found = pictures.read_picture("b.png").rgb
    assert np.abs(found.astype(int) - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_zoom_is_a_part_of_the_whole(work, capsys):
    photo("a.png", 24, 16)
    assert run(capsys, "colorize", "a.png", "-o", "whole.png", "--scale", "3")[0] == 0
    assert (
        run(capsys, "colorize", "a.png", "-o", "part.png", "--scale", "3", "--zoom", "4,6,10,5")[0]
        == 0
    )
    whole, part = pictures.read_picture("whole.png").rgb, pictures.read_picture("part.png").rgb
    assert part.shape[:2] == (15, 30)
    assert np.abs(part.astype(int) - whole[18:33, 12:42]).max() <= 1
    assert (
        run(capsys, "colorize", "a.png", "-o", "s.png", "--size", "101x7", "--zoom", "23,15,1,1")[0]
        == 0
    )
    assert size("s.png") == (101, 7)
    assert (
        run(capsys, "colorize", "a.png", "-o", "l.png", "--long-side", "64", "--zoom", "0,0,8,16")[
            0
        ]
        == 0
    )
    assert size("l.png") == (32, 64)


def test_keep_luminance_and_strength(work, capsys):
    gray("a.png", 32, 24)
    arguments = [
        "colorize",
        "a.png",
        "--scale",
        "1",
        "--keep-luminance",
        "--dtype",
        "float32",
        "--strength",
        "0",
    ]
    assert run(capsys, *arguments)[0] == 0
    with Image.open("a.png") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pictures.read_picture("a-scsnet.png").rgb - expected).max() <= 1


def test_masks_hints_and_margins(work, capsys):
    photo("a.png", 40, 32)
    photo("r.png", 40, 32)
    mask = Image.new("L", (40, 32))
    mask.paste(255, (0, 0, 20, 10))
    mask.save("mask.png")
    results = {}
    for name, options in {
        "free": ["--reference", "r.png"],
        "masked": ["--reference", "r.png", "--reference-mask", "mask.png"],
        "red": ["--hint", "20,16=#c02020"],
        "blue": ["--hint", "20,16=#2020c0,3"],
        "both": ["--hint", "20,16=#2020c0", "--reference", "r.png", "--reference-mask", "mask.png"],
    }.items():
        code, _, err = run(
            capsys, "colorize", "a.png", "--scale", "1", "-o", f"{name}.png", *options
        )
        assert (code, err) == (0, "")
        results[name] = np.asarray(Image.open(f"{name}.png")).tobytes()
    assert len(set(results.values())) == 5
    framed = Image.new("RGB", (52, 44), "white")
    framed.paste(Image.open("a.png"), (6, 6))
    framed.save("framed.png")
    spread = {}
    for name, options in {"gray": [], "coloured": ["--color-margins"]}.items():
        run(capsys, "colorize", "framed.png", "--scale", "1", "-o", f"{name}.png", *options)
        pixels = np.asarray(Image.open(f"{name}.png")).astype(int)
        spread[name] = np.ptp(pixels, axis=2)
    assert spread["gray"][:6].max() <= 2
    assert spread["gray"][6:-6, 6:-6].mean() > 3
    assert spread["coloured"][:6].mean() > 2


def test_exif_dpi_alpha_and_orientation_travel(work, capsys):
    exif = Image.Exif()
    exif[BASE.Artist], exif[BASE.Orientation] = "Ann", 6
    alpha = Image.linear_gradient("L").resize((12, 8))
    image = Image.merge("LA", [Image.linear_gradient("L").resize((12, 8)), alpha])
    image.save("a.png", exif=exif, dpi=(100, 200))
    assert run(capsys, "colorize", "a.png", "--size", "24x24")[0] == 0
    picture = pictures.read_picture("a-scsnet.png")
    assert (picture.width, picture.height) == (24, 24)
    assert picture.tags[BASE.Artist] == "Ann"
    assert picture.dpi == pytest.approx((600, 200), abs=0.1)  # upright it was 8 x 12 at 200 x 100
    turned = alpha.transpose(Image.Transpose.ROTATE_270).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.abs(picture.alpha.astype(int) - np.asarray(turned)).max() <= 1


def test_depth_of_the_result(work, capsys):
    """16 bits where asked, or where a deep scan keeps its luminance; a loss that nobody asked for is said."""
    scan = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(30, 40)
    Image.fromarray(scan).save("scan.png")
    gray("a.png", 40, 30)

    def depth(name, *options):
        code, _, err = run(capsys, "colorize", name, "--scale", "1", "--force", *options)
        assert code == 0
        target = options[options.index("-o") + 1] if "-o" in options else "scan-scsnet.png"
        data = (work / target).read_bytes()
        return data[24] if target.endswith("png") else 8, err

    lost = "has more than 8 bits of gray, the result has 8; "
    keep = ["--keep-luminance", "--strength", "0"]
    assert depth("scan.png", *keep) == (16, "")
    pixels = read_deep_png(work / "scan-scsnet.png").astype(int)
    assert np.abs(pixels - scan[..., None]).max() <= 40  # through L*, float32
    assert len(np.unique(pixels[..., 1])) > 1000
    assert depth("scan.png", *keep, "--bits", "8") == (8, "")
    assert depth("scan.png") == (8, f"scan.png: {lost}--bits 16 keeps more\n")
    assert depth("scan.png", "--bits", "16") == (16, "")
    assert depth("scan.png", *keep, "-o", "b.jpg") == (8, f"scan.png: {lost}PNG and TIFF hold 16\n")
    assert depth("a.png", *keep, "-o", "b.png") == (8, "")
    assert depth("a.png", "--bits", "16", "-o", "b.png") == (16, "")


def test_captions_travel(work, capsys):
    """The results of a zoom have no regions; everything else is in test_metadata.py."""
    photo("p.png")
    pixels = np.asarray(Image.open("p.png"))
    pictures.write_picture("a.jpg", pixels, captions=CAPTIONS)
    assert run(capsys, "colorize", "a.jpg")[2] == ""
    captions = pictures.read_picture("a-scsnet.jpg").captions
    assert (captions.iptc, captions.comment) == (CAPTIONS.iptc, CAPTIONS.comment)
    assert b"<exif:PixelXDimension>64<" in captions.xmp
    assert b"Grandma" in captions.xmp
    code, _, err = run(capsys, "colorize", "a.jpg", "--zoom", "2,2,5,5", "-o", "b.webp")
    assert code == 0
    assert "regions" in err
    assert "a WEBP cannot keep its IPTC, its comment" in err
    assert b"Grandma" not in pictures.read_picture("b.webp").captions.xmp


def test_stretching_and_frames_are_said(work, capsys):
    frames = [Image.effect_noise((60, 60), 50), Image.effect_noise((60, 60), 50)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    code, _, err = run(capsys, "colorize", "a.gif", "--size", "90x60")
    assert code == 0
    assert "a.gif: has 2 frames, only the first is used\n" in err
    assert "stretched" in err
    assert names() == ["a-scsnet.png", "a.gif"]  # GIF is not written
    code, out, err = run(capsys, "colorize", "a.gif", "-o", "b.png", "--quiet")
    assert (code, out, err) == (0, "", "")


def test_dtype_and_device(work, capsys):
    gray("a.png")
    assert run(capsys, "colorize", "a.png", "--dtype", "bfloat16", "--device", "cpu")[0] == 0
    if not torch.cuda.is_available():
        code, _, err = run(capsys, "colorize", "a.png", "-o", "b.png", "--device", "cuda")
        assert code == 2
        assert one_line(err)
        assert "--device cuda" in err


# colorize: several pictures


def test_folder_run_goes_on_after_a_bad_file(work, capsys):
    (work / "in").mkdir()
    for name in ("1.png", "3.jpg"):
        gray(f"in/{name}")
    gray("in/2.png")
    (work / "in/2.png").write_bytes((work / "in/2.png").read_bytes()[:60])
    (work / "in/notes.txt").write_text("no picture")
    code, _, err = run(capsys, "colorize", "in", "-o", "out", "--scale", "1")
    assert code == 1
    assert names("out") == ["1.png", "3.jpg"]
    assert err.splitlines()[-2].startswith("scsnet: error: in/2.png: ")
    assert err.splitlines()[-1] == "scsnet: 1 of 3 pictures failed"


def test_processes_share_a_folder(work, tmp_path, capsys):
    """As `accelerate launch --num_processes 2 -m scsnet` starts them; the results are those of one process."""
    (work / "in").mkdir()
    for number in range(3):
        photo(work / "in" / f"{number}.png")
    assert run(capsys, "colorize", "in", "-o", "one", "--scale", "1")[0] == 0
    arguments = ["colorize", "in", "-o", "two", "--scale", "1"]
    arguments += ["--weights", str(tmp_path / "tiny.safetensors"), "--device", "cpu"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "scsnet", *arguments],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            | {"PYTHONPATH": str(Path(pipeline.__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [text.count("\n") for text in printed] == [2, 1]
    for number in range(3):
        one, two = (np.asarray(Image.open(f"{folder}/{number}.png")) for folder in ("one", "two"))
        assert np.array_equal(one, two)


def test_second_folder_run_keeps_what_is_there(work, capsys):
    (work / "in").mkdir()
    gray("in/a.png")
    gray("in/b.png")
    assert run(capsys, "colorize", "in", "--scale", "1")[0] == 0
    assert names("in") == ["a-scsnet.png", "a.png", "b-scsnet.png", "b.png"]
    (work / "in/b-scsnet.png").unlink()
    code, _, err = run(capsys, "colorize", "in", "--scale", "2")  # results are no inputs
    assert code == 1
    assert "in/a-scsnet.png: exists already; --force" in err
    assert (size("in/a-scsnet.png"), size("in/b-scsnet.png")) == ((12, 8), (24, 16))
    assert run(capsys, "colorize", "in", "--scale", "2", "--force")[0] == 0
    assert size("in/a-scsnet.png") == (24, 16)


def test_recursive_keeps_the_tree_and_leaves_the_output_out(work, capsys):
    (work / "in/deep/er").mkdir(parents=True)
    (work / "in/.hidden").mkdir()
    for name in ("a.png", "deep/a.png", "deep/er/b.tif", ".hidden/c.png"):
        gray(f"in/{name}")
    for _ in range(2):
        assert (
            run(capsys, "colorize", "in", "-o", "in/out", "--recursive", "--scale", "1", "--force")[
                0
            ]
            == 0
        )
    found = sorted(
        p.relative_to(work / "in/out").as_posix()
        for p in (work / "in/out").rglob("*")
        if p.is_file()
    )
    assert found == ["a.png", "deep/a.png", "deep/er/b.tif"]


def test_folders_left_out_are_said(work, capsys, monkeypatch):
    """One that cannot be read, and links, loops among them."""
    for name in ("d", "d/sub", "d/locked"):
        (work / name).mkdir()
    gray("d/sub/a.png")
    (work / "d" / "loop.png").symlink_to("loop.png")
    (work / "d" / "again").symlink_to(".")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, out, err = run(capsys, "colorize", "d", "--recursive", "-o", "out")
    assert (code, out) == (0, f"{Path('out/sub/a.png')}: 48 x 32\n")
    assert sorted(err.splitlines()) == [
        f"{Path('d/again')}: is left out: a link to a folder",
        f"{Path('d/locked')}: is left out: Permission denied",
    ]


def test_globs_are_expanded_here_too(work, capsys):
    for name in ("a1.png", "a2.png", "b.png", "[x].png"):
        gray(name)
    code, out, _ = run(
        capsys, "colorize", "a?.png", "a1.png", "[x].png", "-o", "out/", "--scale", "1"
    )
    assert code == 0
    assert names("out") == ["[x].png", "a1.png", "a2.png"]
    assert len(out.splitlines()) == 3


def test_missing_folders_are_made(work, capsys):
    gray("a.png")
    assert run(capsys, "colorize", "a.png", "-o", "x/y/b.png", "--scale", "1")[0] == 0
    assert names("x/y") == ["b.png"]
    assert run(capsys, "colorize", "a.png", "-o", "z/b.webp", "--size", "20000x10")[0] == 2
    assert names() == ["a.png", "x"]  # not for nothing


def test_trailing_slash_means_a_folder(work, capsys):
    gray("a.png")
    assert run(capsys, "colorize", "a.png", "-o", "new/sub/", "--scale", "1")[0] == 0
    assert names("new/sub") == ["a.png"]
    assert run(capsys, "colorize", "a.png", "-o", "new", "--scale", "1")[0] == 0  # it is a folder
    assert names("new") == ["a.png", "sub"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPG", "a-scsnet.JPG"),
        ("a.b.gif", "a.b-scsnet.png"),
        ("scan.2019", "scan.2019-scsnet.png"),
        ("x", "x-scsnet.png"),
    ],
)
def test_result_names(work, name, expected):
    assert result_name(work / name, "-scsnet") == expected


# colorize: mistakes. Each is one line, exit code 2, and nothing is written.


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.png"], "none.png: No such file"),
        (["x*.png"], "x*.png: no file"),
        ([""], "empty"),
        (["x" * 300 + ".png"], "File name too long"),
        (["a.png", "-o", "x" * 300 + ".png"], "File name too long"),
        (["a\0b.png"], "No such file"),
        (["empty"], "no picture in this folder"),
        (["text.png"], "text.png: is not a picture"),
        (["zero.png"], "zero.png: the file is empty"),
        (["cut.png"], "cut.png"),
        (["a.png", "-o", "b.xyz"], "ending"),
        (["a.png", "-o", "b"], "ending"),
        (["a.png", "-o", ""], "-o must not be empty"),
        (["a.png", "-o", "text.png/b.png"], "text.png is not a folder"),
        (["a.png", "-o", "text.png"], "exists already; --force"),
        (["a.png", "-o", "text.png/"], "text.png is not a folder"),
        (["a.png", "-o", "a.png", "--force"], "would overwrite the input"),
        (["a.png", "--reference", "c.png", "-o", "c.png", "--force"], "would overwrite the input"),
        (["a.png", "c.png", "-o", "out.png"], "need a folder"),
        (["a.png", "c.png", "-o", "text.png"], "need a folder"),
        (["a.png", "a.gif"], "both"),
        (["a.png", "c.png", "-o", "."], "would overwrite the input"),
        (["a.png", "--reference", "none.png"], "none.png: No such file"),
        (["a.png", "--reference", "empty"], "empty: is a folder"),
        (["a.png", "--reference", "text.png"], "text.png: is not a picture"),
        (["a.png", "--weights", "none.safetensors"], "none.safetensors"),
        (["a.png", "--weights", "text.png"], "text.png"),
        (["a.png", "--weights", "empty"], "empty"),
        (["a.png", "--weights", "hf:nonsense"], "hf:nonsense"),
        (["a.png", "--scale", "0"], "above 0"),
        (["a.png", "--scale", "-2"], "scale"),
        (["a.png", "--scale", "nan"], "not a number"),
        (["a.png", "--scale", "four"], "not a number"),
        (["a.png", "--scale", "1e9"], "too large"),
        (["a.png", "--size", "0x10"], "1 to 100000"),
        (["a.png", "--size", "10"], "1920x1080"),
        (["a.png", "--size", "100000x100000"], "too large"),
        (["a.png", "--size", "200000x10"], "1 to 100000"),
        (["a.png", "--long-side", "2.5"], "whole number"),
        (["a.png", "--scale", "2", "--size", "10x10"], "not allowed with"),
        (["a.png", "--size", "20000x10", "-o", "b.webp"], "16383"),
        (["a.png", "--zoom", "0,0,13,2"], "reaches beyond the picture of 12 x 8"),
        (["a.png", "--zoom", "0,0,0,2"], "1 x 1 or more"),
        (["a.png", "--zoom", "1,2,3"], "x,y,width,height"),
        (["a.png", "--dtype", "float32", "--strength", "-1"], "strength"),
        (["a.png", "--working-size", "2"], "4 to 4096"),
        (["a.png", "--reference-mask", "c.png"], "--reference-mask needs a --reference"),
        (["a.png", "--reference", "c.png", "--reference-mask", "none.png"], "none.png: No such"),
        (["a.png", "--reference", "c.png", "--reference-mask", "black.png"], "marks nothing"),
        (["a.png", "--reference", "c.png", "--reference-mask", "small.png"], "mask of 12 x 8"),
        (["a.png", "--hint", "3,4"], "310,120=#6b4a2b"),
        (["a.png", "--hint", "3,4=brown"], "310,120=#6b4a2b"),
        (["a.png", "--hint", "3,4=#ff0000,0"], "radius must be above 0"),
        (["a.png", "--hint", "12,4=#ff0000"], "outside of the picture of 12 x 8"),
        (
            ["a.png", "c.png", "-o", "out/", "--hint", "3,4=#ff0000"],
            "--hint belongs to one picture",
        ),
        (["a.png", "--bits", "12"], "invalid choice"),
        (["a.png", "--bits", "16", "-o", "b.jpg"], "b.jpg: --bits 16 needs PNG or TIFF"),
        (["a.png", "--device", "tpu"], "invalid choice"),
        (["a.png", "--colour"], "unrecognized"),
        ([], "required"),
    ],
)
def test_mistakes(work, capsys, arguments, reason):
    for name in ("a.png", "c.png", "a.gif", "cut.png"):
        gray(name)
    (work / "cut.png").write_bytes((work / "cut.png").read_bytes()[:60])
    (work / "text.png").write_text("hello")
    (work / "zero.png").touch()
    (work / "empty").mkdir()
    Image.new("L", (12, 8)).save("black.png")
    Image.new("L", (5, 5), 255).save("small.png")
    before = names()
    code, out, err = run(capsys, "colorize", *arguments)
    assert code == 2
    assert out == ""
    assert one_line(err)
    assert reason in err
    assert names() == before


def test_no_command_and_unknown_command(work, capsys):
    for arguments in ([], ["paint"], ["attention", "a.png"]):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert one_line(err)


def test_a_bug_keeps_its_traceback(work, capsys, monkeypatch):
    gray("a.png")
    monkeypatch.setattr(pipeline, "render", lambda *a, **k: [][0])
    with pytest.raises(IndexError):
        main(["colorize", "a.png"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried ..."),  # Windows
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
        ),  # Linux
    ],
)
def test_too_little_memory_is_no_bug(work, capsys, monkeypatch, error):
    tiles = []

    def render(*arguments, tile, **options):
        tiles.append(tile)
        raise error

    gray("a.png")
    monkeypatch.setattr(pipeline, "render", render)
    code, _, err = run(capsys, "colorize", "a.png")
    assert code == 2
    assert one_line(err)
    assert "not enough memory" in err
    assert tiles == [512, 256, 128, 64]


def test_disk_full_is_no_bug(work, capsys, monkeypatch):
    def full(self, file, *arguments, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    gray("a.png")
    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = run(capsys, "colorize", "a.png")
    assert code == 2
    assert err.endswith("a-scsnet.png: cannot be written: No space left on device\n")
    assert names() == ["a.png"]


# Ctrl-C


def test_interrupt_in_the_middle(work, capsys, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    gray("a.png")
    for module, name in ((pipeline, "render"), (cli_session, "encode"), (Image.Image, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            code, _, err = run(capsys, "colorize", "a.png")
        assert code == 130
        assert err == "scsnet: interrupted\n"
        assert names() == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
)
def test_a_signal_leaves_nothing_behind(work, tmp_path, root, number):
    gray("a.png", 600, 500)
    command = [
        sys.executable,
        "-m",
        "scsnet",
        "colorize",
        "a.png",
        "--scale",
        "40",
        "--weights",
        str(tmp_path / "tiny.safetensors"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # started in the background or with nohup the tests have signals ignored, and that is inherited
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, number)],
    ) as process:
        time.sleep(8)  # a slow machine is still importing after 3, where a signal can get lost
        assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "scsnet: interrupted\n"
    assert names() == ["a.png"]


# attention, info, and the program itself


def test_attention(work, capsys):
    photo("a.png", 40, 30)
    photo("r.png", 30, 50)
    code, out, err = run(
        capsys, "attention", "a.png", "r.png", "--point", "3,4", "--point", "39.5,29"
    )
    assert (code, err) == (0, "")
    assert re.fullmatch(r"a-attention\.png\nr\.png: \d+% of the colours\n", out)
    both = size("a-attention.png")
    assert (
        run(
            capsys,
            "attention",
            "a.png",
            "r.png",
            "a.png",
            "--point",
            "3,4",
            "-o",
            "b.jpg",
            "--level",
            "1",
            "--level",
            "4",
        )[0]
        == 0
    )
    assert run(capsys, "attention", "a.png", "r.png", "--what", "valves", "-o", "c.png")[0] == 0
    assert size("c.png")[1] < both[1]
    code, out, _ = run(
        capsys, "attention", "a.png", "r.png", "a.png", "--what", "valves", "-o", "d.png", "--coverage", "e.png",
    )  # fmt: skip
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["d.png", "e.png", "r.png", "a.png"]
    assert size("e.png") == (40, 30)
    percent = sum(int(n) for n in re.findall(r"(\d+)%", out))
    mean = np.array(Image.open("e.png")).mean() / 255
    assert (1 - mean) * 100 == pytest.approx(percent, abs=4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.png", "r.png"], "--point"),
        (["a.png", "r.png", "--point", "40,3"], "outside of the picture of 40 x 30"),
        (["a.png", "r.png", "--point", "3"], "x,y"),
        (["a.png", "r.png", "--point", "3,4", "--level", "3"], "invalid choice"),
        (["a.png", "r.png", "--point", "3,4", "--what", "valves"], "no meaning"),
        (["a.png", "none.png", "--point", "3,4"], "none.png"),
        (["a.png", "r.png", "--point", "3,4", "-o", "r.png", "--force"], "would overwrite"),
        (["a.png", "r.png", "--point", "3,4", "-o", "r.xyz"], "ending"),
        (["a.png", "r.png", "--point", "3,4", "--coverage", "r.png", "--force"], "would overwrite"),
        (["a.png", "r.png", "--point", "3,4", "--coverage", "c.xyz"], "ending"),
        (["a.png", "r.png", "--point", "3,4", "--coverage", "a-attention.png"], "another name"),
    ],
)
def test_attention_mistakes(work, capsys, arguments, reason):
    photo("a.png", 40, 30)
    photo("r.png", 30, 50)
    code, out, err = run(capsys, "attention", *arguments)
    assert (code, out) == (2, "")
    assert one_line(err)
    assert reason in err
    assert names() == ["a.png", "r.png"]


def test_networks_without_attention_say_so(work, capsys, tmp_path):
    from scsnet import SCSNet, SCSNetConfig

    photo("a.png")
    for kind, what, reason in (
        ("none", "both", "no attention"),
        ("basic", "both", "no valves"),
        ("basic", "attention", ""),
    ):
        net = SCSNet(SCSNetConfig(width=8, depth=1, attention=kind, working_size=32))
        checkpoint.save(tmp_path / "other.safetensors", net)
        arguments = [
            "a.png",
            "a.png",
            "--point",
            "1,1",
            "--what",
            what,
            "--weights",
            str(tmp_path / "other.safetensors"),
        ]
        code, _, err = run(capsys, "attention", *arguments)
        assert code == (2 if reason else 0)
        assert reason in err


def test_fixed_head_takes_its_own_scale_only(work, capsys, tmp_path):
    from scsnet import SCSNet, SCSNetConfig

    gray("a.png")
    checkpoint.save(
        tmp_path / "o.safetensors", SCSNet(SCSNetConfig(width=8, depth=1, head="pixel_shuffle"))
    )
    weights = ["--weights", str(tmp_path / "o.safetensors")]
    assert run(capsys, "colorize", "a.png", *weights)[0] == 0
    code, _, err = run(capsys, "colorize", "a.png", "-o", "b.png", "--scale", "3", *weights)
    assert (code, one_line(err)) == (2, True)


def test_info(work, capsys, tmp_path, tiny_net):
    path = str(tmp_path / "tiny.safetensors")
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert "parameters" in out
    assert "steps" in out
    code, out, _ = run(capsys, "info", path, "--json")
    facts = json.loads(out)
    assert facts["config"] == tiny_net.config.to_dict()
    assert facts["parameters"] == sum(p.numel() for p in tiny_net.parameters())
    assert facts["card"] == {"steps": 7}
    assert len(facts["sha256"]) == 64
    code, out, err = run(capsys, "info", "none.safetensors")
    assert (code, out) == (2, "")
    assert one_line(err)


def test_help_and_version(work, capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("scsnet ")
    for command, words in (
        ("colorize", ["--reference", "examples:", "Exit code"]),
        ("attention", ["--point"]),
        ("info", ["--json"]),
    ):
        code, out, _ = run(capsys, command, "--help")
        assert code == 0
        assert all(word in out for word in words)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a POSIX shell")
@pytest.mark.parametrize(
    ("command", "expected", "reason"),
    [
        ("colorize a.png b.png --scale 1 -o out >/dev/full", 0, "stdout cannot be written: No space"),
        ("info >/dev/full", 2, "stdout cannot be written: No space"),
        ("colorize a.png b.png --scale 1 -o out 2>&-", 0, ""),
        ("colorize a.png b.png --scale 1 -o out 2>/dev/full", 0, ""),
        ("colorize none.png 2>&-", 2, ""),
    ],
)  # fmt: skip
def test_streams_that_take_nothing(work, tmp_path, root, command, expected, reason):
    gray("a.png")
    gray("b.png")
    weights = "" if "none" in command else str(tmp_path / "tiny.safetensors")
    verb, *rest = command.split(" ", 1)
    given = f"--weights {weights}" if verb == "colorize" and weights else weights
    line = f"{sys.executable} -m scsnet {verb} {given} {' '.join(rest)}"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True)
    assert done.returncode == expected, done.stderr
    assert reason in done.stderr
    assert done.stderr.count("\n") == bool(reason)
    assert "out" not in command or names("out") == ["a.png", "b.png"]


def test_interrupt_while_importing(work, root):
    """Ctrl-C before torch has been imported is one line, too."""
    code = (
        "import sys, scsnet.__main__ as program\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name in ('argparse', 'torch'): raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "sys.modules.pop('argparse', None)\n"
        "sys.exit(program.main(['info']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "scsnet: interrupted\n")


def test_arguments_are_checked_before_torch_is_imported(work, root):
    program = (
        "import sys, scsnet.__main__ as m\ntry: m.main()\nfinally: print('torch' in sys.modules)"
    )
    for arguments in (["colorize", "none.png"], ["colorize", "x", "--scale", "0"], ["--help"]):
        found = subprocess.run(
            [sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert found.stdout.splitlines()[-1] == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_file_names_that_are_no_text(work, tmp_path, root):
    gray("a.png")
    os.rename(b"a.png", b"\xe9t\xe9.png")  # noqa: PTH104
    command = [
        sys.executable,
        "-m",
        "scsnet",
        "colorize",
        b"\xe9t\xe9.png",
        "--weights",
        tmp_path / "tiny.safetensors",
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUTF8": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout == b"\\udce9t\\udce9-scsnet.png: 48 x 32\n"


def test_plan_prefers_a_file_over_a_pattern(work):
    gray("[a].png")
    tasks, several = plan(["[a].png"], None, recursive=False, references=[], force=False, notes=[])
    assert [task.source.name for task in tasks] == ["[a].png"]
    assert not several


def test_geometry_never_leaves_the_grid():
    """Any zoom at any size: the window lies inside the output grid."""
    import argparse

    random = np.random.default_rng(0)
    for _ in range(300):
        h, w = random.integers(1, 60, 2)
        picture = pictures.Picture(path="x", rgb=np.zeros((h, w, 1), np.uint8), tags={})
        x, y = random.integers(w), random.integers(h)
        zoom = (
            int(x),
            int(y),
            int(random.integers(1, w - x + 1)),
            int(random.integers(1, h - y + 1)),
        )
        size = int(random.integers(1, 200)), int(random.integers(1, 200))
        options = argparse.Namespace(zoom=zoom, size=size, scale=None, long_side=None)
        place = cli_colorize.geometry(picture, options)
        top, left, height, width = place.window
        assert (height, width) == size
        assert 0 <= top <= top + height <= place.full[0]
        assert 0 <= left <= left + width <= place.full[1]
