"""Holds `tigret embed --encoder` against Python's `sentence-transformers` on the same texts.

Without --items the texts are 1,000 awkward ones: many scripts, empty, very long, control characters,
special tokens spelt out. Prints the smallest cosine, the largest difference and the texts a second of
both, one after the other, and ends with status 1 if a cosine is below 0.9999.

    pip install torch transformers sentence-transformers
    python tests/compare_encoder.py --encoder models/all-MiniLM-L6-v2 --tigret target/release/tigret
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

# First and last code points of scripts, symbols, controls, private use, and planes beyond the first.
RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF),
          (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x300, 0x36F),
          (0x2000, 0x206F), (0x20A0, 0x20BF), (0x2100, 0x22FF), (0x3040, 0x30FF),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F),
          (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0xE000, 0xE0FF), (0x0, 0x1F),
          (0x7F, 0x9F), (0x20000, 0x2A6DF)]
SPELT = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "</s>", "<s>", "<pad>", "##ing", "▁"]
WORDS = ("shampoo conditioner nail-polish 12oz (pack of 2) $3.99 L'Oréal naïve don't 50% & SPF15+ "
         "antidisestablishmentarianism co-op 3.14159 http://example.org/a?b=c e.g. ÅNGSTRÖM").split()


def awkward_texts(count):
    rng = random.Random(7)
    texts = ["", " ", "\n\t", "\0", ".", "a" * 5000, "é" * 300, "e\u0301", "日本語" * 400,
             "🙂" * 50, "👩‍👩‍👧‍👦", "\ufeffmark", "word " * 3000, *SPELT]
    while len(texts) < count:
        parts = []
        for _ in range(rng.choice([1, 2, 5, 20, 60])):
            kind = rng.random()
            if kind < 0.4:
                parts.append(rng.choice(WORDS))
            elif kind < 0.5:
                parts.append(rng.choice(SPELT))
            else:
                first, last = rng.choice(RANGES)
                parts.append("".join(chr(rng.randint(first, last))
                                     for _ in range(rng.randint(1, 12))))
        texts.append(rng.choice(["", " ", "  ", "\n"]).join(parts))
    return texts[:count]


def by_tigret(texts, options):
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"t{at}" for at in range(len(texts))]
        items = [{"id": i, "text": text} for i, text in zip(ids, texts)]
        run = Path(folder)
        run.joinpath("items.jsonl").write_text("".join(json.dumps(x) + "\n" for x in items))
        run.joinpath("sequences.jsonl").write_text(json.dumps({"user": "u", "items": ids}) + "\n")
        start = time.perf_counter()
        subprocess.run([options.tigret, "embed", "--run", folder, "--encoder", options.encoder],
                       check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"RAYON_NUM_THREADS": str(options.threads)})
        seconds = time.perf_counter() - start
        return load_file(run / "vectors.safetensors")["vectors"], seconds


def by_python(texts, options):
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    model = SentenceTransformer(options.encoder, device="cpu")
    vectors = model.encode(texts, batch_size=32)
    return vectors, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True, help="folder of the model")
    parser.add_argument("--tigret", default="tigret", help="the command")
    parser.add_argument("--items", help="items.jsonl of a run: its texts instead of awkward ones")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.items:
        with open(options.items) as lines:
            texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = awkward_texts(1000)
    ours, our_seconds = by_tigret(texts, options)
    theirs, their_seconds = by_python(texts, options)
    lengths = numpy.linalg.norm(ours, axis=1) * numpy.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(1) / lengths
    worst = int(cosines.argmin())
    print(f"{len(texts)} texts: smallest cosine {cosines[worst]:.7f} at text {worst}, "
          f"{(cosines < 0.9999).sum()} below 0.9999; largest difference "
          f"{numpy.abs(ours - theirs).max():.2e}")
    for name, seconds in [("tigret", our_seconds), ("sentence-transformers", their_seconds)]:
        print(f"{name:>22}: {seconds:.1f} s with loading, {len(texts) / seconds:.0f} texts/s")
    if not (cosines >= 0.9999).all():
        print(repr(texts[worst][:200]))
        sys.exit(1)


if __name__ == "__main__":
    main()
