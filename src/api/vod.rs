//! `Output.Vod`: the parameters of an asset of the video-on-demand service.

use super::error::ApiError;
use super::fields::Fields;
use crate::task::order::VodOrder;

/// Longest names and texts, characters: the service's own bounds where it tells them.
const MAX_NAME: usize = 128;
const MAX_SOURCE_CONTEXT: usize = 250;
const MAX_SESSION_CONTEXT: usize = 1000;

/// The order, if there is one. `configured`: this deployment can fulfil it.
pub fn order(output: &Fields, configured: bool) -> Result<Option<VodOrder>, ApiError> {
    if output.get("Vod").is_none() {
        return Ok(None);
    }
    let vod = output.object("Vod")?;
    if !configured {
        return Err(output.refuse(
            "Vod",
            "no key of the VOD service is configured (VOD_SECRET_ID, VOD_SECRET_KEY); leave it out, the file then goes \
             to the bucket (Output.Cos)",
        ));
    }
    vod.only(&["MediaInfo", "ProcedureInfo", "SubAppId"])?;
    let media = vod.object("MediaInfo")?;
    media.only(&["MediaName", "ExpireTime", "StorageRegion", "ClassId", "SourceContext"])?;
    let procedure = vod.object("ProcedureInfo")?;
    procedure.only(&["Procedure", "SessionContext"])?;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(Some(VodOrder {
        media_name: owned(media.text("MediaName", MAX_NAME)?),
        expire_time: owned(expiry(&media)?),
        storage_region: owned(region(&media)?),
        class_id: media.integer("ClassId", 0..=u32::MAX)?,
        source_context: owned(media.text("SourceContext", MAX_SOURCE_CONTEXT)?),
        procedure: owned(procedure.text("Procedure", MAX_NAME)?),
        session_context: owned(procedure.text("SessionContext", MAX_SESSION_CONTEXT)?),
        sub_app_id: sub_app(&vod)?,
        bucket_too: output.get("Cos").is_some(),
    }))
}

fn expiry<'a>(media: &Fields<'a>) -> Result<Option<&'a str>, ApiError> {
    let text = media.text("ExpireTime", 40)?;
    match text.map(str::parse::<jiff::Timestamp>) {
        Some(Err(_)) => Err(media.refuse("ExpireTime", "not a time of ISO 8601; write it like 2027-01-01T00:00:00Z")),
        Some(Ok(_)) | None => Ok(text),
    }
}

fn region<'a>(media: &Fields<'a>) -> Result<Option<&'a str>, ApiError> {
    let text = media.text("StorageRegion", 32)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text.is_none_or(|t| t.chars().all(fits)) {
        true => Ok(text),
        false => Err(media.refuse("StorageRegion", "not a region; write it like ap-chongqing")),
    }
}

/// A number in the service's API, a string in this one.
fn sub_app(vod: &Fields) -> Result<Option<u64>, ApiError> {
    let Some(text) = vod.string("SubAppId")? else { return Ok(None) };
    match text.parse() {
        Ok(id) if text.chars().all(|c| c.is_ascii_digit()) => Ok(Some(id)),
        _ => Err(vod.refuse("SubAppId", "not a number in a string; write it like \"1500012345\"")),
    }
}
