//! Photos through a file with a pipeline: faces of each, or the decision about two.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::images;
use crate::photo_bench;
use crate::report::{self, Console};
use dcz::Model;
use dcz_face::{Detection, Face, FacePipeline, Image, Landmarks, Options, Selection};
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

/// Colour of boxes and landmarks.
const COLOUR: [u8; 3] = [0, 255, 0];
/// Name endings of images in a folder.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];
/// No face where one is needed.
const NO_FACE: u8 = 9;
/// Some of many images failed.
const SOME_FAILED: u8 = 8;

/// Runs the pipeline on the images of the command line.
pub fn run(arguments: &Arguments, model: &Model, console: &Console) -> Result<u8, Failure> {
    if !arguments.rect.is_empty() || arguments.output.is_some() {
        return Err(Failure::usage(
            "--rect and --output go with one network of the file: say --network",
        ));
    }
    let mut options = Options::default();
    options.session = arguments.options()?;
    options.size = arguments.size;
    options.score = arguments.score;
    options.nms = arguments.nms;
    options.max_faces = arguments.max_faces;
    options.threshold = arguments.threshold;
    options.max_pixels = arguments.max_pixels;
    let mut pipeline = FacePipeline::new(model, options)?;
    if let (Some(runs), [path]) = (arguments.bench, arguments.images.as_slice()) {
        let photo = Photo::open(arguments, path)?;
        let done = photo_bench::run(
            &mut pipeline,
            &photo.view()?,
            runs,
            arguments.profile,
            console,
        );
        return done.map_err(|e| photo.failure(e));
    }
    if arguments.profile
        && (arguments.images.len() > 1 || arguments.images.iter().any(|p| p.is_dir()))
    {
        return Err(Failure::usage("--profile goes with one photo"));
    }
    if arguments.pairwise() {
        return verify(arguments, &mut pipeline, console);
    }
    match arguments.images.as_slice() {
        [path] if !path.is_dir() => one(arguments, &mut pipeline, path, console),
        _ if arguments.draw.is_some() || arguments.landmarks.is_some() => {
            Err(Failure::usage("--draw and --landmarks go with one image"))
        }
        paths => many(arguments, &mut pipeline, &files(paths)?),
    }
}

/// A decoded image.
struct Photo {
    path: PathBuf,
    pixels: RgbImage,
}

impl Photo {
    fn open(arguments: &Arguments, path: &Path) -> Result<Photo, Failure> {
        Ok(Photo {
            path: path.to_owned(),
            pixels: images::decode(path, Some(arguments.max_pixels))?,
        })
    }
    fn view(&self) -> Result<Image<'_>, Failure> {
        let (width, height) = self.pixels.dimensions();
        Image::new(width, height, self.pixels.as_raw()).map_err(|e| self.failure(e))
    }
    /// An error about this image.
    fn failure(&self, error: dcz_face::Error) -> Failure {
        Failure {
            code: error.exit_code(),
            ..Failure::input(&self.path, error.to_string().replace('\n', " "))
        }
    }
    /// The faces asked for; writes crops when asked to.
    fn faces(
        &self,
        arguments: &Arguments,
        pipeline: &mut FacePipeline,
    ) -> Result<Vec<Face>, Failure> {
        let image = self.view()?;
        let mut found = match &arguments.landmarks {
            Some(landmarks) => vec![given(landmarks)],
            None => pipeline.detect(&image).map_err(|e| self.failure(e))?,
        };
        arguments.faces.apply(image.size(), &mut found);
        let mut faces = Vec::with_capacity(found.len());
        for (index, detection) in found.into_iter().enumerate() {
            let embedding = pipeline.embed_landmarks(&image, &detection.landmarks);
            faces.push(Face {
                detection,
                embedding: embedding.map_err(|e| self.failure(e))?,
            });
            if let Some(folder) = &arguments.save_crops {
                let [width, height] = pipeline.record().align.size;
                let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
                let name = folder.join(format!("{stem}_{}.png", index + 1));
                std::fs::create_dir_all(folder).map_err(|e| Failure::io(folder, e))?;
                if let Some(crop) = RgbImage::from_raw(width, height, pipeline.last_crop().to_vec())
                {
                    save(&name, &crop)?;
                }
            }
        }
        Ok(faces)
    }
}

/// A face whose landmarks the caller knows: its box is theirs.
fn given(landmarks: &Landmarks) -> Detection {
    let end = |axis: usize, pick: fn(f32, f32) -> f32| {
        landmarks
            .iter()
            .map(|p| p[axis])
            .reduce(pick)
            .unwrap_or(0.0)
    };
    let (x, y) = (end(0, f32::min), end(1, f32::min));
    Detection {
        rect: [x, y, end(0, f32::max) - x, end(1, f32::max) - y],
        landmarks: *landmarks,
        score: 1.0,
    }
}

