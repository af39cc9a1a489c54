//! Durations as flags take them.

use std::time::Duration;

/// A number of seconds, or with units: `90`, `0s`, `5m`, `24h`, `1h30m`.
///
/// # Errors
/// Where it is neither, or negative.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let duration = parsed.ok().and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "a duration is needed, such as 0s, 90s, 5m or 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!([seconds("60s"), seconds("5m"), seconds("7")], [Ok(60), Ok(300), Ok(7)]);
        assert_eq!(
            [seconds("24h"), seconds("1h30m"), seconds("0s")],
            [Ok(86_400), Ok(5_400), Ok(0)]
        );
        assert!(seconds("s").is_err() && seconds("-1s").is_err() && seconds("").is_err());
    }
}
