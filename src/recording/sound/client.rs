//! One connection: what it may ask, what it is answered, and the bounds it is held to.
//!
//! The commands are those Chromium sends, and what it does at the end of a stream is close the socket, so a connection's
//! end is its streams' end. Every buffer is bounded; whoever breaks a bound or the protocol loses the connection, and
//! whoever sends too much is read later.

use super::Counters;
use super::format::{Format, RATE};
use super::stream::Stream;
use super::wire::{Message, Violation, next_message, tag_and_seq, well_formed};
use pulseaudio::protocol::{
    self as pulse, AuthReply, ChannelMap, Command, CommandReply, CommandTag, CreatePlaybackStreamReply, FormatInfo,
    GetSinkInfo, PlaybackLatency, PlaybackStreamParams, ProtocolError, PulseError, SampleFormat, SampleSpec,
    ServerInfo, SetClientNameReply, SinkInfo, SourceInfo,
};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// Answers waiting for a client that does not read. A stream causes about 100 small messages per second, so this is
/// more than a minute of not reading.
const MAX_OUTBOX: usize = 256 * 1024;
/// Streams of one connection. Chromium opens one; a replacement may be opened before the old one is deleted.
const MAX_STREAMS: usize = 2;
/// Cost that one connection may cause within [`WINDOW`]: ten times what filling Chromium's largest queue takes, and
/// little enough that a flood costs a few percent of a core.
const WINDOW_BUDGET: usize = 1024 * 1024;
/// Cost of any message on top of its bytes, in bytes.
const MESSAGE_COST: usize = 512;
/// Length of the budget's window, samples: 100 ms.
const WINDOW: u64 = 4800;

/// Name of the only sink.
const SINK_NAME: &CStr = c"panorec";
/// Index of the only sink.
const SINK_INDEX: u32 = 0;
/// Sequence number of a message that answers nothing.
const NO_SEQ: u32 = u32::MAX;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// The client closed it.
    #[error("closed by the client")]
    Closed,
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client does not read its answers.
    #[error("{MAX_OUTBOX} bytes of answers not read")]
    NotReading,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Its socket, non-blocking.
    pub(super) socket: UnixStream,
    id: u32,
    /// Protocol version agreed on; `None` before.
    version: Option<u16>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    next_channel: u32,
    spent: usize,
    window_end: u64,
}

impl Client {
    /// A fresh connection over a non-blocking socket.
    pub(super) fn new(socket: UnixStream, id: u32) -> Self {
        Self {
            socket,
            id,
            version: None,
            inbox: Vec::new(),
            outbox: Vec::new(),
            streams: BTreeMap::new(),
            next_channel: 0,
            spent: 0,
            window_end: 0,
        }
    }

    /// Its streams.
    pub(super) fn streams(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.streams.iter_mut().map(|(channel, stream)| (*channel, stream))
    }

    /// Whether it has not used up what it may cause for now.
    pub(super) fn within_budget(&mut self, now: u64) -> bool {
        if now >= self.window_end {
            self.window_end = now + WINDOW;
            self.spent = 0;
        }
        self.spent < WINDOW_BUDGET
    }

