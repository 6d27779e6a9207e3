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
    {"ours": ours, "transformers": transformers, "compile": compiled, "openvino": openvino}[side](args, kind)


def process_mib(key):
    with open("/proc/self/status") as f:
        return next((int(line.split()[1]) / 1024 for line in f if line.startswith(key + ":")), 0.0)


def folder_mib(folder):
    """The files of a checkpoint folder, without what is in folders in it."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()) / 2 ** 20


def tell(load, start, image, first, last, ids, **more):
    print(json.dumps(dict(load_s=load, image_s=image - start, first_token_s=first - start, ids=ids,
                          tokens_per_s=(len(ids) - 1) / (last - first) if len(ids) > 1 else 0.0,
                          memory_mib=process_mib("VmRSS"), own_mib=process_mib("RssAnon"),
                          peak_mib=process_mib("VmHWM"), **more)), flush=True)


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
            tell(load, start, image, first, last, ids, disk_mib=folder_mib(folder or args.model))


def load_transformers(args, dtype):
    """-> (processor, model)"""
    import torch
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    return AutoProcessor.from_pretrained(args.model), \
        PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=dtype).eval()


def trim():
    """Weights that are gone would count as memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def transformers(args, kind):
    start = time.perf_counter()
    import torch
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    processor, model = load_transformers(args, dtype)
    if kind == "int8":
        torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
        trim()
    generate(args, time.perf_counter() - start, processor, model, dtype)


def compiled(args, kind):
    """transformers again, its three parts through torch.compile, its KV cache static, its weights frozen into the code."""
    start = time.perf_counter()
    import torch
    processor, model = load_transformers(args, torch.bfloat16)
    versions = []
    if kind == "int8":
        import torchao
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
        trim()
        versions = [f"torchao {torchao.__version__}"]
    torch._inductor.config.freezing = True
    for part in (model.model.vision_tower, model.model.language_model, model.lm_head):
        # one code for the prompt and one for a step: shapes that vary are slower
        part.forward = torch.compile(part.forward, dynamic=False)
    generate(args, time.perf_counter() - start, processor, model, torch.bfloat16, versions,
             cache_implementation="static", disable_compile=True)


def generate(args, load, processor, model, dtype, versions=(), **settings):
    import torch
    from transformers import __version__
    from transformers.image_utils import load_image
    times = []

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
            out = model.generate(**inputs, max_new_tokens=args.tokens, do_sample=False, streamer=Clock(), **settings)
        tell(load, start, images[-1], times[1], times[-1], out[0, inputs["input_ids"].shape[1]:].tolist(),
             disk_mib=folder_mib(args.model),
             versions=", ".join([f"transformers {__version__}", f"torch {torch.__version__}", *versions]))


def openvino(args, kind):
    start = time.perf_counter()
    import openvino_model
    weights, _, precision = kind.partition("@")
    processor = openvino_model.Processor(args.model)
    model = openvino_model.Model(args.model, args.openvino_cache, weights, args.threads, precision or "f32")
    load = time.perf_counter() - start
    for _ in range(args.answers + 1):
        start = time.perf_counter()
        ids, pixels = processor(args.image, args.prompt)
        image, times, out = model.answer(ids, pixels, args.tokens)
        tell(load, start, image, times[0], times[-1], out, versions=model.settings,
             disk_mib=openvino_model.disk_mib(args.openvino_cache, weights))
