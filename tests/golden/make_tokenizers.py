#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Tokenizers of every kind that a checkpoint folder may hold, and what transformers makes of texts and ids with them.

    make_tokenizers.py            writes tokenizers/NAME/ (the small ones, committed) and tokenizers/cases.json
    make_tokenizers.py --all DIR  writes all kinds to DIR/NAME/, for tests/oracle/fuzz_tokenizers.py

Made with transformers 5.23, tokenizers 0.23, sentencepiece 0.2.
"""
import io
import json
import os
import random
import shutil
import sys
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import numpy as np  # noqa: E402
import sentencepiece  # noqa: E402
from sentencepiece import sentencepiece_model_pb2 as pb  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoTokenizer, GemmaTokenizer, PaliGemmaProcessor, PreTrainedTokenizerFast, \
    SiglipImageProcessor  # noqa: E402
from transformers.tokenization_utils_base import generate_merges  # noqa: E402

warnings.filterwarnings("ignore")
SPACE = "\u2581"
HERE = os.path.dirname(os.path.abspath(__file__))
COMMITTED = ["spm", "json", "partial", "words", "backend", "older"]
WORDS = ("detect caption describe segment answer question what color is the a an of in on two three cat cats dog dogs "
         "banana bananas red green blue circle square there are left right en de fr año größe кошка собака 猫 犬 "
         "図形 banana anana caption captions detection ; : , . ? ! 0 1 2 10 1024").split()


def corpus(seed=1, n=600):
    rng = random.Random(seed)
    for _ in range(n):
        yield " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))


def train(vocab_size=420, bytes_=True, user=None):
    """A model laid out as Gemma's, by sentencepiece itself."""
    if user is None:
        user = ["<mask>"] + ["\n" * n for n in range(1, 5)] + [SPACE * n for n in range(2, 5)] + ["<b>", "</b>", "<tr>"]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(), model_writer=out, model_type="bpe", vocab_size=vocab_size, hard_vocab_limit=False,
        byte_fallback=bytes_, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1,
        user_defined_symbols=user, minloglevel=2, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>")
    model = pb.ModelProto.FromString(out.getvalue())
    model.ClearField("trainer_spec")  # it holds the paths and settings of the training
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = bytes_
    model.trainer_spec.vocab_size = len(model.pieces)
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = 3, 2
    model.trainer_spec.eos_id, model.trainer_spec.pad_id = 1, 0
    return model


def write_json(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))


def write_model(folder, model, config=None):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(model.SerializeToString())
    write_json(folder, "tokenizer_config.json", config or {"tokenizer_class": "GemmaTokenizer"})


def save(folder, tokenizer):
    """As save_pretrained, without white space in tokenizer.json."""
    tokenizer.save_pretrained(folder)
    path = os.path.join(folder, "tokenizer.json")
    with open(path, encoding="utf-8") as f:
        value = json.load(f)
    write_json(folder, "tokenizer.json", value)
    path = os.path.join(folder, "tokenizer_config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config.pop("vocab_file", None)  # a path of the machine that made it
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, ensure_ascii=False, indent=2)
        f.write("\n")


def vocab_of(model):
    return {p.piece: i for i, p in enumerate(model.pieces)}


def gemma(vocab, merges=None, added=(), **kwargs):
    tokenizer = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab) if merges is None else merges, **kwargs)
    if added:
        tokenizer.add_tokens(list(added))
    return tokenizer


def base_vocab(pieces, bytes_=range(256)):
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + [f"<0x{b:02X}>" for b in bytes_]
    return {p: i for i, p in enumerate(dict.fromkeys(names + list(pieces)))}


