//! Augmentations: mirror, jitter of the crop, colour, mixtures of two pictures; and the random numbers of training.
//!
//! The teacher answers for any picture, so a mixture of two faces (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019) is as good as
//! a third one. Everything follows from (seed, image, variant): a run repeats, and goes on from a checkpoint that knows
//! nothing of it. Costs less than a millisecond for 112 x 112 pixels, about a hundredth of a training step.

use std::str::FromStr;

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

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f32 {
        (self.number() >> 40) as f32 / (1u64 << 24) as f32
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
    /// Pixels on every side that are not part of the image: what turning and shifting bring in.
    pub margin: u32,
}

/// How strong augmentations are, and how many pictures get them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Share of pictures that are mirrored.
    pub flip: f32,
    /// 1: shifted by up to 4 % of the size, scaled by up to 10 % along both axes, turned by up to 10 degrees.
    pub geometry: f32,
    /// 1: brightness, contrast, saturation and gamma changed by up to 30 %.
    pub colour: f32,
    /// Share that is blurred, or seen through fewer pixels.
    pub blur: f32,
    /// Share with noise, a standard deviation of up to 16 of 255.
    pub noise: f32,
    /// Share with a rectangle of one colour, up to half as wide and as high as the picture.
    pub erase: f32,
    /// Share mixed with another picture, 20 to 80 % of each.
    pub blend: f32,
    /// Share of which one side of a line is another picture's.
    pub paste: f32,
}

impl Default for Augment {
    fn default() -> Augment {
        Augment {
            flip: 0.5,
            geometry: 0.5,
            colour: 0.5,
            blur: 0.1,
            noise: 0.1,
            erase: 0.1,
            blend: 0.3,
            paste: 0.3,
        }
    }
}

impl FromStr for Augment {
    type Err = String;

    /// `none`, or `NAME=AMOUNT,...`; what is not named is as by default.
    fn from_str(text: &str) -> Result<Augment, String> {
        if text == "none" {
            return Ok(Augment::NONE);
        }
        let mut augment = Augment::default();
        for part in text.split(',') {
            let (name, amount) = part.split_once('=').unwrap_or((part, ""));
            let (field, most) = match name.trim() {
                "flip" => (&mut augment.flip, 1.0),
                "geometry" => (&mut augment.geometry, 2.0),
                "colour" => (&mut augment.colour, 2.0),
                "blur" => (&mut augment.blur, 1.0),
                "noise" => (&mut augment.noise, 1.0),
                "erase" => (&mut augment.erase, 1.0),
                "blend" => (&mut augment.blend, 1.0),
                "paste" => (&mut augment.paste, 1.0),
                _ => {
                    return Err(format!(
                        "'{name}': expected none, or flip, geometry, colour, blur, noise, erase, blend, paste, each with =AMOUNT"
                    ));
                }
            };
            *field = amount
                .trim()
                .parse()
                .ok()
                .filter(|v| (0.0..=most).contains(v))
                .ok_or_else(|| format!("'{part}': the amount must be a number from 0 to {most}"))?;
        }
        if augment.blend + augment.paste > 1.0 {
            return Err("blend and paste are shares of the pictures, together at most 1".into());
        }
        Ok(augment)
    }
}

impl Augment {
    /// No augmentation.
    pub const NONE: Augment = Augment {
        flip: 0.0,
        geometry: 0.0,
        colour: 0.0,
        blur: 0.0,
        noise: 0.0,
        erase: 0.0,
        blend: 0.0,
        paste: 0.0,
    };

    /// A variant of a picture. `other` gives a second picture, chosen by the random numbers; it is only asked when needed.
    ///
    /// Errors: [`Error::Input`] for a picture whose bytes do not fit its size, those of `other`.
    pub fn apply(
        &self,
        picture: &Picture,
        random: &mut Random,
        other: &mut dyn FnMut(&mut Random) -> Result<Picture, Error>,
    ) -> Result<Picture, Error> {
        let mut canvas = self.placed(picture, random)?;
        let kind = random.unit();
        if kind < self.blend + self.paste {
            let second = self.placed(&other(random)?, random)?;
            if (second.width, second.height) == (canvas.width, canvas.height) {
                if kind < self.blend {
                    canvas.blend(&second, 0.5 + 0.3 * random.signed());
                } else {
                    canvas.paste(&second, random);
                }
            }
        }
        if random.unit() < self.erase {
            canvas.erase(random);
        }
        if random.unit() < self.blur {
            canvas.blur(random);
        }
        canvas.colour(0.3 * self.colour, random);
        if random.unit() < self.noise {
            canvas.noise(16.0 * random.unit(), random);
        }
        Ok(canvas.picture())
    }

