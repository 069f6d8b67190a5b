// What speaks for a guess and against it, drawn over the opened photo when it is asked for: in the colours of
// `convnext explain`. A map is read from its element, and drawn, only then.

const FOR = [230, 159, 0];
const AGAINST = [0, 114, 178];
const WARM = [76, 71, 62]; // beside orange a neutral grey looks blue
const STRONGEST = 0.85; // opacity of full colour

/** The maps of a photo; null where it has none. */
function mapsOf(photo) {
  const data = document.getElementById(`m${photo.number}`);
  return data === null ? null : JSON.parse(data.textContent);
}

/** For each pixel along an edge, the two places that it is between, and the share of the second; null outside. */
function between(pixels, from, to, places) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const position = (((pixel + 0.5) / pixels - from) / (to - from)) * places;
    if (position < 0 || position > places) return null;
    const place = Math.max(0, Math.min(places - 1, position - 0.5));
    const first = Math.floor(place);
    return [first, Math.min(first + 1, places - 1), place - first];
  });
}

/** The photo in grey with a map on it, as an address of an image. */
function mapped(image, maps, guess) {
  const canvas = document.createElement("canvas");
  const [width, height] = [(canvas.width = image.naturalWidth), (canvas.height = image.naturalHeight)];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const picture = pen.getImageData(0, 0, width, height);
  const values = Int8Array.from(atob(maps.values[guess]), (sign) => sign.charCodeAt(0));
  const [rows, columns] = maps.size;
  const [left, top, right, bottom] = maps.box;
  const down = between(height, top, bottom, rows);
  const across = between(width, left, right, columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let value = 0;
      if (down[y] !== null && across[x] !== null) {
        const [upper, lower, below] = down[y];
        const [before, after, beside] = across[x];
        const row = (number) => (1 - beside) * values[number * columns + before] + beside * values[number * columns + after];
        value = (1 - below) * row(upper) + below * row(lower);
      }
      const at = 4 * (y * width + x);
      const [red, green, blue] = picture.data.subarray(at, at + 3);
      const grey = 0.6 * (0.299 * red + 0.587 * green + 0.114 * blue);
      const opacity = STRONGEST * Math.min(1, Math.abs(value) / 127);
      const colour = value > 0 ? FOR : AGAINST;
      for (let i = 0; i < 3; i++) picture.data[at + i] = (grey + WARM[i]) * (1 - opacity) + colour[i] * opacity;
    }
  }
  pen.putImageData(picture, 0, 0);
  const frame = maps.crop.map((share, i) => Math.max(0, Math.min(1, share)) * (i % 2 ? height : width));
  pen.strokeStyle = "#fff";
  pen.strokeRect(frame[0] + 0.5, frame[1] + 0.5, frame[2] - frame[0] - 1, frame[3] - frame[1] - 1);
  return canvas.toDataURL();
}

/** A button beside each guess that has a map; pressed, it shows the map in place of the photo. */
function offerMaps(photo, items) {
  const maps = mapsOf(photo);
  const image = document.querySelector("#view-picture img");
  const words = document.getElementById("view-map");
  words.hidden = true;
  if (maps === null || image === null) return;
  words.textContent = "Orange speaks for the label, blue against it; the frame is what the network saw.";
  if (maps.linearised) words.textContent += " The classifier has a hidden layer: the map is a linearisation around this photo.";
  const source = image.src;
  const buttons = items.slice(0, maps.values.length).map((item, guess) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link map";
    button.textContent = "map";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Map of ${item.querySelector(".label").textContent}`);
    button.addEventListener("click", async () => {
      const shown = button.getAttribute("aria-pressed") === "false";
      for (const other of buttons) other.setAttribute("aria-pressed", String(shown && other === button));
      words.hidden = !shown;
      image.src = source;
      if (!shown) return;
      await image.decode();
      image.src = mapped(image, maps, guess);
    });
    item.querySelector(".line").append(button);
    return button;
  });
}
