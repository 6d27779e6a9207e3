#!/usr/bin/env python3
"""Times the library and transformers in turns, in one run, on one checkpoint.

    bench.py MODEL [IMAGE] [--rounds 3] [--tokens 16] [--threads 2] [--peers f32,bf16] [--build FOLDER]

Each round runs the tool `paligemma` once (a fresh process) and each peer once (a process that keeps its model between
rounds). Times: load; first token, from the picture's file to the first id (decoding, encoder, prefill); decode,
tokens a second after the first. Memory: the largest anonymous resident memory, that is, beyond the mapped files.
Prints every round, the medians and the ratios of peer to library; only ratios of one run mean anything.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEYS = ["load_s", "first_token_s", "tokens_per_s", "memory_mib"]


def anonymous_mib(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("RssAnon")) / 1024
    except (OSError, StopIteration):
        return 0.0


def run_library(args):
    tool = os.path.join(args.build, "examples", "paligemma")
    process = subprocess.Popen([tool, "run", "--json", "--max-new-tokens", str(args.tokens), "--threads",
                                str(args.threads), args.model, args.image, args.prompt], stdout=subprocess.PIPE)
    most, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out = process.communicate()[0]
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit("bench: the tool failed")
    answer = json.loads(out.splitlines()[-1])
    return dict(load_s=answer["load_s"], first_token_s=answer["image_s"] + answer["prefill_s"],
                tokens_per_s=answer["tokens_per_s"], memory_mib=most[0], ids=answer["ids"],
                image_s=answer["image_s"], prefill_s=answer["prefill_s"])


class Peer:
    """transformers in a process of its own, which answers a line with a line."""

    def __init__(self, args, kind):
        command = [sys.executable, os.path.abspath(__file__), args.model, args.image, "--serve", kind,
                   "--tokens", str(args.tokens), "--threads", str(args.threads), "--prompt", args.prompt]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench: the peer failed")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(args):
    start = time.perf_counter()
    import torch
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, logging
    from transformers.image_utils import load_image
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.serve]
    processor = AutoProcessor.from_pretrained(args.model)
    model = PaliGemmaForConditionalGeneration.from_pretrained(args.model, dtype=dtype).eval()
    load = time.perf_counter() - start

    class Clock:
        """A streamer that notes when each token comes (the prompt comes first)."""

        def __init__(self):
            self.times = []

        def put(self, _):
            self.times.append(time.perf_counter())

        def end(self):
            pass

    for _ in sys.stdin:
        clock, start = Clock(), time.perf_counter()
        inputs = processor(images=load_image(args.image), text=args.prompt, return_tensors="pt").to(dtype)
        inputs.pop("labels", None)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=args.tokens, do_sample=False, streamer=clock)
        first, last, n = clock.times[1], clock.times[-1], len(clock.times) - 1
        ids = out[0, inputs["input_ids"].shape[1]:].tolist()
        print(json.dumps(dict(load_s=load, first_token_s=first - start, ids=ids, memory_mib=anonymous_mib(os.getpid()),
                              tokens_per_s=(n - 1) / (last - first) if n > 1 else 0.0)), flush=True)


def report(results):
    width = max(len(name) for name in results)
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in KEYS}
               for name, runs in results.items()}
    print(f"\n{'median':<{width}}  load s  first token s  tokens/s  memory MiB")
    for name, m in medians.items():
        print(f"{name:<{width}}{m['load_s']:8.2f}{m['first_token_s']:15.2f}{m['tokens_per_s']:10.2f}"
              f"{m['memory_mib']:12.0f}")
    ours = medians["libpaligemma"]
    for name, m in medians.items():
        if name != "libpaligemma":
            print(f"libpaligemma / {name}: first token {ours['first_token_s'] / m['first_token_s']:.2f}x the time, "
                  f"decode {ours['tokens_per_s'] / (m['tokens_per_s'] or 1):.2f}x the tokens a second, same ids: "
                  f"{all(r['ids'] == results['libpaligemma'][0]['ids'] for r in results[name])}")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("image", nargs="?", help="default: a drawn one of 640 x 480")
    args.add_argument("--prompt", default="caption en")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--tokens", type=int, default=16)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--peers", default="f32", help="f32, bf16, both with a comma, or none")
    args.add_argument("--build", default=os.environ.get("PG_BUILD", os.path.join(ROOT, "build")))
    args.add_argument("--serve", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.serve:
        return serve(args)
    with tempfile.TemporaryDirectory() as folder:
        if not args.image:
            from PIL import Image
            args.image = os.path.join(folder, "picture.png")
            Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(args.image)
        kinds = [k for k in args.peers.split(",") if k in ("f32", "bf16")]
        peers = {f"transformers {kind}": Peer(args, kind) for kind in kinds}
        results = {name: [] for name in ["libpaligemma", *peers]}
        for i in range(args.rounds + 1):  # the first round warms the page cache and is not counted
            for name in results:
                result = run_library(args) if name == "libpaligemma" else peers[name].run()
                print(f"{'warm-up' if i == 0 else f'round {i}'} {name}: "
                      + ", ".join(f"{k} {v:.2f}" for k, v in result.items() if k != "ids"), flush=True)
                if i:
                    results[name].append(result)
        for peer in peers.values():
            peer.close()
    report(results)


if __name__ == "__main__":
    main()
