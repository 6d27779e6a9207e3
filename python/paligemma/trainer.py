# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Trainer: LoRA adapters and whole modules, trained on the CPU over a model that stays as it is.

    trainer = paligemma.Trainer(model, r=16, lora_alpha=16, learning_rate=2e-4, max_steps=300)
    trainer.train(rows, output_dir="my-lora")          # rows: {"image": ..., "prefix": ..., "suffix": ...}
    model.load_adapter("my-lora")
"""
from __future__ import annotations

import ctypes
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from . import _inputs, _library as c
from ._adapters import AdapterMethods
from ._errors import Cancelled
from ._handle import Handle, view
from ._run import CancelFlag, interruptible
from ._sampling import number, whole
from ._training import Batches, collator, train
from .adapters import PeftModel
from .colpali import ColPaliForRetrieval
from .model import PaliGemmaForConditionalGeneration

__all__ = ["TrainParameter", "TrainStep", "Trainer"]

_SCHEDULES = {"constant": c.SCHEDULE_CONSTANT, "constant_with_warmup": c.SCHEDULE_CONSTANT,
              "linear": c.SCHEDULE_LINEAR, "cosine": c.SCHEDULE_COSINE}
# Fields of pg_trainer_options, as the arguments here call them.
_ARGUMENTS = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "beta1": "adam_beta1",
              "beta2": "adam_beta2", "epsilon": "adam_epsilon", "max_gradient_norm": "max_grad_norm",
              "total_steps": "max_steps", "accumulation": "gradient_accumulation_steps"}


@dataclass(frozen=True)
class TrainStep:
    """What a call of Trainer.step() did."""

    loss: float  # mean over the labels of this call
    grad_norm: float  # of the update, before it was limited; 0.0 without one
    learning_rate: float  # of the update; 0.0 without one
    step: int  # updates so far
    updated: bool  # whether the call ended with one
    n_labels: int  # of this call
    n_tokens: int  # that were run, without padding


@dataclass(frozen=True)
class TrainParameter:
    """A parameter in training: arrays on the trainer's own memory, to be read, which the next call changes."""

    value: np.ndarray  # f32
    grad: np.ndarray  # f32; after an update the mean over its labels, as limited; before it, the sum so far
    decays: bool  # whether weight_decay is applied to it


