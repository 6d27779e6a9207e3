#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Times the library and its peers in turns on one checkpoint, and prints the ratios of docs/SPEED.md.

    compare.py MODEL [IMAGE] [--rounds 3] [--ours stored,bf16,int8,int4] [--peers f32,bf16,int8] [--json FILE]

A round takes every contender once: a process of its own is started, answers once to warm up and then --answers times,
and ends, so that each has the machine and its memory to itself. Same image, prompt, threads and number of tokens.

    ours    stored, int8, int4: the weights' format; int8=FOLDER: a folder that `paligemma convert` made of MODEL;
            bf16: stored weights in bf16 arithmetic (left out on a CPU where the library computes it in f32)
    peers   f32, bf16: transformers in that dtype; int8: f32 with torch.ao.quantization.quantize_dynamic on every
            Linear. bf16@AVX512_CORE_BF16: with that ONEDNN_MAX_CPU_ISA, as on machines without AMX
            compile-bf16, compile-int8: transformers through torch.compile, static KV cache, frozen weights; int8 by
            torchao, weights and activations. --compile-python: an interpreter that has torchao
            openvino-int8, openvino-int4: what openvino_model.py made of MODEL in --openvino-cache, run by
            --openvino-python. As they are: precision f32, where OpenVINO quantizes activations while it runs.
            openvino-int8@bf16: in bf16, what it does by itself on a CPU that has it; it does not quantize activations then.
            openvino-w8a8: the decoder's activations quantized by ranges that were found beforehand, as the encoder's

A contender that cannot run is left out, with its message.

