use super::super::medium::SmallDisk;
use super::*;
use crate::platform::StoreErrorKind;
use crate::platform::conformance::{self, HeadLastPlace};

/// Room that no test fills.
const PLENTY: u64 = 1 << 30;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

struct Place {
    dir: tempfile::TempDir,
    medium: Arc<dyn Medium>,
}

#[async_trait]
impl HeadLastPlace for Place {
    async fn create(&self, name: &str) -> Box<dyn HeadLastObject> {
        let target = self.dir.path().join(name);
        Box::new(GrowingFile::create_on(self.medium.clone(), &target, false).unwrap())
    }
    async fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join(name)).ok()
    }
    async fn everything(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

/// The three ways of finishing.
fn ways() -> [(&'static str, Arc<dyn Medium>); 4] {
    [
        ("as this system does it", Arc::new(Disk)),
        ("inserted", Arc::new(SmallDisk::new(PLENTY, true, false))),
        ("copied", Arc::new(SmallDisk::new(PLENTY, false, true))),
        ("moved", Arc::new(SmallDisk::new(PLENTY, false, false))),
    ]
}

#[tokio::test]
async fn every_way_of_finishing_gives_the_same_file_on_disk_and_on_tmpfs() {
    for (name, medium) in ways() {
        for root in [Some("/dev/shm"), None] {
            println!("{name}, {root:?}");
            let dir = root.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
            conformance::head_last_object(&Place { dir, medium: medium.clone() }).await;
        }
    }
}

async fn append(file: &mut GrowingFile, len: usize, fill: u8) -> Result<(), StoreErrorKind> {
    file.append(Bytes::from(vec![fill; len])).await.map_err(|e| e.kind)
}

#[tokio::test]
async fn a_recording_on_a_full_disk_can_be_finished_and_keeps_whole_segments_only() {
    for (can_insert, can_copy) in [(true, true), (false, true), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("full.mp4");
        let disk = Arc::new(SmallDisk::new(RESERVE_STEP + 250_000, can_insert, can_copy));
        let mut file = GrowingFile::create_on(disk.clone(), &target, false).unwrap();
        append(&mut file, 100_000, b'a').await.unwrap();
        append(&mut file, 100_000, b'b').await.unwrap();
        assert_eq!(append(&mut file, 100_000, b'c').await, Err(StoreErrorKind::Full));
        assert_eq!(*disk.room.lock().unwrap(), 50_000, "nothing of the third is kept");
        append(&mut file, 40_000, b'd').await.unwrap();
        // Somebody else takes what is left; the head is as large as the reserve allows.
        *disk.room.lock().unwrap() = 0;
        let head = vec![b'H'; (RESERVE_STEP - RESERVE_BASE) as usize / 4096 * 4096];
        let file: Box<dyn HeadLastObject> = Box::new(file);
        file.finish(head.clone().into(), "").await.unwrap();
        let expected = [head, vec![b'a'; 100_000], vec![b'b'; 100_000], vec![b'd'; 40_000]].concat();
        assert!(std::fs::read(&target).unwrap() == expected, "{can_insert} {can_copy}");
    }
}

#[tokio::test]
async fn the_reserve_grows_ahead_of_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SmallDisk::new(2 * RESERVE_STEP + 1000, true, true));
    let mut file = GrowingFile::create_on(disk.clone(), &dir.path().join("x"), false).unwrap();
    let mut appended = 0;
    let refused = loop {
        match append(&mut file, 1, b'x').await {
            Ok(()) => appended += 1,
            Err(kind) => break kind,
        }
    };
    assert_eq!(refused, StoreErrorKind::Full, "the payload would fit, the head would not");
    let room = RESERVE_BASE + appended * RESERVE_PER_APPEND;
    assert!(room <= 2 * RESERVE_STEP && room + RESERVE_PER_APPEND > 2 * RESERVE_STEP, "{appended}");
    assert_eq!(append(&mut file, 1, b'x').await, Err(StoreErrorKind::Full), "asking again changes nothing");
    let full = GrowingFile::create_on(disk, &dir.path().join("y"), false).err().unwrap();
    assert_eq!(full.kind, StoreErrorKind::Full, "known before recording");
}

#[tokio::test]
async fn what_exists_is_replaced_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x.mp4");
    std::fs::write(&target, "old").unwrap();
    let refused = GrowingFile::create(&target, false).err().unwrap();
    assert_eq!(refused.kind, StoreErrorKind::Refused);
    assert!(refused.source.to_string().contains("exists"), "{}", refused.source);
    let link = dir.path().join("link.mp4");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(GrowingFile::create(&link, false).is_err());
    let mut file = Box::new(GrowingFile::create(&link, true).unwrap());
    append(&mut file, 3, b'n').await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"old", "until it is finished");
    let key = file.finish(Bytes::from_static(b"H"), "ignored").await.unwrap();
    assert_eq!(Path::new(&key), link, "as it was given");
    assert_eq!(std::fs::read(&target).unwrap(), b"Hnnn", "the link still points to it");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(names(dir.path()), ["link.mp4", "x.mp4"]);
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_costs_neither_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x.mp4");
    let mut file = Box::new(GrowingFile::create(&target, false).unwrap());
    append(&mut file, 3, b'n').await.unwrap();
    std::fs::write(&target, "theirs").unwrap();
    std::fs::write(dir.path().join("x-1.mp4"), "theirs too").unwrap();
    let key = file.finish(Bytes::from_static(b"H"), "ignored").await.unwrap();
    assert_eq!(Path::new(&key), dir.path().join("x-2.mp4"));
    assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    assert_eq!(std::fs::read(dir.path().join("x-2.mp4")).unwrap(), b"Hnnn");
}

#[test]
fn what_cannot_become_a_file_is_refused_at_once_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (target, reason) in [
        (dir.path().join("none/x.mp4"), "none` does not exist"),
        (file.join("x.mp4"), "not a directory"),
        (dir.path().to_path_buf(), "directory"),
        (dir.path().join("new/"), "directory"),
        (PathBuf::from("/dev/null"), "not a regular file"),
        (PathBuf::from("/proc/x.mp4"), "/proc"), // no file can be created there, not even by root
        (PathBuf::from(".."), "directory"),
        (PathBuf::from(""), "directory"),
    ] {
        let error = GrowingFile::create(&target, true).err().unwrap();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{}: {:?}", target.display(), error.source);
        let text = error.source.to_string();
        assert!(text.contains(reason), "{}: {text}", target.display());
    }
    assert_eq!(names(dir.path()), ["file"]);
}
