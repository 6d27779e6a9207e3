# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Folders and calls for tokenizers, the same for ours and for transformers'.

test_tokenizer_calls.py holds ours against tokenizer_calls.json, which tests/oracle/tokenizer_live.py records from
transformers; that script also makes as many random calls as it is asked for.
"""
import json
import pathlib
import random
import shutil
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo" / "model"
GOLDEN = ROOT / "tests" / "golden" / "tokenizers"
BOS = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "single": [BOS, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [BOS, {"Sequence": {"id": "A", "type_id": 0}}, BOS, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}}
ODD = {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "x", "type_id": 3}}, {"Sequence": {"id": "A", "type_id": 2}}],
       "pair": [{"Sequence": {"id": "B", "type_id": 5}}, {"SpecialToken": {"id": "x", "type_id": 1}},
                {"Sequence": {"id": "A", "type_id": 4}}],
       "special_tokens": {"x": {"id": "x", "ids": [1, 7], "tokens": ["<eos>", "\n\n\n"]}}}
PADDING = dict(strategy="BatchLongest", direction="Right", pad_id=0, pad_type_id=0, pad_token="<pad>",
               pad_to_multiple_of=8)
TRUNCATION = dict(direction="Left", max_length=6, stride=0, strategy="LongestFirst")
# name: source folder, files or None for all of the tokenizer, changes of tokenizer_config.json (None: no such file),
# changes of tokenizer.json, keywords of from_pretrained()
KINDS = {
    "demo": (DEMO, None, {}, {}, {}),
    "flags in the config": (DEMO, None, {"add_bos_token": True, "add_eos_token": True}, {}, {}),
    "bos by keyword": (DEMO, None, {}, {}, {"add_bos_token": True}),
    "bos and eos by keyword": (DEMO, None, {}, {}, {"add_bos_token": True, "add_eos_token": True}),
    "bos in the template": (DEMO, None, {}, {"post_processor": TEMPLATE}, {}),
    "odd template": (DEMO, None, {}, {"post_processor": ODD}, {}),
    "no template": (DEMO, None, {}, {"post_processor": None}, {}),
    "bert": (DEMO, None, {}, {"post_processor": {"type": "BertProcessing", "sep": ["<eos>", 1], "cls": ["<bos>", 2]}},
             {}),
    "saved after training": (DEMO, None, {}, {"padding": PADDING, "truncation": TRUNCATION}, {}),
    "sides and length": (DEMO, None, {"padding_side": "right", "truncation_side": "left", "model_max_length": 9}, {}, {}),
    "by keywords": (DEMO, None, {}, {}, dict(padding_side="right", truncation_side="left", model_max_length=5,
                                             pad_token="<eos>", model_input_names=["input_ids"])),
    "names": (DEMO, None, {"image_token": "<image>", "extra_special_tokens": [], "unk_token": {
        "content": "<unk>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "__type": "AddedToken"}, "clean_up_tokenization_spaces": True}, {}, {}),
    "no pad": (DEMO, None, {"pad_token": None}, {}, {}),
    "extra": (DEMO, None, {"extra_special_tokens": ["<image>", "<loc0001>"]}, {}, {}),
    "other class": (DEMO, None, {"tokenizer_class": "PreTrainedTokenizerFast"}, {}, {}),
    "json alone": (DEMO, ["tokenizer.json"], None, {}, {}),
    "model alone": (DEMO, ["tokenizer.model"], None, {}, {}),
    "model and config": (DEMO, ["tokenizer.model"], {}, {}, {}),
    "model with bos": (DEMO, ["tokenizer.model"], {"add_bos_token": True, "add_eos_token": True}, {}, {}),
    **{f"golden {name}": (GOLDEN / name, None, {}, {}, {}) for name in (
        "backend", "json", "older", "partial", "spm", "words")},
}
FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
WORDS = ("a red dog", "caption en", "blue circle", "detect cat ; dog", "<loc0001><loc1023><seg007> cat", "  two  spaces ",
         "", "\n", "line\nline\n\n", "<eos>", "x <bos>y<pad>", "<mask>", "日本の猫", "naïve café", "🐱!", "\t", "<image>",
         "it 's , fine .", "答", "1234 5678", "<unk>", "<loc1>", "a" * 30)


def make(folder, kind):
    """Writes a folder -> keywords of from_pretrained()."""
    source, names, config, changes, keywords = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or FILES:
        if (source / name).exists():
            shutil.copy(source / name, folder)
    if config is not None:
        path = folder / "tokenizer_config.json"
        write(path, {**json.loads((source / path.name).read_text()), **config})
    if changes:
        path = folder / "tokenizer.json"
        write(path, {**json.loads(path.read_text()), **changes})
    return keywords


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False))


def attributes():
    """Calls without randomness: attributes and small methods."""
    for name in ("vocab_size", "all_special_tokens", "all_special_ids", "special_tokens_map", "extra_special_tokens",
                 "model_max_length", "model_input_names", "padding_side", "truncation_side", "is_fast", "chat_template",
                 "pad_token_type_id", "bos_token", "bos_token_id", "eos_token", "eos_token_id", "pad_token", "pad_token_id",
                 "unk_token", "unk_token_id", "mask_token", "mask_token_id", "sep_token", "cls_token_id",
                 "add_bos_token", "add_eos_token", "clean_up_tokenization_spaces", "split_special_tokens",
                 "max_len_single_sentence", "max_len_sentences_pair", "verbose"):
        yield {"get": name}
    for name in ("__len__", "__bool__", "get_added_vocab", "num_special_tokens_to_add"):
        yield {"call": name, "args": [], "kwargs": {}}
    yield {"call": "num_special_tokens_to_add", "args": [True], "kwargs": {}}
    yield {"call": "apply_chat_template", "args": [[{"role": "user", "content": "x"}]], "kwargs": {}}
    yield {"call": "convert_tokens_to_ids", "args": [["<bos>", "cat", "no such piece", "<loc0003>"]], "kwargs": {}}
    yield {"call": "convert_ids_to_tokens", "args": [[2, 300, 10 ** 6]], "kwargs": {"skip_special_tokens": True}}
    yield {"call": "convert_tokens_to_string", "args": [["▁a", "<0xE6>", "<0x97>", "<0xA5>", "<0xE6>", "b▁", "<0xFF>"]],
           "kwargs": {}}
    yield {"call": "get_special_tokens_mask", "args": [[2, 300, 0, 4]],
           "kwargs": {"already_has_special_tokens": True}}
    yield {"call": "decode", "args": [[]], "kwargs": {}}
    yield {"call": "decode", "args": [{"input_ids": [300, 301]}], "kwargs": {}}
    yield {"call": "batch_decode", "args": [[2, 300, 301]], "kwargs": {"skip_special_tokens": True}}
    yield {"call": "batch_decode", "args": [[]], "kwargs": {}}
    yield {"call": "add_tokens", "args": [[]], "kwargs": {}}


def text(rng):
    return "".join(rng.choice(WORDS) + rng.choice(("", " ")) for _ in range(rng.choice((0, 1, 1, 2, 3))))


def length_options(rng, least):
    options = {}
    if rng.random() < 0.5:
        options["padding"] = rng.choice((True, False, "longest", "max_length", "do_not_pad"))
    if rng.random() < 0.5:
        options["truncation"] = rng.choice((True, False, "longest_first", "only_first", "only_second",
                                            "do_not_truncate", "nonsense"))
    if rng.random() < 0.6:
        options["max_length"] = max(least, rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 30)))
    if rng.random() < 0.2:
        options["pad_to_multiple_of"] = rng.choice((1, 2, 4, 8))
    if rng.random() < 0.2:
        options["padding_side"] = rng.choice(("left", "right"))
    if rng.random() < 0.3:
        options["return_tensors"] = "np"
    return options


def random_call(rng, least):
    """One call as {"call", "args", "kwargs"}; "tokens" also asks the result for its tokens, words, characters.

    least: of max_length. Where it is less than the special tokens, transformers truncates nothing, and we refuse it.
    """
    options = length_options(rng, least)
    for name, share in (("add_special_tokens", 0.2), ("return_token_type_ids", 0.4), ("return_attention_mask", 0.2),
                        ("return_special_tokens_mask", 0.3), ("return_length", 0.2), ("split_special_tokens", 0.1)):
        if rng.random() < share:
            options[name] = rng.random() < 0.6
    kind = rng.randrange(10)
    if kind < 4:  # one text or two
        args = [text(rng)] + ([text(rng)] if rng.random() < 0.4 else [])
    elif kind < 8:  # rows
        n = rng.randint(1, 4)
        args = [[text(rng) for _ in range(n)]]
        if rng.random() < 0.4:
            args.append([text(rng) for _ in range(n if rng.random() < 0.95 else n + 1)])
    elif kind == 8:  # pairs in rows
        args = [[[text(rng), text(rng)] for _ in range(rng.randint(1, 3))]]
    else:
        options["is_split_into_words"] = True
        words = [[text(rng) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 2))]
        args = [words if rng.random() < 0.7 else words[0]]
    how = rng.randrange(12)
    if how == 0:
        return {"call": "encode", "args": args, "kwargs": options}
    if how == 1 and isinstance(args[0], str):
        return {"call": "tokenize", "args": args, "kwargs": {
            k: v for k, v in options.items() if k in ("add_special_tokens", "split_special_tokens")}}
    if how == 2:
        rows = [[rng.randint(0, 400) for _ in range(rng.randint(0, 5))] for _ in range(rng.randint(1, 3))]
        options.pop("truncation", None)
        options = {k: v for k, v in options.items() if k in (
            "padding", "max_length", "pad_to_multiple_of", "padding_side", "return_tensors", "return_attention_mask")}
        given = {"input_ids": rows}
        if rng.random() < 0.4:
            given["token_type_ids"] = [[1] * len(row) for row in rows]
        return {"call": "pad", "args": [given if rng.random() < 0.7 else {"input_ids": rows[0]}], "kwargs": options}
    if how == 3:
        rows = [[rng.randint(0, 420) for _ in range(rng.randint(0, 9))] for _ in range(rng.randint(1, 3))]
        return {"call": rng.choice(("decode", "batch_decode")), "args": [rows if rng.random() < 0.6 else rows[0]],
                "kwargs": {"skip_special_tokens": rng.random() < 0.5}}
    offsets = rng.random() < 0.3
    if offsets:
        options["return_offsets_mapping"] = True
    return {"call": "__call__", "args": args, "kwargs": options, "tokens": offsets and "return_tensors" not in options}


def calls(kind, n, seed=0):
    """The calls of one folder."""
    rng = random.Random(f"{seed} {kind}")
    least = 4 if any(word in kind for word in ("bos", "template", "bert")) else 0
    return [*attributes(), *(random_call(rng, least) for _ in range(n))]


def outcome(tokenizer, call):
    """What a call gives, as JSON; {"error": ...} when it raises."""
    try:
        if "get" in call:
            return plain(getattr(tokenizer, call["get"]))
        made = getattr(tokenizer, call["call"])(*call["args"], **call["kwargs"])
        result = plain(dict(made) if hasattr(made, "keys") else made)
        if call.get("tokens"):
            rows = range(len(made.encodings))
            result = [result, [plain([made.tokens(r), made.sequence_ids(r), made.word_ids(r)]) for r in rows],
                      plain([made.char_to_token(r, 0) for r in rows])]
        return result
    except (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError,
            ValueError) as error:
        return {"error": type(error).__name__}
    except Exception as error:  # the `tokenizers` library raises nothing more precise
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        return {"error": "Exception"}


def plain(value):
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, dict) and len(value) > 100:  # a vocabulary: the same in the same order
        return [len(value), zlib.crc32(json.dumps(list(value.items())).encode())]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def same(found, expected):
    """Errors may be of another class; True and False are not 1 and 0."""
    if isinstance(expected, dict) and set(expected) == {"error"}:
        return isinstance(found, dict) and set(found) == {"error"}
    return found == expected and type(found) is type(expected)
