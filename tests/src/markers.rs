//! A face detector and an embedder whose answers can be worked out by hand, written as ONNX, and the images they answer to.
//!
//! A "face" is a red block of 8 x 8 pixels at a multiple of 8, or a blue one of 32 x 32 at a multiple of 32, in the middle of a window of
//! 112 x 112 whose 4 x 4 tiles have the colours of the person. The detector has YuNet's outputs: convolutions as large as their
//! stride look at the colour of each cell. Red cells answer with landmarks such that the aligned crop is exactly the window.
//! The embedder's vector is the mean colour of each tile.

use crate::generated::{Builder, dense, int, ints};

/// Side of the window that is embedded, and of its tiles.
pub const WINDOW: usize = 112;
const TILE: usize = 28;
/// Where ArcFace's template has the landmarks.
const TEMPLATE: [[f32; 2]; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// The detector: input `input` 1x3xSxS in BGR order with S = 64 (any multiple of 32 after bundling).
///
/// A cell of stride 8 that is (255, g, b) is a face of score sigmoid(10 - 20 b / 255) whose box has a side of
/// 64 * 4^(g / 255) pixels; its neighbours (and everything without red) have none. A cell of stride 32 that is (0, 0, 255) is
/// a face of score sigmoid(10) with a box of 32 x 32.
pub fn detector() -> Vec<u8> {
    named_detector(&["cls", "obj", "bbox", "kps"])
}

/// The same with other output names: not YuNet's.
pub fn stranger() -> Vec<u8> {
    named_detector(&["scores", "obj", "bbox", "kps"])
}

fn named_detector(kinds: &[&str; 4]) -> Vec<u8> {
    let mut net = Builder::new(1, dense);
    let mut outputs = Vec::new();
    for stride in [8, 16, 32] {
        for kind in kinds {
            let name = format!("{kind}_{stride}");
            let rows = head(kind, stride);
            let cells = ((64 / stride) * (64 / stride)) as i64;
            outputs.push((name.clone(), vec![1, cells, rows.len() as i64]));
            add_head(
                &mut net,
                &name,
                stride,
                &rows,
                *kind == kinds[0] || *kind == "obj",
            );
        }
    }
    let outputs: Vec<(&str, &[i64])> = outputs
        .iter()
        .map(|(name, dims)| (name.as_str(), dims.as_slice()))
        .collect();
    net.finish_all(&[1, 3, 64, 64], &outputs)
}

/// Per value of a head: weights of mean blue, green and red of a cell (in 0..=1), and a bias.
fn head(kind: &str, stride: usize) -> Vec<[f32; 4]> {
    let size = stride as f32;
    match kind {
        "bbox" => {
            let side = if stride == 8 { (64f32 / 8.0).ln() } else { 0.0 };
            let growth = if stride == 8 { 4f32.ln() } else { 0.0 };
            let edge = [0.0, growth, 0.0, side];
            vec![[0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.5], edge, edge]
        }
        // Relative to the cell's corner, in cells: the window's corner lies half a window from the cell's middle.
        "kps" => TEMPLATE
            .iter()
            .flatten()
            .map(|v| [0.0, 0.0, 0.0, (v - (WINDOW / 2) as f32) / size + 0.5])
            .collect(),
        _ => vec![match stride {
            8 => [-20.0, 0.0, 20.0, -10.0],
            32 => [20.0, -40.0, -40.0, -10.0],
            _ => [0.0, 0.0, 0.0, -10.0],
        }],
    }
}

fn add_head(net: &mut Builder, name: &str, stride: usize, rows: &[[f32; 4]], squash: bool) {
    let area = stride * stride;
    let unit = 1.0 / (255.0 * area as f32);
    let weights: Vec<f32> = rows
        .iter()
        .flat_map(|row| row[..3].iter())
        .flat_map(|w| std::iter::repeat_n(w * unit, area))
        .collect();
    let biases: Vec<f32> = rows.iter().map(|row| row[3]).collect();
    let values = rows.len();
    let w = net.constant(format!("{name}_w"), &[values, 3, stride, stride], &weights);
    let b = net.constant(format!("{name}_b"), &[values], &biases);
    let attributes = vec![
        ints("kernel_shape", &[stride as i64; 2]),
        ints("strides", &[stride as i64; 2]),
    ];
    let map = net.node(
        "Conv",
        &["input", &w, &b],
        &format!("{name}_map"),
        attributes,
    );
    let last = ints("perm", &[0, 2, 3, 1]);
    let moved = net.node("Transpose", &[&map], &format!("{name}_moved"), vec![last]);
    let shape = net.integers(format!("{name}_shape"), &[1, -1, values as i64]);
    if squash {
        let flat = net.node(
            "Reshape",
            &[&moved, &shape],
            &format!("{name}_flat"),
            vec![],
        );
        net.node("Sigmoid", &[&flat], name, vec![]);
    } else {
        net.node("Reshape", &[&moved, &shape], name, vec![]);
    }
}

/// The embedder: input `input` 1x3x112x112 (RGB), output `embedding` 1x48: mean red of the tiles, then green, then blue, each
/// minus 64.
pub fn embedder() -> Vec<u8> {
    let mut net = Builder::new(2, dense);
    let area = TILE * TILE;
    let weights: Vec<f32> = (0..9 * area)
        .map(|i| f32::from(u8::from(i / (3 * area) == i / area % 3)) / area as f32)
        .collect();
    let w = net.constant("mean_w".into(), &[3, 3, TILE, TILE], &weights);
    let b = net.constant("mean_b".into(), &[3], &[-64.0; 3]);
    let attributes = vec![
        ints("kernel_shape", &[TILE as i64; 2]),
        ints("strides", &[TILE as i64; 2]),
    ];
    let means = net.node("Conv", &["input", &w, &b], "means", attributes);
    net.node("Flatten", &[&means], "embedding", vec![int("axis", 1)]);
    let side = WINDOW as i64;
    net.finish_all(&[1, 3, side, side], &[("embedding", &[1, 48])])
}

/// An RGB image with faces in it.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// Columns and rows.
    pub size: [usize; 2],
    /// RGB triples.
    pub pixels: Vec<u8>,
}

