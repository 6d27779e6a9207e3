// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Streams what a model says about an image: caption MODEL IMAGE [PROMPT]
use paligemma::{ControlFlow, EncodeOptions, GenerateOptions, Image, Model, Processor};
use std::io::{self, Write};

fn run(folder: &str, path: &str, prompt: &str) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(folder)?;
    let processor = Processor::open(folder)?;
    let upright = EncodeOptions {
        exif: true,
        ..EncodeOptions::default()
    };
    let inputs = processor.encode_with(Some(&Image::from_path(path)?), prompt, &upright)?;
    let mut lost = None; // standard output is gone
    let mut on_text = |_row: usize, text: &str, _token: i64| {
        let mut out = io::stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                lost = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    model.generate(
        Some(&processor),
        &inputs,
        GenerateOptions {
            on_text: Some(&mut on_text),
            ..Default::default()
        },
    )?;
    match lost {
        Some(error) => Err(error.into()),
        None => Ok(writeln!(io::stdout())?),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let failed = match arguments.as_slice() {
        [_, folder, path] => run(folder, path, "caption en").map_err(|error| error.to_string()),
        [_, folder, path, prompt] => run(folder, path, prompt).map_err(|error| error.to_string()),
        _ => Err("usage: caption MODEL IMAGE [PROMPT]".into()),
    };
    if let Err(message) = failed {
        eprintln!("caption: {}", message);
        std::process::exit(1);
    }
}
