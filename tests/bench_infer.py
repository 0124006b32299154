"""Times one recommendation by other programs, on the model that Tigret runs, and by Tigret.

`cargo xtask bench infer` calls it. FOLDER is one of the example `random_model`. All search by
constrained beams with a cache of keys and values, cross-attention computed once, and have to give
the items and scores of Tigret's f32 engine, but for onnxruntime's int8 and Tigret's q4, which
compute something else:

- onnxruntime, f32 and dynamic int8: an encoder graph and a graph of a decoder step; the trie's mask
  and the choice of beams in numpy;
- PyTorch: the same two functions and the same search, without a graph;
- transformers: `generate` with `prefix_allowed_tokens_fn`.

The last line of output is JSON.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

TOLERANCE = 2e-3
# Of Tigret's integers, which round inputs to 16 bits.
TOLERANCE_OF_INTEGERS = 5e-3
# Of Tigret's items, what another program finds at least.
SHARED = 0.9


class Encoder(nn.Module):
    """Tokens [1, T] to the keys and values of every cross-attention, [layers, 2, heads, T, d_kv]."""

    def __init__(self, model):
        super().__init__()
        self.encoder = model.encoder
        attentions = [block.layer[1].EncDecAttention for block in model.decoder.block]
        self.projections = nn.ModuleList([nn.ModuleList([a.k, a.v]) for a in attentions])
        self.heads = model.config.num_heads

    def forward(self, tokens):
        hidden = self.encoder(input_ids=tokens).last_hidden_state[0]
        split = lambda x: x.view(x.shape[0], self.heads, -1).transpose(0, 1)
        return torch.stack(
            [torch.stack([split(p(hidden)) for p in pair]) for pair in self.projections]
        )


class Step(nn.Module):
    """One decoder step: tokens [B], parents [B], cache [layers, 2, rows, heads, t, d_kv], the bias
    of the new position towards all, [heads, t + 1], and the encoder's keys and values, to logits
    [B, vocabulary] and the longer cache."""

    def __init__(self, model):
        super().__init__()
        self.shared, self.decoder = model.shared, model.decoder
        self.head = model.lm_head
        self.heads = model.config.num_heads
        # Newer versions say so; where they do not, a tied head is scaled.
        scaled = getattr(model.config, "scale_decoder_outputs", model.config.tie_word_embeddings)
        self.scale = model.config.d_model**-0.5 if scaled else 1.0

    def forward(self, tokens, parents, cache, bias, cross):
        x = self.shared(tokens)
        rows = x.shape[0]
        split = lambda y: y.view(rows, self.heads, 1, -1)
        caches = []
        for layer, block in enumerate(self.decoder.block):
            own, other, feed_forward = block.layer
            attention, normed = own.SelfAttention, own.layer_norm(x)
            past = cache[layer][:, parents]
            new = torch.stack([split(attention.k(normed)), split(attention.v(normed))])
            past = torch.cat([past, new], dim=3)
            caches.append(past)
            scores = split(attention.q(normed)) @ past[0].transpose(2, 3) + bias[None, :, None]
            x = x + attention.o((scores.softmax(-1) @ past[1]).reshape(rows, -1))
            attention, normed = other.EncDecAttention, other.layer_norm(x)
            # Heads before rows: all beams are one product with the same keys.
            q = attention.q(normed).view(rows, self.heads, -1).transpose(0, 1)
            scores = q @ cross[layer, 0].transpose(1, 2)
            context = (scores.softmax(-1) @ cross[layer, 1]).transpose(0, 1)
            x = x + attention.o(context.reshape(rows, -1))
            x = x + feed_forward.DenseReluDense(feed_forward.layer_norm(x))
        x = self.decoder.final_layer_norm(x) * self.scale
        return self.head(x), torch.stack(caches)


class Trie:
    """Which codes may follow a prefix of codes."""

    def __init__(self, catalog):
        self.children, self.ids = {}, {}
        for item in catalog["items"]:
            codes = tuple(item["codes"])
            self.ids[codes] = item["id"]
            for level, code in enumerate(codes):
                self.children.setdefault(codes[:level], set()).add(code)
        self.children = {prefix: np.array(sorted(c)) for prefix, c in self.children.items()}


def search(encode, step, trie, tokens, layout, bias, beams):
    """Constrained beam search; `[(id, score)]`, best first."""
    cross = encode(tokens)
    heads, width = cross.shape[2], cross.shape[4]
    cache = np.zeros((cross.shape[0], 2, 1, heads, 0, width), dtype=np.float32)
    prefixes, scores = [()], np.zeros(1, dtype=np.float32)
    inputs, parents = np.array([layout["decoder_start"]]), np.array([0])
    for level, codes in enumerate(layout["levels"]):
        logits, cache = step(inputs, parents, cache, bias[:, : level + 1][:, ::-1], cross)
        largest = logits.max(axis=1, keepdims=True)
        normaliser = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
        part = logits[:, codes["offset"] : codes["offset"] + codes["size"]]
        candidates = np.full(part.shape, -np.inf, dtype=np.float32)
        for row, prefix in enumerate(prefixes):
            live = trie.children[prefix]
            candidates[row, live] = scores[row] + part[row, live] - normaliser[row]
        flat = candidates.ravel()
        alive = int(np.isfinite(flat).sum())
        keep = min(beams, alive)
        best = np.argpartition(-flat, keep - 1)[:keep]
        parents, chosen = np.divmod(best, codes["size"])
        scores = flat[best]
        prefixes = [prefixes[p] + (int(c),) for p, c in zip(parents, chosen)]
        inputs = chosen + codes["offset"]
    order = np.argsort(-scores, kind="stable")
    return [(trie.ids[prefixes[i]], float(scores[i])) for i in order]


def export(model, folder, tokens):
    """Writes both graphs as f32 and dynamic int8, once."""
    names = [folder / f"{part}.{kind}.onnx" for part in ("encoder", "step") for kind in ("f32", "int8")]
    if all(name.exists() for name in names):
        return
    config = model.config
    layers, heads, width = config.num_decoder_layers, config.num_heads, config.d_kv
    example = (
        torch.zeros(3, dtype=torch.long),
        torch.zeros(3, dtype=torch.long),
        torch.zeros(layers, 2, 3, heads, 2, width),
        torch.zeros(heads, 3),
        torch.zeros(layers, 2, heads, tokens.shape[1], width),
    )
    common = {"opset_version": 17, "dynamo": False}
    torch.onnx.export(
        Encoder(model), (tokens,), str(folder / "encoder.f32.onnx"),
        input_names=["tokens"], output_names=["cross"],
        dynamic_axes={"tokens": {1: "T"}, "cross": {3: "T"}}, **common,
    )
    torch.onnx.export(
        Step(model), example, str(folder / "step.f32.onnx"),
        input_names=["tokens", "parents", "cache", "bias", "cross"],
        output_names=["logits", "longer"],
        dynamic_axes={
            "tokens": {0: "B"}, "parents": {0: "B"}, "cache": {2: "rows", 4: "t"},
            "bias": {1: "t1"}, "cross": {3: "T"}, "logits": {0: "B"}, "longer": {2: "B", 4: "t1"},
        }, **common,
    )
    for part in ("encoder", "step"):
        quantize_dynamic(
            folder / f"{part}.f32.onnx", folder / f"{part}.int8.onnx", weight_type=QuantType.QInt8
        )


def onnx(folder, kind, threads):
    """The two functions by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Else the thread pools of both sessions fight for the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    load = lambda part: onnxruntime.InferenceSession(
        folder / f"{part}.{kind}.onnx", options, providers=["CPUExecutionProvider"]
    )
    encoder, decoder = load("encoder"), load("step")

    def step(tokens, parents, cache, bias, cross):
        feeds = {"tokens": tokens, "parents": parents, "cache": cache, "cross": cross}
        return decoder.run(None, feeds | {"bias": np.ascontiguousarray(bias)})

    return lambda tokens: encoder.run(None, {"tokens": tokens.numpy()})[0], step


