#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""pg_forward, batched generation and PG_FORWARD_EMBEDDINGS against transformers, on random checkpoints and random batches.

    forward_live.py [--seed S] [--count N] [--build FOLDER]

Each of the N checkpoints (seeds S, S + 1, ...; checkpoints.py) runs batches of batches.py: prompts, images and
suffixes as they come, padded on either side. Checked are features, hidden states of every layer, logits and both
losses, padding included; attention weights of every layer and head, and their means and parts; logits_to_keep; inputs given as arrays, as embeddings, with given features, without types, with
positions of one's own; what transformers raises at; each row against its single run; threads and instruction sets;
generate() token for token on left-padded batches; PG_FORWARD_EMBEDDINGS. Bounds as README.md says. Without --seed the seed is fresh; it is printed.
"""
import dataclasses
import os

import numpy as np
import torch

import batch_reference
import batches
import checkpoints
import pglib
import reference
import seeded

N_BATCHES, N_GENERATED = 3, 2
FEW_TOKENS = 4  # so many or fewer are summed in another order (pg_forward)
MAX_TOKENS = 1200  # of a batch: transformers' eager attention takes its square


def draw_batch(rng, hf, generate=False):
    """A batch that transformers accepts, not too large. -> (case, images, arrays)"""
    while True:
        case = batches.draw(rng, hf)
        if case.text is None or any(len(text) > 400 for text in case.text + (case.suffix or [])):
            continue
        if generate:
            case.suffix = case.suffix if rng.random() < 0.5 else None
            case.side, case.truncate = "left", None
            if case.padding == "max_length":
                case.padding, case.max_length = "longest", 0
        images = batches.random_images(rng, case.n_images)
        try:
            arrays, reports = hf.run(case, images)
        except batches.REFUSALS + (batches.Accident,):
            continue
        if arrays["input_ids"].size <= MAX_TOKENS and all(report["n_tokens"] for report in reports):
            return case, images, arrays


def model_arrays(arrays, *names):
    """What HF's model(**inputs) takes of them, and `names`."""
    kept = ("input_ids", "attention_mask", "token_type_ids", "labels", "pixel_values") + names
    return {name: array for name, array in arrays.items() if name in kept}


def stages_of(outputs):
    """pg_outputs -> {stage: array} under the reference's names."""
    stages = {"logits": outputs["logits"]}
    features, hidden = outputs.get("image_hidden_states"), outputs.get("hidden_states")
    if features is not None:
        stages["features"] = features
    if hidden is not None:
        stages.update({f"hidden.{i}": layer for i, layer in enumerate(hidden)})
    attentions = outputs.get("attentions")
    if attentions is not None:
        layers = attentions.reshape(-1, len(outputs["logits"]), *attentions.shape[1:])
        stages.update({f"attentions.{i}": layer.swapaxes(1, 2) for i, layer in enumerate(layers)})
    return stages


def all_flags():
    """The flags of all that stages_of() reads. (No constant: the library is not open yet.)"""
    return pglib.FORWARD_HIDDEN_STATES | pglib.FORWARD_ATTENTIONS


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


