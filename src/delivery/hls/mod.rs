//! HTTP Live Streaming (RFC 8216): CMAF segments as they were encoded, and a playlist that is live while the recording runs
//! (`EVENT`) and ends with it.
//!
//! The playlist is all the state there is: whoever goes on with a recording reads it back ([`Playlist::read`]).

pub mod cipher;
pub mod retime;

use std::fmt::Write;

use date::{parse_time, time};

use crate::task::timeline::SAMPLE_RATE;

mod date;

/// Media type of a playlist (RFC 8216, section 4).
pub const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";

/// A segment in the playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Address, relative to the playlist.
    pub uri: String,
    /// Length, samples at 48 kHz.
    pub samples: u64,
    /// Length in bytes, as stored.
    pub bytes: u64,
    /// When its first sample was recorded, unix milliseconds, where that does not follow from what comes before.
    pub wall_ms: Option<u64>,
    /// Its time stamps do not go on from the segment before.
    pub discontinuity: bool,
    /// Address of its init segment, where that is another than before.
    pub init: Option<String>,
}

/// How segments are encrypted (AES-128, section 4.3.2.4). Init segments are not: they hold nothing of what was recorded,
/// and without an IV in the playlist they could not be (section 4.3.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTag {
    /// Where players find the key.
    pub uri: String,
    /// Initialisation vector in hex digits; the media sequence number if absent.
    pub iv: Option<String>,
}

/// A playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playlist {
    /// Whose it is: nobody else writes it.
    pub owner: String,
    /// Longest segment, whole seconds (section 4.3.3.1: rounded to the nearest).
    pub target_seconds: u64,
    /// Encryption.
    pub key: Option<KeyTag>,
    /// Segments; the first has media sequence number 0.
    pub entries: Vec<Entry>,
    /// No more will come.
    pub ended: bool,
    /// These are only the newest ones.
    pub window: Option<Window>,
}

/// What comes before a playlist without its past (section 6.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Segments.
    pub segments: usize,
    /// Of these, or the first one that is left, that do not go on from the one before.
    pub discontinuities: usize,
}

fn init(entries: &[Entry]) -> Option<&str> {
    entries.iter().rev().find_map(|e| e.init.as_deref())
}

fn wall_ms(entries: &[Entry]) -> Option<u64> {
    let at = entries.iter().rposition(|e| e.wall_ms.is_some())?;
    let since: u64 = entries[at..].iter().map(|e| e.samples).sum();
    Some(entries[at].wall_ms? + since * 1000 / SAMPLE_RATE)
}

impl Playlist {
    /// Without segments. `segment`: length of one, samples.
    pub fn new(owner: String, segment: u64, key: Option<KeyTag>) -> Self {
        let target_seconds = ((segment + SAMPLE_RATE / 2) / SAMPLE_RATE).max(1);
        Self { owner, target_seconds, key, entries: Vec::new(), ended: false, window: None }
    }

    /// Recorded samples.
    pub fn samples(&self) -> u64 {
        self.entries.iter().map(|e| e.samples).sum()
    }