def eager(model):
    """The two functions by PyTorch."""
    encoder, decoder = Encoder(model), Step(model)

    def step(tokens, parents, cache, bias, cross):
        bias = torch.from_numpy(bias.copy())
        given = map(torch.from_numpy, (tokens, parents, cache))
        logits, longer = decoder(*given, bias, torch.from_numpy(cross))
        return logits.numpy(), longer.numpy()

    return lambda tokens: encoder(tokens).numpy(), step


def generate(model, trie, tokens, layout, beams):
    """Constrained beam search of transformers."""
    levels = layout["levels"]

    def allowed(_, prefix):
        codes = tuple(int(t) - l["offset"] for t, l in zip(prefix[1:], levels))
        return (trie.children[codes] + levels[len(codes)]["offset"]).tolist()

    found = model.generate(
        tokens, num_beams=beams, num_return_sequences=beams, max_new_tokens=len(levels),
        min_new_tokens=len(levels), length_penalty=0.0, do_sample=False,
        prefix_allowed_tokens_fn=allowed, return_dict_in_generate=True, output_scores=True,
    )
    codes = found.sequences[:, 1:] - torch.tensor([l["offset"] for l in levels])
    ids = [trie.ids.get(tuple(row)) for row in codes.tolist()]
    return list(zip(ids, found.sequences_scores.tolist()))


