//! Paths that must not reach a root, because they climb out of it.

use percent_encoding::percent_decode_str;
use umbra_apimachinery::status::Status;

/// A path that climbs could leave the root that it was let into.
pub(crate) fn refuse_dot_segments(path: &str) -> Result<(), Status> {
    let climbs = path.split('/').any(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        // A decoded slash may hide further segments.
        decoded.split('/').any(|part| part == "." || part == "..")
    });
    if climbs {
        return Err(Status::bad_request(
            "the request path has \".\" or \"..\" segments; send it normalised",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbing_paths_are_refused() {
        for path in ["/a/../b", "/a/%2e%2e/b", "/a/%2E./b", "/a%2f..%2fb", "/./a"] {
            assert!(refuse_dot_segments(path).is_err(), "{path}");
        }
        for path in ["/a/b", "/api/v1/namespaces/a/pods/w.x..y", "/"] {
            assert!(refuse_dot_segments(path).is_ok(), "{path}");
        }
    }
}
