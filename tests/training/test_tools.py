"""Other runs and tools: export, dry runs, ablations, curves, figures of the paper."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from training_run import losses, make_vgg16, refuse, tiny_config

from scsnet import SCSNetConfig, checkpoint, encode_picture, render
from training import ablate, curves, export, figures, train
from training.config.overrides import CONFIG, load_config
from training.engine import checkpoints
from training.engine.loop import train as run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def one_stage(photos, output, **changes):
    config = tiny_config(photos, output)
    return replace(config, stages=(replace(config.stages[1], adversarial=0.0, **changes),))


def test_bf16_learns_too(photos, tmp_path):
    config = one_stage(photos, tmp_path / "run", steps=40, degrade=0.0, warmup=4)
    run(replace(config, precision="bf16"))
    rows = [row["ref_content"] for row in losses(tmp_path / "run").values() if "ref_content" in row]
    assert np.mean(rows[-5:]) < 0.9 * np.mean(rows[:5])


def test_weights_of_a_checkpoint_are_exported(photos, tmp_path):
    weights, again = run(one_stage(photos, tmp_path / "run")), tmp_path / "again.safetensors"
    last = checkpoints.last(tmp_path / "run" / "checkpoints")
    (tmp_path / "README.md").write_text("of somebody else")
    export.main([str(last), str(again)])
    assert (tmp_path / "README.md").read_text() == "of somebody else"
    assert "There was no validation" in (tmp_path / "again.md").read_text()
    assert again.read_bytes() == weights.read_bytes()
    export.main([str(last), str(again), "--working-size", "96"])
    assert checkpoint.load(again).config.working_size == 96
    for line, message in (
        (f"{last} {again} --working-size 2", "working_size must be between"),
        (f"{photos}/00.png {again}", "cannot be read"),
        (f"{last} {tmp_path}/again", "weights are a .safetensors file"),
    ):
        assert message in refuse(export.main, line)


def test_dry_run_estimates_and_writes_nothing(photos, tmp_path, capsys):
    train.main(
        f"--data {photos} --output {tmp_path}/run --dry-run --network.width 8 --network.depth 1 "
        "--size 16 --batch 2 --window 16".split()
    )
    text = capsys.readouterr().out
    assert "stage 2: 500 steps of" in text
    assert "in all" in text
    assert "photos kept in memory take up to 2 GB more" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("table", ["4", "5"])
def test_tables_4_and_5_have_a_row_for_each_run(photos, tmp_path, table):
    config = one_stage(photos, tmp_path / "a", steps=2, magnification=(4.0, 4.0), window=32)
    vgg = make_vgg16(tmp_path / "vgg16.safetensors")
    config = replace(config, validation=(str(photos),), perceptual_weights=str(vgg))
    text = ablate.ablate(table, config, photos=1)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(ablate.PAPER[table]) + 2
    floor, ceiling = (float(row.split("|")[2]) for row in rows[-2:])
    assert floor < ceiling
    assert (tmp_path / "a" / f"table{table}.md").read_text() == text
    assert ablate.ablate(table, config, photos=1) == text  # finished rows are kept
    other = replace(config, stages=(replace(config.stages[0], steps=3),))
    with pytest.raises(ValueError, match="trained with another stages"):
        ablate.ablate(table, other, photos=1)


def test_table_start_goes_from_the_paper_to_our_network(photos, tmp_path, capsys):
    out = tmp_path / "a"
    ablate.main(
        f"--table start --data {photos} --validation {photos} --photos 3 --output {out} --steps 2 "
        "--batch 2 --size 16 --network.width 8 --network.depth 1 --precision float32".split()
    )
    text = (out / "tablestart.md").read_text()
    assert text in capsys.readouterr().out
    assert text.count("\n| ") == 1 + len(ablate.START)
    literal, ours = (
        load_config(*out.glob(f"{name}*/{CONFIG}")) for name in ("the_paper", "cosine")
    )
    assert (literal.network.norm, literal.network.attention_scale) == ("instance", 1.0)
    assert (literal.siamese, literal.stages[0].supervision) == (False, 0.0)
    assert ours.network == replace(SCSNetConfig(), width=8, depth=1)
    assert (ours.siamese, ours.stages[0].supervision) == (True, 10.0)


def test_curves_of_a_log_are_drawn(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"step": n, "auto_content": 1 / n, "gradient": 2.0, "stage": n} for n in (1, 2)]
    lines = [json.dumps(row) for row in [*rows, {"step": 2, "auto_psnr": 25.0}]]
    log.write_text("\n".join([*lines, '{"step": 10']))
    assert curves.group_curves(curves.read_log(log)) == {
        "content loss (Eq. 5)": {"auto_content": ([1, 2], [1.0, 0.5])},
        "gradient norm": {"gradient": ([1, 2], [2.0, 2.0])},
        "validation: PSNR in dB": {"auto_psnr": ([2], [25.0])},
    }
    curves.main([str(tmp_path)])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > 400
    log.write_text("")
    assert "no lines" in refuse(curves.main, str(tmp_path))


def test_figure_9_zooms_into_one_encoding(photos, tmp_path, weights, tiny_net):
    photo, out = photos / "00.png", tmp_path / "film" / "zoom.webp"
    figures.main(
        f"--figure 9 --photo {photo} --output {out} --weights {weights} --input 32 --size 48 "
        "--frames 5 --magnification 4".split()
    )
    with Image.open(out) as film:
        assert (film.n_frames, film.size) == (5, (48, 48))
        film.seek(4)
        last = np.asarray(film.convert("RGB")).astype(int)
    features = encode_picture(tiny_net, figures.read_square(str(photo), 32))
    expected = render(tiny_net, features, (192, 192), (72, 72, 48, 48))
    pixels = (expected[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(last - pixels).mean() < 6  # WebP is lossy


def test_figure_12_has_copies_that_differ(photos, tmp_path):
    photo, out = photos / "01.png", tmp_path / "sheet.png"
    figures.main(f"--figure 12 --photo {photo} --output {out} --input 64 --copies 3".split())
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape == (64, 256, 3)
    original, *copies = np.split(sheet, 4, axis=1)
    square = figures.read_square(str(photo), 64)
    assert np.array_equal(original, (square[0].permute(1, 2, 0) * 255).round().numpy())
    for copy in [*copies, *(copy[:, ::-1] for copy in copies)]:
        assert np.abs(original - copy).mean() > 1


def test_mistakes_of_figures_are_named(photos):
    for options, message in (
        ("--output a.png", "ends with .webp"),
        ("--figure 12 --output a.webp", "ends with .png"),
        ("--output a.webp --magnification 1", "magnification in 1..32"),
        ("--output a.webp --weights none", "none"),
    ):
        assert message in refuse(figures.main, f"--photo {photos}/00.png {options}")
