//! A studio without a browser: what FFmpeg once encoded, segment by segment, as often as wanted. Everything behind it
//! (media writer, stores, assembly) is the real thing.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::generation::media::{self, Media, MediaStatus};
use crate::generation::outcome::{Ended, Outcome, Stopped, Timings, conclude};
use crate::generation::record::{Job, Studio, Watcher};
use crate::generation::run::Command;
use crate::recording::capture::{CaptureCounts, CaptureEnd};
use crate::recording::encoder::EncoderOutput;
use crate::task::boxes::Boxes;
use crate::task::init::Init;

/// FFmpeg's own output: 5 s of 64×64 at 15 fps, keyframes on the grid, silence in AAC.
const TINY: &[u8] = include_bytes!("../../../tests/fixtures/tiny.fmp4");
/// Segment length at 15 and 30 fps, samples.
pub const SEGMENT: u64 = 102_400;

/// Plays the same two seconds again and again.
#[derive(Default)]
pub struct Replay {
    /// Segments after which the page ends the recording by itself.
    pub segments: u64,
    /// Commands as they came.
    pub commands: Mutex<Vec<Command>>,
}

/// Init segment, first segment (with the encoder's priming), and one that may follow any number of times.
fn stored() -> (Bytes, Init, [Bytes; 2]) {
    let starts: Vec<usize> =
        Boxes::new(TINY).map(Result::unwrap).filter(|b| matches!(&b.kind.0, b"moof" | b"mfra")).map(|b| b.at).collect();
    let init = Init::read(&TINY[..starts[0]]).unwrap();
    let segment = |n: usize| Bytes::from_static(&TINY[starts[n]..starts[n + 1]]);
    (Bytes::from_static(&TINY[..starts[0]]), init, [segment(0), segment(1)])
}

#[async_trait]
impl Studio for Replay {
    async fn record(&self, job: Job, mut commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
        let (outputs, queue) = mpsc::channel(media::QUEUE);
        let (status_sender, _status) = watch::channel(MediaStatus::default());
        let media = Media {
            chunks: job.chunks,
            target: job.target,
            task: job.task,
            generation: job.generation,
            base: job.base,
        };
        let writer = tokio::spawn(media::write(media, queue, status_sender));
        let (init, parsed, segments) = stored();
        outputs.send(EncoderOutput::Init(init)).await.ok();
        watcher.state(job.paused, 0);
        let (mut index, mut paused, mut stopped) = (0, job.paused, Stopped::Page);
        let mut tick = tokio::time::interval(Duration::from_millis(2_133));
        tick.tick().await;
        while index < self.segments {
            tokio::select! {
                Some(command) = commands.recv() => {
                    self.commands.lock().unwrap().push(command);
                    match command {
                        Command::Stop => { stopped = Stopped::Interrupted; break }
                        Command::Pause => { paused = true; watcher.state(true, index * SEGMENT) }
                        Command::Resume => { paused = false; watcher.state(false, index * SEGMENT) }
                        Command::Refresh => {}
                        Command::HandOver => { stopped = Stopped::HandOver; break }
                    }
                }
                _ = tick.tick(), if !paused => {
                    let next = parsed.segment(segments[usize::from(index > 0)].clone(), index, index * SEGMENT).unwrap();
                    outputs.send(EncoderOutput::Segment(next)).await.ok();
                    index += 1;
                }
            }
        }
        outputs.send(EncoderOutput::Ended(Ok(()))).await.ok();
        drop(outputs);
        let capture = CaptureEnd {
            end: index * SEGMENT,
            counts: CaptureCounts::default(),
            sound_shift_ms: 0.0,
            silent: Vec::new(),
            blank: Vec::new(),
        };
        let ended =
            Ended { stopped, begun: true, trouble: None, capture: Some(capture), gaps: Vec::new(), reduced_seconds: 0 };
        conclude(ended, writer, Timings::default(), watcher).await
    }
}
