// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// PaliGemma on a CPU: libpaligemma for C#. Models, processors and what they give may be used by any number of threads.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Paligemma
{
    /// <summary>How the matrices of a model are kept.</summary>
    public enum Weights
    {
        /// <summary>As the folder has them.</summary>
        Stored = Native.PG_WEIGHTS_STORED,
        /// <summary>8.25 bits a weight.</summary>
        Int8 = Native.PG_WEIGHTS_INT8,
        /// <summary>4.25 bits a weight.</summary>
        Int4 = Native.PG_WEIGHTS_INT4
    }

    /// <summary>Receives a level and a line, on any thread that uses the handle or one made from it.</summary>
    public delegate void LogCallback(int level, string line);

    /// <summary>Receives a phase (PG_PHASE_*) and how much of it is done. False: the call fails as cancelled.</summary>
    public delegate bool ProgressCallback(int phase, long done, long total);

    /// <summary>Receives the row, a piece of its text in whole characters, and the token that completed it. False: the row
    /// ends.</summary>
    public delegate bool TextCallback(long row, string text, long token);

    /// <summary>Sees the row, its ids so far, and the logits [vocabulary] that its next token is chosen from, which it may
    /// change. False: the row ends.</summary>
    public delegate bool LogitsCallback(long row, long[] ids, float[] logits);

    /// <summary>A cancel flag, which any thread may set. Make one for each request.</summary>
    public sealed class Cancel : IDisposable
    {
        internal readonly Handle Handle;

        public Cancel()
        {
            using (Call call = new Call())
            {
                IntPtr made;
                int status = Native.pg_cancel_create(out made);
                Handle = new Handle(made, Native.pg_cancel_close);
                call.Finish(status, Handle);
            }
        }

        /// <summary>Sets it.</summary>
        public void Request()
        {
            Native.pg_cancel_request(Handle);
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>Options of Model.Open.</summary>
    public sealed class ModelOptions
    {
        /// <summary>How the matrices are kept.</summary>
        public Weights Weights = Weights.Stored;
        /// <summary>For quantizing, 1 to 1024; 0: the CPUs.</summary>
        public int Threads;
        /// <summary>Lives as long as the model and all that is made from it.</summary>
        public LogCallback Log;
        /// <summary>Of opening.</summary>
        public ProgressCallback Progress;
    }

    /// <summary>The weights of a checkpoint. It never changes.</summary>
    public sealed class Model : IDisposable
    {
        internal readonly Handle Handle;
        internal readonly LogFn Log;

        private Model(Handle handle, LogFn log)
        {
            Handle = handle;
            Log = log;
        }

        /// <summary>Opens a checkpoint folder, or a model id in the local Hugging Face cache.</summary>
        public static Model Open(string folder, ModelOptions options = null)
        {
            options = options ?? new ModelOptions();
            byte[] path = Text.Write(folder, "the folder of a model");
            LogFn log = Callbacks.Of(options.Log);
            ProgressFn progress = Callbacks.Of(options.Progress);
            using (Call call = new Call())
            {
                pg_model_options c = new pg_model_options();
                call.Finish(Native.pg_model_options_init(ref c, Text.Size<pg_model_options>()));
                c.weights = (int)options.Weights;
                c.n_threads = options.Threads;
                c.log = Callbacks.Pointer(log);
                c.progress = Callbacks.Pointer(progress);
                IntPtr made;
                int status = Native.pg_model_open(path, ref c, out made);
                GC.KeepAlive(progress);
                Handle handle = new Handle(made, Native.pg_model_close, log);
                call.Finish(status, handle);
                return new Model(handle, log);
            }
        }

        /// <summary>Runs the encoder on the pixels of the inputs.</summary>
        public Features Encode(Inputs inputs)
        {
            using (Call call = new Call())
            {
                pg_run_options c = new pg_run_options();
                call.Finish(Native.pg_run_options_init(ref c, Text.Size<pg_run_options>()));
                IntPtr made;
                int status = Native.pg_features_create(Handle, inputs.Handle, ref c, out made);
                Handle handle = new Handle(made, Native.pg_features_close, Log, inputs.Log);
                call.Finish(status, handle);
                return new Features(handle);
            }
        }

        /// <summary>Generates the answers to all rows of the inputs.</summary>
        public Answers Generate(Processor processor, Inputs inputs, GenerateOptions options = null)
        {
            options = options ?? new GenerateOptions();
            TextFn text = Callbacks.Of(options.OnText);
            LogitsFn logits = Callbacks.Of(options.OnLogits);
            // Always given: it stops the call after an exception of another callback.
            ProgressFn progress = Callbacks.Of(options.Progress);
            using (Call call = new Call())
            {
                pg_generate_options c = new pg_generate_options();
                call.Finish(Native.pg_generate_options_init(ref c, Text.Size<pg_generate_options>()));
                c.max_new_tokens = options.MaxNewTokens;
                c.n_threads = options.Threads;
                c.flags = options.LogProbs ? Native.PG_GENERATE_LOG_PROBS : 0;
                c.on_text = Callbacks.Pointer(text);
                c.progress = Callbacks.Pointer(progress);
                c.features = options.Features != null ? options.Features.Handle.Pointer : IntPtr.Zero;
                c.cancel = options.Cancel != null ? options.Cancel.Handle.Pointer : IntPtr.Zero;
                IntPtr settings = IntPtr.Zero;
                try
                {
                    settings = Settings(call, options.Sampling, logits);
                    c.sampling = settings;
                    IntPtr made;
                    int status = Native.pg_generate(Handle, processor.Handle, inputs.Handle, ref c, out made);
                    GC.KeepAlive(text);
                    GC.KeepAlive(logits);
                    GC.KeepAlive(progress);
                    GC.KeepAlive(options);
                    Handle handle = new Handle(made, Native.pg_result_close, Log, processor.Log, inputs.Log);
                    call.Finish(status, handle);
                    return new Answers(handle);
                }
                finally
                {
                    if (settings != IntPtr.Zero) Marshal.FreeHGlobal(settings);
                }
            }
        }

        // The C settings, for FreeHGlobal; none: zero, which follows generation_config.json.
        private IntPtr Settings(Call call, Sampling sampling, LogitsFn logits)
        {
            if (sampling == null && logits == null) return IntPtr.Zero;
            pg_sampling_options c = new pg_sampling_options();
            call.Finish(Native.pg_sampling_options_init(ref c, Text.Size<pg_sampling_options>()));
            if (sampling == null)
            {
                call.Finish(Native.pg_model_get_sampling(Handle, ref c));
            }
            else
            {
                c.flags = sampling.Random ? Native.PG_SAMPLING_RANDOM : 0;
                c.seed = sampling.Seed;
                c.temperature = sampling.Temperature;
                c.top_k = sampling.TopK;
                c.top_p = sampling.TopP;
            }
            c.on_logits = Callbacks.Pointer(logits);
            IntPtr copied = Marshal.AllocHGlobal(Marshal.SizeOf(typeof(pg_sampling_options)));
            Marshal.StructureToPtr(c, copied, false);
            return copied;
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>What the encoder makes of images: computed once, they serve many prompts.</summary>
    public sealed class Features : IDisposable
    {
        internal readonly Handle Handle;

        internal Features(Handle handle)
        {
            Handle = handle;
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>How the next token is chosen.</summary>
    public sealed class Sampling
    {
        /// <summary>Draw the token, instead of taking the likeliest.</summary>
        public bool Random;
        /// <summary>Of the draws.</summary>
        public ulong Seed;
        /// <summary>Above 0.</summary>
        public double Temperature = 1;
        /// <summary>0: off.</summary>
        public int TopK = 50;
        /// <summary>0 to 1; 1: off.</summary>
        public double TopP = 1;
    }

    /// <summary>Options of Model.Generate.</summary>
    public sealed class GenerateOptions
    {
        /// <summary>Of each row; 0: what generation_config.json says, else 128.</summary>
        public int MaxNewTokens;
        /// <summary>1 to 1024; 0: the CPUs.</summary>
        public int Threads;
        /// <summary>The answers keep "log_probs", and objects have scores.</summary>
        public bool LogProbs;
        /// <summary>Of the images, in place of pixels.</summary>
        public Features Features;
        /// <summary>null: as generation_config.json says.</summary>
        public Sampling Sampling;
        /// <summary>The text as it comes.</summary>
        public TextCallback OnText;
        /// <summary>The logits of each step.</summary>
        public LogitsCallback OnLogits;
        /// <summary>Progress of the call.</summary>
        public ProgressCallback Progress;
        /// <summary>Stops the call, from any thread.</summary>
        public Cancel Cancel;
    }

    /// <summary>Delegates that C can call.</summary>
    internal static class Callbacks
    {
        public static LogFn Of(LogCallback callback)
        {
            if (callback == null) return null;
            return (user, level, message) => Call.Guarded(0, () =>
            {
                callback(level, Text.Read(message));
                return 0;
            });
        }

        public static ProgressFn Of(ProgressCallback callback)
        {
            return (user, phase, done, total) =>
                Call.Guarded(1, () => callback == null || callback(phase, done, total) ? 0 : 1);
        }

        public static TextFn Of(TextCallback callback)
        {
            if (callback == null) return null;
            return (user, row, text, size, token) =>
                Call.Guarded(1, () => callback(row, Text.Read(text, checked((int)size)), token) ? 0 : 1);
        }

        public static LogitsFn Of(LogitsCallback callback)
        {
            if (callback == null) return null;
            return (user, row, ids, n_ids, logits, vocab_size) => Call.Guarded(1, () =>
            {
                long[] soFar = new long[n_ids];
                float[] numbers = new float[vocab_size];
                if (n_ids > 0) Marshal.Copy(ids, soFar, 0, soFar.Length);
                Marshal.Copy(logits, numbers, 0, numbers.Length);
                bool more = callback(row, soFar, numbers);
                Marshal.Copy(numbers, 0, logits, numbers.Length);
                return more ? 0 : 1;
            });
        }

        public static IntPtr Pointer(Delegate callback)
        {
            return callback == null ? IntPtr.Zero : Marshal.GetFunctionPointerForDelegate(callback);
        }
    }

    /// <summary>What Model.Generate made of each row.</summary>
    public sealed class Answers : IDisposable
    {
        internal readonly Handle Handle;

        internal Answers(Handle handle)
        {
            Handle = handle;
        }

        /// <summary>Rows of the result.</summary>
        public long Rows
        {
            get { return Native.pg_result_get_n_rows(Handle); }
        }

        /// <summary>The text of a row, 0 for the first, without special tokens; "" for one that is not there.</summary>
        public string GetText(long row)
        {
            string text = Text.Read(Native.pg_result_get_text(Handle, row));
            GC.KeepAlive(this); // the text is of the handle
            return text;
        }

        /// <summary>The ids of a row, the final eos included.</summary>
        public long[] GetIds(long row)
        {
            return Tensor.Integers((ref pg_tensor tensor) =>
                Native.pg_result_get_tensor(Handle, row, Text.Write("ids", "a name"), ref tensor));
        }

        /// <summary>PG_STOP_*: why a row ended.</summary>
        public int GetStop(long row)
        {
            using (Call call = new Call())
            {
                pg_result_info info = new pg_result_info();
                info.struct_size = (uint)Text.Size<pg_result_info>();
                call.Finish(Native.pg_result_get_info(Handle, row, ref info));
                return info.stop;
            }
        }

        /// <summary>The objects that a row names, in pixels of an image of this size.</summary>
        public unsafe List<FoundObject> FindObjects(Processor processor, long row, int width, int height)
        {
            using (Call call = new Call())
            {
                pg_answer_options c = new pg_answer_options();
                call.Finish(Native.pg_answer_options_init(ref c, Text.Size<pg_answer_options>()));
                c.width = width;
                c.height = height;
                c.convention = Native.PG_BOX_1023;
                IntPtr made;
                int status = Native.pg_answer_create(processor.Handle, Handle, row, ref c, out made);
                using (Handle answer = new Handle(made, Native.pg_answer_close))
                {
                    call.Finish(status);
                    List<FoundObject> all = new List<FoundObject>();
                    for (long i = 0; i < Native.pg_answer_get_n_objects(answer); i++)
                    {
                        pg_object found = new pg_object();
                        found.struct_size = (uint)Text.Size<pg_object>();
                        call.Finish(Native.pg_answer_get_object(answer, i, ref found));
                        bool usable = (found.flags & Native.PG_OBJECT_BROKEN) == 0 && !float.IsNaN(found.box[0]);
                        all.Add(new FoundObject
                        {
                            Label = Text.Read(found.label),
                            Bounds = usable ? new[] { found.box[0], found.box[1], found.box[2], found.box[3] } : null,
                            Score = found.score,
                            Flags = found.flags
                        });
                    }
                    return all;
                }
            }
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>An object of an answer.</summary>
    public sealed class FoundObject
    {
        /// <summary>What it is.</summary>
        public string Label;
        /// <summary>x0, y0, x1, y1 in pixels; null: it has no box that can be used.</summary>
        public float[] Bounds;
        /// <summary>0 to 1; NaN without GenerateOptions.LogProbs.</summary>
        public float Score;
        /// <summary>PG_OBJECT_* of paligemma.h.</summary>
        public uint Flags;
    }

    /// <summary>The library that is running.</summary>
    public static class Library
    {
        /// <summary>The package version, such as "0.1.0".</summary>
        public static string Version
        {
            get { return Text.Read(Native.pg_version_string()); }
        }

        /// <summary>False: it has another API version than these files are for.</summary>
        public static bool Fits
        {
            get { return Native.pg_version_api() >> 8 == (Native.PG_API_VERSION_MAJOR << 8 | Native.PG_API_VERSION_MINOR); }
        }
    }
}
