//! Whether the clock of a cluster, or of a hub, agrees with that of this machine: certificates and tokens that were just made are not valid
//! yet where it is behind, and end early where it is ahead.

use anyhow::{Result, bail};
use http::{Request, header};
use jiff::{SignedDuration, Timestamp};
use umbra_child::{Child, RequestDeadline, empty};

use super::child::ANSWER;

/// More than this is told: HTTP dates have whole seconds, and answers take a while.
const NOTED: SignedDuration = SignedDuration::from_secs(30);
/// More than this is refused: Kubernetes makes certificates valid five minutes before they are made
/// (`signer.go` of its controllers), and beyond that what one side makes does not count on the other.
const REFUSED: SignedDuration = SignedDuration::from_mins(5);

/// A warning about the clock of what `child` reaches and `whose` names, where there is one to give.
///
/// # Errors
/// Where the clocks are more than five minutes apart.
pub(crate) async fn check(child: &Child, whose: &str) -> Result<Option<String>> {
    let mut request = Request::get("/version").body(empty())?;
    request.extensions_mut().insert(RequestDeadline(ANSWER));
    let before = Timestamp::now();
    let response = child.send(request).await?;
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    judge(whose, date, before, Timestamp::now())
}

fn judge(whose: &str, date: Option<&str>, before: Timestamp, after: Timestamp) -> Result<Option<String>> {
    // A server without a clock need not say (RFC 9110 §6.6.1).
    let Some(theirs) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) else {
        return Ok(None);
    };
    let theirs = theirs.timestamp();
    let (apart, direction) = if theirs > after {
        (theirs.duration_since(after), "ahead of")
    } else {
        (before.duration_since(theirs), "behind")
    };
    let said = format!("{whose}'s clock is {} s {direction} the one here", apart.as_secs());
    if apart > REFUSED {
        bail!("{said}; certificates and tokens would not count. Set the clocks (NTP) and try again");
    }
    Ok((apart > NOTED).then(|| format!("{said}; certificates and tokens may not count at once")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_disagree_are_told_and_refused() {
        let at = |time: &str| -> Timestamp { time.parse().unwrap() };
        let now = at("1994-11-06T08:49:37Z");
        let judged = |date: &str| judge("the cluster", Some(date), now, now);
        assert_eq!(judged("Sun, 06 Nov 1994 08:49:37 GMT").unwrap(), None);
        assert_eq!(judged("Sun, 06 Nov 1994 08:49:57 GMT").unwrap(), None);
        let warning = judged("Sun, 06 Nov 1994 08:50:37 GMT").unwrap().unwrap();
        assert!(warning.contains("60 s ahead of"), "{warning}");
        let warning = judged("Sun, 06 Nov 1994 08:48:37 GMT").unwrap().unwrap();
        assert!(warning.contains("60 s behind"), "{warning}");
        let refused = judged("Sun, 06 Nov 1994 08:43:37 GMT").unwrap_err().to_string();
        assert!(refused.contains("360 s behind"), "{refused}");
        assert_eq!(judge("the cluster", Some("noon"), now, now).unwrap(), None);
        assert_eq!(judge("the hub", None, now, now).unwrap(), None);
    }
}
