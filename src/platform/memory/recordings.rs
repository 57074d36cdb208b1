//! Finished recordings, and those that grow, as S3 has them: an upload under an id, parts under numbers, the last one to be
//! sent under a number counts, and the end names each part as it was when it was sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Objects, checked, error, lock};
use crate::platform::public::version;
use crate::platform::{
    HeadLastObject, Mark, Place, PublicObject, PublicStore, RecordingStore, StoreError, StoreErrorKind, on_domain,
};

/// Appends that are held back, and that make a part.
const HELD_APPENDS: u64 = 1;
const PART_APPENDS: u64 = 2;
/// Part numbers that whoever goes on leaves to whoever was before.
const SKIPPED: u64 = 2;

#[derive(Default)]
struct Upload {
    /// By number: what tells this sending from another, and the bytes.
    parts: BTreeMap<u64, (u64, Bytes)>,
    /// Where it went.
    done: Option<String>,
}

/// Finished recordings.
#[derive(Default, Clone)]
pub struct MemoryRecordings {
    objects: Objects,
    uploads: Arc<Mutex<BTreeMap<u64, Upload>>>,
    count: Arc<AtomicU64>,
}

impl MemoryRecordings {
    /// Everything that is visible.
    pub fn visible(&self) -> BTreeMap<String, Bytes> {
        lock(&self.objects).clone()
    }

    /// Uploads that nobody has ended.
    pub fn unfinished(&self) -> usize {
        lock(&self.uploads).values().filter(|u| u.done.is_none()).count()
    }

    /// Every unfinished upload is gone, as a bucket's lifecycle rule removes them.
    pub fn expire(&self) {
        lock(&self.uploads).retain(|_, upload| upload.done.is_some());
    }

    fn one(&self) -> u64 {
        self.count.fetch_add(1, Ordering::SeqCst)
    }
}

#[async_trait]
impl RecordingStore for MemoryRecordings {
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let name = place.name.as_deref().unwrap_or("unnamed");
        checked("create", &format!("{}/{name}", place.dir))?;
        Ok(Box::new(MemoryObject::new(self, place)))
    }

    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let damaged = || error("resume", &place.dir, StoreErrorKind::Refused, "no states of an upload");
        let mut object = MemoryObject::new(self, place);
        for state in states {
            let numbers: Vec<u64> = state.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [id, number, tag, length] = numbers[..] else { return Err(damaged()) };
            object.upload = Some(id);
            object.parts.push((number, tag));
            object.length += length;
        }
        object.length += held.len() as u64;
        object.held = held.to_vec();
        object.appends = HELD_APPENDS;
        object.next = object.parts.last().map_or(0, |p| p.0) + SKIPPED;
        object.marked = true;
        match object.upload.is_some_and(|id| lock(&self.uploads).contains_key(&id)) {
            true => Ok(Box::new(object)),
            false => Err(error("resume", &place.dir, StoreErrorKind::NotFound, "no such upload")),
        }
    }

    fn url(&self, _place: &Place, key: &str, domain: Option<&str>) -> String {
        on_domain(domain.unwrap_or("memory.invalid"), key)
    }
}

#[async_trait]
impl PublicStore for MemoryRecordings {
    async fn put(&self, _place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        checked("put", key)?;
        lock(&self.objects).insert(key.into(), object.bytes);
        Ok(())
    }

    async fn replace(
        &self,
        _place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        checked("replace", key)?;
        let mut objects = lock(&self.objects);
        if objects.get(key).map(|bytes| version(bytes)).as_deref() != seen {
            return Ok(None);
        }
        let new = version(&object.bytes);
        objects.insert(key.into(), object.bytes);
        Ok(Some(new))
    }

    async fn read(&self, _place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        Ok(lock(&self.objects).get(key).map(|bytes| (bytes.clone(), version(bytes))))
    }

    async fn link(&self, place: &Place, key: &str, _lifetime: Duration) -> Result<String, StoreError> {
        Ok(self.url(place, key, None))
    }
}

struct MemoryObject {
    store: MemoryRecordings,
    place: Place,
    upload: Option<u64>,
    parts: Vec<(u64, u64)>,
    next: u64,
    held: Vec<u8>,
    filling: Vec<u8>,
    appends: u64,
    length: u64,
    marks: Vec<Mark>,
    marked: bool,
}

