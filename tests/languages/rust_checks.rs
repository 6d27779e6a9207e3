// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! The crate `paligemma` on the demo model: rust_checks MODEL IMAGE
use paligemma::*;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const CAPTION: &str = "a red circle, a purple star and a yellow triangle";

fn shared<T: Send + Sync>() {}
fn movable<T: Send>() {}

/// True when the call panicked with this number.
fn panics<T>(number: u32, call: impl FnOnce() -> Result<T>) -> bool {
    match catch_unwind(AssertUnwindSafe(call)) {
        Err(payload) => payload.downcast_ref::<u32>() == Some(&number),
        Ok(_) => false,
    }
}

fn fails<T>(status: i32, call: Result<T>) -> bool {
    matches!(call, Err(error) if error.status() == status && !error.to_string().is_empty())
}

fn errors(model: &Model, processor: &Processor, image: &Image) {
    assert!(fails(sys::PG_ERROR_NOT_FOUND, Model::open("/nowhere/at/all")));
    assert!(fails(sys::PG_ERROR_NOT_FOUND, Processor::open("/nowhere/at/all")));
    assert!(fails(sys::PG_ERROR_ARGUMENT, Model::open("a\0b")));
    assert!(fails(
        sys::PG_ERROR_ARGUMENT,
        processor.encode(Some(image), "caption\0en")
    ));
    assert!(fails(
        sys::PG_ERROR_IO,
        Image::from_path("/").and_then(|folder| processor.encode(Some(&folder), ""))
    ));
    let pixels = [0u8; 8 * 8 * 3 - 1];
    let short = Image::from_pixels(sys::PG_IMAGE_RGB8, 8, 8, &pixels, 0).unwrap();
    assert!(fails(sys::PG_ERROR_ARGUMENT, processor.encode(Some(&short), "")));
    let inputs = processor.encode(Some(image), "caption en").unwrap();
    assert!(fails(sys::PG_ERROR_NOT_FOUND, inputs.tensor("nothing")));
    let options = GenerateOptions {
        n_threads: 5000,
        ..Default::default()
    };
    assert!(fails(
        sys::PG_ERROR_ARGUMENT,
        model.generate(Some(processor), &inputs, options)
    ));
    let cancel = Cancel::new().unwrap();
    cancel.request();
    let options = GenerateOptions {
        cancel: Some(&cancel),
        ..Default::default()
    };
    assert!(fails(
        sys::PG_ERROR_CANCELLED,
        model.generate(Some(processor), &inputs, options)
    ));
    let mut stop = |_: i32, _: i64, _: i64| ControlFlow::Break(());
    let options = GenerateOptions {
        progress: Some(&mut stop),
        ..Default::default()
    };
    assert!(fails(
        sys::PG_ERROR_CANCELLED,
        model.generate(Some(processor), &inputs, options)
    ));
}

