//! Runs of an encoder, and what must be in what comes out.

use std::io::Write;
use std::path::Path;

use super::*;

/// Longer than any of this takes on a busy machine; a test that meets it has failed.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn config(fps: u32, start: u64) -> EncoderConfig {
    let rate = FrameRate::try_from(fps).unwrap();
    let size = Size::new(160, 120).unwrap();
    let bitrates = Bitrates::new(Some(500), None, size, rate).unwrap();
    EncoderConfig { ffmpeg: crate::config::ffmpeg_path().unwrap(), size, rate, bitrates, start }
}

pub(super) fn limits() -> Limits {
    Limits { stall: LONG, finish: LONG }
}

/// A run of an encoder, and what came out of it.
pub(super) struct Run {
    pub(super) encoder: Encoder,
    pub(super) pictures: Option<PictureInput>,
    pub(super) sound: Option<SoundInput>,
    pub(super) out: Receiver<EncoderOutput>,
}

#[derive(Default)]
pub(super) struct Output {
    pub(super) init: Bytes,
    pub(super) segments: Vec<Segment>,
    pub(super) ended: Option<Result<(), EncoderError>>,
}

impl Run {
    pub(super) fn start(config: &EncoderConfig, limits: Limits) -> Self {
        let (tx, out) = mpsc::channel();
        let (encoder, pictures, sound) =
            Encoder::start_within(limits, config, &Guard::disabled(), move |o| tx.send(o).unwrap()).unwrap();
        Self { encoder, pictures: Some(pictures), sound: Some(sound), out }
    }

    pub(super) fn pid(&self) -> i32 {
        self.encoder.shared.state().child.as_ref().unwrap().id() as i32
    }

    /// Writes pictures at `slots` and sound over `start..end`, the two from two threads, one of them late.
    pub(super) fn feed(mut self, config: &EncoderConfig, slots: &[u64], end: u64, late: Late) -> Self {
        let (mut pictures, mut sound) = (self.pictures.take().unwrap(), self.sound.take().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                late.pause(Late::Picture);
                slots.iter().for_each(|slot| pictures.write(*slot, &shared(picture(config, *slot))).unwrap());
            });
            scope.spawn(move || {
                late.pause(Late::Sound);
                sound.write(&tone((end - config.start) as usize)).unwrap();
            });
        });
        self
    }

    pub(super) fn output(self, end: u64) -> Output {
        self.encoder.finish(end, Tail::Cut);
        let mut output = Output::default();
        for item in self.out {
            assert!(output.ended.is_none(), "nothing comes after the end");
            match item {
                EncoderOutput::Init(init) => output.init = init,
                EncoderOutput::Segment(segment) => output.segments.push(segment),
                EncoderOutput::Ended(result) => output.ended = Some(result),
            }
        }
        output
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Late {
    None,
    Picture,
    Sound,
}

impl Late {
    fn pause(self, who: Self) {
        if self == who {
            thread::sleep(Duration::from_millis(400));
        }
    }
}

pub(super) fn shared(bytes: Vec<u8>) -> SharedPicture {
    Arc::new(bytes)
}

pub(super) fn picture(config: &EncoderConfig, slot: u64) -> Vec<u8> {
    let luma = (config.size.width * config.size.height) as usize;
    let mut picture = vec![128; luma * 3 / 2];
    picture[..luma].iter_mut().enumerate().for_each(|(i, p)| *p = 16 + ((i as u64 + slot / 100) % 200) as u8);
    picture
}

pub(super) fn tone(samples: usize) -> Vec<f32> {
    (0..samples).flat_map(|n| [(n as f32 * 0.05).sin() * 0.3; 2]).collect()
}

pub(super) fn every_slot(config: &EncoderConfig, end: u64) -> Vec<u64> {
    (config.start..end).step_by(config.rate.slot() as usize).collect()
}

/// What must be in the segments, whatever the page did: nothing but the written pictures and all of the sound.
pub(super) fn check(config: &EncoderConfig, slots: &[u64], end: u64, output: &Output) {
    assert!(matches!(output.ended, Some(Ok(()))), "{:?}", output.ended);
    let segment = config.rate.segment();
    let count = (end - config.start).div_ceil(segment) as usize;
    assert_eq!(output.segments.len(), count);
    for (n, s) in output.segments.iter().enumerate() {
        let from = config.start + n as u64 * segment;
        let to = (from + segment).min(end);
        assert_eq!((s.index, s.samples), (from / segment, to - from));
        let [video, audio] = &s.runs[..] else { panic!("two tracks") };
        assert_eq!((video.kind, audio.kind), (TrackKind::Video, TrackKind::Audio));

        let mut at = video.start;
        let times: Vec<i64> = video.samples.iter().map(|s| (at, at += i64::from(s.duration)).0).collect();
        let written = slots.iter().filter(|s| (from..to).contains(s)).map(|s| ticks(*s) as i64);
        assert_eq!(times, written.collect::<Vec<_>>(), "pictures of segment {n}");
        assert_eq!(at, ticks(to) as i64, "the last picture lasts to the segment's end");
        let keys: Vec<usize> = (0..times.len()).filter(|i| video.samples[*i].sync).collect();
        assert_eq!(keys, [0], "one keyframe");

        let priming = if n == 0 { AAC_FRAME as i64 } else { 0 };
        assert_eq!(audio.start, from as i64 - priming);
        let sound: i64 = audio.samples.iter().map(|s| i64::from(s.duration)).sum();
        assert_eq!(sound, (to - from) as i64 + priming, "sound ends with the picture");
        if to - from == segment {
            assert_eq!(audio.samples.len() as u64, segment / AAC_FRAME + u64::from(n == 0));
        }
        for run in &s.runs {
            let payload: u32 = run.samples.iter().map(|s| s.size).sum();
            let [(offset, frames)] = run.chunks[..] else { panic!("one chunk") };
            assert_eq!(frames as usize, run.samples.len());
            assert!((offset + payload) as usize <= s.bytes.len());
        }
    }
}

/// (stream, time) of every packet in a file, as FFmpeg reads it, with the edit list applied.
pub(super) fn packets(ffmpeg: &Path, file: &[u8]) -> Vec<(u32, i64)> {
    let mut path = tempfile::NamedTempFile::with_suffix(".mp4").unwrap();
    path.write_all(file).unwrap();
    let mut child = Command::new(ffmpeg, "ffmpeg")
        .args(["-v", "error", "-copyts", "-i"])
        .arg(path.path())
        .args("-map 0 -c copy -avoid_negative_ts disabled -f framecrc -".split(' '))
        .stdout(Stdio::piped())
        .spawn(&Guard::disabled())
        .unwrap();
    let mut text = String::new();
    child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    child.wait_timeout(LONG).unwrap();
    assert_eq!(child.stderr_tail(), "");
    let number = |field: &str| field.trim().parse::<i64>().unwrap();
    let line = |l: &str| {
        let fields: Vec<&str> = l.split(',').collect();
        (number(fields[0]) as u32, number(fields[2]))
    };
    text.lines().filter(|l| !l.starts_with('#')).map(line).collect()
}
