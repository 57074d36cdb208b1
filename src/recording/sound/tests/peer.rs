//! A sink under test, and a client that speaks to it over its socket.

use super::super::{Sound, SoundBlock, SoundConfig};
use crate::recording::clock::MediaClock;
use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::*;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Long enough for any machine; reached only when an answer never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running sink with everything it hands out.
pub(super) struct Rig {
    pub(super) sound: Sound,
    pub(super) clock: MediaClock,
    pub(super) dir: tempfile::TempDir,
    blocks: Arc<Mutex<Vec<SoundBlock>>>,
}

/// All that a sink handed out, joined.
pub(super) struct Heard {
    pub(super) start: u64,
    pub(super) frames: Vec<[f32; 2]>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = MediaClock::start();
        let blocks = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&blocks);
        let config = SoundConfig { socket: dir.path().join("pulse"), clock };
        let sound = Sound::start(config, move |block| sink.lock().unwrap().push(block)).unwrap();
        Self { sound, clock, dir, blocks }
    }

    pub(super) fn connect(&self) -> Peer {
        Peer::connect(&self.dir.path().join("pulse"))
    }

    /// Blocks until the sink has handed out everything up to `wall`.
    pub(super) fn wait_for(&self, wall: u64) {
        while self.blocks.lock().unwrap().last().is_none_or(|b| b.end() < wall) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the sink. Whatever a test did, blocks are contiguous and say truly whether they are silent.
    pub(super) fn finish(self) -> Heard {
        let before = self.clock.now();
        self.sound.stop();
        let blocks = self.blocks.lock().unwrap();
        let mut frames = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let expected = index.checked_sub(1).map_or(block.start, |i| blocks[i].end());
            assert_eq!(block.start, expected, "block {index}");
            assert!(block.frames() > 0 && block.samples.len() % 2 == 0);
            assert_eq!(block.silent, block.samples.iter().all(|&s| s == 0.0));
            frames.extend(block.samples.chunks_exact(2).map(|p| [p[0], p[1]]));
        }
        let start = blocks.first().map_or(0, |b| b.start);
        assert!(start + frames.len() as u64 >= before, "everything up to the stop is handed out");
        Heard { start, frames }
    }
}

impl Heard {
    /// Wall sample of the first frame that is not silent.
    pub(super) fn onset(&self) -> u64 {
        let at = self.frames.iter().position(|f| *f != [0.0, 0.0]);
        self.start + at.expect("something is heard") as u64
    }

    /// The frames that are not silent.
    pub(super) fn sounding(&self) -> Vec<[f32; 2]> {
        self.frames.iter().copied().filter(|f| *f != [0.0, 0.0]).collect()
    }

    /// Frames from a wall sample on.
    pub(super) fn from(&self, wall: u64, len: usize) -> &[[f32; 2]] {
        let at = (wall - self.start) as usize;
        &self.frames[at..at + len]
    }
}

/// A client that has introduced itself.
pub(super) struct Peer {
    pub(super) socket: UnixStream,
    seq: u32,
    events: Vec<Command>,
}

