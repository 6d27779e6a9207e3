#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Random batches through the library's processor and through transformers': every array must be the same.

    processor_live.py [--seed S] [--count 1000] [--build FOLDER] [--only CASE] [--folder FOLDER]

Case S is drawn from seed S alone, S + 1 from S + 1, ...; GROUP cases in a row share a checkpoint folder: random ones
(checkpoints.py), random kinds of tokenizer files (../golden/make_tokenizers.py) and the demo checkpoint. Compared are
ids, masks, types, labels, positions and image counts as numbers, pixels to the last bit, the report of each row, and
errors: where transformers raises, the library must refuse (two exceptions: batches.Accident). What transformers cuts is
cut once more with PG_ENCODE_KEEP_ENDS, which must keep images, newline and eos. --only replays one case.
"""
import collections
import dataclasses
import json
import os
import tempfile
import traceback

import numpy as np

import batches
import checkpoints
import compare
import pglib
import seeded
import vocabularies

import make_tokenizers  # in ../golden; batches has put it on the path

GROUP = 25  # cases that share a folder
DEMO = os.path.join(compare.ROOT, "examples", "demo", "model")


def make_folder(seed, folder):
    """-> (the processor's folder, what it is). Small images: their sizes are varied by live.py."""
    rng = np.random.default_rng([seed, 31])
    kind = rng.random()
    if kind < 0.1 and os.path.exists(DEMO):
        return DEMO, "the demo checkpoint"
    os.makedirs(folder)
    if kind < 0.4:
        kinds = list(make_tokenizers.kinds(True))
        name, make = kinds[rng.integers(len(kinds))]
        make(folder)
        tokens, size = int(rng.integers(1, 10)), int(rng.integers(1, 40))
        checkpoints.write_json(folder, "preprocessor_config.json", dict(
            do_convert_rgb=None, do_resize=True, do_normalize=True, do_rescale=True, image_mean=[0.5] * 3,
            image_std=[0.5] * 3, image_processor_type="SiglipImageProcessor", image_seq_length=tokens, resample=3,
            processor_class="PaliGemmaProcessor", rescale_factor=1 / 255, size={"height": size, "width": size}))
        what = f"tokenizer kind {name}, {tokens} image tokens"
    else:
        spec = checkpoints.draw(seed)
        model, tokenizer = vocabularies.build(spec["n_learned"])
        checkpoints.write_processor(folder, model, tokenizer, spec)
        what = f"checkpoint {seed}, {spec['files']}"
    checkpoints.write_json(folder, "config.json", {"model_type": "paligemma"})
    path = os.path.join(folder, "tokenizer_config.json")
    if rng.random() < 0.5 and os.path.exists(path):
        with open(path) as f:
            config = json.load(f)
        for key in ["padding_side"] + ["truncation_side"] * int(rng.random() < 0.3):
            config[key] = str(rng.choice(["left", "right"]))
            what += f", {key} {config[key]}"
        if rng.random() < 0.3:
            config["model_max_length"] = int(rng.integers(20, 120))
            what += f", model_max_length {config['model_max_length']}"
        checkpoints.write_json(folder, "tokenizer_config.json", config)
    if rng.random() < 0.2:
        what += f", saved after {save_after_a_call(rng, folder)}"
    return folder, what


def save_after_a_call(rng, folder):
    """Training leaves the settings of its last call in tokenizer.json. -> those"""
    hf = batches.HfProcessor(folder)
    options = dict(padding=str(rng.choice(["longest", "max_length"])), padding_side=str(rng.choice(["left", "right"])),
                   pad_to_multiple_of=int(rng.choice([1, 8])), truncation=bool(rng.random() < 0.5),
                   max_length=8 * int(rng.integers(2, 12)))
    hf.tokenizer(["a b", "c"], **options)
    hf.tokenizer.save_pretrained(folder)
    return options


def check(hf, processor, seed):
    """-> (the case, what the reference made of it, [what is wrong])"""
    rng = np.random.default_rng([seed, 32])
    case = batches.draw(rng, hf)
    images = batches.random_images(rng, case.n_images)
    expected = reports = refusal = accident = None
    try:
        expected, reports = hf.run(case, images)
    except batches.Accident as error:
        accident = error
        refusal = str(error) if error.library_refuses else None
    except batches.REFUSALS as error:
        refusal = f"{type(error).__name__}: {error}"
    try:
        with batches.run_library(processor, case, images) as inputs:
            if accident and not refusal:
                return case, "accident", []
            if refusal:
                return case, "raises", [f"accepted, but transformers raises {refusal}"]
            wrong = batches.compare(inputs, expected, reports)
    except pglib.Error as error:  # a row of an accident may have an error of its own
        return case, "raises", [] if refusal or accident else [f"refused: {error}"]
    if not wrong and any(report["n_truncated"] for report in reports) and case.truncation_side != "left":
        wrong += check_kept_ends(hf, processor, case, images)
    return case, "equal", wrong


def check_kept_ends(hf, processor, case, images):
    """PG_ENCODE_KEEP_ENDS: each row at most max_length long, begins and ends as the whole row, images complete."""
    wrong = []
    limit = case.max_length or np.inf  # else the tokenizer's own
    whole = hf.whole(case, images)
    kept_case = dataclasses.replace(case, truncation_side="right")
    try:
        with batches.run_library(processor, kept_case, images, flags=pglib.ENCODE_KEEP_ENDS) as inputs:
            arrays = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids", "labels")}
    except pglib.Error as error:  # the ends alone may be longer than max_length; without padding rows may differ
        may = "cannot go" in str(error) or "cannot be stacked" in str(error)
        return [] if may else [f"keep ends: {error}"]
    for row in range(len(case.text)):
        parts = list(zip(batches.split_row(arrays, row), batches.split_row(whole, row)))
        if sum(len(kept) for kept, _ in parts) > limit:
            wrong.append(f"keep ends, row {row}: {sum(len(kept) for kept, _ in parts)} tokens, limit {limit}")
        for name, (kept, all_) in zip(("prompt", "suffix"), parts):
            n_images = [np.count_nonzero(ids == hf.image_id) for ids in (kept, all_)]
            if len(all_) and (not len(kept) or kept[-1] != all_[-1] or name == "prompt" and n_images[0] != n_images[1]):
                wrong.append(f"keep ends, row {row}: the {name} is {kept.tolist()} of {all_.tolist()}")
    return wrong


def main():
    args = seeded.arguments(__doc__, 1000)
    args.add_argument("--only", type=int, help="this case alone, printed whole")
    args.add_argument("--show", type=int, default=20, help="failures that are printed (default 20)")
    args = args.parse_args()
    count = 1 if args.only is not None else args.count
    seeds = seeded.seeds(args.only if args.only is not None else args.seed, count)
    library, outcomes, failed, hf = pglib.Library(args.build), collections.Counter(), 0, None
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            if hf is None or seed % GROUP == 0:
                group = seed // GROUP
                folder, what = make_folder(group, os.path.join(temporary, str(group)))
                hf, processor = batches.HfProcessor(folder), pglib.Processor(library, folder)
            try:
                case, outcome, wrong = check(hf, processor, seed)
            except Exception:  # a defect of this script must not hide the rest
                case, outcome, wrong = None, "stopped", [traceback.format_exc()]
            outcomes[outcome.partition(":")[0]] += 1
            failed += bool(wrong)
            if wrong and failed <= args.show or args.only is not None:
                print(f"{'FAIL' if wrong else outcome}  {what}\n    {case}")
                print("".join(f"    {line}\n" for line in wrong) + f"    replay: processor_live.py --only {seed}",
                      flush=True)
    print(", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())))
    seeded.end(count - failed, failed)


if __name__ == "__main__":
    main()
