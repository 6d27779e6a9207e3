// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
// Streams what a model says about an image: Caption.exe MODEL IMAGE [PROMPT]
using System;
using Paligemma;

internal static class Caption
{
    private static int Main(string[] arguments)
    {
        if (arguments.Length != 2 && arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: Caption.exe MODEL IMAGE [PROMPT]");
            return 1;
        }
        try
        {
            using (Model model = Model.Open(arguments[0]))
            using (Processor processor = Processor.Open(arguments[0]))
            using (Inputs inputs = processor.Encode(Image.FromPath(arguments[1]), arguments.Length == 3 ? arguments[2] : "caption en", exif: true))
            {
                GenerateOptions options = new GenerateOptions();
                options.OnText = (row, text, token) =>
                {
                    Console.Write(text);
                    Console.Out.Flush();
                    return true;
                };
                using (model.Generate(processor, inputs, options)) Console.WriteLine();
            }
            return 0;
        }
        catch (PaligemmaException failed)
        {
            Console.Error.WriteLine("Caption: " + failed.Message);
            return 1;
        }
    }
}
