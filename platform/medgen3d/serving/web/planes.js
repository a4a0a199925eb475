/** Slices of volumes as pixels. Radiological convention: the patient's right is on the screen's left. */

/**
 * across: Axis that a slice lies across (0 right, 1 anterior, 2 superior). columns, rows: Axes of the screen; both run
 * against the patient's axis. edges: What is at the left, right, top and bottom of the screen.
 */
export const PLANES = {
  axial: { name: "Axial", across: 2, columns: 0, rows: 1, edges: ["R", "L", "A", "P"] },
  coronal: { name: "Coronal", across: 1, columns: 0, rows: 2, edges: ["R", "L", "S", "I"] },
  sagittal: { name: "Sagittal", across: 0, columns: 1, rows: 2, edges: ["A", "P", "S", "I"] },
};

// Okabe and Ito's colours, which colour-blind people can tell apart, in an order that stands out from grey.
const COLOURS = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 190, 140],
  [240, 228, 66],
  [230, 130, 190],
  [225, 100, 20],
  [60, 130, 220],
];

/** Colour [red, green, blue] of the n-th label; further ones go round the colour circle. */
export function colour(n) {
  if (n < COLOURS.length) return COLOURS[n];
  const part = (shift) => Math.round(150 + 90 * Math.cos(n * 2.39996 + shift));
  return [part(0), part(2.0944), part(4.1888)];
}

/** Width and height of a plane's slices [voxels]. */
export const sizeOf = (plane, volume) => [volume.shape[plane.columns], volume.shape[plane.rows]];

/** Grey pixels (RGBA) of a slice; grey values outside the window are black or white. */
export function greyPixels(plane, volume, index, { window, level }) {
  const low = level - window / 2;
  return pixels(plane, volume, index, (value, at, out) => {
    const grey = Math.round((255 * (value - low)) / window); // clamped by the array
    out[at] = out[at + 1] = out[at + 2] = grey;
    out[at + 3] = 255;
  });
}

/** Coloured pixels (RGBA) of a mask's slice. colours: label id -> [red, green, blue]; others are clear. */
export function maskPixels(plane, volume, index, colours) {
  return pixels(plane, volume, index, (value, at, out) => {
    const found = colours.get(value);
    if (!found) return;
    [out[at], out[at + 1], out[at + 2]] = found;
    out[at + 3] = 255;
  });
}

function pixels(plane, { values, strides, start, shape }, index, paint) {
  const [width, height] = [shape[plane.columns], shape[plane.rows]];
  const out = new Uint8ClampedArray(4 * width * height);
  let at = 0;
  for (let row = 0; row < height; row++) {
    let place = start + index * strides[plane.across] + (height - 1 - row) * strides[plane.rows];
    place += (width - 1) * strides[plane.columns];
    for (let column = 0; column < width; column++) {
      paint(values[place], at, out);
      place -= strides[plane.columns];
      at += 4;
    }
  }
  return out;
}

/** Voxel (x, y, z) under a pixel of a slice, kept inside the volume. */
export function voxelAt(plane, volume, index, column, row) {
  const inside = (value, length) => Math.min(Math.max(Math.floor(value), 0), length - 1);
  const [width, height] = sizeOf(plane, volume);
  const voxel = [0, 0, 0];
  voxel[plane.across] = index;
  voxel[plane.columns] = width - 1 - inside(column, width);
  voxel[plane.rows] = height - 1 - inside(row, height);
  return voxel;
}

/**
 * What a mask holds. counts: label id -> number of voxels. middle: Voxel in the middle of what is labelled, or of the
 * whole mask if nothing is.
 */
export function survey(mask) {
  const counts = new Map();
  const [low, high] = [[...mask.shape], [-1, -1, -1]];
  forEachRun(mask, (value, from, to) => {
    counts.set(value, (counts.get(value) ?? 0) + to[0] - from[0] + 1);
    if (value === 0) return;
    for (let axis = 0; axis < 3; axis++) {
      low[axis] = Math.min(low[axis], from[axis]);
      high[axis] = Math.max(high[axis], to[axis]);
    }
  });
  const middle = mask.shape.map((length, axis) =>
    Math.floor(high[axis] < 0 ? (length - 1) / 2 : (low[axis] + high[axis]) / 2),
  );
  return { counts, middle };
}

/** Runs of equal values from left to right, far fewer than voxels. seen: Called with a value, first and last voxel. */
function forEachRun({ values, shape: [width, height, depth], strides, start }, seen) {
  for (let z = 0; z < depth; z++) {
    for (let y = 0; y < height; y++) {
      const row = start + y * strides[1] + z * strides[2];
      let since = 0;
      for (let x = 1; x <= width; x++) {
        const value = values[row + since * strides[0]];
        if (x < width && values[row + x * strides[0]] === value) continue;
        seen(value, [since, y, z], [x - 1, y, z]);
        since = x;
      }
    }
  }
}

/** Least and largest value of a sample of the voxels, and the window that shows all but half a per cent at each end. */
export function greyRange({ values }) {
  const step = Math.max(1, Math.floor(values.length / 100_000));
  const sample = Float64Array.from({ length: Math.ceil(values.length / step) }, (_, i) => values[i * step]).sort();
  const quantile = (share) => sample[Math.round(share * (sample.length - 1))];
  const [low, high] = [quantile(0.005), quantile(0.995)];
  const [least, largest] = [sample[0], Math.max(sample.at(-1), sample[0] + 1e-6)];
  return { least, largest, window: Math.max(high - low, (largest - least) / 500), level: (low + high) / 2 };
}
