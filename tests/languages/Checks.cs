// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// examples/csharp on the demo model: Checks.exe MODEL IMAGE
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using Paligemma;

internal static class Checks
{
    private const string Caption = "a red circle, a purple star and a yellow triangle";
    private static int failures;

    private sealed class Deliberate : Exception
    {
        public readonly int Number;

        public Deliberate(int number)
        {
            Number = number;
        }
    }

    private static void Expect(string name, bool right)
    {
        if (right) return;
        failures++;
        Console.WriteLine("FAILED: " + name);
    }

    private static bool Throws(int number, Action call)
    {
        try
        {
            call();
        }
        catch (Deliberate thrown)
        {
            return thrown.Number == number && thrown.StackTrace.Contains("Checks"); // where it was thrown is in it
        }
        return false;
    }

    private static bool Fails(int status, Action call)
    {
        try
        {
            call();
        }
        catch (PaligemmaException failed)
        {
            return failed.Status == status && failed.Message.Length > 0;
        }
        return false;
    }

    private static void Answers(Model model, Processor processor, Inputs inputs)
    {
        string streamed = "";
        long reached = 0;
        int steps = 0;
        GenerateOptions options = new GenerateOptions
        {
            LogProbs = true,
            OnText = (row, text, token) =>
            {
                GC.Collect(); // what C holds must be held here, too
                streamed += text;
                return row == 0;
            },
            OnLogits = (row, ids, logits) =>
            {
                steps++;
                return ids.Length > 0 && logits.Length > 1000;
            },
            Progress = (phase, done, total) =>
            {
                reached += done;
                return true;
            }
        };
        using (Answers given = model.Generate(processor, inputs, options))
        {
            Expect("the answer", given.Rows == 1 && given.GetText(0) == Caption && given.GetText(1) == "" && streamed == Caption);
            Expect("callbacks", steps == given.GetIds(0).Length && reached > 0 && given.GetStop(0) == 1);
            long eos = given.GetIds(0).Last();
            options = new GenerateOptions
            {
                OnLogits = (row, ids, logits) =>
                {
                    for (int i = 0; i < logits.Length; i++) logits[i] = i == eos ? 0 : float.NegativeInfinity;
                    return true;
                }
            };
            using (Answers ended = model.Generate(processor, inputs, options))
                Expect("changed logits", ended.GetIds(0).SequenceEqual(new[] { eos }));
        }
        using (Answers stopped = model.Generate(processor, inputs, new GenerateOptions { OnText = (row, text, token) => false }))
            Expect("a row that a callback ends", stopped.GetStop(0) == 3);
        using (Features features = model.Encode(inputs))
        using (Inputs prompt = processor.Encode(null, "caption en"))
        using (Answers given = model.Generate(processor, prompt, new GenerateOptions { Features = features }))
            Expect("features", given.GetText(0) == Caption);
        Sampling drawn = new Sampling { Random = true, Seed = 3, Temperature = 2 };
        using (Answers given = model.Generate(processor, inputs, new GenerateOptions { Sampling = drawn, MaxNewTokens = 5 }))
            Expect("sampling", given.GetIds(0).Length >= 1);
    }

    private static void Objects(Model model, Processor processor, Image image)
    {
        using (Inputs inputs = processor.Encode(image, "detect red circle ; yellow triangle"))
        using (Answers given = model.Generate(processor, inputs, new GenerateOptions { LogProbs = true }))
        {
            long[] sizes = inputs.GetIntegers("image_sizes");
            List<FoundObject> found = given.FindObjects(processor, 0, (int)sizes[1], (int)sizes[0]);
            float[] expected = { 0, 24, 96, 120 };
            Expect("objects", found.Count == 2 && found[0].Label == "red circle" && found[1].Label == "yellow triangle");
            Expect("a box", found[0].Bounds.Zip(expected, (a, b) => Math.Abs(a - b) < 12).All(near => near) && found[0].Score > 0.5f);
            Expect("no size", Fails(-10, () => given.FindObjects(processor, 0, 0, 5)));
        }
    }

