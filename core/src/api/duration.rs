//! Durations as people write them in Links and on command lines.

use std::time::Duration;

/// Reads a duration in Go's form (`1s`, `1m30s`, `500ms`) or as a whole number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(u64::from(number) * milliseconds))?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_none(text in "[0-9a-z]{0,12}") {
            let milliseconds = parse_duration(&text).and_then(|duration| u32::try_from(duration.as_millis()).ok());
            if let Some(milliseconds) = milliseconds {
                let written = parse_duration(&format!("{milliseconds}ms"));
                prop_assert_eq!(written, Some(Duration::from_millis(u64::from(milliseconds))));
            }
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        for text in ["", "s", "1x", "1s2", "-1s", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