fn answers(model: &Model, processor: &Processor, inputs: &Inputs) {
    let (mut streamed, mut n_done, mut n_logits) = (String::new(), 0, 0);
    let mut on_text = |row: usize, text: &str, _: i64| {
        assert_eq!(row, 0);
        streamed.push_str(text);
        ControlFlow::Continue(())
    };
    let mut progress = |_: i32, done: i64, _: i64| {
        n_done += done;
        ControlFlow::Continue(())
    };
    let mut on_logits = |_: usize, ids: &[i64], logits: &mut [f32]| {
        assert!(!ids.is_empty() && logits.len() > 1000);
        n_logits += 1;
        ControlFlow::Continue(())
    };
    let options = GenerateOptions {
        flags: sys::PG_GENERATE_LOG_PROBS,
        on_text: Some(&mut on_text),
        on_logits: Some(&mut on_logits),
        progress: Some(&mut progress),
        ..Default::default()
    };
    let given = model.generate(Some(processor), inputs, options).unwrap();
    assert_eq!((given.n_rows(), given.text(0), given.text(1)), (1, CAPTION, ""));
    assert!(streamed == CAPTION && n_done > 0 && n_logits > 3);
    let ids = given.ids(0).unwrap();
    let log_probs = given.tensor(0, "log_probs").unwrap();
    assert_eq!(ids.as_i64().unwrap().len(), log_probs.as_f32().unwrap().len());
    assert!(ids.as_f32().is_none() && ids.shape().len() == 1);
    assert_eq!(processor.decode(ids.as_i64().unwrap()).unwrap(), CAPTION);
    let info = given.info(0).unwrap();
    assert_eq!((info.stop, info.n_new_tokens), (sys::PG_STOP_EOS, ids.shape()[0]));
    // the logits are the row's own: with everything but eos kept out it ends at once
    let eos = *ids.as_i64().unwrap().last().unwrap() as usize;
    let mut end = |_: usize, _: &[i64], logits: &mut [f32]| {
        for (id, logit) in logits.iter_mut().enumerate() {
            *logit = if id == eos { 0.0 } else { f32::NEG_INFINITY };
        }
        ControlFlow::Continue(())
    };
    let ended = model.generate(
        Some(processor),
        inputs,
        GenerateOptions {
            on_logits: Some(&mut end),
            ..Default::default()
        },
    );
    assert_eq!(ended.unwrap().ids(0).unwrap().as_i64().unwrap(), &[eos as i64]);
    let stopped = GenerateOptions {
        stop_strings: &["circle"],
        ..Default::default()
    };
    assert_eq!(
        model.generate(Some(processor), inputs, stopped).unwrap().text(0),
        "a red circle"
    );

    let prompt = processor.encode(None, "caption en").unwrap();
    let features = model.features(inputs, 1).unwrap();
    assert_eq!(features.tensor().unwrap().shape().len(), 3);
    let options = GenerateOptions {
        features: Some(&features),
        ..Default::default()
    };
    assert_eq!(
        model.generate(Some(processor), &prompt, options).unwrap().text(0),
        CAPTION
    );

    let scores = model.score(processor, inputs, &["a red circle", "a cat"]).unwrap();
    assert!(scores[0].probability > scores[1].probability && scores[0].n_tokens > 1);
    let outputs = model.forward(inputs, sys::PG_FORWARD_LAST_HIDDEN).unwrap();
    assert_eq!(outputs.tensor("last_hidden_state").unwrap().shape()[0], 1);
    assert!(model.config("text_config.hidden_size").unwrap().parse::<i64>().unwrap() > 0);
}

fn objects(model: &Model, processor: &Processor, image: &Image, folder: &str) {
    let inputs = processor
        .encode(Some(image), "segment red circle ; yellow triangle")
        .unwrap();
    let options = GenerateOptions {
        flags: sys::PG_GENERATE_LOG_PROBS,
        ..Default::default()
    };
    let given = model.generate(Some(processor), &inputs, options).unwrap();
    let sizes = inputs.tensor("image_sizes").unwrap().as_i64().unwrap().to_vec();
    let (width, height) = (sizes[1] as i32, sizes[0] as i32);
    let found = Objects::of_row(processor, &given, 0, (width, height), sys::PG_BOX_1023).unwrap();
    assert_eq!(found.len(), 2);
    let circle = found.get(0).unwrap();
    assert_eq!(
        (circle.label, found.get(1).unwrap().label),
        ("red circle", "yellow triangle")
    );
    for (number, pixels) in circle.bounds.unwrap().iter().zip([0.0, 24.0, 96.0, 120.0]) {
        assert!((number - pixels).abs() < 12.0);
    }
    assert!(circle.score.unwrap() > 0.5);
    let decoder = MaskDecoder::open(folder).unwrap();
    let mut mask = vec![0u8; (width * height) as usize];
    found.mask(0, &decoder, &mut mask).unwrap();
    let inside = mask.iter().filter(|&&value| value >= 128).count();
    assert!((6500..8000).contains(&inside));
    assert!(fails(sys::PG_ERROR_ARGUMENT, found.mask(0, &decoder, &mut mask[1..])));
    assert!(fails(sys::PG_ERROR_ARGUMENT, found.get(2)));
}

