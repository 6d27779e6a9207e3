#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random texts and ids through transformers and through the library, on tokenizers of every kind.

    fuzz_tokenizers.py PROGRAM [--texts N] [--seed S] [--sentencepiece] [--only NAME] [--folder FOLDER]

PROGRAM is the built tests/oracle/tokenize_lines; N texts in all (default 2000), spread over the kinds of
tests/golden/make_tokenizers.py. --sentencepiece: the library merges by sentencepiece where that is exact.
--folder: a checkpoint of your own instead. Exit status 1 when anything differs.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import make_tokenizers as mt  # noqa: E402


def hex_(text):
    return text.encode().hex()


def ids_of(line):
    return [int(i) for i in line.split()] if not line.startswith("!") else line


def requests(name, folder, n, seed):
    """(line for the program, how to read its answer, what transformers says)"""
    processor = mt.load(folder)
    tokenizer = processor.tokenizer
    pieces = sorted(tokenizer.get_vocab())
    rng = random.Random(f"{seed} {name}")
    special = [tokenizer.convert_tokens_to_ids(f"<{s}>") for s in ["pad", "eos", "bos", "unk", "image"]]
    yield "i", lambda a: a.split()[2:], [str(i) for i in [len(tokenizer)] + special]
    texts = [mt.random_text(rng, pieces) for _ in range(n)]
    banned = set(tokenizer.all_special_ids)
    for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False).input_ids):
        yield f"e {hex_(text)}", ids_of, ids
    for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids):
        # HF's model may still spell a special token out of characters; the library promises that it does not.
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special} | banned
        special -= {tokenizer.unk_token_id}
        if special.isdisjoint(ids):
            yield f"l {hex_(text)}", ids_of, ids
        else:
            yield f"l {hex_(text)}", lambda a, s=special: s.isdisjoint(ids_of(a)), True
    for text in texts[:max(20, n // 20)]:
        if text.count("<image>") > 1 or "\0" in text or "\U000f0000" in text:
            continue
        yield f"p 3 {hex_(text)}", ids_of, mt.layout(processor, text)
    for _ in range(n // 2):
        ids = mt.random_ids(rng, tokenizer)
        line = " ".join(map(str, ids))
        yield f"d {line}", str, hex_(tokenizer.decode(ids))
        yield f"s {line}", str, hex_(tokenizer.decode(ids, skip_special_tokens=True))


def check(program, name, folder, n, seed, extra):
    wanted = list(requests(name, folder, n, seed))
    run = subprocess.run([program, folder] + extra, input="\n".join(w[0] for w in wanted) + "\n", text=True,
                         capture_output=True)
    answers = run.stdout.split("\n")[:-1]
    if run.returncode or run.stderr or len(answers) != len(wanted):
        print(f"{name}: status {run.returncode}, {len(answers)} of {len(wanted)} answers\n{answers[:1]}\n"
              f"{run.stderr[-2000:]}")
        return len(wanted), 1
    wrong = [(line, read(answer), right) for (line, read, right), answer in zip(wanted, answers)
             if read(answer) != right]
    how = answers[0].split()
    print(f"{name}: {len(wanted)} requests, {len(wrong)} differ (source {how[0]}, "
          f"{'sentencepiece' if how[1] == '1' else 'list'})", flush=True)
    for line, found, right in wrong[:5]:
        op, _, rest = line.partition(" ")
        if op in "elp":
            rest = bytes.fromhex(rest.split()[-1] if rest.strip() else "").decode()
        print(f"  {op} {rest!r}\n    found    {found}\n    expected {right}")
    return len(wanted), len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentencepiece", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--folder")
    args = parser.parse_args()
    extra = ["sentencepiece"] if args.sentencepiece else []
    total = wrong = 0
    with tempfile.TemporaryDirectory() as top:
        kinds = [k for k in mt.kinds(True) if not args.only or k[0] == args.only] if not args.folder else []
        for name, make in kinds:
            folder = os.path.join(top, name)
            make(folder)
            n, w = check(args.program, name, folder, max(1, args.texts // len(kinds)), args.seed, extra)
            total, wrong = total + n, wrong + w
        if args.folder:
            total, wrong = check(args.program, "folder", args.folder, args.texts, args.seed, extra)
    print(f"{total} requests, {wrong} differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
