//! Which headers carry an identity, ready to be looked up.

use http::header::{HeaderMap, HeaderName};
use umbra_apimachinery::user::UserInfo;

use super::RequestHeaderOptions;

/// The beginning of every header by which Kubernetes' own front proxies claim an identity. Removed from every request,
/// also where other headers are configured (`WithAuthentication` in `k8s.io/apiserver/pkg/endpoints/filters`).
const STANDARD_PREFIX: &str = "x-remote-";

/// A name that no header can have, nor begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} in {option} is not the name of a header")]
pub struct HeaderNameError {
    /// The option, named as the key of the ConfigMap and as the flag of kube-apiserver.
    pub option: &'static str,
    /// What it holds.
    pub name: String,
}

/// The headers of [`RequestHeaderOptions`], checked and in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityHeaders {
    username: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    group: Vec<HeaderName>,
    extra_prefixes: Vec<String>,
}

impl IdentityHeaders {
    /// Checks the names of `options`. Space around a name is dropped, as kube-apiserver does for its flags.
    ///
    /// # Errors
    /// All names that cannot be used. kube-apiserver takes an empty prefix from the ConfigMap for what it says: then
    /// every header of a request is an extra attribute. Here it is an error.
    pub fn new(options: &RequestHeaderOptions) -> Result<Self, Vec<HeaderNameError>> {
        let mut errors = Vec::new();
        let mut parse = |option, names: &[String]| -> Vec<HeaderName> {
            let mut parsed = Vec::with_capacity(names.len());
            for name in names {
                match HeaderName::from_bytes(name.trim().as_bytes()) {
                    Ok(name) => parsed.push(name),
                    Err(_) => errors.push(HeaderNameError {
                        option,
                        name: name.clone(),
                    }),
                }
            }
            parsed
        };
        let username = parse("requestheader-username-headers", &options.username_headers);
        let uid = parse("requestheader-uid-headers", &options.uid_headers);
        let group = parse("requestheader-group-headers", &options.group_headers);
        let extra_prefixes = parse("requestheader-extra-headers-prefix", &options.extra_header_prefixes);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            username,
            uid,
            group,
            extra_prefixes: extra_prefixes.iter().map(ToString::to_string).collect(),
        })
    }

    /// Whom the headers name, whoever sent them; `None` where no user is named.
    #[must_use]
    pub fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let name = first_value(headers, &self.username)?;
        let mut user = UserInfo::new(name, Vec::<String>::new());
        user.uid = first_value(headers, &self.uid).unwrap_or_default();
        for header in &self.group {
            let values = headers.get_all(header).iter().map(text);
            user.groups.extend(values.filter(|value| !value.is_empty()));
        }
        for prefix in &self.extra_prefixes {
            for (header, value) in headers {
                if let Some(key) = header.as_str().strip_prefix(prefix.as_str()) {
                    user.extra.entry(unescape_key(key)).or_default().push(text(value));
                }
            }
        }
        Some(user)
    }

    /// Removes these headers and the standard ones, so that nothing behind this server takes them for true.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.group) {
            headers.remove(name);
        }
        let begins = |name: &HeaderName| {
            let name = name.as_str();
            name.starts_with(STANDARD_PREFIX)
                || self
                    .extra_prefixes
                    .iter()
                    .any(|prefix| name.starts_with(prefix.as_str()))
        };
        let claims: Vec<HeaderName> = headers.keys().filter(|name| begins(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
}

/// The first header that is there and not empty; of a header that is sent twice, the first value.
fn first_value(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| headers.get(name)).map(text);
    values.find(|value| !value.is_empty())
}

/// A header's value; bytes that are not UTF-8 are replaced, so that they equal no name that anybody was given.
pub(crate) fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The key of an extra attribute: percent-decoded where that can be done and gives text, otherwise as it is (Go's
/// `url.PathUnescape`, which decodes all or nothing).
pub(crate) fn unescape_key(encoded: &str) -> String {
    let mut rest = encoded.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return encoded.to_owned(),
        }
    }
    percent_encoding::percent_decode_str(encoded)
        .decode_utf8()
        .map_or_else(|_| encoded.to_owned(), std::borrow::Cow::into_owned)
}