fn one(
    arguments: &Arguments,
    pipeline: &mut FacePipeline,
    path: &Path,
    console: &Console,
) -> Result<u8, Failure> {
    let mut photo = Photo::open(arguments, path)?;
    if arguments.profile {
        let (width, height) = photo.pixels.dimensions();
        let ready = pipeline.prepare(width, height);
        ready.map_err(|e| photo.failure(e))?;
        pipeline.set_profiling(true);
    }
    let faces = photo.faces(arguments, pipeline)?;
    report::profiles(console, pipeline);
    for (index, face) in faces.iter().enumerate() {
        let Detection {
            rect,
            landmarks,
            score,
        } = &face.detection;
        let list = |values: &[f32]| {
            let texts: Vec<String> = values.iter().map(|v| format!("{v:.2}")).collect();
            texts.join(" ")
        };
        console.line(&format!("face {}: score {score:.4}", index + 1));
        console.line(&format!("  box {}", list(rect)));
        console.line(&format!("  landmarks {}", list(landmarks.as_flattened())));
        let vector: Vec<String> = face.embedding.iter().map(f32::to_string).collect();
        console.line(&format!("  embedding {}", vector.join(" ")));
    }
    let mut value = json_of(&photo, &faces);
    value["memory_bytes"] = json!(pipeline.memory().total);
    value["peak_rss_bytes"] = json!(dcz::process_memory().peak);
    console.result(&value);
    if let Some(target) = &arguments.draw {
        for face in &faces {
            draw(&mut photo.pixels, &face.detection);
        }
        save(target, &photo.pixels)?;
        console.line(&format!("wrote {}", target.display()));
    }
    if faces.is_empty() {
        return Err(Failure {
            code: NO_FACE,
            message: format!("{}: no face", path.display()),
        });
    }
    Ok(0)
}

fn json_of(photo: &Photo, faces: &[Face]) -> Value {
    let faces: Vec<Value> = faces
        .iter()
        .map(|face| {
            json!({
                "box": face.detection.rect,
                "landmarks": face.detection.landmarks,
                "score": face.detection.score,
                "embedding": face.embedding,
            })
        })
        .collect();
    json!({
        "file": photo.path.display().to_string(),
        "width": photo.pixels.width(),
        "height": photo.pixels.height(),
        "faces": faces,
    })
}

/// One line of JSON per image; images that fail have a line too.
fn many(
    arguments: &Arguments,
    pipeline: &mut FacePipeline,
    paths: &[PathBuf],
) -> Result<u8, Failure> {
    let bar = progress_bar(paths.len());
    let mut failed = 0usize;
    for path in paths {
        let line = Photo::open(arguments, path)
            .and_then(|photo| Ok(json_of(&photo, &photo.faces(arguments, pipeline)?)));
        let line = line.or_else(|failure| match failure.code {
            // What concerns one image; a budget or a full disk concerns all.
            4 | 5 | 7 if arguments.save_crops.is_none() || failure.code != 7 => {
                failed += 1;
                Ok(json!({ "file": path.display().to_string(), "error": failure.message }))
            }
            _ => Err(failure),
        })?;
        if bar
            .suspend(|| writeln!(std::io::stdout(), "{line}"))
            .is_err()
        {
            // The reader has seen enough.
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed > 0 {
        return Err(Failure {
            code: SOME_FAILED,
            message: format!("{failed} of {} images failed", paths.len()),
        });
    }
    Ok(0)
}

/// On standard error; hidden when that is no terminal.
fn progress_bar(len: usize) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} (left: {eta})")
    {
        bar.set_style(style);
    }
    bar
}

/// The files of the command line; folders stand for the images in them, by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| Failure::io(path, e))? {
            let file = entry.map_err(|e| Failure::io(path, e))?.path();
            let ending = file.extension().unwrap_or_default().to_string_lossy();
            if ENDINGS.contains(&ending.to_lowercase().as_str()) {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Failure::input(path, "no PNG, JPEG, WebP or BMP image"));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn verify(
    arguments: &Arguments,
    pipeline: &mut FacePipeline,
    console: &Console,
) -> Result<u8, Failure> {
    let mut vectors = Vec::with_capacity(2);
    for path in &arguments.images {
        let photo = Photo::open(arguments, path)?;
        let found = pipeline.embed_selected(&photo.view()?, Selection::Main(1));
        let face = found.map_err(|e| photo.failure(e))?.pop();
        let face = face.ok_or_else(|| Failure {
            code: NO_FACE,
            message: format!("{}: no face", path.display()),
        })?;
        vectors.push(face.embedding);
    }
    let [first, second] = vectors.as_slice() else {
        return Err(Failure::usage("verify compares two images"));
    };
    let result = pipeline.compare(first, second);
    let (mut fields, code) = report::verification(console, &result);
    fields.insert("memory_bytes".into(), json!(pipeline.memory().total));
    fields.insert("peak_rss_bytes".into(), json!(dcz::process_memory().peak));
    console.result(&fields.into());
    match result.same {
        Some(_) => Ok(code),
        None => Err(report::undecided()),
    }
}

/// The outline of the box and a dot per landmark.
fn draw(image: &mut RgbImage, face: &Detection) {
    let (width, height) = image.dimensions();
    let line = i64::from(width.max(height) / 320 + 1);
    let mut fill = |x: i64, y: i64, w: i64, h: i64| {
        for y in y.max(0)..(y + h).min(height.into()) {
            for x in x.max(0)..(x + w).min(width.into()) {
                if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) {
                    image.put_pixel(x, y, image::Rgb(COLOUR));
                }
            }
        }
    };
    // Far beyond the image is as good as just beyond it.
    let [x, y, w, h] = face.rect.map(|v| v.round().clamp(-1e6, 1e6) as i64);
    fill(x, y, w, line);
    fill(x, y + h - line, w, line);
    fill(x, y, line, h);
    fill(x + w - line, y, line, h);
    for [x, y] in face
        .landmarks
        .map(|p| p.map(|v| v.round().clamp(-1e6, 1e6) as i64))
    {
        fill(x - line, y - line, 2 * line + 1, 2 * line + 1);
    }
}

/// Writes a PNG file, whole or not at all.
fn save(path: &Path, image: &RgbImage) -> Result<(), Failure> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Failure::io(path, e))?;
    crate::arrays::write_whole(path, bytes.get_ref())
}
