#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Training (pg_trainer) against transformers and PEFT, on random checkpoints of both generations.

    train_live.py [--seed S] [--count N] [--steps K] [--build FOLDER]

Each of the N checkpoints (seeds S, S + 1, ...; checkpoints.py) gets a random LoraConfig: targets by names, regex and
"all-linear", rank, alpha, rsLoRA, modules that are trained whole; and a random batch with suffixes. The parameters get
random values, the same on both sides. Compared are the loss, every gradient, the norm and the values after an update;
gradient checkpointing and threads to the last bit; rows one by one with accumulation; and of every third seed the loss of
K steps of AdamW (100) on a few batches. The reference is run in f64, and once more in f32: what f32 costs transformers is
the measure of what it may cost the library. One f32 run is one draw of rounding errors, so where it does not explain a
difference, a few more are drawn.
"""
import copy
import os
import warnings

import checkpoints  # before torch: it sets the environment
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import get_linear_schedule_with_warmup

import batch_reference
import batches
import forward_live
import pglib
import seeded

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2", "out_proj",
           "linear", "patch_embedding", "position_embedding", "embed_tokens", "lm_head", "self_attn.q_proj", "multi_modal_projector.linear"]
REGEXES = [r".*\.(q|k|v)_proj", r"model\.language_model\.layers\.\d+\.self_attn\.(q|o)_proj", r".*language_model.*_proj",
           r".*vision_tower.*\.(fc[12]|out_proj)", r".*\.layers\.[01]\.mlp\.\w+", r".*\.linear|.*patch_embedding"]
SAVED = ["multi_modal_projector.linear", "norm", "input_layernorm", "layer_norm1", "post_layernorm", "mlp.down_proj",
         "layers.0.self_attn.v_proj", "patch_embedding", "post_attention_layernorm", "fc2", "position_embedding"]
CONTAINERS = ["multi_modal_projector", "layers.0.mlp", "layers.0", "embeddings", "vision_tower"]  # alone: PEFT's copies of
#                                                                       copies are another model
TIMES = 8.0      # an error may be so many times that of transformers in f32,
PROBES = 4       # which is looked at so often more, at parameters a rounding apart, where once was not enough,
LITTLE = 2e-6    # or this part of the largest value, whichever is more
CURVE = 2e-3     # how far a loss may be from the reference's after many steps, of the loss


def draw_config(rng):
    """-> keywords of LoraConfig, and of pg_trainer_options."""
    rank, alpha = int(rng.integers(1, 20)), float(rng.integers(1, 33))
    rslora = bool(rng.random() < 0.3)
    peft = dict(r=rank, lora_alpha=alpha, use_rslora=rslora)
    ours = dict(rank=rank, alpha=alpha, flags=pglib.TRAIN_RSLORA if rslora else 0)
    kind = rng.random()
    if kind < 0.15:
        peft["target_modules"] = ours["target_modules"] = "all-linear"
    elif kind < 0.4:
        peft["target_modules"] = str(rng.choice(REGEXES))
        ours["target_modules"] = "regex:" + peft["target_modules"]
    else:
        peft["target_modules"] = rng.choice(TARGETS, int(rng.integers(1, 7)), replace=False).tolist()
        ours["target_modules"] = ",".join(peft["target_modules"])
    if rng.random() < 0.4:
        saved = rng.choice(SAVED, int(rng.integers(1, 3)), replace=False).tolist()
        peft["modules_to_save"] = saved if rng.random() < 0.6 else [str(rng.choice(CONTAINERS))]
        ours["modules_to_save"] = ",".join(peft["modules_to_save"])
    return peft, ours


def plain_name(name):
    return name.replace(".default", "").replace(".modules_to_save", "")


class Peft:
    """transformers and PEFT, in one dtype."""

    def __init__(self, base, config, dtype):
        self.dtype = dtype
        self.model = get_peft_model(copy.deepcopy(base).to(dtype), LoraConfig(**copy.deepcopy(config))).to(dtype).train()
        self.parameters = {plain_name(name): p for name, p in self.model.named_parameters() if p.requires_grad}

    def set(self, values):
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(torch.from_numpy(values[name].astype(np.float64)))

    def loss(self, arrays):
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        given["pixel_values"] = given["pixel_values"].to(self.dtype) if "pixel_values" in given else None
        return self.model(**given).loss

    def gradients(self, arrays):
        self.model.zero_grad()
        loss = self.loss(arrays)
        loss.backward()
        return float(loss.detach()), {name: (p.grad if p.grad is not None else torch.zeros_like(p)).double().numpy()
                                      for name, p in self.parameters.items()}


def distance(found, exact):
    return float(np.abs(found - exact).max())


class Case(seeded.SeededCase):
    def __init__(self, seed, library, folder, steps):
        super().__init__(seed, folder)
        self.library, self.steps = library, steps
        self.rng = np.random.default_rng([seed, 151])
        self.worst, self.curves = 0.0, []

    def draw_batch(self):
        while True:
            case, images, arrays = forward_live.draw_batch(self.rng, self.hf)
            if "labels" in arrays and (arrays["labels"][:, 1:] != -100).any():
                return case, images, forward_live.model_arrays(arrays)

    def random_values(self, parameters):
        values = {}
        for name, (value, _) in parameters.items():
            if ".lora_A." in name:
                values[name] = self.rng.normal(0, 1 / np.sqrt(value[0].size), value.shape)
            elif ".lora_B." in name or ".lora_embedding" in name:
                values[name] = self.rng.normal(0, 0.1, value.shape)
            else:
                values[name] = value + self.rng.normal(0, 0.1 * value.std() + 0.01, value.shape)
            values[name] = values[name].astype(np.float32)
            value[...] = values[name]
        return values

    def beyond(self, found, exact, cost):
        """-> [what is wrong]: an error beside what f32 costs transformers."""
        bound = max(TIMES * cost, LITTLE * float(np.abs(exact).max()) + 1e-9)
        error = distance(found, exact)
        self.worst = max(self.worst, error / bound)
        return [] if error <= bound else [f"differs by {error:.3g}, transformers in f32 by {cost:.3g} "
                                          f"of {np.abs(exact).max():.3g}"]

    def probe(self, values, arrays, exact, rough):
        """-> {name: what f32 costs a gradient}, the most of PROBES draws."""
        costs = {}
        for _ in range(PROBES):
            near = {name: np.nextafter(value, self.rng.choice([-np.inf, np.inf], value.shape).astype(np.float32))
                    for name, value in values.items()}
            exact.set(near), rough.set(near)
            sides = exact.gradients(arrays)[1], rough.gradients(arrays)[1]
            costs = {name: max(costs.get(name, 0.0), distance(sides[1][name], sides[0][name])) for name in values}
        exact.set(values), rough.set(values)
        return costs

    def run(self):
        spec = checkpoints.draw(self.seed)
        checkpoints.write(spec, self.folder)
        self.ref, self.hf = batch_reference.BatchReference(self.folder), batches.HfProcessor(self.folder)
        while True:
            peft_config, options = draw_config(self.rng)
            try:
                exact = Peft(self.ref.model, peft_config, torch.float64)
                break
            except ValueError:
                continue
        rough = Peft(self.ref.model, peft_config, torch.float32)
        what = f"{peft_config}"
        case, images, arrays = self.draw_batch()
        with pglib.Model(self.library, self.folder) as model, pglib.Processor(self.library, self.folder) as processor, \
                batches.run_library(processor, case, images) as inputs:
            try:
                trainer = pglib.Trainer(model, accumulation=2, max_gradient_norm=0.0, learning_rate=1e-3, **options)
            except pglib.Error as error:
                unmatched = "no module of the model" in str(error)
                self.expect([] if unmatched else [str(error)], "create; " + what)
                return
            with trainer:
                self.check_gradients(trainer, model, inputs, arrays, exact, rough, what, options)
            if self.seed % 3 == 0:
                self.check_curve(model, processor, exact, rough, options, what)

    def compare(self, gradients, n_labels, exact, costs):
        return [f"{name}: {line}" for name, gradient in gradients.items()
                for line in self.beyond(gradient.astype(np.float64) / n_labels, exact[name], costs[name])]

    def check_gradients(self, trainer, model, inputs, arrays, exact, rough, what, options):
        parameters = trainer.parameters()
        names = set(parameters) ^ set(exact.parameters)
        self.expect([f"the parameters differ: {sorted(names)[:4]}"] if names else [], what)
        if names:
            return
        values = self.random_values(parameters)
        exact.set(values), rough.set(values)
        evaluated = trainer.evaluate(inputs)
        first = trainer.step(inputs)
        n_labels = first.n_labels
        gradients = {name: gradient.copy() for name, (_, gradient) in trainer.parameters().items()}
        loss, exact_gradients = exact.gradients(arrays)
        rough_loss, rough_gradients = rough.gradients(arrays)
        for name, found in (("evaluate", evaluated.loss), ("step", first.loss)):
            self.expect(self.beyond(np.array(found), np.array(loss), abs(rough_loss - loss)), f"loss of {name}; {what}")
        self.expect([f"{n_labels} labels"] if n_labels != (arrays["labels"][:, 1:] != -100).sum() else [], what)
        costs = {name: distance(rough_gradients[name], exact_gradients[name]) for name in gradients}
        worst = self.worst
        wrong = self.compare(gradients, n_labels, exact_gradients, costs)
        if wrong:
            more, self.worst = self.probe(values, arrays, exact, rough), worst
            wrong = self.compare(gradients, n_labels, exact_gradients, {name: max(costs[name], more[name]) for name in costs})
        self.expect(wrong, "gradients; " + what)
        flags = options.get("flags", 0) | pglib.TRAIN_CHECKPOINT
        for kind, more in (("checkpoints", dict(flags=flags)), ("3 threads", dict(n_threads=3))):
            with pglib.Trainer(model, accumulation=2, **{**options, **more}) as other:
                for name, (value, _) in other.parameters().items():
                    value[...] = values[name]
                other.step(inputs)
                differ = [name for name, (_, gradient) in other.parameters().items()
                          if gradient.tobytes() != gradients[name].tobytes()]
                self.expect([f"{kind}: other bits of {differ[0]}"] if differ else [], what)
        second = trainer.step(inputs)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for _, g in trainer.parameters().values()))
        far = abs(second.gradient_norm - norm) > 1e-6 * norm  # the gradients themselves were compared above
        self.expect([f"{second.gradient_norm}, expected {norm}"] if far else [], "norm; " + what)
        self.expect([] if second.updated else ["no update"], "second step; " + what)

    def check_curve(self, model, processor, exact, rough, options, what):
        """AdamW over a few batches in turn: losses, and how far those of transformers in f32 go apart."""
        cases = [self.draw_batch() for _ in range(3)]
        sides = []
        with pglib.Trainer(model, learning_rate=1e-3, total_steps=self.steps, warmup_steps=5, **options) as trainer:
            for side in (exact, rough):
                side.set({name: value for name, (value, _) in trainer.parameters().items()})
                optimizer = torch.optim.AdamW(side.parameters.values(), lr=1e-3, weight_decay=0.0)
                sides.append((side, optimizer, get_linear_schedule_with_warmup(optimizer, 5, self.steps)))
            all_inputs = [batches.run_library(processor, case, images) for case, images, _ in cases]
            worst, allowed = 0.0, CURVE
            for step in range(self.steps):
                losses = [self.peft_step(*side, cases[step % 3][2]) for side in sides]
                found, size = trainer.step(all_inputs[step % 3]).loss, max(abs(losses[0]), 0.1)
                worst = max(worst, abs(found - losses[0]) / size)
                allowed = max(allowed, TIMES * abs(losses[1] - losses[0]) / size)
            for inputs in all_inputs:
                inputs.close()
        self.curves.append(worst)
        self.expect([f"the loss differs by {worst:.3g} of itself, allowed are {allowed:.3g}"] if not worst <= allowed else [],
                    "curve; " + what)

    @staticmethod
    def peft_step(side, optimizer, schedule, arrays):
        optimizer.zero_grad()
        loss = side.loss(arrays)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(side.parameters.values(), 1.0)
        optimizer.step()
        schedule.step()
        return float(loss.detach())


def main():
    args = seeded.arguments(__doc__, 10, "checkpoints")
    args.add_argument("--steps", type=int, default=100, help="of a loss curve (default 100)")
    args = args.parse_args()
    torch.set_num_threads(1)  # the fastest for models this small
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.simplefilter("ignore")
    library, passed, failed, worst, curves = pglib.Library(args.build), 0, 0, 0.0, []
    for case in seeded.run_cases(args.seed, args.count, lambda seed, folder: Case(seed, library, folder, args.steps)):
        passed, failed, worst = passed + case.passed, failed + case.failed, max(worst, case.worst)
        curves += case.curves
    print(f"nearest to its bound: {worst:.2f}; {len(curves)} curves, the farthest {max(curves, default=0):.2g} of the loss")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
