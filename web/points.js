// Points on a picture, "x, y; x, y" in fractions of its width and height, and the element they are picked on.
// Nothing of ComfyUI in here: the caller hands in how the text is read and written.

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)";
const PAIR = new RegExp(`(${NUMBER})\\s*,\\s*(${NUMBER})`, "g");
// One colour per point, the same as in the figures (scsnet/figures.py).
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

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

const STYLE = `
.scsnet-points { position: relative; width: 100%; height: 100%; min-height: 120px; overflow: hidden; box-sizing: border-box;
  display: flex; align-items: center; justify-content: center; border-radius: 6px; background: rgba(0, 0, 0, 0.35);
  color: #bbb; font: 12px sans-serif; user-select: none; touch-action: none; }
.scsnet-points-stage { position: relative; flex: none; cursor: crosshair; }
.scsnet-points-stage img { width: 100%; height: 100%; display: block; pointer-events: none; -webkit-user-drag: none; }
.scsnet-points-mark { position: absolute; width: 16px; height: 16px; margin: -8px 0 0 -8px; border-radius: 50%; cursor: grab;
  border: 2px solid #fff; box-shadow: 0 0 3px #000; box-sizing: border-box; color: #fff; font: bold 9px/12px sans-serif;
  text-align: center; text-shadow: 0 0 2px #000, 0 0 2px #000; }
.scsnet-points-hint { position: absolute; left: 0; right: 0; bottom: 2px; text-align: center; pointer-events: none;
  text-shadow: 0 0 3px #000, 0 0 3px #000; color: #ddd; font-size: 11px; }
.scsnet-points-empty { padding: 12px; text-align: center; }`;

/**
 * A picture to click on: a click adds a point, dragging moves it, a right click on it removes it.
 * read() gives the text, null where it is not the user's to change; write(text) changes it.
 */
export class PointPicker {
  constructor({ read, write, language }) {
    this.words = WORDS[language] ?? WORDS.en;
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
    this.element = make("div", "scsnet-points");
    this.empty = make("div", "scsnet-points-empty");
    this.empty.textContent = this.words.empty;
    this.stage = make("div", "scsnet-points-stage");
    this.picture = new Image();
    this.picture.draggable = false;
    this.marks = make("div", "scsnet-points-marks");
    this.hint = make("div", "scsnet-points-hint");
    this.stage.append(this.picture, this.marks);
    this.element.append(this.empty, this.stage, this.hint);
    this.picture.addEventListener("load", () => this.layOut());
    this.picture.addEventListener("error", () => {
      this.broken = Date.now();
      this.reveal(false);
    });
    this.resizes = new ResizeObserver(() => this.layOut());
    this.resizes.observe(this.element);
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, (event) => this.release(event));
    this.stage.addEventListener("contextmenu", (event) => this.remove(event));
    this.show(null);
  }

  destroy() {
    this.resizes.disconnect();
    this.element.dataset.stale = "";
  }

  /** Undo makes a node anew under its old id, and frontends that draw nodes as elements go on showing the old picker. */
  replaceStale(id) {
    this.element.dataset.node = id;
    if (this.element.isConnected) return;
    document.querySelector(`.scsnet-points[data-stale][data-node="${id}"]`)?.replaceWith(this.element);
  }

  /** The picture at this address; null: none yet. */
  show(url) {
    this.url = url;
    this.broken = 0;
    if (url) this.picture.src = url;
    this.reveal(Boolean(url));
    this.refresh();
  }

  /** Follow the address; one that gave no picture is tried again after a while, for it may have been uploaded since. */
  look(url) {
    if (url !== this.url || (this.broken && Date.now() - this.broken > 5000)) this.show(url);
  }

  reveal(there) {
    this.empty.style.display = there ? "none" : "";
    this.stage.style.display = this.hint.style.display = there ? "" : "none";
  }

  /** The largest size of the picture's shape that fits; offsets are layout pixels, whatever the canvas' zoom. */
  layOut() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const scale = Math.min(this.element.clientWidth / width, this.element.clientHeight / height);
    if (!this.url || !Number.isFinite(scale) || scale <= 0) return;
    this.stage.style.width = `${Math.floor(width * scale)}px`;
    this.stage.style.height = `${Math.floor(height * scale)}px`;
    this.refresh();
  }

  /** Draw the marks of the text as it is now. */
  refresh() {
    this.shown = this.read();
    this.hint.textContent = this.shown === null ? this.words.linked : this.words.hint;
    this.marks.replaceChildren(
      ...parsePoints(this.shown).map(({ x, y }, number) => {
        const mark = make("div", "scsnet-points-mark");
        mark.dataset.number = number;
        mark.style.left = `${100 * x}%`;
        mark.style.top = `${100 * y}%`;
        mark.style.background = COLORS[number % COLORS.length];
        mark.textContent = number + 1;
        return mark;
      }),
    );
  }

  /** Follow a text that somebody else has changed. */
  follow() {
    if (this.dragged < 0 && this.read() !== this.shown) this.refresh();
  }

  change(points) {
    this.write(formatPoints(points));
    this.refresh();
  }

  at(event) {
    const box = this.stage.getBoundingClientRect(); // as seen on the screen, zoom included
    return { x: clamp((event.clientX - box.left) / box.width), y: clamp((event.clientY - box.top) / box.height) };
  }

  press(event) {
    event.stopPropagation();
    // Not prevented: the frontend looks for changes, which undo takes back, at the mouse event that follows.
    if (event.button !== 0 || this.read() === null) return;
    const mark = event.target.closest(".scsnet-points-mark");
    const points = parsePoints(this.read());
    if (mark) {
      this.dragged = Number(mark.dataset.number);
    } else {
      this.dragged = points.length;
      this.change([...points, this.at(event)]);
    }
    this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (this.dragged < 0) return;
    event.stopPropagation();
    const points = parsePoints(this.read());
    if (this.dragged >= points.length) return; // the text has changed meanwhile
    points[this.dragged] = this.at(event);
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
    if (mark) this.change(parsePoints(this.read()).filter((_, number) => number !== Number(mark.dataset.number)));
  }
}

function make(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}
