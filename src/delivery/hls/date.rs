//! Times as playlists have them (ISO 8601, UTC, milliseconds). Two functions are all that is needed of a calendar.

/// Days from 1970-01-01 to a day of the Gregorian calendar, months from 1: eras of 400 years that begin in March, so that
/// the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Unix milliseconds as text.
pub(super) fn time(ms: u64) -> String {
    let (day, rest) = ((ms / 86_400_000).cast_signed(), ms % 86_400_000);
    let mut year = 1970 + day / 366;
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|m| days(year, *m, 1) <= day).unwrap_or(1);
    let date = day - days(year, month, 1) + 1;
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

/// The other way round; `None` for what [`time`] does not write.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = day * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let ms = (seconds * 1000 + number(20, 23)?).try_into().ok()?;
    (time(ms) == text).then_some(ms)
}
