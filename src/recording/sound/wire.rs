//! Frames of the native protocol in byte buffers, and a guard in front of the decoder.
//!
//! The decoder trusts lengths inside a message (it would allocate 4 GiB for five bytes) and multiplies times without a
//! check. So only the handful of commands that are answered ever reach it, and only after [`well_formed`] has walked the
//! message.

use pulseaudio::protocol::{DESCRIPTOR_SIZE, Descriptor, read_descriptor};

/// Largest message accepted. The client library splits sound at 64 KiB and its commands are a few KiB.
pub(super) const MAX_MESSAGE: usize = 128 * 1024;

/// One whole message without its header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A command.
    Command(&'a [u8]),
    /// Sound for a stream.
    Sound(u32, &'a [u8]),
}

/// Something no client of ours sends: the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes, limit {MAX_MESSAGE}")]
    TooLong(u32),
    /// Shared memory, which was refused when the connection began.
    #[error("a shared memory message, which was not agreed on")]
    SharedMemory,
    /// A command that cannot be read.
    #[error("a malformed command")]
    Malformed,
}

/// Takes the first whole message off `bytes`, if there is one, and leaves the rest.
pub(super) fn next_message<'a>(bytes: &mut &'a [u8]) -> Result<Option<Message<'a>>, Violation> {
    let all = *bytes;
    let Some((mut head, body)) = all.split_at_checked(DESCRIPTOR_SIZE) else {
        return Ok(None);
    };
    let Descriptor { length, channel, flags, .. } = read_descriptor(&mut head).map_err(|_| Violation::Malformed)?;
    if length as usize > MAX_MESSAGE {
        return Err(Violation::TooLong(length));
    }
    if !flags.is_empty() {
        return Err(Violation::SharedMemory);
    }
    let Some((payload, rest)) = body.split_at_checked(length as usize) else {
        return Ok(None);
    };
    *bytes = rest;
    Ok(Some(match channel {
        u32::MAX => Message::Command(payload),
        channel => Message::Sound(channel, payload),
    }))
}

/// Command number and sequence number at the head of a command.
pub(super) fn tag_and_seq(payload: &[u8]) -> Option<(u32, u32)> {
    match *payload {
        [b'L', a, b, c, d, b'L', e, f, g, h, ..] => {
            Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
        }
        _ => None,
    }
}

/// Whether every value in a command lies within it and every time is one.
pub(super) fn well_formed(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((&tag, value)) = rest.split_first() {
        let Some(after) = value_length(tag, value).and_then(|n| value.get(n..)) else {
            return false;
        };
        rest = after;
    }
    true
}

