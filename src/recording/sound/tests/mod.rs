//! The sink judged from outside: a client on its socket, and what comes out at which wall sample.

mod peer;

use super::{Sound, SoundConfig};
use crate::recording::clock::MediaClock;
use peer::{Peer, Rig};
use pulseaudio::protocol::*;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

const STEREO: SampleSpec = SampleSpec { format: SampleFormat::Float32Le, channels: 2, sample_rate: 48_000 };
const MONO: SampleSpec = SampleSpec { channels: 1, ..STEREO };

/// A stereo ramp in which every frame differs from all others and from silence.
fn ramp(frames: usize) -> Vec<f32> {
    (1..=frames).flat_map(|i| [i as f32 / 32_768.0, -(i as f32) / 65_536.0]).collect()
}

fn frames(samples: &[f32]) -> Vec<[f32; 2]> {
    samples.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
}

#[test]
fn samples_come_out_whole_at_the_wall_samples_they_were_played_at() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let stream = peer.open(STEREO, 1536, 256, false);
    assert_eq!(stream.requested_bytes, 1536 * 8, "an open stream is asked at once");
    let sent = ramp(1536);
    // Not a multiple of a frame, nor of a sample: what arrives torn is put together.
    let bytes: Vec<u8> = sent.iter().flat_map(|s| s.to_le_bytes()).collect();
    let before = rig.clock.now();
    peer.play_bytes(stream.channel, &bytes[..5003]);
    peer.play_bytes(stream.channel, &bytes[5003..]);
    peer.started();
    let after = rig.clock.now();
    peer.underflow();
    let heard = rig.finish();
    let onset = heard.onset();
    assert!((before..=after).contains(&onset), "{before} <= {onset} <= {after}");
    assert_eq!(heard.from(onset, 1536), frames(&sent));
    assert_eq!(heard.sounding().len(), 1536, "nothing before and nothing after");
}

#[test]
fn mono_goes_to_both_channels() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let stream = peer.open(MONO, 1536, 256, false);
    let sent: Vec<f32> = (1..=1536).map(|i| i as f32 / 2048.0).collect();
    peer.play(stream.channel, &sent);
    peer.underflow();
    let heard = rig.finish().sounding();
    assert_eq!(heard, sent.iter().map(|&s| [s, s]).collect::<Vec<_>>());
}

#[test]
fn sixteen_bit_samples_are_scaled_to_one() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let spec = SampleSpec { format: SampleFormat::S16Le, ..STEREO };
    let stream = peer.open(spec, 1536, 256, false);
    let bytes: Vec<u8> = (0..1536).flat_map(|_| [i16::MIN, 16_384]).flat_map(i16::to_le_bytes).collect();
    peer.play_bytes(stream.channel, &bytes);
    peer.underflow();
    assert_eq!(rig.finish().sounding(), vec![[-1.0, 0.5]; 1536]);
}

#[test]
fn streams_of_several_clients_are_added_and_clipped() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.connect(), rig.connect());
    let (sa, sb) = (a.open(STEREO, 12_288, 512, false), b.open(MONO, 12_288, 512, false));
    a.play(sa.channel, &[0.25, 0.75].repeat(12_288));
    b.play(sb.channel, &[0.5].repeat(12_288));
    a.underflow();
    b.underflow();
    let heard = rig.finish().sounding();
    let alone_or_both = [[0.25, 0.75], [0.5, 0.5], [0.75, 1.0]];
    assert!(heard.iter().all(|f| alone_or_both.contains(f)));
    let count = |f: [f32; 2]| heard.iter().filter(|&&x| x == f).count();
    assert_eq!(count([0.25, 0.75]) + count([0.75, 1.0]), 12_288);
    assert_eq!(count([0.5, 0.5]) + count([0.75, 1.0]), 12_288);
    assert!(count([0.75, 1.0]) > 0, "they overlapped");
}

