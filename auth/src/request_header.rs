//! Whom a front proxy speaks for: the `X-Remote-*` headers of kube-apiserver's aggregation layer.
//!
//! They are believed only over a client certificate of the requestheader authority whose common name is allowed
//! (`k8s.io/apiserver/pkg/authentication/request/headerrequest` and `…/x509.Verifier`). From everybody else they have to
//! be removed before anything is forwarded: [`strip_identity_headers`].

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

use crate::authenticate::{AuthenticationError, Credentials, RequestAuthenticator};
use crate::impersonate;
use crate::peer::Subject;
use crate::tls::ReloadableCaBundle;

/// Which headers carry what, and who may send them. The keys of the ConfigMap
/// `kube-system/extension-apiserver-authentication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaderOptions {
    /// Common names that a front proxy may have; empty allows every certificate of the authority.
    pub allowed_names: Vec<String>,
    /// Headers with the user, of which the first that is not empty counts.
    pub username_headers: Vec<String>,
    /// Headers with the UID, of which the first that is not empty counts.
    pub uid_headers: Vec<String>,
    /// Headers with groups, all of whose values count.
    pub group_headers: Vec<String>,
    /// Beginnings of headers with extra attributes; what follows is the key, percent-encoded.
    pub extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeaderOptions {
    /// As kube-apiserver is set up by every installer.
    fn default() -> Self {
        Self {
            allowed_names: Vec::new(),
            username_headers: vec!["X-Remote-User".to_owned()],
            uid_headers: vec!["X-Remote-Uid".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned()],
            extra_header_prefixes: vec!["X-Remote-Extra-".to_owned()],
        }
    }
}

/// Authenticates what a front proxy forwards.
#[derive(Debug)]
pub struct RequestHeaderAuthenticator {
    bundle: ReloadableCaBundle,
    options: RequestHeaderOptions,
}

impl RequestHeaderAuthenticator {
    /// Believes proxies that an authority of `bundle` vouches for.
    #[must_use]
    pub fn new(bundle: ReloadableCaBundle, options: RequestHeaderOptions) -> Self {
        Self { bundle, options }
    }

    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let options = &self.options;
        let name = first_value(headers, &options.username_headers)?;
        let mut user = UserInfo::new(name, Vec::<String>::new());
        user.uid = first_value(headers, &options.uid_headers).unwrap_or_default();
        for header in &options.group_headers {
            let values = headers.get_all(header.as_str()).iter().map(text);
            user.groups.extend(values.filter(|value| !value.is_empty()));
        }
        for prefix in &options.extra_header_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (header, value) in headers {
                let Some(key) = header.as_str().strip_prefix(prefix.as_str()) else {
                    continue;
                };
                user.extra.entry(unescape_key(key)).or_default().push(text(value));
            }
        }
        Some(user)
    }
}

impl RequestAuthenticator for RequestHeaderAuthenticator {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(own) = credentials.peer_certificates.first() else {
            return Ok(None);
        };
        let bundle = self.bundle.current();
        if bundle.is_empty() {
            return Ok(None);
        }
        bundle
            .verify_client(credentials.peer_certificates, now)
            .map_err(|source| AuthenticationError::Certificate { source })?;
        let subject = Subject::of(own).map_err(|source| AuthenticationError::Peer { source })?;
        let allowed = &self.options.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&subject.common_name) {
            return Err(AuthenticationError::ProxyNotAllowed {
                common_name: subject.common_name,
            });
        }
        Ok(self.user(credentials.headers))
    }
}

/// Removes everything by which a request claims an identity: `Authorization`, cookies, `X-Remote-*` and `Impersonate-*`,
/// and the token among WebSocket subprotocols. To be called before a request is forwarded anywhere.
pub fn strip_identity_headers(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(COOKIE);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-") || impersonate::is_impersonation_header(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    crate::tokens::remove_bearer_protocol(headers);
}

fn first_value(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| headers.get(name.as_str())).map(text);
    values.find(|value| !value.is_empty())
}

/// A header's value; bytes that are not UTF-8 are replaced, so that they equal no name that anybody was given.
pub(crate) fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The key of an extra attribute: percent-decoded where that gives text, otherwise as it is.
pub(crate) fn unescape_key(encoded: &str) -> String {
    percent_encoding::percent_decode_str(encoded)
        .decode_utf8()
        .map_or_else(|_| encoded.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::certificates::{CertificateAuthority, ClientSubject};
    use crate::tls::CaBundle;

    const HOUR: Duration = Duration::from_hours(1);

    fn proxy(authority: &CertificateAuthority, name: &str) -> Vec<CertificateDer<'static>> {
        let subject = ClientSubject {
            user: name.to_owned(),
            ..ClientSubject::default()
        };
        let issued = authority.issue_client(&subject, HOUR).unwrap();
        vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()]
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "alice"),
            ("x-remote-uid", "u1"),
            ("x-remote-group", "dev"),
            ("x-remote-group", ""),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscopes", "read"),
            ("x-remote-extra-example.com%2fscopes", "write"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_count_only_from_an_allowed_proxy() {
        let authority = CertificateAuthority::create("front-proxy-ca", HOUR).unwrap();
        let bundle = CaBundle::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        let options = RequestHeaderOptions {
            allowed_names: vec!["front-proxy".to_owned()],
            ..RequestHeaderOptions::default()
        };
        let authenticator = RequestHeaderAuthenticator::new(ReloadableCaBundle::new(bundle), options);
        let headers = headers();
        let judge = |peer_certificates: &[CertificateDer<'static>]| {
            let credentials = Credentials {
                peer_certificates,
                headers: &headers,
            };
            authenticator.authenticate(&credentials, UnixTime::now())
        };

        let user = judge(&proxy(&authority, "front-proxy")).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "u1"));
        assert_eq!(user.groups, ["dev", "ops"]);
        assert_eq!(user.extra["example.com/scopes"], ["read", "write"]);

        assert!(matches!(
            judge(&proxy(&authority, "somebody")),
            Err(AuthenticationError::ProxyNotAllowed { .. })
        ));
        let stranger = CertificateAuthority::create("other", HOUR).unwrap();
        assert!(judge(&proxy(&stranger, "front-proxy")).is_err());
        assert_eq!(judge(&[]).unwrap(), None);
    }

    #[test]
    fn claims_of_identity_are_stripped_and_nothing_else() {
        let mut headers = headers();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("impersonate-user", "root"),
            ("impersonate-extra-a", "b"),
            ("accept", "application/json"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        strip_identity_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
