/** Reads the NIfTI files that the service writes: NIfTI-1, one file, little endian, three axes, with an sform. */

const HEADER_BYTES = 348;
const TYPES = {
  2: Uint8Array,
  4: Int16Array,
  8: Int32Array,
  16: Float32Array,
  64: Float64Array,
  256: Int8Array,
  512: Uint16Array,
  768: Uint32Array,
  1024: BigInt64Array,
  1280: BigUint64Array,
};

/**
 * A volume whose voxels are addressed from left, posterior and inferior, in whatever order the file has them.
 *
 * values: Of all voxels, in the file's order.
 * shape, spacing_mm, strides: Along right, anterior, superior. start: Place in `values` of voxel (0, 0, 0).
 */
export class Volume {
  constructor(values, shape, spacing_mm, strides, start) {
    Object.assign(this, { values, shape, spacing_mm, strides, start });
  }

  at([x, y, z]) {
    return this.values[this.start + x * this.strides[0] + y * this.strides[1] + z * this.strides[2]];
  }
}

/** The volume in a `.nii.gz` or `.nii` file (a Blob). */
export async function readNifti(file) {
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const zipped = start[0] === 0x1f && start[1] === 0x8b;
  const stream = zipped ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  return parseNifti(await new Response(stream).arrayBuffer());
}

export function parseNifti(buffer) {
  const header = new DataView(buffer);
  if (buffer.byteLength < HEADER_BYTES || header.getInt32(0, true) !== HEADER_BYTES || header.getInt16(254, true) < 1) {
    throw new Error("This is not a NIfTI file as the service writes them.");
  }
  const shape = [1, 2, 3].map((axis) => header.getInt16(40 + 2 * axis, true));
  const type = TYPES[header.getInt16(70, true)];
  const offset = header.getFloat32(108, true);
  const count = shape[0] * shape[1] * shape[2];
  if (!type || offset + count * type.BYTES_PER_ELEMENT > buffer.byteLength) {
    throw new Error("The NIfTI file is damaged: it has fewer voxels than it says.");
  }
  // A typed array must begin at a multiple of its element's size.
  const aligned = offset % type.BYTES_PER_ELEMENT === 0;
  const stored = aligned
    ? new type(buffer, offset, count)
    : new type(buffer.slice(offset, offset + count * type.BYTES_PER_ELEMENT));
  return inRas(scaled(stored, header.getFloat32(112, true), header.getFloat32(116, true)), shape, sform(header));
}

function scaled(stored, slope, intercept) {
  const values = typeof stored[0] === "bigint" ? Float64Array.from(stored, Number) : stored;
  if (!slope || (slope === 1 && intercept === 0)) return values;
  return Float32Array.from(values, (value) => value * slope + intercept);
}

/** Columns of the affine: millimetres to right, anterior and superior per step along each of the file's axes. */
function sform(header) {
  return [0, 1, 2].map((column) => [0, 1, 2].map((row) => header.getFloat32(280 + 16 * row + 4 * column, true)));
}

/** Address the voxels along right, anterior, superior: no value moves, only strides and signs change. */
function inRas(values, shape, columns) {
  const axes = fileAxes(columns);
  const fileStrides = [1, shape[0], shape[0] * shape[1]];
  const size = axes.map((axis) => shape[axis]);
  const signs = axes.map((axis, world) => Math.sign(columns[axis][world]));
  const strides = axes.map((axis, world) => signs[world] * fileStrides[axis]);
  const start = axes.reduce(
    (place, axis, world) => place + (signs[world] < 0 ? (shape[axis] - 1) * fileStrides[axis] : 0),
    0,
  );
  const spacing_mm = axes.map((axis) => Math.hypot(...columns[axis]));
  return new Volume(values, size, spacing_mm, strides, start);
}

/** Which of the file's axes runs most along right, anterior and superior. */
function fileAxes(columns) {
  const orders = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ];
  const cosine = (axis, world) => Math.abs(columns[axis][world]) / Math.hypot(...columns[axis]);
  const fit = (order) => order.reduce((product, axis, world) => product * cosine(axis, world), 1);
  return orders.reduce((best, order) => (fit(order) > fit(best) ? order : best));
}