Times: image, from its file to the projector's features; first token, from the file too; decode, tokens a second
after the first; load, with the imports; first answer: its first token, when the process has answered nothing before.
Memory: resident at the end, everything counted, mapped files too. Disk: the files that are opened. `best` is the least
disturbed answer, the one to believe on a shared machine. With --json every answer is written to FILE as it comes, and a
run that finds FILE adds its rounds to it: it can be interrupted at any time.
"""
import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile

import contenders

ROOT = contenders.ROOT
COLUMNS = {"image_s": "image s", "first_token_s": "first token s", "tokens_per_s": "decode tok/s",
           "memory_mib": "memory MiB", "load_s": "load s", "first_answer_s": "first answer s", "disk_mib": "disk MiB"}
MIB = ("memory_mib", "disk_mib")
RATIOS = {"image_s": "image", "first_token_s": "first token", "tokens_per_s": "decode", "memory_mib": "memory",
          "load_s": "load", "first_answer_s": "first answer", "disk_mib": "disk"}
SIDES = ("openvino", "compile")  # peers whose names begin with it; the others are transformers
# what is asked for (docs/SPEED.md): (ours, peer, quantity, at least so many times better)
TARGETS = [("stored", "f32", "first_token_s", 2.2), ("stored", "bf16", "tokens_per_s", 3.0),
           ("bf16", "bf16", "first_token_s", 1.3),
           ("int8", "int8", "first_token_s", 1.7), ("int8", "int8", "tokens_per_s", 1.25)]
LARGE_TARGETS = [("int8", "bf16", "first_token_s", 2.2)]  # at 448 and 896 px
OWN_TARGETS = [("int4", "int8", "first_token_s", 1 / 1.15), ("int4", "int8", "tokens_per_s", 1.6)]


# ---- rounds ----

def run(args, name):
    """One process of the contender. -> its answers, the first left out"""
    side, kind = name.split(" ", 1)
    isa = None
    if side == "transformers":
        kind, _, isa = kind.partition("@")
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                       OMP_NUM_THREADS=str(args.threads))
    if isa:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    python = {"openvino": args.openvino_python, "compile": args.compile_python}.get(side, sys.executable)
    command = [python, "-W", "ignore", os.path.abspath(__file__), args.model, args.image, "--serve", f"{side} {kind}"]
    for key in ("prompt", "tokens", "threads", "answers", "build", "openvino_cache"):
        command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        print(f"{name}: left out: {lines[-1]}", file=sys.stderr)
        return None
    first, *answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [dict(a, first_answer_s=first["first_token_s"]) for a in answers]


def onednn_isa(isa=None):
    """What oneDNN says of itself, and the kernel it takes for a bf16 product."""
    program = ("import torch; torch.nn.functional.linear(torch.zeros(256, 1024, dtype=torch.bfloat16), "
               "torch.zeros(1024, 1024, dtype=torch.bfloat16))")
    environment = dict(os.environ, ONEDNN_VERBOSE="1", **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {}))
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment).stdout
    said = re.search(r"info,cpu,isa:([^\n]*)", out)
    kernel = re.search(r"exec,cpu,(?:matmul|inner_product),([^,\n]*)", out)
    return f"{said[1] if said else 'unknown'}; bf16 products by {kernel[1] if kernel else 'unknown'}"


def best(key, values):
    return (max if key == "tokens_per_s" else min)(values)


def gain(key, ours, peer):
    """How many times better."""
    return ours / peer if key == "tokens_per_s" else peer / ours if ours else 0.0


def numbers(answers):
    """{contender: {quantity: (median, best)}}"""
    return {name: {key: (statistics.median(a[key] for a in list_), best(key, [a[key] for a in list_]))
                   for key in COLUMNS} for name, list_ in answers.items() if list_}


def same_ids(ours, peers):
    """yes, or how many of the first ones"""
    theirs = peers[0]["ids"]
    same = min(next((i for i, (x, y) in enumerate(zip(a["ids"], theirs)) if x != y), min(len(a["ids"]), len(theirs)))
               for a in ours)
    return "yes" if all(a["ids"] == theirs for a in ours) else f"first {same} of {len(theirs)}"


def report(record):
    table, answers = numbers(record["answers"]), record["answers"]
    lines = [f"{record['date']}, {record['cpu']}, {record['threads']} threads; {record['model']}, "
             f"{record['image_tokens']} image tokens, prompt {record['prompt']!r}, {record['tokens']} new tokens; "
             f"{record['versions']}.", ""]
    lines += [f"oneDNN{f' limited to {isa}' if isa else ''}: {said}" for isa, said in record["onednn"].items()] + [""]
    lines += ["| median (best) | " + " | ".join(COLUMNS.values()) + " | answers |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, row in table.items():
        cells = [f"{m:,.0f}" if key in MIB else f"{m:.2f} ({b:.2f})" for key, (m, b) in row.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(answers[name])} |")
    lines.append("")
    lines += [f"{name}: {said}." for name, list_ in answers.items()
              for said in sorted({a.get("versions", "") for a in list_}) if not record["versions"].startswith(said)]
    lines += [f"{name}: its answers differ from each other, so something is wrong with it." for name, list_ in
              answers.items() if any(a["ids"] != list_[0]["ids"] for a in list_)]
    lines += ["", "| ratio, by medians (by the best) | " + " | ".join(RATIOS.values()) + " | same ids | behind |",
              "|---" * (len(RATIOS) + 3) + "|"]
    ours = [n for n in table if n.startswith("ours")]
    pairs = [(a, b) for a in ours for b in table if b not in ours]
    if {"ours int4", "ours int8"} <= set(table):
        pairs.append(("ours int4", "ours int8"))
    for a, b in pairs:
        ratios = {key: [gain(key, table[a][key][i], table[b][key][i]) for i in (0, 1)] for key in RATIOS}
        cells = [f"{ratios[k][0]:.2f}x" if k in MIB else f"{ratios[k][0]:.2f}x ({ratios[k][1]:.2f}x)" for k in RATIOS]
        behind = ", ".join(what for key, what in RATIOS.items() if min(ratios[key]) < 1)
        lines.append(f"| {a} against {b} | " + " | ".join(cells) +
                     f" | {same_ids(answers[a], answers[b])} | {'behind: ' + behind if behind else ''} |")
    lines += ["", "| target | asked | found, by medians (by the best) | |", "|---|---|---|---|"]
    asked = TARGETS + (LARGE_TARGETS if record["image_tokens"] > 256 else [])
    targets = [(f"ours {a}", f"transformers {b}", k, x) for a, b, k, x in asked] + \
        [(f"ours {a}", f"ours {b}", k, x) for a, b, k, x in OWN_TARGETS]
    for a, b, key, least in targets:
        if a in table and b in table:
            m, top = (gain(key, table[a][key][i], table[b][key][i]) for i in (0, 1))
            lines.append(f"| {a} against {b}, {COLUMNS[key].rsplit(' ', 1)[0]} | {least:.2f}x | {m:.2f}x ({top:.2f}x) | "
                         f"{'met' if min(m, top) >= least else 'met by the best' if top >= least else 'not met'} |")
    return "\n".join(lines)


def describe(args, names):
    import torch
    import transformers
    sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
    import exactness
    with open(os.path.join(args.model, "config.json")) as f:
        vision = json.load(f)["vision_config"]
    isas = {name.partition("@")[2] for name in names if name.startswith("transformers")}
    size = vision.get("image_size", 224) // vision.get("patch_size", 14)
    return dict(date=str(datetime.date.today()), cpu=exactness.cpu_name(), machine=platform.machine(),
                threads=args.threads, model=os.path.basename(os.path.abspath(args.model)), image_tokens=size * size,
                prompt=args.prompt, tokens=args.tokens, onednn={isa: onednn_isa(isa) for isa in sorted(isas)},
                versions=f"transformers {transformers.__version__}, torch {torch.__version__}, "
                         f"torch's quantized engine {torch.backends.quantized.engine}",
                answers={name: [] for name in names})


def peer(name):
    """openvino-int8 -> (openvino, int8); bf16 -> (transformers, bf16)"""
    side, _, kind = name.partition("-")
    return (side, kind) if side in SIDES else ("transformers", name)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("image", nargs="?", help="default: a drawn one of 640 x 480")
    args.add_argument("--prompt", default="caption en")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--answers", type=int, default=2, help="timed answers of a process (default 2)")
    args.add_argument("--tokens", type=int, default=16, help="new tokens (default 16)")
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--ours", default="stored,bf16,int8,int4")
    args.add_argument("--peers", default="f32,bf16,int8")
    args.add_argument("--json", help="keep every answer in this file, and go on from what it has")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args.add_argument("--openvino-cache", help="what openvino_model.py made of MODEL (default MODEL-openvino)")
    args.add_argument("--openvino-python", default=os.environ.get("PG_OPENVINO_PYTHON", sys.executable),
                      help="an interpreter that has openvino, tokenizers and Pillow (default $PG_OPENVINO_PYTHON)")
    args.add_argument("--compile-python", default=os.environ.get("PG_COMPILE_PYTHON", sys.executable),
                      help="an interpreter that has torch, transformers and torchao (default $PG_COMPILE_PYTHON)")
    args.add_argument("--serve", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.serve:
        return contenders.answer(args, args.serve)
    args.openvino_cache = args.openvino_cache or os.path.abspath(args.model) + "-openvino"
    given = [("ours", k) for k in args.ours.split(",") if k] + [peer(k) for k in args.peers.split(",") if k]
    started_as = {f"{side} {kind.partition('=')[0]}": f"{side} {kind}" for side, kind in given}
    record = None
    if args.json and os.path.exists(args.json):
        with open(args.json) as f:
            record = json.load(f)
        now = dict(model=os.path.basename(os.path.abspath(args.model)), prompt=args.prompt, tokens=args.tokens,
                   threads=args.threads)
        if any("disk_mib" not in a for list_ in record["answers"].values() for a in list_):
            sys.exit(f"compare: {args.json} is of a version that counted less")
        wrong = {key: record[key] for key, value in now.items() if record[key] != value}
        if wrong:
            sys.exit(f"compare: {args.json} holds another comparison: {wrong}")
    record = record or describe(args, started_as)
    with tempfile.TemporaryDirectory() as folder:
        if not args.image:
            from PIL import Image
            args.image = os.path.join(folder, "image.png")
            Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(args.image)
        try:
            for i in range(args.rounds):
                for name in list(started_as):
                    answers = run(args, started_as[name])
                    if answers is None:
                        del started_as[name]
                        continue
                    record["answers"].setdefault(name, []).extend(answers)
                    for a in answers:
                        print(f"round {i + 1}, {name}: " + ", ".join(f"{a[k]:.2f} {t}" for k, t in COLUMNS.items()),
                              flush=True)
                    if args.json:
                        with open(args.json, "w") as f:
                            json.dump(record, f, indent=1)
        except KeyboardInterrupt:
            print("interrupted; what there is:")
    print("\n" + report(record))


if __name__ == "__main__":
    main()
