#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Settings of sampling against transformers: the scores that they leave, stop strings, and eos ids.

    sampling_live.py [--seed S] [--count 300] [--build FOLDER]

Each of the N cases (seeds S, S + 1, ...) draws any number of settings at once and generates with them, on the demo model
(Gemma 1) or a random checkpoint of Gemma 2. transformers' own LogitsProcessorList, made by
GenerationMixin._get_logits_processor() for the same settings, is applied to the logits that our result kept, with the
ids that came before: its scores must be ours, bit for bit (log-softmax of renormalize_logits within rounding). Two kinds of
steps are counted and let pass: equally likely ids at a bound, of which torch's sort keeps any, and ids at a bound that
torch's rounding moves over it (BORDER, at_a_bound). Every third case compares how stop strings and eos ids end greedy
generation instead.
"""
import ctypes
import json
import os
import tempfile

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import EosTokenCriteria, StopStringCriteria

import checkpoints
import compare
import pglib
import reference
import seeded

DEMO = os.path.join(compare.ROOT, "examples", "demo", "model")
BORDER = 1e-6  # a probability that may be lost in torch's rounding of a sum of f32
ROUNDING = 1e-6  # of a log-probability, and of a sum of probabilities: two to four units in the last place of f32
MAX_NEW = 10


def flat(lists):
    return [i for one in lists for i in one]


def draw_settings(rng, vocab, ids, eos):
    """-> keywords of generate()"""
    def some(p):
        return rng.random() < p

    def an_id():
        return int(rng.choice(ids)) if some(0.5) else int(rng.integers(vocab))

    s = {"do_sample": some(0.75), "eos_token_id": [int(i) for i in {*eos, *(an_id() for _ in range(rng.integers(3)))}]}
    for name, p, value in [
            ("repetition_penalty", 0.4, lambda: float(rng.uniform(0.5, 2))),
            ("no_repeat_ngram_size", 0.3, lambda: int(rng.integers(1, 5))),
            ("min_new_tokens", 0.2, lambda: int(rng.integers(1, MAX_NEW + 2))),
            ("min_length", 0.2, lambda: int(rng.integers(1, 100))),
            ("forced_eos_token_id", 0.2, lambda: [an_id() for _ in range(rng.integers(1, 3))]),
            ("forced_bos_token_id", 0.1, an_id),
            ("remove_invalid_values", 0.1, lambda: True),
            ("exponential_decay_length_penalty", 0.2, lambda: (int(rng.integers(0, 6)), float(rng.uniform(0.8, 2)))),
            ("suppress_tokens", 0.3, lambda: [an_id() for _ in range(rng.integers(1, 30))]),
            ("begin_suppress_tokens", 0.3, lambda: [an_id() for _ in range(rng.integers(1, 30))]),
            ("bad_words_ids", 0.3, lambda: [[an_id() for _ in range(rng.integers(1, 4))] for _ in range(rng.integers(1, 20))]),
            ("sequence_bias", 0.3, lambda: [[list(key), float(rng.normal() * 5)] for key in
                                            {tuple(an_id() for _ in range(rng.integers(1, 3))) for _ in range(8)}]),
            ("temperature", 0.6, lambda: float(np.exp(rng.normal()))),
            ("top_h", 0.2, lambda: float(rng.uniform(0.1, 1))),
            ("top_k", 0.7, lambda: int(rng.choice([0, 1, 3, 50, 500, 100000]))),
            ("top_p", 0.5, lambda: float(rng.uniform(0.05, 1))),
            ("min_p", 0.3, lambda: float(rng.uniform(0, 1) ** 4)),
            ("typical_p", 0.3, lambda: float(rng.uniform(0.05, 0.999))),
            ("epsilon_cutoff", 0.2, lambda: float(rng.uniform(0, 0.05))),
            ("eta_cutoff", 0.2, lambda: float(rng.uniform(0, 0.05))),
            ("renormalize_logits", 0.2, lambda: True)]:
        if some(p):
            s[name] = value()
    if s.get("remove_invalid_values"):  # transformers' own sum of the two is infinite, and then NaN
        s.pop("exponential_decay_length_penalty", None)
    return s


def sampling_options(settings, seed):
    """-> pg_sampling_options of generate()'s keywords, and what it points to"""
    c, kept = pglib.binding(), []

    def array(kind, values):
        kept.append((kind * max(1, len(values)))(*values))
        return ctypes.cast(kept[-1], ctypes.POINTER(kind))

    def ids(name, values):
        return {name: array(c.i64, values), "n_" + name: len(values)}

    same = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "min_length", "temperature", "top_h",
            "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_k")
    o = {name: settings[name] for name in same if name in settings}
    flags = sum(flag for name, flag in (("do_sample", c.SAMPLING_RANDOM), ("renormalize_logits", c.SAMPLING_RENORMALIZE),
                                        ("remove_invalid_values", c.SAMPLING_REMOVE_INVALID)) if settings.get(name))
    for name, theirs in (("eos_ids", "eos_token_id"), ("forced_eos_ids", "forced_eos_token_id"),
                         ("suppressed_ids", "suppress_tokens"), ("begin_suppressed_ids", "begin_suppress_tokens")):
        if theirs in settings:
            o.update(ids(name, settings[theirs]))
    o["forced_bos_id"] = settings.get("forced_bos_token_id", -1)
    if "exponential_decay_length_penalty" in settings:
        o["decay_start"], o["decay_factor"] = settings["exponential_decay_length_penalty"]
    if "bad_words_ids" in settings:
        words = settings["bad_words_ids"]
        o.update(bad_word_ids=array(c.i64, flat(words)), bad_word_sizes=array(c.i64, [len(w) for w in words]),
                 n_bad_words=len(words))
    if "sequence_bias" in settings:
        keys = [key for key, _ in settings["sequence_bias"]]
        o.update(bias_ids=array(c.i64, flat(keys)), bias_sizes=array(c.i64, [len(k) for k in keys]),
                 biases=array(c.f64, [bias for _, bias in settings["sequence_bias"]]), n_biases=len(keys))
    options = c.SamplingOptions(flags=flags, seed=seed, **{"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0,
                                                           "repetition_penalty": 1.0, "decay_factor": 1.0, "top_k": 50,
                                                           **o})
    return options, kept


