//! Videos for the pages, made once by FFmpeg: flash and beep burnt in, bed tone, something that moves.
//!
//! The flash is the upper third of the picture, lit for 120 ms; a beep of 80 ms begins on the very sample at which the first lit picture
//! is due. At 25 pictures a second the period is 26 of them, the 1.04 s of `code.js`; at 30 it is 31 (1.033 s), since a multiple of the picture is needed.

use crate::judge::tools::{Res, arg, run_ok};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Raised whenever a video changes, so that old ones are not used.
const VERSION: u32 = 1;
/// Periods a video lasts, a minute: recordings of the end-to-end tests see no loop.
const PERIODS: u32 = 60;

struct Video {
    name: &'static str,
    size: &'static str,
    fps: u32,
    /// Pictures from flash to flash; 0 for a video without flash and beep.
    period: u32,
    /// FFmpeg source of what moves.
    motion: &'static str,
    /// What else is heard: frequency and gain.
    tone: (u32, f32),
    /// Ceiling of the bit rate.
    rate: &'static str,
}

const VIDEOS: [Video; 6] = [
    Video {
        name: "av25.mp4",
        size: "640x360",
        fps: 25,
        period: 26,
        motion: "testsrc2",
        tone: (440, 0.05),
        rate: "1500k",
    },
    Video {
        name: "av30.mp4",
        size: "640x360",
        fps: 30,
        period: 31,
        motion: "testsrc2",
        tone: (440, 0.05),
        rate: "1500k",
    },
    // A camera: soft shapes and the noise of its sensor, which no encoder gets for nothing.
    Video {
        name: "class.mp4",
        size: "320x180",
        fps: 25,
        period: 26,
        motion: "gradients=speed=0.02:nb_colors=4,format=yuv420p,noise=alls=6:allf=t",
        tone: (440, 0.05),
        rate: "500k",
    },
    Video {
        name: "class30.mp4",
        size: "320x180",
        fps: 30,
        period: 31,
        motion: "gradients=speed=0.02:nb_colors=4,format=yuv420p,noise=alls=6:allf=t",
        tone: (440, 0.05),
        rate: "500k",
    },
    Video {
        name: "tone300.mp4",
        size: "640x360",
        fps: 30,
        period: 0,
        motion: "gradients=speed=0.05:nb_colors=5",
        tone: (300, 0.1),
        rate: "1500k",
    },
    Video {
        name: "tone500.mp4",
        size: "640x360",
        fps: 30,
        period: 0,
        motion: "testsrc",
        tone: (500, 0.1),
        rate: "1500k",
    },
];

/// The directory with all videos; makes those that are missing.
pub fn directory() -> Res<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/media-{VERSION}"));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for video in &VIDEOS {
        let path = dir.join(video.name);
        if !path.exists() {
            // Another process may be doing the same: each has its own draft, the last rename wins.
            let draft = dir.join(format!("{}-{}", std::process::id(), video.name));
            video.make(&draft)?;
            std::fs::rename(&draft, &path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(dir)
}

impl Video {
    fn make(&self, path: &Path) -> Res<()> {
        let samples = 48_000 / self.fps;
        let seconds = match self.period {
            0 => 62.0,
            p => f64::from(p * PERIODS) / f64::from(self.fps),
        };
        let joint = if self.motion.contains('=') { ":" } else { "=" };
        // Source options end at the first filter that follows the source.
        let (source, then) = self.motion.split_once(',').unwrap_or((self.motion, "null"));
        let size = format!("s={}:r={}", self.size, self.fps);
        let (first, last) = (self.period / 2, self.period / 2 + self.fps * 12 / 100 - 1);
        let band = match self.period {
            0 => "null".to_string(),
            p => format!(
                "drawbox=0:0:iw:ih/3:0x181818:fill,drawbox=0:0:iw:ih/3:white:fill:enable='between(mod(n,{p}),{first},{last})'"
            ),
        };
        let video = format!("{source}{joint}{size},{then},{band}");
        let (hz, gain) = self.tone;
        let beep = match self.period {
            0 => String::new(),
            p => format!(
                "+0.5*sin(2*PI*2000*mod(n-{0},{1})/48000)*lt(mod(n+{1}-{0},{1}),3840)",
                first * samples,
                p * samples
            ),
        };
        let sound = format!("aevalsrc='{gain}*sin(2*PI*{hz}*n/48000){beep}':s=48000");
        let seconds = seconds.to_string();
        let mut args = vec!["-v", "error", "-y", "-f", "lavfi", "-i", &video];
        args.extend(["-f", "lavfi", "-i", &sound, "-t", &seconds]);
        args.extend(["-c:v", "libx264", "-preset", "veryfast", "-crf", "28"]);
        args.extend(["-maxrate", self.rate, "-bufsize", self.rate]);
        args.extend(["-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "160k"]);
        args.extend(["-movflags", "+faststart", arg(path)?]);
        run_ok("ffmpeg", &args).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::sound::Sound;
    use crate::judge::{picture, sync};

    /// The flash is a whole picture early or late only if the video is wrong.
    const TOLERANCE_MS: f64 = 2.0;

    #[test]
    fn flash_and_beep_of_the_videos_are_one() {
        let _turn = crate::turn::turn();
        let dir = directory().unwrap();
        let videos = [("av25.mp4", 640, 60), ("av30.mp4", 640, 60), ("class.mp4", 320, 60), ("class30.mp4", 320, 60)];
        for (name, width, count) in videos {
            let path = dir.join(name);
            let (_, pictures) = picture::read(&path, width).unwrap();
            let beeps = Sound::read(&path).unwrap().beeps();
            let pairs = sync::pairs(&sync::flashes(&pictures), &beeps);
            assert_eq!(pairs.len(), count, "{name}");
            for p in pairs {
                let off = p.offset * 1000.0;
                assert!(off.abs() < TOLERANCE_MS, "{name}: {p:?}");
            }
        }
    }
}
