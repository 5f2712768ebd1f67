//! Primitive fields.

use crate::error::{Error, ErrorKind, Result};

/// Reads fields one after the other; remembers where in the file it is. Its fields are read when a file is opened, and in so many
/// places that copies of them there would be a good part of a small program.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// File offset of `bytes[0]`.
    base: u64,
    max_text: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: u64, max_text: usize) -> Self {
        Reader {
            bytes,
            pos: 0,
            base,
            max_text,
        }
    }
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }
    fn error(&self, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, detail).at(self.offset())
    }
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or(&[])
    }
    #[inline(never)]
    pub(crate) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        match self.rest().get(..n) {
            Some(bytes) => {
                self.pos += n;
                Ok(bytes)
            }
            None => Err(self.error(ErrorKind::RecordTruncated, what)),
        }
    }
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }
    #[inline(never)]
    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }
    #[inline(never)]
    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }
    pub(crate) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
    #[inline(never)]
    pub(crate) fn f32(&mut self, what: &str) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array(what)?))
    }
    /// `n` floats; the caller has bounded `n`, and nothing is allocated unless they are there.
    pub(crate) fn f32s(&mut self, n: usize, what: &str) -> Result<Vec<f32>> {
        let len = n
            .checked_mul(4)
            .ok_or_else(|| self.error(ErrorKind::RecordTruncated, what))?;
        let (chunks, _) = self.take(len, what)?.as_chunks::<4>();
        Ok(chunks.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
    pub(crate) fn f32_array<const N: usize>(&mut self, what: &str) -> Result<[f32; N]> {
        let mut out = [0.0; N];
        for value in &mut out {
            *value = self.f32(what)?;
        }
        Ok(out)
    }
    pub(crate) fn bool(&mut self, what: &str) -> Result<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(self.bad_tag(what, tag)),
        }
    }
    #[inline(never)]
    pub(crate) fn bad_tag(&self, what: &str, tag: u8) -> Error {
        self.error(ErrorKind::BadTag, format!("{what}: {tag}"))
    }
    /// Little-endian base 128, at most 10 bytes, the last of which is not zero (except for zero itself).
    #[inline(never)]
    pub(crate) fn uint(&mut self, what: &str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part || (byte == 0 && shift > 0) {
                return Err(self.error(ErrorKind::BadInteger, what));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(ErrorKind::BadInteger, what))
    }
    #[inline(never)]
    pub(crate) fn uint32(&mut self, what: &str) -> Result<u32> {
        let value = self.uint(what)?;
        u32::try_from(value)
            .map_err(|_| self.error(ErrorKind::BadInteger, format!("{what}: {value}")))
    }
    /// Zigzag.
    pub(crate) fn int32(&mut self, what: &str) -> Result<i32> {
        let value = self.uint32(what)?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }
    /// Number of items that follow: within `limit`, and not more than the rest of the section could hold when each
    /// takes at least `item_bytes`.
    pub(crate) fn count(&mut self, what: &str, limit: u64, item_bytes: usize) -> Result<usize> {
        let count = self.uint(what)?;
        crate::limits::Limits::check(what, count, limit).map_err(|e| e.at(self.offset()))?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count
            .checked_mul(item_bytes)
            .is_none_or(|bytes| bytes > self.rest().len())
        {
            return Err(self.error(
                ErrorKind::RecordTruncated,
                format!("{what}: {count} items announced"),
            ));
        }
        Ok(count)
    }
    pub(crate) fn list<T>(
        &mut self,
        what: &str,
        limit: u64,
        item_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.count(what, limit, item_bytes)?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(item(self)?);
        }
        Ok(out)
    }
    pub(crate) fn option<T>(
        &mut self,
        what: &str,
        item: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.bool(what)? {
            item(self).map(Some)
        } else {
            Ok(None)
        }
    }
    #[inline(never)]
    pub(crate) fn text(&mut self, what: &str) -> Result<String> {
        let limit = self.max_text as u64;
        let len = self.count(what, limit, 1)?;
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.error(ErrorKind::BadText, what)),
        }
    }
    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::RecordTrailing,
            format!("{} bytes", self.rest().len()),
        ))
    }
}

/// The other direction.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn f32(&mut self, value: f32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn f32s(&mut self, values: &[f32]) {
        for value in values {
            self.f32(*value);
        }
    }
    pub(crate) fn uint(&mut self, value: impl Into<u64>) {
        let mut value = value.into();
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }
    pub(crate) fn int32(&mut self, value: i32) {
        self.uint((value << 1 ^ value >> 31) as u32);
    }
    pub(crate) fn count(&mut self, value: usize) {
        self.uint(value as u64);
    }
    pub(crate) fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for value in items {
            item(self, value);
        }
    }
    pub(crate) fn option<T>(&mut self, value: Option<&T>, item: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            item(self, value);
        }
    }
    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip_and_are_minimal() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut w = Writer::default();
            w.uint(value);
            let mut r = Reader::new(&w.bytes, 0, 0);
            assert_eq!(r.uint("x").unwrap(), value);
            r.finish().unwrap();
        }
        for value in [0, 1, -1, i32::MAX, i32::MIN] {
            let mut w = Writer::default();
            w.int32(value);
            assert_eq!(Reader::new(&w.bytes, 0, 0).int32("x").unwrap(), value);
        }
        let long: &[&[u8]] = &[
            &[0x80, 0x00],
            &[0xff, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0x00,
            ],
        ];
        for bytes in long {
            assert_eq!(
                Reader::new(bytes, 0, 0).uint("x").unwrap_err().kind(),
                ErrorKind::BadInteger
            );
        }
    }
}