    /// Mirrored, shifted, scaled, turned; without the margin.
    fn placed(&self, picture: &Picture, random: &mut Random) -> Result<Canvas, Error> {
        picture.check()?;
        let margin = picture.margin as f32;
        let (width, height) = (
            (picture.width - 2 * picture.margin) as usize,
            (picture.height - 2 * picture.margin) as usize,
        );
        let flip = random.unit() < self.flip;
        let strength = self.geometry;
        let scale_x = 1.0 + 0.1 * strength * random.signed();
        let scale_y = scale_x * (1.0 + 0.05 * strength * random.signed());
        let (sin, cos) = (10f32.to_radians() * strength * random.signed()).sin_cos();
        let shift_x = 0.04 * strength * width as f32 * random.signed();
        let shift_y = 0.04 * strength * height as f32 * random.signed();
        let (cx, cy) = (0.5 * (width as f32 - 1.0), 0.5 * (height as f32 - 1.0));
        let mut rgb = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let x = if flip { width - 1 - x } else { x };
                let (dx, dy) = ((x as f32 - cx) * scale_x, (y as f32 - cy) * scale_y);
                let sx = cos * dx - sin * dy + cx + shift_x + margin;
                let sy = sin * dx + cos * dy + cy + shift_y + margin;
                rgb.push(sample(picture, sx, sy));
            }
        }
        Ok(Canvas { width, height, rgb })
    }
}

impl Picture {
    fn check(&self) -> Result<(), Error> {
        let (width, height) = (self.width as usize, self.height as usize);
        let least = 2 * self.margin as usize;
        if width * height * 3 != self.rgb.len() || width <= least || height <= least {
            return Err(Error::Input("a picture's bytes do not fit its size".into()));
        }
        Ok(())
    }

    /// Without the margin.
    ///
    /// Errors: [`Error::Input`] for a picture whose bytes do not fit its size.
    pub fn inner(&self) -> Result<Picture, Error> {
        self.check()?;
        let margin = self.margin as usize;
        let width = self.width as usize - 2 * margin;
        let height = self.height as usize - 2 * margin;
        let rows = self.rgb.chunks_exact(3 * self.width as usize);
        let rgb = rows
            .skip(margin)
            .take(height)
            .flat_map(|row| row[3 * margin..3 * (margin + width)].iter().copied());
        Ok(Picture {
            width: width as u32,
            height: height as u32,
            rgb: rgb.collect(),
            margin: 0,
        })
    }
}

/// A picture that is worked on, values 0 to 255.
struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<[f32; 3]>,
}

fn mix(a: &mut [f32; 3], b: &[f32; 3], share: f32) {
    a.iter_mut()
        .zip(b)
        .for_each(|(a, b)| *a += share * (b - *a));
}

impl Canvas {
    fn blend(&mut self, other: &Canvas, share: f32) {
        for (a, b) in self.rgb.iter_mut().zip(&other.rgb) {
            mix(a, b, share);
        }
    }

    /// The other picture on one side of a line near the middle; the border is up to a quarter of the picture wide.
    fn paste(&mut self, other: &Canvas, random: &mut Random) {
        let (width, height) = (self.width as f32, self.height as f32);
        let (sin, cos) = (std::f32::consts::PI * random.signed()).sin_cos();
        let cx = width * (0.5 + 0.2 * random.signed());
        let cy = height * (0.5 + 0.2 * random.signed());
        let border = 1.0 + 0.25 * width * random.unit();
        for (i, (a, b)) in self.rgb.iter_mut().zip(&other.rgb).enumerate() {
            let (x, y) = ((i % self.width) as f32, (i / self.width) as f32);
            let distance = cos * (x - cx) + sin * (y - cy);
            mix(a, b, (0.5 + distance / border).clamp(0.0, 1.0));
        }
    }

    fn erase(&mut self, random: &mut Random) {
        let mut side = |length: usize| {
            let size = 1 + random.below((length / 2).max(1));
            let first = random.below(length - size + 1);
            first..first + size
        };
        let (columns, rows) = (side(self.width), side(self.height));
        let colour = std::array::from_fn(|_| 255.0 * random.unit());
        for y in rows {
            self.rgb[y * self.width..][columns.clone()].fill(colour);
        }
    }

    /// One or two passes of 1 2 1 along both axes.
    fn blur(&mut self, random: &mut Random) {
        let (width, height) = (self.width, self.height);
        for _ in 0..1 + random.below(2) {
            for (length, stride, lines, apart) in
                [(width, 1, height, width), (height, width, width, 1)]
            {
                for line in 0..lines {
                    let at = |i: usize| line * apart + i * stride;
                    let mut before = self.rgb[at(0)];
                    for i in 0..length {
                        let (now, after) = (self.rgb[at(i)], self.rgb[at((i + 1).min(length - 1))]);
                        self.rgb[at(i)] =
                            std::array::from_fn(|c| 0.25 * (before[c] + after[c]) + 0.5 * now[c]);
                        before = now;
                    }
                }
            }
        }
    }

    fn colour(&mut self, strength: f32, random: &mut Random) {
        let [light, contrast, saturation, gamma] =
            std::array::from_fn(|_| strength * random.signed());
        if strength == 0.0 {
            return;
        }
        for pixel in &mut self.rgb {
            let gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
            for value in pixel {
                let v = gray + (*value - gray) * (1.0 + saturation);
                let v = (v - 127.5) * (1.0 + contrast) + 127.5 + 127.5 * light;
                *value = 255.0 * (v / 255.0).clamp(0.0, 1.0).powf(1.0 + gamma);
            }
        }
    }

