//! What travels with a request: who asks, for what, until when, and what to warn of.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::user::UserInfo;

/// A request on its way through a root.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// For what, below the root.
    pub info: Arc<RequestInfo>,
    /// The root's URL prefix without a trailing slash; empty for the hub. Absolute URLs in answers carry it.
    pub prefix: Arc<str>,
    /// When a short request has to be answered. Watches and upgrades only use it until they begin.
    pub deadline: Instant,
    /// What to warn the client of.
    pub warnings: Warnings,
    /// `User-Agent`, from which the default field manager is made.
    pub user_agent: Arc<str>,
}

/// What is kept of the time of a request, at most, to say what came of the children that were asked: answers have been read by
/// then, and are only put together.
const RESERVE: Duration = Duration::from_secs(1);

impl RequestContext {
    /// Until when children may answer: earlier than the deadline of the whole request by a twentieth of what is left, or by a
    /// second. A child that does not is named then, and left out where others have answered; at the deadline itself there is
    /// only time for a 504 that says nothing. Who asks several children, one after another, takes it once for all: each time it
    /// is a twentieth of what is left then.
    #[must_use]
    pub fn deadline_of_children(&self) -> Instant {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.deadline - (left / 20).min(RESERVE)
    }
}

/// Texts that go to the client as `Warning: 299` headers, which kubectl prints. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Takes the texts out.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceVersionMatch {
    /// Exactly that revision.
    Exact,
    /// That revision or a later one.
    NotOlderThan,
}

/// The query of a get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetOptions {
    /// Not older than this revision; `None` asks for the most recent, 0 for anything.
    pub resource_version: Option<u64>,
}

/// The query of a list, a watch or a delete of a collection (`metav1.ListOptions`), with selectors as sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// `labelSelector`; empty selects everything.
    pub label_selector: String,
    /// `fieldSelector`; empty selects everything.
    pub field_selector: String,
    /// `None` asks for the most recent, 0 for anything.
    pub resource_version: Option<u64>,
    /// How `resource_version` is meant.
    pub resource_version_match: Option<ResourceVersionMatch>,
    /// Objects a page; 0 is all.
    pub limit: u64,
    /// Where the page starts; empty for the first.
    pub continue_token: String,
    /// Whether a watch wants bookmarks.
    pub allow_watch_bookmarks: bool,
    /// Whether a watch starts with what is there already, followed by one bookmark that says so.
    pub send_initial_events: Option<bool>,
    /// After how many seconds a watch ends; `None` leaves it to the server.
    pub timeout_seconds: Option<u64>,
}

/// The query of a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// `dryRun=All`: do everything but store.
    pub dry_run: bool,
    /// `fieldManager`, or what the user agent says up to the first slash.
    pub field_manager: String,
    /// What to do with unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Take fields of other managers over in server-side apply.
    pub force: bool,
}

/// `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop what is not known.
    Ignore,
    /// Drop it and warn.
    #[default]
    Warn,
    /// Refuse it.
    Strict,
}

/// The kinds of patches, by media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7396.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply.
    Apply,
}

impl PatchType {
    /// The type of a media type without parameters.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            _ => return None,
        })
    }

    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}