def processors_of(model, settings, n_prompt, given={"max_new_tokens": MAX_NEW}):
    """transformers' list for these settings, as generate() makes it"""
    config, _ = model._prepare_generation_config(None, **given, **settings)
    model._prepare_special_tokens(config, True, device="cpu")
    config.max_length = MAX_NEW + n_prompt
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + n_prompt
    return model._get_logits_processor(config, input_ids_seq_length=n_prompt, device="cpu",
                                       model_kwargs={"attention_mask": torch.ones(1, n_prompt, dtype=torch.long)})


def at_a_bound(processors, ids, logits, judged, rng, draws=200):
    """Whether transformers keeps each of the judged ids with some roundings of f32, and drops it with others."""
    masses = [(p, name, getattr(p, name)) for p in processors for name in ("top_p", "mass", "top_h") if hasattr(p, name)]
    kept = []
    try:
        for _ in range(draws):
            for p, name, value in masses:
                setattr(p, name, value * (1 + ROUNDING * rng.uniform(-1, 1)))
            scores = torch.tensor(logits[None])
            for p in processors:
                scores = p(ids, scores + torch.tensor(rng.uniform(-ROUNDING, ROUNDING, scores.shape).astype(np.float32)))
            kept.append(scores[0].numpy()[judged] > -np.inf)
    finally:
        for p, name, value in masses:
            setattr(p, name, value)
    return bool((np.any(kept, axis=0) & ~np.all(kept, axis=0)).all())


