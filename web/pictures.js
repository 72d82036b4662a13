/* Pictures from files, the clipboard or a drop: what the server takes goes as it is, the
 * rest is made a JPEG here. Nothing leaves the machine on the way. */

const AS_IT_IS = ["image/jpeg", "image/png"];
const MAX_BYTES = 8 << 20;
const MAX_SIDE = 4096;
const QUALITY = 0.92;
let lastId = 0;

export const filesOf = (transfer) => [...(transfer?.files ?? [])].filter((f) => f.type.startsWith("image/"));

function toDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function toJpeg(bitmap) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; /* as the server does with what is transparent */
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no JPEG"))), "image/jpeg", QUALITY);
  });
}

/* {id, name, url, bitmap}; throws where the browser cannot read the file. */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const fits = file.size <= MAX_BYTES && Math.max(bitmap.width, bitmap.height) <= MAX_SIDE;
  const blob = AS_IT_IS.includes(file.type) && fits ? file : await toJpeg(bitmap);
  return { id: ++lastId, name: file.name || "picture", url: await toDataUrl(blob), bitmap };
}
