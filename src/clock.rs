//! The one reader of wall time. Everything that decides takes `now` as an argument.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The current time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Forms of time that are not RFC 3339: IBM Cloud leaves out seconds, and the colon in the offset.
const OTHER_FORMS: [&str; 3] = ["%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%MZ"];

/// Reads a point in time as people and files give it: RFC 3339, IBM Cloud's forms, or a date (its
/// first moment, UTC).
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let utc = |time: jiff::civil::DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp());
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| {
            OTHER_FORMS.iter().find_map(|form| match form.ends_with('Z') {
                true => utc(jiff::civil::DateTime::strptime(form, text).ok()?),
                false => Timestamp::strptime(form, text).ok(),
            })
        })
        .or_else(|| utc(text.parse::<jiff::civil::Date>().ok()?.into()))
}

/// Reads a length of time: `90s`, `10m`, `4h`, `30d`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(at)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

/// `2026-11-21 02:03:04 UTC`, for people.
#[must_use]
pub fn display(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `2026-11-21T02:03:04.567Z`, for machines.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Milliseconds since 1970, as the database holds them.
#[must_use]
pub fn to_millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// The other way; a number out of range becomes the nearest time there is.
#[must_use]
pub fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read() {
        assert_eq!(to_millis(parse("1970-01-02").unwrap()), 86_400_000);
        assert_eq!(to_millis(parse("1970-01-01T00:00:01Z").unwrap()), 1_000);
        assert!(parse("tomorrow").is_none());
        for (text, expected) in [
            ("2024-10-04T12:28+0000", "2024-10-04T12:28:00.000Z"),
            ("2049-01-02T18:30:00+0000", "2049-01-02T18:30:00.000Z"),
            ("2019-01-01T12:00:00.000Z", "2019-01-01T12:00:00.000Z"),
            ("2019-01-01T12:00:00.250+0200", "2019-01-01T10:00:00.250Z"),
            ("2019-01-01T12:00Z", "2019-01-01T12:00:00.000Z"),
        ] {
            assert_eq!(parse(text).map(rfc3339).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(parse_span("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_span("0s"), Some(Duration::ZERO));
        assert!(["10", "m", "10 m", "-1s", "1w"].iter().all(|text| parse_span(text).is_none()));
    }
}
