"""Photos: where they are found, what training makes of them, what happens to bad ones."""

import gc
import io
import json
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from profiles import make_swapped_profile
from training_run import refuse, tiny_config

from scsnet.pictures import read_picture
from training import prepare
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs, make_loader
from training.data.photos import BadPhotoError, decode_photo, find_photos, read_photo


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its file open
def test_folder_list_and_webdataset_shard_hold_the_same_photos(photos, tmp_path, capsys):
    for name in ("a.HEIC", "b.heic", "c.txt"):
        (photos / name).write_bytes(b"x")
    Image.new("RGB", (32, 32), "red").save(photos / "new.avif")
    listing, shard = tmp_path / "list.txt", tmp_path / "a.tar"
    files = [*sorted(photos.glob("*.png")), photos / "new.avif"]
    lines = ["# as Windows writes it", *map(str, files), ""]
    listing.write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    with tarfile.open(shard, "w") as tar:
        for file in sorted(photos.iterdir()):
            tar.add(file, file.name)
    samples = list(pytest.importorskip("webdataset").WebDataset(str(shard), shardshuffle=False))
    gc.collect()
    contents = [sample.get("png") or sample.get("avif") for sample in samples]
    expected = [decode_photo("", content) for content in contents if content]
    assert len(expected) == 13
    for source in (photos, listing, shard):
        found = [read_photo(entry) for entry in find_photos([source])]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    text = capsys.readouterr().out
    for source in (photos, shard):
        assert f"left out 2 files of {source}: .heic is not supported" in text
    assert "txt" not in text
    assert len(find_photos([photos, listing, shard])) == 39


def test_names_may_hold_any_bytes(photos, tmp_path):
    """Bytes that are not UTF-8, and characters that end a line for `str.splitlines`."""
    names = (b"\xe9t\xe9.png", "a\u2028b\x85.png".encode(), b"two\nlines.png")
    for name, photo in zip(names, sorted(photos.iterdir()), strict=False):
        try:
            os.rename(photo, os.fsencode(photos) + b"/" + name)  # noqa: PTH104 -- bytes
        except OSError:
            pytest.skip("this file system takes only UTF-8")
    options = {"kilobytes": 0, "variation": 0, "side": 16, "workers": 1}
    rule = prepare.Rule(data=(str(photos),), output=str(tmp_path / "out"), **options)
    assert prepare.prepare(rule) == {"": 11, "line break in its name": 1}
    kept = find_photos([tmp_path / "out" / "kept.txt"])
    assert len([read_photo(entry) for entry in kept]) == 11
    assert all(entry.name.isascii() or "\N{REPLACEMENT CHARACTER}" in entry.name for entry in kept)


