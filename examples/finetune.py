#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Fine-tunes the demo model on a task that it does not know, with torch, on batches that our processor made.

    finetune.py                    half a minute on two cores: answers before, the loss, answers after
    finetune.py --compare          also trains on batches of transformers' processor: the loss is the same, step by step
    finetune.py --out tuned        keeps the checkpoint:  paligemma run tuned image.png "answer en what is leftmost?"

The model that is trained is transformers' PaliGemmaForConditionalGeneration; images are drawn as training goes, by
examples/demo/draw.py. The tuned checkpoint is then opened by libpaligemma and asked about images it has not seen.
Needs torch and transformers, and the package in python/ (see python/README.md for where the library is looked for).
"""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "python"), str(HERE / "demo")]

import draw  # noqa: E402  (after the path)
import paligemma  # noqa: E402

PROMPT = "answer en what is leftmost?"
FIRST_SEED, FRESH_SEED = 20_000_000, 30_000_000  # the demo model was trained on seeds from 1,000,000


def example(seed):
    """-> (image, answer)"""
    scene = draw.scene(seed)
    leftmost = min(scene["objects"], key=lambda o: o["box"][1])
    return Image.fromarray(draw.render(scene)), draw.name(leftmost)


def batch(processor, first_seed, size):
    """-> input_ids, token_type_ids, attention_mask, labels [size, T]; pixel_values [size, 3, S, S].

    processor: ours or transformers'."""
    images, answers = zip(*(example(first_seed + i) for i in range(size)))
    return processor(images=[[p] for p in images], text=["<image>" + PROMPT] * size, suffix=list(answers),
                     padding=True, padding_side="right", return_tensors="pt")


def train(folder, processor, args):
    """-> the tuned model and its loss at each step."""
    torch.manual_seed(0)
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).train()
    trained = [p for name, p in model.named_parameters() if "vision_tower" not in name]
    model.model.vision_tower.requires_grad_(False)
    optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.steps)
    losses = []
    for step in range(args.steps):
        loss = model(**batch(processor, FIRST_SEED + step * args.batch, args.batch)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % max(args.steps // 10, 1) == 0 or step == args.steps - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    return model.eval(), losses


def share_right(folder, count):
    """How many of `count` fresh images a checkpoint answers right, through libpaligemma."""
    right = 0
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder) as model, \
            paligemma.AutoProcessor.from_pretrained(folder) as processor:
        for seed in range(FRESH_SEED, FRESH_SEED + count):
            image, answer = example(seed)
            inputs = processor(image, PROMPT, return_tensors="np")
            output = model.generate(**inputs, max_new_tokens=8)
            right += processor.decode(output[0, inputs.input_ids.shape[1]:], skip_special_tokens=True) == answer
    return f"{right} of {count} fresh images answered right"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HERE / "demo" / "model"), help="the checkpoint to begin with")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--fresh", type=int, default=100, help="images to ask about before and after")
    parser.add_argument("--compare", action="store_true", help="hold the loss against transformers' own processor")
    parser.add_argument("--out", help="folder for the tuned checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    print("before:", share_right(args.model, args.fresh))
    model, losses = train(args.model, paligemma.AutoProcessor.from_pretrained(args.model), args)
    theirs = transformers.AutoProcessor.from_pretrained(args.model)
    if args.compare:
        print("again, on batches of transformers' processor")
        _, reference = train(args.model, theirs, args)
        differences = np.abs(np.subtract(losses, reference))
        print(f"{(differences == 0).sum()} of {args.steps} losses equal to the last bit, largest difference "
              f"{differences.max():g}")
        if differences.max() > 0:
            sys.exit("the two loss curves differ")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or temporary
        model.save_pretrained(folder)
        theirs.save_pretrained(folder)
        print("after: ", share_right(folder, args.fresh))


if __name__ == "__main__":
    main()
