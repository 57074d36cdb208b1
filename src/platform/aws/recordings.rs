//! Buckets as store of finished recordings: which bucket, under which name, at which address.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use bytes::Bytes;
use uuid::Uuid;

use super::Aws;
use super::chunks::s3;
use super::error::{own, status};
use super::head_last::S3HeadLast;
use super::multipart::Multipart;
use crate::platform::{Clock, HeadLastObject, Place, RecordingStore, StoreError, StoreErrorKind, key};

/// What recordings are.
pub(super) const CONTENT_TYPE: &str = "video/mp4";
/// How long others may keep them: as an ended playlist. A name may be used again once its recording was removed.
pub(super) const CACHE_CONTROL: &str = "public, max-age=3600";
/// Metadata that tells the object of this writer from one of the same name by another.
pub(super) const MARK: &str = "panorec-writer";
/// Other names that are tried for a recording whose name is taken.
const MAX_OTHER_NAMES: u32 = 1000;

/// Recordings in a bucket, or in another where an order says so.
#[derive(Clone)]
pub struct S3Recordings {
    aws: Aws,
    bucket: String,
    domain: Option<String>,
    clock: Arc<dyn Clock>,
}

impl S3Recordings {
    /// Recordings go to `bucket` in the configured region; those who play them find them at `domain`, or at S3's own
    /// address.
    pub fn new(aws: &Aws, bucket: &str, domain: Option<&str>, clock: Arc<dyn Clock>) -> Self {
        Self { aws: aws.clone(), bucket: bucket.to_owned(), domain: domain.map(str::to_owned), clock }
    }

    fn naming(&self, op: &'static str, place: &Place) -> Result<Naming, StoreError> {
        let (client, bucket) = self.opened(op, place)?;
        Ok(Naming { client, bucket: bucket.to_owned(), dir: place.dir.clone(), mark: Uuid::new_v4().to_string() })
    }

    fn bucket<'a>(&'a self, place: &'a Place) -> &'a str {
        place.bucket.as_deref().unwrap_or(&self.bucket)
    }

    /// Client and bucket of a place.
    pub(super) fn opened<'a>(
        &'a self,
        op: &'static str,
        place: &'a Place,
    ) -> Result<(aws_sdk_s3::Client, &'a str), StoreError> {
        let refuse = |key: &str, reason: String| own(op, key, StoreErrorKind::Refused, reason);
        let (bucket, region) = (self.bucket(place), place.region.as_deref());
        check_bucket(bucket).map_err(|reason| refuse(bucket, reason))?;
        check_region(region.unwrap_or_default()).map_err(|reason| refuse(region.unwrap_or_default(), reason))?;
        Ok((self.aws.s3(region), bucket))
    }
}

#[async_trait]
impl RecordingStore for S3Recordings {
    /// Makes no request: that the bucket is missing or closed shows when the first part goes up, or at the end.
    async fn create(&self, place: &Place) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let naming = self.naming("create", place)?;
        let name = place.name.as_deref();
        let key = naming.key("create", name.unwrap_or("x"))?;
        tracing::debug!(naming.bucket, key, named = name.is_some(), "recording created");
        Ok(Box::new(S3HeadLast::new(naming, place.name.clone(), self.clock.clone())))
    }

    /// Makes no request, either: that the upload is gone shows with the next part.
    async fn resume(
        &self,
        place: &Place,
        states: &[String],
        held: Bytes,
    ) -> Result<Box<dyn HeadLastObject>, StoreError> {
        let naming = self.naming("resume", place)?;
        let upload = Multipart::resume(naming.clone(), states, held.len());
        let upload =
            upload.map_err(|e| own("resume", &place.dir, StoreErrorKind::Refused, format!("a damaged state: {e}")))?;
        Ok(Box::new(S3HeadLast::resumed(naming, self.clock.clone(), upload, held)))
    }

    fn url(&self, place: &Place, key: &str, domain: Option<&str>) -> String {
        let (bucket, path) = (self.bucket(place), encoded(key));
        if let Some(domain) = domain.or(self.domain.as_deref().filter(|_| bucket == self.bucket)) {
            return format!("https://{domain}/{path}");
        }
        if let Some(endpoint) = self.aws.s3_endpoint.as_deref() {
            return format!("{}/{bucket}/{path}", endpoint.trim_end_matches('/'));
        }
        let region = place.region.as_deref().unwrap_or(&self.aws.region);
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        // A dot is one too many for S3's certificate.
        if bucket.contains('.') {
            format!("https://s3.{region}.{suffix}/{bucket}/{path}")
        } else {
            format!("https://{bucket}.s3.{region}.{suffix}/{path}")
        }
    }
}

/// Buckets and regions become parts of host names, and callers name them.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if (3..=63).contains(&bucket.len()) && bucket.chars().all(good) && !bucket.starts_with(['-', '.']) {
        return Ok(());
    }
    Err("this is no bucket's name; use 3 to 63 lower-case letters, digits, hyphens and dots".into())
}

fn check_region(region: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if region.len() <= 32 && region.chars().all(good) {
        return Ok(());
    }
    Err("this is no region's name; use one like `eu-central-1`".into())
}

