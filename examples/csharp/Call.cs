// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// Handles, and calls that carry exceptions of callbacks across the C library.
using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Paligemma
{
    /// <summary>Why a call failed.</summary>
    public sealed class PaligemmaException : Exception
    {
        internal PaligemmaException(int status, string message, long row) : base(message)
        {
            Status = status;
            Row = row;
        }

        /// <summary>PG_ERROR_* of paligemma.h: what a program decides by.</summary>
        public int Status { get; }

        /// <summary>The row of the batch that the message is about, 0 for the first; -1: none or several.</summary>
        public long Row { get; }
    }

    /// <summary>Closes a C handle.</summary>
    internal delegate void Closer(ref IntPtr handle);

    /// <summary>A C handle, closed when nobody needs it any more, and the delegates that the library may call as long as it
    /// has the handle.</summary>
    internal sealed class Handle : SafeHandle
    {
        private readonly Closer close;
        private readonly object[] kept;

        public Handle(IntPtr made, Closer close, params object[] kept) : base(IntPtr.Zero, true)
        {
            this.close = close;
            this.kept = kept;
            SetHandle(made);
        }

        public override bool IsInvalid
        {
            get { return handle == IntPtr.Zero; }
        }

        /// <summary>For the fields of options; the caller keeps this object alive.</summary>
        public IntPtr Pointer
        {
            get
            {
                if (IsClosed) throw new ObjectDisposedException("a handle of libpaligemma");
                return handle;
            }
        }

        protected override bool ReleaseHandle()
        {
            IntPtr closing = handle;
            close(ref closing);
            GC.KeepAlive(kept);
            return true;
        }
    }

    /// <summary>One call of the library on this thread. An exception of a callback never crosses the frames of C: it is kept,
    /// no callback runs any more, the library is told to stop as soon as it asks, and Finish throws it.</summary>
    internal sealed class Call : IDisposable
    {
        [ThreadStatic]
        private static Call current;

        private readonly Call outer;
        private ExceptionDispatchInfo thrown;

        public Call()
        {
            outer = current;
            current = this;
        }

        public void Dispose()
        {
            current = outer;
        }

        /// <summary>Runs a callback; `stop` is what the library gets after an exception.</summary>
        public static T Guarded<T>(T stop, Func<T> callback)
        {
            Call now = current;
            if (now != null && now.thrown != null) return stop;
            try
            {
                return callback();
            }
            catch (Exception found)
            {
                if (now != null) now.thrown = ExceptionDispatchInfo.Capture(found);
                return stop;
            }
        }

        /// <summary>Throws what a callback threw, or the error of the status. `made` is closed then.</summary>
        public void Finish(int status, Handle made = null)
        {
            if (thrown == null && status >= 0) return;
            PaligemmaException failed = thrown != null ? null
                : new PaligemmaException(status, Text.Read(Native.pg_last_error()), Native.pg_last_error_row());
            if (made != null) made.Dispose();
            if (thrown != null) thrown.Throw();
            throw failed;
        }
    }

    /// <summary>Texts as C has them.</summary>
    internal static class Text
    {
        /// <summary>UTF-8 with a closing NUL. `what` names it in the error.</summary>
        public static byte[] Write(string text, string what)
        {
            if (text == null) throw new ArgumentNullException(what);
            int at = text.IndexOf('\0');
            if (at >= 0) throw new ArgumentException(what + ": found a NUL at offset " + at + "; expected none, since it ends a text there");
            byte[] bytes = new byte[Encoding.UTF8.GetByteCount(text) + 1];
            Encoding.UTF8.GetBytes(text, 0, text.Length, bytes, 0);
            return bytes;
        }

        /// <summary>Up to the NUL.</summary>
        public static string Read(IntPtr text)
        {
            int size = 0;
            while (Marshal.ReadByte(text, size) != 0) size++;
            return Read(text, size);
        }

        public static string Read(IntPtr text, int size)
        {
            byte[] bytes = new byte[size];
            Marshal.Copy(text, bytes, 0, size);
            return Encoding.UTF8.GetString(bytes);
        }

        public static UIntPtr Size<T>()
        {
            return (UIntPtr)Marshal.SizeOf(typeof(T));
        }
    }
}
