use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::certificates::{CertificateAuthority, ClientSubject};

const HOUR: Duration = Duration::from_hours(1);

fn client(authority: &CertificateAuthority, name: &str, lifetime: Duration) -> Vec<CertificateDer<'static>> {
    let subject = ClientSubject {
        user: name.to_owned(),
        ..ClientSubject::default()
    };
    let issued = authority.issue_client(&subject, lifetime).unwrap();
    vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()]
}

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, HOUR).unwrap()
}

fn bundle(authority: &CertificateAuthority) -> CaBundle {
    CaBundle::from_pem(authority.certificate_pem().as_bytes()).unwrap()
}

/// As a hub of this day publishes them.
fn options() -> RequestHeaderOptions {
    RequestHeaderOptions {
        allowed_names: vec!["front-proxy".to_owned()],
        uid_headers: vec!["X-Remote-Uid".to_owned()],
        ..RequestHeaderOptions::default()
    }
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

/// What becomes of a request with these certificates and the headers above, at a moment after now.
fn judge(
    trust: &ReloadableRequestHeaderTrust,
    peer_certificates: &[CertificateDer<'static>],
    after: Duration,
) -> Result<Option<UserInfo>, AuthenticationError> {
    let credentials = Credentials {
        peer_certificates,
        headers: &headers(),
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after);
    RequestHeaderAuthenticator::new(trust.clone()).authenticate(&credentials, now)
}

#[test]
fn an_allowed_proxy_speaks_for_whom_it_names() {
    let proxies = authority("front-proxy-ca");
    let trust = ReloadableRequestHeaderTrust::new(RequestHeaderTrust::new(bundle(&proxies), &options()).unwrap());
    let user = judge(&trust, &client(&proxies, "front-proxy", HOUR), Duration::ZERO);
    let user = user.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "u1"));
    assert_eq!(user.groups, ["dev", "ops"]);
    assert_eq!(user.extra["example.com/scopes"], ["read", "write"]);
}

#[test]
fn nobody_else_does() {
    let proxies = authority("front-proxy-ca");
    let trust = ReloadableRequestHeaderTrust::new(RequestHeaderTrust::new(bundle(&proxies), &options()).unwrap());
    let now = Duration::ZERO;
    assert_eq!(judge(&trust, &[], now).unwrap(), None, "no certificate");

    let other = client(&authority("other"), "front-proxy", HOUR);
    let refused = judge(&trust, &other, now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the client certificate is not trusted: UnknownIssuer"
    );

    // The name of the authority proves nothing: its key does.
    let namesake = client(&authority("front-proxy-ca"), "front-proxy", HOUR);
    let refused = judge(&trust, &namesake, now).unwrap_err();
    assert!(matches!(refused, AuthenticationError::Certificate { .. }), "{refused}");

    let refused = judge(&trust, &client(&proxies, "somebody", HOUR), now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "x509: subject with cn=somebody is not in the allowed list"
    );

    let proxy = client(&proxies, "front-proxy", Duration::from_mins(1));
    judge(&trust, &proxy, now).unwrap();
    let refused = judge(&trust, &proxy, Duration::from_mins(2)).unwrap_err();
    assert!(refused.to_string().contains("CertExpired"), "{refused}");

    let server = proxies.issue_serving(&["front-proxy".to_owned()], HOUR).unwrap();
    let server = [CertificateDer::from_pem_slice(server.certificate_pem.as_bytes()).unwrap()];
    let refused = judge(&trust, &server, now).unwrap_err();
    assert!(matches!(refused, AuthenticationError::Certificate { .. }), "{refused}");
}

#[test]
fn authority_and_names_change_together_while_requests_are_judged() {
    let (old, new) = (authority("front-proxy-ca"), authority("front-proxy-ca"));
    let trust = ReloadableRequestHeaderTrust::new(RequestHeaderTrust::nobody());
    let (before, after) = (client(&old, "front-proxy", HOUR), client(&new, "aggregator", HOUR));
    assert_eq!(judge(&trust, &before, Duration::ZERO).unwrap(), None);

    trust.replace(RequestHeaderTrust::new(bundle(&old), &options()).unwrap());
    assert!(judge(&trust, &before, Duration::ZERO).unwrap().is_some());
    assert!(judge(&trust, &after, Duration::ZERO).is_err());

    let renamed = RequestHeaderOptions {
        allowed_names: vec!["aggregator".to_owned()],
        ..options()
    };
    trust.replace(RequestHeaderTrust::new(bundle(&new), &renamed).unwrap());
    assert!(judge(&trust, &before, Duration::ZERO).is_err());
    assert!(judge(&trust, &after, Duration::ZERO).unwrap().is_some());

    let anyone = RequestHeaderOptions {
        allowed_names: Vec::new(),
        ..options()
    };
    trust.replace(RequestHeaderTrust::new(bundle(&new), &anyone).unwrap());
    assert!(
        judge(&trust, &client(&new, "x", HOUR), Duration::ZERO)
            .unwrap()
            .is_some()
    );
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

#[test]
fn headers_of_other_names_count_and_are_stripped() {
    let options = RequestHeaderOptions {
        username_headers: vec![" X-First ".to_owned(), "X-Second".to_owned()],
        uid_headers: Vec::new(),
        group_headers: vec!["X-Team".to_owned(), "X-Role".to_owned()],
        extra_header_prefixes: vec!["X-More-".to_owned(), "X-More-Of-".to_owned()],
        ..RequestHeaderOptions::default()
    };
    let names = IdentityHeaders::new(&options).unwrap();
    let mut headers = headers();
    for (name, value) in [
        ("x-first", ""),
        ("x-second", "bob"),
        ("x-second", "mallory"),
        ("x-role", "r1"),
        ("x-team", "t1"),
        ("x-more-of-a", "v"),
        ("x-requested", "stays"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    let user = names.user(&headers).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("bob", ""));
    assert_eq!(user.groups, ["t1", "r1"]);
    let extra = BTreeMap::from([
        ("of-a".to_owned(), vec!["v".to_owned()]),
        ("a".to_owned(), vec!["v".to_owned()]),
    ]);
    assert_eq!(user.extra, extra);
    names.strip(&mut headers);
    assert_eq!(
        headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
        ["x-requested"]
    );
}

#[test]
fn names_that_no_header_has_are_refused_all_at_once() {
    let options = RequestHeaderOptions {
        username_headers: vec![String::new(), "X-User".to_owned()],
        group_headers: vec!["X Group".to_owned()],
        extra_header_prefixes: vec![" ".to_owned()],
        ..RequestHeaderOptions::default()
    };
    let errors = IdentityHeaders::new(&options).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            r#""" in requestheader-username-headers is not the name of a header"#,
            r#""X Group" in requestheader-group-headers is not the name of a header"#,
            r#"" " in requestheader-extra-headers-prefix is not the name of a header"#,
        ]
    );
}

