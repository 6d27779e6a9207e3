#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""examples/ray_batch.py on a local cluster of two nodes, one of which is killed in the middle.

    PALIGEMMA_LIBRARY=$PWD/build/lib PYTHONPATH=python python tests/examples/ray_cluster.py [--jobs 400]

Every job has to have one result, with the text that the model gives without Ray, whatever died; the weights are mapped by both
actors and in memory once. Exit status 77 where Ray Data is missing. Takes a minute or more, so CI leaves it out."""
import argparse
import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "demo" / "model"
IMAGES = sorted(path for path in (ROOT / "examples" / "demo" / "images").iterdir())
PROMPTS = ["segment red circle ; purple star ; yellow triangle", "caption en", "detect red circle ; star"]
SECONDS = 600


def expected_texts(jobs):
    """What the model says of each kind of job."""
    import paligemma

    texts = {}
    with paligemma.PaliGemmaForConditionalGeneration.from_pretrained(MODEL) as model:
        for job in jobs:
            key = job["image"], job["prompt"]
            if key not in texts:
                texts[key] = model.ask(job["image"], job["prompt"], max_new_tokens=128)
    return texts


def results(path):
    try:
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    except FileNotFoundError:
        return []


def wait(process, true, what):
    end = time.monotonic() + SECONDS
    while not true():
        assert process.poll() is None, f"ray_batch.py ended with {process.returncode} before {what}"
        assert time.monotonic() < end, f"{what}: not within {SECONDS} s"
        time.sleep(0.05)


def mapped(pid):
    """KiB of the weights that a process maps: resident, and its share where others have the same pages."""
    found = collections.Counter()
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", pathlib.Path(f"/proc/{pid}/smaps").read_text()):
        if "/model.safetensors" in mapping.split("\n")[0]:
            found.update({name: int(re.search(rf"^{name}: +(\d+)", mapping, re.M)[1]) for name in ("Rss", "Pss", "Private_Dirty")})
    return found


def check(path, jobs, texts):
    found = results(path)
    lines = collections.Counter(result["line"] for result in found)
    assert lines == {line: 1 for line in range(1, len(jobs) + 1)}, \
        f"lost or doubled: {[line for line in range(1, len(jobs) + 1) if lines[line] != 1][:10]}"
    assert sum("error" in result for result in found) == sum("error" in job for job in jobs)
    for result in found:
        job = jobs[result["line"] - 1]
        if "error" in result:
            assert job["error"] in result["error"], (result, job)
            continue
        assert result["id"] == job["id"] and result["text"] == texts[job["image"], job["prompt"]], (result, job)
    return collections.Counter(result.get("worker") for result in found)


def check_numa():
    """Two actors of a machine with two NUMA nodes take one each, and a third none."""
    sys.path.insert(0, str(ROOT / "examples"))
    import ray_batch

    with tempfile.TemporaryDirectory() as folder:
        for node, cpus in enumerate(("0-1", "0,1,5")):
            (pathlib.Path(folder) / f"node{node}").mkdir()
            (pathlib.Path(folder) / f"node{node}" / "cpulist").write_text(f"{cpus}\n")
        taken = [ray_batch.cpus_of_numa_node(folder) for _ in range(3)]
        ours = os.sched_getaffinity(0)
        assert taken[0][1] == {0, 1} & ours and taken[1][1] == {0, 1, 5} & ours and taken[2] is None, taken
        taken[0][0].close()
        assert ray_batch.cpus_of_numa_node(folder)[1] == {0, 1} & ours
    print("actors take a NUMA node each")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=400)
    n_jobs = parser.parse_args().jobs
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401
        import ray.data  # noqa: F401
        from ray.cluster_utils import Cluster
    except ImportError as error:
        print(f"skipped: {error} (pip install 'ray[data]')")
        return 77
    jobs = [{"id": f"job-{n}", "image": str(IMAGES[n % len(IMAGES)]), "prompt": PROMPTS[n % len(PROMPTS)]} for n in range(n_jobs)]
    texts = expected_texts(jobs)
    plain = {"prompt": "caption en", "image": str(IMAGES[0])}
    jobs += [{**plain, "image": "none.png", "error": "cannot open"}, {**plain, "image": str(MODEL / "config.json"), "error": "expected PNG"},
             {**plain, "prompt": "<image><image>", "error": "<image> tokens"}, {**plain, "prompt": 5, "error": "prompt is 5, expected a text"},
             {**plain, "task": "detect", "error": "task of one job is not followed"}]
    check_numa()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(cluster, pathlib.Path(folder), jobs, texts)
        finally:
            cluster.shutdown()
    return 0


def run(cluster, folder, jobs, texts):
    other = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    path = folder / "results.jsonl"
    command = [sys.executable, ROOT / "examples" / "ray_batch.py", MODEL, folder / "jobs.jsonl", path, "--threads", "1",
               "--batch", "4", "--address", cluster.address]

    process = subprocess.Popen(command)
    workers = lambda: {result["worker"] for result in results(path) if "worker" in result}  # noqa: E731
    wait(process, lambda: len(workers()) == 2, "two actors had results")
    by_node = {worker.split(":")[0]: int(worker.split(":")[1]) for worker in workers()}
    assert len(by_node) == 2 and any(other.node_id.startswith(node) for node in by_node), (by_node, other.node_id)
    print(f"an actor on each of two nodes: {by_node}")
    for pid in by_node.values():
        memory = mapped(pid)
        assert memory["Rss"] > 1000 and memory["Private_Dirty"] == 0, memory
        assert memory["Pss"] <= 0.55 * memory["Rss"], f"the weights are there more than once: {memory}"
        print(f"process {pid} maps {memory['Rss']} KiB of weights, of which its share is {memory['Pss']} KiB")

    n_before = len(results(path))
    assert n_before < len(jobs) / 2, "all was done before a node could be killed: more --jobs"
    cluster.remove_node(other, allow_graceful=False)
    print(f"a node was killed after {n_before} of {len(jobs)} results")
    assert process.wait(SECONDS) == 1  # for the errors
    found = check(path, jobs, texts)
    print(f"all {len(jobs)} jobs have one result: {dict(found)}")

    # and the program itself killed, in the middle of a line at that
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:len(jobs) // 2]) + lines[-1][:20])
    process = subprocess.Popen(command)
    wait(process, lambda: len(results(path)) > len(jobs) // 2, "it went on")
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_before = len(results(path))
    assert subprocess.run(command).returncode == 1
    check(path, jobs, texts)
    print(f"killed after {n_before} results, it went on: all {len(jobs)} jobs have one result")


if __name__ == "__main__":
    sys.exit(main())
