//! What the hub publishes for servers that are behind it.

use std::collections::BTreeMap;

use super::{ClientTrust, TrustError};
use crate::request_header::{RequestHeaderOptions, RequestHeaderTrust};
use crate::tls::CaBundle;

/// The namespace of the ConfigMap.
pub const CONFIG_MAP_NAMESPACE: &str = "kube-system";
/// The ConfigMap's name.
pub const CONFIG_MAP_NAME: &str = "extension-apiserver-authentication";

/// The authorities whose client certificates name users.
const CLIENT_CA: &str = "client-ca-file";
/// The authorities whose client certificates are front proxies'.
const REQUEST_HEADER_CA: &str = "requestheader-client-ca-file";

/// Which parts of the ConfigMap count; a flag replaces either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) client_ca: bool,
    pub(super) request_header: bool,
}

impl Parts {
    pub(super) fn any(self) -> bool {
        self.client_ca || self.request_header
    }
}

/// Uses what is there and in order. What is absent or broken stays as it was.
pub(super) fn apply(data: &BTreeMap<String, String>, parts: Parts, trust: &ClientTrust) -> Vec<TrustError> {
    let mut errors = Vec::new();
    if parts.client_ca
        && let Some(bundle) = bundle(data, CLIENT_CA)
    {
        match bundle {
            Ok(bundle) => trust.client_authorities.replace(bundle),
            Err(error) => errors.push(error),
        }
    }
    if parts.request_header
        && let Some(bundle) = bundle(data, REQUEST_HEADER_CA)
    {
        match request_header(bundle, data) {
            Ok(believed) => trust.request_header.replace(believed),
            Err(broken) => errors.extend(broken),
        }
    }
    errors
}

fn request_header(
    bundle: Result<CaBundle, TrustError>,
    data: &BTreeMap<String, String>,
) -> Result<RequestHeaderTrust, Vec<TrustError>> {
    let mut errors = Vec::new();
    let mut list = |key| {
        strings(data, key).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        })
    };
    let options = RequestHeaderOptions {
        allowed_names: list("requestheader-allowed-names"),
        username_headers: list("requestheader-username-headers"),
        uid_headers: list("requestheader-uid-headers"),
        group_headers: list("requestheader-group-headers"),
        extra_header_prefixes: list("requestheader-extra-headers-prefix"),
    };
    match bundle {
        Ok(bundle) if errors.is_empty() => RequestHeaderTrust::new(bundle, &options)
            .map_err(|names| names.into_iter().map(TrustError::HeaderName).collect()),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push(error);
            Err(errors)
        }
    }
}

/// The authorities under a key; `None` where there is no such key, or nothing under it.
fn bundle(data: &BTreeMap<String, String>, key: &str) -> Option<Result<CaBundle, TrustError>> {
    let pem = data.get(key).filter(|pem| !pem.is_empty())?;
    let origin = format!("key {key} of ConfigMap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}");
    Some(authorities(origin, pem.as_bytes()))
}

/// Authorities, at least one.
pub(super) fn authorities(origin: String, pem: &[u8]) -> Result<CaBundle, TrustError> {
    match CaBundle::from_pem(pem) {
        Ok(bundle) if bundle.is_empty() => Err(TrustError::Empty { origin }),
        Ok(bundle) => Ok(bundle),
        Err(source) => Err(TrustError::Bundle { origin, source }),
    }
}

/// A list of strings in JSON; empty where there is none (`deserializeStrings` in `…/headerrequest`).
fn strings(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<String>, TrustError> {
    match data.get(key).filter(|text| !text.is_empty()) {
        None => Ok(Vec::new()),
        Some(text) => {
            let list: Option<Vec<String>> =
                serde_json::from_str(text).map_err(|source| TrustError::List { key, source })?;
            Ok(list.unwrap_or_default())
        }
    }
}
