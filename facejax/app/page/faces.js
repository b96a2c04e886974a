// Faces on the page: a box on the picture and a card next to it. Elements are reused from frame to frame, so that bars
// move smoothly and nothing loses focus. Text from networks and files is untrusted and only ever set as text.

// The colours of facejax/inference/drawing.py.
const HUES = ["#00c878", "#ffaa00", "#3c96ff", "#f05a8c", "#aa78ff", "#00c8dc", "#c8c83c"];
const PARTS = /** @type {const} */ ([
  ["perceived_gender", "Perceived gender"],
  ["perceived_ethnicity", "Perceived ethnicity"],
  ["expression", "Look of the expression"],
]);
const AXES = /** @type {const} */ ([
  ["valence", "pleasant"],
  ["arousal", "excited"],
]);

export class FaceList {
  /**
   * @param {HTMLElement} boxes  Overlay on the picture.
   * @param {HTMLElement} cards
   */
  constructor(boxes, cards) {
    this.boxes = boxes;
    this.cards = cards;
  }

  /**
   * Shows the faces of a photo or a frame.
   * @param {import("./engine.js").PhotoResult} result
   * @param {boolean} moving  Whether further frames follow.
   */
  show({ faces, width, height }, moving = false) {
    this.boxes.classList.toggle("moving", moving);
    fit(this.boxes, faces.length, () => this.#newBox());
    fit(this.cards, faces.length, () => this.#newCard());
    faces.forEach((face, index) => {
      const name = String(face.track ?? index + 1);
      const hue = HUES[(face.track ?? index) % HUES.length];
      const box = /** @type {HTMLElement} */ (this.boxes.children[index]);
      const card = /** @type {HTMLElement} */ (this.cards.children[index]);
      place(box, face.box, width, height);
      for (const part of [box, card]) part.style.setProperty("--hue", hue);
      box.tabIndex = moving ? -1 : 0;
      box.setAttribute("aria-label", `Face ${name}: ${summary(face)}`);
      /** @type {HTMLElement} */ (box.firstElementChild).textContent = name;
      fill(card, name, face);
    });
  }

  clear() {
    this.boxes.replaceChildren();
    this.cards.replaceChildren();
  }

  #newBox() {
    const box = make("button", "box");
    box.setAttribute("type", "button");
    box.append(make("span"));
    box.addEventListener("click", () => {
      const index = [...this.boxes.children].indexOf(box);
      const card = /** @type {HTMLElement} */ (this.cards.children[index]);
      card.scrollIntoView({ block: "nearest" });
      card.focus({ preventScroll: true });
    });
    return box;
  }

  #newCard() {
    const card = make("article", "face");
    card.tabIndex = -1;
    const mark = (/** @type {boolean} */ chosen) => {
      const index = [...this.cards.children].indexOf(card);
      for (const part of [card, this.boxes.children[index]]) part?.classList.toggle("chosen", chosen);
    };
    card.addEventListener("pointerenter", () => mark(true));
    card.addEventListener("pointerleave", () => mark(false));
    card.addEventListener("focusin", () => mark(true));
    card.addEventListener("focusout", () => mark(false));
    return card;
  }
}

/** A short description of a face, for screen readers and the status line. */
export function summary(/** @type {import("./engine.js").Face} */ face) {
  const words = [];
  if (face.perceived_age !== undefined) words.push(`perceived age ${face.perceived_age.toFixed(0)}`);
  for (const [key, title] of PARTS) {
    const part = face[key];
    if (part) words.push(`${title.toLowerCase()} ${readable(part.label)} ${percent(part.probability)}`);
  }
  for (const [key] of AXES) {
    const value = face[key];
    if (value !== undefined) words.push(`${key} ${signed(value)}`);
  }
  return words.join(", ") || "no attributes predicted";
}

/** Updates a card with the predictions for a face. */
function fill(/** @type {HTMLElement} */ card, /** @type {string} */ name, /** @type {import("./engine.js").Face} */ face) {
  const told = [...PARTS, ...AXES].filter(([key]) => face[key] !== undefined).map(([key]) => key);
  const shape = JSON.stringify([face.perceived_age !== undefined, told]);
  if (card.dataset.shape !== shape) {
    card.replaceChildren(...frame(face));
    card.dataset.shape = shape;
  }
  const set = (/** @type {string} */ part, /** @type {string} */ text) => {
    /** @type {HTMLElement} */ (card.querySelector(`[data-part="${part}"]`)).textContent = text;
  };
  card.setAttribute("aria-label", `Face ${name}`);
  set("name", `Face ${name}`);
  set("score", `detection score ${percent(face.score)}`);
  if (face.perceived_age !== undefined) set("age", face.perceived_age.toFixed(0));
  const rows = card.querySelectorAll("dl");
  let list = 0;
  for (const [key] of PARTS) {
    const part = face[key];
    if (part) fillBars(rows[list++], part);
  }
  if (rows[list]) fillAxes(rows[list], face);
}

