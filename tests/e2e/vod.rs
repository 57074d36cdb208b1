//! Recordings that become assets of a video-on-demand service, which lends places in a real bucket.

use crate::checks;
use crate::cloud::s3::Bucket;
use crate::cloud::vod::{ID, Mishaps, SECRET_KEY, VodServer};
use crate::function::runtime;
use crate::gateway::Gateway;
use crate::hls::{decoded, key_server};
use crate::judge::{Evidence, tools};
use crate::run::Stage;
use crate::service::heard;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// Recording, uploading, and a lease that runs out, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a service that delivers to `vod`.
pub fn settings(vod: &VodServer) -> Vec<(String, String)> {
    let settings = [
        ("VOD_SECRET_ID", ID),
        ("VOD_SECRET_KEY", SECRET_KEY),
        ("VOD_ENDPOINT", vod.url.as_str()),
        ("VOD_UPLOAD_ENDPOINT", &vod.bucket().endpoint),
    ];
    settings.map(|(name, value)| (name.to_string(), value.to_string())).into()
}

/// Waits until the service was asked for so many calls.
fn until_asked(vod: &VodServer, times: usize) {
    let since = Instant::now();
    while vod.asked().len() < times {
        assert!(since.elapsed() < PATIENCE, "asked for {:?}", vod.asked());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_recording_becomes_an_asset_though_leave_has_ended_and_its_recorder_is_killed() {
    let stage = Stage::shared();
    let runtime = runtime();
    let mishaps = Mishaps { ended: 1, silent: 1, refusal: None };
    let vod = runtime.block_on(async { VodServer::new(Bucket::new().await, mishaps).await });
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let callback = format!("http://{}/done", server.local_addr().unwrap());
    let told = thread::spawn(move || heard(&server, "204 No Content").1);
    let gateway = Gateway::start(&stage, &[], &settings(&vod));
    let media = json!({"MediaName": "Algebra", "ExpireTime": "2030-01-01T00:00:00Z", "StorageRegion": "ap-chongqing",
                       "ClassId": 3, "SourceContext": "class 7b"});
    let procedure = json!({"Procedure": "LongVideoPreset", "SessionContext": "room 12"});
    let order = json!({"MediaInfo": media, "ProcedureInfo": procedure, "SubAppId": "1500012345"});
    let order = json!({"MaxDurationLimit": 1, "CallbackURL": callback, "Output": {"Vod": order}});
    let task = gateway.record("clock.html", order);
    // The first leave to upload has ended: the store says so, and another one is asked for. The file is there when the
    // recorder dies, whose commit nobody answers.
    until_asked(&vod, 3);
    let recorders = gateway.recorders();
    kill_process(Pid::from_raw(recorders[0] as i32).unwrap(), Signal::KILL).unwrap();
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    let apply = json!({"MediaType": "mp4", "MediaName": "Algebra", "ExpireTime": "2030-01-01T00:00:00Z",
                       "StorageRegion": "ap-chongqing", "ClassId": 3, "SourceContext": "class 7b",
                       "Procedure": "LongVideoPreset", "SessionContext": "room 12", "SubAppId": 1_500_012_345});
    let commit = json!({"VodSessionKey": "session-1", "SubAppId": 1_500_012_345});
    let expected =
        [("ApplyUpload", &apply), ("ApplyUpload", &apply), ("CommitUpload", &commit), ("CommitUpload", &commit)];
    assert_eq!(
        vod.asked(),
        expected.map(|(action, body)| (action.to_string(), body.clone())),
        "what is there is committed"
    );
    is_the_recording(&stage, &runtime, &vod, &done);
    let told = told.join().unwrap();
    assert_eq!(told["Result"], done["Result"], "the callback tells of the asset, too");
    let chunks = gateway.data().join("chunks");
    assert_eq!(std::fs::read_dir(&chunks).unwrap().count(), 0, "chunks are removed once the asset is there");
    gateway.end();
}

fn is_the_recording(stage: &Stage, runtime: &tokio::runtime::Runtime, vod: &VodServer, done: &Value) {
    let videos = done["Result"]["Videos"].as_array().unwrap();
    assert_eq!(videos.len(), 1, "the asset, and nothing in the bucket for recordings: {done}");
    assert_eq!(videos[0]["FileId"], "5281");
    assert_eq!(videos[0]["FileURL"], format!("{}play/vod/lesson-1.mp4", vod.url));
    let keys = runtime.block_on(vod.bucket().keys());
    assert_eq!(keys, ["vod/lesson-1.mp4"], "nothing that was begun before is left");
    let bytes = runtime.block_on(vod.bucket().read(&keys[0])).unwrap();
    assert_eq!(bytes.len() as u64, videos[0]["FileSize"].as_u64().unwrap());
    std::fs::write(stage.file(), bytes).unwrap();
    let e = Evidence::of(&stage.file()).unwrap();
    checks::container_of(&stage.file(), &e);
    checks::lasts(&e, videos[0]["FileDuration"].as_f64().unwrap());
    assert!(e.probe.duration > 0.5 && checks::jumps(&e, 500.0).is_empty(), "{} s of about 1", e.probe.duration);
}

#[test]
fn hls_becomes_an_asset_beside_the_mp4_and_plays_from_the_bucket_with_its_key() {
    let stage = Stage::new();
    let runtime = runtime();
    let vod = runtime.block_on(async { VodServer::new(Bucket::new().await, Mishaps::default()).await });
    let gateway = Gateway::start(&stage, &[], &settings(&vod));
    let keys = key_server();
    let video = json!({"Muxer": "mp4,hls", "EncryptKey": "0123456789abcdef", "AuthUrl": format!("{keys}/key")});
    let order = json!({"MaxDurationLimit": 5, "Output": {"Vod": {"SubAppId": "7"}, "Video": video}});
    let task = gateway.record("clock.html", order);
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    let asked = vod.asked();
    let bodies: Vec<&Value> = asked.iter().map(|(_, body)| body).collect();
    let apply = |kind: &str| json!({"MediaType": kind, "SubAppId": 7});
    let commit = |session: &str| json!({"VodSessionKey": session, "SubAppId": 7});
    assert_eq!(bodies, [&apply("mp4"), &commit("session-0"), &apply("m3u8"), &commit("session-1")]);
    let asset = |n: usize, name: &str| done["Result"]["Videos"][n][name].as_str().unwrap().to_owned();
    assert_eq!((asset(0, "FileId"), asset(1, "FileId")), ("5280".into(), "5281".into()));
    assert_eq!((asset(0, "Filename"), asset(1, "Filename")), ("lesson-0.mp4".into(), "lesson.m3u8".into()));
    is_the_same(&stage, &asset(0, "FileURL"), &asset(1, "FileURL"), &done);
    is_closed(&runtime, vod.bucket(), done["Result"]["Videos"][1]["FileSize"].as_u64().unwrap());
    let chunks = gateway.data().join("chunks");
    assert_eq!(std::fs::read_dir(&chunks).unwrap().count(), 0, "chunks are removed once both are there");
    gateway.end();
}

/// FFmpeg plays the playlist out of the bucket without a complaint, and it shows what the file shows.
fn is_the_same(stage: &Stage, mp4: &str, hls: &str, done: &Value) {
    let (file, list) = (decoded(mp4).unwrap(), decoded(hls).unwrap());
    let length = done["Result"]["Videos"][1]["FileDuration"].as_f64().unwrap();
    assert_eq!(file.0, list.0, "pictures of both");
    assert!((list.1 - length).abs() < 0.05 && length > 4.0, "{length} s: {list:?}");
    let shown = |url: &str| {
        let copy = stage.file();
        let args = ["-y", "-v", "error", "-xerror", "-i", url, "-c", "copy", copy.to_str().unwrap()];
        assert!(tools::run("ffmpeg", &args).is_ok_and(|said| said.ok), "{url} cannot be copied");
        Evidence::of(&copy).unwrap()
    };
    let (file, list) = (shown(mp4), shown(hls));
    let codes = |e: &Evidence| e.coded().into_iter().map(|(_, code)| code).collect::<Vec<_>>();
    assert!(codes(&file).len() > 100 && codes(&file) == codes(&list), "other pictures");
    list.in_order().unwrap();
    assert!(checks::jumps(&list, 500.0).is_empty(), "{:?}", checks::jumps(&list, 500.0));
}

/// What lies in the bucket is what the playlist names, of the size that is said, and not a second of it in the clear.
fn is_closed(runtime: &tokio::runtime::Runtime, bucket: &Bucket, size: u64) {
    let keys = runtime.block_on(bucket.keys());
    let (mut bytes, mut segments) = (0, 0);
    for key in keys.iter().filter(|key| key.starts_with("vod/1/") && !key.contains("/init-")) {
        let content = runtime.block_on(bucket.read(key)).unwrap();
        bytes += content.len() as u64;
        segments += usize::from(key.ends_with(".m4s"));
        assert!(!content.windows(4).any(|w| w == b"moof"), "{key} is not encrypted");
    }
    assert_eq!((bytes, segments, keys.len()), (size, 4, 1 + 1 + 1 + 4), "{keys:?}");
}
