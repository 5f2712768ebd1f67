//! `identify FACE.dcz PEOPLE PHOTO...`: who is on the photos? PEOPLE is a folder with a photo per person (`ann.jpg`) or a folder
//! of photos per person (`ann/1.jpg`). Enrolment runs on all cores, one pipeline per thread over one shared model; a photo that
//! cannot be used is reported and left out. Every face of a photo is compared with every enrolled one.

use dcz_face::{
    Face, FacePipeline, Image, MemoryBudget, Model, Options, Selection, SessionOptions,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A person and the vector of one photo.
struct Enrolled {
    name: String,
    vector: Vec<f32>,
}

/// A pipeline of its own: one thread, at most 16 MiB; weights kept between runs are shared through the model.
fn pipeline(model: &Model) -> dcz_face::Result<FacePipeline> {
    let session = SessionOptions::default().with_memory_budget(MemoryBudget::Bytes(16 << 20));
    FacePipeline::new(model, Options::default().with_session(session))
}

fn faces(pipeline: &mut FacePipeline, path: &Path, which: Selection) -> Result<Vec<Face>> {
    let pixels = image::open(path)?.into_rgb8();
    let image = Image::new(pixels.width(), pixels.height(), &pixels)?;
    Ok(pipeline.embed_selected(&image, which)?)
}

/// Photos with the person's name: the name of the folder they are in, or their own.
fn photos(people: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(people)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            for photo in std::fs::read_dir(&path)? {
                found.push((name.to_string(), photo?.path()));
            }
        } else {
            found.push((name.to_string(), path));
        }
    }
    found.sort();
    Ok(found)
}

fn enrol(model: &Model, photos: &[(String, PathBuf)]) -> Vec<Enrolled> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = photos.len().div_ceil(cores).max(1);
    let work = |photos: &[(String, PathBuf)]| -> dcz_face::Result<Vec<Enrolled>> {
        let mut pipeline = pipeline(model)?;
        let mut enrolled = Vec::new();
        for (name, path) in photos {
            match faces(&mut pipeline, path, Selection::Main(1)).map(|mut faces| faces.pop()) {
                Ok(Some(face)) => enrolled.push(Enrolled {
                    name: name.clone(),
                    vector: face.embedding,
                }),
                Ok(None) => eprintln!("{}: no face, left out", path.display()),
                Err(error) => eprintln!("{}: {error}, left out", path.display()),
            }
        }
        Ok(enrolled)
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = photos
            .chunks(share)
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut all = Vec::new();
    for part in parts {
        match part {
            Ok(Ok(enrolled)) => all.extend(enrolled),
            Ok(Err(error)) => eprintln!("identify: {error}"),
            Err(_) => eprintln!("identify: a thread ended early"),
        }
    }
    all
}

fn identify(model: &str, people: &str, queries: &[String]) -> Result<()> {
    let model = Model::open(model)?;
    let enrolled = enrol(&model, &photos(Path::new(people))?);
    if enrolled.is_empty() {
        return Err("nobody could be enrolled".into());
    }
    let mut pipeline = pipeline(&model)?;
    for query in queries {
        for face in faces(&mut pipeline, Path::new(query), Selection::All)? {
            // The first of equals; a match decides over a mere likeness.
            let verdicts = enrolled
                .iter()
                .map(|e| (e, pipeline.compare(&e.vector, &face.embedding)));
            let matches = verdicts.filter(|(_, verdict)| verdict.same == Some(true));
            let best = matches.max_by(|a, b| a.1.closeness().total_cmp(&b.1.closeness()));
            let [x, y, ..] = face.detection.rect;
            match best {
                Some((who, verdict)) => println!(
                    "{query} ({x:.0}, {y:.0}): {} ({:.3})",
                    who.name, verdict.value
                ),
                None => println!("{query} ({x:.0}, {y:.0}): nobody enrolled"),
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [model, people, queries @ ..] if !queries.is_empty() => identify(model, people, queries),
        _ => Err("usage: identify FACE.dcz PEOPLE PHOTO...".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("identify: {error}");
            ExitCode::from(2)
        }
    }
}
