/* A picture with the groups of its patches drawn over it: what was merged has the mean
 * colour of its patches, so that one sees what is left for the model; what was kept stays
 * as it is. Borders run where one row ends and another begins. */

/* The overlay of an answer -> owner[cell] = group, or -1 where a patch was dropped. */
export function ownersOf(overlay) {
  const [columns, lines] = overlay.grid;
  const owner = new Int32Array(columns * lines).fill(-1);
  overlay.groups.forEach((group, g) => group.patches.forEach((cell) => (owner[cell] = g)));
  return { columns, lines, owner, groups: overlay.groups };
}

/* Mean colour of each cell: the picture scaled down to the grid. */
function cellColours(bitmap, columns, lines) {
  const canvas = new OffscreenCanvas(columns, lines);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, columns, lines);
  return context.getImageData(0, 0, columns, lines).data;
}

function groupColours(cells, colours) {
  const sums = cells.groups.map(() => [0, 0, 0, 0]);
  cells.owner.forEach((g, i) => {
    if (g >= 0) {
      const sum = sums[g];
      sum[0] += colours[4 * i];
      sum[1] += colours[4 * i + 1];
      sum[2] += colours[4 * i + 2];
      sum[3]++;
    }
  });
  return sums.map(([r, g, b, n]) => `rgb(${[r, g, b].map((c) => Math.round(c / (n || 1))).join(" ")})`);
}

/* The lines between cells whose owners `differ`, as one path. grid: where columns and
 * lines begin, in whole pixels, so that neighbouring fills neither overlap nor gape. */
function border(cells, grid, differ) {
  const path = new Path2D();
  const { columns, lines, owner } = cells;
  for (let y = 0; y < lines; y++) {
    for (let x = 0; x < columns; x++) {
      const here = owner[y * columns + x];
      if (x + 1 < columns && differ(here, owner[y * columns + x + 1])) {
        path.moveTo(grid.x(x + 1), grid.y(y));
        path.lineTo(grid.x(x + 1), grid.y(y + 1));
      }
      if (y + 1 < lines && differ(here, owner[(y + 1) * columns + x])) {
        path.moveTo(grid.x(x), grid.y(y + 1));
        path.lineTo(grid.x(x + 1), grid.y(y + 1));
      }
    }
  }
  return path;
}

function strokeTwice(context, path, width) {
  context.lineCap = "square";
  context.lineWidth = width + 1;
  context.strokeStyle = "rgb(0 0 0 / 22%)";
  context.stroke(path);
  context.lineWidth = width;
  context.strokeStyle = "rgb(255 255 255 / 85%)";
  context.stroke(path);
}

function drawDropped(context, x, y, w, h) {
  context.fillStyle = "rgb(15 17 19 / 78%)";
  context.fillRect(x, y, w, h);
  context.strokeStyle = "rgb(255 255 255 / 28%)";
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, y + h);
  context.lineTo(x + w, y);
  context.stroke();
}

function drawCells(context, cells, colours, grid, chosen) {
  cells.owner.forEach((g, i) => {
    const column = i % cells.columns;
    const line = Math.floor(i / cells.columns);
    const [x, y] = [grid.x(column), grid.y(line)];
    const [w, h] = [grid.x(column + 1) - x, grid.y(line + 1) - y];
    if (g < 0) {
      drawDropped(context, x, y, w, h);
    } else if (cells.groups[g].size > 1) {
      context.globalAlpha = 0.72;
      context.fillStyle = colours[g];
      context.fillRect(x, y, w, h);
      context.globalAlpha = 1;
    }
    if (chosen >= 0 && g !== chosen) {
      context.fillStyle = "rgb(15 17 19 / 55%)";
      context.fillRect(x, y, w, h);
    }
  });
}

/* Draws into a canvas of the given width in CSS pixels. overlay null: the picture alone.
 * chosen: a group to point out, -1 for none. Returns the cells, or null. */
export function drawPicture(canvas, bitmap, overlay, cssWidth, chosen = -1) {
  const scale = Math.min(globalThis.devicePixelRatio || 1, 2);
  const width = Math.max(1, Math.round(cssWidth * scale));
  const height = Math.max(1, Math.round((width * bitmap.height) / bitmap.width));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const cells = overlay ? ownersOf(overlay) : null;
  if (!cells || cells.groups.every((g) => g.size === 1 && g.state !== "protected")) {
    return cells; /* nothing was merged: nothing to show */
  }
  const grid = {
    x: (column) => Math.round((column * width) / cells.columns),
    y: (line) => Math.round((line * height) / cells.lines),
  };
  drawCells(context, cells, groupColours(cells, cellColours(bitmap, cells.columns, cells.lines)), grid, chosen);
  strokeTwice(context, border(cells, grid, (a, b) => a !== b), scale);
  const fixed = cells.groups.map((g) => g.state === "protected");
  if (fixed.includes(true)) {
    context.lineWidth = 2 * scale;
    context.strokeStyle = "#f5b301";
    context.stroke(border(cells, grid, (a, b) => (fixed[a] ?? false) !== (fixed[b] ?? false)));
  }
  return cells;
}

/* The group under a pointer, or -1. */
export function groupAt(canvas, cells, event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * cells.columns);
  const y = Math.floor(((event.clientY - box.top) / box.height) * cells.lines);
  const inside = x >= 0 && x < cells.columns && y >= 0 && y < cells.lines;
  return inside ? cells.owner[y * cells.columns + x] : -1;
}
