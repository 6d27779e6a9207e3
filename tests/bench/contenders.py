# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The contenders of compare.py. Each runs in a process of its own, that ends, and prints a line of JSON for each answer.

answer(args, name) is one of them; args are compare.py's. Nothing but the standard library is imported before the side is
known, for each has an environment of its own.
"""
import ctypes
import gc
import json
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def answer(args, name):
    """name: side and kind, such as `ours int8=FOLDER`"""
    side, kind = name.split(" ", 1)
    {"ours": ours, "transformers": transformers}[side](args, kind)


def process_mib(key):
    with open("/proc/self/status") as f:
        return next((int(line.split()[1]) / 1024 for line in f if line.startswith(key + ":")), 0.0)


def ours(args, kind):
    sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
    import pglib
    weights, _, folder = kind.partition("=")
    library = pglib.Library(args.build)
    start = time.perf_counter()
    kept = 0 if folder or weights == "bf16" else pglib.WEIGHTS[weights]
    arithmetic = pglib.ARITHMETIC_BF16 if weights == "bf16" else 0
    with pglib.Model(library, folder or args.model, weights=kept, arithmetic=arithmetic) as model, \
            pglib.Processor(library, args.model) as processor, \
            pglib.Session(model, n_threads=args.threads, max_new_tokens=args.tokens) as session:
        load = time.perf_counter() - start
        if weights == "bf16" and model.info().arithmetic != pglib.ARITHMETIC_BF16:
            sys.exit("this CPU computes it in f32")
        for _ in range(args.answers + 1):
            ids, status = [], pglib.OK
            start = time.perf_counter()
            with processor.encode(args.image, args.prompt, pglib.ENCODE_EXIF) as inputs, \
                    model.encode_image(inputs, n_threads=args.threads) as features:
                image = time.perf_counter()
                session.prefill(inputs, features)
                while status == pglib.OK:
                    status, token = session.step()
                    if token is not None:
                        ids.append(token)
                        last = time.perf_counter()
                        first = last if len(ids) == 1 else first
            tell(load, start, image, first, last, ids)


def transformers(args, kind):
    start = time.perf_counter()
    import torch
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, logging
    from transformers.image_utils import load_image
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    processor = AutoProcessor.from_pretrained(args.model)
    model = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=dtype).eval()
    if kind == "int8":
        torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the f32 weights that are gone would count as its memory
    load, times = time.perf_counter() - start, []

    class Clock:
        """A streamer that notes when each token comes (the prompt comes first)."""

        def put(self, _):
            times.append(time.perf_counter())

        def end(self):
            pass

    images = []
    model.model.multi_modal_projector.register_forward_hook(lambda *_: images.append(time.perf_counter()))
    for _ in range(args.answers + 1):
        times.clear()
        start = time.perf_counter()
        inputs = processor(images=load_image(args.image), text="<image>" + args.prompt, return_tensors="pt").to(dtype)
        inputs.pop("labels", None)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=args.tokens, do_sample=False, streamer=Clock())
        tell(load, start, images[-1], times[1], times[-1], out[0, inputs["input_ids"].shape[1]:].tolist())


def tell(load, start, image, first, last, ids):
    print(json.dumps(dict(load_s=load, image_s=image - start, first_token_s=first - start, ids=ids,
                          tokens_per_s=(len(ids) - 1) / (last - first) if len(ids) > 1 else 0.0,
                          memory_mib=process_mib("VmRSS"), own_mib=process_mib("RssAnon"),
                          peak_mib=process_mib("VmHWM"))), flush=True)
