"""Writes the golden files of the text encoders with Python's `sentence-transformers`.

Each case is a folder with random weights as `sentence-transformers` saves it, and `expected.json`:
texts and the vectors that it gives them.

    pip install torch==2.11.0 transformers sentence-transformers
    python tests/golden/make_encoder_golden.py
"""

import json
import random
import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (BertConfig, BertModel, MPNetConfig, MPNetModel, PreTrainedTokenizerFast,
                          T5Config, T5EncoderModel)

HERE = Path(__file__).parent / "encoders"
WORDS = ("red lamp blue chair the of for hair shampoo oil cream face night day soft big small pink "
         "lip stick nail polish organic vitamin price brand ##s ##ing ##er").split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!$&-é"
TEXTS = [
    "", " ", "red lamp", "Red LAMP!", "The of for.", "hair oil, 12.50 $ & more", "é", "日本語 text",
    "line\nbreak\tand\u0000control\u200b", "[SEP] spelt out <pad> </s> [PAD]", "🙂", "a" * 300,
    "soft pink lip stick. " * 30, " ".join(WORDS[:25]),
]


def word_piece(pad, unknown, first, last):
    """A WordPiece tokenizer of a few words, all letters, and their continuations."""
    special = list(dict.fromkeys([first, pad, last, unknown]))
    if pad == "[PAD]":
        special = [pad, unknown, first, last]
    pieces = special + WORDS + list(LETTERS) + ["##" + letter for letter in LETTERS]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])])
    names = dict(pad_token=pad, unk_token=unknown, cls_token=first, sep_token=last)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names), len(vocabulary)


def unigram():
    """A Unigram tokenizer as T5 has it: blanks become ▁, `</s>` ends a text."""
    random.seed(1)
    pieces = ["▁" + word for word in WORDS if word[0] != "#"] + ["▁"] + list(LETTERS)
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scored += [(piece, -random.uniform(1, 9) - (len(piece) < 3) * 4) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)])
    names = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names), len(scored)


def bert(positions):
    tokenizer, size = word_piece("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    config = BertConfig(vocab_size=size, hidden_size=18, num_hidden_layers=2,
                        num_attention_heads=3, intermediate_size=26,
                        max_position_embeddings=positions)
    return tokenizer, BertModel(config, add_pooling_layer=False), 18


def mpnet():
    tokenizer, size = word_piece("<pad>", "[UNK]", "<s>", "</s>")
    config = MPNetConfig(vocab_size=size, hidden_size=16, num_hidden_layers=2,
                         num_attention_heads=2, intermediate_size=24,
                         max_position_embeddings=202, pad_token_id=1, bos_token_id=0,
                         eos_token_id=2)
    return tokenizer, MPNetModel(config, add_pooling_layer=False), 16


def t5(feed_forward):
    tokenizer, size = unigram()
    config = T5Config(vocab_size=size, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3,
                      feed_forward_proj=feed_forward)
    return tokenizer, T5EncoderModel(config), 16


def normalised(width):
    return [Pooling(width, pooling_mode="mean"), Normalize()]


CASES = {
    "bert": (lambda: bert(64), 40, normalised),
    # Poolings joined, no normalisation, a dense layer with its default activation.
    "bert-joined": (lambda: bert(32), 32, lambda width: [
        Pooling(width, pooling_mode=["cls", "max", "mean", "mean_sqrt_len_tokens"]),
        Dense(4 * width, 10)]),
    # Longer than the exact distances of the position buckets, and than the last of them.
    "mpnet": (mpnet, 200, normalised),
    # Sentence-T5: mean, a dense layer without bias and activation, length 1.
    "t5": (lambda: t5("relu"), 200, lambda width: [
        Pooling(width, pooling_mode="mean"),
        Dense(width, 12, bias=False, activation_function=torch.nn.Identity()), Normalize()]),
    "t5-gated": (lambda: t5("gated-gelu"), 60, normalised),
}


def make(name, build, limit, head, seed):
    torch.manual_seed(seed)
    tokenizer, model, width = build()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # Fresh norms and biases are ones and zeros, which would hide that one is not applied.
            if "norm" in parameter_name.lower() and parameter_name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter_name.endswith("bias") or "relative_attention_bias" in parameter_name:
                parameter.uniform_(-0.5, 0.5)
            elif "embedding" in parameter_name or "shared" in parameter_name:
                parameter.normal_()
            else:
                parameter.normal_(std=0.3)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder / "source")
    tokenizer.save_pretrained(folder / "source")
    transformer = Transformer(str(folder / "source"), max_seq_length=limit)
    sentence = SentenceTransformer(modules=[transformer, *head(width)], device="cpu")
    vectors = sentence.encode(TEXTS, batch_size=4)
    sentence.save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(folder / "source")
    rounded = [[float(f"{x:.7g}") for x in vector] for vector in vectors.tolist()]
    (folder / "expected.json").write_text(
        json.dumps({"texts": TEXTS, "vectors": rounded}, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    for seed, (name, (build, limit, head)) in enumerate(CASES.items()):
        make(name, build, limit, head, seed)
