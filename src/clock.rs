//! The one reader of wall time. Everything that decides takes `now` as an argument.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The current time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Reads a point in time as people and files give it: RFC 3339, or a date (its first moment, UTC).
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
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
        assert_eq!(rfc3339(from_millis(1_500)), "1970-01-01T00:00:01.500Z");
    }
}
