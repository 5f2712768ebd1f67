//! What a caller may choose, and which of the faces of an image count.

use crate::detect::Detection;
use crate::error::{Error, Result};
use dcz::SessionOptions;
use dcz_format::pipeline::{InputSize, Pipeline};

/// Options of a pipeline; what is `None` is taken from the file. Start from `default()` and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Threads, instruction set, accepted error, plans kept, and the memory budget of all stages together. The network is
    /// ignored.
    pub session: SessionOptions,
    /// Size at which the detector sees an image.
    pub size: Option<InputSize>,
    /// Least score of a face.
    pub score: Option<f32>,
    /// Overlap above which the weaker of two faces is dropped.
    pub nms: Option<f32>,
    /// Most faces per image.
    pub max_faces: Option<usize>,
    /// Where the decision changes.
    pub threshold: Option<f32>,
    /// Most pixels of an image.
    pub max_pixels: u64,
    /// Most pixels of the detector's input, padding included.
    pub max_input_pixels: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            session: SessionOptions::default(),
            size: None,
            score: None,
            nms: None,
            max_faces: None,
            threshold: None,
            max_pixels: 100_000_000,
            max_input_pixels: 16_777_216,
        }
    }
}

impl Options {
    /// Sets the session's options: threads, memory budget.
    pub fn with_session(mut self, session: SessionOptions) -> Self {
        self.session = session;
        self
    }

    /// Sets the size at which the detector sees an image.
    pub fn with_size(mut self, size: InputSize) -> Self {
        self.size = Some(size);
        self
    }

    /// Overrides the file's values.
    pub(crate) fn apply(&self, record: &mut Pipeline) -> Result<()> {
        let detect = &mut record.detect;
        for (name, value, to) in [
            ("score", self.score, &mut detect.score),
            ("overlap", self.nms, &mut detect.nms),
        ] {
            if let Some(value) = value {
                if !(0.0..=1.0).contains(&value) {
                    let why = format!("{name} {value} is not within 0 to 1");
                    return Err(Error::Options(why));
                }
                *to = value;
            }
        }
        match self.size {
            Some(InputSize::LongestSide(0)) => {
                return Err(Error::Options("the longest side is zero".into()));
            }
            Some(size) => detect.size = size,
            None => {}
        }
        if let Some(threshold) = self.threshold {
            if !threshold.is_finite() {
                let why = format!("the threshold {threshold} is no number");
                return Err(Error::Options(why));
            }
            record.compare.threshold = Some(threshold);
            record.compare.fpr = None;
        }
        if let Some(most) = self.max_faces {
            detect.max_faces = u32::try_from(most).unwrap_or(u32::MAX);
        }
        Ok(())
    }
}

/// Which of the faces of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All, by falling score.
    #[default]
    All,
    /// The so many largest, by falling area (then score).
    Largest(usize),
    /// The so many that are most likely meant, by falling [`prominence`] (then score). Decisions about two images use
    /// the first.
    Main(usize),
}

impl Selection {
    /// Keeps the selected faces, of those found in an image of `size` (width, height), in the selection's order.
    pub fn apply(self, size: [u32; 2], faces: &mut Vec<Detection>) {
        // Stable: equal ones stay in the order of scores.
        match self {
            Selection::All => {}
            Selection::Largest(count) => {
                faces.sort_by(|a, b| b.area().total_cmp(&a.area()));
                faces.truncate(count);
            }
            Selection::Main(count) => {
                faces.sort_by(|a, b| prominence(b, size).total_cmp(&prominence(a, size)));
                faces.truncate(count);
            }
        }
    }
}

/// How much a face looks like the subject of an image of `size` (width, height): the area of its box, times one minus the
/// distance of the box's centre from the image's over half the diagonal (`docs/decisions/0007-which-face.md`).
pub fn prominence(face: &Detection, size: [u32; 2]) -> f32 {
    let [width, height] = size.map(|v| v as f32);
    let [x, y, w, h] = face.rect;
    let off = f32::hypot(x + (w - width) / 2.0, y + (h - height) / 2.0);
    face.area() * (1.0 - off / (f32::hypot(width, height) / 2.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::LANDMARKS;

    fn face(rect: [f32; 4], score: f32) -> Detection {
        Detection {
            rect,
            landmarks: [[0.0; 2]; LANDMARKS],
            score,
        }
    }

    #[test]
    fn selections() {
        let centred = face([40.0, 40.0, 20.0, 20.0], 0.7);
        let larger_aside = face([0.0, 0.0, 24.0, 24.0], 0.8);
        let outside = face([-80.0, -80.0, 60.0, 60.0], 0.9);
        let all = [outside, larger_aside, centred];
        let pick = |selection: Selection| {
            let mut faces = all.to_vec();
            selection.apply([100, 100], &mut faces);
            faces
        };
        assert_eq!(pick(Selection::All), all);
        assert_eq!(pick(Selection::Largest(2)), [outside, larger_aside]);
        assert_eq!(pick(Selection::Main(1)), [centred]);
        assert_eq!(pick(Selection::Main(9)), [centred, larger_aside, outside]);
        // Equal ones stay in the order of scores.
        let mut twins = vec![
            face([60.0, 0.0, 9.0, 9.0], 0.9),
            face([31.0, 0.0, 9.0, 9.0], 0.8),
        ];
        Selection::Main(2).apply([100, 9], &mut twins);
        assert_eq!(twins[0].score, 0.9);
    }

    #[test]
    fn prominence_falls_with_the_distance_from_the_centre() {
        let at = |x: f32| prominence(&face([x, 45.0, 10.0, 10.0], 1.0), [100, 100]);
        assert_eq!(at(45.0), 100.0);
        assert!(at(30.0) < at(45.0) && at(0.0) < at(30.0));
        assert_eq!(at(1e6), 0.0);
    }
}