fn sessions(model: &Model, processor: &Processor, inputs: &Inputs) {
    let n_progress = Arc::new(AtomicUsize::new(0));
    let counted = n_progress.clone();
    let progress = move |_: i32, _: i64, _: i64| {
        counted.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let options = SessionOptions {
        progress: Some(Box::new(progress)),
        ..Default::default()
    };
    let mut session = Session::new(model, options).unwrap();
    let mut pieces = processor.detokenizer().unwrap();
    // another thread may go on with it
    let text = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut text = String::new();
            session.prefill(inputs, None).unwrap();
            loop {
                match session.step().unwrap() {
                    Step::Token(token) => text.push_str(pieces.push(token).unwrap()),
                    Step::Eos(_) => break,
                    other => panic!("found {:?}", other),
                }
            }
            text.push_str(pieces.flush().unwrap());
            assert!(session.logits().unwrap().as_f32().unwrap().len() > 1000);
            (text, session)
        });
        let (text, session) = worker.join().unwrap();
        drop(session);
        text
    });
    assert_eq!(text, CAPTION);
    assert!(n_progress.load(Ordering::Relaxed) > 3);
    assert_eq!(Arc::strong_count(&n_progress), 1); // the session's callback is gone
    let mut session = Session::new(
        model,
        SessionOptions {
            max_new_tokens: 1,
            ..Default::default()
        },
    )
    .unwrap();
    assert!(fails(sys::PG_ERROR_STATE, session.step()));
    session.prefill(inputs, None).unwrap();
    assert!(matches!(
        session
            .sample(Sampling {
                random: true,
                seed: 1,
                ..Default::default()
            })
            .unwrap(),
        Step::Token(_)
    ));
    assert_eq!(session.step().unwrap(), Step::Length);
    let mut session = Session::new(model, SessionOptions::default()).unwrap();
    session.prefill(inputs, None).unwrap();
    session.feed(&processor.tokenize("a").unwrap()[..1]).unwrap();
}

