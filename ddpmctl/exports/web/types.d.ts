// What the page holds and what page and worker send each other.

interface ModelSettings {
  network: "unet" | "classic";
  image_size: number;
  sample_size: number;
  channels: number;
  num_classes: number;
  widths: number[];
  blocks: number;
  patch: number;
  embedding: number;
  norm: "group" | "batch";
  gaussian_rank: number;
  gaussian_clusters: number;
}

interface SamplingSettings {
  sampler: string;
  steps: number;
  guidance: number;
  guidance_interval: number[];
}

/** The JSON in the page. */
interface PageModel {
  name: string;
  classes: string[];
  /** Whether drawings are centred as the digits of MNIST are. */
  centred: boolean;
  /** Whether it has a null class, and no guidance built in. */
  guidable: boolean;
  model: ModelSettings;
  parameterization: "epsilon" | "v" | "x0";
  clip_x0: boolean;
  pixel_range: number[];
  alpha_bar: number[];
  sampling: SamplingSettings;
  /** Default steps of each sampler. */
  samplers: Record<string, number>;
  /** Timesteps that the network is evaluated at: all, but for a student that begins below. */
  chain_length: number;
  /** The timesteps above, and the guidance of the Gaussian denoiser alone there. */
  closed_form: { timesteps: number[]; guidance: number; guidance_interval: number[] } | null;
  /** Name and shape of each array, in the order of the weights. */
  tensors: [string, number[]][];
}

/** Labels and their weights, which sum to 1. */
type Mixture = [number, number][];

interface SampleRequest {
  seed: bigint;
  mixture: Mixture;
  sampler: string;
  steps: number;
  guidance: number;
  interval: number[];
  /** The picture to start from, in the range of the pixels, [channel][row][column] at the network's resolution. */
  start?: Float32Array;
  /** How much noise is added to it: 1 leaves nothing of it. */
  strength: number;
}

interface ClassifyRequest {
  image: Float32Array;
  draws: number;
}

interface ChainStep {
  index: number;
  t: number;
  steps: number;
  seconds: number;
  evaluations: number;
  x: Uint8ClampedArray;
  x0: Uint8ClampedArray;
}

interface ClassErrors {
  draw: number;
  errors: number[];
}

interface Loaded {
  seconds: number;
  engine: string;
}

interface LoadMessage {
  id: number;
  kind: "load";
  page: PageModel;
  /** multiply.wasm, as base64. */
  code: string;
  /** Whether WebAssembly may be used. */
  compiled: boolean;
}

/** A part of the weights: float16 arrays one after another, as base64. */
interface WeightsMessage {
  id: number;
  kind: "weights";
  part: string;
}

interface SampleMessage {
  id: number;
  kind: "sample";
  request: SampleRequest;
}

interface ClassifyMessage {
  id: number;
  kind: "classify";
  request: ClassifyRequest;
}

type WorkerRequest = WeightsMessage | LoadMessage | SampleMessage | ClassifyMessage | { id: number; kind: "stop" };

type WorkerResult = ChainStep | ClassErrors | Loaded;

interface WorkerMessage {
  id: number;
  result?: WorkerResult;
  done?: boolean;
  stopped?: boolean;
  error?: string;
}
