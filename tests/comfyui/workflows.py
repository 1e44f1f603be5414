"""The shipped workflows, and their conversion to API form by the nodes' descriptions in /object_info."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
OURS = (
    "LoadSCSNet", "SCSColorizeAuto", "SCSColorizeReference", "SCSContinuousUpscale", "AttentionMapViz", "SCSColorHints",
)  # fmt: skip
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = {"Note", "MarkdownNote"}  # the frontend's own, without a counterpart in ComfyUI
UPLOADS = {"image_upload", "video_upload"}  # their button is one more widget value
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"  # a choice with further inputs, which are named choice.input
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC)


def read(name):
    """A workflow, in the frontend's form."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def inputs_of(info):
    """{name: (type, options)} of a node, in the order of its widgets."""
    declared = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (kind, rest[0] if rest else {}) for name, (kind, *rest) in declared.items()}


def take_widgets(kind, declared, values):
    """Take the values of a node's widgets off the front of `values` -> {name: value}."""
    inputs = {}
    for name, (type_, options) in declared.items():
        if options.get("hidden") or not (isinstance(type_, list) or type_ in WIDGETS):
            continue
        # A workflow that is older than a widget has no value for it.
        inputs[name] = values.pop(0) if values else options["default"]
        if "min" in options:
            assert options["min"] <= inputs[name] <= options["max"], (kind, name)
        if UPLOADS & options.keys():
            values.pop(0)
        if type_ == DYNAMIC:
            (chosen,) = (o for o in options["options"] if o["key"] == inputs[name])
            further = take_widgets(kind, inputs_of({"input": chosen["inputs"]}), values)
            inputs |= {f"{name}.{key}": value for key, value in further.items()}
    return inputs


def to_prompt(workflow, infos):
    """Convert to the API form. AssertionError where the workflow does not fit the nodes."""
    links = {link[0]: link for link in workflow["links"]}
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}
    prompt = {}
    for node in nodes.values():
        kind, declared = node["type"], inputs_of(infos[node["type"]])
        values = list(node.get("widgets_values") or [])
        inputs = take_widgets(kind, declared, values)
        assert not values, f"{kind} has {len(values)} widget values too many"
        for slot, item in enumerate(node["inputs"]):
            if item["link"] is None:
                continue
            number, source, output, target, target_slot, link_type = links[item["link"]]
            assert (target, target_slot) == (node["id"], slot)
            assert number in nodes[source]["outputs"][output]["links"]
            given, taken = infos[nodes[source]["type"]]["output"][output], declared[item["name"]][0]
            assert link_type == given == taken, (kind, item["name"], link_type, given, taken)
            inputs[item["name"]] = [str(source), output]
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs}
    return prompt
