{
  const [query, lowest, highest, kind] = ["query", "lowest", "highest", "kind"].map(byId);
  const cardTemplate = byId("card").content.firstElementChild;
  const photos = JSON.parse(byId("data-cards").textContent);
  for (const photo of photos) {
    photo.text = [photo.id, ...photo.captions, ...photo.references].join("\n").toLowerCase();
  }
  const formatChange = (change) => `${change > 0 ? "+" : ""}${change.toFixed(1)}`.replace("-", "−");

  const buildCard = (photo) => {
    const card = cardTemplate.cloneNode(true);
    const [image, placeholder, captions, references, id] = card.children;
    if (photo.thumbnail) {
      image.src = photo.thumbnail;
      image.alt = photo.references[0] ?? "";
      [image.width, image.height] = photo.size;
      placeholder.remove();
      makeEnlargeable(image);
    } else {
      image.remove();
    }
    photo.captions.forEach((caption, run) => {
      const label = createElement("dt", ["A ", `B (${formatChange(photo.change)}) `][run]);
      label.append(createElement("span", photo.scores[run].toFixed(1)));
      captions.append(label, createText("dd", caption || "(no words)", "run"));
    });
    references.append(...photo.references.map((reference) => createText("li", reference)));
    id.textContent = photo.id;
    return card;
  };

  const kinds = {
    all: () => true,
    changed: (photo) => photo.captions[0] !== photo.captions[1],
    better: (photo) => photo.change > 0,
    worse: (photo) => photo.change < 0,
  };
  const byName = (a, b) => (a.id < b.id ? -1 : 1);
  makeGallery(photos, {
    controls: [query, lowest, highest, kind],
    buildCard,
    matcher: () => {
      const words = splitWords(query.value);
      const inRange = rangeTest(lowest, highest);
      const isKind = kinds[kind.value];
      return (photo) =>
        words.every((word) => photo.text.includes(word)) && inRange(photo.change) && isKind(photo);
    },
    orders: {
      change: (a, b) => Math.abs(b.change) - Math.abs(a.change) || byName(a, b),
      better: (a, b) => b.change - a.change || byName(a, b),
      worse: (a, b) => a.change - b.change || byName(a, b),
      name: byName,
    },
  });
}
