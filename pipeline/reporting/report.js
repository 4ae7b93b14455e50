"use strict";
{
  // Cards are built as they are scrolled to: a thousand at once would keep a phone busy.
  const AT_ONCE = 48;
  const byId = (id) => document.getElementById(id);
  const [cards, more, query, order, count] = ["cards", "more", "query", "order", "count"].map(byId);
  const [blank, glance] = ["card", "glance"].map((id) => byId(id).content.firstElementChild);
  const photos = JSON.parse(byId("data").textContent);
  for (const photo of photos) {
    const captions = photo.said.map((said) => said[1]);
    photo.text = [photo.id, ...captions, ...photo.references].join("\n").toLowerCase();
    photo.chance = Math.random();
  }
  const orders = {
    worst: (a, b) => a.score - b.score,
    best: (a, b) => b.score - a.score,
    random: (a, b) => a.chance - b.chance,
    name: (a, b) => (a.id < b.id ? -1 : 1),
  };
  let shown = [];

  // Strangers' words go in as text, never as HTML.
  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  const look = (photo, [word, place, shade]) => {
    const made = glance.cloneNode(true);
    const [drawing, caption] = made.children;
    const [title, below, above] = drawing.children;
    drawing.setAttribute("viewBox", `0 0 ${photo.size.join(" ")}`);
    title.textContent = `${word}: most at the ${place}`;
    below.setAttribute("href", photo.picture);
    above.setAttribute("href", shade);
    caption.textContent = word;
    return made;
  };

  const build = (photo) => {
    const card = blank.cloneNode(true);
    const [picture, gone, said, looked, references, id] = card.children;
    if (photo.picture) {
      picture.src = photo.picture;
      picture.alt = photo.alt;
      gone.remove();
    } else {
      picture.remove();
    }
    for (const [search, caption, ciderD, rougeL] of photo.said) {
      const label = element("dt", `${search} `);
      const score = element("span", ciderD);
      score.title = `CIDEr-D ${ciderD}, ROUGE-L ${rougeL}`;
      label.append(score);
      said.append(label, element("dd", caption || "(no words)"));
    }
    if (photo.detected) {
      const words = element("dd", photo.detected);
      words.className = "detected";
      said.append(element("dt", "words detected"), words);
    }
    if (photo.looked.length) {
      // A caption's dozen drawings are made for those who ask.
      const draw = () => looked.lastElementChild.append(...photo.looked.map((one) => look(photo, one)));
      looked.addEventListener("toggle", draw, { once: true });
    } else {
      looked.remove();
    }
    references.append(...photo.references.map((reference) => element("li", reference)));
    id.textContent = photo.id;
    return card;
  };

  const watch = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) add();
    },
    { rootMargin: "1200px" },
  );

  const add = () => {
    const begin = cards.childElementCount;
    cards.append(...shown.slice(begin, begin + AT_ONCE).map(build));
    // Watched anew, it says again whether the end is still near.
    watch.unobserve(more);
    if (cards.childElementCount < shown.length) watch.observe(more);
  };

  const show = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = photos.filter((photo) => words.every((word) => photo.text.includes(word)));
    shown.sort(orders[order.value]);
    count.textContent = `${shown.length.toLocaleString("en")} of ${photos.length.toLocaleString("en")}`;
    cards.replaceChildren();
    add();
  };

  query.addEventListener("input", show);
  order.addEventListener("change", show);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").hidden = false;
  show();
}