/// Panics of every callback come out of the call, and the same call works behind it.
fn panicking(model: &Model, processor: &Processor, inputs: &Inputs, folder: &str) {
    let mut on_text = |_: usize, _: &str, _: i64| -> ControlFlow<()> { std::panic::panic_any(1u32) };
    let options = GenerateOptions {
        on_text: Some(&mut on_text),
        ..Default::default()
    };
    assert!(panics(1, || model.generate(Some(processor), inputs, options)));
    let mut on_logits = |_: usize, _: &[i64], _: &mut [f32]| -> ControlFlow<()> { std::panic::panic_any(2u32) };
    let options = GenerateOptions {
        on_logits: Some(&mut on_logits),
        ..Default::default()
    };
    assert!(panics(2, || model.generate(Some(processor), inputs, options)));
    let mut progress = |_: i32, _: i64, _: i64| -> ControlFlow<()> { std::panic::panic_any(3u32) };
    let options = GenerateOptions {
        progress: Some(&mut progress),
        ..Default::default()
    };
    assert!(panics(3, || model.generate(Some(processor), inputs, options)));
    let mut progress = |_: i32, _: i64, _: i64| -> ControlFlow<()> { std::panic::panic_any(4u32) };
    assert!(panics(4, || Model::open_with(
        folder,
        ModelOptions {
            progress: Some(&mut progress),
            ..Default::default()
        }
    )));
    let log: Box<LogFn> = Box::new(|_, _| std::panic::panic_any(5u32));
    assert!(panics(5, || Model::open_with(
        folder,
        ModelOptions {
            log: Some(log),
            ..Default::default()
        }
    )));
    let armed = Arc::new(AtomicUsize::new(0));
    let seen = armed.clone();
    let log: Box<LogFn> = Box::new(move |_, line| {
        assert!(!line.is_empty());
        if seen.load(Ordering::Relaxed) == 1 {
            std::panic::panic_any(6u32);
        }
    });
    let logged = Processor::open_with(folder, Some(log)).unwrap();
    armed.store(1, Ordering::Relaxed);
    let pixels = [1u8; 8 * 8 * 4]; // transparent ones are warned of
    let transparent = Image::from_pixels(sys::PG_IMAGE_RGBA8, 8, 8, &pixels, 0).unwrap();
    assert!(panics(6, || logged.encode(Some(&transparent), "")));
    armed.store(0, Ordering::Relaxed);
    assert!(logged.encode(Some(&transparent), "").is_ok());
    let answered = model
        .generate(Some(&logged), inputs, GenerateOptions::default())
        .unwrap();
    drop(logged);
    assert_eq!(Arc::strong_count(&armed), 2); // the answers keep the log
    drop(answered);
    assert_eq!(Arc::strong_count(&armed), 1);
    let mut session = Session::new(
        model,
        SessionOptions {
            progress: Some(Box::new(|_, _, _| std::panic::panic_any(7u32))),
            ..Default::default()
        },
    )
    .unwrap();
    assert!(panics(7, || session.prefill(inputs, None)));
    // a call within a callback has its own panics; one that it does not catch comes out of both
    let mut inner_panics = 0;
    let mut nested = |_: usize, _: &str, _: i64| {
        let mut inner = |_: usize, _: &str, _: i64| -> ControlFlow<()> { std::panic::panic_any(8u32) };
        let options = GenerateOptions {
            on_text: Some(&mut inner),
            ..Default::default()
        };
        inner_panics += usize::from(panics(8, || model.generate(Some(processor), inputs, options)));
        ControlFlow::Break(())
    };
    let options = GenerateOptions {
        on_text: Some(&mut nested),
        ..Default::default()
    };
    model.generate(Some(processor), inputs, options).unwrap();
    assert_eq!(inner_panics, 1);
    let mut nested = |_: usize, _: &str, _: i64| -> ControlFlow<()> {
        let mut inner = |_: usize, _: &str, _: i64| -> ControlFlow<()> { std::panic::panic_any(9u32) };
        let options = GenerateOptions {
            on_text: Some(&mut inner),
            ..Default::default()
        };
        model.generate(Some(processor), inputs, options).unwrap();
        ControlFlow::Continue(())
    };
    let options = GenerateOptions {
        on_text: Some(&mut nested),
        ..Default::default()
    };
    assert!(panics(9, || model.generate(Some(processor), inputs, options)));
    assert_eq!(
        model
            .generate(Some(processor), inputs, GenerateOptions::default())
            .unwrap()
            .text(0),
        CAPTION
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (folder, path) = (&arguments[1], &arguments[2]);
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<u32>().is_none() {
            eprintln!("{}", info);
        }
    }));
    shared::<Model>();
    shared::<Processor>();
    shared::<Inputs>();
    shared::<Features>();
    shared::<Answers>();
    shared::<Objects>();
    shared::<MaskDecoder>();
    shared::<Outputs>();
    shared::<Cancel>();
    movable::<Session>();
    movable::<Detokenizer>();
    assert!(!version().is_empty());
    let model = Model::open(folder).unwrap();
    let processor = Processor::open(folder).unwrap();
    let image = Image::from_path(path).unwrap();
    let inputs = processor.encode(Some(&image), "caption en").unwrap();
    let bytes = std::fs::read(path).unwrap();
    let same = processor
        .encode(Some(&Image::from_bytes(&bytes).unwrap()), "caption en")
        .unwrap();
    assert_eq!(
        inputs.tensor("pixel_values").unwrap().as_f32().unwrap(),
        same.tensor("pixel_values").unwrap().as_f32().unwrap()
    );
    errors(&model, &processor, &image);
    answers(&model, &processor, &inputs);
    objects(&model, &processor, &image, folder);
    sessions(&model, &processor, &inputs);
    panicking(&model, &processor, &inputs, folder);
    // one model for several threads
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let options = GenerateOptions {
                    n_threads: 1,
                    ..Default::default()
                };
                assert_eq!(
                    model.generate(Some(&processor), &inputs, options).unwrap().text(0),
                    CAPTION
                );
            });
        }
    });
    println!("rust: fine");
}
