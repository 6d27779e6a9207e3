#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random calls of the Python package's tokenizer and of transformers' on folders of many kinds; they must give the same.

    tokenizer_live.py [--build BUILD] [--calls N] [--seed S] [--only KIND] [--write]

N calls for each kind of folder of python/tests/tokenizer_cases.py (default 60), each kind by AutoTokenizer, then saved by
ours and opened again by both. --write records python/tests/tokenizer_calls.json from transformers. Exit status 1 when
anything differs.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests")]
import tokenizer_cases as cases  # noqa: E402
import transformers  # noqa: E402

warnings.filterwarnings("ignore")
RECORDED = 12  # random calls of each kind in tokenizer_calls.json


def record():
    recorded = {}
    with tempfile.TemporaryDirectory() as top:
        for number, kind in enumerate(cases.KINDS):
            folder = pathlib.Path(top, str(number))
            keywords = cases.make(folder, kind)
            theirs = transformers.AutoTokenizer.from_pretrained(folder, **keywords)
            recorded[kind] = [[call, cases.outcome(theirs, call)] for call in cases.calls(kind, RECORDED)]
    lines = ",\n".join(f"{json.dumps(kind)}: [\n" + ",\n".join(json.dumps(pair) for pair in pairs) + "]"
                       for kind, pairs in recorded.items())
    (ROOT / "python" / "tests" / "tokenizer_calls.json").write_text("{" + lines + "}\n")


def newer(call, kind):
    """What 5.24 does otherwise than 5.23: the added tokens of a bare tokenizer.model, and no row is no text."""
    if transformers.__version__.startswith("5.23."):
        return False
    special = call.get("get") in ("all_special_tokens", "all_special_ids", "extra_special_tokens")
    skips = call.get("call") in ("convert_ids_to_tokens", "get_special_tokens_mask", "get_added_vocab")
    return kind.startswith("model ") and (special or skips or call.get("tokens")) or call.get("call") == "batch_decode" and call["args"] == [[]]


def compare(ours, theirs, kind, n, seed, what, across=False):
    wrong = 0
    calls = cases.calls(kind, n, seed)
    for call in calls:
        if across and call.get("get") in ("add_bos_token", "add_eos_token"):
            continue  # they are in the template of tokenizer.json now, and the attribute says so nowhere
        if newer(call, kind):
            continue
        expected, found = cases.outcome(theirs, call), cases.outcome(ours, call)
        if not cases.same(found, expected):
            wrong += 1
            if wrong <= 4:
                print(f"{kind}, {what}: {json.dumps(call, ensure_ascii=False)}\n    found    {str(found)[:600]}\n    "
                      f"expected {str(expected)[:600]}")
    return len(calls), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build")
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        return record()
    if args.build:
        os.environ["PALIGEMMA_LIBRARY"] = str(pathlib.Path(args.build, "lib").resolve())
    import paligemma

    total = wrong = 0
    with tempfile.TemporaryDirectory() as top:
        for number, kind in enumerate(k for k in cases.KINDS if args.only in (None, k)):
            folder, saved = pathlib.Path(top, str(number)), pathlib.Path(top, f"{number} saved")
            keywords = cases.make(folder, kind)
            ours = paligemma.AutoTokenizer.from_pretrained(folder, **keywords)
            theirs = transformers.AutoTokenizer.from_pretrained(folder, **keywords)
            found = [compare(ours, theirs, kind, args.calls, args.seed, "opened")]
            ours.save_pretrained(saved)
            found.append(compare(paligemma.AutoTokenizer.from_pretrained(saved),
                                 transformers.AutoTokenizer.from_pretrained(saved), kind, args.calls // 3, args.seed + 1,
                                 "saved by ours"))
            found.append(compare(ours, transformers.AutoTokenizer.from_pretrained(saved), kind, args.calls // 3,
                                 args.seed + 2, "saved by ours, read by transformers", across=True))
            total, wrong = total + sum(n for n, _ in found), wrong + sum(w for _, w in found)
            print(f"{kind}: {found}", flush=True)
    print(f"transformers {transformers.__version__}\n{total - wrong} passed, {wrong} failed")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
