#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Fresh random checkpoints, images and prompts through the library and through transformers.

    live.py [--seed S] [--count N] [--build FOLDER]

Each of the N checkpoints (seeds S, S + 1, ...) is checked for: every field of the config as transformers has it; pixels
equal to the last bit; every stage within its bound, and ids, text and prompt ids equal (see README.md), for several
prompts; the same through the tool `paligemma run --json`; every stage equal to the last bit with 1, 2 and 3 threads;
every instruction set within the bounds. Without --seed the seed is fresh; it is printed, and a failure says how to see
it again.
"""
import json
import os
import shutil
import subprocess
import tempfile
import traceback

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig

import checkpoints
import compare
import pglib
import image_files
import reference
import seeded
import vocabularies

N_IMAGES, N_PROMPTS = 12, 3
CPU_MASKS = ["0x1", "0x3", "0x7"]


def prompt(rng):
    """A random prompt. U+2581 is left out: its literal runs are the documented difference of sentencepiece and HF."""
    words = list(vocabularies.words(rng, int(rng.integers(1, 12))))
    pieces = ["<eos>", "<bos>", "<pad>", "<unk>", "<mask>", "<loc0000>", "<loc1023>", "<loc0512><loc0001>", "<seg007>",
              "<b>", "</td>", "\n", "\n\n\n", "  ", "     ", "\t", "<loc>", "<", "\u00a0", "\r\n", "e\u0301", "\u200d"]
    kind = rng.integers(7)
    if kind == 0:
        return ""
    if kind == 1:
        return " ".join(["caption en", "answer en", "detect"][rng.integers(3):][:1] + words)
    if kind == 2:  # any characters
        codes = [int(c) for c in np.concatenate([rng.integers(1, 128, 6), rng.integers(1, 0x3000, 6),
                                                 rng.integers(0x3000, 0xD800, 3), rng.integers(0xE000, 0x110000, 3)])]
        rng.shuffle(codes)
        return "".join(chr(c) for c in codes if c != 0x2581)
    if kind == 3:
        return " ".join(words * 12)
    text = "".join(w + (pieces[rng.integers(len(pieces))] if rng.random() < 0.7 else " ") for w in words)
    if kind == 4:
        at = rng.integers(len(text) + 1)
        return text[:at] + "<image>" + text[at:]
    return text


class Case(seeded.SeededCase):
    def __init__(self, seed, build, folder):
        super().__init__(seed, folder)
        self.build = build
        self.rng = np.random.default_rng([seed, 9])

    def run(self, library):
        spec = checkpoints.draw(self.seed)
        checkpoints.write(spec, self.folder)
        ref = reference.Reference(self.folder)
        self.choose_eos(ref)
        self.expect(self.check_config(), f"info; {describe(spec)}")
        self.compare_pixels(library, ref)
        for i in range(N_PROMPTS):
            path, what = image_files.write(self.rng, os.path.join(self.folder, f"image{i}"))
            self.compare_text(ref, path, prompt(self.rng), int(self.rng.integers(1, 24)), f"{what}; {describe(spec)}")

    def choose_eos(self, ref):
        """Half of the checkpoints end their texts with a token that they do generate."""
        path = os.path.join(self.folder, "generation_config.json")
        if self.rng.random() < 0.5 or not os.path.exists(path):
            return
        ids = ref.run(Image.new("RGB", (9, 9), "red"), "en", 8).ids
        with open(path) as f:
            config = json.load(f)
        old = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
        config["eos_token_id"] = old + ids[4:6]
        with open(path, "w") as f:
            json.dump(config, f)
        ref.model.generation_config.eos_token_id = config["eos_token_id"]

    def check_config(self):
        """pg_model_get_config, as `paligemma info` tells it, against every field of the HF config, defaults included."""
        tool = os.path.join(self.build, "paligemma")
        done = subprocess.run([tool, "info", "--json", self.folder], capture_output=True)
        if done.returncode != 0:
            return [f"paligemma info, status {done.returncode}: {done.stderr.decode(errors='replace').strip()}"]
        expected = flat(json.loads(json.dumps(AutoConfig.from_pretrained(self.folder).to_dict())))
        found = flat(json.loads(done.stdout)["config"])
        return [f"{key}: found {found.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
                for key in sorted(found.keys() | expected.keys()) if found.get(key, "-") != expected.get(key, "-")
                and key not in ("_name_or_path", "transformers_version")]  # of the package, not of the checkpoint

    def compare_pixels(self, library, ref):
        with pglib.Processor(library, self.folder) as processor:
            for i in range(N_IMAGES):
                path, what = image_files.write(self.rng, os.path.join(self.folder, "image"))
                for flags in (0, pglib.ENCODE_EXIF):
                    image = reference.open_image(path, flags == pglib.ENCODE_EXIF)
                    expected = ref.inputs(image, "en")["pixel_values"].numpy()
                    try:
                        with processor.encode(path, "en", flags) as inputs:
                            found = inputs["pixel_values"]
                        wrong = [] if found.tobytes() == expected.tobytes() else [
                            f"{np.count_nonzero(found != expected)} of {expected.size} pixel values differ, by up to "
                            f"{np.abs(found - expected).max()}" if found.shape == expected.shape
                            else f"shape {found.shape}, expected {expected.shape}"]
                    except pglib.Error as error:
                        wrong = [str(error)]
                    self.expect(wrong, f"image {i} ({what}), flags {flags}")

    def compare_text(self, ref, path, text, n_new, what):
        result = ref.run(reference.open_image(path), text, n_new)
        limits = reference.bounds(ref.probe(result))
        what = f"prompt {text!r}, {n_new} tokens; {what}"
        outputs, probed_again = {}, False
        for options in [("--threads", n) for n in "123"] + [("--cpu", mask) for mask in CPU_MASKS]:
            out = os.path.join(self.folder, "stages")
            try:
                ours = compare.run_stages(self.build, self.folder, path, text, out, n_new, *options)
                wrong = compare.check(ours, result, limits)[1]
                if wrong and not probed_again:
                    limits, probed_again = reference.bounds(ref.probe(result, reference.MORE_PROBES)), True
                    wrong = compare.check(ours, result, limits)[1]
                with open(out, "rb") as f:
                    outputs[options] = f.read()
            except RuntimeError as error:
                wrong = [str(error)]
            self.expect(wrong, f"{' '.join(options)}, {what}")
        same = {outputs.get(("--threads", n)) for n in "123"}
        self.expect([] if len(same) == 1 else ["some stage differs between 1, 2 and 3 threads"], what)
        self.expect(self.check_tool(ref, result, limits, path, text, n_new), f"tool, {what}")

    def check_tool(self, ref, result, limits, path, text, n_new):
        tool = os.path.join(self.build, "paligemma")
        answers = []
        for threads in "123":
            done = subprocess.run([tool, "run", "--json", "--max-new-tokens", str(n_new), "--threads", threads, "--",
                                   self.folder, path, text], capture_output=True)
            if done.returncode != 0:
                return [f"paligemma run, status {done.returncode}: {done.stderr.decode(errors='replace').strip()}"]
            answers.append(json.loads(done.stdout.splitlines()[-1]))
        answer, wrong = answers[0], []
        if any(a["ids"] != answer["ids"] or a["text"] != answer["text"] for a in answers):
            wrong.append(f"ids depend on the number of threads: {[a['ids'] for a in answers]}")
        if answer["prompt_ids"] != result.prompt_ids:
            wrong.append(f"prompt_ids: found {answer['prompt_ids']}, expected {result.prompt_ids}")
        if reference.first_open_step(result, limits) == len(result.ids):
            eos = ref.model.generation_config.eos_token_id
            eos = eos if isinstance(eos, list) else [eos]
            stop = "eos" if result.ids[-1] in eos else "length"
            for key, expected in [("ids", result.ids), ("text", result.text), ("stop", stop)]:
                if answer[key] != expected:
                    wrong.append(f"{key}: found {answer[key]!r}, expected {expected!r}")
        missing = {"load_s", "image_s", "prefill_s", "decode_s", "tokens_per_s"} - set(answer)
        return wrong + ([f"keys missing: {sorted(missing)}"] if missing else [])


def flat(config, prefix=""):
    """{"text_config.hidden_size": 32, ...}"""
    out = {}
    for key, value in config.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out


def describe(spec):
    keys = ["gemma_version", "layout", "dtype", "head", "shards", "unaligned", "config", "files"]
    return ", ".join(f"{k} {spec[k]}" for k in keys)


def main():
    args = seeded.arguments(__doc__, 20, "checkpoints")
    args.add_argument("--keep", help="folder that keeps the checkpoints")
    args = args.parse_args()
    torch.set_num_threads(1)  # the fastest for models this small
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the CPU to the others
    library, passed, failed = pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeded.seeds(args.seed, args.count, "checkpoints"):
            case = Case(seed, args.build, args.keep or temporary)
            try:
                case.run(library)
            except Exception:  # a defect of one checkpoint must not hide the rest
                case.expect([traceback.format_exc()], "stopped")
            passed, failed = passed + case.passed, failed + case.failed
            if not args.keep:
                shutil.rmtree(case.folder, ignore_errors=True)
    seeded.end(passed, failed)


if __name__ == "__main__":
    main()
