//! Reading MP4 boxes: a walk over sibling boxes and bounds-checked big-endian fields. Bytes in, slices out; nothing
//! here panics, allocates or believes a length it was told.

use std::fmt;
use thiserror::Error;

/// A box type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that are not the MP4 they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BoxError {
    /// The bytes end inside a box.
    #[error("box `{kind}` at byte {at} ends {missing} bytes after its container does")]
    Truncated {
        /// Its type; zeros where not even that is there.
        kind: FourCc,
        /// Position of the box.
        at: usize,
        /// How far beyond the end it claims to reach.
        missing: u64,
    },
    /// A box smaller than its own header.
    #[error("box `{kind}` at byte {at} says it is {size} bytes long, which is less than its header")]
    Undersized {
        /// Its type.
        kind: FourCc,
        /// Position of the box.
        at: usize,
        /// The size it states.
        size: u64,
    },
    /// A field lies outside its box.
    #[error("box `{kind}` is too short for its fields")]
    Short {
        /// The box.
        kind: FourCc,
    },
    /// A required box is not there.
    #[error("no `{kind}` box in `{parent}`")]
    Missing {
        /// The absent box.
        kind: FourCc,
        /// Where it was looked for.
        parent: FourCc,
    },
}

/// What a box header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxHeader {
    /// Type.
    pub kind: FourCc,
    /// Length of the header: 8, or 16 with a 64-bit size.
    pub header: usize,
    /// Length of the whole box, header included; `None` when it reaches to the end of the file.
    pub size: Option<u64>,
}

/// Reads the header at the front of `bytes`. `Ok(None)` means that more bytes are needed to tell: this is what a reader
/// of a stream uses to find box boundaries.
pub fn header(bytes: &[u8]) -> Result<Option<BoxHeader>, BoxError> {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let kind = FourCc([head[4], head[5], head[6], head[7]]);
    let (header, size) = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
        0 => (8, None),
        1 => match rest.first_chunk::<8>() {
            Some(large) => (16, Some(u64::from_be_bytes(*large))),
            None => return Ok(None),
        },
        size => (8, Some(u64::from(size))),
    };
    match size {
        Some(size) if size < header as u64 => Err(BoxError::Undersized { kind, at: 0, size }),
        _ => Ok(Some(BoxHeader { kind, header, size })),
    }
}

/// One box inside a slice.
#[derive(Debug, Clone, Copy)]
pub struct BoxRef<'a> {
    /// Type.
    pub kind: FourCc,
    /// Position of the header's first byte in the bytes that were walked.
    pub at: usize,
    /// The whole box.
    pub whole: &'a [u8],
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> BoxRef<'a> {
    /// Position of the body's first byte in the bytes that were walked.
    pub fn body_at(&self) -> usize {
        self.at + (self.whole.len() - self.body.len())
    }

    /// A reader of its fields.
    pub fn fields(&self) -> Fields<'a> {
        Fields { kind: self.kind, rest: self.body }
    }

    /// The first child of a type. Positions in it count from this box's body.
    pub fn child(&self, kind: &[u8; 4]) -> Result<BoxRef<'a>, BoxError> {
        self.find(kind)?.ok_or(BoxError::Missing { kind: FourCc(*kind), parent: self.kind })
    }

    /// The first child of a type, if there is one.
    pub fn find(&self, kind: &[u8; 4]) -> Result<Option<BoxRef<'a>>, BoxError> {
        for child in Boxes::new(self.body) {
            let child = child?;
            if child.kind.0 == *kind {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }
}

/// Walks sibling boxes. After an error it ends.
#[derive(Debug, Clone)]
pub struct Boxes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Boxes<'a> {
    /// The boxes that lie back to back in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn read(&mut self) -> Result<BoxRef<'a>, BoxError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let found = header(rest).map_err(|e| match e {
            BoxError::Undersized { kind, size, .. } => BoxError::Undersized { kind, at, size },
            other => other,
        })?;
        let Some(found) = found else {
            return Err(BoxError::Truncated {
                kind: FourCc([0; 4]),
                at,
                missing: 8u64.saturating_sub(rest.len() as u64).max(1),
            });
        };
        let size = found.size.unwrap_or(rest.len() as u64);
        let Some(whole) = usize::try_from(size).ok().and_then(|s| rest.get(..s)) else {
            return Err(BoxError::Truncated { kind: found.kind, at, missing: size - rest.len() as u64 });
        };
        self.at = at + whole.len();
        Ok(BoxRef { kind: found.kind, at, whole, body: &whole[found.header..] })
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<BoxRef<'a>, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let found = self.read();
        if found.is_err() {
            self.at = self.bytes.len();
        }
        Some(found)
    }
}

