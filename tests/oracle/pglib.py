# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""libpaligemma for the scripts of this folder: every call takes and gives numpy arrays.

The binding is the Python package's, python/paligemma/_library.py, which declares structs, functions and constants. Its
names serve here too: pglib.ENCODE_EXIF is PG_ENCODE_EXIF, pglib.Batch is pg_batch. Library(BUILD) loads the library;
without it the first use of such a name does, from $PALIGEMMA_LIBRARY, $PG_BUILD or ./build.
"""
import contextlib
import ctypes
import functools
import os
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Error(Exception):
    """A call of the library failed; `status` is its pg_status."""

    def __init__(self, what, status):
        super().__init__(what)
        self.status = status


def find_library(build):
    """The library of a build folder, or the path of the library itself."""
    path = os.path.join(build, "lib", "libpaligemma.so")
    return os.path.abspath(path if os.path.exists(path) else build)


@functools.cache
def binding():
    """paligemma._library. The package loads the library when it is imported, so no script imports it at its top."""
    os.environ.setdefault("PALIGEMMA_LIBRARY", find_library(os.environ.get("PG_BUILD", os.path.join(ROOT, "build"))))
    sys.path.insert(0, os.path.join(ROOT, "python"))
    from paligemma import _library
    return _library


def __getattr__(name):
    if name.startswith("_"):  # what Python asks every module for
        raise AttributeError(name)
    return getattr(binding(), name)


def padding(name):
    """PG_PADDING_* of "longest", "max_length" or "none"."""
    return getattr(binding(), f"PADDING_{name.upper()}")


def side(name):
    """PG_SIDE_* of "left", "right" or None: the tokenizer's."""
    return getattr(binding(), f"SIDE_{(name or 'default').upper()}")


def cpu_masks():
    """{what the tables call an instruction set: the PG_CPU_* bits}"""
    masks = binding().CPU_MASKS
    return {"plain C": masks["baseline"], "AVX2": masks["avx2"], "AVX-512": masks["avx512"]}


