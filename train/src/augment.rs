//! Augmentations: mirror, jitter of the crop, colour; and the random numbers of training.
//!
//! Everything follows from (seed, image, variant), so a teacher's output can be kept per augmented image and a run repeats.

use crate::error::Error;

/// SplitMix64 (Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream for a purpose: the parts are mixed one after the other.
    pub fn new(parts: &[u64]) -> Random {
        let mut random = Random(0x5851_f42d_4c95_7f2d);
        for part in parts {
            random.0 ^= *part;
            random.0 = random.number();
        }
        random
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.number() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.number()) * n as u128) >> 64) as usize
    }

    /// A permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// An RGB image, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `3 width height` bytes.
    pub rgb: Vec<u8>,
}

/// How strong augmentations are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Mirrors half of the images.
    pub flip: bool,
    /// Largest shift of the crop, as a share of its size.
    pub shift: f32,
    /// Largest change of its scale.
    pub zoom: f32,
    /// Largest change of brightness, contrast and saturation.
    pub colour: f32,
}

impl Default for Augment {
    fn default() -> Augment {
        Augment {
            flip: true,
            shift: 0.02,
            zoom: 0.04,
            colour: 0.15,
        }
    }
}

impl Augment {
    /// No augmentation.
    pub const NONE: Augment = Augment {
        flip: false,
        shift: 0.0,
        zoom: 0.0,
        colour: 0.0,
    };

    /// A variant of a picture; variant 0 is the picture.
    ///
    /// Errors: [`Error::Input`] for a picture whose bytes do not fit its size.
    pub fn apply(
        &self,
        picture: &Picture,
        random: &mut Random,
        variant: u32,
    ) -> Result<Picture, Error> {
        let (width, height) = (picture.width as usize, picture.height as usize);
        if width * height * 3 != picture.rgb.len() || picture.rgb.is_empty() {
            return Err(Error::Input("a picture's bytes do not fit its size".into()));
        }
        if variant == 0 {
            return Ok(picture.clone());
        }
        let flip = self.flip && random.number() & 1 == 1;
        let scale = 1.0 + self.zoom * random.signed();
        let shift_x = self.shift * width as f32 * random.signed();
        let shift_y = self.shift * height as f32 * random.signed();
        let (light, contrast) = (
            self.colour * random.signed(),
            1.0 + self.colour * random.signed(),
        );
        let saturation = 1.0 + self.colour * random.signed();
        let mut rgb = Vec::with_capacity(picture.rgb.len());
        let (cx, cy) = (0.5 * (width as f32 - 1.0), 0.5 * (height as f32 - 1.0));
        for y in 0..height {
            for x in 0..width {
                let x = if flip { width - 1 - x } else { x };
                let sx = (x as f32 - cx) * scale + cx + shift_x;
                let sy = (y as f32 - cy) * scale + cy + shift_y;
                let pixel = sample(picture, sx, sy);
                let gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
                for value in pixel {
                    let value = gray + (value - gray) * saturation;
                    let value = (value - 127.5) * contrast + 127.5 + 127.5 * light;
                    rgb.push(value.round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        Ok(Picture {
            width: picture.width,
            height: picture.height,
            rgb,
        })
    }
}

/// Bilinear, edges continued.
fn sample(picture: &Picture, x: f32, y: f32) -> [f32; 3] {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = |x: usize, y: usize, c: usize| f32::from(picture.rgb[(y * width + x) * 3 + c]);
    std::array::from_fn(|c| {
        let top = at(x0, y0, c) * (1.0 - fx) + at(x1, y0, c) * fx;
        let bottom = at(x0, y1, c) * (1.0 - fx) + at(x1, y1, c) * fx;
        top * (1.0 - fy) + bottom * fy
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture {
            width: 5,
            height: 4,
            rgb: (0..60).map(|i| (i * 4) as u8).collect(),
        }
    }

    #[test]
    fn variants_repeat_and_differ() {
        let make = |seed, variant| {
            Augment::default()
                .apply(
                    &picture(),
                    &mut Random::new(&[seed, 3, u64::from(variant)]),
                    variant,
                )
                .unwrap()
        };
        assert_eq!(make(1, 0), picture());
        assert_eq!(make(1, 2), make(1, 2));
        assert_ne!(make(1, 2), make(1, 3));
        assert_ne!(make(1, 2), make(2, 2));
    }

    #[test]
    fn a_mirror_is_a_mirror() {
        let only_flip = Augment {
            flip: true,
            ..Augment::NONE
        };
        let flipped = (0..20u64)
            .map(|seed| {
                only_flip
                    .apply(&picture(), &mut Random::new(&[seed]), 1)
                    .unwrap()
            })
            .filter(|p| p.rgb != picture().rgb)
            .collect::<Vec<_>>();
        assert!(!flipped.is_empty() && flipped.len() < 20);
        assert_eq!(flipped[0].rgb[..3], picture().rgb[12..15]);
    }

    #[test]
    fn permutations_hold_every_number() {
        let mut order = Random::new(&[7]).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
