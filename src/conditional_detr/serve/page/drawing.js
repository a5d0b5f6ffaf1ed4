// Draw boxes, reference points and attention maps on canvases.

export function colorOf(id) {
  const hue = ((id % 1000) * 0.618034) % 1; // consecutive ids get colors far apart
  return `hsl(${(360 * hue).toFixed(1)} 90% 55%)`;
}

export function drawScene(canvas, image, objects, { chosen = null, points = null, scale = 1 } = {}) {
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const longest = Math.max(canvas.width, canvas.height);
  const line = Math.max(2, longest / 400);
  const size = Math.max(12, longest / 55);
  pen.font = `${size}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const each of [...objects].reverse()) {
    const [x0, y0, x1, y1] = each.box.map((value) => value * scale);
    const color = colorOf(each.category_id);
    pen.globalAlpha = chosen && chosen !== each ? 0.35 : 1;
    pen.strokeStyle = color;
    pen.lineWidth = chosen === each ? 2 * line : line;
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    const caption = `${each.category_name} ${each.score.toFixed(2)}`;
    const width = pen.measureText(caption).width + 6;
    const x = Math.min(Math.max(x0, 0), Math.max(0, canvas.width - width));
    const y = y0 >= size + 4 ? y0 - size - 4 : Math.max(y0, 0);
    pen.fillStyle = color;
    pen.fillRect(x, y, width, size + 4);
    pen.fillStyle = "#000";
    pen.fillText(caption, x + 3, y + 2);
  }
  pen.globalAlpha = 1;
  if (points) {
    pen.fillStyle = "#fff";
    pen.strokeStyle = "#000";
    pen.lineWidth = 1;
    for (const [x, y] of points) dot(pen, x * scale, y * scale, Math.max(2.5, longest / 250));
  }
}

function dot(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
  pen.stroke();
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// values: a byte for every row and column of a head. cells: rows and columns that the image covers, which may be fractions.
export function drawHead(canvas, image, values, grid, object, point) {
  const scale = Math.min(1, 320 / image.width);
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const pen = canvas.getContext("2d");
  pen.filter = "grayscale(1) brightness(0.55)";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  pen.filter = "none";
  const small = new ImageData(grid.columns, grid.rows);
  for (let i = 0; i < values.length; i++) {
    const weight = values[i] / 255;
    small.data.set([255, Math.round(255 * Math.max(0, 1.6 * weight - 0.6)), Math.round(60 * (1 - weight)), Math.round(255 * Math.sqrt(weight))], 4 * i);
  }
  const map = document.createElement("canvas");
  map.width = grid.columns;
  map.height = grid.rows;
  map.getContext("2d").putImageData(small, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(map, 0, 0, (canvas.width * grid.columns) / grid.cells[1], (canvas.height * grid.rows) / grid.cells[0]);
  const [x0, y0, x1, y1] = object.box.map((value) => value * scale);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 1.5;
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  if (point) {
    pen.fillStyle = "#4fc3ff";
    pen.strokeStyle = "#000";
    pen.lineWidth = 1;
    dot(pen, point[0] * scale, point[1] * scale, 4);
  }
}
