//! From a detector's outputs to faces.
//!
//! YuNet (W. Wu, H. Peng, S. Yu, YuNet: a tiny millisecond-level face detector, 2023) answers at strides 8, 16 and 32, one
//! candidate per cell of the grid: two scores whose geometric mean counts, a box relative to the cell (size as
//! exponentials), and five landmarks. Greedy suppression of overlapping boxes costs candidates x faces; both are bounded.
//! Everything is decided by values and positions, never by time or threads: equal scores go by stride, then by cell.

use crate::align::Landmarks;
use dcz_format::pipeline::LANDMARKS;

/// A face that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Left edge, upper edge, width and height in pixels of the image. May reach beyond the image.
    pub rect: [f32; 4],
    /// The landmarks, in pixels of the image.
    pub landmarks: Landmarks,
    /// 0 to 1.
    pub score: f32,
}

impl Detection {
    /// Area of the box.
    pub fn area(&self) -> f32 {
        self.rect[2] * self.rect[3]
    }
    /// Intersection over union of the boxes.
    pub fn overlap(&self, other: &Detection) -> f32 {
        let side = |axis: usize| {
            let end = |d: &Detection| d.rect[axis] + d.rect[axis + 2];
            (end(self).min(end(other)) - self.rect[axis].max(other.rect[axis])).max(0.0)
        };
        let common = side(0) * side(1);
        let union = self.area() + other.area() - common;
        if union > 0.0 { common / union } else { 0.0 }
    }
}

/// A detector's outputs of one stride, one row per cell.
#[derive(Clone, Copy, Debug)]
pub struct StrideOutputs<'a> {
    /// Stride in pixels.
    pub stride: u32,
    /// Cells per row of the grid.
    pub columns: usize,
    /// One per cell.
    pub cls: &'a [f32],
    /// One per cell.
    pub obj: &'a [f32],
    /// Four per cell.
    pub bbox: &'a [f32],
    /// Ten per cell.
    pub kps: &'a [f32],
}

/// Adds the candidates of one stride whose score is at least `least`, in the order of their cells. Candidates that are not finite
/// are none.
pub fn decode(outputs: &StrideOutputs<'_>, least: f32, out: &mut Vec<Detection>) {
    let (boxes, _) = outputs.bbox.as_chunks::<4>();
    let (points, _) = outputs.kps.as_chunks::<{ 2 * LANDMARKS }>();
    let scores = outputs.cls.iter().zip(outputs.obj);
    let stride = outputs.stride as f32;
    for (cell, ((scores, relative), points)) in scores.zip(boxes).zip(points).enumerate() {
        let score = (scores.0.clamp(0.0, 1.0) * scores.1.clamp(0.0, 1.0)).sqrt();
        // Also false for what is no number.
        if !matches!(score.partial_cmp(&least), Some(order) if order.is_ge()) {
            continue;
        }
        let columns = outputs.columns.max(1);
        let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
        let size = [relative[2].exp() * stride, relative[3].exp() * stride];
        let centre = [
            (column + relative[0]) * stride,
            (row + relative[1]) * stride,
        ];
        let mut landmarks = [[0.0; 2]; LANDMARKS];
        for (to, from) in landmarks.iter_mut().zip(points.as_chunks::<2>().0) {
            *to = [(column + from[0]) * stride, (row + from[1]) * stride];
        }
        let rect = [
            centre[0] - size[0] / 2.0,
            centre[1] - size[1] / 2.0,
            size[0],
            size[1],
        ];
        if rect
            .iter()
            .chain(landmarks.as_flattened())
            .all(|v| v.is_finite())
        {
            out.push(Detection {
                rect,
                landmarks,
                score,
            });
        }
    }
}

/// Sorts by falling score and drops what overlaps a better one by more than `overlap`; at most `max` remain.
pub fn suppress(faces: &mut Vec<Detection>, overlap: f32, max: usize) {
    // Stable: equal scores stay in the order of strides and cells.
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept = 0;
    for at in 0..faces.len() {
        if kept >= max {
            break;
        }
        let face = faces[at];
        if faces[..kept].iter().all(|k| k.overlap(&face) <= overlap) {
            faces[kept] = face;
            kept += 1;
        }
    }
    faces.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, score: f32) -> Detection {
        Detection {
            rect: [x, 0.0, 10.0, 10.0],
            landmarks: [[x, 1.0]; LANDMARKS],
            score,
        }
    }

    #[test]
    fn cells_become_faces() {
        let kps: Vec<f32> = (0..60).map(|i| (i % 10) as f32 / 10.0).collect();
        let mut bbox = vec![0.0; 24];
        bbox[16..20].copy_from_slice(&[0.5, 0.25, 0.0, f32::ln(2.0)]);
        bbox[22] = 1e9;
        let outputs = StrideOutputs {
            stride: 16,
            columns: 3,
            cls: &[0.1, f32::NAN, 0.5, 0.0, 0.81, 5.0],
            obj: &[0.1, 1.0, 0.5, 1.0, 1.0, 5.0],
            bbox: &bbox,
            kps: &kps,
        };
        let mut found = Vec::new();
        decode(&outputs, 0.6, &mut found);
        // Cell 4 is column 1, row 1; cell 5 is infinitely wide.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].score, 0.9);
        assert_eq!(found[0].rect, [16.0, 4.0, 16.0, 32.0]);
        assert_eq!(found[0].landmarks[1], [16.0 * 1.2, 16.0 * 1.3]);
        found.clear();
        decode(&outputs, 0.0, &mut found);
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn the_best_of_overlapping_faces_stays() {
        let mut faces = vec![
            face(0.0, 0.7),
            face(2.0, 0.9),
            face(50.0, 0.7),
            face(12.5, 0.8),
        ];
        suppress(&mut faces, 0.3, 10);
        assert_eq!(
            faces.iter().map(|f| f.rect[0]).collect::<Vec<_>>(),
            [2.0, 12.5, 50.0]
        );
        // Equal scores: the first in the list wins.
        let mut equal = vec![face(1.0, 0.7), face(0.0, 0.7), face(30.0, 0.7)];
        suppress(&mut equal, 0.3, 10);
        assert_eq!(
            equal.iter().map(|f| f.rect[0]).collect::<Vec<_>>(),
            [1.0, 30.0]
        );
        let mut many: Vec<_> = (0..100).map(|i| face(i as f32 * 20.0, 0.5)).collect();
        suppress(&mut many, 0.3, 7);
        assert_eq!(many.len(), 7);
        suppress(&mut Vec::new(), 0.3, 7);
    }
}
