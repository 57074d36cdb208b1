//! A strict judge of finished files, for tests of every kind: what the format demands of a faststart MP4, and what we
//! demand of ours beyond that (every payload byte belongs to exactly one sample, nothing is fragmented, the tables agree
//! with each other). It shares no code with the writer but the walk over boxes.

use crate::task::boxes::{BoxRef, Boxes, Fields, header};

/// One sample of a judged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSample {
    /// Position of the first byte in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// Decode time in the track's time scale, edit list not applied.
    pub time: u64,
    /// Duration in the track's time scale.
    pub duration: u32,
    /// Decoding can start here.
    pub sync: bool,
    /// Sample description, counted from 1.
    pub description: u32,
}

/// One track of a judged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTrack {
    /// `vide` or `soun`.
    pub handler: [u8; 4],
    /// Ticks per second.
    pub scale: u32,
    /// Media time shown at 0.
    pub media_start: u64,
    /// What is shown, in the movie's time scale.
    pub shown: u64,
    /// Number of sample descriptions.
    pub descriptions: u32,
    /// Number of chunks.
    pub chunks: usize,
    /// All samples in decoding order.
    pub samples: Vec<FileSample>,
}

/// A judged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Ticks per second of the movie's time scale.
    pub scale: u32,
    /// Length of the movie in that scale.
    pub duration: u64,
    /// Position of the payload.
    pub payload_at: u64,
    /// The tracks.
    pub tracks: Vec<FileTrack>,
}

type Verdict<T> = Result<T, String>;

fn ensure(holds: bool, or: impl FnOnce() -> String) -> Verdict<()> {
    if holds { Ok(()) } else { Err(or()) }
}

/// Judges a file of `length` bytes by its front, which must reach at least to the `mdat`'s payload.
pub fn validate(front: &[u8], length: u64) -> Verdict<File> {
    let (mut at, mut order, mut moov, mut payload_at) = (0u64, Vec::new(), None, 0);
    while at < length {
        let rest = front.get(at as usize..).unwrap_or_default();
        let found = header(rest).map_err(|e| e.to_string())?;
        let found = found.ok_or(format!("no box header at byte {at}"))?;
        let size = found.size.ok_or("a box of open size".to_string())?;
        ensure(size <= length - at, || format!("{} at {at} reaches beyond the file", found.kind))?;
        order.push(found.kind.0);
        match &found.kind.0 {
            b"moov" => moov = Boxes::new(&front[at as usize..]).next(),
            b"mdat" => payload_at = at + found.header as u64,
            _ => {}
        }
        at += size;
    }
    let names: Vec<_> = order.iter().filter(|k| **k != *b"free").collect();
    ensure(names == [b"ftyp", b"moov", b"mdat"], || {
        format!("the file's boxes are {:?}, not ftyp, moov, mdat", order.map_names())
    })?;
    let moov = moov.ok_or("no moov")?.map_err(|e| e.to_string())?;
    nested(&moov)?;
    let mut mvhd = fields(&moov, b"mvhd")?;
    let (scale, duration) = scale_and_duration(&mut mvhd)?;
    let mut tracks = Vec::new();
    let mut places = Vec::new();
    for child in Boxes::new(moov.body).flatten() {
        if &child.kind.0 == b"trak" {
            tracks.push(track(&child, scale, &mut places)?);
        }
    }
    let longest = tracks.iter().map(|t| t.shown).max();
    ensure(longest == Some(duration), || format!("the movie is {duration} long, its longest track {longest:?}"))?;
    places.sort_unstable();
    let mut covered = payload_at;
    for (from, to) in places {
        ensure(from == covered, || format!("bytes {covered}..{from} of the payload belong to no chunk or to two"))?;
        covered = to;
    }
    ensure(covered == length, || format!("chunks end at {covered}, the file at {length}"))?;
    Ok(File { scale, duration, payload_at, tracks })
}

trait MapNames {
    fn map_names(&self) -> Vec<String>;
}
impl MapNames for Vec<[u8; 4]> {
    fn map_names(&self) -> Vec<String> {
        self.iter().map(|k| k.escape_ascii().to_string()).collect()
    }
}