def trained_by_tokenizers(fuse_unk=True, byte_fallback=True):
    """BpeTrainer lists one merge for a piece: fewer than sentencepiece would do."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=fuse_unk))
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256) if byte_fallback]
    t.train_from_iterator(corpus(2), trainers.BpeTrainer(vocab_size=450, special_tokens=special, show_progress=False))
    value = json.loads(t.to_str())  # the bytes need not be added tokens
    value["added_tokens"] = [a for a in value["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(value))


# Each kind: writes its files into the folder.

def kind_spm(folder):
    write_model(folder, train())


def kind_json(folder):
    write_model(folder + ".tmp", train())
    save(folder, GemmaTokenizer.from_pretrained(folder + ".tmp"))
    shutil.rmtree(folder + ".tmp")


def kind_partial(folder):
    value = json.loads(trained_by_tokenizers().to_str())["model"]
    save(folder, gemma(value["vocab"], [tuple(m) for m in value["merges"]], ["\n", "\n\n"]))


def kind_words(folder):
    """By hand: whole words, no merges, no bytes."""
    pieces = list("abcdefghijklmnopqrstuvwxyz;\n") + [SPACE] + [SPACE + w for w in WORDS if len(w) > 1] + ["cat", "de"]
    save(folder, gemma(base_vocab(pieces, ()), []))


def kind_backend(folder):
    """PreTrainedTokenizerFast: the pipeline is the file's."""
    t = trained_by_tokenizers(fuse_unk=False, byte_fallback=False)
    t.add_tokens([AddedToken("a b", normalized=True), AddedToken("<R>", rstrip=True), AddedToken("<L>", lstrip=True)])
    save(folder, PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
                                         unk_token="<unk>", extra_special_tokens=["<image>", "<sp>"]))