impl Canvas {
    /// A black image.
    pub fn new(width: usize, height: usize) -> Canvas {
        Canvas {
            size: [width, height],
            pixels: vec![0; width * height * 3],
        }
    }

    /// Fills a rectangle, as far as it lies in the image.
    pub fn fill(&mut self, [x, y, w, h]: [i64; 4], rgb: [u8; 3]) {
        let [width, height] = self.size.map(|v| v as i64);
        for y in y.max(0)..(y + h).min(height) {
            for x in x.max(0)..(x + w).min(width) {
                let at = (y * width + x) as usize * 3;
                self.pixels[at..at + 3].copy_from_slice(&rgb);
            }
        }
    }

    /// Draws a person's window around the cell whose corner is (x, y), and the red block. `green` makes the box larger,
    /// `blue` the score smaller.
    pub fn face(mut self, [x, y]: [usize; 2], person: u64, green: u8, blue: u8) -> Canvas {
        let (x, y) = (x as i64, y as i64);
        let (left, top) = (x + 4 - WINDOW as i64 / 2, y + 4 - WINDOW as i64 / 2);
        for tile in 0..16 {
            let at = [tile % 4, tile / 4].map(|v| v as i64 * TILE as i64);
            let side = TILE as i64;
            self.fill(
                [left + at[0], top + at[1], side, side],
                colour(person, tile),
            );
        }
        self.fill([x, y, 8, 8], [255, green, blue]);
        self
    }

    /// The embedding of the window around the cell whose corner is (x, y), black outside the image.
    pub fn embedding(&self, [x, y]: [usize; 2]) -> Vec<f32> {
        let corner = [x, y].map(|v| v as i64 + 4 - WINDOW as i64 / 2);
        let [width, height] = self.size.map(|v| v as i64);
        let mut sums = vec![0f64; 48];
        for py in 0..WINDOW {
            for px in 0..WINDOW {
                let (ix, iy) = (corner[0] + px as i64, corner[1] + py as i64);
                if ix < 0 || iy < 0 || ix >= width || iy >= height {
                    continue;
                }
                for (channel, value) in self.pixels[(iy * width + ix) as usize * 3..][..3]
                    .iter()
                    .enumerate()
                {
                    sums[channel * 16 + py / TILE * 4 + px / TILE] += f64::from(*value);
                }
            }
        }
        let area = (TILE * TILE) as f64;
        sums.iter().map(|sum| (sum / area - 64.0) as f32).collect()
    }

    /// Twice as large, every pixel four times.
    pub fn doubled(&self) -> Canvas {
        let [width, height] = self.size;
        let mut large = Canvas::new(2 * width, 2 * height);
        for (index, rgb) in large.pixels.chunks_exact_mut(3).enumerate() {
            let (x, y) = (index % (2 * width) / 2, index / (2 * width) / 2);
            rgb.copy_from_slice(&self.pixels[(y * width + x) * 3..][..3]);
        }
        large
    }

    /// Writes the image; the name's ending says how.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn save(&self, path: &std::path::Path) {
        let [width, height] = self.size.map(|v| v as u32);
        let image = image::RgbImage::from_raw(width, height, self.pixels.clone());
        let saved = image.map(|image| image.save(path));
        assert!(matches!(saved, Some(Ok(()))), "{}", path.display());
    }
}

/// Colour of a tile of a person: no red, which is for markers, and never the blue of the large ones.
fn colour(person: u64, tile: u64) -> [u8; 3] {
    let mixed = (person * 16 + tile + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    [0, 64 + (mixed & 127) as u8, (mixed >> 8 & 127) as u8]
}
