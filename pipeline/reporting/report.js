{
  const [query, says, lowest, highest, kind] = ["query", "says", "lowest", "highest", "kind"].map(byId);
  const [cardTemplate, frameTemplate] = ["card", "attention-frame"].map((id) => byId(id).content.firstElementChild);
  const photos = JSON.parse(byId("data-cards").textContent);
  for (const photo of photos) {
    const captions = photo.captions.map(([, caption]) => caption);
    photo.text = [photo.id, ...captions, ...photo.references].join("\n").toLowerCase();
    photo.said = new Set(splitWords(photo.alt));
    photo.random = Math.random();
  }

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

  const addCaptions = (list, photo) => {
    for (const [searches, caption, ciderD, rougeL] of photo.captions) {
      const label = createElement("dt", `${searches} `);
      const score = createElement("span", ciderD);
      score.title = `CIDEr-D ${ciderD}, ROUGE-L ${rougeL}`;
      label.append(score);
      list.append(label, createText("dd", caption || "(no words)"));
    }
    if (photo.detected) {
      list.append(createElement("dt", "words detected"), createText("dd", photo.detected, "detected"));
    }
    if (photo.nearest) {
      const [isCopy, caption] = photo.nearest;
      const label = isCopy ? "copied from a training caption" : "nearest training caption";
      list.append(createElement("dt", label), createText("dd", caption || "(none shares a word)", "nearest"));
    }
  };

  const buildCard = (photo) => {
    const card = cardTemplate.cloneNode(true);
    const [image, placeholder, captions, attention, references, id] = card.children;
    if (photo.thumbnail) {
      image.src = photo.thumbnail;
      image.alt = photo.alt;
      [image.width, image.height] = photo.size;
      placeholder.remove();
      makeEnlargeable(image);
    } else {
      image.remove();
    }
    addCaptions(captions, photo);
    if (photo.attention.length) {
      // A caption has about a dozen frames: they are built when first opened.
      const addFrames = () =>
        attention.lastElementChild.append(...photo.attention.map((frame) => buildFrame(photo, frame)));
      attention.addEventListener("toggle", addFrames, { once: true });
    } else {
      attention.remove();
    }
    references.append(...photo.references.map((reference) => createText("li", reference)));
    id.textContent = photo.id;
    return card;
  };

  const kinds = {
    all: () => true,
    unsaid: (photo) => photo.unsaid,
    copied: (photo) => photo.nearest[0],
  };
  makeGallery(photos, {
    controls: [query, says, lowest, highest, kind],
    buildCard,
    matcher: () => {
      const [words, said] = [query, says].map((field) => splitWords(field.value));
      const inRange = rangeTest(lowest, highest);
      const isKind = kinds[kind.value];
      return (photo) =>
        words.every((word) => photo.text.includes(word)) &&
        said.every((word) => photo.said.has(word)) &&
        inRange(photo.score) &&
        isKind(photo);
    },
    orders: {
      worst: (a, b) => a.score - b.score,
      best: (a, b) => b.score - a.score,
      random: (a, b) => a.random - b.random,
      name: (a, b) => (a.id < b.id ? -1 : 1),
    },
  });
}
