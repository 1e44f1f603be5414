"""Photos: where they are found, what is made of them, what happens to bad ones."""

import gc
import io
import json
import os
import random
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from training_run import tiny_config

pytest.importorskip("skimage")

from scsnet.color import rgb_to_lab
from scsnet.pictures import read_picture
from training import prepare
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs, make_loader, stack_photos
from training.data.photos import BadPhotoError, decode_photo, find_photos, read_photo
from training.data.references import recolor_surroundings


def packed(photos, path):
    with tarfile.open(path, "w") as shard:
        for photo in sorted(photos.iterdir()):
            shard.add(photo, photo.name)
        shard.add(photos / "00.png", "label.bin")
    return path


def test_folder_list_and_shard_hold_the_same_photos(photos, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text("# some\n" + "".join(f"photos/{p.name}\n" for p in sorted(photos.iterdir())))
    sources = [photos, listing, packed(photos, tmp_path / "a.tar")]
    pictures = [[read_photo(entry) for entry in find_photos([source])] for source in sources]
    assert [len(p) for p in pictures] == [12, 12, 12]
    for a, b, c in zip(*pictures, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    assert len(find_photos(sources)) == 36


def test_names_that_no_screen_can_show(photos, tmp_path):
    """File names with bytes that are not UTF-8, and with rare characters that end a line for `str.splitlines`."""
    names = (b"\xe9t\xe9.png", "a\u2028b\x85.png".encode(), b"two\nlines.png")
    for name, photo in zip(names, sorted(photos.iterdir()), strict=False):
        target = os.fsencode(photos) + b"/" + name
        try:
            os.rename(photo, target)  # noqa: PTH104 -- bytes
        except OSError:
            pytest.skip("this file system takes only UTF-8")
    out = tmp_path / "out"
    rule = prepare.Rule(
        data=(str(photos),), output=str(out), kilobytes=0, variation=0, side=16, workers=1
    )
    assert prepare.prepare(rule) == {"": 11, "line break in its name": 1}
    kept = find_photos([out / "kept.txt"])
    assert len([read_photo(entry) for entry in kept]) == 11
    for entry in kept:
        assert entry.name.encode().isascii() or "\N{REPLACEMENT CHARACTER}" in entry.name
    assert "two\N{REPLACEMENT CHARACTER}lines.png" in (out / "report.md").read_text()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves the file to the collector
def test_our_shards_are_webdataset_shards(photos, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = packed(photos, tmp_path / "a.tar")
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    gc.collect()
    ours = [read_photo(entry) for entry in find_photos([path])]
    theirs = [decode_photo("", sample["png"]) for sample in samples if "png" in sample]
    assert len(theirs) == len(ours)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_where_nothing_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="Photos not found"):
        find_photos([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no photos"):
        find_photos([tmp_path])
    (tmp_path / "x.tar").write_bytes(b"nonsense" * 200)
    with pytest.raises(ValueError, match="not an uncompressed tar"):
        find_photos([tmp_path / "x.tar"])
    (tmp_path / "list.txt").write_text("photo.png", encoding="utf-16")
    with pytest.raises(ValueError, match=r"list\.txt is no list of photos in UTF-8"):
        find_photos([tmp_path / "list.txt"])
    (tmp_path / "list.txt").write_text("photo.png\r\n", encoding="utf-8-sig")
    assert [entry.name for entry in find_photos([tmp_path / "list.txt"])] == ["photo.png"]


def test_bad_photos_say_why(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (200, 4)).save(tmp_path / "thin.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    (tmp_path / "whole.jpg").unlink()
    for entry, reason in zip(
        find_photos([tmp_path]),
        ("(?i)trunc|broken|known", "known", "known", "200 x 4"),
        strict=True,
    ):
        with pytest.raises(BadPhotoError, match=reason):
            read_photo(entry)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's own
def test_whatever_is_broken_in_a_photo_only_a_bad_photo_comes_of_it():
    """Damages random bytes, half of them in the header and metadata."""
    rng = random.Random(0)
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    exif.get_ifd(0x8825)[1] = "N"
    picture = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    bad = 0
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        picture.save(buffer, kind, exif=exif)
        for _ in range(400):
            content = bytearray(buffer.getvalue())
            for _ in range(rng.randint(1, 4)):
                limit = len(content) if rng.random() < 0.5 else min(400, len(content))
                content[rng.randrange(limit)] = rng.randrange(256)
            try:
                photo = decode_photo("x", bytes(content))
            except BadPhotoError:
                bad += 1
            else:
                assert photo.dtype == np.uint8
                assert photo.shape[2] == 3
    assert 200 < bad < 1500


@pytest.mark.parametrize("error", [struct.error("no integer"), TypeError("abs of text")], ids=str)
def test_broken_metadata_is_a_bad_photo(error, monkeypatch):
    """An exception that Pillow raises while reading the orientation of some damaged files."""

    def broken(image):
        raise error

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG")
    with pytest.raises(BadPhotoError, match=f"x: {error}"):
        decode_photo("x", buffer.getvalue())


def pairs(photos, **changes):
    config = tiny_config(photos, "")
    config = replace(config, stages=(replace(config.stages[1], steps=20, **changes),))
    entries = find_photos([photos])
    return TrainingPairs(entries, Schedule(config, len(entries)))


def test_a_batch(photos):
    batch = pairs(photos, degrade=0.0)[3, 0]
    assert batch.low.shape == (4, 3, 16, 16)
    assert torch.equal(batch.low, batch.input)
    assert 32 <= batch.size[0] == batch.size[1] <= 48
    top, left, height, width = batch.window
    assert batch.high.shape == (4, 3, height, width) == (4, 3, 32, 32)
    assert top + 32 <= batch.size[0]
    assert left + 32 <= batch.size[1]
    assert batch.distortion.noise.shape == (4, 2, 64, 64)


def test_the_window_is_a_part_of_the_picture(photos):
    """The target of the whole photo, downsampled, equals the input."""
    batch = pairs(photos, window=0, magnification=(3.0, 3.0), degrade=0.0)[0, 0]
    whole = Image.fromarray((batch.high[0].permute(1, 2, 0) * 255).round().byte().numpy())
    low = np.asarray(whole.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(low, (batch.low[0].permute(1, 2, 0) * 255).round().byte().numpy())


def test_degraded_inputs_keep_their_truth(photos):
    clean, degraded = (pairs(photos, window=0, degrade=share)[5, 0] for share in (0.0, 1.0))
    assert not torch.equal(clean.input, degraded.input)
    # but for margins, which are gray and belong to the truth
    for before, after in ((clean.high, degraded.high), (clean.low, degraded.low)):
        changed = (before != after).any(1)
        colors = after.permute(0, 2, 3, 1)[changed]
        assert 0 < changed.float().mean() < 1
        if before is clean.high:
            assert torch.equal(colors[:, 0], colors[:, 1])
            assert torch.equal(colors[:, 0], colors[:, 2])


def test_half_of_the_references_are_masked(photos):
    batches = [pairs(photos, masks=0.5, reference_fraction=1.0)[step, 0] for step in range(20)]
    masks = torch.cat([batch.mask for batch in batches])
    assert masks.shape == (80, 1, 16, 16)
    assert masks.unique().tolist() == [0, 1]
    whole = masks.flatten(1).all(1)
    assert 20 < whole.sum() < 60
    assert masks.flatten(1).any(1).all()
    strength = torch.cat([batch.distortion.strength for batch in batches])
    assert (strength[whole] > 0).all()
    still = strength == 0  # strokes and dots lie on the photo itself
    assert 0 < still.sum() < (~whole).sum()
    assert not pairs(photos, masks=0.0)[0, 0].mask.logical_not().any()


def test_some_references_are_other_photos(photos):
    batches = [
        pairs(photos, others=0.5, masks=1.0, reference_fraction=1.0)[step, 0] for step in range(20)
    ]
    other = torch.cat([batch.other for batch in batches])
    assert 20 < other.sum() < 60
    whole = torch.cat([batch.mask for batch in batches]).flatten(1).all(1)
    assert torch.equal(whole, other)  # these are not masked


def test_automatic_batches_keep_the_colors_of_photos_with_masks(photos):
    plain, masked = (
        pairs(photos, degrade=0.0, masks=m, reference_fraction=0.0) for m in (0.0, 1.0)
    )
    assert torch.equal(plain[3, 0].high, masked[3, 0].high)


def test_another_color_stays_near_its_place_and_keeps_lightness():
    photo = np.full((64, 64, 3), 120, np.uint8)
    photo[:, 40:] = (200, 60, 40)
    recolored, (x, y) = recolor_surroundings(photo, np.random.default_rng(1))
    before, after = (rgb_to_lab(stack_photos([p]))[0] for p in (photo, recolored))
    changed = (after - before)[1:].norm(dim=0)
    row, column = int(y * 64), int(x * 64)
    assert changed[row, column] > 5
    assert changed[row, column] == pytest.approx(changed.max().item(), abs=1.0)
    other_side = changed[:, 40:] if column < 40 else changed[:, :40]
    assert other_side.max() < 1  # of another colour
    assert (after - before)[0].abs().max() < 1


def test_small_photos_are_known_as_enlarged(photos):
    assert pairs(photos, magnification=(5.0, 5.0))[0, 0].enlarged.all()  # 80 of 64 pixels
    assert not pairs(photos, magnification=(4.0, 4.0))[0, 0].enlarged.any()


def test_details_are_learned_from_large_photos(photos):
    with pytest.raises(ValueError, match="expected photos of at least 80 pixels"):
        pairs(photos, magnification=(5.0, 5.0), trains="details")[0, 0]
    Image.new("RGB", (90, 80), (200, 30, 30)).save(photos / "large.png")
    batch = pairs(photos, magnification=(5.0, 5.0), trains="details", degrade=0.0)[0, 0]
    assert torch.allclose(batch.high[:, 0], torch.tensor(200 / 255), atol=0.01)
    assert not batch.enlarged.any()


def test_processes_and_parts_share_a_batch(photos):
    whole = pairs(photos)[2, 0]
    split = pairs(photos, accumulate=2)
    for rank in (0, 1):
        split.rank, split.processes = rank, 2
        for part in (0, 1):
            number = part * 2 + rank
            piece = split[2, part]
            assert torch.equal(piece.high, whole.high[number : number + 1])
            assert torch.equal(piece.distortion.noise, whole.distortion.noise[number : number + 1])


def test_the_loader_starts_anywhere(photos):
    batches = list(make_loader(pairs(photos), 0))
    later = list(make_loader(pairs(photos), 17))
    assert len(batches) == 20
    assert all(torch.equal(a.high, b.high) for a, b in zip(batches[17:], later, strict=True))


def test_bad_photos_are_stood_in_for_and_named(photos):
    for name in ("00.png", "01.png"):
        (photos / name).write_bytes(b"")
    names = {name for batch in make_loader(pairs(photos), 0) for name in batch.skipped}
    assert {name.split(":")[0][-6:] for name in names} == {"00.png", "01.png"}
    for photo in photos.iterdir():
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match="12 photos in a row"):
        next(make_loader(pairs(photos), 0))


def test_prepare_by_the_papers_rule(photos, tmp_path, capsys):
    Image.new("RGB", (128, 128), (90, 80, 40)).save(photos / "tint.bmp")
    (photos / "broken.jpg").write_bytes(b"x")
    (photos / "copy.png").write_bytes((photos / "03.png").read_bytes())
    out = tmp_path / "out"
    arguments = ["--data", str(photos), "--output", str(out), "--kilobytes", "0.1", "--side", "32"]
    prepare.main([*arguments, "--resize", "48", "--shards", "5", "--workers", "1"])
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == 12
    assert report["gone"] == {"low colour variation": 1, "the same file": 1, "unreadable": 1}
    assert "tint.bmp: low colour variation 0.0" in (out / "report.md").read_text()
    assert (out / "contact_sheet.png").exists()
    assert len(find_photos([out])) == 12  # the sheet is no photo
    assert len(find_photos([out / "kept.txt"])) == 12
    shards = find_photos([out / "shards"])
    assert len(shards) == 12
    assert read_photo(shards[0]).shape == (48, 60, 3)
    assert len(list((out / "shards").iterdir())) == 3
    capsys.readouterr()
    prepare.main([*arguments[:4], "--kilobytes", "1000", "--workers", "1"])
    assert "none is kept: --kilobytes" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["kept"] == 0


def test_prepare_overwrites_no_photo_and_mixes_no_two_calls(photos, tmp_path, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    rule = ["--kilobytes", "0", "--variation", "0", "--side", "16", "--workers", "1"]

    def refused(*options):
        with pytest.raises(SystemExit):
            prepare.main([*options, *rule])
        return capsys.readouterr().err

    assert "name an --output of its own" in refused("--data", str(photos), "--output", str(photos))
    inside = ["--data", str(photos), "--output", str(photos / "out"), "--resize", "20"]
    prepare.main([*inside, *rule])
    assert len(find_photos([photos / "out" / "photos"])) == 12
    assert "name an --output of its own" in refused(*inside)  # the copies are among the photos now
    prepare.main(["--data", str(photos), "--output", str(tmp_path / "b"), "--shards", "5", *rule])
    again = ["--output", str(tmp_path / "b"), "--shards", "9"]
    assert "has files in it already" in refused("--data", str(photos), *again)
    again = ["--data", str(tmp_path / "b" / "kept.txt"), "--output", str(tmp_path / "b")]
    assert "kept.txt belongs to --data" in refused(*again)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("word", "value"), [("--shards", "-1"), ("--quality", "101"), ("--variation", "nan")]
)
def test_prepare_refuses_numbers_without_sense(photos, tmp_path, capsys, word, value):
    with pytest.raises(SystemExit):
        prepare.main(["--data", str(photos), "--output", str(tmp_path / "out"), word, value])
    assert f"{word[2:]} must be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_embedded_profiles_are_applied(tmp_path):
    """A photo in another colour space is read as the command line reads it."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    name = profile.index("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "swap".encode("utf-16-be")
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=bytes(profile))
    photo = read_photo(find_photos([tmp_path / "a.png"])[0])
    assert np.abs(photo.astype(int) - rgb[..., [1, 0, 2]]).max() <= 2
    assert np.array_equal(photo, read_picture(tmp_path / "a.png").rgb)


def test_orientation_survives_the_conversion(tmp_path):
    gray = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (20, 1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(gray).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(find_photos([tmp_path / "a.png"])[0])
    assert photo.shape == (24, 20, 3)
    assert np.array_equal(photo[..., 0], np.rot90(gray, -1))


def test_files_that_are_left_out_are_named(photos, tmp_path, capsys):
    for name in ("a.HEIC", "b.heic", "c.txt"):
        (photos / name).write_bytes(b"x")
    Image.new("RGB", (32, 32), "red").save(photos / "new.avif")
    assert len(find_photos([photos])) == 13
    assert "left out 2 files" in (text := capsys.readouterr().out)
    assert ".heic is not supported" in text
    assert "txt" not in text
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for file in sorted(photos.iterdir()):
            shard.add(file, file.name)
    assert len(find_photos([tmp_path / "shard.tar"])) == 13
    assert f"left out 2 files of {tmp_path / 'shard.tar'}: .heic" in capsys.readouterr().out