/// A key as path of an address.
fn encoded(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// Where one recording goes, and how it gets a name that nobody has.
#[derive(Clone)]
pub(super) struct Naming {
    pub(super) client: aws_sdk_s3::Client,
    pub(super) bucket: String,
    dir: String,
    pub(super) mark: String,
}

/// Keys in the order in which they are tried.
pub(super) struct Candidates {
    dir: String,
    stem: String,
    extension: String,
    taken: u32,
}

impl Candidates {
    /// `NAME.mp4`, then `NAME-1.mp4` and so on.
    fn new(dir: &str, name: &str) -> Self {
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
            _ => (name, String::new()),
        };
        Self { dir: dir.to_owned(), stem: stem.to_owned(), extension, taken: 0 }
    }

    /// The key to try; `None` when there are no more.
    fn key(&self) -> Option<String> {
        let Self { dir, stem, extension, taken } = self;
        let suffix = match *taken {
            0 => String::new(),
            n if n > MAX_OTHER_NAMES => return None,
            n => format!("-{n}"),
        };
        let slash = if dir.is_empty() { "" } else { "/" };
        Some(format!("{dir}{slash}{stem}{suffix}{extension}"))
    }

    /// An object has the key; the next one.
    pub(super) fn advance(&mut self) {
        self.taken += 1;
    }
}

impl Naming {
    fn key(&self, op: &'static str, name: &str) -> Result<String, StoreError> {
        let key = Candidates::new(&self.dir, name).key().unwrap_or_default();
        let refuse = |reason: String| own(op, &key, StoreErrorKind::Refused, reason);
        if name.contains('/') {
            return Err(refuse("the name has a slash; put directories into the directory".into()));
        }
        // A number may come to it.
        let longest = format!("{key}-{MAX_OTHER_NAMES}");
        key::check(&key).and_then(|()| key::check(&longest)).map_err(refuse)?;
        Ok(key)
    }

    /// The keys to try for a name.
    pub(super) fn candidates(&self, name: &str) -> Result<Candidates, StoreError> {
        self.key("finish", name)?;
        Ok(Candidates::new(&self.dir, name))
    }

    /// The next key that no object has. Where we may not look, the store decides when the object is made.
    pub(super) async fn next_free(&self, candidates: &mut Candidates) -> Result<String, StoreError> {
        while let Some(key) = candidates.key() {
            match self.client.head_object().bucket(&self.bucket).key(&key).send().await {
                Ok(_) => candidates.advance(),
                Err(e) if matches!(status(&e), 403 | 404) => return Ok(key),
                Err(e) => return Err(s3("look for", &key, e)),
            }
        }
        let reason = format!("it and {MAX_OTHER_NAMES} more like it are taken; choose another name");
        Err(own("finish", &candidates.stem, StoreErrorKind::Refused, reason))
    }

    /// Whether the object of a key was made by this writer, or whoever was before, of so many bytes.
    pub(super) async fn is_ours(&self, key: &str, size: u64) -> bool {
        let found = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let ours = |m: &std::collections::HashMap<String, String>| m.get(MARK) == Some(&self.mark);
        found.is_ok_and(|object| {
            object.metadata().is_some_and(ours) && object.content_length().is_some_and(|l| l.cast_unsigned() == size)
        })
    }
}

/// Whether the error says that an object has the key already, or is about to. The SDK does not know these errors.
pub(super) fn is_taken<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    status(error) == 412 || error.code() == Some("ConditionalRequestConflict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_keep_the_extension() {
        let keys = |dir, name| {
            let mut candidates = Candidates::new(dir, name);
            [(); 3].map(|()| {
                let key = candidates.key().unwrap();
                candidates.advance();
                key
            })
        };
        assert_eq!(keys("a/b", "x.y.mp4"), ["a/b/x.y.mp4", "a/b/x.y-1.mp4", "a/b/x.y-2.mp4"]);
        assert_eq!(keys("", "plain"), ["plain", "plain-1", "plain-2"]);
        let mut last = Candidates::new("", "x");
        last.taken = MAX_OTHER_NAMES;
        assert_eq!(last.key().as_deref(), Some("x-1000"));
        last.advance();
        assert_eq!(last.key(), None);
    }

    #[test]
    fn what_would_lead_to_another_host_is_refused() {
        for good in ["abc", "my.bucket-1"] {
            assert_eq!(check_bucket(good), Ok(()), "{good}");
        }
        for bad in ["", "ab", "a/b", "evil.example/#", "UPPER", "-abc", "a b c", &"x".repeat(64)] {
            assert!(check_bucket(bad).is_err(), "{bad:?}");
        }
        for good in ["", "eu-central-1", "cn-north-1"] {
            assert_eq!(check_region(good), Ok(()), "{good}");
        }
        for bad in ["evil.example/", "a.b", "EU", "x@y", &"x".repeat(33)] {
            assert!(check_region(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_encoded_by_part() {
        assert_eq!(encoded("a b/ü+%?#.mp4"), "a%20b/%C3%BC%2B%25%3F%23.mp4");
        assert_eq!(encoded("t-1_2~3/x.mp4"), "t-1_2~3/x.mp4");
    }
}
