//! Images as the caller holds them.

use crate::error::{Error, Result};

/// An 8-bit RGB image: rows top-down, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    width: u32,
    height: u32,
    stride: usize,
    pixels: &'a [u8],
}

impl<'a> Image<'a> {
    /// An image whose rows follow each other without gaps.
    pub fn new(width: u32, height: u32, pixels: &'a [u8]) -> Result<Image<'a>> {
        Image::with_stride(width, height, width as usize * 3, pixels)
    }

    /// An image whose rows begin `stride` bytes apart. The last row may end with its last pixel.
    ///
    /// Errors: an empty image, a stride shorter than a row, too few bytes.
    pub fn with_stride(
        width: u32,
        height: u32,
        stride: usize,
        pixels: &'a [u8],
    ) -> Result<Image<'a>> {
        let row = width as usize * 3;
        let needed = (height as usize)
            .checked_sub(1)
            .and_then(|rows| rows.checked_mul(stride))
            .and_then(|bytes| bytes.checked_add(row));
        if width == 0 || height == 0 {
            return Err(Error::Image("the image is empty".into()));
        }
        if stride < row || needed.is_none_or(|needed| pixels.len() < needed) {
            return Err(Error::Image(format!(
                "{} bytes in rows of {stride} are too few for {width}x{height} pixels",
                pixels.len()
            )));
        }
        Ok(Image {
            width,
            height,
            stride,
            pixels,
        })
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns and rows.
    pub fn size(&self) -> [u32; 2] {
        [self.width, self.height]
    }

    /// A row; empty outside the image.
    pub(crate) fn row(&self, y: usize) -> &'a [u8] {
        if y >= self.height as usize {
            return &[];
        }
        let start = y * self.stride;
        self.pixels
            .get(start..start + self.width as usize * 3)
            .unwrap_or(&[])
    }

    /// The bytes from a row on (none outside the image), and the distance of two rows.
    pub(crate) fn rows_from(&self, y: usize) -> (&'a [u8], usize) {
        let start = y.saturating_mul(self.stride);
        (self.pixels.get(start..).unwrap_or(&[]), self.stride)
    }

    /// A pixel and the one to its right, and those below them; none at the right and lower edge.
    #[inline]
    pub(crate) fn neighbours(&self, x: usize, y: usize) -> Option<(&'a [u8; 6], &'a [u8; 6])> {
        if x + 1 >= self.width as usize || y + 1 >= self.height as usize {
            return None;
        }
        let above = self.pixels.get(y * self.stride + 3 * x..)?;
        let below = above.get(self.stride..)?;
        Some((above.first_chunk()?, below.first_chunk()?))
    }

    /// A pixel; black outside the image.
    pub(crate) fn pixel(&self, x: i64, y: i64) -> [u8; 3] {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else {
            return [0; 3];
        };
        if x >= self.width as usize {
            return [0; 3];
        }
        let rest = self.row(y).get(3 * x..).unwrap_or(&[]);
        rest.first_chunk().copied().unwrap_or([0; 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = [7u8; 20];
        assert!(Image::new(2, 2, &bytes).is_ok());
        assert!(Image::new(0, 2, &bytes).is_err());
        assert!(Image::new(3, 3, &bytes).is_err());
        assert!(Image::new(u32::MAX, u32::MAX, &bytes).is_err());
        assert!(Image::with_stride(2, 2, 5, &bytes).is_err());
        assert!(Image::with_stride(2, 2, usize::MAX, &bytes).is_err());
        // The last row needs no gap behind it.
        let image = Image::with_stride(2, 2, 14, &bytes).unwrap();
        assert_eq!(image.pixel(1, 1), [7; 3]);
        for (x, y) in [(2, 0), (0, 2), (-1, 0), (0, -1), (i64::MAX, 0)] {
            assert_eq!(image.pixel(x, y), [0; 3]);
        }
    }
}
