// A picker for points on a picture, kept as text: "x, y; x, y" in fractions of its width and height.
// It does not depend on ComfyUI: the caller passes functions that read and write the text.

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)";
const PAIR = new RegExp(`(${NUMBER})\\s*,\\s*(${NUMBER})`, "g");
// One colour per point, as in the figures (scsnet/attention_figures.py).
export const COLORS = ["#ff3b30", "#34c759", "#0a84ff", "#ffcc00", "#bf5af2", "#ff9f0a", "#64d2ff", "#ff6482"];

const WORDS = {
  en: {
    hint: "click: add · drag: move · right click: remove",
    linked: "the points come from the node that is connected",
    empty: "Connect a picture upstream, or run once: it appears here, and you click the points to look at.",
  },
  zh: {
    hint: "单击：添加 · 拖动：移动 · 右键：删除",
    linked: "点由所连接的节点给出",
    empty: "在上游连接图片，或先运行一次：图片会显示在这里，然后单击要查看的点。",
  },
};

export function parsePoints(text) {
  return [...String(text ?? "").matchAll(PAIR)].map(([, x, y]) => ({ x: clamp(Number(x)), y: clamp(Number(y)) }));
}

export function formatPoints(points) {
  return points.map(({ x, y }) => `${x.toFixed(3)}, ${y.toFixed(3)}`).join("; ");
}

export function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

const STYLE = `
.scsnet-points { position: relative; width: 100%; height: 100%; min-height: 120px; overflow: hidden; box-sizing: border-box;
  display: flex; flex-direction: column; align-items: center; justify-content: center; border-radius: 6px;
  background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); font: 12px sans-serif; user-select: none; touch-action: none; }
.scsnet-points-stage { position: relative; flex: none; cursor: crosshair; }
.scsnet-points-stage img { width: 100%; height: 100%; display: block; pointer-events: none; -webkit-user-drag: none; }
.scsnet-points-mark { position: absolute; width: 16px; height: 16px; margin: -8px 0 0 -8px; border-radius: 50%; cursor: grab;
  border: 2px solid #fff; box-shadow: 0 0 3px #000; box-sizing: border-box; color: #fff; font: bold 9px/12px sans-serif;
  text-align: center; text-shadow: 0 0 2px #000, 0 0 2px #000; }
.scsnet-points-foot { flex: none; display: flex; align-items: center; gap: 4px; padding: 2px 4px; font-size: 11px; }
.scsnet-points-hint { text-align: center; }
.scsnet-points-empty { padding: 12px; text-align: center; }`;

/**
 * Shows a picture: a click adds a point, dragging moves it, a right click removes it.
 * read() returns the text, or null where a link provides it; write(text) changes it.
 * A subclass may have points with more than x and y: see parse, format and create.
 */
