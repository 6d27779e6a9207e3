#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Builds the demo's tokenizer: a sentencepiece BPE model laid out as Gemma's, and the same for transformers.

    make_tokenizer.py FOLDER      writes tokenizer.model, tokenizer.json, tokenizer_config.json

The order of the pieces is PaliGemma's: control pieces, user-defined pieces (newline runs, space runs, tags), bytes,
learned pieces, then <loc0000>..<loc1023> and <seg000>..<seg127>. <image> is an added token after the last piece.
"""
import io
import os
import string
import sys

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken
from transformers import GemmaTokenizer
from transformers.convert_slow_tokenizer import generate_merges

import draw

TAGS = ["table", "caption", "tr", "th", "td", "h1", "h2", "ul", "ol", "li", "b", "i", "u", "sub", "sup", "code"]
LOCATIONS = [f"<loc{i:04d}>" for i in range(1024)]
SEGMENTS = [f"<seg{i:03d}>" for i in range(128)]


def corpus():
    """Sentences of the world, with each location replaced by nothing: those pieces are never learned."""
    rng = np.random.default_rng(0)
    for seed in range(4000):
        s = draw.scene(10_000_000 + seed)
        yield draw.caption(s)[0]
        yield draw.caption(s)[1]
        yield from draw.question(s, rng)
        yield draw.detection(s, rng)[0]


def build_proto():
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(), model_writer=trained, model_type="bpe", vocab_size=256 + 4 + 256,
        hard_vocab_limit=False, byte_fallback=True, split_digits=True, character_coverage=1.0,
        required_chars="".join(c for c in string.printable if c.isprintable() and c != " "),
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, num_threads=1, minloglevel=1,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>")
    model = pb.ModelProto.FromString(trained.getvalue())
    learned = [(p.piece, p.score) for p in model.pieces if p.type == p.NORMAL]
    del model.pieces[:]

    def add(kind, piece, score=0.0):
        model.pieces.add(piece=piece, score=score, type=getattr(pb.ModelProto.SentencePiece, kind))

    for piece in ["<pad>", "<eos>", "<bos>"]:
        add("CONTROL", piece)
    add("UNKNOWN", "<unk>")
    user = ["<mask>"] + ["\n" * n for n in range(1, 32)] + ["\u2581" * n for n in range(2, 32)]
    user += [f"<{t}>" for t in TAGS] + [f"</{t}>" for t in TAGS]
    for piece in user:
        add("USER_DEFINED", piece)
    for byte in range(256):
        add("BYTE", f"<0x{byte:02X}>")
    for piece, score in learned:
        add("NORMAL", piece, score)
    for piece in LOCATIONS + SEGMENTS:
        add("USER_DEFINED", piece)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model


def build(folder):
    os.makedirs(folder, exist_ok=True)
    model = build_proto()
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(model.SerializeToString())
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab, None), add_bos_token=False)
    tokenizer.add_tokens([AddedToken(p.piece, normalized=False, special=False) for p in model.pieces
                          if p.type == p.USER_DEFINED and p.piece not in ("<mask>",)])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", normalized=False, special=True)]})
    assert tokenizer.convert_tokens_to_ids("<image>") == len(vocab)
    tokenizer.save_pretrained(folder)
    return tokenizer


if __name__ == "__main__":
    print(len(build(sys.argv[1])), "tokens")