def kind_older(folder):
    """The files of transformers 4, beside a model that lacks the bytes of some characters."""
    model = train(user=["<mask>", "\n", "\n\n"])
    tokenizer = gemma(vocab_of(model))
    flags = dict(single_word=False, lstrip=False, rstrip=False)
    save(folder, tokenizer)
    decoder = {str(i): dict(flags, content=c, normalized=False, special=True)
               for i, c in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])}
    decoder["5"] = dict(flags, content="\n", normalized=True, special=False)
    decoder["1000"] = dict(flags, content="<image>", normalized=False, special=True)
    decoder["999"] = dict(flags, content="<first>", normalized=False, special=False, rstrip=True)
    write_json(folder, "tokenizer_config.json", {
        "tokenizer_class": "GemmaTokenizerFast", "added_tokens_decoder": decoder, "bos_token": "<bos>",
        "eos_token": {"__type": "AddedToken", "content": "<eos>", "lstrip": False, "rstrip": False,
                      "normalized": False, "single_word": False, "special": True},
        "pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": ["<image>"],
        "model_max_length": 10 ** 30, "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}})


def kind_legacy(folder):
    """No added_tokens_decoder: special_tokens_map.json and added_tokens.json count."""
    write_model(folder, train(), {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "sep_token": "<sep>"})
    write_json(folder, "special_tokens_map.json", {
        "bos_token": {"content": "<bos>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
        "eos_token": "<eos>", "additional_special_tokens": ["<image>", "<x>"]})
    write_json(folder, "added_tokens.json", {"<image>": 900, "<plain>": 901, "<sep>": 899})


def kind_legacy_json(folder):
    """Likewise beside a tokenizer.json."""
    kind_json(folder)
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
                                                 "cls_token": {"__type": "AddedToken", "content": "<cls>",
                                                               "lstrip": False, "rstrip": True, "single_word": False,
                                                               "normalized": True, "special": False}})
    write_json(folder, "special_tokens_map.json", {"bos_token": "<bos>", "boi_token": "<boi>",
                                                   "additional_special_tokens": ["<image>", "<x>"]})
    write_json(folder, "added_tokens.json", {"<image>": 900, "<plain>": 901, "<tr>": 899})


def kind_official(folder):
    """tokenizer.model beside tokenizer.json, and the older files."""
    model = train()
    tokenizer = gemma(vocab_of(model), None, [AddedToken(p.piece, normalized=False, special=False)
                                              for p in model.pieces if p.type == p.USER_DEFINED])
    write_model(folder, model)
    save(folder, tokenizer)
    write_json(folder, "special_tokens_map.json", {"bos_token": "<bos>", "additional_special_tokens": ["<image>"]})
    write_json(folder, "added_tokens.json", {"<image>": len(model.pieces)})


def kind_processor(folder):
    """PaliGemmaProcessor.save_pretrained, the files of a fine-tune."""
    write_model(folder + ".tmp", train())
    PaliGemmaProcessor(SiglipImageProcessor(image_seq_length=3),
                       GemmaTokenizer.from_pretrained(folder + ".tmp")).save_pretrained(folder)
    shutil.rmtree(folder + ".tmp")


def kind_tab(folder):
    """Converters of transformers 4 wrote "\\t" for <0x09>."""
    vocab = {("\t" if p == "<0x09>" else p): i for p, i in vocab_of(train(user=["<mask>", "\n"])).items()}
    for p in ["\t\t", "\t\t\t"]:
        vocab[p] = len(vocab)
    save(folder, gemma(vocab))


def kind_tab_model(folder):
    """A piece whose characters are not pieces: sentencepiece would make it, HF does not."""
    model = train()
    for p in ["\t\t", "ab\u0142"]:
        model.pieces.add(piece=p, score=-1000.0, type=1)
    write_model(folder, model)


def kind_scored(folder):
    """Merges in the order of scores that are equal, the longest first: no sentencepiece model has them."""
    model = train()
    vocab = vocab_of(model)
    save(folder, gemma(vocab, generate_merges(vocab, {p.piece: p.score for p in model.pieces})))


def kind_no_user(folder):
    """Newline and space runs are pieces, but no added tokens."""
    save(folder, gemma(vocab_of(train())))


def adversarial_pieces(rng, letters, n):
    pieces = list(letters)
    while len(pieces) < n:
        pieces.append(rng.choice(pieces) + rng.choice(pieces))
        if len(pieces[-1]) > 9 or pieces[-1] in pieces[:-1]:
            pieces.pop()
    rest = pieces[len(letters):]
    rng.shuffle(rest)
    return list(letters) + rest


def kind_adversarial(folder, seed=0):
    """Few letters, many pieces that overlap themselves, in random order; all splits."""
    rng = random.Random(seed)
    save(folder, gemma(base_vocab(adversarial_pieces(rng, rng.choice(["ab", "abc", "a" + SPACE]), rng.choice([12, 40])))))


def kind_shuffled(folder, seed=0):
    """Likewise, with some of the merges, in random order."""
    rng = random.Random(seed)
    vocab = base_vocab(adversarial_pieces(rng, "abc", 50), [b for b in range(256) if b % 5 or b > 0xF0])
    merges = generate_merges(vocab)
    rng.shuffle(merges)
    save(folder, gemma(vocab, merges[:len(merges) * 3 // 4]))


def kind_flags(folder):
    """Added tokens with every flag, that overlap, hold spaces, or are single characters."""
    added = [AddedToken("<L>", lstrip=True, normalized=False), AddedToken("<R>", rstrip=True, normalized=False),
             AddedToken("<S>", lstrip=True, rstrip=True, special=True), AddedToken("the cat", normalized=True),
             AddedToken("cat and", normalized=False), AddedToken("ca", normalized=True), AddedToken("<bos>x"),
             AddedToken("$", special=True), AddedToken("a", special=True, normalized=True),
             AddedToken("two  spaces", special=True, normalized=True), AddedToken(SPACE + "on", normalized=False),
             AddedToken("<0x41>", special=False), AddedToken("<0x+f>", special=False)]
    save(folder, gemma(vocab_of(train()), None, added, extra_special_tokens={"image_token": "<image>"}))


def kind_mixed(folder):
    """A tokenizer.model of another vocabulary: HF reads tokenizer.json."""
    kind_json(folder)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(train(400).SerializeToString())


def kinds(all_):
    names = [n[5:] for n in globals() if n.startswith("kind_")]
    for name in COMMITTED if not all_ else names:
        yield name, globals()["kind_" + name]
        if all_ and name in ("adversarial", "shuffled"):
            for seed in range(1, 12):
                yield f"{name}{seed}", lambda folder, f=globals()["kind_" + name], s=seed: f(folder, s)


def load(folder, n_image_tokens=3):
    """The processor as AutoProcessor makes it for a paligemma checkpoint."""
    config = os.path.join(folder, "config.json")
    made = not os.path.exists(config)
    if made:
        write_json(folder, "config.json", {"model_type": "paligemma"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if made:
        os.remove(config)
    image = SiglipImageProcessor(image_seq_length=n_image_tokens, size={"height": 8, "width": 8})
    return PaliGemmaProcessor(image, tokenizer)


def random_text(rng, tokenizer_pieces=()):
    special = ["<eos>", "<bos>", "<pad>", "<unk>", "<mask>", "<image>", "<loc0000>", "<loc1023>", "<loc1024>", "<loc12>",
               "<seg000>", "<seg127>", "<seg128>", "<b>", "</b>", "<tr>", "<0x41>", "<", ">", "<loc", "<R>", "<L>",
               "<S>", "<sp>", "<x>", "<sep>", "<plain>", "<first>", "the cat", "cat and", "a b", "$", "two  spaces"]

    def part():
        kind = rng.randrange(14)
        if kind < 3:
            return rng.choice(["", " "]) + rng.choice(WORDS)
        if kind == 3:
            return rng.choice(special)
        if kind == 4:
            return rng.choice(["\n", " ", SPACE, "\t", "\r\n", "\u00a0", " \n"]) * rng.choice([1, 1, 2, 3, 4, 5, 7, 9, 12, 33])
        if kind == 5:
            return chr(rng.choice([rng.randrange(0x20), rng.randrange(0x7F, 0xA0), 0xFFFD, 0xFEFF, 0x200D, 0xFFFF,
                                   0xE000, 0x2028, 0x3000, 0x10FFFF]))
        if kind == 6:
            return "".join(chr(rng.randrange(0x20, 0x250)) for _ in range(rng.randint(1, 6)))
        if kind == 7:
            code = rng.randrange(0x110000)
            return chr(code) if not 0xD800 <= code < 0xE000 else "\u0301"
        if kind == 8:
            return rng.choice(["👩‍👩‍👧", "é", "e\u0301", "ﬁ", "ẞ", "İ", "🇩🇪", "ก็", "한국어", "हिन्दी", "العربية", "Ω"])
        if kind == 9:
            return "".join(rng.choice("ab") for _ in range(rng.randint(1, 14)))
        if kind == 10:
            return "".join(rng.choice("abc" + SPACE) for _ in range(rng.randint(1, 30)))
        if kind == 11:
            return "".join(rng.choice(WORDS) for _ in range(3))
        if kind == 12 and tokenizer_pieces:
            return rng.choice(tokenizer_pieces)
        return str(rng.randrange(2000))

    return "".join(part() for _ in range(rng.choice([1, 1, 2, 3, 5, 8, 13, 30])))


def random_ids(rng, tokenizer):
    n = len(tokenizer)
    bytes_ = [i for i in (tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)) if i is not None]
    ids = []
    while len(ids) < rng.choice([1, 4, 9, 30]):
        kind = rng.randrange(5)
        if kind == 0:
            ids.append(rng.randrange(n + 3))
        elif kind == 1:
            ids += [rng.choice(bytes_) for _ in range(rng.randint(1, 3))]
        elif kind == 2:
            ids.append(rng.randrange(8))
        else:
            ids += tokenizer(random_text(rng)[:20], add_special_tokens=False).input_ids
    return ids


IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)


def layout(processor, text):
    return [int(i) for i in processor(images=IMAGE, text=text).input_ids[0]]


def main():
    if sys.argv[1:2] == ["--all"]:
        for name, make in kinds(True):
            make(os.path.join(sys.argv[2], name))
        return
    top = os.path.join(HERE, "tokenizers")
    shutil.rmtree(top, ignore_errors=True)
    cases = {}
    for name, make in kinds(False):
        folder = os.path.join(top, name)
        make(folder)
        processor = load(folder)
        tokenizer = processor.tokenizer
        rng = random.Random(name)
        pieces = sorted(tokenizer.get_vocab())
        texts = ["", " ", "\n", "caption en", " caption en ", "detect cat ; dog\n", "a\n\n", "<eos>", "x<image>y",
                 "  ", SPACE * 3, "\n\n\n\n\n\n", "<loc0001><loc0002> cat", "\u0000a\u0000", "<image>", "banana anana"]
        texts += [random_text(rng, pieces) for _ in range(50)]
        entry = {"special": [tokenizer.convert_tokens_to_ids(f"<{n}>") for n in ["pad", "eos", "bos", "unk", "image"]],
                 "n_ids": len(tokenizer), "encode": [], "literal": [], "layout": [], "decode": []}
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False).input_ids
            entry["encode"].append([text, ids])
            if len(entry["literal"]) < 40 and any(i in tokenizer.all_special_ids for i in ids):
                entry["literal"].append([text, tokenizer(text, add_special_tokens=False,
                                                         split_special_tokens=True).input_ids])
            if len(entry["layout"]) < 20 and text.count("<image>") <= 1 and "\0" not in text:
                entry["layout"].append([text, layout(processor, text)])
        for _ in range(30):
            ids = random_ids(rng, tokenizer)
            entry["decode"].append([ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)])
        cases[name] = entry
    with open(os.path.join(top, "cases.json"), "w", encoding="utf-8") as f:
        f.write("{\n")
        for i, (name, entry) in enumerate(cases.items()):
            f.write(("" if i == 0 else ",\n") + json.dumps(name) + ":" +
                    json.dumps(entry, ensure_ascii=True, separators=(",", ":")))
        f.write("\n}\n")


if __name__ == "__main__":
    main()