    private static void Errors(string folder, Model model, Processor processor, Inputs inputs)
    {
        Expect("no folder", Fails(-31, () => Model.Open("/nowhere/at/all")) && Fails(-31, () => Processor.Open("/nowhere/at/all")));
        Expect("no tensor", Fails(-31, () => inputs.GetIntegers("nothing")));
        Expect("no image", Fails(-31, () => processor.Encode(Image.FromPath("/nowhere.png"), "")));
        Expect("too few pixels", Fails(-10, () => processor.Encode(Image.FromPixels(1, 8, 8, new byte[8 * 8 * 3 - 1]), "")));
        Expect("too many threads", Fails(-10, () => model.Generate(processor, inputs, new GenerateOptions { Threads = 5000 })));
        using (Cancel cancel = new Cancel())
        {
            cancel.Request();
            Expect("cancelled", Fails(-70, () => model.Generate(processor, inputs, new GenerateOptions { Cancel = cancel })));
        }
        Expect("stopped", Fails(-70, () => model.Generate(processor, inputs, new GenerateOptions { Progress = (p, d, t) => false })));
        bool refused = false;
        try
        {
            processor.Encode(null, "a\0b");
        }
        catch (ArgumentException)
        {
            refused = true;
        }
        Expect("a NUL", refused);
        Model closed = Model.Open(folder);
        closed.Dispose();
        closed.Dispose();
        refused = false;
        try
        {
            closed.Generate(processor, inputs);
        }
        catch (ObjectDisposedException)
        {
            refused = true;
        }
        Expect("a handle that was disposed of", refused);
    }

    // What callbacks throw comes out of the call, and the same call works behind it.
    private static void Exceptions(string folder, Model model, Processor processor, Inputs inputs)
    {
        TextCallback text = (row, piece, token) => { throw new Deliberate(1); };
        Expect("text", Throws(1, () => model.Generate(processor, inputs, new GenerateOptions { OnText = text })));
        LogitsCallback logits = (row, ids, numbers) => { throw new Deliberate(2); };
        Expect("logits", Throws(2, () => model.Generate(processor, inputs, new GenerateOptions { OnLogits = logits })));
        ProgressCallback progress = (phase, done, total) => { throw new Deliberate(3); };
        Expect("progress", Throws(3, () => model.Generate(processor, inputs, new GenerateOptions { Progress = progress })));
        Expect("opening", Throws(3, () => Model.Open(folder, new ModelOptions { Progress = progress })));
        LogCallback log = (level, line) => { throw new Deliberate(4); };
        Expect("log", Throws(4, () => Model.Open(folder, new ModelOptions { Log = log })));
        bool armed = false;
        using (Processor logged = Processor.Open(folder, (level, line) =>
        {
            if (armed) throw new Deliberate(5);
        }))
        {
            GC.Collect();
            Image transparent = Image.FromPixels(3, 8, 8, Enumerable.Repeat((byte)1, 8 * 8 * 4).ToArray()); // it is warned of
            armed = true;
            Expect("a later log", Throws(5, () => logged.Encode(transparent, "")));
            armed = false;
            logged.Encode(transparent, "").Dispose();
        }
        int inner = 0;
        TextCallback nested = (row, piece, token) =>
        {
            if (Throws(1, () => model.Generate(processor, inputs, new GenerateOptions { OnText = text }))) inner++;
            return false;
        };
        model.Generate(processor, inputs, new GenerateOptions { OnText = nested }).Dispose();
        Expect("within a callback", inner == 1);
        TextCallback through = (row, piece, token) =>
        {
            model.Generate(processor, inputs, new GenerateOptions { OnText = text });
            return true;
        };
        Expect("out of both", Throws(1, () => model.Generate(processor, inputs, new GenerateOptions { OnText = through })));
        using (Answers given = model.Generate(processor, inputs)) Expect("behind all", given.GetText(0) == Caption);
    }

    private static int Main(string[] arguments)
    {
        Expect("version", Library.Fits && Library.Version.Length > 0);
        using (Model model = Model.Open(arguments[0]))
        using (Processor processor = Processor.Open(arguments[0]))
        {
            Image image = Image.FromBytes(File.ReadAllBytes(arguments[1]));
            using (Inputs inputs = processor.Encode(image, "caption en"))
            {
                Answers(model, processor, inputs);
                Objects(model, processor, image);
                Errors(arguments[0], model, processor, inputs);
                Exceptions(arguments[0], model, processor, inputs);
                int right = 0;
                Thread[] threads = Enumerable.Range(0, 3).Select(i => new Thread(() =>
                {
                    using (Answers given = model.Generate(processor, inputs, new GenerateOptions { Threads = 1 }))
                        if (given.GetText(0) == Caption) Interlocked.Increment(ref right);
                })).ToArray();
                foreach (Thread thread in threads) thread.Start();
                foreach (Thread thread in threads) thread.Join();
                Expect("threads", right == 3);
            }
        }
        using (Model quantized = Model.Open(arguments[0], new ModelOptions { Weights = Weights.Int8 }))
        using (Processor processor = Processor.Open(arguments[0]))
        using (Inputs inputs = processor.Encode(Image.FromPath(arguments[1]), "caption en", exif: true))
        using (Answers given = quantized.Generate(processor, inputs))
            Expect("int8", given.GetText(0) == Caption);
        Console.WriteLine(failures == 0 ? "csharp: fine" : failures + " failed");
        return failures == 0 ? 0 : 1;
    }
}