def test_what_is_no_photo_is_refused_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (200, 4)).save(tmp_path / "thin.png")
    for name, content, message in (
        ("nowhere", None, "Photos not found"),
        ("empty", None, "no photos"),
        ("x.tar", b"nonsense" * 200, "not an uncompressed tar"),
        ("x.txt", "photo.png".encode("utf-16"), r"x\.txt is no list of photos in UTF-8"),
        ("empty.jpg", b"", r"empty\.jpg: not a picture of a known format"),
        ("thin.png", None, "200 x 4 pixels, expected at least 16 on each side"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            read_photo(find_photos([tmp_path / name])[0])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's own
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_damaged_photos_are_read_or_bad(kind):
    random, exif, bad = np.random.default_rng(0), Image.Exif(), 0
    exif[274], exif[271] = 6, "maker"
    exif.get_ifd(0x8825)[1] = "N"
    Image.linear_gradient("L").convert("RGB").save(buffer := io.BytesIO(), kind, exif=exif)
    for _ in range(200):
        content = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        content[random.integers(0, min(400, len(content)), 3)] = random.integers(0, 256, 3)
        try:
            assert decode_photo("x", content.tobytes()).shape[2] == 3
        except BadPhotoError:
            bad += 1
    assert 0 < bad < 200


def test_profiles_and_orientation_are_applied(tmp_path):
    """Training reads a photo in another colour space as the command line does."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    (exif := Image.Exif())[ExifTags.Base.Orientation] = 6
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=make_swapped_profile(), exif=exif)
    photo = read_photo(find_photos([tmp_path / "a.png"])[0])
    assert np.abs(photo.astype(int) - np.rot90(rgb[..., [1, 0, 2]], -1)).max() <= 2
    assert np.array_equal(photo, read_picture(tmp_path / "a.png").rgb)


def pairs(photos, **changes):
    config = tiny_config(photos, "")
    config = replace(config, stages=(replace(config.stages[1], steps=20, **changes),))
    entries = find_photos([photos])
    return TrainingPairs(entries, Schedule(config, len(entries)))


def test_batch_holds_input_and_a_window_of_the_target(photos):
    batch = pairs(photos, degrade=0.0)[3, 0]
    assert torch.equal(batch.low, batch.input)
    assert 32 <= batch.size[0] == batch.size[1] <= 48
    top, left, height, width = batch.window
    assert batch.high.shape == (4, 3, height, width) == (4, 3, 32, 32)
    assert max(top, left) + 32 <= batch.size[0]
    batch = pairs(photos, window=0, magnification=(3.0, 3.0), degrade=0.0)[0, 0]
    high, low = (planes[0].permute(1, 2, 0) * 255 for planes in (batch.high, batch.low))
    whole = Image.fromarray(high.round().byte().numpy())
    expected = np.asarray(whole.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(expected, low.round().byte().numpy())


def test_degraded_inputs_keep_their_target_but_for_gray_margins(photos):
    clean, degraded = (pairs(photos, window=0, degrade=share)[5, 0] for share in (0.0, 1.0))
    assert not torch.equal(clean.input, degraded.input)
    changed = (clean.high != degraded.high).any(1)
    colors = degraded.high.permute(0, 2, 3, 1)[changed]
    assert 0 < changed.float().mean() < 1
    assert (colors == colors[:, :1]).all()
    assert 0 < (clean.low != degraded.low).any(1).float().mean() < 1


def test_references_are_masked_or_other_photos(photos):
    batches = [pairs(photos, masks=0.5, others=0.25)[step, 0] for step in range(20)]
    masks, other = (torch.cat([b.mask for b in batches]), torch.cat([b.other for b in batches]))
    whole = masks.flatten(1).all(1)
    assert masks.unique().tolist() == [0, 1]
    assert masks.flatten(1).any(1).all()
    assert whole[other].all()  # another photo is never masked
    assert 10 < other.sum() < 30
    assert 10 < (~whole).sum() < 40
    still = torch.cat([batch.distortion.strength == 0 for batch in batches])
    assert not still[whole].any()
    assert 0 < still.sum() < (~whole).sum()  # strokes and dots lie on the photo itself


def test_photos_smaller_than_the_target_are_known(photos):
    """Photos of 64 pixels are marked as enlarged, and a stage that trains details passes them over."""
    assert pairs(photos, magnification=(5.0, 5.0))[0, 0].enlarged.all()
    assert not pairs(photos, magnification=(4.0, 4.0))[0, 0].enlarged.any()
    details = {"magnification": (5.0, 5.0), "trains": "details", "degrade": 0.0}
    with pytest.raises(ValueError, match="expected photos of at least 80 pixels"):
        pairs(photos, **details)[0, 0]
    Image.new("RGB", (90, 80), (200, 30, 30)).save(photos / "large.png")
    batch = pairs(photos, **details)[0, 0]
    assert torch.allclose(batch.high[:, 0], torch.tensor(200 / 255), atol=0.01)
    assert not batch.enlarged.any()


def test_bad_photos_are_replaced_and_named(photos):
    for name in ("00.png", "01.png"):
        (photos / name).write_bytes(b"")
    names = {name for batch in make_loader(pairs(photos), 0) for name in batch.skipped}
    assert {name.split(":")[0][-6:] for name in names} == {"00.png", "01.png"}
    for photo in photos.iterdir():
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match="12 photos in a row"):
        next(make_loader(pairs(photos), 0))


def test_prepare_selects_by_the_papers_rule(photos, tmp_path, capsys):
    Image.new("RGB", (128, 128), (90, 80, 40)).save(photos / "tint.bmp")
    (photos / "broken.jpg").write_bytes(b"x")
    (photos / "copy.png").write_bytes((photos / "03.png").read_bytes())
    out = tmp_path / "out"
    rule = f"--data {photos} --output {out} --workers 1 --side 32 --kilobytes"
    prepare.main(f"{rule} 0.1 --resize 48 --shards 5".split())
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == 12
    assert report["gone"] == {"low colour variation": 1, "the same file": 1, "unreadable": 1}
    assert "tint.bmp: low colour variation 0.0" in (out / "report.md").read_text()
    assert (out / "contact_sheet.png").exists()
    for source in (out, out / "kept.txt", out / "shards"):  # the sheet is no photo
        assert len(shards := find_photos([source])) == 12
    assert read_photo(shards[0]).shape == (48, 60, 3)
    assert len(list((out / "shards").iterdir())) == 3
    capsys.readouterr()
    prepare.main(f"{rule} 1000".split())
    assert "none is kept: --kilobytes" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["kept"] == 0


def test_prepare_overwrites_nothing(photos, tmp_path):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    rule = "--kilobytes 0 --variation 0 --side 16 --workers 1"
    inside = f"--data {photos} --output {photos}/out --resize 20 {rule}"
    prepare.main(inside.split())
    assert len(find_photos([photos / "out" / "photos"])) == 12
    out = tmp_path / "b"
    prepare.main(f"--data {photos} --output {out} --shards 5 {rule}".split())
    for line, message in (
        (f"--data {photos} --output {photos} {rule}", "name an --output of its own"),
        (inside, "name an --output of its own"),  # the copies are among the photos
        (f"--data {photos} --output {out} --shards 9 {rule}", "has files in it already"),
        (f"--data {out}/kept.txt --output {out} {rule}", "kept.txt belongs to --data"),
        (f"--data {photos} --output {tmp_path}/c --shards -1", "shards must be"),
        (f"--data {photos} --output {tmp_path}/c --quality 101", "quality must be"),
        (f"--data {photos} --output {tmp_path}/c --variation nan", "variation must be"),
    ):
        assert message in refuse(prepare.main, line)
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "c").exists()