class Case(seeded.SeededCase):
    n_steps, n_ties, n_borders = 0, 0, 0

    def __init__(self, seed, sides):
        super().__init__(seed, "")
        self.rng = np.random.default_rng([seed, 77])
        self.ref, self.model, self.processor = sides[seed % 2]

    def run(self):
        image = (self.rng.random((40, 40, 3)) * 255).astype(np.uint8)
        prompt = str(self.rng.choice(["caption en", "detect red circle", "answer en what color is the star?", ""]))
        with self.processor.encode_batch([prompt], images=[(image, pglib.IMAGE_RGB8)], image_counts=[1]) as inputs:
            self.ids = inputs["input_ids"][0].tolist()
            if self.seed % 3 == 2:
                self.stops(inputs)
            elif self.seed % 15 == 0:
                self.folder_settings(inputs)
            else:
                self.scores(inputs)

    def settings(self):
        eos = self.ref.model.generation_config.eos_token_id
        return draw_settings(self.rng, self.model.info().vocab_size, self.ids,
                             [eos] if isinstance(eos, int) else eos or [])

    def folder_settings(self, inputs):
        """The settings in generation_config.json; generate() without arguments follows them on both sides."""
        settings = {**self.settings(), "max_new_tokens": MAX_NEW}
        with tempfile.TemporaryDirectory() as copy:
            for name in os.listdir(self.ref.folder):
                if name != "generation_config.json":
                    os.symlink(os.path.join(os.path.abspath(self.ref.folder), name), os.path.join(copy, name))
            with open(os.path.join(copy, "generation_config.json"), "w") as f:
                json.dump(settings, f)
            before = self.ref.model.generation_config
            try:
                self.ref.model.generation_config = GenerationConfig.from_pretrained(copy)
                processors = processors_of(self.ref.model, {}, len(self.ids), given={})
            except ValueError as error:
                self.expect([] if "suppress" in str(error) else [str(error)], f"reference; {settings}")
                return
            finally:
                self.ref.model.generation_config = before
            with pglib.Model(self.model.library, copy) as model:
                self.check(model, inputs, settings, processors, None)

    def scores(self, inputs):
        settings = self.settings()
        try:
            processors = processors_of(self.ref.model, settings, len(self.ids))
        except ValueError as error:  # what is forced is suppressed, too
            self.expect([] if "suppress" in str(error) else [str(error)], f"processors; {settings}")
            return
        options, kept = sampling_options(settings, self.seed)
        self.check(self.model, inputs, settings, processors, options)
        del kept

    def check(self, model, inputs, settings, processors, options):
        """options: pg_sampling_options, or None: those of the folder"""
        given = {"max_new_tokens": MAX_NEW, "sampling": ctypes.pointer(options)} if options else {}
        try:
            result = model.result(self.processor, inputs, flags=pglib.GENERATE_LOGITS | pglib.GENERATE_SCORES, **given)
        except pglib.Error as error:
            self.expect([] if "leave no id" in str(error) else [str(error)], f"generate; {settings}")
            return
        wrong = []
        with result:
            new, logits, ours = (result.tensor(name) for name in ("ids", "logits", "scores"))
        for t in range(len(new)):
            ids = torch.tensor([self.ids + new[:t].tolist()])
            theirs = processors(ids, torch.tensor(logits[t][None]))[0].numpy()
            wrong += self.compare(t, ours[t], theirs, settings,
                                  lambda judged: at_a_bound(processors, ids, logits[t], judged, self.rng))
            if not settings["do_sample"] and new[t] != np.argmax(theirs):
                wrong.append(f"step {t}: took {new[t]}, expected {np.argmax(theirs)}")
            if not ours[t][new[t]] > -np.inf:
                wrong.append(f"step {t}: took {new[t]}, which is out")
            Case.n_steps += 1
        self.expect(wrong, f"scores; {settings}")

    def compare(self, t, ours, theirs, settings, at_a_bound):
        differ = np.flatnonzero((ours > -np.inf) != (theirs > -np.inf))
        if differ.size and settings["do_sample"]:
            either = np.maximum(ours, theirs).astype(np.float64)
            if np.ptp(either[differ]) == 0:
                Case.n_ties += 1
                return []
            share = np.exp(either - either.max())
            if share[differ].max() / share.sum() < BORDER or at_a_bound(differ):
                Case.n_borders += 1
                return []
        if differ.size:
            return [f"step {t}: {differ.size} ids are in on one side alone: {differ[:5]}, ours {ours[differ[:5]]}, "
                    f"theirs {theirs[differ[:5]]}"]
        finite = theirs > -np.inf
        if settings.get("renormalize_logits"):
            return [] if np.allclose(ours[finite], theirs[finite], rtol=1e-6, atol=4e-6) else [
                f"step {t}: {np.abs(ours[finite] - theirs[finite]).max()} apart"]
        return [] if np.array_equal(ours[finite], theirs[finite]) else [
            f"step {t}: {np.count_nonzero(ours[finite] != theirs[finite])} scores differ, by at most "
            f"{np.abs(ours[finite] - theirs[finite]).max()}"]

    def stops(self, inputs):
        """Stop strings cut out of what it says, and eos ids of it: transformers' criteria are asked after every token."""
        c = pglib.binding()
        plain = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "decay_factor": 1.0,
                 "forced_bos_id": -1}
        endless = c.SamplingOptions(flags=c.SAMPLING_IGNORE_EOS, **plain)
        whole = self.model.generate(self.processor, inputs, max_new_tokens=24, sampling=ctypes.pointer(endless))[0][0]
        text = self.ref.tokenizer.decode(self.ids[-2:] + whole)
        strings = []
        for _ in range(self.rng.integers(1, 4)):
            begin = int(self.rng.integers(0, max(1, len(text))))
            strings.append(text[begin:begin + int(self.rng.integers(1, 9))] or "a")
        strings = [s for s in strings if "\ufffd" not in s] or ["never"]
        eos = [int(self.rng.choice(whole)) for _ in range(2)] if self.rng.random() < 0.3 else []
        criteria = [StopStringCriteria(self.ref.tokenizer, strings)] + ([EosTokenCriteria(eos)] if eos else [])
        wanted = next((t for t in range(1, len(whole)) if any(
            criterion(torch.tensor([self.ids + whole[:t]]), None)[0] for criterion in criteria)), len(whole))
        sampling = c.SamplingOptions(flags=0 if eos else c.SAMPLING_IGNORE_EOS, eos_ids=(c.i64 * 2)(*eos) if eos else None,
                                     n_eos_ids=len(eos), **plain)
        with self.model.result(self.processor, inputs, max_new_tokens=24, sampling=ctypes.pointer(sampling),
                               stop_strings=(ctypes.c_char_p * len(strings))(*[s.encode() for s in strings]),
                               n_stop_strings=len(strings)) as result:
            ours, stop = result.tensor("ids").tolist(), result.info().stop
        self.expect([] if ours == whole[:wanted] else [f"found {len(ours)} tokens, stop {stop}, expected {wanted}"],
                    f"stop strings {strings}, eos {eos}, {text!r}")


def main():
    args = seeded.arguments(__doc__, 300).parse_args()
    torch.set_num_threads(1)
    library, passed, failed = pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        spec = next(spec for spec in map(checkpoints.draw, range(1000)) if spec["gemma_version"] == 2)
        checkpoints.write(spec, folder)
        with pglib.Model(library, DEMO) as demo, pglib.Processor(library, DEMO) as demo_processor, \
                pglib.Model(library, folder) as drawn, pglib.Processor(library, folder) as drawn_processor:
            sides = [(reference.Reference(DEMO), demo, demo_processor),
                     (reference.Reference(folder), drawn, drawn_processor)]
            sides[0][0].folder, sides[1][0].folder = DEMO, folder
            for seed in seeded.seeds(args.seed, args.count):
                case = Case(seed, sides)
                case.run()
                passed, failed = passed + case.passed, failed + case.failed
    print(f"{Case.n_steps} steps; {Case.n_ties} kept others of equally likely ids, {Case.n_borders} judged ids at a bound "
          "differently")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
