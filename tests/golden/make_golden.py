"""Writes the golden files of the parity tests with Hugging Face `transformers`.

Each case is a random T5 saved as `transformers` saves it, with a token layout and a catalogue, and
what `transformers` computes from it: logits and loss with the decoder's input given, its own
beam search under a prefix constraint, and one training step on all inputs together: the gradients,
and the weights after clipping and AdamW.

    pip install torch==2.11.0 transformers safetensors
    python tests/golden/make_golden.py [CASE ...]
"""

import json
import random
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

VERSION = 1
HERE = Path(__file__).parent
CASES = {
    # 4 levels, tied head, user tokens: the paper's layout in small.
    "tied": dict(levels=[16, 16, 16, 4], users=5, eos=True, items=60, max_items=6, layers=(2, 2),
                 d_model=24, heads=3, d_kv=8, d_ff=40, tied=True),
    # 3 levels of 7, one layer, odd widths, a head of its own (unscaled, as in T5 1.1), no users.
    "odd": dict(levels=[7, 7, 7], users=0, eos=False, items=25, max_items=4, layers=(1, 1),
                d_model=15, heads=2, d_kv=5, d_ff=21, tied=False),
    # 5 levels, more decoder layers than encoder layers, few distance buckets.
    "deep": dict(levels=[5, 6, 7, 8, 3], users=3, eos=True, items=80, max_items=20, layers=(1, 3),
                 d_model=16, heads=4, d_kv=4, d_ff=32, tied=True),
}


def layout(case):
    offset, levels = 2, []
    for size in case["levels"]:
        levels.append({"offset": offset, "size": size})
        offset += size
    users = {"offset": offset, "count": case["users"]} if case["users"] else None
    tokens = {"pad": 0, "eos": 1, "decoder_start": 0, "append_eos": case["eos"],
              "max_items": case["max_items"], "levels": levels, "users": users}
    return tokens, offset + case["users"]


def make(name, case, seed):
    random.seed(seed)
    torch.manual_seed(seed)
    tokens, vocab = layout(case)
    config = T5Config(
        vocab_size=vocab, d_model=case["d_model"], d_kv=case["d_kv"], d_ff=case["d_ff"],
        num_layers=case["layers"][0], num_decoder_layers=case["layers"][1],
        num_heads=case["heads"], relative_attention_num_buckets=8,
        relative_attention_max_distance=20, dropout_rate=0.0, feed_forward_proj="relu",
        tie_word_embeddings=case["tied"], pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).eval()
    if not case["tied"]:
        # Since version 5 the configuration only takes from this that outputs are not scaled; it ties
        # every model, which would then be saved without a head.
        model.lm_head.weight = torch.nn.Parameter(torch.randn(vocab, case["d_model"]))
        config.tie_word_embeddings = False
    assert (model.lm_head.weight is model.shared.weight) == case["tied"]
    assert config.scale_decoder_outputs == case["tied"]
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # HF starts norms at one, which would hide a norm weight that is not applied.
            if parameter_name.endswith("layer_norm.weight"):
                parameter.uniform_(0.5, 1.5)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    codes = set()
    while len(codes) < case["items"]:
        codes.add(tuple(random.randrange(size) for size in case["levels"]))
    codes = sorted(codes)
    random.shuffle(codes)
    items = [{"id": f"item-{i}", "codes": list(c)} for i, c in enumerate(codes)]
    (folder / "tokens.json").write_text(json.dumps(tokens, indent=1) + "\n")
    (folder / "catalog.json").write_text(json.dumps({"items": items}) + "\n")

    offsets = [level["offset"] for level in tokens["levels"]]
    children = {}
    for c in codes:
        path = [o + k for o, k in zip(offsets, c)]
        for depth in range(len(path)):
            children.setdefault(tuple(path[:depth]), set()).add(path[depth])
    of_tokens = {tuple(o + k for o, k in zip(offsets, c)): item["id"]
                 for c, item in zip(codes, items)}

    cases = []
    for length in [0, 1, case["max_items"], case["max_items"] + 3]:
        history = [random.choice(items) for _ in range(length)]
        user = random.randrange(case["users"]) if case["users"] and length % 2 else None
        row = [] if user is None else [tokens["users"]["offset"] + user]
        for item in history[-case["max_items"]:]:
            row += [o + k for o, k in zip(offsets, item["codes"])]
        if case["eos"]:
            row.append(1)
        row = row or [0]
        target = random.choice(items)
        labels = [o + k for o, k in zip(offsets, target["codes"])]
        ids = torch.tensor([row])
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids),
                        labels=torch.tensor([labels]))
            beams = 10
            found = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams,
                num_return_sequences=beams, do_sample=False, length_penalty=0.0,
                max_new_tokens=len(offsets), min_new_tokens=len(offsets), early_stopping=False, use_cache=False,
                return_dict_in_generate=True, output_scores=True,
                prefix_allowed_tokens_fn=lambda _, prefix: sorted(
                    children[tuple(prefix.tolist()[1:])]),
            )
        hits = [{"id": of_tokens[tuple(sequence.tolist()[1:])], "score": score}
                for sequence, score in zip(found.sequences, found.sequences_scores.tolist())]
        cases.append({"history": [item["id"] for item in history], "user_token": user,
                      "input": row, "labels": labels, "loss": out.loss.item(),
                      "logits": [[round(v, 6) for v in step] for step in out.logits[0].tolist()],
                      "beams": beams, "hits": hits})
    golden = {"version": VERSION, "transformers": transformers.__version__,
              "torch": torch.__version__, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    train_once(model, cases, folder / "trained.safetensors")


def train_once(model, cases, path):
    """One step of AdamW (weight decay on matrices only) at a clipped gradient norm of 0.5."""
    longest = max(len(case["input"]) for case in cases)
    # Padded on the right, as `transformers` expects; ours are padded on the left.
    rows = [case["input"] + [0] * (longest - len(case["input"])) for case in cases]
    keep = [[1] * len(case["input"]) + [0] * (longest - len(case["input"])) for case in cases]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01)
    loss = model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(keep),
                 labels=torch.tensor([case["labels"] for case in cases])).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    tensors = {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    tensors |= {f"weight/{name}": p.detach().clone() for name, p in model.named_parameters()}
    save_file(tensors, path, metadata={"format": "pt", "loss": repr(loss.item())})


for index, (name, case) in enumerate(CASES.items()):
    if name in (sys.argv[1:] or CASES):
        make(name, case, seed=index)