/// Every child of every container begins where the one before it ends, and the last ends with the container.
fn nested(parent: &BoxRef<'_>) -> Verdict<()> {
    let children = match &parent.kind.0 {
        b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"dinf" | b"edts" | b"udta" | b"ilst" => 0,
        b"meta" => 4,
        b"stsd" | b"dref" => 8,
        b"avc1" => 78,
        b"mp4a" => 28,
        b"mvex" => return Err("a movie that is not fragmented has no mvex".into()),
        _ => return Ok(()),
    };
    let body = parent.body.get(children..).ok_or("a container too short")?;
    for child in Boxes::new(body) {
        nested(&child.map_err(|e| format!("in {}: {e}", parent.kind))?)?;
    }
    Ok(())
}

fn child<'a>(parent: &BoxRef<'a>, kind: &[u8; 4]) -> Verdict<BoxRef<'a>> {
    parent.child(kind).map_err(|e| e.to_string())
}

fn fields<'a>(parent: &BoxRef<'a>, kind: &[u8; 4]) -> Verdict<Fields<'a>> {
    Ok(child(parent, kind)?.fields())
}

/// `mvhd` and `mdhd` begin alike.
fn scale_and_duration(fields: &mut Fields<'_>) -> Verdict<(u32, u64)> {
    let mut read = || -> Result<_, crate::task::boxes::BoxError> {
        let (version, _) = fields.version()?;
        fields.skip(if version == 0 { 8 } else { 16 })?;
        Ok((fields.u32()?, fields.sized(version)?))
    };
    read().map_err(|e| e.to_string())
}

/// Reads a table of 32-bit words, `width` to an entry, and demands that it fills its box.
fn table(stbl: &BoxRef<'_>, kind: &[u8; 4], fixed: usize, width: usize) -> Verdict<Vec<Vec<u32>>> {
    let name = kind.escape_ascii();
    let mut fields = fields(stbl, kind)?;
    fields.skip(4 + fixed).map_err(|e| e.to_string())?;
    let count = fields.u32().map_err(|e| e.to_string())? as usize;
    let words: Vec<u32> = fields.rest().chunks(4).map(|w| w.iter().fold(0, |n, b| n << 8 | u32::from(*b))).collect();
    ensure(fields.rest().len() == count * width * 4, || {
        format!("{name} says {count} entries and has {} bytes", fields.rest().len())
    })?;
    Ok(words.chunks(width).map(<[u32]>::to_vec).collect())
}

fn track(trak: &BoxRef<'_>, movie_scale: u32, places: &mut Vec<(u64, u64)>) -> Verdict<FileTrack> {
    let mdia = child(trak, b"mdia")?;
    let (scale, media) = scale_and_duration(&mut fields(&mdia, b"mdhd")?)?;
    let mut hdlr = fields(&mdia, b"hdlr")?;
    hdlr.skip(8).map_err(|e| e.to_string())?;
    let handler = hdlr.take::<4>().map_err(|e| e.to_string())?;
    let stbl = child(&child(&mdia, b"minf")?, b"stbl")?;
    let mut stsd = fields(&stbl, b"stsd")?;
    stsd.skip(4).map_err(|e| e.to_string())?;
    let descriptions = stsd.u32().map_err(|e| e.to_string())?;
    ensure(Boxes::new(stsd.rest()).count() == descriptions as usize, || "stsd counts its entries wrongly".into())?;
    let (chunks, samples) = samples(&stbl, descriptions, places)?;
    let sum = samples.last().map_or(0, |s| s.time + u64::from(s.duration));
    ensure(sum == media, || format!("stts sums to {sum}, mdhd says {media}"))?;
    let (media_start, shown) = edit(trak, scale, media, movie_scale)?;
    Ok(FileTrack { handler, scale, media_start, shown, descriptions, chunks, samples })
}

