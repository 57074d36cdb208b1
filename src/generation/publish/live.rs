//! The growing playlist for whoever is to see it although the bucket is closed.
//!
//! A signature opens one object, and a playlist names others. So where addresses have to be signed there is a second, short
//! playlist of the newest segments, each at a signed address of its own; it is written anew with each of them.

use super::{GROWING, Publisher, object, owner};
use crate::delivery::hls::CONTENT_TYPE;
use crate::generation::chain;
use crate::generation::preview::LIFETIME;
use crate::platform::StoreError;

/// Segments in it: a player that was held up for some of them still finds where it was.
const NEWEST: usize = 10;

impl Publisher {
    /// Has callers see what there is by now.
    pub(super) async fn show(&mut self) {
        match self.live().await {
            Ok(Some(key)) => self.showing.playlist(&key),
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "live playlist not written"),
        }
    }

    /// The playlist that whoever has a link to it can play.
    async fn live(&self) -> Result<Option<String>, StoreError> {
        let Some(open) = &self.open else { return Ok(None) };
        let (public, place) = (&self.platform.public, &self.place);
        let link = public.link(place, &open.key, LIFETIME).await?;
        if link == self.platform.recordings.url(place, &open.key, None) {
            return Ok(Some(open.key.clone()));
        }
        let mut list = open.list.newest(NEWEST);
        for entry in &mut list.entries {
            entry.uri = public.link(place, &format!("{}/{}", place.dir, entry.uri), LIFETIME).await?;
            if let Some(init) = &mut entry.init {
                *init = public.link(place, &format!("{}/{init}", place.dir), LIFETIME).await?;
            }
        }
        let key = format!("{}/segments-{}/live.m3u8", place.dir, owner(&self.record.id));
        public.put(place, &key, object(list.text().into(), CONTENT_TYPE, GROWING)).await?;
        Ok(Some(key))
    }
}
