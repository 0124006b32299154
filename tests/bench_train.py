"""Trains a checkpoint with Hugging Face `transformers` on batches that Tigret wrote, and times it.

`cargo xtask bench train` calls it beside `tigret bench`, on the same weights and batches and in the
same precision. The folder has `config.json`, `model.safetensors` and `batches.safetensors`, as
`tigret bench --dump FOLDER` writes them.

    pip install torch==2.11.0 transformers safetensors
    python tests/bench_train.py FOLDER --steps 8 [--device cuda --precision bf16 --compile]

Prints one JSON object: the loss of the first batch without dropout, samples a second, versions.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--device", default="cpu")
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--warm-up", type=int, default=2)
parser.add_argument("--steps", type=int, default=8)
arguments = parser.parse_args()

device = torch.device(arguments.device)
torch.manual_seed(0)
model = T5ForConditionalGeneration.from_pretrained(arguments.folder).to(device)
tensors = load_file(arguments.folder / "batches.safetensors")
count = sum(name.startswith("tokens.") for name in tensors)
batches = [
    {
        "input_ids": tensors[f"tokens.{i}"].long().to(device),
        "attention_mask": tensors[f"keep.{i}"].long().to(device),
        "labels": tensors[f"labels.{i}"].long().to(device),
    }
    for i in range(count)
]


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


with torch.no_grad():
    first_loss = model.eval()(**batches[0]).loss.item()

model.train()
matrices = [p for p in model.parameters() if p.dim() > 1]
vectors = [p for p in model.parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
    lr=1e-3,
    fused=True,
)
run = torch.compile(model, dynamic=True) if arguments.compile else model
mixed = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")


def step(batch):
    with mixed:
        loss = run(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


for i in range(arguments.warm_up):
    step(batches[i % count])
wait()
begin = time.perf_counter()
samples = 0
for i in range(arguments.warm_up, arguments.warm_up + arguments.steps):
    step(batches[i % count])
    samples += len(batches[i % count]["labels"])
wait()
seconds = time.perf_counter() - begin
print(json.dumps({
    "first_loss": first_loss,
    "samples_per_second": samples / seconds,
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    # Whose kernels a release of transformers takes for T5 changes its speed.
    "attention": model.config._attn_implementation,
    "threads": torch.get_num_threads(),
}))
