//! The crate `dcz-face` as a program uses it: buffers with gaps, limits, errors with their codes.

use dcz_face::{
    Error, FacePipeline, Image, InputSize, Model, Options, Selection, SessionOptions, Threads,
};
use dcz_tests::markers::Canvas;
use dcz_tests::photos::{Folder, landmarks};

fn view(canvas: &Canvas) -> Image<'_> {
    let [width, height] = canvas.size.map(|v| v as u32);
    Image::new(width, height, &canvas.pixels).unwrap()
}

#[test]
fn rows_with_gaps_change_nothing() {
    let folder = Folder::new();
    let mut faces = FacePipeline::open(folder.bundle(), Options::default()).unwrap();
    let canvas = Canvas::new(150, 130).face([72, 56], 1, 0, 0);
    let wanted = faces.embed(&view(&canvas)).unwrap();
    let stride = 150 * 3 + 17;
    let mut gaps = vec![255; stride * 130];
    for (to, from) in gaps.chunks_mut(stride).zip(canvas.pixels.chunks(450)) {
        to[..450].copy_from_slice(from);
    }
    let image = Image::with_stride(150, 130, stride, &gaps).unwrap();
    assert_eq!(faces.embed(&image).unwrap(), wanted);
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].embedding.len(), faces.embedding_len());
    let found = wanted[0].detection.landmarks;
    for (a, b) in found.as_flattened().iter().zip(landmarks([72, 56])) {
        assert!((a - b).abs() < 0.01);
    }
}

#[test]
fn pipelines_of_one_model_agree_on_all_threads() {
    let folder = Folder::new();
    let model = Model::open(folder.bundle()).unwrap();
    let canvas = Canvas::new(256, 160).face([120, 80], 4, 0, 0);
    let run = |threads: Threads| {
        let session = SessionOptions::default().with_threads(threads);
        let options = Options::default().with_session(session);
        let mut faces = FacePipeline::new(&model, options).unwrap();
        // Sizes come and go; what was seen before changes nothing.
        faces.detect(&view(&Canvas::new(64, 96))).unwrap();
        faces.embed(&view(&canvas)).unwrap()
    };
    let wanted = run(Threads::Inline);
    std::thread::scope(|scope| {
        let others = [1, 2].map(|n| scope.spawn(move || run(Threads::Own(n))));
        for other in others {
            assert_eq!(other.join().unwrap(), wanted);
        }
    });
}

#[test]
fn decisions_and_errors() {
    let folder = Folder::new();
    let file = folder.bundle();
    let mut faces = FacePipeline::open(&file, Options::default()).unwrap();
    let draw = |person: u64| Canvas::new(160, 160).face([72, 72], person, 0, 0);
    let (a, b, none) = (draw(1), draw(2), Canvas::new(160, 160));
    assert_eq!(faces.verify(&view(&a), &view(&a)).unwrap().same, Some(true));
    let other = faces.verify(&view(&a), &view(&b)).unwrap();
    assert_eq!(other.same, Some(false));
    for (first, second, index) in [(&none, &a, 1), (&a, &none, 2)] {
        let error = faces.verify(&view(first), &view(second)).unwrap_err();
        assert!(matches!(error, Error::NoFace { image } if image == index));
        assert_eq!(error.exit_code(), 9);
    }
    assert_eq!(
        faces
            .embed_selected(&view(&none), Selection::Main(1))
            .unwrap(),
        []
    );
    let open = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        FacePipeline::open(&file, options)
    };
    for change in [
        (|o| o.score = Some(f32::NAN)) as fn(&mut Options),
        |o| o.nms = Some(1.5),
        |o| o.size = Some(InputSize::LongestSide(0)),
        |o| o.threshold = Some(f32::INFINITY),
    ] {
        assert_eq!(open(change).unwrap_err().exit_code(), 2);
    }
    let strict = open(|o| o.threshold = Some(1.1));
    assert_eq!(
        strict.unwrap().verify(&view(&a), &view(&a)).unwrap().same,
        Some(false)
    );
    for change in [(|o| o.max_pixels = 25_599) as fn(&mut Options), |o| {
        o.max_input_pixels = 25_599
    }] {
        let error = open(change).unwrap().detect(&view(&a)).unwrap_err();
        assert!(matches!(error, Error::Image(_)), "{error}");
        assert_eq!(error.exit_code(), 5);
    }
    assert_eq!(
        FacePipeline::open("missing.dcz", Options::default())
            .unwrap_err()
            .exit_code(),
        7
    );
}
