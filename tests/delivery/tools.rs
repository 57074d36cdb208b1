//! FFmpeg as encoder and as judge.
#![allow(clippy::disallowed_methods)] // the judge is started here, not by the recorder

use bytes::Bytes;
use panorec::task::boxes::Boxes;
use panorec::task::init::Init;
use panorec::task::segment::Segment;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of the FFmpeg build in `.tools`, or that of the system.
fn tool(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name);
    if own.exists() { own } else { name.into() }
}

/// Runs FFmpeg or ffprobe, demands success and a clean standard error, and returns what it printed.
pub fn run(name: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(tool(name))
        .args(["-v", "warning"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{name} cannot be started ({e}): put a build into .tools/ or install ffmpeg"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {complaints}");
    assert_eq!(complaints, "", "{name} {args:?}");
    output.stdout
}

/// Encodes test pictures and a tone as our encoder does (without noise substitution, in which decoders differ by history): fragments cut at keyframes on the grid of 1.6 s.
pub fn encode(dir: &Path, name: &str, seconds: &str, filter: &str, preset: &str) -> Vec<u8> {
    let path = dir.join(name);
    let video = format!(
        "testsrc2=size=320x180:rate=30,{filter},format=yuv420p,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    );
    let sound = "aevalsrc='0.3*sin(2*PI*(300+100*t)*t)|0.2*sin(2*PI*500*t)':s=48000";
    let line = format!(
        "-y -f lavfi -i {video} -f lavfi -i {sound} -t {seconds} -c:v libx264 -preset {preset} -bf 0 \
         -force_key_frames expr:gte(t,n_forced*1.6-0.001) -x264-params scenecut=0:keyint=infinite \
         -fps_mode passthrough -enc_time_base 1:90000 -video_track_timescale 90000 -c:a aac -aac_pns 0 -ac 2 \
         -movflags frag_keyframe+default_base_moof+delay_moov -f mp4"
    );
    let mut args: Vec<&str> = line.split_whitespace().collect();
    let path_text = path.to_str().expect("a path of this test in UTF-8");
    args.push(path_text);
    run("ffmpeg", &args);
    std::fs::read(&path).expect("what FFmpeg wrote")
}

/// The init segment and the segments of a fragmented file, placed as segments `first..` of the recording.
pub fn split(file: &[u8], first: u64, start: u64) -> (Bytes, Vec<Segment>) {
    let starts: Vec<usize> = Boxes::new(file)
        .map(|b| b.expect("whole boxes"))
        .filter(|b| matches!(&b.kind.0, b"moof" | b"mfra"))
        .map(|b| b.at)
        .collect();
    let init = Bytes::copy_from_slice(&file[..starts[0]]);
    let parsed = Init::read(&init).expect("an init segment");
    let (mut index, mut at) = (first, start);
    let segments = starts.windows(2).map(|w| {
        let bytes = Bytes::copy_from_slice(&file[w[0]..w[1]]);
        let segment = parsed.segment(bytes, index, at).expect("a segment");
        index += 1;
        at += segment.samples;
        segment
    });
    let segments = segments.collect();
    (init, segments)
}

/// (time stamp, duration, checksum) of every decoded picture, time base 1/90000.
pub fn pictures(path: &Path, extra: &[&str]) -> Vec<(i64, i64, String)> {
    let mut args = extra.to_vec();
    let output = ["-map", "0:v", "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "framemd5", "-"];
    args.extend(["-i", path.to_str().expect("UTF-8")]);
    args.extend(output);
    let text = String::from_utf8(run("ffmpeg", &args)).expect("text");
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| {
            let f: Vec<_> = l.split(',').map(str::trim).collect();
            let number = |n: usize| f[n].parse().expect("a number");
            (number(2), number(3), f[5].to_string())
        })
        .collect()
}

/// Every decoded sample pair.
pub fn sound(path: &Path, extra: &[&str]) -> Vec<[u8; 4]> {
    let mut args = extra.to_vec();
    args.extend(["-i", path.to_str().expect("UTF-8"), "-map", "0:a", "-f", "s16le", "-"]);
    let bytes = run("ffmpeg", &args);
    bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect()
}

/// A value that ffprobe states, such as `format=duration` or `stream=start_time` of a stream.
pub fn probe(path: &Path, select: &[&str], entry: &str) -> String {
    let mut args = select.to_vec();
    args.extend(["-show_entries", entry, "-of", "csv=p=0", path.to_str().expect("UTF-8")]);
    String::from_utf8(run("ffprobe", &args)).expect("text").trim().to_string()
}
