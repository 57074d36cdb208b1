//! The encoder with the real FFmpeg.

mod run;

use super::*;
use crate::task::segment::TrackKind;
use crate::task::spec::Size;
use crate::task::timeline::{AAC_FRAME, ticks};
use run::*;

#[test]
fn segments_hold_exactly_their_span_at_every_kind_of_grid() {
    for fps in [30, 25, 24, 60] {
        let config = config(fps, 0);
        let end = 2 * config.rate.segment() + 5 * config.rate.slot();
        let slots = every_slot(&config, end);
        let output = Run::start(&config, limits()).feed(&config, &slots, end, Late::None).output(end);
        check(&config, &slots, end, &output);
    }
}

#[test]
fn rare_pictures_and_a_late_pipe_move_no_frame_to_another_segment() {
    let config = config(30, 0);
    let end = 3 * config.rate.segment();
    let closing = end - config.rate.slot();
    let one_per_segment = vec![0, 76_800, 153_600, closing];
    let one_per_second = vec![0, 48_000, 76_800, 96_000, 144_000, 153_600, 192_000, closing];
    for slots in [one_per_segment, one_per_second] {
        for late in [Late::None, Late::Picture, Late::Sound] {
            let output = Run::start(&config, limits()).feed(&config, &slots, end, late).output(end);
            check(&config, &slots, end, &output);
        }
    }
}

#[test]
fn an_encoder_that_starts_later_goes_on_on_the_same_grid() {
    let config = config(30, 7 * 76_800);
    let end = 8 * 76_800 + 1600;
    let slots = every_slot(&config, end);
    let output = Run::start(&config, limits()).feed(&config, &slots, end, Late::None).output(end);
    check(&config, &slots, end, &output);
    assert_eq!(output.segments[0].index, 7);
}

#[test]
fn what_is_stored_plays_with_the_times_of_the_index() {
    let config = config(30, 0);
    let end = 76_800 + 48_000;
    let slots = [0, 1600, 60_800, 76_800, 78_400, end - 1600];
    let output = Run::start(&config, limits()).feed(&config, &slots, end, Late::None).output(end);
    let segments = output.segments.iter().map(|s| s.bytes.clone());
    let file: Vec<u8> = std::iter::once(output.init.clone()).chain(segments).flatten().collect();
    for (stream, kind) in [(0, TrackKind::Video), (1, TrackKind::Audio)] {
        let mut indexed = Vec::new();
        for run in output.segments.iter().flat_map(|s| &s.runs).filter(|r| r.kind == kind) {
            let mut at = run.start;
            for sample in &run.samples {
                indexed.push((stream, at));
                at += i64::from(sample.duration);
            }
        }
        let read: Vec<_> = packets(&config.ffmpeg, &file).into_iter().filter(|p| p.0 == stream).collect();
        assert_eq!(read, indexed);
    }
    let text = String::from_utf8_lossy(&output.init).into_owned();
    for label in ["avc1", "mp4a", "colrnclx", "elst"] {
        assert!(text.contains(label), "{label}");
    }
}

/// The frames in a byte stream that arrives in blocks; an error ends it.
fn demux(bytes: &[u8], block: usize) -> Result<Vec<demux::Frame>, Malformed> {
    let mut demuxer = Demuxer::default();
    let mut frames = Vec::new();
    for block in bytes.chunks(block) {
        demuxer.push(block);
        while let Some(piece) = demuxer.next()? {
            if let Piece::Frames(more) = piece {
                frames.extend(more);
            }
        }
    }
    Ok(frames)
}

