"use strict";
{
  // Cards are built when scrolled to: building a thousand at once would keep a phone busy.
  const BATCH_SIZE = 48;
  const byId = (id) => document.getElementById(id);
  const [cards, more, query, order, count] = ["cards", "more", "query", "order", "count"].map(byId);
  const [cardTemplate, frameTemplate] = ["card", "attention-frame"].map((id) => byId(id).content.firstElementChild);
  const photos = JSON.parse(byId("data").textContent);
  for (const photo of photos) {
    const captions = photo.captions.map(([, caption]) => caption);
    photo.text = [photo.id, ...captions, ...photo.references].join("\n").toLowerCase();
    photo.random = Math.random();
  }
  const orders = {
    worst: (a, b) => a.score - b.score,
    best: (a, b) => b.score - a.score,
    random: (a, b) => a.random - b.random,
    name: (a, b) => (a.id < b.id ? -1 : 1),
  };
  let matches = [];

  // Untrusted text is inserted as text, never as HTML.
  const createElement = (name, text) => {
    const element = document.createElement(name);
    element.textContent = text;
    return element;
  };

  const buildFrame = (photo, [word, peak, overlay]) => {
    const frame = frameTemplate.cloneNode(true);
    const [svg, caption] = frame.children;
    const [title, photoImage, overlayImage] = svg.children;
    svg.setAttribute("viewBox", `0 0 ${photo.size.join(" ")}`);
    title.textContent = `${word}: highest at the ${peak}`;
    photoImage.setAttribute("href", photo.thumbnail);
    overlayImage.setAttribute("href", overlay);
    caption.textContent = word;
    return frame;
  };

  const buildCard = (photo) => {
    const card = cardTemplate.cloneNode(true);
    const [image, placeholder, captions, attention, references, id] = card.children;
    if (photo.thumbnail) {
      image.src = photo.thumbnail;
      image.alt = photo.alt;
      placeholder.remove();
    } else {
      image.remove();
    }
    for (const [searches, caption, ciderD, rougeL] of photo.captions) {
      const label = createElement("dt", `${searches} `);
      const score = createElement("span", ciderD);
      score.title = `CIDEr-D ${ciderD}, ROUGE-L ${rougeL}`;
      label.append(score);
      captions.append(label, createElement("dd", caption || "(no words)"));
    }
    if (photo.detected) {
      const words = createElement("dd", photo.detected);
      words.className = "detected";
      captions.append(createElement("dt", "words detected"), words);
    }
    if (photo.attention.length) {
      // A caption has about a dozen frames: they are built when first opened.
      const addFrames = () =>
        attention.lastElementChild.append(...photo.attention.map((frame) => buildFrame(photo, frame)));
      attention.addEventListener("toggle", addFrames, { once: true });
    } else {
      attention.remove();
    }
    references.append(...photo.references.map((reference) => createElement("li", reference)));
    id.textContent = photo.id;
    return card;
  };

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
  };

  const update = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    matches = photos.filter((photo) => words.every((word) => photo.text.includes(word)));
    matches.sort(orders[order.value]);
    count.textContent = `${matches.length.toLocaleString("en")} of ${photos.length.toLocaleString("en")}`;
    cards.replaceChildren();
    addCards();
  };

  query.addEventListener("input", update);
  order.addEventListener("change", update);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").hidden = false;
  update();
}
