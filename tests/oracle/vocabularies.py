# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Synthetic vocabularies laid out as PaliGemma's, as sentencepiece model and as transformers' tokenizer.

The order of the ids is the real one: control pieces, <mask>, newline runs, space runs, HTML tags, bytes, learned
pieces, <loc0000>..<loc1023>, <seg000>..<seg127>; then <image>, which only transformers knows (an added token).
"""
import functools
import io
import json
import os

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken
from transformers import GemmaTokenizer
from transformers.convert_slow_tokenizer import generate_merges

SPACE = "\u2581"
TAGS = ["table", "caption", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "ul", "ol", "li", "p", "b", "i", "u",
        "sub", "sup", "code"]
LOCATIONS = [f"<loc{i:04d}>" for i in range(1024)]
SEGMENTS = [f"<seg{i:03d}>" for i in range(128)]
ALPHABETS = ["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "äöüßéèñçøåł", "абвгдежзиклмнопрстуя",
             "αβγδεζηθικλμνξοπρστυφχψω", "的一是不了人我在有他這中大来上国", "のにはをたがでてとし", "אבגדהוזחט", "😀🐱🚲🍎"]
PUNCTUATION = "0123456789.,;:!?-()'\"/%"


def words(rng, n):
    """n random words of random alphabets, Latin ones most often."""
    for _ in range(n):
        alphabet = ALPHABETS[0 if rng.random() < 0.7 else rng.integers(len(ALPHABETS))]
        yield "".join(alphabet[i] for i in np.minimum(rng.geometric(0.12, rng.integers(1, 9)), len(alphabet)) - 1)


def _corpus():
    rng = np.random.default_rng(20)
    known = list(words(rng, 3000))
    for _ in range(4000):
        chosen = [known[min(int(i), len(known) - 1)] for i in rng.geometric(0.003, rng.integers(2, 12))]
        yield " ".join(chosen) + " " + "".join(PUNCTUATION[i] for i in rng.integers(len(PUNCTUATION), size=3))


@functools.lru_cache(maxsize=None)
def _trained():
    """Learned pieces in the order of their merges, and the serialized model they come from."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_corpus(), model_writer=out, model_type="bpe", vocab_size=2000, hard_vocab_limit=False,
        byte_fallback=True, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>")
    pieces = [p.piece for p in pb.ModelProto.FromString(out.getvalue()).pieces if p.type == p.NORMAL]
    return [p for p in pieces if len(p) > 1], [p for p in pieces if len(p) == 1], out.getvalue()


def build(n_learned, real_size=False):
    """-> (sentencepiece ModelProto, GemmaTokenizer) with at most n_learned merged pieces. real_size: "\n", the bytes,
    <loc0000>, <seg000> and <image> get the ids they have in PaliGemma (108, 217, 256000, 257024, 257152)."""
    merged, characters, serialized = _trained()
    model = pb.ModelProto.FromString(serialized)
    del model.pieces[:]

    def add(kind, pieces, score=lambda i: 0.0):
        for i, piece in enumerate(pieces):
            model.pieces.add(piece=piece, score=score(i), type=getattr(pb.ModelProto.SentencePiece, kind))

    learned = [p for p in merged if p.strip(SPACE)][:n_learned] + characters
    user = ["\n" * n for n in range(1, 12)] + [SPACE * n for n in range(2, 12)]
    user += [f"<{t}>" for t in TAGS] + [f"</{t}>" for t in TAGS]
    filler = []
    if real_size:
        user = [f"<unused{i}>" for i in range(103)] + ["\n" * n for n in range(1, 32)] + \
               [SPACE * n for n in range(2, 32)] + user[-2 * len(TAGS):]
        user += [f"<extra{i}>" for i in range(217 - 5 - len(user))]
        filler = [f"{SPACE}x{i:06d}" for i in range(256000 - 217 - 256 - len(learned))]
    add("CONTROL", ["<pad>", "<eos>", "<bos>"])
    add("UNKNOWN", ["<unk>"])
    add("USER_DEFINED", ["<mask>"] + user)
    add("BYTE", [f"<0x{byte:02X}>" for byte in range(256)])
    add("NORMAL", learned + filler, lambda i: -float(i))
    add("USER_DEFINED", LOCATIONS + SEGMENTS)
    model.trainer_spec.vocab_size = len(model.pieces)

    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab, None), add_bos_token=False)
    tokenizer.add_tokens([AddedToken(p, normalized=False, special=False) for p in user + LOCATIONS + SEGMENTS])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", normalized=False, special=True)]})
    assert tokenizer.convert_tokens_to_ids("<image>") == len(vocab)
    return model, tokenizer


def save_official(folder, model, tokenizer):
    """The files of the official folders: tokenizer.model beside tokenizer.json."""
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(model.SerializeToString())
    tokenizer.save_pretrained(folder)
    special = {f"{k}_token": f"<{k}>" for k in ["bos", "eos", "pad", "unk"]}
    for name, value in [("added_tokens.json", {"<image>": len(model.pieces)}),
                        ("special_tokens_map.json", dict(special, additional_special_tokens=["<image>"]))]:
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f, indent=2)
