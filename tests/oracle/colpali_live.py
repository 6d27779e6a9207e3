#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""ColPali against transformers: embeddings of images and queries, on random checkpoints in every layout.

    colpali_live.py [--seed S] [--count N] [--build FOLDER]
    colpali_live.py --golden          writes tests/golden/colpali

Each of the N checkpoints (checkpoints.py, with a projection) is written as transformers 5.23 saves it, as the published
folders have it, and as colpali-engine merges it; PG_FORWARD_RETRIEVAL must give ColPaliForRetrieval(...).embeddings on what
ColPaliProcessor makes of images and queries, with and without token types.
"""
import argparse
import copy
import json
import os
import shutil
import sys
import tempfile
import traceback

import checkpoints  # before torch: it sets the environment
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoProcessor
from transformers.models.colpali import ColPaliConfig, ColPaliForRetrieval, ColPaliProcessor

import compare
import pglib
import reference
import seeded
import vocabularies

GOLDEN = os.path.join(compare.ROOT, "tests", "golden", "colpali")
LAYOUTS = ("5.23", "published", "plain", "engine")


def renamed(name, layout):
    """name: of ColPaliForRetrieval's state dict."""
    if name.startswith("embedding_proj_layer."):
        return name.replace("embedding_proj_layer", "custom_text_proj") if layout == "engine" else name
    if layout != "plain":
        name = name.replace("vlm.language_model.", "vlm.language_model.model.")
        name = name.replace("vlm.vision_tower.", "vlm.vision_tower.vision_model.")
    return name.replace("vlm.", "model.") if layout == "engine" else name


def write_folder(folder, model, layout, dtype):
    """The model in f32 becomes `dtype` on the way, in the files and in memory."""
    os.makedirs(folder, exist_ok=True)
    for p in model.parameters():
        p.data.copy_(p.data.to(dtype).float())
    if layout == "5.23":
        copy.deepcopy(model).to(dtype).save_pretrained(folder)  # a copy: to() rounds RoPE's frequencies too
        return
    tensors = {renamed(name, layout): value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    config = model.config.to_diff_dict()
    if layout == "engine":
        config = dict(model.config.vlm_config.to_diff_dict(), architectures=["ColPali"], model_type="paligemma")
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


def random_model(spec, dim):
    sentencepiece_model, tokenizer = vocabularies.build(spec["n_learned"])
    n_pieces = len(sentencepiece_model.pieces)
    config = ColPaliConfig(vlm_config=checkpoints.build_config(dict(spec, head="tied"), n_pieces), embedding_dim=dim)
    model = ColPaliForRetrieval(config).eval()
    checkpoints.fill(model, spec, n_pieces, [])
    return model, sentencepiece_model, tokenizer


def bounds(model, arrays, exact):
    """-> [relative L2, largest difference] within which another f32 implementation must lie; README.md"""
    noise = []
    for seed in range(reference.MORE_PROBES):
        with reference._Noise(model, seed):
            noise.append(reference.distance(embed(model, arrays), exact))
    return [reference.FACTOR * max(column) for column in zip(*noise)]


def embed(model, arrays):
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).embeddings.numpy()