#[test]
fn bytes_may_come_in_any_pieces_and_with_any_damage() {
    let config = config(30, 0);
    let end = 16_000;
    let slots = [0, 1600];
    let output = Run::start(&config, limits()).feed(&config, &slots, end, Late::None).output(end);
    let file = [output.init.clone(), output.segments[0].bytes.clone()].concat();
    let whole = demux(&file, file.len()).unwrap();
    assert_eq!(whole.len(), 2 + 17);
    let frame = |f: &demux::Frame| (f.kind, f.time, f.sync, f.data.clone());
    let pieces = demux(&file, 7).unwrap();
    assert!(whole.iter().map(frame).eq(pieces.iter().map(frame)));
    assert!(demux(&file[output.init.len()..], 64).is_err(), "a fragment of unknown tracks");

    let index = file.len() - output.segments[0].bytes.len() + 1500.min(output.segments[0].bytes.len());
    for at in 0..index {
        for damage in [0, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = damage;
            let mut grid = Grid::new(config.rate, 0);
            // Whether it is noticed depends on the field; it must end, without a panic, and keep its bounds.
            if let Ok(frames) = demux(&damaged, damaged.len()) {
                let _ = frames.into_iter().try_for_each(|f| grid.push(f));
                let _ = grid.finish(end, Tail::Cut);
            }
        }
    }
}

#[test]
fn a_killed_ffmpeg_leaves_what_it_had_written() {
    let config = config(30, 0);
    let mut run = Run::start(&config, limits());
    let pid = rustix::process::Pid::from_raw(run.pid()).unwrap();
    let (mut pictures, mut sound) = (run.pictures.take().unwrap(), run.sound.take().unwrap());
    let feeder = thread::spawn(move || {
        for n in 0.. {
            let slot = n * 1600;
            if pictures.write(slot, &shared(picture(&config, slot))).and_then(|()| sound.write(&tone(1600))).is_err() {
                return slot;
            }
        }
        0
    });
    let mut segments = Vec::new();
    let ended = loop {
        match run.out.recv_timeout(LONG).unwrap() {
            EncoderOutput::Init(_) => {}
            EncoderOutput::Segment(segment) => segments.push(segment),
            EncoderOutput::Ended(result) => break result,
        }
        if segments.len() == 2 {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    };
    let written = feeder.join().unwrap();
    assert!(matches!(&ended, Err(EncoderError::Exited { status, .. }) if status.contains("SIGKILL")), "{ended:?}");
    assert!(segments.len() >= 2);
    let kept: u64 = segments.iter().map(|s| s.samples).sum();
    assert!(kept > 2 * 76_800 - 1 && kept <= written + 1600 + AAC_FRAME, "{kept} of {written}");
    assert!(segments.iter().enumerate().all(|(n, s)| s.index == n as u64));
    run.encoder.finish(written, Tail::Cut);
}

#[test]
fn a_stopped_ffmpeg_is_ended_and_named() {
    let short = Duration::from_millis(300);
    let config = config(30, 0);
    let stopped = |limits| {
        let run = Run::start(&config, limits);
        let pid = rustix::process::Pid::from_raw(run.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        run
    };
    // Its input backs up.
    let mut run = stopped(Limits { stall: short, finish: LONG });
    let mut pictures = run.pictures.take().unwrap();
    let error = (0..1000).find_map(|n| pictures.write(n * 1600, &shared(picture(&config, n * 1600))).err()).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    run.sound = None;
    let output = run.output(0);
    assert!(matches!(&output.ended, Some(Err(EncoderError::Stuck { what, .. })) if what.contains("pictures")));
    // It does not end.
    let mut run = stopped(Limits { stall: LONG, finish: short });
    (run.pictures, run.sound) = (None, None);
    let output = run.output(0);
    assert!(matches!(&output.ended, Some(Err(EncoderError::Stuck { what, .. })) if what.contains("did not end")));
}

#[test]
fn a_program_that_is_not_ffmpeg_is_quoted() {
    let not_there = EncoderConfig { ffmpeg: "/nonexistent/ffmpeg".into(), ..config(30, 0) };
    let result = Encoder::start(&not_there, &Guard::disabled(), |_| ());
    assert!(matches!(result, Err(EncoderError::Spawn { program, .. }) if program == "/nonexistent/ffmpeg"));

    let another = EncoderConfig { ffmpeg: "/bin/ls".into(), ..config(30, 0) };
    let mut run = Run::start(&another, limits());
    (run.pictures, run.sound) = (None, None);
    let output = run.output(0);
    let Some(Err(EncoderError::Exited { status, stderr })) = &output.ended else { panic!("{:?}", output.ended) };
    assert!(status.contains('2') && stderr.contains("ls"), "{status}: {stderr}");

    let off = EncoderConfig { start: 1600, ..config(30, 0) };
    assert!(matches!(Encoder::start(&off, &Guard::disabled(), |_| ()), Err(EncoderError::Start { .. })));
}

#[test]
fn a_large_picture_is_read_as_it_was_given_and_given_back_when_it_has_been_read() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let state = Mutex::new(State { child: None, verdict: None, killed: false });
    let pipe = Pipe::new(writer, "pictures", Arc::new(Shared { limits: limits(), state })).unwrap();
    let size = Size::new(1280, 720).unwrap();
    let mut input = PictureInput::new(pipe, size, FrameRate::default(), 0);
    let bytes = 1280 * 720 * 3 / 2;
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut all).unwrap();
        all
    });
    let mut shades: Vec<(u8, std::sync::Weak<_>)> = Vec::new();
    for shade in 1..=5 {
        let picture: SharedPicture = shared(vec![shade; bytes]);
        input.write(u64::from(shade - 1) * 1600, &picture).unwrap();
        shades.push((shade, Arc::downgrade(&picture)));
        let held = shades.iter().filter(|(_, p)| p.upgrade().is_some()).map(|(s, _)| *s).collect::<Vec<_>>();
        assert_eq!(held, [shade], "what came before has been read");
    }
    drop(input);
    let all = reading.join().unwrap();
    assert_eq!(all.len(), 32 + 5 * (12 + bytes));
    for (n, picture) in all[32..].chunks(12 + bytes).enumerate() {
        assert!(picture[12..].iter().all(|b| usize::from(*b) == n + 1), "picture {n} was changed while it was read");
    }
}