/** The elements of a card without their values. */
function frame(/** @type {import("./engine.js").Face} */ face) {
  const heading = make("h2");
  heading.append(marked("span", "name"), marked("small", "score"));
  const parts = [heading];
  if (face.perceived_age !== undefined) {
    const age = make("p", "age");
    age.append(marked("span", "age"), text("small", " years, perceived age"));
    parts.push(age);
  }
  for (const [key, title] of PARTS) {
    const part = face[key];
    if (part) parts.push(text("h3", title), bars(Object.keys(part.probabilities).map(readable)));
  }
  const axes = AXES.filter(([key]) => face[key] !== undefined);
  if (axes.length) {
    parts.push(text("h3", "Valence and arousal (how the expression looks)"), bars(axes.map(([, words]) => words), "signed"));
  }
  return parts;
}

/** A list of labels, bars and values. */
function bars(/** @type {string[]} */ labels, kind = "") {
  const list = make("dl", "bars");
  for (const label of labels) {
    const bar = make("dd", `bar ${kind}`);
    bar.setAttribute("aria-hidden", "true");
    bar.append(make("i"));
    list.append(text("dt", label), bar, make("dd", "value"));
  }
  return list;
}

function fillBars(/** @type {HTMLElement} */ list, /** @type {import("./engine.js").Classification} */ part) {
  Object.entries(part.probabilities).forEach(([label, probability], index) => {
    const [name, bar, value] = [0, 1, 2].map((k) => /** @type {HTMLElement} */ (list.children[index * 3 + k]));
    for (const cell of [name, value]) cell.classList.toggle("best", label === part.label);
    /** @type {HTMLElement} */ (bar.firstElementChild).style.width = percent(probability, 1);
    value.textContent = percent(probability);
  });
}

function fillAxes(/** @type {HTMLElement} */ list, /** @type {import("./engine.js").Face} */ face) {
  AXES.filter(([key]) => face[key] !== undefined).forEach(([key], index) => {
    const number = face[key] ?? 0;
    const [bar, value] = [1, 2].map((k) => /** @type {HTMLElement} */ (list.children[index * 3 + k]));
    const reach = Math.min(Math.abs(number), 1) / 2;
    const line = /** @type {HTMLElement} */ (bar.firstElementChild);
    line.style.left = percent(number < 0 ? 0.5 - reach : 0.5, 1);
    line.style.width = percent(reach, 1);
    value.textContent = signed(number);
  });
}

function place(
  /** @type {HTMLElement} */ element,
  /** @type {number[]} */ [x1, y1, x2, y2],
  /** @type {number} */ width,
  /** @type {number} */ height,
) {
  const [left, right] = [Math.max(x1, 0), Math.min(x2, width)];
  const [top, bottom] = [Math.max(y1, 0), Math.min(y2, height)];
  element.style.left = percent(left / width, 3);
  element.style.top = percent(top / height, 3);
  element.style.width = percent((right - left) / width, 3);
  element.style.height = percent((bottom - top) / height, 3);
  // There is no room above it for the number.
  element.classList.toggle("top", top / height < 0.08);
}

/** Adds or removes children until there are `count`. */
function fit(/** @type {HTMLElement} */ parent, /** @type {number} */ count, /** @type {() => HTMLElement} */ create) {
  while (parent.children.length > count) parent.lastElementChild?.remove();
  while (parent.children.length < count) parent.append(create());
}

function make(/** @type {string} */ tag, className = "") {
  const element = document.createElement(tag);
  if (className) element.className = className.trim();
  return element;
}

function text(/** @type {string} */ tag, /** @type {string} */ words) {
  const element = make(tag);
  element.textContent = words;
  return element;
}

function marked(/** @type {string} */ tag, /** @type {string} */ part) {
  const element = make(tag);
  element.dataset.part = part;
  return element;
}

const readable = (/** @type {string} */ label) => label.replaceAll("_", " ");
const percent = (/** @type {number} */ part, digits = 0) => `${(part * 100).toFixed(digits)}%`;
const signed = (/** @type {number} */ value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
