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
from ._errors import Busy, Cancelled
from ._library import library_path, version
from ._pipeline import ImageTextToTextPipeline, pipeline
from ._run import CancelFlag
from .adapters import PeftConfig, PeftModel
from .answers import Answer, AnswerObject, Detections, MaskDecoder, parse_answer
from .ask import AskedImage
from .auto import (AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoModelForVision2Seq, AutoProcessor,
                   AutoTokenizer)
from .colpali import ColPaliForRetrieval, ColPaliForRetrievalOutput, ColPaliProcessor
from .config import GenerationConfig, PaliGemmaConfig
from .frames import Frame
from .image_processor import SiglipImageProcessor, SiglipImageProcessorFast, SiglipImageProcessorPil
from .model import Features, PaliGemmaForConditionalGeneration
from .outputs import BatchFeature, GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput, ModelOutput, PaliGemmaCausalLMOutput, RowReport
from .processor import PaliGemmaProcessor
from .score import Score
from ._encoding import BatchEncoding
from .tokenizer import AddedToken, GemmaTokenizer, GemmaTokenizerFast, PaliGemmaTokenizer, PreTrainedTokenizerFast
from .trainer import Trainer, TrainParameter, TrainStep
from .worker import Worker, WorkerEvent

__version__ = (_Path(__file__).parent / "VERSION").read_text().strip()
__all__ = [
    "AddedToken", "Answer", "AnswerObject", "AskedImage", "AutoConfig", "AutoImageProcessor",
    "AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoProcessor", "AutoTokenizer", "BatchEncoding", "BatchFeature", "Busy", "CancelFlag",
    "Cancelled", "ColPaliForRetrieval", "ColPaliForRetrievalOutput", "ColPaliProcessor", "Detections", "Features", "Frame",
    "GemmaTokenizer", "GemmaTokenizerFast", "GenerateBeamDecoderOnlyOutput", "GenerateDecoderOnlyOutput", "GenerationConfig",
    "ImageTextToTextPipeline", "MaskDecoder", "ModelOutput", "PaliGemmaCausalLMOutput", "PaliGemmaConfig",
    "PaliGemmaForConditionalGeneration", "PaliGemmaProcessor", "PaliGemmaTokenizer", "PeftConfig", "PeftModel",
    "PreTrainedTokenizerFast", "RowReport", "Score", "SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil",
    "TrainParameter", "TrainStep", "Trainer", "Worker", "WorkerEvent", "convert",
    "library_path", "parse_answer", "pipeline", "version",
]
