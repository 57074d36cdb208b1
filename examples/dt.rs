use panorec::recording::{capture::*, encoder::*, process::*};
use panorec::task::{spec::*, timeline::FrameRate};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
fn main() {
    let dir = tempfile::tempdir().unwrap();
    let url = std::env::args().nth(1).unwrap();
    let fps: u32 = std::env::args().nth(2).map_or(30, |s| s.parse().unwrap());
    let secs: u64 = std::env::args().nth(3).map_or(8, |s| s.parse().unwrap());
    let rate = FrameRate::try_from(fps).unwrap();
    let size = Size::new(0, 0).unwrap();
    let spec = RecordingSpec {
        url: url::Url::parse(&url).unwrap(),
        size,
        rate,
        bitrates: Bitrates::new(None, None, size, rate).unwrap(),
        manual_start: false,
        ready_timeout: None,
        max_duration: None,
        user_agent: None,
        allow_addresses: vec![],
    };
    let mut f = std::fs::File::create("/tmp/dt/out.mp4").unwrap();
    let mut c = Capture::start(
        &CaptureConfig { run_dir: dir.path().into(), ffmpeg: "/work/h/ffmpeg".into(), start: 0 },
        &spec,
        &Guard::disabled(),
        move |o| match o {
            EncoderOutput::Init(b) => f.write_all(&b).unwrap(),
            EncoderOutput::Segment(s) => {
                println!(
                    "seg {} {} bytes v{} a{}",
                    s.index,
                    s.bytes.len(),
                    s.runs[0].samples.len(),
                    s.runs.get(1).map_or(0, |r| r.samples.len())
                );
                f.write_all(&s.bytes).unwrap()
            }
            EncoderOutput::Ended(e) => println!("ended {e:?}"),
        },
    )
    .unwrap();
    let ch = Command::new(Path::new("/usr/lib/chromium/chromium"), "chromium")
        .args([
            "--ozone-platform=wayland",
            "--kiosk",
            "--disable-gpu",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
            "--disable-component-update",
            "--autoplay-policy=no-user-gesture-required",
        ])
        .arg(format!("--user-data-dir={}", dir.path().join("p").display()))
        .arg(&url)
        .env("XDG_RUNTIME_DIR", dir.path())
        .env("WAYLAND_DISPLAY", "wayland-0")
        .env("PULSE_SERVER", format!("unix:{}", sound_socket(dir.path()).display()))
        .env("HOME", dir.path())
        .spawn(&Guard::disabled())
        .unwrap();
    std::thread::sleep(Duration::from_secs(4));
    c.open();
    for _ in 0..secs {
        std::thread::sleep(Duration::from_secs(1));
        let k = c.counts();
        println!(
            "{:?} late {} peak {} delay {:?} ur {}",
            k.pictures, k.display_lateness_us, k.peak, k.stamp_delay_ms, k.sound.underruns
        );
    }
    let t = Instant::now();
    let e = c.finish(None);
    println!("finish {:?} end {} {:?} {:?}", t.elapsed(), e.end as f64 / 48000., e.silent, e.blank);
    ch.end(Duration::from_millis(500));
}
