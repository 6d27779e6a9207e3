# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""transformers' generate() with every setting that the Python package follows, on the demo model.

    python tests/oracle/generate_options.py --build BUILD            live: the package's results beside transformers'
    python tests/oracle/generate_options.py --build BUILD --write    the expected values of
                                                                     python/tests/test_generate_options.py
"""
import argparse
import json
import os
import pathlib
import sys
import warnings

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python" / "tests"), str(ROOT / "python")]
from generate_cases import CASES, arguments, inputs_of, objects  # noqa: E402

EXPECTED = ROOT / "python" / "tests" / "expected" / "generate_options.json"
CACHE = ("past_key_values", "cache")  # of transformers 5.23, 5.24
DEMO = ROOT / "examples" / "demo" / "model"


def models(build):
    os.environ["PALIGEMMA_LIBRARY"] = os.path.join(build, "lib")
    import paligemma

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(DEMO, dtype=torch.float32).eval()
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    processor = paligemma.AutoProcessor.from_pretrained(DEMO)
    return theirs, hf_tokenizer, paligemma.PaliGemmaForConditionalGeneration.from_pretrained(DEMO), processor


def run(model, tokenizer, processor, case):
    """What one call gives, as JSON: new ids, and of scores and logits what can be compared."""
    inputs = {name: torch.from_numpy(value) for name, value in inputs_of(processor, case["rows"]).items()}
    width = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, **{"do_sample": False, **arguments(case, tokenizer, objects("pt"))})
    if isinstance(output, torch.Tensor):
        return {"new": output[:, width:].tolist()}
    found = {"new": output.sequences[:, width:].tolist(), "keys": [k for k in output.keys() if k not in CACHE]}
    for name in ("scores", "logits"):
        steps = getattr(output, name)
        if steps is None:
            continue
        values = torch.stack(steps).numpy()  # [new, B, vocab_size]
        found[name] = {"shape": list(values.shape), "n_out": int(np.isneginf(values).sum()),
                       "top": np.where(np.isneginf(values), -1e30, values).max(-1).round(3).tolist(),
                       "first": np.where(np.isneginf(values), -1e30, values)[:, :, :4].round(3).tolist()}
    indices = getattr(output, "beam_indices", None)
    if indices is not None:
        found["beam_indices"] = indices.tolist()
        if output.sequences_scores is not None:
            found["sequences_scores"] = output.sequences_scores.numpy().round(4).tolist()
    if output.scores is not None:
        for normalized in (False, True):
            scores = model.compute_transition_scores(output.sequences, output.scores, indices, normalize_logits=normalized)
            if not case.get("drawn"):
                found[f"transition_{normalized}"] = np.nan_to_num(scores.numpy(), neginf=-1e30).round(3).tolist()
    if case.get("drawn"):
        del found["new"]
    return found


def close(ours, theirs, tolerance=2e-3):
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[k], theirs[k], tolerance) for k in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(close(a, b, tolerance) for a, b in zip(ours, theirs))
    return ours == theirs or isinstance(theirs, float) and abs(ours - theirs) <= tolerance * max(1, abs(theirs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    theirs, hf_tokenizer, ours, processor = models(options.build)
    expected = {name: run(theirs, hf_tokenizer, processor, case) for name, case in CASES.items()}
    if options.write:
        EXPECTED.parent.mkdir(exist_ok=True)
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
        EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    failed = 0
    for name, case in CASES.items():
        found = run(ours, processor, processor, case)
        if not close(found, expected[name]):
            failed += 1
            print(f"{name}: found {found}, transformers {expected[name]}"[:2000])
    print(f"{len(CASES) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
