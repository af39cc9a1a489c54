//! Answers: bodies, statuses, warnings.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use umbra_apimachinery::status::Status;
use umbra_registry::resource::Body;

/// The media type of nearly every answer.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How many characters of warnings one answer carries, and to how many each is cut once they are more
/// (`truncateAtTotalRunes` and `truncateItemRunes` in `k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
const WARNINGS_TOTAL: usize = 4 * 1024;
const WARNING_CUT: usize = 256;

/// Nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

/// These bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

fn never(error: Infallible) -> Box<dyn std::error::Error + Send + Sync> {
    match error {}
}

/// An answer of that type.
pub(crate) fn with_type(code: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_type(code, JSON, full(body))
}

/// A plain text answer.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_type(code, TEXT, full(body));
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert("x-content-type-options", nosniff);
    response
}

/// A failure, with `Retry-After` where its details say when to try again.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code)
        .ok()
        .filter(|code| code.as_u16() >= 400)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_json());
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds)
        && seconds > 0
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The HTTP code of a Status that is not an error: its own, or 200.
pub(crate) fn success_code(status: &Status) -> StatusCode {
    match status.code {
        0 => StatusCode::OK,
        code => StatusCode::from_u16(code).unwrap_or(StatusCode::OK),
    }
}

/// Adds `Warning` headers, all of them cut short where they are too much together. Texts with control characters are
/// left out, as a header cannot carry them.
pub(crate) fn add_warnings(headers: &mut HeaderMap, texts: &[String]) {
    let total: usize = texts.iter().map(|text| text.chars().count()).sum();
    let limit = if total > WARNINGS_TOTAL {
        WARNING_CUT
    } else {
        usize::MAX
    };
    let mut written = 0;
    for text in texts {
        if written >= WARNINGS_TOTAL {
            break;
        }
        let text: String = text.chars().take(limit).collect();
        written += text.chars().count();
        if let Some(value) = warning(&text) {
            headers.append(WARNING, value);
        }
    }
}

/// `299 - "text"`: a miscellaneous persistent warning of an agent without a name, the text as a quoted-string
/// (RFC 7234 §5.5; `k8s.io/apimachinery/pkg/util/net.NewWarningHeader`).
fn warning(text: &str) -> Option<HeaderValue> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return None;
    }
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_apimachinery::status::Reason;

    #[test]
    fn warnings_are_quoted_and_bounded() {
        let mut headers = HeaderMap::new();
        add_warnings(&mut headers, &[r#"say "hi" \o"#.to_owned(), "a\nb".to_owned()]);
        let values: Vec<_> = headers.get_all(WARNING).iter().collect();
        assert_eq!(values, [r#"299 - "say \"hi\" \\o""#]);

        let mut headers = HeaderMap::new();
        let many: Vec<String> = (0..100).map(|number| format!("{number:0300}")).collect();
        add_warnings(&mut headers, &many);
        let length: usize = headers.get_all(WARNING).iter().map(HeaderValue::len).sum();
        assert!(length < 5 * 1024, "{length}");
    }

    #[test]
    fn failures_say_when_to_retry() {
        let response = failure(&Status::failure(Reason::TooManyRequests, "later").retry_after(3));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
