#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Many images on many machines: Ray Data hands batches of jobs to an actor on each machine, which maps the weights.

    ray_batch.py MODEL JOBS.jsonl RESULTS.jsonl                        this machine, as a cluster of one
    ray_batch.py MODEL JOBS.jsonl RESULTS.jsonl --address auto         the cluster that this machine belongs to
    ray_batch.py ... --actors 8 --numa                                 an actor for each NUMA node, bound to its CPUs

JOBS and RESULTS are those of `paligemma batch`, the tool for one machine: a job is {"image": "cat.jpg", "prompt": "caption
en", "id": 7}, a result has line, id, image, prompt, text and worker (Ray's node and the process), or error. Not here: max_new_tokens and task
of a job, ids and stop of a result. Images are read by the actors, so their paths (relative
to JOBS) and MODEL lead to the same files on every machine. Results are written as they come; started again with the same RESULTS it goes
on with the lines that are not there. When a machine goes away, Ray gives its jobs to others, and each job has one result all the same: this
process alone writes them. Exit status: 0, 1 when results are errors, 2 when nothing could be done.

Needs the extra `ray` (in a clone: pip install ".[ray]") on every machine. docs/CLUSTER.md says what a million images cost."""
import argparse
import fcntl
import json
import os
import pathlib
import sys
import tempfile
import time

try:
    import ray
    import ray.data
except ImportError as error:
    print(f'ray_batch.py needs Ray Data ({error}); in a clone: pip install ".[ray]"', file=sys.stderr)
    sys.exit(2)

BATCH = 16  # rows of int8 and int4 weights that share each reading of the weights


def cpus_of_numa_node(folder="/sys/devices/system/node"):
    """The CPUs of a NUMA node of this machine that no other actor has; None: there is one node, or all are taken. The lock is
    held by a file that stays open, so that it ends with the process, however that ends."""
    lists = sorted(pathlib.Path(folder).glob("node[0-9]*/cpulist"))
    for path in lists if len(lists) > 1 else ():
        lock = open(os.path.join(tempfile.gettempdir(), f"paligemma-{os.getuid()}-{path.parent.name}.lock"), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        ends = [part.split("-") for part in path.read_text().strip().split(",")]
        return lock, {cpu for part in ends for cpu in range(int(part[0]), int(part[-1]) + 1)} & os.sched_getaffinity(0)
    return None


class Unusable(Exception):
    """Nothing can be done with what was given; the text says why."""


class Answer:
    """An actor: opens the model once, and answers batches of jobs."""

    def __init__(self, model, threads, numa, weights, max_new_tokens):
        self.place = cpus_of_numa_node() if numa else None
        if self.place:
            os.sched_setaffinity(0, self.place[1])
        import paligemma  # here, as the pool of threads is made for the CPUs that are left

        # Weights are mapped: all actors of a machine read one copy, which is that of the system's page cache.
        self.model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(model, weights=weights, n_threads=threads)
        self.processor = paligemma.AutoProcessor.from_pretrained(self.model.name_or_path)
        self.max_new_tokens = max_new_tokens
        self.worker = f"{ray.get_runtime_context().get_node_id()[:12]}:{os.getpid()}"

    def __call__(self, batch):
        """batch: {"line": [n], "path": [n], "prompt": [n]} -> {"line", "text", "error", "worker"}, an error "" where there is a text."""
        n = len(batch["line"])
        texts, errors, images = [""] * n, [""] * n, {}
        for row in range(n):
            try:  # each for itself, so that one that is broken takes none with it
                prepared = self.processor(str(batch["path"][row]), str(batch["prompt"][row]), return_tensors="np", max_tokens=8192)
                images[row] = prepared["pixel_values"]
            except (OSError, ValueError, NotImplementedError) as error:
                errors[row] = str(error)
        rows = list(images)
        if rows:
            import numpy as np

            inputs = self.processor(text=[str(batch["prompt"][row]) for row in rows], image_counts=[1] * len(rows), padding=True,
                                    return_tensors="np")
            ids = self.model.generate(**inputs, pixel_values=np.concatenate([images[row] for row in rows]),
                                      max_new_tokens=self.max_new_tokens)
            new = self.processor.batch_decode(ids[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
            for row, text in zip(rows, new):
                texts[row] = text
        return {"line": batch["line"], "text": texts, "error": errors, "worker": [self.worker] * n}


def read_jobs(path, prompt):
    """-> {line: job} of JOBS, and {line: (its id or None, why)} of lines that are none."""
    jobs, bad = {}, {}
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            job = None
            try:
                job = json.loads(text)
                if not isinstance(job, dict):
                    raise ValueError(f"a JSON {type(job).__name__}, expected an object")
                for name in ("image", "prompt"):
                    job.setdefault("prompt", prompt)
                    if not isinstance(job.get(name), str):
                        raise ValueError(f"{name} is {job.get(name)!r}, expected a text" +
                                         (", here or as --prompt" if name == "prompt" else ""))
                for name in ("max_new_tokens", "task"):
                    if name in job:
                        raise ValueError(f"{name} of one job is not followed here, but by `paligemma batch`; leave it out")
                jobs[line] = job
            except (ValueError, RecursionError) as error:
                bad[line] = job.get("id") if isinstance(job, dict) else None, str(error)
    return jobs, bad


def open_results(path):
    """RESULTS, for this process alone as long as it is open."""
    file = open(path, "a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Unusable(f"{path}: another program is writing to it") from None
    return file


def done_before(file, jobs):
    """{line: whether it is an error} of the results that are there, after cutting off what a kill left of the last one."""
    done, whole = {}, 0
    file.seek(0)
    for text in file:
        try:
            if not text.endswith(b"\n"):
                if text[:8] != b'{"line":'[:len(text)]:
                    raise ValueError("its last line has no end")
                file.truncate(whole)
                break
            whole += len(text)
            result = json.loads(text)
            line, job = result["line"], jobs.get(result["line"])
            for name in ("image", "prompt"):
                if job and name in result and result[name] != job[name]:
                    raise ValueError(f"line {line} has another {name}, {result[name]!r}")
            done[line] = "error" in result
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(f"{file.name}: found what is no result of these jobs ({error}); name another file for RESULTS") from None
    return done


def run(args):
    jobs, bad = read_jobs(args.jobs, args.prompt)
    file = open_results(args.results)
    done = done_before(file, jobs)
    left = [line for line in jobs if line not in done]
    folder, total = os.path.dirname(os.path.abspath(args.jobs)), len(jobs) + len(bad)
    n_errors, begin, written = sum(done.values()), time.monotonic(), 0
    print(f"{total} jobs, {len(done)} of them done before", file=sys.stderr)
    with file:

        def write(line, result):
            nonlocal n_errors, written
            if line in done:
                raise RuntimeError(f"line {line} has a second result")
            done[line] = "error" in result
            n_errors, written = n_errors + done[line], written + 1
            file.write(json.dumps({"line": line, **result}).encode() + b"\n")
            file.flush()

        for line, (name, error) in bad.items():
            if line not in done:
                write(line, {**({} if name is None else {"id": name}), "error": error})
        if left:
            ray.init(address=args.address, ignore_reinit_error=True, log_to_driver=args.verbose)
            ray.data.DataContext.get_current().enable_progress_bars = False
            nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
            items = [{"line": line, "path": os.path.join(folder, jobs[line]["image"]), "prompt": jobs[line]["prompt"]} for line in left]
            answers = ray.data.from_items(items, override_num_blocks=-(-len(items) // args.batch)).map_batches(
                Answer, batch_size=args.batch,
                fn_constructor_args=(args.model, args.threads, args.numa, args.weights, args.max_new_tokens),
                # One CPU by Ray's count, though it takes the machine's: so it can start again on a machine that has one already.
                compute=ray.data.ActorPoolStrategy(size=args.actors or nodes), num_cpus=1)
            for row in answers.iter_rows():
                line = int(row["line"])
                job = jobs[line]
                result = {**({"id": job["id"]} if "id" in job else {}), "image": job["image"], "prompt": job["prompt"],
                          **({"error": row["error"]} if row["error"] else {"text": row["text"]}), "worker": row["worker"]}
                write(line, result)
                if written % 100 == 0:
                    rate = written / (time.monotonic() - begin)
                    print(f"{len(done)} of {total}, {rate:.2f} a second, {(total - len(done)) / rate:.0f} s left", file=sys.stderr)
    missing = [line for line in (*jobs, *bad) if line not in done]
    if missing:
        raise RuntimeError(f"{len(missing)} jobs have no result, line {missing[0]} first; start it again for them")
    print(f"{total} jobs, {n_errors} errors, {time.monotonic() - begin:.1f} s", file=sys.stderr)
    return 1 if n_errors else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("jobs")
    parser.add_argument("results")
    parser.add_argument("--address", help="of a Ray cluster, such as auto; default: this machine alone")
    parser.add_argument("--actors", type=int, default=0, help="default: one for each machine")
    parser.add_argument("--numa", action="store_true", help="bind each actor to the CPUs of a NUMA node of its own")
    parser.add_argument("--threads", type=int, default=0, help="of each actor; default: the CPUs that it may use")
    parser.add_argument("--batch", type=int, default=BATCH, help="jobs that an actor answers together, and what is done again at most")
    parser.add_argument("--weights", choices=("stored", "int8", "int4"), default="stored",
                        help="quantize while opening; better a converted folder, which is mapped and so shared")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--prompt", help="of jobs that have none")
    parser.add_argument("--verbose", action="store_true", help="what the actors print")
    args = parser.parse_args()
    for name, least in (("actors", 0), ("threads", 0), ("batch", 1), ("max_new_tokens", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected {least} or more")
    try:
        return run(args)
    except (OSError, Unusable) as error:
        print(f"ray_batch.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
