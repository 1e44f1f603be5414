// SCSNet in ComfyUI's frontend: pickers on AttentionMapViz and SCSColorHints, and the sample pictures of the example workflows.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { HintPicker } from "./hints.js";
import { PointPicker } from "./points.js";
import { offerSamples, provideSamples } from "./samples.js";
import { chosenPicture, feeder } from "./upstream.js";

const NAME = "scsnet.nodes";
const HEIGHT = 240;
// The text that a picker edits, its class, and the inputs that lead to the picture.
const PICKERS = {
  AttentionMapViz: { text: "points", Picker: PointPicker, path: ["attention", "image"] },
  SCSColorHints: { text: "hints", Picker: HintPicker, path: ["image"] },
};

/** Address of the source picture: that of the loader upstream, else that of the last run. */
function sourceUrl(node, path) {
  const loader = path.reduce((found, input) => feeder(found, input), node);
  const query = chosenPicture(loader) ?? (node.scsnetSource && new URLSearchParams(node.scsnetSource));
  if (query) return api.apiURL(`/view?${query}`);
  return loader?.imgs?.[0]?.src ?? null;
}

function addPicker(node, { text: name, Picker, path }) {
  const text = node.widgets?.find((widget) => widget.name === name);
  if (!text) return;
  const linked = () => node.inputs?.some(({ widget, link }) => widget?.name === name && link != null);
  const picker = new Picker({
    read: () => (linked() ? null : text.value),
    write: (value) => {
      text.value = value;
      text.callback?.(value);
      node.graph?.setDirtyCanvas(true, true);
    },
    language: app.extensionManager?.setting?.get("Comfy.Locale"),
  });
  const widget = node.addDOMWidget(`${name}_picker`, "scsnet_points", picker.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT,
  });
  widget.serialize = false; // in workflow files too: the text holds the points
  const update = () => {
    if (node.graph && node.graph === app.canvas?.graph) picker.takePlace(node.id);
    picker.update(sourceUrl(node, path));
    picker.follow();
  };
  // Links, loaders and the text change in many ways, with different events in each frontend; polling is cheap.
  const timer = setInterval(update, 300);
  const removed = node.onRemoved;
  node.onRemoved = function (...rest) {
    clearInterval(timer);
    picker.destroy();
    return removed?.apply(this, rest);
  };
  node.setSize([Math.max(node.size[0], 340), Math.max(node.size[1], node.computeSize()[1])]);
}

const extension = {
  name: NAME,

  async beforeConfigureGraph(graph) {
    try {
      this.copied = await provideSamples(api, graph);
    } catch (error) {
      console.warn(`${NAME}: the sample pictures could not be copied into the input folder`, error);
    }
  },

  async afterConfigureGraph() {
    if (this.copied?.length) offerSamples(app.graph.nodes ?? app.graph._nodes, this.copied);
  },

  async beforeRegisterNodeDef(nodeType, nodeData) {
    const settings = PICKERS[nodeData.name];
    if (!settings) return;
    const { onNodeCreated, onExecuted } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...rest) {
      const result = onNodeCreated?.apply(this, rest);
      addPicker(this, settings);
      return result;
    };
    nodeType.prototype.onExecuted = function (output, ...rest) {
      this.scsnetSource = output?.scsnet_source?.[0] ?? this.scsnetSource;
      return onExecuted?.call(this, output, ...rest);
    };
  },
};

// The frontend refuses a second extension of the same name, as a second copy of the pack would register.
if (!app.extensions?.some(({ name }) => name === NAME)) app.registerExtension(extension);
