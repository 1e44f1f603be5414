// A picker for colour hints, kept as text: "x, y #rrggbb radius strength" on a line each.
import { PointPicker, clamp, createElement } from "./points.js";

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)";
const HINT = new RegExp(`(${NUMBER})\\s*,\\s*(${NUMBER})\\s*(#[0-9a-fA-F]{6}|#[0-9a-fA-F]{3})([^;\\n]*)`, "g");

// Drawn, since few fonts have a sign for it.
const DROPPER = `<svg width="14" height="14" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5"
  stroke-linecap="round"><path d="M9 4l3 3M10 5l-7 7v2h2l7-7M10 3l1.5-1a1.8 1.8 0 0 1 2.5 2.5L13 6"/></svg>`;

const WORDS = {
  en: {
    hint: "click: this colour here · drag: move · click a hint: take its colour · right click: remove",
    linked: "the hints come from the node that is connected",
    empty: "Connect a picture upstream, or run once: it appears here. Choose a colour and click where it belongs.",
    eyedropper: "pick the colour from any picture on the screen",
    color: "colour of the next hint",
  },
  zh: {
    hint: "单击：在此处使用该颜色 · 拖动：移动 · 单击提示：取其颜色 · 右键：删除",
    linked: "颜色提示由所连接的节点给出",
    empty: "在上游连接图片，或先运行一次：图片会显示在这里。选择颜色，再单击它所属的位置。",
    eyedropper: "从屏幕上任意图片取色",
    color: "下一个提示的颜色",
  },
};

export function parseHints(text) {
  return [...String(text ?? "").matchAll(HINT)].map(([, x, y, color, rest]) => ({
    x: clamp(Number(x)),
    y: clamp(Number(y)),
    color,
    rest: rest.trim(),
  }));
}

export function formatHints(hints) {
  return hints
    .map(({ x, y, color, rest }) => `${x.toFixed(3)}, ${y.toFixed(3)} ${color}${rest ? ` ${rest}` : ""}`)
    .join("\n");
}

/** The picture, and below it a swatch and, where the browser has one, an eyedropper. */
export class HintPicker extends PointPicker {
  constructor(options) {
    super({ ...options, words: WORDS });
    this.swatch = createElement("input", "scsnet-hints-color");
    this.swatch.type = "color";
    this.swatch.value = "#6b4a2b";
    this.swatch.title = this.words.color;
    this.swatch.style.cssText = "flex: none; width: 36px; height: 22px;";
    const tools = [this.swatch];
    if (window.EyeDropper) {
      const dropper = createElement("button", "scsnet-hints-dropper");
      dropper.type = "button";
      dropper.innerHTML = DROPPER;
      dropper.title = this.words.eyedropper;
      dropper.style.cssText = "flex: none; height: 22px; padding: 0 4px; display: flex; align-items: center;";
      dropper.addEventListener("click", () => this.pick());
      tools.push(dropper);
    }
    for (const kind of ["pointerdown", "mousedown"]) this.foot.addEventListener(kind, (event) => event.stopPropagation());
    this.foot.prepend(...tools);
  }

  parse(text) {
    return parseHints(text);
  }

  format(hints) {
    return formatHints(hints);
  }

  create(place) {
    return { ...place, color: this.swatch.value, rest: "" };
  }

  describe({ color }) {
    return { color, label: "" };
  }

  press(event) {
    const mark = event.target.closest(".scsnet-points-mark");
    const hint = mark && this.parse(this.read())[Number(mark.dataset.number)];
    if (hint?.color.length === 7) this.swatch.value = hint.color;
    super.press(event);
  }

  /** Take a colour from anywhere on the screen; the browser rejects if the user gives up. */
  async pick() {
    try {
      this.swatch.value = (await new window.EyeDropper().open()).sRGBHex;
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }
}
