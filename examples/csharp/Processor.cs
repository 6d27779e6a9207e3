// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// Images, prompts, and what a model is fed.
using System;
using System.Runtime.InteropServices;

namespace Paligemma
{
    /// <summary>An image that is read when it is encoded.</summary>
    public sealed class Image
    {
        private readonly byte[] data; // a path with its NUL, the bytes of a file, or pixels
        private readonly Kind kind;
        private readonly int format, width, height;

        private enum Kind
        {
            Path,
            Bytes,
            Pixels
        }

        private Image(Kind kind, byte[] data, int format = 0, int width = 0, int height = 0)
        {
            this.kind = kind;
            this.data = data;
            this.format = format;
            this.width = width;
            this.height = height;
        }

        /// <summary>A PNG or JPEG file.</summary>
        public static Image FromPath(string path)
        {
            return new Image(Kind.Path, Text.Write(path, "the path of an image"));
        }

        /// <summary>The bytes of a PNG or JPEG file.</summary>
        public static Image FromBytes(byte[] bytes)
        {
            return new Image(Kind.Bytes, bytes);
        }

        /// <summary>Dense rows of pixels from the top. format: PG_IMAGE_* of paligemma.h, RGB 1, BGR 2, RGBA 3, BGRA 4, grey
        /// 5.</summary>
        public static Image FromPixels(int format, int width, int height, byte[] pixels)
        {
            return new Image(Kind.Pixels, pixels, format, width, height);
        }

        // Calls `use` with the C image; the data stay where they are meanwhile.
        internal int With(Func<IntPtr, int> use)
        {
            GCHandle pinned = GCHandle.Alloc(data, GCHandleType.Pinned);
            IntPtr copied = Marshal.AllocHGlobal(Marshal.SizeOf(typeof(pg_image)));
            try
            {
                pg_image c = new pg_image();
                IntPtr at = pinned.AddrOfPinnedObject();
                UIntPtr size = Text.Size<pg_image>();
                int status = kind == Kind.Path ? Native.pg_image_from_path(ref c, size, at)
                    : kind == Kind.Bytes ? Native.pg_image_from_bytes(ref c, size, at, (UIntPtr)data.Length)
                    : Native.pg_image_from_pixels(ref c, size, format, width, height, at, 0);
                if (status < 0) return status;
                if (kind == Kind.Pixels) c.n_bytes = (ulong)data.Length; // rows that leave the array are refused
                Marshal.StructureToPtr(c, copied, false);
                return use(copied);
            }
            finally
            {
                Marshal.FreeHGlobal(copied);
                pinned.Free();
            }
        }
    }

    /// <summary>Tokenizer and image processing of a checkpoint. It never changes.</summary>
    public sealed class Processor : IDisposable
    {
        internal readonly Handle Handle;
        internal readonly LogFn Log;

        private Processor(Handle handle, LogFn log)
        {
            Handle = handle;
            Log = log;
        }

        /// <summary>Opens those of a checkpoint folder or model id. The log lives as long as what is made from it.</summary>
        public static Processor Open(string folder, LogCallback log = null)
        {
            byte[] path = Text.Write(folder, "the folder of a processor");
            LogFn onLog = Callbacks.Of(log);
            using (Call call = new Call())
            {
                pg_processor_options c = new pg_processor_options();
                call.Finish(Native.pg_processor_options_init(ref c, Text.Size<pg_processor_options>()));
                c.log = Callbacks.Pointer(onLog);
                IntPtr made;
                int status = Native.pg_processor_open(path, ref c, out made);
                Handle handle = new Handle(made, Native.pg_processor_close, onLog);
                call.Finish(status, handle);
                return new Processor(handle, onLog);
            }
        }

        /// <summary>The inputs of an image and a prompt; null: image tokens and no pixels, for Features. exif: turn photos of
        /// phones upright; literal: special tokens of the prompt are plain characters.</summary>
        public Inputs Encode(Image image, string prompt, bool exif = false, bool literal = false)
        {
            byte[] text = Text.Write(prompt, "a prompt");
            using (Call call = new Call())
            {
                pg_encode_options c = new pg_encode_options();
                call.Finish(Native.pg_encode_options_init(ref c, Text.Size<pg_encode_options>()));
                c.flags = (exif ? Native.PG_ENCODE_EXIF : 0) | (literal ? Native.PG_ENCODE_LITERAL : 0);
                IntPtr made = IntPtr.Zero;
                Func<IntPtr, int> encode = at => Native.pg_processor_encode(Handle, at, text, ref c, out made);
                int status = image == null ? encode(IntPtr.Zero) : image.With(encode);
                Handle handle = new Handle(made, Native.pg_inputs_close, Log);
                call.Finish(status, handle);
                return new Inputs(handle, Log);
            }
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>What a model is fed.</summary>
    public sealed class Inputs : IDisposable
    {
        internal readonly Handle Handle;
        internal readonly LogFn Log;

        internal Inputs(Handle handle, LogFn log)
        {
            Handle = handle;
            Log = log;
        }

        /// <summary>A copy of a tensor of integers by its HF name, such as "input_ids", or "image_sizes", height first.</summary>
        public long[] GetIntegers(string name)
        {
            return Tensor.Integers((ref pg_tensor tensor) =>
                Native.pg_inputs_get_tensor(Handle, Text.Write(name, "the name of a tensor"), ref tensor));
        }

        public void Dispose()
        {
            Handle.Dispose();
        }
    }

    /// <summary>Copies of tensors.</summary>
    internal static class Tensor
    {
        public delegate int Getter(ref pg_tensor tensor);

        public static unsafe long[] Integers(Getter get)
        {
            using (Call call = new Call())
            {
                pg_tensor tensor = new pg_tensor();
                call.Finish(Native.pg_tensor_init(ref tensor, Text.Size<pg_tensor>()));
                call.Finish(get(ref tensor));
                if (tensor.dtype != Native.PG_DTYPE_I64)
                    throw new InvalidOperationException("found a tensor of PG_DTYPE " + tensor.dtype + ", expected integers");
                long n = 1;
                for (int i = 0; i < tensor.n_dims; i++) n = checked(n * tensor.shape[i]);
                long[] numbers = new long[n];
                if (n > 0) Marshal.Copy(tensor.data, numbers, 0, numbers.Length);
                GC.KeepAlive(get); // the numbers are of the handle in it
                return numbers;
            }
        }
    }
}
