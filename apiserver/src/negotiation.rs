//! Which representation a client wants: the `Accept` header
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation.NegotiateMediaTypeOptions`).

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use umbra_apimachinery::status::{Reason, Status};

use crate::query::Query;

/// What is done to objects before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Nothing.
    None,
    /// `as=Table`, in `meta.k8s.io` of that version.
    Table(MetaVersion),
    /// `as=PartialObjectMetadata`.
    Metadata(MetaVersion),
    /// `as=PartialObjectMetadataList`.
    MetadataList(MetaVersion),
}

/// Versions of `meta.k8s.io` that Tables and metadata are served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`, which old clients ask for; the fields are the same.
    V1Beta1,
}

impl MetaVersion {
    /// As `apiVersion`.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }

    fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }
}

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// What is done to objects.
    pub(crate) transform: Transform,
    /// Whether people read it.
    pub(crate) pretty: bool,
    /// Whether the client takes gzip.
    pub(crate) gzip: bool,
}

/// One clause of an `Accept` header.
#[derive(Debug, PartialEq)]
pub(crate) struct Clause<'a> {
    /// `application`.
    pub(crate) media_type: &'a str,
    /// `json`.
    pub(crate) subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (media_type, subtype) = parts.next()?.split_once('/').or_else(|| {
            // Some old clients send a lone star for everything.
            (text.trim() == "*").then_some(("*", "*"))
        })?;
        let mut clause = Self {
            media_type,
            subtype,
            parameters: Vec::new(),
            quality: 1.0,
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if key.trim() == "q" {
                clause.quality = value.parse().unwrap_or(1.0);
            } else {
                clause.parameters.push((key.trim(), value));
            }
        }
        Some(clause)
    }

    /// The parameter of that name, or the empty string.
    pub(crate) fn parameter(&self, name: &str) -> &'a str {
        let found = self.parameters.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether it covers `application/json`.
    pub(crate) fn takes_json(&self) -> bool {
        matches!(
            (self.media_type, self.subtype),
            ("application", "json" | "*") | ("*", "*")
        )
    }

    fn specificity(&self) -> u8 {
        u8::from(self.media_type != "*") + u8::from(self.subtype != "*")
    }
}

/// The clauses of the `Accept` header, what the client likes best first; one that takes everything where there is none.
pub(crate) fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Clause::parse)
        .collect();
    if clauses.is_empty() {
        clauses.extend(Clause::parse("*/*"));
    }
    // Stable, so that equals stay in the order in which they were sent.
    clauses.sort_by(|a, b| {
        b.quality
            .total_cmp(&a.quality)
            .then_with(|| b.specificity().cmp(&a.specificity()))
    });
    clauses
}

/// Settles the representation of objects.
///
/// # Errors
/// 406 where the client takes nothing that is served, such as protobuf alone.
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Negotiated, Status> {
    clauses(headers)
        .iter()
        .filter(|clause| clause.takes_json())
        .find_map(|clause| {
            Some(Negotiated {
                transform: transform(clause)?,
                pretty: wants_pretty(headers, query, clause),
                gzip: takes_gzip(headers),
            })
        })
        .ok_or_else(not_acceptable)
}

/// 406, as kube-apiserver words it.
pub(crate) fn not_acceptable() -> Status {
    Status::failure(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/json;stream=watch",
    )
}

/// `None` where the clause asks for what is not served; the next clause counts then.
fn transform(clause: &Clause<'_>) -> Option<Transform> {
    if !matches!(clause.parameter("stream"), "" | "watch") || !clause.parameter("sv").is_empty() {
        return None;
    }
    let kind = clause.parameter("as");
    let (group, version) = (clause.parameter("g"), clause.parameter("v"));
    if kind.is_empty() && group.is_empty() && version.is_empty() {
        return Some(Transform::None);
    }
    if group != "meta.k8s.io" {
        return None;
    }
    let version = MetaVersion::parse(version)?;
    match kind {
        "Table" => Some(Transform::Table(version)),
        "PartialObjectMetadata" => Some(Transform::Metadata(version)),
        "PartialObjectMetadataList" => Some(Transform::MetadataList(version)),
        _ => None,
    }
}

/// `?pretty` decides; without it, people's clients get what people like (`isPrettyPrint`).
fn wants_pretty(headers: &HeaderMap, query: &Query, clause: &Clause<'_>) -> bool {
    if clause.parameter("pretty") == "1" {
        return true;
    }
    match query.get("pretty") {
        Some(value) if !value.is_empty() => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        _ => {
            let agent = headers.get(USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
            [&b"curl"[..], b"Wget", b"Mozilla/5.0"]
                .iter()
                .any(|human| agent.starts_with(human))
        }
    }
}

/// Whether the client takes gzip (`negotiateContentEncoding`; a quality of 0 refuses).
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| {
            let (coding, weight) = token.split_once(';').unwrap_or((token, ""));
            let weight = weight.trim();
            coding.trim() == "gzip" && !matches!(weight, "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform_of(accept: &str) -> Option<Transform> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        negotiate(&headers, &Query::default()).ok().map(|one| one.transform)
    }

    #[test]
    fn the_clauses_of_real_clients() {
        let table = Some(Transform::Table(MetaVersion::V1));
        for (accept, want) in [
            ("", Some(Transform::None)),
            ("*/*", Some(Transform::None)),
            ("application/json", Some(Transform::None)),
            ("application/json, */*", Some(Transform::None)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Transform::None),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/cbor", None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                table,
            ),
            ("application/json;as=Table;g=meta.k8s.io;v=v1", table),
            (
                "application/json;q=0.5, application/json;as=Table;g=meta.k8s.io;v=v1",
                table,
            ),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1;q=0.5, application/json",
                Some(Transform::None),
            ),
            ("application/json;as=Chair;g=meta.k8s.io;v=v1", None),
            (
                "application/json;as=Chair;g=meta.k8s.io;v=v1,application/json",
                Some(Transform::None),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some(Transform::MetadataList(MetaVersion::V1)),
            ),
            ("application/json;stream=watch", Some(Transform::None)),
        ] {
            assert_eq!(transform_of(accept), want, "{accept}");
        }
    }

    #[test]
    fn gzip_is_taken_where_it_is_offered() {
        let takes = |value: &str| takes_gzip(&[(ACCEPT_ENCODING, value.parse().unwrap())].into_iter().collect());
        assert!(takes("gzip") && takes("deflate, gzip;q=0.5"));
        assert!(!takes("identity") && !takes("gzip;q=0"));
    }

    #[test]
    fn people_get_indentation() {
        let pretty = |agent: &str, query: &str| {
            let headers = [(USER_AGENT, agent.parse().unwrap())].into_iter().collect();
            negotiate(&headers, &Query::parse(query)).unwrap().pretty
        };
        assert!(pretty("curl/8.0", "") && pretty("kubectl/1.36", "pretty=true"));
        assert!(!pretty("curl/8.0", "pretty=false") && !pretty("kubectl/1.36", ""));
    }
}
