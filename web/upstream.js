// Finds the picture that a node works on by walking the graph towards its inputs.

const SUBGRAPH_INPUT = -10; // origin id of links that come from the border of a subgraph

/** The graphs that nodes may be in: the workflow's own and those of its subgraphs. */
function graphsOf(graph) {
  const root = graph.rootGraph ?? graph;
  return [root, ...(root.subgraphs?.values?.() ?? [])];
}

/** The link of this id; null where there is none. */
function linkOf(graph, id) {
  return !graph || id == null ? null : (graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id] ?? null);
}

/** The node where a link begins, beyond reroutes and the borders of subgraphs; null for none. */
function sourceOf(graph, id, hops = 100) {
  const link = linkOf(graph, id);
  if (!link || hops <= 0) return null;
  if (link.origin_id === SUBGRAPH_INPUT) {
    // Out of the subgraph, through the first node that stands for it.
    const outer = graphsOf(graph).flatMap((other) => other.nodes ?? other._nodes ?? []);
    const holder = outer.find(({ subgraph }) => subgraph === graph);
    return sourceOf(holder?.graph, holder?.inputs?.[link.origin_slot]?.link, hops - 1);
  }
  const node = graph.getNodeById(link.origin_id);
  if (node?.type === "Reroute") return sourceOf(graph, node.inputs[0].link, hops - 1);
  if (node?.subgraph) return sourceOf(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds?.[0], hops - 1);
  return node ?? null;
}

/** The node that feeds the input of this name, beyond reroutes and the borders of subgraphs; null for none. */
export function feeder(node, input) {
  // A node that is not placed yet has no graph; newer frontends throw when it is asked for its links.
  return sourceOf(node?.graph, node?.inputs?.find(({ name }) => name === input)?.link);
}

/** The /view query of a LoadImage-like value such as "folder/photo.png [output]". */
export function viewQuery(value) {
  const [, path, type = "input"] = value.match(/^(.*?)(?: \[(input|output|temp)\])?$/);
  const cut = path.lastIndexOf("/") + 1;
  return new URLSearchParams({ filename: path.slice(cut), subfolder: path.slice(0, Math.max(0, cut - 1)), type });
}

/** The /view query of the picture that a loader node has chosen; null for any other node. */
export function chosenPicture(node) {
  const widget = node?.widgets?.find(({ name }) => name === "image");
  return typeof widget?.value === "string" && widget.value ? viewQuery(widget.value) : null;
}