class Case(seeded.SeededCase):
    def __init__(self, seed, library, folder):
        super().__init__(seed, folder)
        self.library, self.closest = library, 0.0
        self.arrays, self.probes = None, []
        self.rng = np.random.default_rng([seed, 51])

    def attempt(self, what, check, *args):
        """Runs a check that returns what is wrong; a refusal is wrong too."""
        try:
            wrong = check(*args)
            if wrong and len(self.probes) < reference.MORE_PROBES:
                self.probes = self.ref.noise(model_arrays(self.arrays), reference.MORE_PROBES)
                wrong = check(*args)
            self.expect(wrong, what)
        except pglib.Error as error:
            self.expect([str(error)], what)

    def run(self):
        spec = checkpoints.draw(self.seed)
        checkpoints.write(spec, self.folder)
        self.ref, self.hf = batch_reference.BatchReference(self.folder), batches.HfProcessor(self.folder)
        self.config = self.ref.model.config.get_text_config()
        with pglib.Model(self.library, self.folder) as self.model, \
                pglib.Processor(self.library, self.folder) as self.processor:
            for i in range(N_BATCHES):
                self.run_batch(*draw_batch(self.rng, self.hf), full=i == 0)
            for _ in range(N_GENERATED):
                case, images, _ = draw_batch(self.rng, self.hf, generate=True)
                self.attempt(f"generate; {case}", self.check_generate, case, images)

    def run_batch(self, case, images, arrays, full):
        """One batch through every door; full: also through those that need another run of the reference."""
        self.arrays, given = arrays, model_arrays(arrays)
        self.exact, self.probes = self.ref.forward(given), self.ref.noise(given)
        what = f"; {arrays['input_ids'].shape}, {case}"
        try:
            self.inputs = batches.run_library(self.processor, case, images)
        except pglib.Error as error:
            self.expect([str(error)], "inputs" + what)
            return
        with self.inputs:
            self.attempt("forward" + what, self.check_forward)
            self.attempt("losses" + what, self.check_losses)
            self.attempt("logits_to_keep" + what, self.check_keep)
            self.attempt("attentions" + what, self.check_attentions)
            self.attempt("threads" + what, self.check_threads)
            self.attempt("rows alone" + what, self.check_rows)
            self.attempt("given features" + what, self.check_features, case)
            self.attempt("embed" + what, self.check_embed)
            self.attempt("instruction sets" + what, self.check_cpus)
            if full:
                self.attempt("arrays" + what, self.check_arrays)
                self.attempt("embeddings" + what, self.check_embeddings)
                if self.ref.model.config.image_token_id < self.config.vocab_size:  # else it has no embedding
                    self.attempt("embeddings and images" + what, self.check_embeddings_and_images)
                self.attempt("without types" + what, self.check_without_types)
                self.attempt("positions" + what, self.check_positions)
                self.attempt("packed" + what, self.check_packed)
                self.attempt("holes" + what, self.check_holes)
                self.expect(self.check_refusals(), "refusals" + what)

    def within(self, outputs, exact, probes, given):
        """-> [stages beyond their bounds]"""
        ours = stages_of(outputs)
        table = batch_reference.compare_stages(ours, exact, probes, given, self.config)
        self.closest = max([self.closest] + [row[2] / row[3] for row in table if row[3]])
        return [f"{row[0]}, {row[1]}: relative L2 {row[2]:.2e} (bound {row[3]:.2e}), max abs {row[4]:.2e} "
                f"(bound {row[5]:.2e})" for row in table if not row[-1]]

    def check_forward(self):
        with self.model.forward(self.inputs, flags=all_flags() | pglib.FORWARD_LAST_HIDDEN) as outputs:
            wrong = self.within(outputs, self.exact, self.probes, self.arrays)
            n = len([stage for stage in self.exact.stages if stage.startswith("hidden.")])
            if outputs["hidden_states"].shape[0] != n:
                wrong.append(f"hidden_states: found {outputs['hidden_states'].shape[0]}, expected {n}")
            if not same(outputs["hidden_states"][-1], outputs["last_hidden_state"]):
                wrong.append("last_hidden_state is not the last of hidden_states")
            if outputs.get("image_hidden_states") is None:
                wrong.append("no image_hidden_states")
        return wrong

    def check_losses(self):
        labels, logits = self.arrays["labels"], self.exact.stages["logits"]
        limit = batch_reference.loss_bound(self.exact, self.probes, labels)
        wrong = []
        per_row, no_logits = pglib.FORWARD_LOSS_PER_ROW, pglib.FORWARD_NO_LOGITS
        for flags in (0, per_row, no_logits, no_logits | per_row):
            right = batch_reference.mean_loss(logits, labels, flags & per_row)
            if not flags:  # what transformers itself says
                right = self.exact.loss
            with self.model.forward(self.inputs, flags=flags) as outputs:
                found = float(outputs["loss"][0])
                if (flags & no_logits == 0) != (outputs.get("logits") is not None):
                    wrong.append(f"flags {flags}: logits there or not")
            if np.isnan(right) != np.isnan(found) or abs(found - right) > limit:
                wrong.append(f"flags {flags}: found {found:.9g}, expected {right:.9g}, bound {limit:.2e}")
        return wrong

    def check_keep(self):
        n_tokens, wrong = self.arrays["input_ids"].shape[1], []
        limit = batch_reference.loss_bound(self.exact, self.probes, self.arrays["labels"])
        with self.model.forward(self.inputs) as all_outputs:
            whole, loss = all_outputs["logits"], all_outputs["loss"]
        for keep in {1, 2, n_tokens, int(self.rng.integers(1, n_tokens + 1))}:
            if keep > n_tokens:
                continue
            with self.model.forward(self.inputs, logits_to_keep=keep) as outputs:
                if outputs["logits"].shape[1] != keep:
                    wrong.append(f"{keep} kept: shape {outputs['logits'].shape}")
                    continue
                probes = [probe.last(keep) for probe in self.probes]
                wrong += self.within(outputs, self.exact.last(keep), probes, self.arrays)
                if not np.allclose(outputs["loss"], loss, rtol=0, atol=limit, equal_nan=True):
                    wrong.append(f"{keep} kept: loss {outputs['loss']}, with all logits {loss}")
        return wrong

    def check_attentions(self):
        """Means and parts are those of the whole; asking changes no other bits, and a row has what it has alone."""
        ids, wrong = self.arrays["input_ids"], []
        n_rows, n_tokens = ids.shape
        is_image = ids == self.ref.model.config.image_token_id
        most = int(is_image.sum(1).max())
        with self.model.forward(self.inputs) as outputs, \
                self.model.forward(self.inputs, flags=pglib.FORWARD_ATTENTIONS) as asked:
            whole = asked["attentions"].reshape(-1, n_rows, asked["attentions"].shape[1], n_tokens, n_tokens)
            wrong += [f"{name} differs when attentions are kept" for name in ("logits", "loss")
                      if not same(outputs[name], asked[name])]
        for _ in range(6):
            heads, layers, to_image, skip = self.rng.random(4) < 0.5
            layer, queries = int(self.rng.integers(-1, len(whole))), int(self.rng.integers(0, n_tokens + 1))
            keep = int(self.rng.integers(0, n_tokens + 1))
            to_image &= most > 0
            flags = (pglib.FORWARD_ATTENTIONS | heads * pglib.FORWARD_ATTENTION_HEAD_MEAN
                     | layers * pglib.FORWARD_ATTENTION_LAYER_MEAN | to_image * pglib.FORWARD_ATTENTION_TO_IMAGE
                     | skip * pglib.FORWARD_SKIP_PADDING)
            right = (whole if layer < 0 else whole[layer:layer + 1])[..., -queries:, :]
            right = right.mean(0, keepdims=True) if layers else right
            right = right.mean(2, keepdims=True) if heads else right
            if skip:
                right = right * (self.arrays["attention_mask"][:, -queries:] == 1)[None, :, None, :, None]
            if to_image:
                parts = np.zeros(right.shape[:-1] + (most,), np.float32)
                for row in range(n_rows):
                    parts[:, row, ..., :is_image[row].sum()] = right[:, row][..., is_image[row]]
                right = parts
            with self.model.forward(self.inputs, flags=int(flags), attention_layer=layer, attention_queries=queries,
                                    logits_to_keep=keep, n_threads=int(self.rng.integers(1, 4))) as outputs:
                found = outputs["attentions"]
            right = right.reshape(-1, *right.shape[2:])
            if found.shape != right.shape or np.abs(found - right).max(initial=0) > 2e-6:
                wrong.append(f"flags {flags}, layer {layer}, queries {queries}: found {found.shape}, expected "
                             f"{right.shape}, or by more than 2e-6 apart")
        return wrong

    def check_threads(self):
        seen = {}
        for n in (1, 2, 3):
            with self.model.forward(self.inputs, flags=all_flags(), n_threads=n) as outputs:
                seen[n] = [outputs[name] for name in ("logits", "hidden_states", "attentions", "image_hidden_states",
                                                      "loss")]
        return [f"{n} threads: tensor {i} differs from 1 thread" for n in (2, 3) for i in range(len(seen[1]))
                if not same(seen[n][i], seen[1][i])]

    def check_cpus(self):
        wrong = []
        for name, mask in pglib.cpu_masks().items():
            with pglib.Model(self.library, self.folder, mask) as model, \
                    model.forward(self.inputs, flags=all_flags()) as outputs:
                wrong += [f"{name}: {line}" for line in self.within(outputs, self.exact, self.probes, self.arrays)]
        return wrong

    def alone(self, arrays, row):
        """-> Inputs of one row without its padding"""
        mask = arrays["attention_mask"][row] == 1
        counts = arrays["image_counts"]
        first = int(counts[:row].sum())
        given = {name: arrays[name][row:row + 1, mask] for name in ("input_ids", "token_type_ids", "labels")}
        if counts[row]:
            given["pixel_values"] = arrays["pixel_values"][first:first + counts[row]]
        return self.library.make_inputs(**given)

    def alike(self, stage, row, found, expected):
        """The same bits; for a row of few tokens, which alone are summed in another order, both within a bound."""
        tokens = self.arrays["attention_mask"][row] == 1
        if same(found, expected) or tokens.sum() > FEW_TOKENS:
            return same(found, expected)
        noise = max(np.abs(p.stages[stage] - self.exact.stages[stage])[row][tokens].max() for p in self.probes)
        return bool(np.abs(found - expected).max() <= 2 * reference.FACTOR * noise)

    def check_rows(self):
        """A row gives what it gives alone."""
        wrong = []
        with self.model.forward(self.inputs, flags=pglib.FORWARD_HIDDEN_STATES) as outputs:
            batch = stages_of(outputs)
        for row in range(len(batch["logits"])):
            tokens = self.arrays["attention_mask"][row] == 1
            with self.alone(self.arrays, row) as inputs, \
                    self.model.forward(inputs, flags=pglib.FORWARD_HIDDEN_STATES) as outputs:
                single = stages_of(outputs)
            for stage in [name for name in batch if name != "features"]:
                found, mine = single[stage][0], batch[stage][row][tokens]
                if not self.alike(stage, row, found, mine):
                    wrong.append(f"row {row}, {stage}: {np.count_nonzero(found != mine)} of {mine.size} values differ, "
                                 f"by up to {np.abs(found - mine).max():.2e}")
        return wrong

    def check_features(self, case):
        """Features encoded once, then inputs without pixels: the same bits."""
        wrong = []
        with self.model.forward(self.inputs) as outputs:
            expected = {name: outputs[name] for name in ("logits", "loss", "image_hidden_states")}
        with self.model.encode_image(self.inputs) as features, \
                batches.run_library(self.processor, case, None, self.arrays["image_counts"].tolist()) as inputs, \
                self.model.forward(inputs, features) as outputs:
            if not same(features.array(), expected["image_hidden_states"]):
                wrong.append("pg_features_create differs from image_hidden_states")
            wrong += [f"{name} differs" for name in ("logits", "loss") if not same(outputs[name], expected[name])]
        return wrong

    def check_embed(self):
        wrong, padding = [], self.arrays["attention_mask"] == 0
        flags = pglib.FORWARD_LAST_HIDDEN | pglib.FORWARD_SKIP_PADDING
        with self.model.forward(self.inputs, flags=pglib.FORWARD_EMBEDDINGS) as outputs:
            found, features = outputs["last_hidden_state"], outputs["image_hidden_states"]
            wrong += [f"{name} is there" for name in ("logits", "loss", "hidden_states")
                      if outputs.get(name) is not None]
        with self.model.forward(self.inputs, flags=flags) as outputs:
            if not same(found, outputs["last_hidden_state"]) or not same(features, outputs["image_hidden_states"]):
                wrong.append("differs from pg_forward with the same flags")
        last = f"hidden.{self.config.num_hidden_layers}"
        with self.model.forward(self.inputs, flags=pglib.FORWARD_LAST_HIDDEN) as outputs:
            padded = outputs["last_hidden_state"]
        wrong += [f"row {row}: tokens differ from those of pg_forward with padding" for row in range(len(padded))
                  if not self.alike(last, row, found[row][~padding[row]], padded[row][~padding[row]])]
        if found[padding].any():
            wrong.append("padding is not zero")
        return wrong

    def check_arrays(self):
        """The reference's own arrays through pg_inputs_create(): the same bits as from the processor."""
        with self.library.make_inputs(**model_arrays(self.arrays)) as inputs, self.model.forward(inputs) as outputs, \
                self.model.forward(self.inputs) as expected:
            return [f"{name} differs" for name in ("logits", "loss") if not same(outputs[name], expected[name])]

    def check_given(self, given):
        """Arrays through transformers and through pg_inputs_create() and pg_forward()."""
        exact, probes = self.ref.forward(given), self.ref.noise(given)
        flags = all_flags() if "attentions.0" in exact.stages else pglib.FORWARD_HIDDEN_STATES  # sdpa has none
        with self.library.make_inputs(**given) as inputs, self.model.forward(inputs, flags=flags) as outputs:
            everything = {"attention_mask": np.ones_like(given["labels"])}
            wrong = self.within(outputs, exact, probes, {**everything, **given})
            limit = batch_reference.loss_bound(exact, probes, given["labels"])
            found = float(outputs["loss"][0])
            if np.isnan(exact.loss) != np.isnan(found) or abs(found - exact.loss) > limit:
                wrong.append(f"loss: found {found:.9g}, expected {exact.loss:.9g}, bound {limit:.2e}")
        return wrong

    def check_embeddings(self):
        given = model_arrays(self.arrays)
        del given["input_ids"], given["pixel_values"]
        return self.check_given(dict(given, inputs_embeds=self.exact.stages["hidden.0"]))

    def check_embeddings_and_images(self):
        """Embeddings that equal the image token's are where the images go."""
        given = model_arrays(self.arrays)
        ids = torch.from_numpy(given.pop("input_ids"))
        with torch.inference_mode():
            embeddings = self.ref.model.get_input_embeddings()(ids).numpy()
        return self.check_given(dict(given, inputs_embeds=embeddings))

    def check_without_types(self):
        """As transformers' default attention has it, which for Gemma 1 is not eager (masking_utils.py)."""
        given = model_arrays(self.arrays)
        del given["token_type_ids"]
        text = self.ref.model.config.text_config
        text._attn_implementation = "sdpa" if text.model_type == "gemma" else "eager"
        try:
            return self.check_given(given)
        finally:
            text._attn_implementation = "eager"

    def check_packed(self):
        """Positions that begin again, without a mask: texts apart. Suffixes and prompts alike are of type 1."""
        given = model_arrays(self.arrays)
        del given["attention_mask"]
        positions = np.arange(1, given["input_ids"].shape[1] + 1)[None].repeat(len(given["input_ids"]), 0)
        for row in positions[::2]:
            at = int(self.rng.integers(0, len(row)))
            row[at:] -= row[at] - 1
        given["token_type_ids"] = np.ones_like(given["input_ids"])
        given["position_ids"] = positions
        return self.check_given(given)

    def check_holes(self):
        """Tokens anywhere that the mask hides."""
        given = model_arrays(self.arrays)
        hidden = self.rng.random(given["attention_mask"].shape) < self.rng.uniform(0, 0.6)
        mask = np.where(hidden, 0, given["attention_mask"])
        empty = mask.sum(1) == 0
        mask[empty] = given["attention_mask"][empty]
        return self.check_given(dict(given, attention_mask=mask))

    def check_positions(self):
        gaps = self.rng.integers(1, 4, self.arrays["input_ids"].shape)
        gaps[:, 0] = self.rng.integers(0, 50, len(gaps))
        return self.check_given(dict(model_arrays(self.arrays), position_ids=np.cumsum(gaps, 1)))

    def check_refusals(self):
        """What transformers raises at must be refused, and the message must say where."""
        given, wrong = model_arrays(self.arrays), []
        outside = np.array(given["input_ids"])
        at = tuple(int(i) for i in np.argwhere(self.arrays["attention_mask"])[-1])
        outside[at] = self.config.vocab_size + 5
        label = np.array(given["labels"])
        label[at[0], max(1, at[1])] = self.config.vocab_size
        one_more = np.concatenate([given["pixel_values"][:1], given["pixel_values"]])
        for what, change in [("images", {"pixel_values": one_more}),
                             ("id", {"input_ids": outside}), ("label", {"labels": label})]:
            try:
                self.ref.forward(dict(given, **change))
                wrong.append(f"{what}: transformers does not raise")
            except (IndexError, ValueError, RuntimeError):
                pass
            try:
                with self.library.make_inputs(**dict(given, **change)) as inputs, self.model.forward(inputs):
                    wrong.append(f"{what}: accepted")
            except pglib.Error as error:
                if "row" not in str(error):
                    wrong.append(f"{what}: the message names no row: {error}")
        return wrong

    def check_generate(self, case, images):
        """Also from suffixes that are left open, whose arrays are the library's own."""
        n_new, wrong = int(self.rng.integers(1, 20)), []
        with batches.run_library(self.processor, case, images, flags=pglib.ENCODE_OPEN_SUFFIX) as inputs:
            arrays = {name: inputs[name] for name in batches.ARRAYS}
            given = model_arrays(arrays)
            del given["labels"]
            expected, logits = self.ref.generate(given, n_new)
            open_steps = self.ref.open_steps(given, expected, logits)
            found = self.model.generate(self.processor, inputs, max_new_tokens=n_new)
            with self.model.encode_image(inputs) as features:
                again = self.model.generate(self.processor, inputs, features, max_new_tokens=n_new, n_threads=2)
        right_side = dataclasses.replace(case, side="right")
        with batches.run_library(self.processor, right_side, images, flags=pglib.ENCODE_OPEN_SUFFIX) as inputs:
            right = self.model.generate(self.processor, inputs, max_new_tokens=n_new, n_threads=3)
        if again != found or right != found:
            wrong.append(f"depends on the threads, given features or the side of the padding: {found}, {again}, {right}")
        for row, (ids, text) in enumerate(found):
            with self.alone(arrays, row) as inputs:
                single = self.model.generate(self.processor, inputs, max_new_tokens=n_new)[0]
            if single != (ids, text):
                wrong.append(f"row {row}: found {ids}, alone {single[0]}")
            agreed = next((i for i, (a, b) in enumerate(zip(ids, expected[row])) if a != b),
                          min(len(ids), len(expected[row])))
            if ids != expected[row] and agreed < open_steps[row]:
                wrong.append(f"row {row}: found {ids}, expected {expected[row]}")
            right_text = self.ref.tokenizer.decode(expected[row], skip_special_tokens=True)
            if ids == expected[row] and text != right_text.partition("\0")[0]:  # a C string ends at a NUL
                wrong.append(f"row {row}: text {text!r}, expected {right_text!r}")
        return wrong


def main():
    args = seeded.arguments(__doc__, 12, "checkpoints").parse_args()
    torch.set_num_threads(1)  # the fastest for models this small
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the CPU to the others
    library, passed, failed, closest = pglib.Library(args.build), 0, 0, 0.0
    for case in seeded.run_cases(args.seed, args.count, lambda seed, folder: Case(seed, library, folder)):
        passed, failed, closest = passed + case.passed, failed + case.failed, max(closest, case.closest)
    print(f"the stage nearest to its bound was at {closest:.2f} of it")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