impl Peer {
    pub(super) fn raw(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket, seq: 0, events: Vec::new() }
    }

    fn connect(path: &Path) -> Self {
        let mut peer = Self::raw(path);
        let auth =
            Command::Auth(AuthParams { version: 35, supports_shm: true, supports_memfd: true, cookie: vec![0; 256] });
        let reply: AuthReply = peer.call(&auth).unwrap();
        assert_eq!(reply, AuthReply { version: 35, use_memfd: false, use_shm: false });
        let _: SetClientNameReply = peer.call(&Command::SetClientName(Props::new())).unwrap();
        peer
    }

    /// Opens a stream with a target and a request size in frames.
    pub(super) fn open(
        &mut self,
        spec: SampleSpec,
        target: u32,
        min_request: u32,
        corked: bool,
    ) -> CreatePlaybackStreamReply {
        let frame = spec.format.bytes_per_sample() as u32 * u32::from(spec.channels);
        let map = if spec.channels == 1 { ChannelMap::mono() } else { ChannelMap::stereo() };
        self.call(&Command::CreatePlaybackStream(PlaybackStreamParams {
            sample_spec: spec,
            channel_map: map,
            buffer_attr: BufferAttr {
                target_length: target * frame,
                minimum_request_length: min_request * frame,
                ..Default::default()
            },
            flags: StreamFlags { start_corked: corked, ..Default::default() },
            ..Default::default()
        }))
        .unwrap()
    }

    pub(super) fn send(&mut self, command: &Command) -> io::Result<u32> {
        self.seq += 1;
        let mut bytes = Vec::new();
        write_command_message(&mut bytes, self.seq, command, 35).unwrap();
        self.socket.write_all(&bytes)?;
        Ok(self.seq)
    }

    /// Sends a command and reads its answer; events that come before it are kept.
    pub(super) fn call<T: TagStructRead>(&mut self, command: &Command) -> Result<T, PulseError> {
        let payload = self.answer(command)?;
        let mut rest = Cursor::new(payload);
        Ok(TagStructReader::new(&mut rest, 35).read().unwrap())
    }

    /// Sends a command whose answer is empty.
    pub(super) fn ack(&mut self, command: &Command) -> Result<(), PulseError> {
        let payload = self.answer(command)?;
        assert!(payload.is_empty());
        Ok(())
    }

    fn answer(&mut self, command: &Command) -> Result<Vec<u8>, PulseError> {
        let seq = self.send(command).unwrap();
        self.answer_to(seq)
    }

    /// Reads the answer to a command sent before; events that come before it are kept.
    pub(super) fn answer_to(&mut self, seq: u32) -> Result<Vec<u8>, PulseError> {
        loop {
            let payload = self.message();
            match Command::read_tag_prefixed(&mut Cursor::new(&payload), 35).unwrap() {
                (got, Command::Reply) if got == seq => return Ok(payload[10..].to_vec()),
                (got, Command::Error(error)) if got == seq => return Err(error),
                (u32::MAX, event) => self.events.push(event),
                other => panic!("answer to another question: {other:?}"),
            }
        }
    }

    /// The next event that `wanted` accepts, waiting for it; events before it are discarded.
    pub(super) fn event<T>(&mut self, wanted: impl Fn(&Command) -> Option<T>) -> T {
        loop {
            while !self.events.is_empty() {
                if let Some(found) = wanted(&self.events.remove(0)) {
                    return found;
                }
            }
            let payload = self.message();
            let (seq, event) = Command::read_tag_prefixed(&mut Cursor::new(payload), 35).unwrap();
            assert_eq!(seq, u32::MAX, "{event:?} was not asked for");
            self.events.push(event);
        }
    }

    pub(super) fn started(&mut self) {
        self.event(|e| matches!(e, Command::Started(_)).then_some(()));
    }

    pub(super) fn underflow(&mut self) -> i64 {
        self.event(|e| match e {
            Command::Underflow(u) => Some(u.offset),
            _ => None,
        })
    }

    pub(super) fn request(&mut self) -> u32 {
        self.event(|e| match e {
            Command::Request(r) => Some(r.length),
            _ => None,
        })
    }

    fn message(&mut self) -> Vec<u8> {
        let descriptor = read_descriptor(&mut self.socket).unwrap();
        assert_eq!(descriptor.channel, u32::MAX);
        let mut payload = vec![0; descriptor.length as usize];
        self.socket.read_exact(&mut payload).unwrap();
        payload
    }

    /// Writes interleaved `f32le` samples.
    pub(super) fn play(&mut self, channel: u32, samples: &[f32]) {
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.play_bytes(channel, &bytes);
    }

    pub(super) fn play_bytes(&mut self, channel: u32, bytes: &[u8]) {
        for chunk in bytes.chunks(65_536) {
            write_memblock(&mut self.socket, channel, chunk, 0).unwrap();
        }
    }
}