export class PointPicker {
  constructor({ read, write, language, words = WORDS }) {
    this.words = words[language] ?? words.en;
    this.read = read;
    this.write = write;
    this.url = null;
    this.dragged = -1;
    if (!document.getElementById("scsnet-points-style")) {
      const style = document.createElement("style");
      style.id = "scsnet-points-style";
      style.textContent = STYLE;
      document.head.append(style);
    }
    this.element = createElement("div", "scsnet-points");
    this.empty = createElement("div", "scsnet-points-empty");
    this.empty.textContent = this.words.empty;
    this.stage = createElement("div", "scsnet-points-stage");
    this.picture = new Image();
    this.picture.draggable = false;
    this.marks = createElement("div", "scsnet-points-marks");
    this.hint = createElement("div", "scsnet-points-hint");
    this.stage.append(this.picture, this.marks);
    this.foot = createElement("div", "scsnet-points-foot");
    this.foot.append(this.hint);
    this.element.append(this.empty, this.stage, this.foot);
    this.picture.addEventListener("load", () => this.layOut());
    this.picture.addEventListener("error", () => {
      this.failed = Date.now();
      this.setVisible(false);
    });
    this.resizes = new ResizeObserver(() => this.layOut());
    this.resizes.observe(this.element);
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, (event) => this.release(event));
    this.stage.addEventListener("contextmenu", (event) => this.remove(event));
    this.show(null);
  }

  parse(text) {
    return parsePoints(text);
  }

  format(points) {
    return formatPoints(points);
  }

  /** The new point of a click. */
  create(place) {
    return place;
  }

  /** Colour and label of a point's mark. */
  describe(point, number) {
    return { color: COLORS[number % COLORS.length], label: number + 1 };
  }

  destroy() {
    this.resizes.disconnect();
  }

  /**
   * After undo, and in a new subgraph, frontends that draw nodes as elements show the picker of another copy of the node: put this one in
   * its place, in the element of the node of this id.
   */
  takePlace(id) {
    if (this.element.isConnected) return;
    document.querySelector(`[data-node-id="${id}"] .scsnet-points`)?.replaceWith(this.element);
  }

  /** Show the picture at this address; null for none. */
  show(url) {
    this.url = url;
    this.failed = 0;
    if (url) this.picture.src = url;
    this.setVisible(Boolean(url));
    this.refresh();
  }

  /** Show the address if it has changed, or if it failed more than five seconds ago: the file may have been uploaded since. */
  update(url) {
    if (url !== this.url || (this.failed && Date.now() - this.failed > 5000)) this.show(url);
  }

  setVisible(visible) {
    this.empty.style.display = visible ? "none" : "";
    this.stage.style.display = this.hint.style.display = visible ? "" : "none";
  }

  /** Give the picture the largest size that fits, in layout pixels, which do not depend on the canvas' zoom. */
  layOut() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const room = this.element.clientHeight - this.foot.offsetHeight;
    const scale = Math.min(this.element.clientWidth / width, room / height);
    if (!this.url || !Number.isFinite(scale) || scale <= 0) return;
    this.stage.style.width = `${Math.floor(width * scale)}px`;
    this.stage.style.height = `${Math.floor(height * scale)}px`;
    this.refresh();
  }

  /** Draw the marks of the current text. */
  refresh() {
    this.text = this.read();
    this.hint.textContent = this.text === null ? this.words.linked : this.words.hint;
    this.marks.replaceChildren(
      ...this.parse(this.text).map((point, number) => {
        const mark = createElement("div", "scsnet-points-mark");
        const { color, label } = this.describe(point, number);
        mark.dataset.number = number;
        mark.style.left = `${100 * point.x}%`;
        mark.style.top = `${100 * point.y}%`;
        mark.style.background = color;
        mark.textContent = label;
        return mark;
      }),
    );
  }

  /** Draw the marks again where the text was changed elsewhere. */
  follow() {
    if (this.dragged < 0 && this.read() !== this.text) this.refresh();
  }

  change(points) {
    this.write(this.format(points));
    this.refresh();
  }

  /** The position of a pointer event, in fractions of the picture. */
  locate(event) {
    const box = this.stage.getBoundingClientRect(); // in screen pixels, zoom included
    return { x: clamp((event.clientX - box.left) / box.width), y: clamp((event.clientY - box.top) / box.height) };
  }

  press(event) {
    event.stopPropagation();
    // No preventDefault: the frontend records changes for undo at the mouse event that follows.
    if (event.button !== 0 || this.read() === null) return;
    const mark = event.target.closest(".scsnet-points-mark");
    const points = this.parse(this.read());
    if (mark) {
      this.dragged = Number(mark.dataset.number);
    } else {
      this.dragged = points.length;
      this.change([...points, this.create(this.locate(event))]);
    }
    this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (this.dragged < 0) return;
    event.stopPropagation();
    const points = this.parse(this.read());
    if (this.dragged >= points.length) return; // the text has changed meanwhile
    points[this.dragged] = { ...points[this.dragged], ...this.locate(event) };
    this.change(points);
  }

  release(event) {
    if (this.dragged < 0) return;
    event.stopPropagation();
    this.dragged = -1;
    if (this.stage.hasPointerCapture(event.pointerId)) this.stage.releasePointerCapture(event.pointerId);
  }

  remove(event) {
    event.preventDefault();
    event.stopPropagation();
    const mark = event.target.closest(".scsnet-points-mark");
    if (mark) this.change(this.parse(this.read()).filter((_, number) => number !== Number(mark.dataset.number)));
  }
}

export function createElement(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}
