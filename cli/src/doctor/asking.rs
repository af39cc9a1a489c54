//! Asking the hub, with answers that tell what is not there from what may not be looked at.

use std::time::Duration;

use http::HeaderMap;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, Error};
use serde::de::DeserializeOwned;

use super::finding::Finding;

/// How long the hub may take for one answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// The label of what runs umbra.
pub(super) const SELECTOR: &str = "app.kubernetes.io/name=umbra";
/// How much of an answer is read: health and versions are shorter.
const LONGEST: usize = 64 << 10;

/// The hub that is looked at.
pub(super) struct Hub {
    pub(super) client: Client,
    /// Its URL.
    pub(super) server: String,
    /// Where umbra runs in it.
    pub(super) namespace: String,
    pub(super) now: Timestamp,
}

/// What reading comes to.
#[derive(Debug, Clone)]
pub(super) enum Read<T> {
    There(T),
    Missing,
    /// It may be there; the text says why it is not known.
    Unknown(String),
}

impl<T> Read<T> {
    /// What the API server answered.
    pub(super) fn of(answer: Result<T, Error>) -> Self {
        match answer {
            Ok(found) => Self::There(found),
            Err(Error::Api(status)) if status.code == 404 => Self::Missing,
            Err(error) => Self::Unknown(reason(&error)),
        }
    }

    /// What is there, if anything is; a finding where that is not known.
    pub(super) fn known(&self, check: &'static str, what: &str) -> Result<Option<&T>, Finding> {
        match self {
            Self::There(found) => Ok(Some(found)),
            Self::Missing => Ok(None),
            Self::Unknown(why) => Err(Finding::not_checked(check, format!("{what}: {why}"))),
        }
    }
}

/// Why there is no answer: what the API server says, or the innermost cause.
pub(super) fn reason(error: &Error) -> String {
    if let Error::Api(status) = error {
        return status.message.clone();
    }
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// An answer of any status.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Hub {
    /// Reads an object.
    pub(super) async fn get<K>(&self, api: Api<K>, name: &str) -> Read<K>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        Read::of(api.get(name).await)
    }

    /// Lists objects of what runs umbra.
    pub(super) async fn own<K>(&self, api: Api<K>) -> Read<Vec<K>>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let parameters = ListParams::default().labels(SELECTOR);
        Read::of(api.list(&parameters).await.map(|list| list.items))
    }

    /// The pods that run umbra.
    pub(super) async fn pods(&self) -> Read<Vec<Pod>> {
        self.own(Api::namespaced(self.client.clone(), &self.namespace)).await
    }

    /// Sends a GET and takes whatever comes; the error is why nothing did.
    ///
    /// # Errors
    /// Where there is no answer.
    pub(super) async fn fetch(&self, path: &str) -> Result<Answer, String> {
        let request = http::Request::get(path).body(Body::empty());
        let request = request.map_err(|error| error.to_string())?;
        let ask = async {
            let response = self.client.send(request).await.map_err(|error| reason(&error))?;
            let (parts, body) = response.into_parts();
            let body = http_body_util::Limited::new(body, LONGEST);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok(Answer {
                code: parts.status.as_u16(),
                headers: parts.headers,
                text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            })
        };
        let answered = tokio::time::timeout(ANSWER, ask).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())))
    }
}

impl Answer {
    /// What a failure says: the message of a Status, or the beginning of what is no Status.
    pub(super) fn message(&self) -> String {
        let status: Option<serde_json::Value> = serde_json::from_str(&self.text).ok();
        let message = status.and_then(|status| status["message"].as_str().map(str::to_owned));
        message.unwrap_or_else(|| self.text.trim().chars().take(200).collect())
    }
}
