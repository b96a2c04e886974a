// Detects WebP files whose EXIF orientation requires rotation: Chromium ignores it.

const ORIENTATION = 0x0112;
const HAS_EXIF = 0x08; // a flag of the VP8X chunk, which comes first

/**
 * @param {Blob} file
 * @returns {Promise<boolean>} False for files of other types, which all browsers rotate.
 */
export async function needsRotation(file) {
  const view = new DataView(await file.arrayBuffer());
  if (text(view, 0) !== "RIFF" || text(view, 8) !== "WEBP" || text(view, 12) !== "VP8X" || view.byteLength < 30) return false;
  if (!(view.getUint8(20) & HAS_EXIF)) return false;
  const end = Math.min(8 + view.getUint32(4, true), view.byteLength);
  for (let at = 12; at + 8 <= end; ) {
    const length = view.getUint32(at + 4, true);
    if (text(view, at) === "EXIF") {
      const said = orientation(view, at + 8, Math.min(at + 8 + length, end));
      return said > 1 && said <= 8;
    }
    at += 8 + length + (length % 2);
  }
  return false;
}

/** Reads the orientation from a TIFF header and its first directory between two offsets; 1 (upright) if missing. */
function orientation(/** @type {DataView} */ view, /** @type {number} */ start, /** @type {number} */ end) {
  if (start + 6 <= end && text(view, start) === "Exif") start += 6;
  if (start + 8 > end) return 1;
  const little = view.getUint16(start) === 0x4949;
  const directory = start + view.getUint32(start + 4, little);
  if (directory + 2 > end) return 1;
  const entries = view.getUint16(directory, little);
  for (let at = directory + 2; at + 12 <= end && at < directory + 2 + 12 * entries; at += 12) {
    if (view.getUint16(at, little) === ORIENTATION) return view.getUint16(at + 8, little);
  }
  return 1;
}

/** Four bytes as text; fewer at the end of the file. */
function text(/** @type {DataView} */ view, /** @type {number} */ at) {
  const length = Math.max(0, Math.min(4, view.byteLength - at));
  return String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + Math.min(at, view.byteLength), length));
}
