#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Beam search against transformers: the sequences, their scores and the beams that they come from.

    beams_live.py [--seed S] [--count 200] [--build FOLDER]

Each of the N cases (seeds S, S + 1, ...) draws beams, length_penalty, early_stopping, num_return_sequences, a length and, in
every second case, any settings of the logits processors, and generates for one to three prompts on the demo model
(Gemma 1) or a random checkpoint of Gemma 2. Every row must have transformers' ids, beam_indices and score (within CLOSE).
Where it has not, but every hypothesis' score is transformers' all the same, two continuations were equally likely: such
ties are counted, and let pass. So are rows of a prompt where transformers kept one continuation and dropped another that was
as likely (within TIE): what the dropped one leads to may have any score, which must then be the sum of its own. Every fifth case is beam sampling, whose draws are ours: the score must then be the sum of
the chosen scores, and the scores of the first step transformers' processors'.
"""
import ctypes
import tempfile

import numpy as np
import torch

import checkpoints
import pglib
import reference
import sampling_live
import seeded

CLOSE = 2e-4  # of a score: a sum of a dozen f32 log-probabilities of logits that are equal within 1e-5
TIE = 5e-5  # of the sum of log-probabilities of a beam: some f32 steps of what the two sides compute
EARLY = {False: 0, True: 1, "never": 2}
PROMPTS = ["caption en", "detect red circle", "answer en what color is the star?", "answer en how many objects are there?"]
# What has another meaning, or none, beside beams
NOT_WITH_BEAMS = {"min_length", "remove_invalid_values", "forced_bos_token_id"}


class Drops:
    """The smallest difference between the last continuation that transformers keeps and the first that it drops."""

    def __init__(self, model, eos):
        self.model, self.eos, self.gaps = model, eos, []

    def __enter__(self):
        self.original = self.model._get_top_k_continuations
        self.model._get_top_k_continuations = self.watch
        return self

    def __exit__(self, *_):
        del self.model._get_top_k_continuations  # the class's own again

    def watch(self, accumulated_log_probs, *args, **kwargs):
        sums, n = accumulated_log_probs, kwargs["num_beams"]  # [prompts, beams * vocabulary]
        going_on = sums.reshape(len(sums), n, -1).clone()
        going_on[:, :, [i for i in self.eos if i < going_on.shape[2]]] = -torch.inf
        gaps = []
        for candidates in (sums, going_on.reshape(sums.shape)):  # texts that end are kept beside those that go on
            best = torch.topk(candidates, n + 1).values
            gaps.append(best[:, n - 1] - best[:, n])
        self.gaps.append(torch.minimum(*gaps).nan_to_num(nan=torch.inf))  # -inf: nothing to drop
        return self.original(accumulated_log_probs, *args, **kwargs)

    def ties(self):
        """-> whether it happened, for each prompt"""
        return (torch.stack(self.gaps).min(dim=0).values < TIE).tolist() if self.gaps else []


class Case(seeded.SeededCase):
    n_rows, n_ties = 0, 0

    def __init__(self, seed, sides):
        super().__init__(seed, "")
        self.rng = np.random.default_rng([seed, 78])
        self.ref, self.model, self.processor = sides[seed % 2]

    def draw(self):
        """-> keywords of generate()"""
        rng = self.rng
        n_beams = int(rng.integers(2, 9))
        settings = {}
        if self.seed % 4 >= 2:
            settings = sampling_live.draw_settings(rng, self.model.info().vocab_size, self.ids, self.eos)
        sampled = self.seed % 5 == 4
        if not sampled:
            for name in ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
                settings.pop(name, None)
        for name in NOT_WITH_BEAMS:
            settings.pop(name, None)
        settings["do_sample"] = sampled
        settings.setdefault("eos_token_id", self.eos + [int(i) for i in rng.integers(0, 500, rng.integers(0, 3))])
        beams = {"num_beams": n_beams, "length_penalty": float(rng.choice([1, 0, 0.5, 2, -1, rng.normal()])),
                 "early_stopping": [False, True, "never"][rng.integers(3)],
                 "num_return_sequences": int(rng.integers(1, n_beams + 1))}
        return settings, beams, int(rng.integers(1, 14))

    def run(self):
        n = int(self.rng.integers(1, 4))
        image = (self.rng.random((40, 40, 3)) * 255).astype(np.uint8)
        self.prompts = [str(self.rng.choice(PROMPTS)) for _ in range(n)]
        with self.processor.encode_batch(self.prompts, images=[(image, pglib.IMAGE_RGB8)] * n, image_counts=[1] * n) as inputs:
            self.arrays = {name: torch.from_numpy(inputs[name].copy())
                           for name in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}
            self.ids = self.arrays["input_ids"][0].tolist()
            eos = self.ref.model.generation_config.eos_token_id
            self.eos = [eos] if isinstance(eos, int) else list(eos or [])
            settings, beams, max_new = self.draw()
            if n > 1:  # transformers' padding of a batch counts in these
                for name in ("no_repeat_ngram_size", "sequence_bias", "bad_words_ids", "repetition_penalty"):
                    settings.pop(name, None)
            self.compare(inputs, settings, beams, max_new)

    def ours(self, inputs, settings, beams, max_new):
        c = pglib.binding()
        options, kept = sampling_live.sampling_options(settings, self.seed)
        wanted = c.BeamOptions(n_beams=beams["num_beams"],
                               early_stopping=EARLY[beams["early_stopping"]], length_penalty=beams["length_penalty"])
        result = self.model.result(self.processor, inputs, max_new_tokens=max_new, sampling=ctypes.pointer(options),
                                   beams=ctypes.pointer(wanted), n_return=beams["num_return_sequences"],
                                   flags=pglib.GENERATE_LOGITS | pglib.GENERATE_SCORES)
        del kept
        return result

    def compare(self, inputs, settings, beams, max_new):
        what = f"{self.prompts} {settings} {beams} {max_new}"
        try:
            with torch.no_grad(), Drops(self.ref.model, settings["eos_token_id"]) as drops:
                theirs = self.ref.model.generate(**self.arrays, **settings, **beams, max_new_tokens=max_new,
                                                 pad_token_id=0, return_dict_in_generate=True, output_scores=True)
        except (ValueError, RuntimeError) as error:
            theirs = error  # what is forced is suppressed, too; or too few ids are left to draw from
        try:
            result = self.ours(inputs, settings, beams, max_new)
        except pglib.Error as error:
            self.expect([] if "leave no id" in str(error) else [str(error)], what)
            return
        if isinstance(theirs, Exception):
            result.close()
            return
        with result:
            if settings["do_sample"]:
                self.expect(self.sampled(result, theirs, beams), what)
            else:
                self.expect(self.found(result, theirs, beams, drops.ties()), what)

    def found(self, result, theirs, beams, ties):
        wrong, width, k = [], self.arrays["input_ids"].shape[1], beams["num_return_sequences"]
        for first in range(0, len(theirs.sequences), k):
            rows = range(first, first + k)
            scores = np.array([result.info(row).score for row in rows])
            wanted = theirs.sequences_scores[first:first + k].numpy().astype(np.float64)
            same = True
            for row in rows:
                indices = theirs.beam_indices[row].numpy()
                n = int((indices >= 0).sum())
                ids, mine = result.tensor("ids", row), result.tensor("beam_indices", row)
                same &= ids.tolist() == theirs.sequences[row, width:width + n].tolist()
                if same:  # what a beam is numbered where two are equal says nothing
                    same &= len(mine) == n
            near = np.abs(scores - wanted) <= CLOSE * np.maximum(1, np.abs(wanted))
            Case.n_rows += k
            if not near.all() and ties[first // k]:
                wrong += [line for row in rows for line in self.own_score(result, row, beams)]
                Case.n_ties += k
            elif not near.all():
                wrong.append(f"scores {scores} of rows {rows}, expected {wanted}; "
                             f"{[result.tensor('ids', row).tolist() for row in rows]}, "
                             f"expected {theirs.sequences[first:first + k, width:].tolist()}")
            elif not same:
                Case.n_ties += k
        return wrong

    def own_score(self, result, row, beams):
        """Whether the score is that of the chosen ids, by the scores of their beams"""
        ids, indices, scores = (result.tensor(name, row) for name in ("ids", "beam_indices", "beam_scores"))
        found, wrong, total = result.info(row).score, [], np.float64(0)
        if not len(ids):
            return [] if found <= -1e8 else [f"row {row}: no ids, score {found}"]
        for t, (token, beam) in enumerate(zip(ids, indices)):
            total += scores[t, beam, token]
            if not np.array_equal(result.tensor("scores", row)[t], scores[t, beam]):
                wrong.append(f"row {row}, step {t}: scores are not those of beam {beam}")
        factor = len(ids) ** beams["length_penalty"]
        score = total / factor  # but for a text that went on though it was out: -1e9 is in its sum
        if abs(score - found) > CLOSE * max(1, abs(score)) and found * factor > -1e8:
            wrong.append(f"row {row}: score {found}, expected {score}")
        return wrong

    def sampled(self, result, theirs, beams):
        wrong, k = [], beams["num_return_sequences"]
        for row in range(len(theirs.sequences)):
            wrong += self.own_score(result, row, beams)
            if not len(result.tensor("ids", row)):  # fewer texts than were asked for
                continue
            scores = result.tensor("beam_scores", row)
            first, expected = scores[0, 0], theirs.scores[0][row // k * beams["num_beams"]].numpy()
            finite = np.isfinite(first) & np.isfinite(expected)
            if (np.isfinite(first) != np.isfinite(expected)).sum() > 1 or np.abs(first - expected)[finite].max() > CLOSE:
                wrong.append(f"row {row}: scores of the first step differ")
        Case.n_rows += len(theirs.sequences)
        return wrong


def main():
    args = seeded.arguments(__doc__, 200).parse_args()
    torch.set_num_threads(1)
    library, passed, failed = pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        spec = next(spec for spec in map(checkpoints.draw, range(1000)) if spec["gemma_version"] == 2)
        checkpoints.write(spec, folder)
        demo_folder = sampling_live.DEMO
        with pglib.Model(library, demo_folder) as demo, pglib.Processor(library, demo_folder) as demo_processor, \
                pglib.Model(library, folder) as drawn, pglib.Processor(library, folder) as drawn_processor:
            sides = [(reference.Reference(demo_folder), demo, demo_processor),
                     (reference.Reference(folder), drawn, drawn_processor)]
            for seed in seeded.seeds(args.seed, args.count):
                case = Case(seed, sides)
                case.run()
                passed, failed = passed + case.passed, failed + case.failed
    print(f"{Case.n_rows} rows, {Case.n_ties} of them with equally likely continuations")
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