    /// The sum of three uniform numbers is near enough to a normal one.
    fn noise(&mut self, deviation: f32, random: &mut Random) {
        for value in self.rgb.iter_mut().flatten() {
            *value += deviation * (random.signed() + random.signed() + random.signed());
        }
    }

    fn picture(self) -> Picture {
        let bytes = self.rgb.iter().flatten();
        Picture {
            width: self.width as u32,
            height: self.height as u32,
            rgb: bytes.map(|v| v.round().clamp(0.0, 255.0) as u8).collect(),
            margin: 0,
        }
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
            margin: 0,
        }
    }

    fn plain(value: u8) -> Picture {
        Picture {
            width: 16,
            height: 16,
            rgb: vec![value; 768],
            margin: 0,
        }
    }

    fn apply(augment: &Augment, picture: &Picture, parts: &[u64]) -> Picture {
        let other = &mut |_: &mut Random| Ok(plain(200));
        augment
            .apply(picture, &mut Random::new(parts), other)
            .unwrap()
    }

    #[test]
    fn variants_repeat_and_differ() {
        let all = Augment::default();
        assert_eq!(apply(&Augment::NONE, &picture(), &[1, 0]), picture());
        assert_eq!(
            apply(&all, &picture(), &[1, 2]),
            apply(&all, &picture(), &[1, 2])
        );
        assert_ne!(
            apply(&all, &picture(), &[1, 2]),
            apply(&all, &picture(), &[1, 3])
        );
        assert_ne!(
            apply(&all, &picture(), &[1, 2]),
            apply(&all, &picture(), &[2, 2])
        );
    }

    #[test]
    fn a_mirror_is_a_mirror() {
        let only_flip = Augment {
            flip: 0.5,
            ..Augment::NONE
        };
        let flipped = (0..20u64)
            .map(|seed| apply(&only_flip, &picture(), &[seed]))
            .filter(|p| p.rgb != picture().rgb)
            .collect::<Vec<_>>();
        assert!(!flipped.is_empty() && flipped.len() < 20);
        assert_eq!(flipped[0].rgb[..3], picture().rgb[12..15]);
    }

    #[test]
    fn the_margin_goes() {
        let mut with = plain(0);
        with.margin = 4;
        for y in 4..12 {
            with.rgb[(y * 16 + 4) * 3..(y * 16 + 12) * 3].fill(90);
        }
        let inner = with.inner().unwrap();
        assert_eq!((inner.width, inner.rgb), (8, vec![90; 192]));
        assert_eq!(apply(&Augment::NONE, &with, &[1]), with.inner().unwrap());
        // Turned pictures see it.
        let turned: Augment = "geometry=2,blend=0,paste=0".parse().unwrap();
        assert!(apply(&turned, &with, &[1]).rgb.iter().any(|v| *v < 60));
        with.margin = 8;
        assert!(with.inner().is_err());
    }

    #[test]
    fn mixtures_lie_between_their_pictures() {
        let blend = Augment {
            blend: 1.0,
            ..Augment::NONE
        };
        let blended = apply(&blend, &plain(100), &[3]).rgb;
        assert!((120..=180).contains(&blended[0]) && blended.iter().all(|v| *v == blended[0]));
        let paste = Augment {
            paste: 1.0,
            ..Augment::NONE
        };
        let pasted = apply(&paste, &plain(100), &[3]).rgb;
        assert!(pasted.contains(&100) && pasted.contains(&200));
        // A picture of another size is left out.
        assert_eq!(apply(&blend, &picture(), &[3]), picture());
    }

    #[test]
    fn a_blur_keeps_the_mean_and_a_rectangle_is_even() {
        let mut canvas = Augment::NONE
            .placed(&plain(0), &mut Random::new(&[1]))
            .unwrap();
        canvas.rgb[8 * 16 + 8] = [160.0; 3];
        canvas.blur(&mut Random::new(&[1]));
        let sum: f32 = canvas.rgb.iter().map(|p| p[0]).sum();
        assert!((sum - 160.0).abs() < 1e-3 && canvas.rgb[8 * 16 + 8][0] <= 40.0);
        let mut canvas = Augment::NONE
            .placed(&plain(0), &mut Random::new(&[1]))
            .unwrap();
        canvas.erase(&mut Random::new(&[5]));
        let changed: Vec<_> = canvas.rgb.iter().filter(|p| **p != [0.0; 3]).collect();
        assert!(!changed.is_empty() && changed.len() <= 64);
        assert!(changed.iter().all(|p| *p == changed[0]));
    }

    #[test]
    fn amounts() {
        assert_eq!("none".parse(), Ok(Augment::NONE));
        let some: Augment = "blend=0.5,paste=0".parse().unwrap();
        assert_eq!((some.blend, some.paste, some.flip), (0.5, 0.0, 0.5));
        for bad in [
            "",
            "spin=1",
            "blend",
            "blend=2",
            "noise=-1",
            "blend=0.6,paste=0.6",
        ] {
            assert!(bad.parse::<Augment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn permutations_hold_every_number() {
        let mut order = Random::new(&[7]).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
