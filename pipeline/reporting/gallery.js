"use strict";
// What the galleries of all pages share: cards built when scrolled to, and photos shown large.
const byId = (id) => document.getElementById(id);

// Untrusted text is inserted as text, never as HTML.
const createElement = (name, text = "", className = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
};
// The same for text that people wrote, in whatever direction its script runs.
const createText = (name, text, className = "") => {
  const element = createElement(name, text, className);
  element.dir = "auto";
  return element;
};

// Make a click on a photo, or Enter, show it large; Escape or a click closes it.
const makeEnlargeable = (image) => {
  const button = createElement("button", "", "photo");
  button.type = "button";
  button.title = "Show large";
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const dialog = byId("enlarged");
    const [, large, caption] = dialog.children;
    large.src = image.src;
    large.alt = image.alt;
    // No larger than three times its pixels: beyond that there is only blur.
    large.style.width = `${3 * image.naturalWidth}px`;
    caption.textContent = image.alt;
    dialog.showModal();
  });
};

// Keep `cards` filled with the cards of the photos that match, in order.
const makeGallery = (photos, { controls, buildCard, matcher, orders }) => {
  // Building a thousand cards at once would keep a phone busy.
  const BATCH_SIZE = 48;
  const [cards, more, count, none, order] = ["cards", "more", "count", "none", "order"].map(byId);
  let matches = [];
  const observer = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) addCards();
    },
    { rootMargin: "1200px" },
  );
  const addCards = () => {
    const start = cards.childElementCount;
    cards.append(...matches.slice(start, start + BATCH_SIZE).map(buildCard));
    // Observing it again makes the observer report whether the end is still near.
    observer.unobserve(more);
    if (cards.childElementCount < matches.length) observer.observe(more);
    const rest = matches.length - cards.childElementCount;
    more.textContent = rest ? `${rest.toLocaleString("en")} more: scroll to the end before printing.` : "";
  };
  const update = () => {
    matches = photos.filter(matcher()).sort(orders[order.value]);
    count.textContent = `${matches.length.toLocaleString("en")} of ${photos.length.toLocaleString("en")}`;
    none.hidden = matches.length > 0;
    cards.replaceChildren();
    addCards();
  };
  for (const control of controls) control.addEventListener("input", update);
  order.addEventListener("change", update);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").hidden = false;
  update();
};

// A test of a number by two fields, each of which may be empty.
const rangeTest = (lowest, highest) => {
  const [low, high] = [lowest, highest].map((field) => field.valueAsNumber);
  return (value) => !(value < low) && !(value > high);
};

const splitWords = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

for (const image of document.querySelectorAll("article > img")) makeEnlargeable(image);
byId("enlarged").addEventListener("click", (event) => event.currentTarget.close());
