"""How the pack lives in a real ComfyUI: schema, memory, command line flags, model folders, large pictures."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import PACK, ROOT
from PIL import Image
from prompts import LAKE, TINY, Prompt, pictures
from server import Server
from workflows import OURS, WORKFLOWS


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
    assert now == json.loads(Path(__file__).with_name("object_info.json").read_text())


@pytest.mark.parametrize("checkpoint", [TINY, "bundled"])
def test_ten_different_results_leave_no_memory_in_use(comfy, checkpoint):
    used = []
    for i in range(10):
        p = Prompt()
        photo = p.image("scsnet_stall_1909.jpg")
        node = p.reference(p.load(checkpoint), photo, p.image(LAKE), strength=0.5 + i / 100)
        p.preview(p.upscale(node, 1.3))
        p.preview(p.viz(node.at(2), f"0.{i + 1}, 0.5", level="D4"))
        comfy.run(p)
        used.append(comfy.memory())
    # One run holds about 60 MB of features and pictures: ten that were kept would be 600.
    assert used[-1] - used[2] < 80, used


@pytest.mark.parametrize("flags", ["--force-fp16 --disable-smart-memory", "--cache-none"])
def test_the_archive_runs_with_flags_and_an_extra_model_folder(base, archive, tmp_path, flags):
    """The pack as the registry ships it; weights in a folder that extra_model_paths.yaml names."""
    weights = tmp_path / "elsewhere" / "other_name.safetensors"
    weights.parent.mkdir()
    shutil.copy(base / "models" / "scsnet" / TINY, weights)
    paths = tmp_path / "extra.yaml"
    paths.write_text(f"mine:\n  base_path: {tmp_path}\n  scsnet: elsewhere\n")
    arguments = ["--extra-model-paths-config", str(paths), *flags.split()]
    with Server(tmp_path / "base", {PACK: archive}, arguments=arguments) as server:
        shutil.copy(base / "input" / LAKE, server.base / "input")
        assert server.get("/models/scsnet") == [weights.name]
        p = Prompt()
        shown = p.preview(p.upscale(p.auto(p.load(weights.name), p.image(LAKE)), 1.5))
        assert pictures(server, server.run(p), shown)
        assert sorted(server.get("/workflow_templates")[PACK]) == WORKFLOWS
        assert server.raw(f"/extensions/{PACK}/samples/{LAKE}")


def test_a_large_picture(base, tmp_path):
    """4096 x 4096 with alpha in; the picture itself out, and a window of 16 times its size."""
    with Server(tmp_path, {PACK: ROOT}) as server:
        shutil.copy(base / "models" / "scsnet" / TINY, tmp_path / "models" / "scsnet")
        noise = Image.effect_noise((4096, 4096), 50)
        Image.merge("RGBA", [noise] * 4).save(tmp_path / "input" / "huge.png", compress_level=1)
        p = Prompt()
        image = p.image("huge.png")
        node = p.auto(p.load(), p.add("JoinImageWithAlpha", image=image, alpha=image.at(1)))
        window = {"window_x": 0.5, "window_y": 0.5, "window_width": 0.005, "window_height": 0.005}
        cut = p.add("ImageCrop", image=node.at(1), x=100, y=200, width=300, height=200)
        previews = p.preview(p.upscale(node, 16.0, **window)), p.preview(cut)
        before = server.memory("VmHWM")
        outputs = server.run(p, timeout=600)
        shapes = [pictures(server, outputs, preview)[0].shape for preview in previews]
        assert shapes == [(328, 328, 4), (200, 300, 4)]
        # Pictures of 268 MB in RGBA and float32, and the nodes' own 340 MB of LAB and features, 50 MB of tiles.
        assert server.memory("VmHWM") - before < 2600
