#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Measures how far the library's f32 lies from transformers, stage by stage, and writes the tables of docs/EXACTNESS.md.

    exactness.py [--write] [--seed S] [--count N] [--build FOLDER]

N random checkpoints (checkpoints.py) and the demo checkpoint, each with prompts of one image (through `stages`, the
generation that pg_generate runs) and batches (through pg_forward), on every instruction set of this CPU. Beside each
distance stand the bound of README.md and the distances of both from the same computation in float64. Without --write
the tables are printed. Exit status 1: a stage beyond its bound, or something that must be equal is not.
"""
import argparse
import collections
import datetime
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

import batch_reference
import batches
import checkpoints
import compare
import forward_live
import live
import pglib
import image_files
import reference

DEMO = os.path.join(compare.ROOT, "examples", "demo")
PAGE = os.path.join(compare.ROOT, "docs", "EXACTNESS.md")
BEGIN, END = "<!-- tests/oracle/exactness.py --write: begin -->", "<!-- end -->"
N_PROMPTS, N_BATCHES, MAX_NEW = 2, 2, 24
NAMES = {"patches": "patch embedding", "encoder_layer": "encoder layers", "encoder_norm": "encoder norm",
         "features": "image features", "embeddings": "embeddings", "decoder_layer": "decoder layers",
         "decoder_norm": "final norm", "logits": "logits", "loss": "loss"}


class Float64:
    """transformers in float64 throughout. Loading it so is not enough: it takes softmax, RMSNorm and the rotary angles
    in f32 whatever the dtype, and keeps the frequencies and the embeddings' scale in f32."""

    def __init__(self, model):
        self.model, self.hooks = model, []

    @staticmethod
    def _rotary(module, args, kwargs, _output):
        positions = kwargs.get("position_ids", args[-1]).double()
        d = 2 * module.inv_freq.numel()
        theta = module.config.rope_parameters["rope_theta"]
        frequency = float(theta) ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
        angle = positions[..., None] * frequency
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    def __enter__(self):
        self.float, self.softmax = torch.Tensor.float, torch.nn.functional.softmax
        torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else self.float(x)
        torch.nn.functional.softmax = lambda x, dim, dtype=None: self.softmax(
            x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)
        for name, module in self.model.named_modules():
            if name.endswith("rotary_emb"):
                self.hooks.append(module.register_forward_hook(self._rotary, with_kwargs=True))
            if hasattr(module, "scalar_embed_scale"):
                module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)

    def __exit__(self, *_):
        torch.Tensor.float, torch.nn.functional.softmax = self.float, self.softmax
        for hook in self.hooks:
            hook.remove()