#[test]
fn what_is_no_number_or_absurdly_loud_does_not_poison_the_mix() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let (one, two) = (peer.open(STEREO, 1536, 256, false), peer.open(STEREO, 1536, 256, false));
    peer.play(one.channel, &[f32::NAN, f32::INFINITY].repeat(1536));
    peer.play(two.channel, &[f32::NAN, f32::NEG_INFINITY].repeat(1536));
    peer.underflow();
    peer.underflow();
    for frame in rig.finish().frames {
        assert!(frame.iter().all(|s| (-1.0..=1.0).contains(s)), "{frame:?}");
    }
}

#[test]
fn a_corked_stream_waits_and_goes_on_with_its_next_sample() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let stream = peer.open(STEREO, 12_288, 512, true);
    let channel = stream.channel;
    assert_eq!(stream.requested_bytes, 0, "nothing is asked for while corked");
    let cork = |cork| Command::CorkPlaybackStream(CorkStreamParams { channel, cork });
    peer.ack(&cork(false)).unwrap();
    assert_eq!(peer.request(), 12_288 * 8, "asked once uncorked");
    let sent = ramp(12_288);
    peer.play(channel, &sent);
    peer.started();
    rig.wait_for(rig.clock.now() + 960);
    peer.ack(&cork(true)).unwrap();
    let corked = rig.clock.now();
    rig.wait_for(corked + 2400);
    let uncorked = rig.clock.now();
    peer.ack(&cork(false)).unwrap();
    peer.underflow();
    let heard = rig.finish();
    assert_eq!(heard.sounding(), frames(&sent), "all of it, in order, once");
    let pause = heard.from(corked, (uncorked - corked) as usize);
    assert!(pause.iter().all(|f| *f == [0.0, 0.0]));
}

#[test]
fn a_flush_throws_away_what_was_not_heard_and_is_no_underrun() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let channel = peer.open(STEREO, 12_288, 512, false).channel;
    peer.play(channel, &[0.5; 2].repeat(12_288));
    peer.started();
    peer.ack(&Command::FlushPlaybackStream(channel)).unwrap();
    rig.wait_for(rig.clock.now() + 4800);
    assert_eq!(rig.sound.stats().underruns, 0);
    assert_eq!(rig.sound.stats().streams_playing, 0);
    let length = peer.request();
    assert!(length > 0, "a flushed stream that is not corked is refilled");
    peer.play(channel, &[0.25; 2].repeat(12_288));
    peer.started();
    peer.underflow();
    let heard = rig.finish().sounding();
    let old = heard.iter().filter(|f| **f == [0.5; 2]).count();
    assert!(old < 12_288, "{old} frames of the flushed sound");
    assert_eq!(heard.len() - old, 12_288);
}

#[test]
fn running_dry_is_counted_told_and_survived() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let channel = peer.open(STEREO, 1536, 256, false).channel;
    for round in 1..=3 {
        peer.play(channel, &ramp(1536));
        peer.started();
        assert_eq!(peer.underflow(), round * 1536 * 8);
        assert_eq!(rig.sound.stats().underruns, round as u64);
    }
    assert!(rig.sound.stats().starved_frames > 0);
    assert_eq!(rig.finish().sounding().len(), 3 * 1536);
}

#[test]
fn the_queue_is_kept_full_by_requests_of_whole_buffers() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let stream = peer.open(STEREO, 3072, 512, false);
    assert_eq!(stream.buffer_attr.target_length, 12_288 * 8, "media queues are raised to 256 ms");
    assert_eq!(stream.buffer_attr.pre_buffering, stream.buffer_attr.target_length);
    assert_eq!(stream.buffer_attr.minimum_request_length, 512 * 8);
    peer.play(stream.channel, &[0.5; 2].repeat(12_288));
    let mut owed = 0;
    for _ in 0..20 {
        owed += i64::from(peer.request() / 8);
        // As Chromium does: whole buffers for as long as the client library says that something is wanted.
        assert!(owed >= 1024, "asked in vain for {owed}");
        while owed > 0 {
            peer.play(stream.channel, &[0.5; 2].repeat(1024));
            owed -= 1024;
        }
    }
    assert_eq!(rig.sound.stats().underruns, 0);
    assert!(rig.sound.stats().peak_queued_frames < 12_288 + 1024);
    let heard = rig.finish();
    let onset = heard.onset();
    let rest = heard.from(onset, heard.frames.len() - (onset - heard.start) as usize);
    assert!(rest.iter().all(|f| *f == [0.5; 2]), "no hole");
}

