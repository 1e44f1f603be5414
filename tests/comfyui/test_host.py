"""How the pack lives in a real ComfyUI: memory over many runs, command line flags, model folders, the schema as seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import PACK, ROOT, TINY
from PIL import Image
from prompts import Prompt, pictures
from server import Server
from workflows import OURS, WORKFLOWS

SNAPSHOT = Path(__file__).with_name("object_info.json")


def essence(info):
    """What saved workflows depend on: names, order, types, defaults and bounds."""
    return {
        name: {
            "inputs": {
                item: [kind if isinstance(kind, str) else "COMBO", {k: v for k, v in (rest[0] if rest else {}).items() if k in ("default", "min", "max")}]
                for part in ("required", "optional")
                for item, (kind, *rest) in node["input"].get(part, {}).items()
            },
            "required": list(node["input"]["required"]),
            "outputs": list(zip(node["output"], node["output_name"], strict=True)),
            "category": node["category"],
        }
        for name, node in info.items()
    }  # fmt: skip


def test_the_schema_is_what_saved_workflows_expect(comfy):
    """After a deliberate change write the new snapshot: it is the left side of the failing comparison."""
    info = comfy.get("/object_info")
    now = json.loads(json.dumps(essence({name: info[name] for name in OURS})))
    assert now == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("checkpoint", [TINY, "bundled"])
def test_memory_stays_where_it_is(comfy, checkpoint):
    """Ten different results of one picture and its reference, each thrown away by the next."""
    used = []
    for i in range(10):
        p = Prompt()
        node = p.reference(
            p.load(checkpoint),
            p.image("scsnet_stall_1909.jpg"),
            p.image("scsnet_lake.jpg"),
            strength=0.5 + i / 100,
        )
        p.preview(p.upscale((node, 0), 1.3))
        p.preview((p.viz((node, 2), f"0.{i + 1}, 0.5", level="D4"), 0))
        comfy.run(p)
        used.append(comfy.resident())
    # One run holds about 60 MB of features and pictures: ten that were kept would be 600.
    assert used[-1] - used[2] < 80, used


@pytest.mark.parametrize(
    "flags",
    [["--force-fp16", "--disable-smart-memory"], ["--cache-none", "--reserve-vram", "1"]],
    ids=" ".join,
)
def test_flags_of_the_command_line(base, archive, tmp_path, flags):
    """And the pack as the registry ships it, with weights in a folder that extra_model_paths.yaml names."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(base / "models" / "scsnet" / TINY, elsewhere / "other_name.safetensors")
    paths = tmp_path / "extra.yaml"
    paths.write_text(f"mine:\n  base_path: {tmp_path}\n  scsnet: elsewhere\n")
    with Server(
        tmp_path / "base", {PACK: archive}, arguments=flags, extra_model_paths=paths
    ) as server:
        shutil.copy(base / "input" / "scsnet_lake.jpg", server.base / "input")
        assert server.get("/models/scsnet") == ["other_name.safetensors"]
        p = Prompt()
        node = p.auto(p.load("other_name.safetensors"), p.image("scsnet_lake.jpg"))
        shown = p.preview(p.upscale((node, 0), 1.5))
        assert server.run(p)[shown]["images"]
        assert len(server.get("/workflow_templates")[PACK]) == len(WORKFLOWS)
        assert server.raw(f"/extensions/{PACK}/samples/scsnet_lake.jpg")


def test_a_large_picture(base, tmp_path):
    """4096 x 4096 with alpha in; the picture itself out, and a window of 16 times its size."""
    with Server(tmp_path, {PACK: ROOT}) as server:
        shutil.copy(base / "models" / "scsnet" / TINY, tmp_path / "models" / "scsnet")
        noise = Image.effect_noise((4096, 4096), 50)
        Image.merge("RGBA", [noise] * 4).save(tmp_path / "input" / "huge.png", compress_level=1)
        p = Prompt()
        image = p.image("huge.png")
        picture = (p.add("JoinImageWithAlpha", image=image, alpha=(image[0], 1)), 0)
        node = p.auto(p.load(TINY), picture)
        window = {"window_x": 0.5, "window_y": 0.5, "window_width": 0.005, "window_height": 0.005}
        shown = p.preview(p.upscale((node, 0), 16.0, **window))
        cut = {"x": 100, "y": 200, "width": 300, "height": 200}
        part = p.preview((p.add("ImageCrop", image=(node, 1), **cut), 0))
        before = server.peak()
        outputs = server.run(p, timeout=600)
        assert [pictures(server, outputs, n)[0].shape for n in (shown, part)] == [
            (328, 328, 4),
            (200, 300, 4),
        ]
        # Pictures of 268 MB in RGBA and float32, and the nodes' own 340 MB of LAB and features, 50 MB of tiles.
        assert server.peak() - before < 2600
