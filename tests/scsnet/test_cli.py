"""The command line on real files."""

import hashlib
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
from captions import CAPTIONS, read_deep
from PIL import ExifTags, Image, ImageOps

from scsnet import SCSNet, SCSNetConfig, checkpoint, pipeline
from scsnet.pictures import read_picture, write_picture

BASE = ExifTags.Base


def save_photo(path, width=12, height=8):
    Image.effect_noise((width, height), 90).convert("RGB").save(path)


def names(folder="."):
    return sorted(entry.name for entry in os.scandir(folder))


def size(path):
    with Image.open(path) as image:
        return image.size


def pixels(path):
    return read_picture(path).rgb.astype(int)


def command(line, *arguments):
    """The words that start the program in a process of its own."""
    return [sys.executable, "-m", "scsnet", *line.split(), *arguments]


def finish(command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_writes_the_size_asked_for_beside_the_input(work, colorize):
    save_photo("a.jpg")
    for options, expected in {
        "": (48, 32),
        "--scale 2.7": (32, 22),
        "--scale 0.01 --dtype bfloat16 --device cpu": (1, 1),
        "--size 6X4": (6, 4),
        "--long-side 50": (50, 33),
    }.items():
        told = "a-scsnet.jpg: {} x {}\n".format(*expected)
        assert colorize(f"a.jpg --force {options}") == (0, told, "")
        assert size("a-scsnet.jpg") == expected


def test_result_is_that_of_the_library(work, colorize, tiny_net):
    save_photo("a.png")
    save_photo("r.png", 20, 14)
    colorize("a.png -o b.png --scale 2.5 --reference r.png --dtype float32 --strength 1.5")
    photo, reference = (
        torch.from_numpy(read_picture(n).rgb).permute(2, 0, 1)[None] / 255
        for n in ("a.png", "r.png")
    )
    features = pipeline.encode_picture(tiny_net, photo, [reference])
    expected = pipeline.render(tiny_net, features, (20, 30), strength=1.5, dtype=torch.uint8)
    assert np.abs(pixels("b.png") - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_zoom_shows_a_part_of_the_whole(work, colorize):
    save_photo("a.png", 24, 16)
    colorize("a.png -o whole.png --scale 3")
    colorize("a.png -o part.png --scale 3 --zoom 4,6,10,5")
    assert np.abs(pixels("part.png") - pixels("whole.png")[18:33, 12:42]).max() <= 1
    colorize("a.png -o long.png --long-side 64 --zoom 0,0,8,16")
    colorize("a.png -o corner.png --size 101x7 --zoom 23,15,1,1")
    assert (size("long.png"), size("corner.png")) == ((32, 64), (101, 7))


def test_references_masks_and_hints_change_the_colours(work, colorize):
    for name in ("a.png", "r.png"):
        save_photo(name, 40, 32)
    mask = Image.new("L", (40, 32))
    mask.paste(255, (0, 0, 20, 10))
    mask.save("mask.png")
    masked, results = "--reference r.png --reference-mask mask.png", set()
    hints = ["--hint 20,16=#c02020", "--hint 20,16=#2020c0,3", f"--hint 20,16=#2020c0 {masked}"]
    for options in ("--reference r.png", masked, *hints):
        assert colorize(f"a.png --scale 1 --force {options}").err == ""
        results.add(pixels("a-scsnet.png").tobytes())
    assert len(results) == 5


def test_white_margins_stay_white(work, colorize):
    ImageOps.expand(Image.effect_noise((40, 32), 90), 6, 255).save("a.png")
    colorize("a.png --scale 1")
    colorfulness = np.ptp(pixels("a-scsnet.png"), axis=2)
    assert colorfulness[:6].max() <= 2
    assert colorfulness[6:-6, 6:-6].mean() > 3
    colorize("a.png --scale 1 --color-margins --force")
    assert np.ptp(pixels("a-scsnet.png"), axis=2)[:6].mean() > 2


def test_keeps_exif_resolution_alpha_and_orientation(work, colorize):
    exif = Image.Exif()
    exif[BASE.Artist], exif[BASE.Orientation] = "Ann", 6
    alpha = Image.linear_gradient("L").resize((12, 8))
    Image.merge("LA", [alpha, alpha]).save("a.png", exif=exif, dpi=(100, 200))
    colorize("a.png --size 24x24")
    picture = read_picture("a-scsnet.png")
    assert (picture.width, picture.height) == (24, 24)
    assert picture.tags[BASE.Artist] == "Ann"
    assert picture.dpi == pytest.approx((600, 200), abs=0.1)  # upright it was 8 x 12 at 200 x 100
    turned = alpha.transpose(Image.Transpose.ROTATE_270).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.abs(picture.alpha.astype(int) - np.asarray(turned)).max() <= 1


LOST = "has more than 8 bits of gray, the result has 8; "


@pytest.mark.parametrize(
    ("line", "bits", "note"),
    [
        ("scan.png -o b.png --keep-luminance", 16, ""),
        ("scan.png -o b.png --keep-luminance --bits 8", 8, ""),
        ("scan.png -o b.png --bits 16", 16, ""),
        ("scan.png -o b.png", 8, f"scan.png: {LOST}--bits 16 keeps more\n"),
        ("scan.png -o b.jpg", 8, f"scan.png: {LOST}PNG and TIFF hold 16\n"),
        ("gray.png -o b.png --keep-luminance", 8, ""),
        ("gray.png -o b.png --bits 16", 16, ""),
    ],
)
def test_keeps_sixteen_bits_or_tells_their_loss(work, colorize, line, bits, note):
    scan = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(30, 40)
    Image.fromarray(scan).save("scan.png")
    Image.fromarray((scan // 257).astype(np.uint8)).save("gray.png")
    assert colorize(f"{line} --scale 1 --strength 0 --dtype float32").err == note
    if bits == 16:
        found, tolerance = read_deep(work / "b.png").astype(int), 40  # through L*, float32
        assert len(np.unique(found[..., 1])) > 1000 or "gray.png" in line
    else:
        found, tolerance = pixels(line.split()[2]) * 257, 400
    if "--keep-luminance" in line:
        assert np.abs(found - scan[..., None]).max() <= tolerance


def test_keeps_captions_but_no_regions_in_a_zoom(work, colorize):
    write_picture("a.jpg", np.zeros((6, 9, 3), np.uint8), captions=CAPTIONS)
    assert colorize("a.jpg").err == ""
    captions = read_picture("a-scsnet.jpg").captions
    assert (captions.iptc, captions.comment) == (CAPTIONS.iptc, CAPTIONS.comment)
    assert b"<exif:PixelXDimension>36<" in captions.xmp
    assert b"Grandma" in captions.xmp
    notes = colorize("a.jpg --zoom 2,1,5,5 -o b.webp").err
    assert "regions" in notes
    assert "a WEBP cannot keep its IPTC, its comment" in notes
    assert b"Grandma" not in read_picture("b.webp").captions.xmp


def test_tells_what_was_stretched_or_left_out(work, colorize):
    frames = [Image.effect_noise((60, 60), 50) for _ in range(2)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    notes = colorize("a.gif --size 90x60").err
    assert "a.gif: has 2 frames, only the first is used\n" in notes
    assert "stretched" in notes
    assert names() == ["a-scsnet.png", "a.gif"]  # GIF is not written
    assert colorize("a.gif -o b.png --quiet") == (0, "", "")


def test_folder_run_goes_on_after_a_bad_file(work, run):
    Path("in").mkdir()
    for name in ("1.png", "2.png", "3.jpg"):
        save_photo(f"in/{name}")
    Path("in/2.png").write_bytes(Path("in/2.png").read_bytes()[:60])
    Path("in/notes.txt").write_text("no picture")
    code, _, err = run("colorize in -o out --scale 1")
    assert code == 1
    assert names("out") == ["1.png", "3.jpg"]
    assert err.splitlines()[-2].startswith("scsnet: error: in/2.png: ")
    assert err.splitlines()[-1] == "scsnet: 1 of 3 pictures failed"


def test_processes_share_a_folder(work, colorize, start_two):
    """The results are those of one process."""
    Path("in").mkdir()
    for number in range(3):
        save_photo(f"in/{number}.png")
    colorize("in -o one --scale 1")
    processes = start_two("in -o two --scale 1")
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [text.count("\n") for text in printed] == [2, 1]
    for name in names("in"):
        assert np.array_equal(pixels(f"one/{name}"), pixels(f"two/{name}"))


def test_second_run_keeps_results_and_takes_them_for_no_inputs(work, run, colorize):
    Path("in").mkdir()
    save_photo("in/a.png")
    save_photo("in/b.png")
    colorize("in --scale 1")
    Path("in/b-scsnet.png").unlink()
    code, _, err = run("colorize in --scale 2")
    assert code == 1
    assert "in/a-scsnet.png: exists already; --force" in err
    assert (size("in/a-scsnet.png"), size("in/b-scsnet.png")) == ((12, 8), (24, 16))
    colorize("in --scale 2 --force")
    assert names("in") == ["a-scsnet.png", "a.png", "b-scsnet.png", "b.png"]
    assert size("in/a-scsnet.png") == (24, 16)


def test_recursive_run_keeps_the_tree_and_skips_its_own_output(work, colorize, monkeypatch):
    """It tells what it skips: links, which could be loops, and folders that cannot be read."""
    for name in ("a.png", "deep/a.png", "deep/er/b.tif", ".hidden/c.png", "locked/d.png"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        save_photo(f"in/{name}")
    Path("in/again").symlink_to(".")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for _ in range(2):
        err = colorize("in -o in/out --recursive --scale 1 --force").err
        assert sorted(err.splitlines()) == [
            f"{Path('in/again')}: is left out: a link to a folder",
            f"{Path('in/locked')}: is left out: Permission denied",
        ]
    found = [p.relative_to("in/out").as_posix() for p in Path("in/out").rglob("*.*")]
    assert sorted(found) == ["a.png", "deep/a.png", "deep/er/b.tif"]


def test_expands_patterns_but_prefers_files_of_that_name(work, colorize):
    for name in ("a1.png", "a2.png", "x.png", "[x].png"):
        save_photo(name)
    out = colorize("a?.png a1.png [x].png -o out/ --scale 1").out
    assert names("out") == ["[x].png", "a1.png", "a2.png"]
    assert out.count("\n") == 3


def test_makes_missing_folders_for_results_only(work, colorize, refuse):
    save_photo("a.png")
    colorize("a.png -o x/y/b.png --scale 1")
    colorize("a.png -o x/z/ --scale 1")  # the slash means a folder
    colorize("a.png -o x --scale 1")  # it is a folder
    assert (names("x"), names("x/y"), names("x/z")) == (["a.png", "y", "z"], ["b.png"], ["a.png"])
    refuse("colorize a.png -o new/b.webp --size 20000x10", "16383")


LONG = "x" * 300 + ".png"
MISTAKES = {
    "": {"": "required"},
    "colorize": {
        "none.png": "none.png: No such file", "x*.png": "x*.png: no file", "''": "empty", LONG: "File name too long",
        "empty": "no picture in this folder", "text.png": "text.png: is not a picture",
        "zero.png": "zero.png: the file is empty",
    },
    "colorize a.png": {
        "-o b.xyz": "ending", "-o ''": "-o must not be empty", f"-o {LONG}": "File name too long",
        "-o text.png/b.png": "text.png is not a folder", "-o text.png": "exists already; --force",
        "-o a.png --force": "would overwrite the input", "--reference c.png -o c.png --force": "would overwrite the input",
        "--scale 0": "above 0", "--scale nan": "not a number", "--scale 1e9": "too large", "--size 10": "1920x1080",
        "--long-side 2.5": "whole number", "--scale 2 --size 10x10": "not allowed with",
        "--zoom 0,0,13,2": "reaches beyond the picture of 12 x 8", "--zoom 0,0,0,2": "1 x 1 or more",
        "--zoom 1,2,3": "x,y,width,height", "--strength -1": "strength", "--working-size 2": "4 to 4096",
        "--weights none.safetensors": "none.safetensors", "--weights hf:nonsense": "hf:nonsense",
        "--device cuda": "--device cuda", "--bits 16 -o b.jpg": "b.jpg: --bits 16 needs PNG or TIFF",
        "--reference empty": "empty: is a folder", "--reference-mask c.png": "--reference-mask needs a --reference",
        "--reference c.png --reference-mask black.png": "marks nothing",
        "--reference c.png --reference-mask small.png": "mask of 12 x 8",
        "--hint 3,4=brown": "310,120=#6b4a2b", "--hint 3,4=#ff0000,0": "radius must be above 0",
        "--hint 12,4=#ff0000": "outside of the picture of 12 x 8",
        "a.gif": "both", "c.png -o .": "would overwrite the input", "c.png -o out.png": "need a folder",
        "c.png -o text.png": "need a folder", "c.png -o out/ --hint 3,4=#ff0000": "--hint belongs to one picture",
    },
    "attention a.png c.png": {"": "--point", "--point 12,3": "outside of the picture of 12 x 8", "--point 3": "x,y"},
    "attention a.png c.png --point 3,4": {
        "--what valves": "no meaning", "-o c.png --force": "would overwrite", "-o r.xyz": "ending",
        "--coverage c.png --force": "would overwrite", "--coverage c.xyz": "ending",
        "--coverage a-attention.png": "another name",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [(f"{c} {rest}", reason) for c, rests in MISTAKES.items() for rest, reason in rests.items()],
)
def test_mistakes_are_one_line_and_write_nothing(work, refuse, monkeypatch, line, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("a.png", "c.png", "a.gif"):
        save_photo(name)
    Path("text.png").write_text("hello")
    Path("zero.png").touch()
    Path("empty").mkdir()
    Image.new("L", (12, 8)).save("black.png")
    Image.new("L", (5, 5), 255).save("small.png")
    refuse(line, reason)


@pytest.mark.parametrize("words", ["", "not enough memory", "can't allocate memory"])
def test_out_of_memory_is_one_line_after_smaller_tiles(work, refuse, monkeypatch, words):
    """NumPy's error, and PyTorch's on Windows and on Linux."""
    tiles = []

    def render(*arguments, tile, **options):
        tiles.append(tile)
        raise RuntimeError(f"DefaultCPUAllocator: {words}: you tried ...") if words else MemoryError

    save_photo("a.png")
    monkeypatch.setattr(pipeline, "render", render)
    refuse("colorize a.png", "not enough memory")
    assert tiles == [512, 256, 128, 64]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device"), 2, "cannot be written: No space left on device\n"),
        (KeyboardInterrupt(), 130, "scsnet: interrupted\n"),
    ],
)
def test_failed_writing_keeps_the_file_that_was_there(work, run, monkeypatch, error, code, message):
    def fail(self, file, *arguments, **options):
        file.write(b"half")
        raise error

    save_photo("a.png")
    Path("a-scsnet.png").write_text("old")
    monkeypatch.setattr(Image.Image, "save", fail)
    done = run("colorize a.png --force")
    assert done.code == code
    assert done.err.endswith(message)
    assert names() == ["a-scsnet.png", "a.png"]
    assert Path("a-scsnet.png").read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_behind(work, weights, name):
    save_photo("a.png", 600, 500)
    number = getattr(signal, name)
    with subprocess.Popen(
        command("colorize a.png --scale 40 --weights", weights),
        stderr=subprocess.PIPE,
        text=True,
        # tests started in the background or with nohup hand on that signals are ignored
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, number)],
    ) as process:
        time.sleep(8)  # a slow machine is still importing after 3, where a signal can get lost
        assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "scsnet: interrupted\n"
    assert names() == ["a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a POSIX shell")
@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("colorize a.png b.png -o out --weights {} >/dev/full", 0, "stdout cannot be written: No"),
        ("info {} >/dev/full", 2, "stdout cannot be written: No space"),
        ("colorize a.png b.png -o out --weights {} 2>&-", 0, ""),
        ("colorize a.png b.png -o out --weights {} 2>/dev/full", 0, ""),
    ],
)
def test_works_without_streams_to_print_to(work, weights, line, code, reason):
    save_photo("a.png")
    save_photo("b.png")
    words = " ".join(command(line.format(weights)))
    done = subprocess.run(words, shell=True, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert done.stderr.count("\n") == bool(reason)
    assert "info" in line or names("out") == ["a.png", "b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_takes_file_names_that_are_no_text(work, weights, monkeypatch):
    save_photo("a.png")
    name = b"\xe9t\xe9.png"
    os.rename(b"a.png", name)  # noqa: PTH104
    monkeypatch.setenv("PYTHONUTF8", "1")
    done = finish(command("colorize", name, "--weights", weights))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\\udce9t\\udce9-scsnet.png: 48 x 32\n"


def test_checks_arguments_before_importing_torch(work):
    program = "import sys, scsnet.__main__ as m\ntry: m.main()\nfinally: print('torch' in sys.modules)"  # fmt: skip
    for line in ("colorize none.png", "colorize x --scale 0", "--help"):
        done = finish([sys.executable, "-c", program, *line.split()])
        assert done.stdout.splitlines()[-1] == "False"


def test_attention_writes_figures_and_how_much_each_reference_gives(work, run):
    save_photo("a.png", 40, 30)
    save_photo("r.png", 30, 50)
    code, out, err = run("attention a.png r.png --point 3,4 --point 39.5,29")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"a-attention\.png\nr\.png: \d+% of the colours\n", out)
    assert run("attention a.png r.png a.png --point 3,4 -o b.jpg --level 1 --level 4").code == 0
    out = run("attention a.png r.png a.png --what valves -o c.png --coverage d.png").out
    assert [line.split(":")[0] for line in out.splitlines()] == ["c.png", "d.png", "r.png", "a.png"]
    assert size("c.png")[1] < size("a-attention.png")[1]
    assert size("d.png") == (40, 30)
    percent = sum(int(n) for n in re.findall(r"(\d+)%", out))
    uncovered = np.array(Image.open("d.png")).mean() / 255
    assert (1 - uncovered) * 100 == pytest.approx(percent, abs=4)


LOOK = "attention a.png a.png --point 1,1"


@pytest.mark.parametrize(
    ("option", "line", "reason", "possible"),
    [
        ({"head": "pixel_shuffle"}, "colorize a.png --scale 3", "only --scale 4", "colorize a.png"),
        ({"attention": "none"}, LOOK, "no attention", "colorize a.png"),
        ({"attention": "basic"}, LOOK, "no valves", LOOK + " --what attention"),
    ],
)
def test_networks_refuse_what_they_lack(work, run, refuse, weights, option, line, reason, possible):
    save_photo("a.png")
    checkpoint.save(weights, SCSNet(SCSNetConfig(width=8, depth=1, **option)))
    refuse(line, reason)
    assert run(possible).code == 0


def test_info_tells_what_a_weights_file_holds(work, run, weights, tiny_net):
    assert "parameters" in run("info", weights).out
    facts = json.loads(run("info --json", weights).out)
    assert facts["config"] == tiny_net.config.to_dict()
    assert facts["parameters"] == sum(p.numel() for p in tiny_net.parameters())
    assert facts["tensors"] == len(tiny_net.state_dict())
    assert (facts["dtype"], facts["card"]) == ("F32", {"steps": 7})
    assert facts["bytes"] == weights.stat().st_size
    assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
