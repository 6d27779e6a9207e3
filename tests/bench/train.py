#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Times training with LoRA in the library and in transformers with PEFT, in turns on one checkpoint.

    train.py MODEL [--rounds 2] [--steps 3] [--rank 16] [--contenders ours,ours-int8,peft-f32,peft-bf16]

A round takes every contender once, as a process of its own: it opens the model, makes one step to warm up and then STEPS
more, each of one image at the model's size with a prompt and a suffix. LoRA is on the seven linear layers of the decoder.
`ours` and `ours-int8` compute in f32 beside stored and int8 weights, as peft-f32; `-checkpoint` behind a name takes
gradient checkpointing. Printed are the median of all steps, tokens a second (those of the row, padding there is none), and
the peak of resident memory, mapped files counted. On a shared machine compare ratios of one run alone.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROMPT, SUFFIX = "detect cat", "<loc0100><loc0200><loc0300><loc0400> cat"
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(steps, step):
    """step() -> (loss, tokens of the row)"""
    for i in range(steps + 1):
        begin = time.monotonic()
        loss, tokens = step()
        print(json.dumps({"warm": i > 0, "seconds": time.monotonic() - begin, "tokens": tokens, "loss": loss,
                          "peak_gib": peak()}), flush=True)


def ours(args, kind):
    sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
    import numpy as np
    import pglib
    library = pglib.Library(args.build)
    weights = pglib.WEIGHTS_INT8 if "int8" in kind else pglib.WEIGHTS_STORED
    flags = pglib.TRAIN_CHECKPOINT if "checkpoint" in kind else 0
    with pglib.Model(library, args.model, weights=weights) as model, pglib.Processor(library, args.model) as processor:
        side = json.load(open(os.path.join(args.model, "config.json")))["vision_config"].get("image_size", 224)
        image = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
        inputs = processor.encode_batch([PROMPT], [SUFFIX], [(image, pglib.IMAGE_RGB8)], [1])
        with pglib.Trainer(model, rank=args.rank, alpha=float(args.rank), n_threads=args.threads, flags=flags) as trainer:
            def step():
                result = trainer.step(inputs)
                return result.loss, result.n_tokens
            timed(args.steps, step)


def peft(args, kind):
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if "bf16" in kind else torch.float32
    model = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=dtype)
    processor = AutoProcessor.from_pretrained(args.model)
    if "checkpoint" in kind:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(
        r=args.rank, lora_alpha=args.rank,
        target_modules=r"model\.language_model\..*\.(" + "|".join(NAMES) + ")")).train()
    side = model.config.vision_config.image_size
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    inputs = processor(images=image, text=PROMPT, suffix=SUFFIX, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0)

    def step():
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach()), inputs["input_ids"].shape[1]
    timed(args.steps, step)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--steps", type=int, default=3, help="of a round and contender, the first not counted (default 3)")
    args.add_argument("--rank", type=int, default=16)
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--contenders", default="ours,peft-f32")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args.add_argument("--serve", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.serve:
        (ours if args.serve.startswith("ours") else peft)(args, args.serve)
        return
    found = {}
    environment = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(args.threads))
    for _ in range(args.rounds):
        for name in args.contenders.split(","):
            command = [sys.executable, "-W", "ignore", os.path.abspath(__file__), args.model, "--serve", name]
            for key in ("steps", "rank", "threads", "build"):
                command += [f"--{key}", str(getattr(args, key))]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            if done.returncode != 0 or not lines:
                print(f"{name}: left out: {(done.stderr.strip().splitlines() or [done.returncode])[-1]}", file=sys.stderr)
                continue
            found.setdefault(name, []).extend(lines)
            print(name, " ".join(f"{line['seconds']:.2f}" for line in lines), f"{lines[-1]['peak_gib']:.2f} GiB",
                  f"loss {lines[0]['loss']:.4f}", file=sys.stderr, flush=True)
    print("| | step s | best | tokens/s | peak GiB |\n|---|---|---|---|---|")
    for name, lines in found.items():
        seconds = [line["seconds"] for line in lines if line["warm"]]
        middle = statistics.median(seconds)
        print(f"| {name} | {middle:.2f} | {min(seconds):.2f} | {lines[0]['tokens'] / middle:.1f} | "
              f"{max(line['peak_gib'] for line in lines):.2f} |")


if __name__ == "__main__":
    main()
