//! A place in somebody else's bucket, lent for one upload.

use serde::{Deserialize, Serialize};

/// A place for one object, and leave to put it there, and others beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// Bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The key to put to; what is there is replaced.
    pub key: String,
    /// Credentials: the key's name, the key, and its proof.
    pub access_key: String,
    /// See `access_key`.
    pub secret_key: String,
    /// See `access_key`.
    pub token: String,
}

impl Loan {
    /// The key's last part.
    pub fn filename(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    /// The place that has this address, relative to the one that was lent.
    pub fn beside(&self, uri: &str) -> Self {
        let dir = &self.key[..self.key.len() - self.filename().len()];
        Self { key: format!("{dir}{uri}"), ..self.clone() }
    }
}

impl std::fmt::Debug for Loan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loan").field("bucket", &self.bucket).field("key", &self.key).finish_non_exhaustive()
    }
}

/// A place that the video-on-demand service has lent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// `VodSessionKey`: what the end of the upload is said with.
    pub session: String,
    /// Until when leave is good, unix milliseconds.
    pub expires: u64,
    /// The place.
    pub loan: Loan,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("expires", &self.expires).field("loan", &self.loan).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_has_the_same_directory() {
        let text = String::new;
        let loan = |key: &str| Loan {
            bucket: text(),
            region: text(),
            key: key.into(),
            access_key: text(),
            secret_key: "s3cret".into(),
            token: text(),
        };
        for (key, filename, beside) in
            [("a/b/list.m3u8", "list.m3u8", "a/b/x/1.m4s"), ("list.m3u8", "list.m3u8", "x/1.m4s")]
        {
            assert_eq!((loan(key).filename(), loan(key).beside("x/1.m4s").key.as_str()), (filename, beside));
        }
        let lent = Lent { session: "sess10n".into(), expires: 7, loan: loan("a") };
        let told = format!("{lent:?}");
        assert!(!told.contains("s3cret") && !told.contains("sess10n"), "{told}");
    }
}
