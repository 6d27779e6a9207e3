# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Fixtures: the demo checkpoint, opened once, and images. Only numpy is needed; PIL, torch and transformers are used
where they are installed, and the tests that need them are skipped elsewhere."""
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
DEMO = ROOT / "examples" / "demo" / "model"
IMAGES = ROOT / "examples" / "demo" / "images"

import paligemma  # noqa: E402  (after the path)


@pytest.fixture(scope="session")
def folder():
    return str(DEMO)


@pytest.fixture(scope="session")
def image_path():
    """The path of an image that the demo model knows."""
    return IMAGES / "shapes.png"


@pytest.fixture(scope="session")
def model(folder):
    return paligemma.PaliGemmaForConditionalGeneration.from_pretrained(folder)


@pytest.fixture(scope="session")
def processor(folder):
    return paligemma.AutoProcessor.from_pretrained(folder)


@pytest.fixture
def pixels():
    """uint8 [40, 56, 3], the same for every test."""
    return np.random.default_rng(5).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.fixture(scope="session")
def hf():
    """transformers, quiet."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    transformers.logging.set_verbosity_error()
    return transformers


@pytest.fixture(scope="session")
def hf_processor(hf, folder):
    return hf.AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def hf_model(hf, folder):
    import torch

    torch.set_num_threads(2)
    return hf.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def pytest_terminal_summary(terminalreporter):
    """The line that tests/run.sh adds up."""
    count = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error")}
    terminalreporter.write_line(f"{count['passed']} passed, {count['failed'] + count['error']} failed")