/// Media start and length shown, which `tkhd` must state too and the media must hold.
fn edit(trak: &BoxRef<'_>, scale: u32, media: u64, movie_scale: u32) -> Verdict<(u64, u64)> {
    let fail = |e: crate::task::boxes::BoxError| e.to_string();
    let mut tkhd = fields(trak, b"tkhd")?;
    let (version, _) = tkhd.version().map_err(fail)?;
    tkhd.skip(if version == 0 { 16 } else { 24 }).map_err(fail)?;
    let shown = tkhd.sized(version).map_err(fail)?;
    let mut media_start = 0;
    if let Some(edts) = trak.find(b"edts").map_err(fail)? {
        let mut elst = fields(&edts, b"elst")?;
        let (version, _) = elst.version().map_err(fail)?;
        ensure(elst.u32().map_err(fail)? == 1, || "more than one edit".into())?;
        let duration = elst.sized(version).map_err(fail)?;
        ensure(duration == shown, || format!("the edit shows {duration}, tkhd says {shown}"))?;
        media_start = elst.sized(version).map_err(fail)?;
    } else {
        let (a, b) = (u128::from(shown) * u128::from(scale), u128::from(media) * u128::from(movie_scale));
        // Without an edit list all of the media is shown; a tick of the coarser scale may be lost in between.
        ensure(a.abs_diff(b) <= u128::from(scale.max(movie_scale)), || {
            format!("tkhd says {shown}, the media is {media} long")
        })?;
    }
    let end = u128::from(media_start) * u128::from(movie_scale) + u128::from(shown) * u128::from(scale);
    ensure(end <= (u128::from(media) + 1) * u128::from(movie_scale), || {
        format!("the edit {media_start} + {shown} ends outside the media ({media})")
    })?;
    Ok((media_start, shown))
}

/// Number of chunks, and all samples; appends each chunk's span of bytes to `places`.
fn samples(stbl: &BoxRef<'_>, descriptions: u32, places: &mut Vec<(u64, u64)>) -> Verdict<(usize, Vec<FileSample>)> {
    let sizes = table(stbl, b"stsz", 4, 1)?;
    let mut durations = Vec::new();
    for run in table(stbl, b"stts", 0, 2)? {
        ensure(run[0] > 0 && durations.len() + run[0] as usize <= sizes.len(), || {
            format!("stts has an empty run or more samples than stsz ({})", sizes.len())
        })?;
        durations.extend(std::iter::repeat_n(run[1], run[0] as usize));
    }
    let sync = match stbl.find(b"stss").map_err(|e| e.to_string())? {
        Some(_) => Some(table(stbl, b"stss", 0, 1)?.concat()),
        None => None,
    };
    if let Some(sync) = &sync {
        let rising = sync.windows(2).all(|w| w[0] < w[1]);
        let inside = sync.first() == Some(&1) && sync.last().is_some_and(|n| *n as usize <= sizes.len());
        ensure(rising && inside, || "stss does not rise from 1 within the samples".into())?;
    }
    let offsets: Vec<u64> = match stbl.find(b"co64").map_err(|e| e.to_string())? {
        Some(_) => table(stbl, b"co64", 0, 2)?.iter().map(|w| u64::from(w[0]) << 32 | u64::from(w[1])).collect(),
        None => table(stbl, b"stco", 0, 1)?.iter().map(|w| w[0].into()).collect(),
    };
    let groups = table(stbl, b"stsc", 0, 3)?;
    ensure(groups.first().is_none_or(|g| g[0] == 1), || "stsc does not begin at chunk 1".into())?;
    ensure(groups.windows(2).all(|w| w[0][0] < w[1][0]), || "stsc does not rise".into())?;
    let (mut out, mut time, mut group) = (Vec::with_capacity(sizes.len()), 0u64, 0);
    for (n, start) in offsets.iter().enumerate() {
        group += usize::from(groups.get(group + 1).is_some_and(|g| g[0] as usize == n + 1));
        let [_, count, description] = groups[group][..] else {
            return Err("stsc".into());
        };
        ensure((1..=descriptions).contains(&description) && count > 0, || {
            format!("chunk {} has {count} samples of description {description}", n + 1)
        })?;
        let mut offset = *start;
        for _ in 0..count {
            let at = out.len();
            let (Some(size), Some(duration)) = (sizes.get(at), durations.get(at)) else {
                return Err(format!("chunks hold more samples than stsz or stts ({at})"));
            };
            out.push(FileSample {
                offset,
                size: size[0],
                time,
                duration: *duration,
                sync: sync.as_ref().is_none_or(|s| s.binary_search(&(at as u32 + 1)).is_ok()),
                description,
            });
            offset += u64::from(size[0]);
            time += u64::from(*duration);
        }
        places.push((*start, offset));
    }
    ensure(out.len() == sizes.len(), || format!("chunks hold {} samples, stsz {}", out.len(), sizes.len()))?;
    Ok((offsets.len(), out))
}