    /// Bytes of playlist and segments together.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.bytes).sum::<u64>() + self.text().len() as u64
    }

    /// Address of the init segment that counts at the end.
    pub fn init(&self) -> Option<&str> {
        init(&self.entries)
    }

    /// When the next segment begins if nothing interrupts it, unix milliseconds.
    pub fn wall_ms(&self) -> Option<u64> {
        wall_ms(&self.entries)
    }

    /// The newest segments alone, for whoever watches it grow and not from its beginning.
    pub fn newest(&self, most: usize) -> Self {
        let first = self.entries.len().saturating_sub(most);
        let (before, rest) = self.entries.split_at(first);
        let mut entries = rest.to_vec();
        let mut discontinuities = before.iter().filter(|e| e.discontinuity).count();
        if let Some(entry) = entries.first_mut() {
            // What counts there has been said before.
            entry.init = entry.init.take().or(init(before).map(Into::into));
            entry.wall_ms = entry.wall_ms.or(wall_ms(before));
            discontinuities += usize::from(std::mem::take(&mut entry.discontinuity));
        }
        Self {
            owner: self.owner.clone(),
            target_seconds: self.target_seconds,
            key: self.key.clone(),
            entries,
            ended: self.ended,
            window: Some(Window { segments: first, discontinuities }),
        }
    }

    /// The text. Version 6: `EXT-X-MAP` in a playlist with media (section 7).
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(300 + self.entries.len() * 64);
        let sequence = self.window.map_or(0, |w| w.segments);
        let _ = write!(
            out,
            "#EXTM3U\n#EXT-X-VERSION:6\n# panorec {}\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n",
            self.owner, self.target_seconds
        );
        let _ = match self.window {
            None => writeln!(out, "#EXT-X-PLAYLIST-TYPE:{}", if self.ended { "VOD" } else { "EVENT" }),
            Some(w) => writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", w.discontinuities),
        };
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        for (n, entry) in self.entries.iter().enumerate() {
            if entry.discontinuity {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if let Some(init) = &entry.init {
                if self.key.is_some() && n > 0 {
                    out.push_str("#EXT-X-KEY:METHOD=NONE\n");
                }
                let _ = writeln!(out, "#EXT-X-MAP:URI=\"{init}\"");
                if let Some(key) = &self.key {
                    let iv = key.iv.as_ref().map_or(String::new(), |iv| format!(",IV=0x{iv}"));
                    let _ = writeln!(out, "#EXT-X-KEY:METHOD=AES-128,URI=\"{}\"{iv}", key.uri);
                }
            }
            if let Some(ms) = entry.wall_ms {
                let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", time(ms));
            }
            let seconds = entry.samples as f64 / SAMPLE_RATE as f64;
            let _ = write!(out, "# {}\n#EXTINF:{seconds:.6},\n{}\n", entry.bytes, entry.uri);
        }
        if self.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        }
        out
    }

    /// A playlist that [`text`](Self::text) wrote; `None` for any other.
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == "#EXTM3U").then_some(())?;
        let mut list = Self::new(String::new(), 0, None);
        list.target_seconds = 0;
        let blank =
            || Entry { uri: String::new(), samples: 0, bytes: 0, wall_ms: None, discontinuity: false, init: None };
        let mut next = blank();
        for line in lines {
            if let Some(owner) = line.strip_prefix("# panorec ") {
                list.owner = owner.into();
            } else if let Some(bytes) = line.strip_prefix("# ") {
                next.bytes = bytes.parse().ok()?;
            } else if let Some(seconds) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                list.target_seconds = seconds.parse().ok()?;
            } else if line == "#EXT-X-DISCONTINUITY" {
                next.discontinuity = true;
            } else if let Some(uri) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                next.init = Some(uri.strip_suffix('"')?.into());
            } else if let Some(key) = line.strip_prefix("#EXT-X-KEY:METHOD=AES-128,URI=\"") {
                let (uri, rest) = key.split_once('"')?;
                list.key = Some(KeyTag { uri: uri.into(), iv: rest.strip_prefix(",IV=0x").map(Into::into) });
            } else if let Some(at) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                next.wall_ms = Some(parse_time(at)?);
            } else if let Some(seconds) = line.strip_prefix("#EXTINF:") {
                let seconds: f64 = seconds.strip_suffix(',')?.parse().ok()?;
                next.samples = (seconds * SAMPLE_RATE as f64).round() as u64;
            } else if line == "#EXT-X-ENDLIST" {
                list.ended = true;
            } else if !line.starts_with('#') {
                list.entries.push(Entry { uri: line.into(), ..std::mem::replace(&mut next, blank()) });
            }
        }
        (!list.owner.is_empty() && list.target_seconds > 0).then_some(list)
    }
}

#[cfg(test)]
mod tests;
