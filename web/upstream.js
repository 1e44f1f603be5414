// Which picture a node works on, found by walking the graph towards its inputs.

/** The node that feeds the input of this name, through reroute nodes; null where there is none. */
export function feeder(node, input) {
  if (!node?.graph) return null; // not placed yet: newer frontends throw when it is asked for its links
  const slot = node.inputs?.findIndex(({ name }) => name === input) ?? -1;
  let origin = slot < 0 ? null : node.getInputNode(slot);
  for (let hops = 0; origin?.type === "Reroute" && hops < 100; hops++) origin = origin.getInputNode(0);
  return origin ?? null;
}

/** The /view query of a LoadImage-like value such as "folder/photo.png [output]". */
export function viewQuery(value) {
  const [, path, type = "input"] = value.match(/^(.*?)(?: \[(input|output|temp)\])?$/);
  const cut = path.lastIndexOf("/") + 1;
  return new URLSearchParams({ filename: path.slice(cut), subfolder: path.slice(0, Math.max(0, cut - 1)), type });
}

/** Query of the picture that a node which loads one has chosen; null for any other node. */
export function chosenPicture(node) {
  const widget = node?.widgets?.find(({ name }) => name === "image");
  return typeof widget?.value === "string" && widget.value ? viewQuery(widget.value) : null;
}
