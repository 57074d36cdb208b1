//! The outer boxes of an MP4 file, read without FFmpeg.

use super::tools::Res;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Box types in file order, top level only.
pub fn top_level(path: &Path) -> Res<Vec<String>> {
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::open(path).map_err(fail)?;
    let end = file.metadata().map_err(fail)?.len();
    let (mut at, mut types) = (0u64, Vec::new());
    while at < end {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).map_err(fail)?;
        file.read_exact(&mut head[..8]).map_err(fail)?;
        let short = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let size = match short {
            0 => end - at,
            1 => {
                file.read_exact(&mut head[8..]).map_err(fail)?;
                head[8..].iter().fold(0u64, |v, b| (v << 8) | u64::from(*b))
            }
            n => u64::from(n),
        };
        if size < 8 || at + size > end {
            return Err(format!("{}: the box at {at} claims {size} bytes of a file of {end}", path.display()));
        }
        types.push(String::from_utf8_lossy(&head[4..8]).into_owned());
        at += size;
    }
    Ok(types)
}

/// Whether the index comes before the media and the file is not fragmented.
pub fn is_faststart(types: &[String]) -> bool {
    let at = |name: &str| types.iter().position(|t| t == name);
    let whole = !types.iter().any(|t| t == "moof" || t == "mfra");
    whole && at("ftyp") == Some(0) && matches!((at("moov"), at("mdat")), (Some(index), Some(media)) if index < media)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_string()).collect()
    }

    #[test]
    fn only_an_index_in_front_of_unfragmented_media_is_faststart() {
        assert!(is_faststart(&types(&["ftyp", "moov", "mdat"])));
        assert!(is_faststart(&types(&["ftyp", "moov", "free", "mdat"])));
        assert!(!is_faststart(&types(&["ftyp", "mdat", "moov"])));
        assert!(!is_faststart(&types(&["ftyp", "moov", "moof", "mdat"])));
        assert!(!is_faststart(&types(&["ftyp", "mdat"])));
        assert!(!is_faststart(&[]));
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("short.mp4");
        std::fs::write(&path, b"\0\0\0\x20ftypisom").unwrap();
        assert!(top_level(&path).unwrap_err().contains("claims 32 bytes"));
    }
}
