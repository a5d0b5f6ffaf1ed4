// Runs an exported model in ONNX Runtime Web. Usage: node web.mjs MODEL PIXELS BATCH HEIGHT WIDTH, with PIXELS a file of float32.
// Prints logits and boxes as JSON.
import fs from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(process.cwd() + "/")("onnxruntime-web");
const [model, file, ...sizes] = process.argv.slice(2);
const [batch, height, width] = sizes.map(Number);
const bytes = fs.readFileSync(file);
const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)));
const found = await session.run({
  pixels: new ort.Tensor("float32", pixels, [batch, 3, height, width]),
  padding_mask: new ort.Tensor("bool", new Uint8Array(batch * height * width), [batch, height, width]),
});
console.log(JSON.stringify({ logits: [...found.logits.data], boxes: [...found.boxes.data] }));
