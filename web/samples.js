// The pictures that the example workflows load. They ship in web/samples and are copied into ComfyUI's input folder
// when such a workflow is opened and the folder lacks them; never before, and never over a file that is there.

const SAMPLE = /^scsnet_[a-z0-9_]+\.(?:jpg|mp4)$/;

function wanted(graph) {
  const nodes = [...(graph?.nodes ?? []), ...(graph?.definitions?.subgraphs ?? []).flatMap(({ nodes }) => nodes ?? [])];
  const values = nodes.filter(({ type }) => /^Load(Image|ImageMask|Video)$/.test(type)).map((node) => node.widgets_values?.[0]);
  return [...new Set(values)].filter((value) => typeof value === "string" && SAMPLE.test(value));
}

async function present(api, name) {
  const query = new URLSearchParams({ filename: name, type: "input" });
  return (await api.fetchApi(`/view?${query}`, { method: "HEAD" })).ok;
}

async function copy(api, name) {
  const sample = await fetch(new URL(`samples/${name}`, import.meta.url));
  if (!sample.ok) return false; // a picture of the user's own that happens to have such a name
  const body = new FormData();
  body.append("image", new File([await sample.blob()], name));
  body.append("type", "input");
  return (await api.fetchApi("/upload/image", { method: "POST", body })).ok;
}

/** Bring the missing sample pictures of a workflow into the input folder; the names of those that came. */
export async function provideSamples(api, graph) {
  const came = [];
  for (const name of wanted(graph)) {
    if (!(await present(api, name)) && (await copy(api, name))) came.push(name);
  }
  return came;
}

/** Let the choosers that exist already offer the new files. */
export function offerSamples(nodes, names) {
  for (const node of nodes) {
    for (const widget of node.widgets ?? []) {
      const values = widget.options?.values;
      if (!Array.isArray(values) || !/^Load(Image|ImageMask|Video)$/.test(node.type ?? node.comfyClass)) continue;
      for (const name of names) if (!values.includes(name) && widget.name !== "upload") values.push(name);
    }
  }
}