class Case(seeded.SeededCase):
    def run(self, library):
        spec, rng = dict(checkpoints.draw(self.seed), files="5.23"), np.random.default_rng([self.seed, 81])
        dim, layout = int(rng.choice([1, 16, 24, 128])), LAYOUTS[self.seed % len(LAYOUTS)]
        dtype = [torch.float32, torch.bfloat16, torch.float16][int(rng.integers(3))]
        self.model, sentencepiece_model, tokenizer = random_model(spec, dim)
        write_folder(self.folder, self.model, layout, dtype)
        checkpoints.write_processor(self.folder, sentencepiece_model, tokenizer, spec)
        loaded = AutoProcessor.from_pretrained(self.folder)
        processor = ColPaliProcessor(loaded.image_processor, loaded.tokenizer)
        size = spec["vision"]["image_size"]
        images = [rng.integers(0, 256, (size + i, size, 3)).astype(np.uint8) for i in range(int(rng.integers(1, 4)))]
        texts = [" ".join("word" for _ in range(int(rng.integers(0, 12)))) for _ in range(int(rng.integers(1, 4)))]
        with pglib.Model(library, self.folder) as model:
            self.expect([] if model.info().embedding_dim == dim else [f"embedding_dim {model.info().embedding_dim}"],
                        f"{layout}: embedding_dim {dim}")
            for side in ("left", "right"):
                for what, inputs in (("images", processor(images=images)), ("queries", processor(text=texts,
                                                                                       padding_side=side))):
                    given = {name: value.numpy() for name, value in inputs.items() if name != "labels"}
                    given = {name: value.astype(np.float32 if name == "pixel_values" else np.int64)
                             for name, value in given.items()}
                    self.expect(self.check(library, model, given), f"{layout}, {what}, {side}")
                    del given["token_type_ids"]
                    self.expect(self.check(library, model, given), f"{layout}, {what}, {side}, without types")

    def check(self, library, model, given):
        exact, wrong = embed(self.model, given), []
        limits = bounds(self.model, given, exact)
        lean = pglib.FORWARD_NO_LOGITS | pglib.FORWARD_NO_LOSS | pglib.FORWARD_SKIP_PADDING
        for flags in (0, lean):
            with library.make_inputs(**given) as inputs, \
                    model.forward(inputs, flags=flags | pglib.FORWARD_RETRIEVAL) as outputs:
                ours = outputs["embeddings"]
            found = reference.distance(ours, exact)
            if ours.shape != exact.shape or not all(a <= b for a, b in zip(found, limits)):
                wrong.append(f"flags {flags}: found {found}, at most {limits}")
            if ours[given["attention_mask"] == 0].any():
                wrong.append(f"flags {flags}: padding is not zero")
        return wrong


def write_golden():
    """Two small folders with inputs and embeddings: Gemma as published, Gemma 2 as 5.23 saves it."""
    for gemma_version, layout in ((1, "published"), (2, "5.23")):
        spec = next(s for s in map(checkpoints.draw, range(100)) if s["gemma_version"] == gemma_version)
        spec["n_learned"], spec["extra_rows"] = 20, 0
        spec["vision"].update(hidden_size=24, num_attention_heads=2, num_hidden_layers=1, intermediate_size=40,
                              patch_size=14, image_size=42)
        spec["text"].update(hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=8,
                            num_hidden_layers=2, intermediate_size=48)
        spec["text"].pop("layer_types", None)
        model, _, _ = random_model(spec, 12)
        folder = os.path.join(GOLDEN, f"gemma{gemma_version}")
        shutil.rmtree(folder, ignore_errors=True)
        write_folder(folder, model, layout, torch.bfloat16)
        rng, image = np.random.default_rng(gemma_version), model.config.vlm_config.image_token_id
        ids = np.concatenate([np.full((2, 9), image), rng.integers(4, 300, (2, 6))], 1)
        query = rng.integers(4, 300, (3, 11))
        mask = np.ones_like(query)
        mask[0, :4] = mask[1, -3:] = 0
        pixels = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 42, 42)).astype(np.float32)).bfloat16()
        page = dict(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids),
                    pixel_values=pixels.float().numpy())
        text = dict(input_ids=query, attention_mask=mask, token_type_ids=np.zeros_like(query))
        tensors = {"page.pixel_values": pixels}
        for name, given in (("page", page), ("query", text)):
            exact = embed(model, given)
            tensors[f"{name}.embeddings"] = torch.from_numpy(exact)
            tensors[f"{name}.bound"] = torch.tensor(bounds(model, given, exact)[:1])
            tensors.update({f"{name}.{key}": torch.from_numpy(value) for key, value in given.items()
                            if key != "pixel_values"})
        os.makedirs(os.path.join(folder, "expected"))
        save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "expected", "model.safetensors"))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, help="the first checkpoint (default: a fresh one)")
    args.add_argument("--count", type=int, default=12, help="checkpoints (default 12)")
    args.add_argument("--golden", action="store_true", help="write tests/golden/colpali")
    args.add_argument("--build", default=compare.default_build(), help="the build folder ($PG_BUILD or ./build)")
    args = args.parse_args()
    torch.set_num_threads(1)  # the fastest for models this small
    if args.golden:
        write_golden()
        return
    first = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"seed {first}, {args.count} checkpoints", flush=True)
    library, passed, failed = pglib.Library(args.build), 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(first, first + args.count):
            case = Case(seed, temporary)
            try:
                case.run(library)
            except Exception:  # a defect of one checkpoint must not hide the rest
                case.expect([traceback.format_exc()], "stopped")
            passed, failed = passed + case.passed, failed + case.failed
            shutil.rmtree(case.folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