@contextlib.contextmanager
def _errors_of(name):
    """What the package makes of a failed pg_status becomes an Error that names the function."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "status_name"):
            raise
        raise Error(f"{name}: {error}", error.status) from None


class Library:
    def __init__(self, build):
        path = find_library(build)
        if binding.cache_info().currsize and os.environ["PALIGEMMA_LIBRARY"] != path:
            raise Error(f"{os.environ['PALIGEMMA_LIBRARY']} is loaded already, {path} is asked for", 0)
        os.environ["PALIGEMMA_LIBRARY"] = path
        self.version = binding().version
        from paligemma import _handle, _inputs  # importable now
        self.Handle, self.array, self.create_inputs = _handle.Handle, _handle.array, _inputs.create

    def call(self, name, *args):
        """-> the pg_status, PG_OK or an event; raises Error."""
        with _errors_of(name):
            return binding().check(getattr(binding().lib, name)(*args))

    def make_inputs(self, **arrays):
        """pg_inputs_create() from arrays by name. -> Inputs"""
        inputs = Inputs(self)
        kinds = {name: np.float32 if name in ("inputs_embeds", "pixel_values") else np.int64 for name in arrays}
        with _errors_of("pg_inputs_create"):
            inputs.handle = self.create_inputs({name: np.ascontiguousarray(array, kinds[name])
                                                for name, array in arrays.items()})
        return inputs


class _Handle:
    """One pg_x*, closed at the end of `with`."""

    def __init__(self, library, kind):
        self.library, self.handle = library, library.Handle(kind)

    @property
    def pointer(self):
        return self.handle.pointer

    def open(self, name, *args):
        """Calls a function whose last argument is where the handle goes."""
        self.library.call(name, *args, ctypes.byref(self.pointer))

    def close(self):
        self.handle.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _tensor(self, getter, *args):
        """A copy of the array that a pg_x_get_*() gives."""
        with _errors_of(getter):
            return self.library.array(self.handle, getattr(binding().lib, getter), *args).copy()


class _Named(_Handle):
    """A handle with tensors by name."""

    def __getitem__(self, name):
        return self._tensor(f"pg_{self.handle.name}_get_tensor", name.encode())

    def get(self, name):
        """None when there is no such tensor."""
        try:
            return self[name]
        except Error as error:
            if error.status != binding().ERROR_NOT_FOUND:
                raise
            return None


class Model(_Handle):
    def __init__(self, library, folder, cpu_mask=0, weights=0, arithmetic=0):
        super().__init__(library, "model")
        options = binding().ModelOptions(cpu_mask=cpu_mask, weights=weights, arithmetic=arithmetic)
        self.open("pg_model_open", os.fsencode(folder), ctypes.byref(options))

    def info(self):
        info = binding().ModelInfo()
        self.library.call("pg_model_get_info", self.pointer, ctypes.byref(info))
        return info

    def cpu_used(self):
        return self.info().cpu_used

    def forward(self, inputs, features=None, n_threads=1, attention_layer=-1, **options):
        """pg_forward(); one thread is the fastest for models this small. -> Outputs"""
        outputs = Outputs(self.library)
        options = binding().ForwardOptions(n_threads=n_threads, features=features and features.pointer,
                                           attention_layer=attention_layer, **options)
        outputs.open("pg_forward", self.pointer, inputs.pointer, ctypes.byref(options))
        return outputs

    def generate(self, processor, inputs, features=None, n_threads=1, **options):
        """pg_generate(). -> [(ids, text)] of the rows"""
        with self.result(processor, inputs, features, n_threads, **options) as result:
            lib = binding().lib
            return [(result._tensor("pg_result_get_ids", row).tolist(),
                     lib.pg_result_get_text(result.pointer, row).decode())
                    for row in range(lib.pg_result_get_n_rows(result.pointer))]

    def result(self, processor, inputs, features=None, n_threads=1, **options):
        """pg_generate(). -> Result"""
        result = Result(self.library)
        options = binding().GenerateOptions(n_threads=n_threads, features=features and features.pointer, **options)
        result.open("pg_generate", self.pointer, processor.pointer, inputs.pointer, ctypes.byref(options))
        return result

    def score(self, processor, inputs, answers, n_threads=1, **options):
        """pg_score() of texts, or pg_score_ids() of lists of ids. -> [(ids, log_probs)] of the answers"""
        scores, c = _Handle(self.library, "scores"), binding()
        options = c.ScoreOptions(n_threads=n_threads, **options)
        if isinstance(answers[0], str):
            texts = (ctypes.c_char_p * len(answers))(*[answer.encode() for answer in answers])
            given = "pg_score", self.pointer, processor.pointer, inputs.pointer, texts
        else:
            ids = [i for answer in answers for i in answer]
            given = ("pg_score_ids", self.pointer, inputs.pointer, (c.i64 * len(ids))(*ids),
                     (c.i64 * len(answers))(*map(len, answers)))
        with scores:
            scores.open(*given, len(answers), ctypes.byref(options))
            return [tuple(scores._tensor("pg_scores_get_tensor", i, name) for name in (b"ids", b"log_probs"))
                    for i in range(len(answers))]

    def adapt(self, adapters, weights=None):
        """pg_model_adapt(). -> Model"""
        adapted, c = Model.__new__(Model), binding()
        _Handle.__init__(adapted, self.library, "model")
        pointers = (ctypes.c_void_p * len(adapters))(*[adapter.pointer.value for adapter in adapters])
        weights = weights and (c.f32 * len(weights))(*weights)
        adapted.open("pg_model_adapt", self.pointer, pointers, weights, len(adapters))
        return adapted

    def encode_image(self, inputs, n_threads=1):
        """-> Features"""
        features = Features(self.library)
        options = binding().RunOptions(n_threads=n_threads)
        features.open("pg_features_create", self.pointer, inputs.pointer, ctypes.byref(options))
        return features


class Adapter(_Handle):
    """pg_adapter_open()."""

    def __init__(self, model, folder, n_threads=1):
        super().__init__(model.library, "adapter")
        options = binding().AdapterOptions(n_threads=n_threads)
        self.open("pg_adapter_open", model.pointer, os.fsencode(folder), ctypes.byref(options))

    def info(self):
        info = binding().AdapterInfo()
        self.library.call("pg_adapter_get_info", self.pointer, ctypes.byref(info))
        return info


class Trainer(_Handle):
    """pg_trainer_create(), or with `folder` pg_trainer_resume(). options: of pg_trainer_options, texts as str."""

    def __init__(self, model, folder=None, **options):
        super().__init__(model.library, "trainer")
        struct = binding().TrainerOptions()
        self.library.call("pg_trainer_options_init", ctypes.byref(struct), ctypes.sizeof(struct))
        for name, value in options.items():
            setattr(struct, name, value.encode() if isinstance(value, str) else value)
        if folder is None:
            self.open("pg_trainer_create", model.pointer, ctypes.byref(struct))
        else:
            self.open("pg_trainer_resume", model.pointer, os.fsencode(folder), ctypes.byref(struct))

    def _run(self, name, inputs):
        result = binding().TrainResult()
        self.library.call(name, self.pointer, inputs.pointer, ctypes.byref(result))
        return result

    def step(self, inputs):
        return self._run("pg_trainer_step", inputs)

    def evaluate(self, inputs):
        return self._run("pg_trainer_evaluate", inputs)

    def save(self, folder):
        self.library.call("pg_trainer_save", self.pointer, os.fsencode(folder))

    def parameters(self):
        """-> {name: (value, gradient)}, views: what is written to a value is what the next step starts from."""
        n, out = ctypes.c_size_t(), {}
        self.library.call("pg_trainer_count_parameters", self.pointer, ctypes.byref(n))
        for i in range(n.value):
            p = binding().Parameter()
            self.library.call("pg_trainer_get_parameter", self.pointer, i, ctypes.byref(p))
            shape = tuple(p.shape[:p.n_dims])
            out[p.name.decode()] = tuple(np.ctypeslib.as_array(array, shape) for array in (p.value, p.gradient))
        return out


def _strings(texts):
    """-> char *[n], which keeps what it points to, and uint64_t [n]: NUL is allowed within."""
    data = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(data))(*data), (ctypes.c_uint64 * len(data))(*map(len, data))


def _swizzled(array, kind):
    """array: u8 [H, W, 3] -> the same image in the format `kind`, alpha as noise; GRAY8 takes the red channel."""
    c = binding()
    if kind == c.IMAGE_GRAY8:
        return np.ascontiguousarray(array[:, :, 0])
    if kind in (c.IMAGE_BGR8, c.IMAGE_BGRA8):
        array = array[:, :, ::-1]
    if kind in (c.IMAGE_RGBA8, c.IMAGE_BGRA8):
        alpha = (array[:, :, :1].astype(int) * 7 + 13).astype(np.uint8)
        array = np.concatenate([array, alpha], -1)
    return np.ascontiguousarray(array)


class Processor(_Handle):
    def __init__(self, library, folder):
        super().__init__(library, "processor")
        self.open("pg_processor_open", os.fsencode(folder), None)

    def encode(self, path, prompt, flags=0):
        """-> an open handle of the inputs for the image at `path`."""
        inputs, image, name = Inputs(self.library), binding().Image(), os.fsencode(path)  # the image borrows the name
        self.library.call("pg_image_from_path", ctypes.byref(image), ctypes.sizeof(image), name)
        options = binding().EncodeOptions(flags=flags)
        inputs.open("pg_processor_encode", self.pointer, ctypes.byref(image), prompt.encode(), ctypes.byref(options))
        return inputs

    def encode_batch(self, prompts, suffixes=None, images=None, image_counts=None, **options):
        """pg_processor_encode_batch(). images: [(u8 [H, W, 3], format)] -> Inputs"""
        inputs, batch, pixels = Inputs(self.library), binding().Batch(), []
        if prompts is not None:
            batch.n_prompts, (batch.prompts, batch.prompt_sizes) = len(prompts), _strings(prompts)
        if suffixes is not None:
            batch.n_suffixes, (batch.suffixes, batch.suffix_sizes) = len(suffixes), _strings(suffixes)
        if images:
            array = (binding().Image * len(images))()
            for image, (rgb, kind) in zip(array, images):
                pixels.append(_swizzled(rgb, kind))  # lives until the call below has returned
                self.library.call("pg_image_from_pixels", ctypes.byref(image), ctypes.sizeof(image), kind,
                                  rgb.shape[1], rgb.shape[0], pixels[-1].ctypes.data, 0)
            batch.n_images, batch.images = len(images), array
        if image_counts is not None:
            batch.n_image_counts = len(image_counts)
            batch.image_counts = (ctypes.c_int32 * len(image_counts))(*image_counts)
        options = binding().EncodeOptions(**options)
        inputs.open("pg_processor_encode_batch", self.pointer, ctypes.byref(batch), ctypes.byref(options))
        return inputs

    def decode(self, ids):
        """The text without special tokens."""
        c = binding()
        with _errors_of("pg_processor_decode"):
            return c.copied_text(c.lib.pg_processor_decode, self.pointer, (ctypes.c_int64 * len(ids))(*ids), len(ids),
                                 c.DECODE_SKIP_SPECIAL)


class Inputs(_Named):
    def __init__(self, library):
        super().__init__(library, "inputs")

    def row(self, row):
        """pg_row_info as a dictionary."""
        info = binding().RowInfo()
        self.library.call("pg_inputs_get_row_info", self.pointer, row, ctypes.byref(info))
        return {name: getattr(info, name) for name, _ in info._fields_ if name != "struct_size"}


class Outputs(_Named):
    def __init__(self, library):
        super().__init__(library, "outputs")


class Features(_Handle):
    def __init__(self, library):
        super().__init__(library, "features")

    def array(self):
        return self._tensor("pg_features_get_tensor")


class Result(_Handle):
    def __init__(self, library):
        super().__init__(library, "result")

    def info(self, row=0):
        info = binding().ResultInfo()
        self.library.call("pg_result_get_info", self.pointer, row, ctypes.byref(info))
        return info

    def tensor(self, name, row=0):
        return self._tensor("pg_result_get_tensor", row, name.encode())


class Session(_Handle):
    def __init__(self, model, n_threads=0, max_new_tokens=128):
        super().__init__(model.library, "session")
        options = binding().SessionOptions(n_threads=n_threads, max_new_tokens=max_new_tokens)
        self.open("pg_session_create", model.pointer, ctypes.byref(options))

    def prefill(self, inputs, features=None):
        self.library.call("pg_session_prefill", self.pointer, inputs.pointer, features and features.pointer)

    def logits(self):
        return self._tensor("pg_session_get_logits")

    def step(self):
        """-> the event and the id, which is None when no token came"""
        token = ctypes.c_int64()
        event = self.library.call("pg_session_step", self.pointer, ctypes.byref(token))
        return event, token.value if event != binding().EVENT_LENGTH else None

    def generate(self, inputs, with_logits=False):
        """-> ids, and the logits that each was sampled from"""
        self.prefill(inputs)
        return self.steps(with_logits)

    def steps(self, with_logits=False):
        """After a prefill, to the end of the text. -> as generate()"""
        ids, logits, event = [], [], binding().OK
        while event == binding().OK:
            event, token = self.step()
            if token is not None:
                ids.append(token)
                if with_logits:
                    logits.append(self.logits())
        return ids, logits
