// Labels photos with an exported .onnx file in onnxruntime-web, whose WebAssembly is what a browser runs:
//   node classify.mjs model.onnx width height pixels.rgb …
// prints a JSON object a photo. The file has its preprocessing inside, so that what goes in are the bytes of a canvas
// (without alpha): width × height × 3 of them.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const [model, ...photos] = process.argv.slice(2);
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
for (let i = 0; i < photos.length; i += 3) {
  const [width, height] = photos.slice(i, i + 2).map(Number);
  const pixels = new Uint8Array(readFileSync(photos[i + 2]));
  const { scores } = await session.run({ photos: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  const index = scores.data.indexOf(Math.max(...scores.data));
  console.log(JSON.stringify({ index, score: scores.data[index] }));
}