/// Big-endian fields, one after the other.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    kind: FourCc,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], BoxError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(BoxError::Short { kind: self.kind })?;
        self.rest = rest;
        Ok(*field)
    }
    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), BoxError> {
        self.rest = self.rest.get(len..).ok_or(BoxError::Short { kind: self.kind })?;
        Ok(())
    }
    /// The next 16 bits.
    pub fn u16(&mut self) -> Result<u16, BoxError> {
        self.take().map(u16::from_be_bytes)
    }
    /// The next 32 bits.
    pub fn u32(&mut self) -> Result<u32, BoxError> {
        self.take().map(u32::from_be_bytes)
    }
    /// The next 32 bits, signed.
    pub fn i32(&mut self) -> Result<i32, BoxError> {
        self.take().map(i32::from_be_bytes)
    }
    /// The next 64 bits.
    pub fn u64(&mut self) -> Result<u64, BoxError> {
        self.take().map(u64::from_be_bytes)
    }
    /// Version and flags of a full box.
    pub fn version(&mut self) -> Result<(u8, u32), BoxError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }
    /// A field that has 64 bits in version 1 and 32 before.
    pub fn sized(&mut self, version: u8) -> Result<u64, BoxError> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }
    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
        out.extend_from_slice(kind);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn siblings_are_walked_with_their_positions() {
        let bytes = [boxed(b"free", b"ab"), boxed(b"moof", &boxed(b"mfhd", &[0; 8]))].concat();
        let found: Vec<_> = Boxes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!((found[0].at, found[0].body), (0, &b"ab"[..]));
        assert_eq!((found[1].at, found[1].body_at()), (10, 18));
        assert_eq!(found[1].child(b"mfhd").unwrap().body.len(), 8);
        assert_eq!(found[1].child(b"traf").unwrap_err().to_string(), "no `traf` box in `moof`");
    }

    #[test]
    fn large_and_open_sizes_are_understood() {
        let mut large = vec![0, 0, 0, 1];
        large.extend_from_slice(b"mdat");
        large.extend_from_slice(&18u64.to_be_bytes());
        large.extend_from_slice(b"xy");
        let found = Boxes::new(&large).next().unwrap().unwrap();
        assert_eq!((found.body, found.body_at()), (&b"xy"[..], 16));
        let open = [&[0, 0, 0, 0][..], b"mdat", b"to the end"].concat();
        let found = Boxes::new(&open).next().unwrap().unwrap();
        assert_eq!(found.body, b"to the end");
        assert_eq!(header(&open).unwrap().unwrap().size, None);
    }

    #[test]
    fn a_stream_reader_is_told_when_more_is_needed() {
        assert_eq!(header(&[0, 0, 0, 9, b'm']).unwrap(), None);
        assert_eq!(header(&[0, 0, 0, 1, b'm', b'd', b'a', b't', 0]).unwrap(), None);
        let known = header(&[0, 0, 0, 99, b'm', b'd', b'a', b't']).unwrap().unwrap();
        assert_eq!(known.size, Some(99));
    }

    #[test]
    fn lying_sizes_are_errors_and_end_the_walk() {
        let small = boxed(b"free", b"").iter().map(|b| if *b == 8 { 7 } else { *b }).collect::<Vec<_>>();
        let mut walk = Boxes::new(&small);
        assert!(matches!(walk.next(), Some(Err(BoxError::Undersized { size: 7, .. }))));
        assert!(walk.next().is_none());
        let mut beyond = boxed(b"mdat", b"abc");
        beyond[3] = 200;
        let text = Boxes::new(&beyond).next().unwrap().unwrap_err().to_string();
        assert!(text.contains("mdat") && text.contains("189"), "{text}");
        assert!(Boxes::new(b"abc").next().unwrap().is_err());
    }
}