class Trainer:
    """Trains an adapter over an opened model; step() by step(), or train() over a data set. close() or `with` ends it.

    The model's weights, stored, int8 or int4, stay as they are, and the model itself goes on as before: load_adapter()
    of a saved folder brings into use what was learned. Calls come one at a time; Ctrl-C stops one within tens of
    milliseconds and leaves the parameters as they were before it.
    """

    def __init__(
        self,
        model: Any,
        *,
        r: int = 8,
        lora_alpha: float = 8,
        lora_dropout: float = 0.0,
        target_modules: str | Sequence[str] | None = None,
        modules_to_save: Sequence[str] | None = None,
        use_rslora: bool = False,
        learning_rate: float = 2e-4,
        lr_scheduler_type: str = "linear",
        warmup_steps: int = 0,
        max_steps: int = 0,
        weight_decay: float = 0.0,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        max_grad_norm: float = 1.0,
        gradient_accumulation_steps: int = 1,
        gradient_checkpointing: bool = False,
        seed: int = 0,
        base_model_name_or_path: str | os.PathLike[str] | None = None,
        n_threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        cancel: CancelFlag | None = None,
        _folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """The names are those of PEFT's LoraConfig and transformers' TrainingArguments.

        model: a PaliGemmaForConditionalGeneration, or a PeftModel on one, without adapters in use.
        r (0: no LoRA, modules_to_save alone), lora_alpha, lora_dropout, use_rslora: of LoRA.
        target_modules: what gets LoRA. As in PEFT a str is a regular expression that matches a whole name, or
            "all-linear", all linear layers but the head; a list has names or their ends, and "q_proj" means those of the
            vision encoder, too. None: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj of the decoder.
        modules_to_save: names, or their ends, of what is trained whole, with all that is within, such as
            ["multi_modal_projector"].
        learning_rate: the highest; lr_scheduler_type: "linear", "cosine", "constant" or "constant_with_warmup";
            warmup_steps: updates in which it grows. max_steps: updates of the whole training, where the schedule ends
            and train() stops; 0: the learning rate stays at its highest, and train() counts epochs.
        weight_decay, adam_beta1, adam_beta2, adam_epsilon: of AdamW. max_grad_norm: 0 limits nothing.
        gradient_accumulation_steps: calls of step() for an update.
        gradient_checkpointing: less memory, a third more time, the same bits.
        seed: of the first values, of dropout and of the order of train().
        base_model_name_or_path: what the adapter's config names as its base; default: the model's folder.
        n_threads: default, the model's. progress(done, total): layers of a call, there and back; what it raises ends the
            call and comes back to the caller. cancel: of all calls.
        Raises ValueError (a number out of its range, names that fit no module), NotImplementedError (a module that cannot
        be trained, an adapter in use), MemoryError.
        """
        self._model = _base_of(model)
        self._cancel = cancel or CancelFlag()
        self._raised: list[BaseException] = []  # by progress
        self._report = _reporter(progress, self._raised)  # lives as long as the handle
        self._handle = Handle("trainer")
        self.max_steps = whole("max_steps", max_steps)
        self.gradient_accumulation_steps = whole("gradient_accumulation_steps", gradient_accumulation_steps)
        self.seed = whole("seed", seed, 0)
        self.log_history: list[dict[str, Any]] = []  # of train(): what it returns
        numbers = {
            "alpha": ("lora_alpha", lora_alpha), "dropout": ("lora_dropout", lora_dropout),
            "learning_rate": ("learning_rate", learning_rate), "weight_decay": ("weight_decay", weight_decay),
            "beta1": ("adam_beta1", adam_beta1), "beta2": ("adam_beta2", adam_beta2),
            "epsilon": ("adam_epsilon", adam_epsilon), "max_gradient_norm": ("max_grad_norm", max_grad_norm)}
        warmup_steps = whole("warmup_steps", warmup_steps)
        schedule = _schedule(lr_scheduler_type, warmup_steps)
        base = self._model._folder if base_model_name_or_path is None else base_model_name_or_path
        with _names_of_python():
            options = c.TrainerOptions(
                flags=(c.TRAIN_RSLORA if use_rslora else 0) | (c.TRAIN_CHECKPOINT if gradient_checkpointing else 0),
                rank=whole("r", r), schedule=schedule, target_modules=_targets(target_modules),
                modules_to_save=_names("modules_to_save", modules_to_save), warmup_steps=warmup_steps,
                total_steps=self.max_steps, accumulation=self.gradient_accumulation_steps, seed=self.seed,
                base=os.fsencode(base), n_threads=self._model.n_threads if n_threads is None else n_threads,
                progress=self._report, cancel=self._cancel.pointer,
                **{field: number(*value, float) for field, value in numbers.items()})
            self._open(options, None if _folder is None else os.fsdecode(_folder))
        n_updates = ctypes.c_int64()
        c.check(c.lib.pg_trainer_get_step(self._handle.pointer, ctypes.byref(n_updates)))
        self._n_updates = n_updates.value
        self._n_calls = 0  # of step() since the last update

    @classmethod
    def resume(cls, model: Any, folder: str | os.PathLike[str], **options: Any) -> Trainer:
        """A trainer that goes on, to the bit, where the one was that save_pretrained() wrote to `folder`.

        options: as they were; those of the optimizer, seed, n_threads, progress and cancel may differ.
        Raises FileNotFoundError (no state there), OSError (damaged), ValueError (of another model or other modules)."""
        return cls(model, **options, _folder=folder)

    def _open(self, options: c.TrainerOptions, folder: str | None) -> None:
        adapters = self._model._adapters
        if adapters.entries and adapters.enabled and adapters.active:
            raise NotImplementedError(f"the model has the adapter {adapters.active[0]!r} in use, expected none: "
                                      "model.disable_adapters() trains over the base, and paligemma.convert(..., "
                                      "adapters=) makes a model that has it in its weights")

        def work() -> None:
            out = ctypes.byref(self._handle.pointer)
            with adapters.base.use() as model:
                if folder is None:
                    c.check(c.lib.pg_trainer_create(model, ctypes.byref(options), out))
                else:
                    c.check(c.lib.pg_trainer_resume(model, os.fsencode(folder), ctypes.byref(options), out))

        self._run(work)

    def _run(self, work: Callable[[], None]) -> None:
        """A call of the library that has the trainer's cancel flag and progress."""
        self._raised.clear()
        try:
            interruptible(work, self._cancel)
        except Cancelled:
            if self._raised:
                raise self._raised.pop() from None
            raise
        except BaseException as error:
            if not hasattr(error, "status"):  # of no call but of a signal, for which interruptible() requested it
                self._cancel.clear()
            raise

    # -- closing

    def close(self) -> None:
        """Frees the parameters, those that are not saved too; later calls raise ValueError."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def __enter__(self) -> Trainer:
        self._handle.check_open()
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    # -- a step

    def step(self, inputs: Mapping[str, Any]) -> TrainStep:
        """Learns from one batch: gradients of the mean loss over all its labels, and with every
        gradient_accumulation_steps-th call an update, over all labels of its calls.

        inputs: what processor(images, text, suffix, ...) returned, ours or transformers', or any dictionary of what
        model(**inputs) takes, with labels. Rows are run one by one, so that memory is that of the longest.
        Raises ValueError (no labels; shapes), FloatingPointError (the loss or a gradient is not finite),
        NotImplementedError (rows of several texts). After an error the parameters are as before, and what was
        accumulated is dropped."""
        result = self._learn(c.lib.pg_trainer_step, inputs)
        return TrainStep(result.loss, result.gradient_norm, result.learning_rate, result.step, bool(result.updated),
                         result.n_labels, result.n_tokens)

    def evaluate(self, inputs: Mapping[str, Any]) -> float:
        """The loss of a batch, without dropout; nothing changes. inputs and errors: as step()'s."""
        return self._evaluated(inputs)[0]

    def _evaluated(self, inputs: Mapping[str, Any]) -> tuple[float, int]:
        """-> the mean loss, and over how many labels."""
        result = self._learn(c.lib.pg_trainer_evaluate, inputs)
        return result.loss, result.n_labels

    def _learn(self, function: Any, inputs: Mapping[str, Any]) -> c.TrainResult:
        self._handle.check_open()
        steps = function is c.lib.pg_trainer_step
        given, result, status = self._inputs(inputs), c.TrainResult(), c.ERROR_STATE

        def work() -> None:
            nonlocal status
            with self._handle.use() as trainer, given.use() as arrays:
                status = function(trainer, arrays, ctypes.byref(result))
                c.check(status)

        try:
            self._run(work)
        except BaseException as error:
            if getattr(error, "status_name", "") == "PG_ERROR_FORMAT":  # of numbers here, not of a file
                raise FloatingPointError(str(error)) from None
            raise
        finally:
            given.close()
            if steps and result.n_labels > 0:  # filled on success alone, also where Ctrl-C came just then
                self._n_updates, self._n_calls = result.step, 0 if result.updated else self._n_calls + 1
            elif steps and status != c.ERROR_STATE:  # which, like no call at all, changes nothing
                self._n_calls = 0
        return result

    def _inputs(self, inputs: Mapping[str, Any]) -> Handle:
        try:
            arrays = dict(inputs)
        except (TypeError, ValueError):
            raise TypeError(f"inputs is a {type(inputs).__name__}, expected what a processor returns, or a dictionary of "
                            "arrays") from None
        unknown = arrays.keys() - set(_inputs.NAMES)
        if unknown:
            raise TypeError(f"inputs has {sorted(map(str, unknown))[0]!r}, expected {', '.join(_inputs.NAMES)}")
        return self._model._inputs(_inputs.checked(arrays))

    @property
    def global_step(self) -> int:
        """Updates so far, those before a resume() included."""
        return self._n_updates

    # -- what is learned

    def parameters(self) -> dict[str, TrainParameter]:
        """The parameters by their names in adapter_model.safetensors. The arrays keep the trainer's memory, also when
        it is closed."""
        found, n = {}, c.c_size_t()
        with self._handle.use() as pointer:
            c.check(c.lib.pg_trainer_count_parameters(pointer, ctypes.byref(n)))
            for i in range(n.value):
                parameter = c.Parameter()
                c.check(c.lib.pg_trainer_get_parameter(pointer, i, ctypes.byref(parameter)))
                shape = tuple(parameter.shape[:parameter.n_dims])
                value, grad = (view(self._handle, ctypes.cast(values, c.c_void_p).value, shape, np.dtype(np.float32))
                               for values in (parameter.value, parameter.gradient))
                value.flags.writeable = grad.flags.writeable = False
                found[parameter.name.decode()] = TrainParameter(value, grad, bool(parameter.decays))
        return found

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes adapter_config.json and adapter_model.safetensors, which model.load_adapter() and PEFT open, and
        trainer_state.safetensors for resume(). Whenever the process is killed, the folder resumes from this state or
        the one before. Raises OSError (the disk is full), ValueError (a file has the name)."""
        path = os.path.abspath(os.fsdecode(save_directory))
        with self._handle.use() as pointer:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            c.check(c.lib.pg_trainer_save(pointer, os.fsencode(path)))

    # -- a whole training

    def train(
        self,
        dataset: Iterable[Any],
        processor: Any = None,
        *,
        batch_size: int = 8,
        num_train_epochs: int = 3,
        shuffle: bool = True,
        data_collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
        eval_dataset: Iterable[Any] | None = None,
        eval_steps: int = 0,
        output_dir: str | os.PathLike[str] | None = None,
        save_steps: int = 0,
        callback: Callable[[dict[str, Any]], Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Trains until max_steps updates are made, or without max_steps for num_train_epochs passes over the data; the
        last update may reach into the next pass.

        dataset: of {"image": ..., "prefix": "caption en", "suffix": "a red circle"}, images of any kind that the
            processor takes, or a list of them. A list, or what has len() and [i] such as a data set of Hugging Face's, is
            shuffled anew for each pass, as seed says; other iterables come in their order, an iterator once,
            and raise ValueError, after all is saved, where they end within the calls of an update.
        processor: default, the one in the model's folder. data_collator(rows of the data set) in its place -> inputs.
        eval_dataset: its loss is worked out after every eval_steps updates, 0: at the end alone.
        output_dir: save_pretrained() after every save_steps updates, at the end, and at Ctrl-C, which then raises
            KeyboardInterrupt. A trainer that resumes from there goes on behind the rows that it has seen: with the same
            data, batch_size and seed to the bit.
        callback(entry): with each entry of the history; what returns True ends the training.

        -> log_history, as transformers has it: {"step", "loss", "grad_norm", "learning_rate"} of each update and
        {"step", "eval_loss"}, which later calls continue.
        """
        collate = data_collator or collator(processor or self._model._folders_processor())
        batch_size = whole("batch_size", batch_size, 1)
        batches = Batches(dataset, batch_size, self.seed if shuffle else None)
        held = None if eval_dataset is None else Batches(eval_dataset, batch_size, None)
        return train(self, batches, held, collate, 0 if self.max_steps else whole("num_train_epochs", num_train_epochs, 1),
                     whole("eval_steps", eval_steps, 0), whole("save_steps", save_steps, 0),
                     None if output_dir is None else os.fsdecode(output_dir), callback)


def _base_of(model: Any) -> PaliGemmaForConditionalGeneration:
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(model, AdapterMethods):
        raise TypeError(f"model is a {type(model).__module__}.{type(model).__name__}, expected what "
                        "PaliGemmaForConditionalGeneration.from_pretrained() returns")
    if isinstance(model, ColPaliForRetrieval) or not isinstance(model, PaliGemmaForConditionalGeneration):
        raise NotImplementedError(f"model is a {type(model).__name__}, expected a PaliGemmaForConditionalGeneration: "
                                  "what is learned are texts, and embeddings have no labels")
    return model


def _schedule(name: str, warmup_steps: int) -> int:
    if name not in _SCHEDULES:
        raise ValueError(f"lr_scheduler_type is {name!r}, expected one of {', '.join(map(repr, _SCHEDULES))}")
    if name == "constant" and warmup_steps:  # transformers leaves the warmup out, without a word
        raise ValueError(f"lr_scheduler_type is \"constant\" beside warmup_steps {warmup_steps}, expected "
                         "\"constant_with_warmup\"")
    return _SCHEDULES[name]


def _names(argument: str, names: Sequence[str] | None) -> bytes | None:
    """A list of names as the library takes it."""
    if names is None:
        return None
    if isinstance(names, (str, bytes)):
        raise TypeError(f"{argument} is {names!r}, expected a list of names")
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.]+", name):
            raise ValueError(f"{argument} has {name!r}, expected names of modules, such as \"q_proj\"")
    if not names and argument == "target_modules":
        raise ValueError("target_modules is empty, expected names of modules; r=0 trains modules_to_save alone")
    return ",".join(names).encode()