#[test]
fn keys_are_decoded_whole_or_not_at_all() {
    for (encoded, key) in [
        ("scopes", "scopes"),
        ("example.com%2fscopes", "example.com/scopes"),
        ("%41%42", "AB"),
        ("a+b", "a+b"),
        ("100%", "100%"),
        ("a%2fb%", "a%2fb%"),
        ("a%2fb%2", "a%2fb%2"),
        ("a%2fb%zz", "a%2fb%zz"),
        ("%e2%82%ac", "€"),
        ("%ff", "%ff"),
        ("", ""),
    ] {
        assert_eq!(unescape_key(encoded), key, "{encoded}");
    }
}

/// As Go's proxies escape keys (`headerKeyEscape` in `k8s.io/client-go/transport/round_trippers.go`).
fn escape_key(key: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let escaped = key.bytes().map(|byte| match byte {
        byte if token(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

fn user() -> impl Strategy<Value = UserInfo> {
    // What can be in a header: no control characters, and no space at the ends, which HTTP does not keep.
    let value = || "[!-~é€]([ -~é€]{0,8}[!-~é€])?";
    let extra = prop::collection::btree_map("[a-z0-9./%:_ é-]{1,12}", prop::collection::vec(value(), 1..3), 0..3);
    (value(), "[a-z0-9-]{0,8}", prop::collection::vec(value(), 0..5), extra).prop_map(|(name, uid, groups, extra)| {
        UserInfo {
            name,
            uid,
            groups,
            extra,
            machine: None,
        }
    })
}

/// As a proxy sends them (`SetAuthProxyHeaders`).
fn sent(user: &UserInfo) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("X-Remote-User", value(&user.name));
    if !user.uid.is_empty() {
        headers.insert("X-Remote-Uid", value(&user.uid));
    }
    for group in &user.groups {
        headers.append("X-Remote-Group", value(group));
    }
    for (key, values) in &user.extra {
        let name = format!("X-Remote-Extra-{}", escape_key(key));
        for one in values {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value(one));
        }
    }
    headers
}

proptest! {
    #[test]
    fn what_a_proxy_sends_arrives(user in user()) {
        let names = IdentityHeaders::new(&options()).unwrap();
        prop_assert_eq!(names.user(&sent(&user)), Some(user));
    }

    #[test]
    fn nothing_that_a_proxy_sends_goes_further(user in user(), others in prop::collection::vec("x-[a-q][a-z-]{0,8}", 0..4)) {
        let names = IdentityHeaders::new(&options()).unwrap();
        let mut headers = sent(&user);
        let mut kept = HeaderMap::new();
        for other in &others {
            let name = HeaderName::from_bytes(other.as_bytes()).unwrap();
            headers.append(name.clone(), HeaderValue::from_static("1"));
            kept.append(name, HeaderValue::from_static("1"));
        }
        names.strip(&mut headers);
        prop_assert_eq!(&headers, &kept);
        prop_assert_eq!(names.user(&headers), None);
    }

    /// Whatever bytes anybody sends: no panic, no user without the header, and never two headers made into one key by
    /// decoding half of one.
    #[test]
    fn anything_may_come(headers in prop::collection::vec(("(x-remote-(user|uid|group|extra-)|x-)[a-z%0-9]{0,6}", prop::collection::vec(32u8..=255, 0..6)), 0..8)) {
        let names = IdentityHeaders::new(&options()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
                map.append(name, value);
            }
        }
        let named = map.get("x-remote-user").is_some_and(|value| !value.is_empty());
        let user = names.user(&map);
        prop_assert_eq!(user.is_some(), named);
        let keys = map.keys().filter(|name| name.as_str().starts_with("x-remote-extra-")).count();
        prop_assert!(user.is_none_or(|user| user.extra.len() <= keys));
    }
}