class Table:
    """The largest distance of each stage, per column."""

    def __init__(self):
        self.rows = collections.defaultdict(lambda: collections.defaultdict(float))

    def add(self, stage, column, value):
        self.rows[stage][column] = max(self.rows[stage][column], float(value))

    def markdown(self, cpus):
        columns = list(cpus) + ["of the bound", "transformers to float64", "library to float64"]
        out = ["| stage | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for stage, row in self.rows.items():
            cells = [f"{row[c]:.2f}" if c == "of the bound" else f"{row[c]:.1e}" if row[c] else "0" for c in columns]
            out.append(f"| {stage} | " + " | ".join(cells) + " |")
        return "\n".join(out)


class Measurement:
    """One table for prompts, one for batches, and counts of what must be equal."""

    def __init__(self, library, build):
        self.library, self.build = library, build
        info = {}
        for name, mask in pglib.cpu_masks().items():  # the sets that this CPU has
            with pglib.Model(library, os.path.join(DEMO, "model"), mask) as model:
                info.setdefault(model.cpu_used(), name)
        self.cpus = {name: pglib.cpu_masks()[name] for name in info.values()}
        self.best = list(self.cpus)[-1]
        self.prompts, self.batches = Table(), Table()
        self.equal, self.wrong = collections.Counter(), []

    def count(self, what, equal, where, n=1):
        self.equal[what] += n
        if not equal:
            self.wrong.append(f"{where}: {what} differ")

    def checkpoint(self, folder, where, seed, draw_prompt):
        ref = batch_reference.BatchReference(folder)
        ref64 = batch_reference.BatchReference(folder, dtype=torch.float64)
        for i in range(N_PROMPTS):
            path, text = draw_prompt(i)
            self.one_prompt(ref, ref64, folder, path, text, f"{where}, prompt {i}")
        rng, hf = np.random.default_rng([seed, 61]), batches.HfProcessor(folder)
        with pglib.Processor(self.library, folder) as processor:
            for i in range(N_BATCHES):
                self.one_batch(ref, ref64, folder, hf, processor, rng, f"{where}, batch {i}")

    def one_prompt(self, ref, ref64, folder, path, text, where):
        result = ref.run(reference.open_image(path), text, MAX_NEW)
        limits = reference.bounds(ref.probe(result))
        with Float64(ref64.model):
            exact = ref64.run(reference.open_image(path), text, MAX_NEW)
        same = next((t for t, (a, b) in enumerate(zip(result.ids, exact.ids)) if a != b), len(result.ids))
        out, seen = os.path.join(folder, "stages") if os.access(folder, os.W_OK) else path + ".stages", {}
        for options in [("--cpu", str(mask)) for mask in self.cpus.values()] + [("--threads", n) for n in "123"]:
            ours = compare.run_stages(self.build, folder, path, text, out, MAX_NEW, *options)
            with open(out, "rb") as f:
                seen[options] = f.read()
            table, wrong = compare.check(ours, result, limits)
            self.wrong += [f"{where}, {options}: {line}" for line in wrong]
            self.count("pixels", same_bits(ours["pixels"], result.stages["pixels"]), where, ours["pixels"].size)
            self.count("prompt ids", ours["prompt_ids"].tolist() == result.prompt_ids, where, len(result.prompt_ids))
            agreed = sum(a == b for a, b in zip(ours["ids"].tolist(), result.ids))
            self.equal["generated tokens"] += len(result.ids)
            self.equal["generated tokens that differ"] += len(result.ids) - agreed
            if options[0] == "--cpu":
                name = next(n for n, mask in self.cpus.items() if str(mask) == options[1])
                self.add_prompt(name, ours, table, result, exact, same)
        os.remove(out)
        self.count("stages with 2 and 3 threads", len({seen["--threads", n] for n in "123"}) == 1, where,
                   2 * len(result.stages))

    def add_prompt(self, cpu, ours, table, result, exact, same):
        for stage, relative, limit, largest, largest_limit, _ in table:
            kind, _, step = stage.partition(".")
            if kind == "pixels":
                continue
            self.prompts.add(NAMES[kind], cpu, relative)
            if limit:
                self.prompts.add(NAMES[kind], "of the bound", max(relative / limit, largest / largest_limit))
            if cpu == self.best and not (kind == "logits" and int(step) > same):
                truth = exact.stages[stage]
                self.prompts.add(NAMES[kind], "transformers to float64", apart(result.stages[stage], truth))
                self.prompts.add(NAMES[kind], "library to float64", apart(ours[stage], truth[-len(ours[stage]):]))

    def one_batch(self, ref, ref64, folder, hf, processor, rng, where):
        case, images, arrays = forward_live.draw_batch(rng, hf)
        given, config = forward_live.model_arrays(arrays), ref.model.config.get_text_config()
        exact, probes = ref.forward(given), ref.noise(given)
        with Float64(ref64.model):
            truth = ref64.forward(given)
        limit = batch_reference.loss_bound(exact, probes, arrays["labels"])
        with batches.run_library(processor, case, images) as inputs:
            wrong = batches.compare(inputs, arrays, [])
            self.wrong += [f"{where}: {line}" for line in wrong]
            for name in batches.ARRAYS:
                self.equal[f"{name} of batches"] += arrays[name].size
            for cpu, mask in self.cpus.items():
                with pglib.Model(self.library, folder, mask) as model:
                    logits = {}
                    for n in (1, 2, 3):
                        with model.forward(inputs, n_threads=n, flags=pglib.FORWARD_HIDDEN_STATES) as outputs:
                            ours = forward_live.stages_of(outputs)
                            logits[n], loss = ours["logits"].tobytes(), float(outputs["loss"][0])
                    self.count("logits of batches with 2 and 3 threads", len(set(logits.values())) == 1, where,
                               2 * ours["logits"].size)
                self.add_batch(cpu, ours, exact, probes, truth, arrays, config, where)
                if np.isnan(exact.loss):
                    continue
                scale, right = abs(exact.loss), batch_reference.mean_loss(truth.stages["logits"], arrays["labels"], 0)
                self.batches.add("loss", cpu, abs(loss - exact.loss) / scale)
                self.batches.add("loss", "of the bound", abs(loss - exact.loss) / limit)
                self.batches.add("loss", "transformers to float64", abs(exact.loss - right) / scale)
                self.batches.add("loss", "library to float64", abs(loss - right) / scale)

    def add_batch(self, cpu, ours, exact, probes, truth, arrays, config, where):
        last = max(int(s.partition(".")[2]) for s in ours if s.startswith("hidden."))
        for stage, part, relative, limit, largest, largest_limit, sound in batch_reference.compare_stages(
                {s: ours[s] for s in sorted(ours, key=lambda s: (s == "logits", s.startswith("hidden"), s))},
                exact, probes, arrays, config):
            index = stage.partition(".")[2]
            name = {"": NAMES.get(stage), "0": "embeddings", str(last): "final norm"}.get(index, "decoder layers")
            name += ", padding" if part.endswith("padding") else ""
            if not sound:
                self.wrong.append(f"{where}, {cpu}, {stage}, {part}: relative L2 {relative:.2e} (bound {limit:.2e})")
            self.batches.add(name, cpu, relative)
            if limit:
                self.batches.add(name, "of the bound", max(relative / limit, largest / largest_limit))
            if cpu == self.best:
                pick = batch_reference.picker(part, arrays, config)
                self.batches.add(name, "transformers to float64", apart(pick(exact.stages[stage]),
                                                                        pick(truth.stages[stage])))
                self.batches.add(name, "library to float64", apart(pick(ours[stage]), pick(truth.stages[stage])))


def same_bits(a, b):
    return a.tobytes() == b.tobytes()


def apart(x, truth):
    """Relative L2 distance."""
    difference = x.astype(np.float64) - truth
    return np.linalg.norm(difference) / (np.linalg.norm(truth) or 1.0)


def random_prompts(seed, folder):
    rng = np.random.default_rng([seed, 62])

    def draw(i):
        return image_files.write(rng, os.path.join(folder, f"image{i}"))[0], live.prompt(rng)
    return draw


def demo_prompts(folder):
    sys.path.insert(0, DEMO)
    import draw as drawing

    def draw(i):
        path = os.path.join(folder, f"demo{i}.png")
        Image.fromarray(drawing.render(drawing.scene(900000 + i))).save(path)
        return path, ["caption en", "answer en how many objects are there?"][i % 2]
    return draw


def report(measured, what):
    return "\n\n".join([
        f"### {what}: an image and a prompt, pg_generate", measured.prompts.markdown(measured.cpus),
        f"### {what}: batches, pg_forward", measured.batches.markdown(measured.cpus)])


def cpu_name():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown CPU")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--write", action="store_true", help="into docs/EXACTNESS.md")
    args.add_argument("--seed", type=int, default=7000, help="the first checkpoint (default 7000)")
    args.add_argument("--count", type=int, default=12, help="random checkpoints (default 12)")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args = args.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    library = pglib.Library(args.build)
    random, demo = Measurement(library, args.build), Measurement(library, args.build)
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(args.seed, args.seed + args.count):
            folder = os.path.join(temporary, str(seed))
            checkpoints.write(checkpoints.draw(seed), folder)
            random.checkpoint(folder, f"checkpoint {seed}", seed, random_prompts(seed, folder))
            shutil.rmtree(folder)
        demo.checkpoint(os.path.join(DEMO, "model"), "demo", 0, demo_prompts(temporary))
    equal = random.equal + demo.equal
    differ = equal.pop("generated tokens that differ", 0)
    lines = [f"- {what}: {n:,} compared, {differ if what == 'generated tokens' else 0} differ" for what, n in
             equal.items()]
    command = f"tests/oracle/exactness.py --write --seed {args.seed} --count {args.count}"
    text = "\n\n".join([
        f"Measured {datetime.date.today()} on {cpu_name()}, {os.cpu_count()} CPUs (a shared guest), library "
        f"{library.version()}, transformers 5.23.0, torch {torch.__version__.partition('+')[0]}, by",
        f"    {command}", "### Equal to the last bit or number", "\n".join(lines),
        report(random, f"{args.count} random checkpoints"), report(demo, "The demo checkpoint")])
    for line in (random.wrong + demo.wrong)[:40]:
        print("WRONG " + line)
    if args.write:
        with open(PAGE, encoding="utf-8") as f:
            before, _, rest = f.read().partition(BEGIN)
        with open(PAGE, "w", encoding="utf-8") as f:
            f.write(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    else:
        print(text)
    sys.exit(1 if random.wrong or demo.wrong else 0)


if __name__ == "__main__":
    main()