#[test]
fn the_latency_reply_says_exactly_what_was_played() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let channel = peer.open(STEREO, 12_288, 512, false).channel;
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567);
    let latency = Command::GetPlaybackLatency(LatencyParams { channel, now });
    let idle: PlaybackLatency = peer.call(&latency).unwrap();
    assert!(!idle.playing);
    assert_eq!((idle.read_offset, idle.write_offset), (0, 0));
    peer.play(channel, &ramp(12_288));
    peer.started();
    rig.wait_for(rig.clock.now() + 480);
    let earliest = rig.clock.now();
    let playing: PlaybackLatency = peer.call(&latency).unwrap();
    let latest = rig.clock.now();
    assert!(playing.playing);
    assert_eq!((playing.sink_usec, playing.source_usec), (0, 0));
    assert_eq!(playing.local_time, now, "echoed");
    assert!(playing.remote_time > now);
    assert_eq!(playing.write_offset, 12_288 * 8);
    assert_eq!(playing.playing_for, playing.read_offset as u64);
    peer.underflow();
    let dry: PlaybackLatency = peer.call(&latency).unwrap();
    assert!(!dry.playing);
    assert_eq!(dry.read_offset, dry.write_offset);
    let media = peer.open(STEREO, 3072, 512, false).channel;
    let media: PlaybackLatency =
        peer.call(&Command::GetPlaybackLatency(LatencyParams { channel: media, now })).unwrap();
    assert_eq!(media.sink_usec, 5_000, "whose pictures Chromium sets early");
    let onset = rig.finish().onset();
    let read = playing.read_offset as u64 / 8;
    assert!((earliest - onset..=latest - onset).contains(&read), "{read}");
}

#[test]
fn the_questions_chromium_asks_are_answered_and_all_others_refused() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let server: ServerInfo = peer.call(&Command::GetServerInfo).unwrap();
    assert_eq!(server.sample_spec, STEREO);
    let sinks: Vec<SinkInfo> = peer.call(&Command::GetSinkInfoList).unwrap();
    assert_eq!(sinks.len(), 1);
    assert_eq!(Some(&sinks[0].name), server.default_sink_name.as_ref());
    let by_name = GetSinkInfo { index: None, name: server.default_sink_name };
    let sink: SinkInfo = peer.call(&Command::GetSinkInfo(by_name)).unwrap();
    assert_eq!(sink, sinks[0]);
    let sources: Vec<SourceInfo> = peer.call(&Command::GetSourceInfoList).unwrap();
    assert!(sources.is_empty());
    assert_eq!(peer.ack(&Command::Subscribe(SubscriptionMask::ALL)), Err(PulseError::NotSupported));
    let foreign =
        PlaybackStreamParams { sample_spec: SampleSpec { sample_rate: 44_100, ..STEREO }, ..Default::default() };
    assert_eq!(peer.ack(&Command::CreatePlaybackStream(foreign)), Err(PulseError::NotSupported));
    assert_eq!(peer.ack(&Command::FlushPlaybackStream(9)), Err(PulseError::NoEntity));
    let mut stranger = Peer::raw(&rig.dir.path().join("pulse"));
    assert_eq!(stranger.ack(&Command::GetServerInfo), Err(PulseError::AccessDenied));
    rig.finish();
}

