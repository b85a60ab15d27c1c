/* Answers of a model as HTML. Their text is data: one sanitiser, an allow-list, nothing loaded from anywhere. */

const TAGS = [
  "p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li",
  "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a",
];
const RULES = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", "title", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

function escaped(text) {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

let parser = null;

function markdown() {
  if (parser === null && window.marked && window.DOMPurify) {
    parser = new window.marked.Marked({ gfm: true, breaks: true });
    parser.use({
      renderer: {
        // Markup in an answer is shown as it was written; a picture as its description.
        html: ({ text }) => escaped(text),
        image: ({ text, href }) => escaped(`[${text || "image"}: ${href}]`),
      },
    });
  }
  return parser;
}

function asFragment(text) {
  const fragment = window.DOMPurify.sanitize(markdown().parse(text), RULES);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const block of fragment.querySelectorAll("pre, table")) {
    block.tabIndex = 0; // wide ones scroll, by keyboard too
  }
  return fragment;
}

/** The text that an element shows, as it was written. */
export const sources = new WeakMap();

/** Show `text` as markdown inside `element`; as plain text when it cannot be parsed. */
export function render(element, text) {
  sources.set(element, text);
  if (!markdown()) {
    element.textContent = text;
    return;
  }
  let fragment;
  try {
    fragment = asFragment(text);
  } catch {
    element.textContent = text;
    element.classList.remove("markdown");
    return;
  }
  element.classList.add("markdown");
  element.replaceChildren(fragment);
}

/** Renders growing texts: at most once a frame, and less often when one takes long to render. */
export class Painter {
  #waiting = new Map();
  #rest = new Map();
  #frame = 0;

  constructor(painted = () => {}) {
    this.painted = painted;
  }

  paint(element, text) {
    this.#waiting.set(element, text);
    this.#frame ||= requestAnimationFrame((now) => this.#draw(now));
  }

  #draw(now) {
    this.#frame = 0;
    for (const [element, text] of [...this.#waiting]) {
      if (now < (this.#rest.get(element) ?? 0)) continue;
      this.#waiting.delete(element);
      const begun = performance.now();
      render(element, text);
      const cost = performance.now() - begun;
      this.#rest.set(element, cost > 4 ? begun + cost * 10 : 0);
    }
    this.painted();
    if (this.#waiting.size) this.#frame = requestAnimationFrame((later) => this.#draw(later));
  }
}
