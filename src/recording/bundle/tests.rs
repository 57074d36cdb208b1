use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::*;

/// Small, so that files lie across frames and frames across files.
const FRAME: usize = 1000;

struct Layer {
    dir: tempfile::TempDir,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Layer {
    fn new() -> Self {
        let noise = |len: usize| (0..len).map(|i| (i * i % 251) as u8).collect::<Vec<u8>>();
        let files = vec![("a", noise(1)), ("empty", vec![]), ("lib/b.so", noise(4321)), ("lib/c", noise(678))];
        let layer = Self { dir: tempfile::tempdir().unwrap(), files };
        let whole: Vec<u8> = layer.files.iter().flat_map(|f| f.1.clone()).collect();
        let frames: Vec<String> = (0..whole.len().div_ceil(FRAME)).map(|n| format!("{n:03}.zst")).collect();
        for (name, piece) in frames.iter().zip(whole.chunks(FRAME)) {
            fs::write(layer.path(name), zstd::bulk::compress(piece, 3).unwrap()).unwrap();
        }
        layer.describe(&frames, "link");
        layer
    }

    fn describe(&self, frames: &[String], link: &str) {
        let file = |(path, content): &(&str, Vec<u8>)| json!({"path": path, "bytes": content.len(), "executable": *path == "a"});
        let mut files: Vec<_> = self.files.iter().map(file).collect();
        files.push(json!({"path": link, "link": "lib/c"}));
        let index = json!({
            "version": 1, "target": self.target(), "frame_bytes": FRAME, "frames": frames, "files": files,
        });
        fs::write(self.path(INDEX), index.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    async fn unpack(&self) -> std::result::Result<PathBuf, String> {
        Bundle::unpack(self.dir.path()).ready().await.map_err(|e| e.to_string())
    }

    fn check(&self) {
        for (path, content) in &self.files {
            assert_eq!(&fs::read(self.target().join(path)).unwrap(), content, "{path}");
        }
        assert_eq!(fs::read(self.target().join("link")).unwrap(), self.files[3].1);
    }
}

#[tokio::test]
async fn every_file_is_what_was_packed() {
    let layer = Layer::new();
    assert_eq!(layer.unpack().await.unwrap(), layer.target());
    layer.check();
    let mode = |name: &str| layer.target().join(name).metadata().unwrap().permissions().mode() & 0o111;
    assert!(mode("a") != 0 && mode("lib/c") == 0);
}

#[tokio::test]
async fn a_whole_tree_is_kept_and_any_other_is_made_again() {
    let layer = Layer::new();
    layer.unpack().await.unwrap();
    let born = || layer.target().join("a").metadata().unwrap().ino();
    let before = born();
    layer.unpack().await.unwrap();
    assert_eq!(born(), before, "it was there");
    // A process that was killed while it unpacked.
    fs::remove_file(layer.target().join(COMPLETE)).unwrap();
    fs::write(layer.target().join("lib/c"), "half").unwrap();
    layer.unpack().await.unwrap();
    layer.check();
}

#[tokio::test]
async fn a_damaged_layer_is_named_and_never_taken_for_whole() {
    for (damage, expected) in [
        ("frame", "001.zst: "),
        ("short", "001.zst: 10 bytes instead of 1000"),
        ("missing", "001.zst cannot be read"),
        ("index", "index.json: "),
        ("frames", "index.json: 4 frames for 5000 bytes"),
        ("outside", "index.json: `../x` leads out of its directory"),
    ] {
        let layer = Layer::new();
        let names: Vec<String> = (0..4).map(|n| format!("{n:03}.zst")).collect();
        match damage {
            "frame" => fs::write(layer.path("001.zst"), "no frame").unwrap(),
            "short" => fs::write(layer.path("001.zst"), zstd::bulk::compress(&[0; 10], 3).unwrap()).unwrap(),
            "missing" => fs::remove_file(layer.path("001.zst")).unwrap(),
            "index" => fs::write(layer.path(INDEX), "{").unwrap(),
            "frames" => layer.describe(&names, "link"),
            _ => layer.describe(&[], "../x"),
        }
        let message = layer.unpack().await.unwrap_err();
        assert!(message.contains(expected), "{damage}: {message}");
        assert!(!layer.target().join(COMPLETE).exists(), "{damage}");
    }
}