#[test]
fn hostile_clients_lose_their_connection_and_nobody_else_notices() {
    let rig = Rig::new();
    let path = rig.dir.path().join("pulse");
    let mut good = rig.connect();
    let channel = good.open(STEREO, 12_288, 512, false).channel;
    good.play(channel, &[0.5; 2].repeat(12_288));
    good.started();

    let mut garbage = Peer::raw(&path);
    garbage.socket.write_all(&[0xA5; 4096]).unwrap();
    assert_eq!(garbage.socket.read(&mut [0; 64]).unwrap_or(0), 0, "closed");

    let mut malformed = rig.connect();
    write_memblock(&mut malformed.socket, u32::MAX, b"L\0\0", 0).unwrap();
    assert_eq!(malformed.socket.read(&mut [0; 64]).unwrap_or(0), 0, "closed");

    let mut torn = rig.connect();
    torn.socket.write_all(&[0, 0, 1]).unwrap();
    drop(torn);

    let mut deaf = rig.connect();
    let latency = Command::GetServerInfo;
    let sent = (0..200_000).take_while(|_| deaf.send(&latency).is_ok()).count();
    assert!(sent < 200_000, "whoever never reads is cut off");

    let mut pushy = rig.connect();
    let flooded = pushy.open(STEREO, 1536, 256, true).channel;
    pushy.play(flooded, &[0.0; 2].repeat(400_000));
    let _: ServerInfo = pushy.call(&Command::GetServerInfo).unwrap();

    let stats = rig.sound.stats();
    assert_eq!(stats.clients_dropped, 3);
    assert!(stats.peak_queued_frames <= 12_288 + 24_000, "{}", stats.peak_queued_frames);
    good.underflow();
    let heard = rig.finish();
    let onset = heard.onset();
    assert_eq!(heard.from(onset, 12_288), vec![[0.5; 2]; 12_288]);
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let rig = Rig::new();
    let crowd: Vec<Peer> = (0..64).map(|_| rig.connect()).collect();
    let mut late = Peer::raw(&rig.dir.path().join("pulse"));
    let seq = late.send(&Command::GetServerInfo).unwrap();
    rig.wait_for(rig.clock.now() + 2400);
    late.socket.set_nonblocking(true).unwrap();
    let early = late.socket.read(&mut [0; 64]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it waits");
    late.socket.set_nonblocking(false).unwrap();
    drop(crowd);
    assert_eq!(late.answer_to(seq), Err(PulseError::AccessDenied), "answered in the end");
    rig.finish();
}

#[test]
fn a_client_that_vanishes_takes_its_streams_along() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let channel = peer.open(STEREO, 12_288, 512, false).channel;
    peer.play(channel, &[0.5; 2].repeat(12_288));
    peer.started();
    drop(peer);
    rig.wait_for(rig.clock.now() + 4800);
    let stats = rig.sound.stats();
    assert_eq!((stats.streams_opened, stats.streams_playing), (1, 0));
    assert_eq!((stats.underruns, stats.clients_dropped), (0, 0), "that is how Chromium ends a stream");
    assert!(rig.finish().sounding().len() < 12_288);
}

#[test]
fn after_a_long_stop_of_the_process_blocks_are_whole_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, blocks) = std::sync::mpsc::channel();
    let config = SoundConfig { socket: dir.path().join("pulse"), clock: MediaClock::start() };
    let mut first = true;
    let sound = Sound::start(config, move |block| {
        // The thread standing still is what a stopped process looks like from inside.
        if std::mem::take(&mut first) {
            std::thread::sleep(Duration::from_millis(1500));
        }
        sender.send(block).unwrap();
    })
    .unwrap();
    let mut next = None;
    for block in blocks.iter().take(4) {
        assert!(next.is_none_or(|at| at == block.start));
        assert!(block.frames() <= 48_000, "{}", block.frames());
        next = Some(block.end());
    }
    sound.stop();
}

#[test]
fn silence_is_handed_out_while_nobody_plays() {
    let rig = Rig::new();
    let start = rig.clock.now();
    rig.wait_for(start + 14_400);
    let silent = rig.sound.stats().silent_frames;
    let heard = rig.finish();
    assert!(heard.start <= start);
    assert!(heard.frames.iter().all(|f| *f == [0.0, 0.0]));
    assert!(silent >= 14_400 && silent <= heard.frames.len() as u64);
}

#[test]
fn the_socket_is_private_taken_once_and_gone_afterwards() {
    let rig = Rig::new();
    let path = rig.dir.path().join("pulse");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let config = SoundConfig { socket: path.clone(), clock: MediaClock::start() };
    let error = Sound::start(config, |_| {}).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("pulse"), "{error}");
    let Rig { sound, dir, .. } = rig;
    drop(sound);
    assert!(!path.exists());
    drop(dir);
}