impl MemoryObject {
    fn new(store: &MemoryRecordings, place: &Place) -> Self {
        Self {
            store: store.clone(),
            place: place.clone(),
            upload: None,
            parts: Vec::new(),
            next: 0,
            held: Vec::new(),
            filling: Vec::new(),
            appends: 0,
            length: 0,
            marks: Vec::new(),
            marked: false,
        }
    }

    fn key(&self, name: &str) -> String {
        let name = self.place.name.as_deref().unwrap_or(name);
        let (stem, extension) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
        let objects = lock(&self.store.objects);
        let names = std::iter::once(name.to_string()).chain((1..).map(|n| format!("{stem}-{n}{extension}")));
        let mut keys = names.map(|name| format!("{}/{name}", self.place.dir));
        keys.find(|key| !objects.contains_key(key)).unwrap_or_default()
    }

    /// Sends what fills.
    fn send(&mut self) -> Result<(), StoreError> {
        let tag = self.store.one();
        let id = *self.upload.get_or_insert_with(|| {
            let id = self.store.one();
            lock(&self.store.uploads).insert(id, Upload::default());
            id
        });
        let part = Bytes::from(std::mem::take(&mut self.filling));
        let (number, length) = (self.next, part.len());
        match lock(&self.store.uploads).get_mut(&id).filter(|u| u.done.is_none()) {
            Some(upload) => upload.parts.insert(number, (tag, part)),
            None => return Err(error("append to", &self.place.dir, StoreErrorKind::NotFound, "no such upload")),
        };
        self.parts.push((number, tag));
        self.next += 1;
        let state = format!("{id} {number} {tag} {length}");
        self.marks.push(Mark { payload: self.length, held: self.held.len() as u64, state });
        Ok(())
    }

    /// Everything in its order; `None` if a part is not what was sent.
    fn whole(&self, upload: &Upload, head: &[u8]) -> Option<Bytes> {
        let mut whole = [head, &self.held].concat();
        for (number, tag) in &self.parts {
            whole.extend_from_slice(&upload.parts.get(number).filter(|(t, _)| t == tag)?.1);
        }
        whole.extend_from_slice(&self.filling);
        Some(whole.into())
    }
}

#[async_trait]
impl HeadLastObject for MemoryObject {
    fn head_alignment(&self) -> u64 {
        1
    }

    async fn append(&mut self, payload: Bytes) -> Result<(), StoreError> {
        self.length += payload.len() as u64;
        self.appends += 1;
        match self.appends <= HELD_APPENDS {
            true => self.held.extend_from_slice(&payload),
            false => self.filling.extend_from_slice(&payload),
        }
        match self.appends > HELD_APPENDS && (self.appends - HELD_APPENDS).is_multiple_of(PART_APPENDS) {
            true => self.send(),
            false => Ok(()),
        }
    }

    async fn finish(mut self: Box<Self>, head: Bytes, name: &str) -> Result<String, StoreError> {
        let size = head.len() as u64 + self.length;
        let mut uploads = lock(&self.store.uploads);
        let fresh = Upload::default();
        let upload = match self.upload {
            None => &fresh,
            Some(id) => match uploads.get(&id) {
                Some(Upload { done: Some(key), .. }) => {
                    let same = lock(&self.store.objects).get(key).is_some_and(|o| o.len() as u64 == size);
                    return match same {
                        true => Ok(key.clone()),
                        false => Err(error("finish", key, StoreErrorKind::NotFound, "the upload is over")),
                    };
                }
                Some(upload) => upload,
                None => return Err(error("finish", name, StoreErrorKind::NotFound, "no such upload")),
            },
        };
        let whole = self.whole(upload, &head);
        let whole = whole.ok_or_else(|| error("finish", name, StoreErrorKind::Refused, "a part is another"))?;
        let key = self.key(name);
        lock(&self.store.objects).insert(key.clone(), whole);
        if let Some(upload) = self.upload.and_then(|id| uploads.get_mut(&id)) {
            (upload.done, upload.parts) = (Some(key.clone()), BTreeMap::new());
        }
        drop(uploads);
        self.marked = true;
        Ok(key)
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(id) = self.upload.take() {
            lock(&self.store.uploads).remove(&id);
        }
        Ok(())
    }

    fn marks(&mut self) -> Vec<Mark> {
        self.marked |= !self.marks.is_empty();
        std::mem::take(&mut self.marks)
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Drop for MemoryObject {
    fn drop(&mut self) {
        if let Some(id) = self.upload.filter(|_| !self.marked) {
            lock(&self.store.uploads).remove(&id);
        }
    }
}
