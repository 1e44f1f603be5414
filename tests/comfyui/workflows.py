"""The shipped workflows, and their conversion to API form by the nodes' descriptions in /object_info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "example_workflows"
OURS = (
    "LoadSCSNet",
    "SCSColorizeAuto",
    "SCSColorizeReference",
    "SCSContinuousUpscale",
    "AttentionMapViz",
    "SCSColorHints",
)
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = {"Note", "MarkdownNote"}  # the frontend's own, without a counterpart in ComfyUI
UPLOADS = {"image_upload", "video_upload"}  # their button is one more widget value


def read(name: str) -> dict[str, Any]:
    """Read a workflow, in the frontend's form."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def widgets(info: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
    """List name, options and whether a button follows, of each widget of a node in the order of widgets_values."""
    result = []
    for part in ("required", "optional"):
        for name, (kind, *rest) in info["input"].get(part, {}).items():
            options = rest[0] if rest else {}
            if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                result.append((name, options, bool(UPLOADS & options.keys())))
    return result


def to_prompt(workflow: dict[str, Any], infos: dict[str, Any]) -> dict[str, Any]:
    """Convert to the API form. AssertionError where the workflow does not fit the nodes."""
    links = {link[0]: link for link in workflow["links"]}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        info = infos[node["type"]]
        values, inputs = list(node.get("widgets_values") or []), {}
        for name, options, button in widgets(info):
            if not values:
                assert "default" in options, (
                    node["type"],
                    name,
                )  # a widget that a newer host has added
                inputs[name] = options["default"]
                continue
            inputs[name] = values.pop(0)
            if "min" in options:
                assert options["min"] <= inputs[name] <= options["max"], (node["type"], name)
            if button:
                values.pop(0)
        assert not values, f"{node['type']} has {len(values)} widget values too many"
        for slot, item in enumerate(node["inputs"]):
            if item["link"] is None:
                continue
            number, source, output, target, target_slot, kind = links[item["link"]]
            assert (target, target_slot) == (node["id"], slot)
            given = infos[nodes[source]["type"]]["output"][output]
            takes = {**info["input"].get("required", {}), **info["input"].get("optional", {})}[
                item["name"]
            ][0]
            assert kind == given == takes, (node["type"], item["name"], kind, given, takes)
            assert number in nodes[source]["outputs"][output]["links"]
            inputs[item["name"]] = [str(source), output]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