/// Bytes a value takes after its tag.
fn value_length(tag: u8, value: &[u8]) -> Option<usize> {
    let u32_at = |at: usize| {
        let bytes = value.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(match tag {
        b'N' | b'0' | b'1' | b'P' | b'f' => 0, // null string, booleans, heads of a property list and a format
        b'B' => 1,
        b'L' | b'V' => 4,
        b'a' => 6,
        b'R' | b'r' | b'U' => 8,
        b'T' if u32_at(4)? < 1_000_000 => 8, // seconds, then microseconds below a second
        b't' => value.iter().position(|&b| b == 0)? + 1,
        b'x' => 4 + u32_at(0)? as usize,
        b'm' => 1 + usize::from(*value.first()?),
        b'v' => 1 + 4 * usize::from(*value.first()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulseaudio::protocol::{self, AuthParams, Command, CommandTag, encode_descriptor};
    use std::io::Cursor;

    fn encoded(command: &Command) -> Vec<u8> {
        let mut bytes = Vec::new();
        protocol::write_command_message(&mut bytes, 7, command, 35).unwrap();
        bytes
    }

    fn header(length: u32, channel: u32, flags: u32) -> Vec<u8> {
        let mut head = [0; DESCRIPTOR_SIZE];
        let flags = protocol::DescriptorFlags::from_bits_retain(flags);
        encode_descriptor(&mut head, &Descriptor { length, channel, offset: 0, flags });
        head.to_vec()
    }

    #[test]
    fn a_message_is_taken_only_when_it_is_whole() {
        let mut stream = encoded(&Command::GetServerInfo);
        stream.extend(header(3, 5, 0));
        stream.extend([1, 2, 3]);
        let first = stream.len() - DESCRIPTOR_SIZE - 3;
        for cut in 0..stream.len() {
            let mut rest = &stream[..cut];
            let mut taken = 0;
            while next_message(&mut rest).unwrap().is_some() {
                taken += 1;
            }
            let whole = if cut < first { (0, cut) } else { (1, cut - first) };
            assert_eq!((taken, rest.len()), whole, "cut at {cut}");
        }
        let mut rest = &stream[..];
        let Some(Message::Command(payload)) = next_message(&mut rest).unwrap() else {
            panic!("a command comes first");
        };
        assert_eq!(tag_and_seq(payload), Some((CommandTag::GetServerInfo as u32, 7)));
        assert_eq!(next_message(&mut rest), Ok(Some(Message::Sound(5, &[1, 2, 3]))));
        assert_eq!(next_message(&mut rest), Ok(None));
    }

    #[test]
    fn oversized_and_shared_memory_messages_are_violations_at_their_header() {
        let long = header(MAX_MESSAGE as u32 + 1, 0, 0);
        assert_eq!(next_message(&mut &long[..]), Err(Violation::TooLong(MAX_MESSAGE as u32 + 1)));
        for flags in [0x8000_0000, 0x4000_0000, 0xC000_0000] {
            let shm = header(0, 0, flags);
            assert_eq!(next_message(&mut &shm[..]), Err(Violation::SharedMemory), "{flags:x}");
        }
    }

    #[test]
    fn lengths_beyond_the_message_and_impossible_times_never_reach_the_decoder() {
        let auth = Command::Auth(AuthParams { version: 35, cookie: vec![0; 256], ..Default::default() });
        let mut payload = encoded(&auth)[DESCRIPTOR_SIZE..].to_vec();
        assert!(well_formed(&payload));
        let length = payload.len() - 256 - 4;
        payload[length..length + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(!well_formed(&payload), "a 4 GiB cookie");

        let time = [b'T', 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert!(!well_formed(&time));
        assert!(!well_formed(b"tno end"));
        assert!(!well_formed(&[b'v', 255, 0, 0]));
        assert!(!well_formed(&[0]));
    }

    #[test]
    fn the_decoder_survives_whatever_the_guard_lets_through() {
        let params = protocol::PlaybackStreamParams {
            sink_name: Some(c"sink".to_owned()),
            formats: vec![protocol::FormatInfo::default()],
            cvolume: Some(protocol::ChannelVolume::norm(2)),
            ..Default::default()
        };
        let latency = protocol::LatencyParams { channel: 0, now: std::time::UNIX_EPOCH };
        let seeds = [
            Command::CreatePlaybackStream(params),
            Command::GetPlaybackLatency(latency),
            Command::Auth(AuthParams { version: 35, cookie: vec![1; 16], ..Default::default() }),
        ]
        .map(|c| encoded(&c)[DESCRIPTOR_SIZE..].to_vec());
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let mut passed = 0;
        for round in 0..20_000 {
            let mut payload = seeds[round % seeds.len()].clone();
            for _ in 0..1 + random() % 4 {
                // The command's own number stays, so that mutations reach the decoder of its parameters.
                let at = 10 + random() % (payload.len() - 10);
                payload[at] = random() as u8;
            }
            if random() % 4 == 0 {
                payload.truncate(10 + random() % (payload.len() - 10));
            }
            if well_formed(&payload) {
                passed += 1;
                let _ = Command::read_tag_prefixed(&mut Cursor::new(&payload), 35);
            }
        }
        assert!(passed > 1000, "the guard lets mutated but sound messages through: {passed}");
    }
}
