//! Clocks: a certificate or a token is good from a time on and until another, and everybody judges that by their own clock.

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};

use super::finding::Finding;

/// A difference that is worth a look: clocks that follow a time server differ by less than a second.
const NOTABLE: SignedDuration = SignedDuration::from_secs(30);
/// A difference that breaks things: what issues certificates and tokens antedates them by five minutes, where it does at all.
const HARMFUL: SignedDuration = SignedDuration::from_mins(5);

/// How far the clock of a server is ahead of this machine's, by the header of an answer that was asked for at `sent` and was there
/// at `received`. The header has whole seconds.
pub(super) fn ahead(headers: &HeaderMap, sent: Timestamp, received: Timestamp) -> Option<SignedDuration> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    // The second that the header names has begun before the answer was received, and ends after the request was sent.
    let (earliest, latest) = (
        date.duration_since(received),
        date.duration_since(sent) + SignedDuration::from_secs(1),
    );
    Some(if earliest > SignedDuration::ZERO {
        earliest
    } else if latest < SignedDuration::ZERO {
        latest
    } else {
        SignedDuration::ZERO
    })
}

/// Judges a difference of two clocks: how far that of `whose` is ahead of that of `than`. Nothing to say is `None`.
pub(super) fn judge(check: &'static str, whose: &str, than: &str, ahead: SignedDuration) -> Option<Finding> {
    let difference = ahead.abs();
    if difference < NOTABLE {
        return None;
    }
    let direction = if ahead > SignedDuration::ZERO {
        "ahead of"
    } else {
        "behind"
    };
    let message = format!(
        "the clock of {whose} is {} s {direction} that of {than}",
        difference.as_secs()
    );
    let advice =
        "let both follow a time server (chrony, systemd-timesyncd): certificates and tokens are judged by the clock";
    Some(if difference < HARMFUL {
        Finding::warning(check, message, advice)
    } else {
        Finding::wrong(check, message, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn difference(date: &str, sent: &str, received: &str) -> i64 {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::DATE, date.parse().unwrap());
        ahead(&headers, sent.parse().unwrap(), received.parse().unwrap())
            .unwrap()
            .as_secs()
    }

    #[test]
    fn what_a_whole_second_and_the_way_explain_is_no_difference() {
        let date = "Sat, 21 Nov 2026 08:00:10 GMT";
        assert_eq!(difference(date, "2026-11-21T08:00:10.9Z", "2026-11-21T08:00:10.95Z"), 0);
        assert_eq!(difference(date, "2026-11-21T08:00:05Z", "2026-11-21T08:00:15Z"), 0);
        assert_eq!(difference(date, "2026-11-21T07:59:00Z", "2026-11-21T07:59:10Z"), 60);
        assert_eq!(difference(date, "2026-11-21T08:05:11Z", "2026-11-21T08:05:12Z"), -300);
        assert_eq!(ahead(&HeaderMap::new(), Timestamp::now(), Timestamp::now()), None);
    }

    #[test]
    fn differences_are_judged_by_what_they_break() {
        let level =
            |seconds| judge("clock", "east", "the hub", SignedDuration::from_secs(seconds)).map(|one| one.level);
        assert_eq!([level(0), level(-29)], [None, None]);
        assert_eq!([level(31), level(-299)], [Some(Level::Warning); 2]);
        assert_eq!([level(301), level(-4000)], [Some(Level::Wrong); 2]);
        let text = judge("clock", "east", "the hub", SignedDuration::from_secs(-301))
            .unwrap()
            .message;
        assert_eq!(text, "the clock of east is 301 s behind that of the hub");
    }
}
