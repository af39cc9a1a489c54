//! The query of a request: `metav1.ListOptions`, `GetOptions`, `CreateOptions` and their kin.
//!
//! Conversions are those of Go's query decoding (`k8s.io/apimachinery/pkg/runtime/converter.go`), checks those of
//! `apis/meta/internalversion/validation` and `apis/meta/v1/validation`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use umbra_apimachinery::request::parameters;
use umbra_apimachinery::status::Status;
use umbra_registry::request::{
    FieldValidation, GetOptions, ListOptions, PatchType, ResourceVersionMatch, WriteOptions,
};
use umbra_registry::resource::WriteVerb;

mod validation;

#[cfg(test)]
mod tests;

pub(crate) use validation::check_delete_options;
use validation::{dry_run_fault, fault, invalid, list_faults, manager_fault, options_kind, watch_faults};

/// How long a field manager's name may be, in bytes (`FieldManagerMaxLength`).
const FIELD_MANAGER_LIMIT: usize = 128;

/// The parameters of a query, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads what follows the question mark.
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = parameters(query).map(|(key, value)| (key.into_owned(), value.into_owned()));
        Self { pairs: pairs.collect() }
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(one, _)| one == key);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let wanted = self.pairs.iter().filter(move |(one, _)| one == key);
        wanted.map(|(_, value)| value.as_str())
    }

    /// The first value, or the empty string.
    fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// Everything but `false` and `0` is true, nothing at all too (`Convert_Slice_string_To_bool`).
    fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key)
            .map(|value| !(value.eq_ignore_ascii_case("false") || value == "0"))
    }

    fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        let value = self.text(key);
        if value.is_empty() {
            return Ok(None);
        }
        value
            .parse()
            .map(Some)
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
    }

    fn resource_version(&self) -> Result<Option<u64>, Status> {
        let value = self.text("resourceVersion");
        if value.is_empty() {
            return Ok(None);
        }
        value.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: invalid syntax"
            ))
        })
    }

    /// `?timeout=` of a short request; `None` where there is none, or zero.
    ///
    /// # Errors
    /// 400 for what is no duration.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Status> {
        let value = self.text("timeout");
        if value.is_empty() {
            return Ok(None);
        }
        let timeout = parse_duration(value).ok_or_else(|| {
            Status::bad_request(format!(
                "invalid timeout specified in the request URL - time: invalid duration {value:?}"
            ))
        })?;
        Ok((!timeout.is_zero()).then_some(timeout))
    }

    /// The query of a get.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn get_options(&self) -> Result<GetOptions, Status> {
        Ok(GetOptions {
            resource_version: self.resource_version()?,
        })
    }

    /// The query of a list, a watch, or a delete of a collection.
    ///
    /// # Errors
    /// 400 for values of the wrong type, 422 for ones that contradict each other.
    pub(crate) fn list_options(&self, watch: bool) -> Result<ListOptions, Status> {
        let mut options = ListOptions {
            label_selector: self.text("labelSelector").to_owned(),
            field_selector: self.text("fieldSelector").to_owned(),
            resource_version: self.resource_version()?,
            resource_version_match: None,
            limit: self.integer("limit")?.unwrap_or(0).max(0).unsigned_abs(),
            continue_token: self.text("continue").to_owned(),
            allow_watch_bookmarks: self.boolean("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: self.boolean("sendInitialEvents"),
            timeout_seconds: self
                .integer("timeoutSeconds")?
                .filter(|seconds| *seconds > 0)
                .map(i64::unsigned_abs),
        };
        let mut wanted_match = self.text("resourceVersionMatch");
        // A watch from nowhere in particular starts with what is there (`SetListOptionsDefaults`).
        let from_anywhere = options.resource_version.is_none_or(|version| version == 0);
        if watch && from_anywhere && options.send_initial_events.is_none() && wanted_match.is_empty() {
            options.send_initial_events = Some(true);
            wanted_match = "NotOlderThan";
        }
        let faults = if watch {
            watch_faults(&options, wanted_match)
        } else {
            list_faults(&options, wanted_match)
        };
        if !faults.is_empty() {
            return Err(invalid("ListOptions", faults));
        }
        if !options.continue_token.is_empty() && !from_anywhere {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        options.resource_version_match = match wanted_match {
            "Exact" => Some(ResourceVersionMatch::Exact),
            "NotOlderThan" => Some(ResourceVersionMatch::NotOlderThan),
            _ => None,
        };
        Ok(options)
    }

    /// The query of a write.
    ///
    /// # Errors
    /// 422.
    pub(crate) fn write_options(&self, verb: WriteVerb, user_agent: &str) -> Result<WriteOptions, Status> {
        let mut faults = Vec::new();
        let manager = self.text("fieldManager");
        if verb == WriteVerb::Patch(PatchType::Apply) {
            if manager.is_empty() {
                let message = "Required value: is required for apply patch";
                faults.push(fault("FieldValueRequired", message, "fieldManager"));
            }
        } else if matches!(verb, WriteVerb::Patch(_)) && self.get("force").is_some() {
            let message = "Forbidden: may not be specified for non-apply patch";
            faults.push(fault("FieldValueForbidden", message, "force"));
        }
        faults.extend(manager_fault(manager));
        faults.extend(dry_run_fault(self.all("dryRun")));
        let field_validation = match self.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let message =
                    format!(r#"Unsupported value: {other:?}: supported values: "", "Ignore", "Strict", "Warn""#);
                faults.push(fault("FieldValueNotSupported", message, "fieldValidation"));
                FieldValidation::Warn
            }
        };
        if !faults.is_empty() {
            return Err(invalid(options_kind(verb), faults));
        }
        let field_manager = match manager {
            "" => manager_of(user_agent),
            manager => manager.to_owned(),
        };
        Ok(WriteOptions {
            dry_run: self.get("dryRun").is_some(),
            field_manager,
            field_validation,
            force: self.boolean("force").unwrap_or(false),
        })
    }

    /// `DeleteOptions` that came as parameters rather than as body (`Convert_url_Values_To_v1_DeleteOptions`); `None` where
    /// none did. All of them are in it: whoever gets it as a body heeds no parameter any more.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn delete_options(&self) -> Result<Option<Value>, Status> {
        let mut options = Map::new();
        if let Some(seconds) = self.integer("gracePeriodSeconds")? {
            options.insert("gracePeriodSeconds".to_owned(), json!(seconds));
        }
        if let Some(policy) = self.get("propagationPolicy") {
            options.insert("propagationPolicy".to_owned(), json!(policy));
        }
        for name in ["orphanDependents", "ignoreStoreReadErrorWithClusterBreakingPotential"] {
            if let Some(wanted) = self.boolean(name) {
                options.insert(name.to_owned(), json!(wanted));
            }
        }
        let dry_run: Vec<&str> = self.all("dryRun").collect();
        if !dry_run.is_empty() {
            options.insert("dryRun".to_owned(), json!(dry_run));
        }
        let mut preconditions = Map::new();
        for name in ["uid", "resourceVersion"] {
            let value = self.text(name);
            if !value.is_empty() {
                preconditions.insert(name.to_owned(), json!(value));
            }
        }
        if !preconditions.is_empty() {
            options.insert("preconditions".to_owned(), Value::Object(preconditions));
        }
        if options.is_empty() {
            return Ok(None);
        }
        options.insert("kind".to_owned(), json!("DeleteOptions"));
        options.insert("apiVersion".to_owned(), json!("v1"));
        Ok(Some(Value::Object(options)))
    }

    /// How much of each object a Table's rows carry.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn include_object(&self) -> Result<IncludeObject, Status> {
        match self.text("includeObject") {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

/// `includeObject` of a Table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    Metadata,
    /// The whole object.
    Object,
}

/// What a user agent says up to the first slash (`prefixFromUserAgent`).
fn manager_of(user_agent: &str) -> String {
    let mut manager = String::new();
    let name = user_agent.split('/').next().unwrap_or_default();
    for character in name.chars().filter(|one| !one.is_control()) {
        if manager.len() + character.len_utf8() > FIELD_MANAGER_LIMIT {
            break;
        }
        manager.push(character);
    }
    manager
}

/// A duration as Go writes it: `300ms`, `1m30s`, `0`. `None` for what is none, and for negative ones.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0_f64;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|one: char| one.is_ascii_digit() || one == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}
