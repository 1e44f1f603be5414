// Copies the pictures of an example workflow from web/samples into ComfyUI's input folder when the workflow is opened.
// A file that is already there is never overwritten.

const SAMPLE = /^scsnet_[a-z0-9_]+\.(?:jpg|mp4)$/;

function listSamples(graph) {
  const nodes = [...(graph?.nodes ?? []), ...(graph?.definitions?.subgraphs ?? []).flatMap(({ nodes }) => nodes ?? [])];
  const values = nodes.filter(({ type }) => /^Load(Image|ImageMask|Video)$/.test(type)).map((node) => node.widgets_values?.[0]);
  return [...new Set(values)].filter((value) => typeof value === "string" && SAMPLE.test(value));
}

async function exists(api, name) {
  const query = new URLSearchParams({ filename: name, type: "input" });
  return (await api.fetchApi(`/view?${query}`, { method: "HEAD" })).ok;
}

async function copy(api, name) {
  const sample = await fetch(new URL(`samples/${name}`, import.meta.url));
  if (!sample.ok) return false; // a user's own picture with such a name
  const body = new FormData();
  body.append("image", new File([await sample.blob()], name));
  body.append("type", "input");
  return (await api.fetchApi("/upload/image", { method: "POST", body })).ok;
}

/** Copy the missing sample pictures of a workflow into the input folder; returns their names. */
export async function provideSamples(api, graph) {
  const copied = [];
  for (const name of listSamples(graph)) {
    if (!(await exists(api, name)) && (await copy(api, name))) copied.push(name);
  }
  return copied;
}

/** Add the new files to the lists of loader nodes that exist already. */
export function offerSamples(nodes, names) {
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      const values = widget.options?.values;
      if (!Array.isArray(values) || !/^Load(Image|ImageMask|Video)$/.test(node.type ?? node.comfyClass)) continue;
      for (const name of names) if (!values.includes(name) && widget.name !== "upload") values.push(name);
    }
  }
}