#[test]
fn pictures_off_the_grid_are_refused() {
    let config = config(30, 76_800);
    let mut run = Run::start(&config, limits());
    let mut pictures = run.pictures.take().unwrap();
    let good = picture(&config, 0);
    let mut refused = |slot: u64, bytes: &[u8]| match pictures.write(slot, &shared(bytes.to_vec())) {
        Ok(()) => None,
        Err(e) => Some((e.kind() == io::ErrorKind::InvalidInput, e.to_string())),
    };
    assert!(refused(78_400, &good).unwrap().1.contains("outside 76800..=76800"), "the first is at the start");
    assert!(refused(76_800, &good[1..]).unwrap().0, "wrong size");
    assert_eq!(refused(76_800, &good), None);
    for (slot, why) in [(76_800, "twice"), (76_801, "off"), (2 * 76_800 + 1600, "leaves a segment start out")] {
        assert!(refused(slot, &good).unwrap().0, "{why}");
    }
    assert_eq!(refused(2 * 76_800, &good), None);
    run.encoder.kill();
    assert!(!run.out.iter().any(|o| matches!(o, EncoderOutput::Ended(_))), "killing says nothing");
}

#[test]
fn sound_is_clipped_and_not_wrapped() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let state = Mutex::new(State { child: None, verdict: None, killed: false });
    let shared = Arc::new(Shared { limits: limits(), state });
    let mut sound = SoundInput::new(Pipe::new(writer, "sound", shared).unwrap());
    sound.write(&[0.5, -1.5, 1.5, f32::NAN]).unwrap();
    drop(sound);
    let mut bytes = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut bytes).unwrap();
    let samples: Vec<i16> = bytes.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(samples, [16_384, i16::MIN, i16::MAX, 0]);
}
