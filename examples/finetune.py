#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Teaches the demo model a task that it does not know: a LoRA adapter, trained by the library on the CPU.

    finetune.py                    half a minute on two cores: answers before, the loss, answers after
    finetune.py --compare          also trains with torch and PEFT, on batches of our processor that transformers' makes
                                   to the bit: the loss is the same, step by step
    finetune.py --out tuned        keeps the adapter:
                                   paligemma run examples/demo/model IMAGE "answer en what is leftmost?" --adapter tuned

Images are drawn as training goes, by examples/demo/draw.py. The adapter is then loaded and asked about images it has not
seen. Needs Pillow, and the package in python/ (see python/README.md for where the library is looked for); --compare
needs torch, transformers and peft, too. train_with_torch() is for those who train in torch on our batches.
"""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "python"), str(HERE / "demo")]

import draw  # noqa: E402  (after the path)
import paligemma  # noqa: E402

PROMPT = "answer en what is leftmost?"
FIRST_SEED, FRESH_SEED = 20_000_000, 30_000_000  # the demo model was trained on seeds from 1,000,000
LARGEST_DIFFERENCE = 1e-4  # of two losses in 8 steps: ten times what rounding in f32 was seen to make of them


class Scenes:
    """A data set: any list, or what has len() and [i], with rows of image, prefix and suffix."""

    def __init__(self, first_seed, count):
        self.first_seed, self.count = first_seed, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i >= self.count:
            raise IndexError(i)
        scene = draw.scene(self.first_seed + i)
        leftmost = min(scene["objects"], key=lambda o: o["box"][1])
        return {"image": Image.fromarray(draw.render(scene)), "prefix": PROMPT, "suffix": draw.name(leftmost)}


def train(trainer, scenes, args, folder):
    """-> the loss of each step."""

    def show(entry):
        if entry["step"] % max(args.steps // 10, 1) == 0:
            print(f"step {entry['step']:4d}  loss {entry['loss']:.4f}", flush=True)

    history = trainer.train(scenes, batch_size=args.batch, shuffle=False, output_dir=folder, callback=show)
    return [entry["loss"] for entry in history]


def train_with_torch(start, scenes, args):
    """The same from the adapter in the folder `start`, with transformers' model and PEFT -> the loss of each step."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    ours, theirs = (auto.from_pretrained(args.model) for auto in (paligemma.AutoProcessor, transformers.AutoProcessor))
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, start, is_trainable=True).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=args.rate, weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, args.steps // 10, args.steps)
    losses = []
    for step in range(args.steps):
        rows = [scenes[step * args.batch + i] for i in range(args.batch)]
        inputs, reference = (processor(
            images=[[row["image"]] for row in rows], text=["<image>" + row["prefix"] for row in rows],
            suffix=[row["suffix"] for row in rows], padding=True, padding_side="right", return_tensors="pt")
            for processor in (ours, theirs))
        if any(not torch.equal(inputs[name], values) for name, values in reference.items()):
            sys.exit(f"step {step + 1}: the batches of the two processors differ")
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def share_right(model, processor, count):
    """How many of `count` fresh images are answered right."""
    right = 0
    for row in Scenes(FRESH_SEED, count):
        inputs = processor(row["image"], row["prefix"], return_tensors="np")
        output = model.generate(**inputs, max_new_tokens=8)
        right += processor.decode(output[0, inputs.input_ids.shape[1]:], skip_special_tokens=True) == row["suffix"]
    return f"{right} of {count} fresh images answered right"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HERE / "demo" / "model"), help="the checkpoint to begin with")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", type=int, default=100, help="images to ask about before and after")
    parser.add_argument("--compare", action="store_true", help="hold the loss against torch and PEFT")
    parser.add_argument("--out", help="folder for the adapter")
    args = parser.parse_args()

    scenes = Scenes(FIRST_SEED, args.steps * args.batch)
    processor = paligemma.AutoProcessor.from_pretrained(args.model)
    model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(args.model, n_threads=args.threads)
    with model, tempfile.TemporaryDirectory() as temporary:
        start, folder = pathlib.Path(temporary, "start"), args.out or pathlib.Path(temporary, "tuned")
        print("before:", share_right(model, processor, args.fresh))
        with paligemma.Trainer(model, r=16, lora_alpha=32, learning_rate=args.rate, warmup_steps=args.steps // 10,
                               max_steps=args.steps) as trainer:
            trainer.save_pretrained(start)
            losses = train(trainer, scenes, args, folder)
        model.load_adapter(folder)
        print("after: ", share_right(model, processor, args.fresh))
        if args.compare:
            print("again, with torch and PEFT")
            differences = np.abs(np.subtract(losses, train_with_torch(start, scenes, args)))
            print(f"largest difference of the loss: {differences[:8].max():.2g} in the first 8 steps, "
                  f"{differences.max():.2g} in all {args.steps}")
            if differences[:8].max() > LARGEST_DIFFERENCE:
                sys.exit("the two loss curves differ")


if __name__ == "__main__":
    main()