def tigret(program, folder, backend, kind, beams, calls):
    """Median milliseconds and answer of Tigret's own engine."""
    command = [program, "--backend", backend, "--format", kind, "--beams", str(beams)]
    command += ["--calls", str(calls), "--folder", str(folder)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer = json.loads(text.splitlines()[-1])
    return answer["median_ms"], [(pick["id"], pick["score"]) for pick in answer["answer"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tigret", required=True, help="the example time_one")
    parser.add_argument("--gpu", action="store_true", help="time Tigret's GPU engine as well")
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    folder = args.folder
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder / "checkpoint").eval()
    layout = json.loads((folder / "tokens.json").read_text())
    trie = Trie(json.loads((folder / "catalog.json").read_text()))
    tokens = torch.tensor([json.loads((folder / "requests.json").read_text())[0]["tokens"]])
    export(model, folder, tokens)
    attention = model.decoder.block[0].layer[0].SelfAttention
    steps = len(layout["levels"])
    # By distance back, [heads, steps].
    bias = attention.compute_bias(steps, steps)[0, :, -1].flip(-1).numpy()

    # For the page, where nothing else knows it.
    (folder / "bias.json").write_text(json.dumps(bias.tolist()))

    search_with = lambda functions: lambda beams: search(
        *functions, trie, tokens, layout, bias, beams
    )
    peers = {
        "onnxruntime, f32": search_with(onnx(folder, "f32", args.threads)),
        "onnxruntime, int8": search_with(onnx(folder, "int8", args.threads)),
        "PyTorch, a loop": search_with(eager(model)),
        "transformers, generate": lambda beams: generate(model, trie, tokens, layout, beams),
    }
    ours = {f"Tigret, CPU, {kind}": ("cpu", kind) for kind in ("f32", "q8", "q4")}
    if args.gpu:
        ours["Tigret, GPU, q8"] = ("gpu", "q8")
    times = {}
    for beams in args.beams:
        expected = dict(tigret(args.tigret, folder, "cpu", "f32", beams, 1)[1])
        for round_index in range(args.rounds):
            for name, (backend, kind) in ours.items():
                calls = args.calls if backend == "cpu" else 3
                milliseconds, found = tigret(args.tigret, folder, backend, kind, beams, calls)
                # Four bits are another function.
                if kind != "q4":
                    check(name, expected, found, TOLERANCE_OF_INTEGERS if kind == "q8" else TOLERANCE)
                times.setdefault(name, {}).setdefault(beams, []).append(milliseconds)
            for name, recommend in peers.items():
                found = recommend(beams)
                if "int8" not in name:
                    check(name, expected, found, TOLERANCE)
                spent = []
                for _ in range(args.calls if "generate" not in name else 5):
                    begin = time.perf_counter()
                    recommend(beams)
                    spent.append(1e3 * (time.perf_counter() - begin))
                # The first rounds of calls warm up.
                times.setdefault(name, {}).setdefault(beams, []).append(statistics.median(spent))
    print(json.dumps({
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": args.threads,
        "milliseconds": {
            name: {str(beams): statistics.median(all) for beams, all in of.items()}
            for name, of in times.items()
        },
    }))


def check(name, expected, found, tolerance):
    """As many items as ours at our scores, and ours but for those that rounding moves out of the
    beams: the last ones, and all behind a prefix that was the last of its level."""
    found = dict(found[: len(expected)])
    if len(found) < len(expected):
        raise SystemExit(f"{name} finds {len(found)} items, Tigret {len(expected)}")
    least = min(expected.values())
    for item, score in found.items():
        if item not in expected and score > least + tolerance:
            raise SystemExit(f"{name} finds {item} at {score}, which Tigret does not")
        if item in expected and abs(expected[item] - score) > tolerance:
            raise SystemExit(f"{name} scores {item} {score}, Tigret {expected[item]}")
    shared = len(found.keys() & expected.keys())
    if shared < SHARED * len(expected):
        raise SystemExit(f"{name} finds {shared} of the {len(expected)} items that Tigret does")


if __name__ == "__main__":
    main()
