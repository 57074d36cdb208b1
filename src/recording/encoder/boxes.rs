//! ISO base media boxes: bounded reading and sized writing.
//!
//! What is read comes from FFmpeg and is still not trusted: every length is checked against what is there, so a
//! hostile size is an error and never a panic or an allocation.

use thiserror::Error;

/// FFmpeg's output is not what was asked for. The text says what and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A box's type.
pub(super) type FourCc = [u8; 4];

/// The size and length of the header of the box that begins `bytes`: `None` while the header is incomplete.
pub(super) fn header(bytes: &[u8]) -> Result<Option<(FourCc, u64, usize)>, Malformed> {
    let mut fields = Fields(bytes);
    let (Ok(short), Ok(kind)) = (fields.u32(), fields.four_cc()) else { return Ok(None) };
    let (size, header) = match short {
        0 => return Err(Malformed::new(format!("box `{}` has no size", name(kind)))),
        1 => match fields.u64() {
            Ok(long) => (long, 16),
            Err(_) => return Ok(None),
        },
        short => (u64::from(short), 8),
    };
    if size < header as u64 {
        return Err(Malformed::new(format!("box `{}` of {size} bytes is shorter than its header", name(kind))));
    }
    Ok(Some((kind, size, header)))
}

/// A type for messages.
pub(super) fn name(kind: FourCc) -> String {
    kind.escape_ascii().to_string()
}

/// The boxes inside `bytes`, in order: type and payload.
pub(super) fn children(mut bytes: &[u8]) -> impl Iterator<Item = Result<(FourCc, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let child = match header(bytes) {
            Ok(Some((kind, size, header))) => {
                match usize::try_from(size).ok().and_then(|n| bytes.split_at_checked(n)) {
                    Some((this, rest)) => {
                        bytes = rest;
                        return Some(Ok((kind, &this[header..])));
                    }
                    None => Err(Malformed::new(format!("box `{}` of {size} bytes leaves its parent", name(kind)))),
                }
            }
            Ok(None) => Err(Malformed::new("box header is cut off")),
            Err(e) => Err(e),
        };
        bytes = &[];
        Some(child)
    })
}

/// The payload of the first child of the given type.
pub(super) fn child<'a>(bytes: &'a [u8], wanted: &FourCc) -> Result<Option<&'a [u8]>, Malformed> {
    for item in children(bytes) {
        let (kind, payload) = item?;
        if kind == *wanted {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

/// Big-endian fields, taken one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) =
            self.0.split_first_chunk::<N>().ok_or_else(|| Malformed::new("box ends before its last field"))?;
        self.0 = tail;
        Ok(*head)
    }
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }
    pub(super) fn four_cc(&mut self) -> Result<FourCc, Malformed> {
        self.array()
    }
    pub(super) fn skip(&mut self, n: usize) -> Result<(), Malformed> {
        self.0 = self.0.get(n..).ok_or_else(|| Malformed::new("box ends before its last field"))?;
        Ok(())
    }
    /// Version and flags of a full box.
    pub(super) fn full(&mut self) -> Result<(u8, u32), Malformed> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }
}

/// Appends a box whose payload `fill` writes; the size is filled in afterwards.
pub(super) fn write(out: &mut Vec<u8>, kind: &FourCc, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    fill(out);
    let size = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a 32-bit field.
pub(super) fn put(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        write(&mut out, b"moof", |out| {
            write(out, b"mfhd", |out| put(out, 7));
            write(out, b"traf", |out| put(out, 9));
        });
        let (kind, size, header) = header(&out).unwrap().unwrap();
        assert_eq!((&kind, size, header), (b"moof", out.len() as u64, 8));
        let traf = child(&out[8..], b"traf").unwrap().unwrap();
        assert_eq!(Fields(traf).u32().unwrap(), 9);
        assert_eq!(child(&out[8..], b"tfdt").unwrap(), None);
    }

    #[test]
    fn hostile_sizes_are_errors() {
        let sized = |n: u32| [&n.to_be_bytes()[..], b"moof", &[0; 8]].concat();
        for n in [2, 7, 17, u32::MAX] {
            assert!(children(&sized(n)).next().unwrap().is_err(), "{n}");
        }
        for n in [0, 7] {
            assert!(header(&sized(n)).is_err(), "{n}");
        }
        let long = |n: u64| [&1u32.to_be_bytes()[..], b"mdat", &n.to_be_bytes(), &[0; 8]].concat();
        assert!(header(&long(15)).is_err());
        for n in [25, u64::MAX] {
            assert!(children(&long(n)).next().unwrap().is_err(), "{n}");
        }
        assert!(children(&[0; 5]).next().unwrap().is_err());
    }
}