def _targets(targets: str | Sequence[str] | None) -> bytes | None:
    if isinstance(targets, str):
        return (targets if targets == "all-linear" else "regex:" + targets).encode()
    return _names("target_modules", targets)


def _reporter(progress: Callable[[int, int], None] | None, raised: list[BaseException]) -> Any:
    """A pg_progress_fn. It must hold no trainer, or neither would ever be freed but by the garbage collector."""
    if progress is None:
        return c.ProgressFn()
    if not callable(progress):
        raise TypeError(f"progress is a {type(progress).__name__}, expected progress(done, total)")

    @c.ProgressFn
    def report(user: object, phase: int, done: int, total: int) -> int:
        if not raised:
            try:
                progress(done, total)
            except BaseException as error:  # must not leave a callback of C
                raised.append(error)
        return len(raised)

    return report


@contextmanager
def _names_of_python() -> Iterator[None]:
    """Messages about a field of the options name the argument; a malformed pattern is one of them, and no file."""
    try:
        yield
    except OSError as error:
        if str(error).startswith("target_modules: "):
            raise ValueError(str(error)) from None
        raise
    except ValueError as error:
        found = re.match(r"(\w+) is ", str(error))
        if found and found[1] in _ARGUMENTS:
            error.args = (_ARGUMENTS[found[1]] + str(error)[found.end(1):],)
        raise