    /// Whether answers wait for the socket.
    pub(super) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Reads once, through `scratch`, and does what the whole messages say. Streams must have been played up to now.
    pub(super) fn receive(&mut self, scratch: &mut [u8], counters: &Counters) -> Result<(), Gone> {
        match self.socket.read(scratch) {
            Ok(0) => return Err(Gone::Closed),
            Ok(n) => self.inbox.extend_from_slice(&scratch[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some(message) = next_message(&mut rest)? {
            match message {
                Message::Command(payload) => {
                    self.spent += payload.len() + MESSAGE_COST;
                    self.command(payload, counters)?;
                }
                Message::Sound(channel, payload) => {
                    self.spent += payload.len() + MESSAGE_COST;
                    self.sound(channel, payload, counters)?;
                }
            }
        }
        let done = inbox.len() - rest.len();
        self.inbox = inbox;
        self.inbox.drain(..done);
        Ok(())
    }

    /// Asks for what the streams miss.
    pub(super) fn ask(&mut self) -> Result<(), Gone> {
        let wanted: Vec<_> =
            self.streams.iter_mut().filter_map(|(channel, stream)| Some((*channel, stream.request()?))).collect();
        for (channel, length) in wanted {
            self.event(&Command::Request(pulse::Request { channel, length }))?;
        }
        Ok(())
    }

    /// Tells the client that a stream ran dry.
    pub(super) fn tell_underflow(&mut self, channel: u32, offset: u64) -> Result<(), Gone> {
        let offset = offset as i64;
        self.event(&Command::Underflow(pulse::Underflow { channel, offset }))
    }

    /// Writes as many answers as the socket takes.
    pub(super) fn send(&mut self) -> Result<(), Gone> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(n) => drop(self.outbox.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sound(&mut self, channel: u32, payload: &[u8], counters: &Counters) -> Result<(), Gone> {
        // A block may cross the command that ends its stream.
        let Some(stream) = self.streams.get_mut(&channel) else {
            return Ok(());
        };
        stream.write(payload);
        counters.peak_queued_frames.fetch_max(stream.queued() as u64, Relaxed);
        self.begin_if_full(channel)
    }

    fn begin_if_full(&mut self, channel: u32) -> Result<(), Gone> {
        if self.streams.get_mut(&channel).is_some_and(Stream::begin_if_full) {
            self.event(&Command::Started(channel))?;
        }
        Ok(())
    }

    fn command(&mut self, payload: &[u8], counters: &Counters) -> Result<(), Gone> {
        let (tag, seq) = tag_and_seq(payload).ok_or(Violation::Malformed)?;
        if !well_formed(payload) {
            return Err(Violation::Malformed.into());
        }
        if self.version.is_none() && tag != CommandTag::Auth as u32 {
            return self.refuse(seq, PulseError::AccessDenied);
        }
        if !ANSWERED.iter().any(|&t| t as u32 == tag) {
            tracing::debug!(client = self.id, tag, "sound command not supported");
            return self.refuse(seq, PulseError::NotSupported);
        }
        let version = self.version.unwrap_or(pulse::MAX_VERSION);
        let (seq, command) =
            Command::read_tag_prefixed(&mut Cursor::new(payload), version).map_err(|_| Violation::Malformed)?;
        match command {
            Command::Auth(auth) => self.authenticate(seq, auth.version),
            Command::SetClientName(_) => self.reply(seq, &SetClientNameReply { client_id: self.id }),
            Command::GetServerInfo => self.reply(seq, &server_info()),
            Command::GetSinkInfo(which) if is_our_sink(&which) => self.reply(seq, &sink_info()),
            Command::GetSinkInfo(_) => self.refuse(seq, PulseError::NoEntity),
            Command::GetSinkInfoList => self.reply(seq, &vec![sink_info()]),
            Command::GetSourceInfoList => self.reply(seq, &Vec::<SourceInfo>::new()),
            Command::CreatePlaybackStream(params) => self.create(seq, &params, counters),
            Command::DeletePlaybackStream(channel) => match self.streams.remove(&channel) {
                Some(_) => self.acknowledge(seq),
                None => self.refuse(seq, PulseError::NoEntity),
            },
            Command::CorkPlaybackStream(params) => {
                let done = self.with_stream(seq, params.channel, |stream| stream.cork(params.cork));
                done.and_then(|()| self.begin_if_full(params.channel))
            }
            Command::FlushPlaybackStream(channel) => self.with_stream(seq, channel, Stream::flush),
            Command::GetPlaybackLatency(params) => self.latency(seq, params.channel, params.now),
            _ => self.refuse(seq, PulseError::NotSupported),
        }
    }

    fn authenticate(&mut self, seq: u32, theirs: u16) -> Result<(), Gone> {
        if theirs < pulse::MIN_VERSION {
            return self.refuse(seq, PulseError::Version);
        }
        let version = theirs.min(pulse::MAX_VERSION);
        self.version = Some(version);
        // The socket's mode is the access control; the cookie is ignored. No shared memory: samples come by the socket.
        self.reply(seq, &AuthReply { version, use_memfd: false, use_shm: false })
    }

    fn create(&mut self, seq: u32, params: &PlaybackStreamParams, counters: &Counters) -> Result<(), Gone> {
        let Some(format) = Format::new(&params.sample_spec) else {
            tracing::debug!(client = self.id, spec = ?params.sample_spec, "sound format not supported");
            return self.refuse(seq, PulseError::NotSupported);
        };
        if self.streams.len() >= MAX_STREAMS {
            return self.refuse(seq, PulseError::TooLarge);
        }
        let channel = self.next_channel;
        self.next_channel = self.next_channel.wrapping_add(1);
        let mut stream = Stream::new(format, &params.buffer_attr, params.flags.start_corked);
        let reply = CreatePlaybackStreamReply {
            channel,
            stream_index: self.id.wrapping_mul(MAX_STREAMS as u32).wrapping_add(channel),
            requested_bytes: stream.request().unwrap_or(0),
            buffer_attr: stream.attr(),
            sample_spec: params.sample_spec,
            channel_map: params.channel_map,
            stream_latency: 0,
            sink_index: SINK_INDEX,
            sink_name: Some(SINK_NAME.to_owned()),
            suspended: false,
            format: FormatInfo::new(pulse::FormatEncoding::Pcm),
        };
        tracing::debug!(client = self.id, channel, spec = ?params.sample_spec, asked = ?params.buffer_attr,
            given = ?reply.buffer_attr, "sound stream opened");
        self.streams.insert(channel, stream);
        counters.streams_opened.fetch_add(1, Relaxed);
        self.reply(seq, &reply)
    }

    fn latency(&mut self, seq: u32, channel: u32, local_time: SystemTime) -> Result<(), Gone> {
        let Some(stream) = self.streams.get(&channel) else {
            return self.refuse(seq, PulseError::NoEntity);
        };
        let at = stream.positions();
        let reply = PlaybackLatency {
            sink_usec: stream.lead().as_micros() as u64,
            source_usec: 0,
            playing: stream.is_playing(),
            local_time,
            // The client library compares this with its own wall clock. The encoder refuses times before 1970.
            remote_time: SystemTime::now().max(SystemTime::UNIX_EPOCH),
            write_offset: at.written as i64,
            read_offset: at.read as i64,
            underrun_for: at.underrun_for,
            playing_for: at.playing_for,
        };
        self.reply(seq, &reply)
    }

    fn with_stream(&mut self, seq: u32, channel: u32, act: impl FnOnce(&mut Stream)) -> Result<(), Gone> {
        match self.streams.get_mut(&channel) {
            Some(stream) => {
                act(stream);
                self.acknowledge(seq)
            }
            None => self.refuse(seq, PulseError::NoEntity),
        }
    }

    fn reply<R: CommandReply>(&mut self, seq: u32, reply: &R) -> Result<(), Gone> {
        let version = self.version.unwrap_or(pulse::MAX_VERSION);
        self.put(|out| pulse::write_reply_message(out, seq, reply, version))
    }

    fn acknowledge(&mut self, seq: u32) -> Result<(), Gone> {
        self.put(|out| pulse::write_ack_message(out, seq))
    }

    fn refuse(&mut self, seq: u32, error: PulseError) -> Result<(), Gone> {
        self.put(|out| pulse::write_error(out, seq, &error))
    }

    fn event(&mut self, event: &Command) -> Result<(), Gone> {
        let version = self.version.unwrap_or(pulse::MAX_VERSION);
        self.put(|out| pulse::write_command_message(out, NO_SEQ, event, version))
    }

    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), ProtocolError>) -> Result<(), Gone> {
        if self.outbox.len() >= MAX_OUTBOX {
            return Err(Gone::NotReading);
        }
        write(&mut self.outbox).map_err(|e| Gone::Socket(io::Error::other(e)))
    }
}

/// The commands that reach the decoder; all others are refused by their number alone.
const ANSWERED: [CommandTag; 11] = [
    CommandTag::Auth,
    CommandTag::SetClientName,
    CommandTag::GetServerInfo,
    CommandTag::GetSinkInfo,
    CommandTag::GetSinkInfoList,
    CommandTag::GetSourceInfoList,
    CommandTag::CreatePlaybackStream,
    CommandTag::DeletePlaybackStream,
    CommandTag::CorkPlaybackStream,
    CommandTag::FlushPlaybackStream,
    CommandTag::GetPlaybackLatency,
];

/// What the sink plays: Chromium opens its streams at the rate announced here.
fn sink_spec() -> SampleSpec {
    SampleSpec { format: SampleFormat::Float32Le, channels: 2, sample_rate: RATE }
}

fn server_info() -> ServerInfo {
    ServerInfo {
        server_name: Some(c"panorec".to_owned()),
        server_version: Some(c"16.1".to_owned()), // of the protocol's reference server
        user_name: Some(c"panorec".to_owned()),
        host_name: Some(c"localhost".to_owned()),
        sample_spec: sink_spec(),
        cookie: 0,
        default_sink_name: Some(SINK_NAME.to_owned()),
        default_source_name: None,
        channel_map: ChannelMap::stereo(),
    }
}

fn sink_info() -> SinkInfo {
    SinkInfo {
        name: SINK_NAME.to_owned(),
        description: Some(c"panorec recording".to_owned()),
        sample_spec: sink_spec(),
        ..SinkInfo::new_dummy(SINK_INDEX)
    }
}

fn is_our_sink(which: &GetSinkInfo) -> bool {
    match &which.name {
        Some(name) => [SINK_NAME, pulse::DEFAULT_SINK].contains(&name.as_c_str()),
        None => which.index == Some(SINK_INDEX),
    }
}
