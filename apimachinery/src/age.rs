//! Time as Kubernetes writes it: RFC 3339 timestamps of whole seconds, and ages as `kubectl get` prints them.

use jiff::Timestamp;

/// `2026-11-21T01:02:03Z`, as `metav1.Time` is written.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads an RFC 3339 timestamp.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The time since `start` in the two most telling units, at most: `45s`, `5m10s`, `3h`, `2d5h`, `400d`, `3y20d`
/// (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`). Clocks that disagree by less than two seconds give `0s`;
/// by more, `<invalid>`.
#[must_use]
pub fn human_duration(start: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - start.as_second();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let with = |large: i64, large_unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit}{small}{small_unit}")
        }
    };
    // The thresholds are Go's: two minutes, ten minutes, three hours, eight hours, two days, eight days, two years,
    // eight years.
    match seconds {
        _ if seconds < 60 * 2 => format!("{seconds}s"),
        _ if minutes < 10 => with(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 60 * 3 => format!("{minutes}m"),
        _ if hours < 8 => with(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => with(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => with(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 300, "3h5m"),
            (9 * 3600 + 300, "9h"),
            (53 * 3600, "2d5h"),
            (400 * 86400, "400d"),
            ((365 * 3 + 20) * 86400, "3y20d"),
            (365 * 9 * 86400, "9y"),
        ] {
            assert_eq!(human_duration(at(1_000_000_000), at(1_000_000_000 + seconds)), want);
        }
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(at(0)));
    }
}
