# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""PaliGemma on a CPU through libpaligemma, in the shape of transformers.

    from paligemma import AutoProcessor, PaliGemmaForConditionalGeneration

    model = PaliGemmaForConditionalGeneration.from_pretrained(model_id)
    processor = AutoProcessor.from_pretrained(model_id)
    inputs = processor(raw_image, "caption en", return_tensors="np")
    output = model.generate(**inputs, max_new_tokens=20)
    print(processor.decode(output[0], skip_special_tokens=True))

The C library is looked for in $PALIGEMMA_LIBRARY (its path or folder; when set, nowhere else), then beside this package
in lib/, then where the system's loader looks. Errors are ValueError, OSError (FileNotFoundError), MemoryError,
NotImplementedError and Cancelled, with the library's own words.
"""
from pathlib import Path as _Path

from ._convert import convert
from ._errors import Cancelled
from ._library import library_path, version
from ._run import CancelFlag
from .auto import AutoConfig, AutoModelForImageTextToText, AutoModelForVision2Seq, AutoProcessor, AutoTokenizer
from .colpali import ColPaliForRetrieval, ColPaliForRetrievalOutput, ColPaliProcessor
from .config import GenerationConfig, PaliGemmaConfig
from .model import Features, PaliGemmaForConditionalGeneration
from .outputs import BatchFeature, ModelOutput, PaliGemmaCausalLMOutput, RowReport
from .processor import PaliGemmaProcessor
from .tokenizer import PaliGemmaTokenizer

__version__ = (_Path(__file__).parent / "VERSION").read_text().strip()
__all__ = [
    "AutoConfig", "AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoProcessor", "AutoTokenizer",
    "BatchFeature", "CancelFlag", "Cancelled", "ColPaliForRetrieval", "ColPaliForRetrievalOutput", "ColPaliProcessor", "Features", "GenerationConfig", "ModelOutput", "PaliGemmaCausalLMOutput",
    "PaliGemmaConfig", "PaliGemmaForConditionalGeneration", "PaliGemmaProcessor", "PaliGemmaTokenizer", "RowReport",
    "convert", "library_path", "version",
]
