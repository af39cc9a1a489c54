//! The query of a request: `metav1.ListOptions`, `GetOptions`, `CreateOptions` and their kin.
//!
//! Conversions are those of Go's query decoding (`k8s.io/apimachinery/pkg/runtime/converter.go`), checks those of
//! `apis/meta/internalversion/validation` and `apis/meta/v1/validation`.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Cause, Status};
use umbra_registry::request::{
    FieldValidation, GetOptions, ListOptions, PatchType, ResourceVersionMatch, WriteOptions,
};
use umbra_registry::resource::WriteVerb;

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
        let decode = |text: &str| {
            let spaced = if text.contains('+') {
                Cow::Owned(text.replace('+', " "))
            } else {
                Cow::Borrowed(text)
            };
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
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

    /// `DeleteOptions` that came as parameters rather than as body; `None` where none did.
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
        if let Some(orphan) = self.boolean("orphanDependents") {
            options.insert("orphanDependents".to_owned(), json!(orphan));
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

/// Faults of `DeleteOptions` (`ValidateDeleteOptions`).
///
/// # Errors
/// 400 for a body that is no JSON object, 422 for values that are not allowed.
pub(crate) fn check_delete_options(body: &[u8]) -> Result<bool, Status> {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct DeleteOptions {
        dry_run: Option<Vec<String>>,
        propagation_policy: Option<String>,
        orphan_dependents: Option<bool>,
    }
    if body.is_empty() {
        return Ok(false);
    }
    let options: DeleteOptions = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the body is no DeleteOptions: {error}")))?;
    let dry_run = options.dry_run.unwrap_or_default();
    let mut faults: Vec<Cause> = dry_run_fault(dry_run.iter().map(String::as_str)).into_iter().collect();
    if let Some(policy) = &options.propagation_policy {
        if options.orphan_dependents.is_some() {
            let message =
                format!("Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set");
            faults.push(fault("FieldValueInvalid", message, "propagationPolicy"));
        }
        if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            let message = format!(
                r#"Unsupported value: {policy:?}: supported values: "Background", "Foreground", "Orphan", "nil""#
            );
            faults.push(fault("FieldValueNotSupported", message, "propagationPolicy"));
        }
    }
    if faults.is_empty() {
        Ok(!dry_run.is_empty())
    } else {
        Err(invalid("DeleteOptions", faults))
    }
}

fn fault(reason: &str, message: impl Into<String>, field: &str) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message: message.into(),
        field: field.to_owned(),
    }
}

fn forbidden(field: &str, message: &str) -> Cause {
    fault("FieldValueForbidden", format!("Forbidden: {message}"), field)
}

fn invalid(kind: &str, faults: Vec<Cause>) -> Status {
    Status::invalid(&GroupResource::new("meta.k8s.io", ""), kind, "", faults)
}

fn options_kind(verb: WriteVerb) -> &'static str {
    match verb {
        WriteVerb::Create => "CreateOptions",
        WriteVerb::Update => "UpdateOptions",
        WriteVerb::Patch(_) => "PatchOptions",
        WriteVerb::Delete | WriteVerb::DeleteCollection => "DeleteOptions",
    }
}

fn list_faults(options: &ListOptions, wanted: &str) -> Vec<Cause> {
    const FIELD: &str = "resourceVersionMatch";
    let mut faults = Vec::new();
    if !wanted.is_empty() {
        if options.resource_version.is_none() {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            faults.push(forbidden(FIELD, message));
        }
        if !options.continue_token.is_empty() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(forbidden(FIELD, message));
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            let message = format!(r#"Unsupported value: {wanted:?}: supported values: "", "Exact", "NotOlderThan""#);
            faults.push(fault("FieldValueNotSupported", message, FIELD));
        }
        if wanted == "Exact" && options.resource_version == Some(0) {
            let message = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            faults.push(forbidden(FIELD, message));
        }
    }
    if options.send_initial_events.is_some() {
        faults.push(forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    faults
}

fn watch_faults(options: &ListOptions, wanted: &str) -> Vec<Cause> {
    const FIELD: &str = "resourceVersionMatch";
    let mut faults = Vec::new();
    if options.send_initial_events.is_some() && wanted != "NotOlderThan" {
        let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        faults.push(forbidden(FIELD, message));
    }
    if !wanted.is_empty() {
        if options.send_initial_events.is_none() {
            let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            faults.push(forbidden(FIELD, message));
        }
        if wanted != "NotOlderThan" {
            let message = format!(r#"Unsupported value: {wanted:?}: supported values: "NotOlderThan""#);
            faults.push(fault("FieldValueNotSupported", message, FIELD));
        }
        if !options.continue_token.is_empty() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(forbidden(FIELD, message));
        }
    }
    faults
}

fn manager_fault(manager: &str) -> Option<Cause> {
    if manager.len() > FIELD_MANAGER_LIMIT {
        let message = format!("Too long: may not be more than {FIELD_MANAGER_LIMIT} bytes");
        return Some(fault("FieldValueTooLong", message, "fieldManager"));
    }
    let (position, character) = manager.char_indices().find(|(_, one)| one.is_control())?;
    let message = format!(
        "Invalid value: {manager:?}: invalid character U+{:04X} (at position {position})",
        u32::from(character)
    );
    Some(fault("FieldValueInvalid", message, "fieldManager"))
}

fn dry_run_fault<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<Cause> {
    let value = values.find(|value| *value != "All")?;
    let message = format!(r#"Unsupported value: {value:?}: supported values: "All""#);
    Some(fault("FieldValueNotSupported", message, "dryRun"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("-1s", None),
            ("10", None),
            ("s", None),
            ("", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn watches_from_anywhere_start_with_what_is_there() {
        let options = Query::parse("watch=1").list_options(true).unwrap();
        assert_eq!(options.send_initial_events, Some(true));
        let options = Query::parse("resourceVersion=5").list_options(true).unwrap();
        assert_eq!(options.send_initial_events, None);
        assert_eq!(options.resource_version, Some(5));
        let informer =
            "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=300";
        let options = Query::parse(informer).list_options(true).unwrap();
        assert_eq!(options.timeout_seconds, Some(300));
        assert!(options.allow_watch_bookmarks);
    }

    #[test]
    fn contradictions_are_named() {
        let message = |query: &str, watch| Query::parse(query).list_options(watch).unwrap_err().message;
        assert_eq!(
            message("resourceVersionMatch=Exact", false),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             unless resourceVersion is provided"
        );
        assert!(message("sendInitialEvents=true", false).contains("forbidden for list"));
        assert!(message("sendInitialEvents=true", true).contains("requires setting resourceVersionMatch"));
        assert_eq!(
            message("limit=abc", false),
            "strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert!(message("resourceVersion=abc", false).starts_with("resourceVersion: Invalid value: \"abc\""));
    }

    #[test]
    fn field_managers() {
        let create = Query::parse("")
            .write_options(WriteVerb::Create, "kubectl/v1.36 (linux)")
            .unwrap();
        assert_eq!(create.field_manager, "kubectl");
        let apply = WriteVerb::Patch(PatchType::Apply);
        let error = Query::parse("force=true")
            .write_options(apply, "kubectl/v1.36")
            .unwrap_err();
        assert_eq!(error.code, 422);
        let apply = Query::parse("force=true&fieldManager=me&dryRun=All")
            .write_options(apply, "x")
            .unwrap();
        assert!(apply.force && apply.dry_run);
        let merge = WriteVerb::Patch(PatchType::Merge);
        assert_eq!(
            Query::parse("force=true").write_options(merge, "x").unwrap_err().code,
            422
        );
        assert_eq!(
            Query::parse("dryRun=Some").write_options(merge, "x").unwrap_err().code,
            422
        );
    }

    #[test]
    fn delete_options_are_checked() {
        assert!(!check_delete_options(b"").unwrap());
        assert!(check_delete_options(br#"{"dryRun":["All"]}"#).unwrap());
        assert_eq!(
            check_delete_options(br#"{"propagationPolicy":"No"}"#).unwrap_err().code,
            422
        );
        assert_eq!(check_delete_options(b"[").unwrap_err().code, 400);
        let body = Query::parse("gracePeriodSeconds=0&propagationPolicy=Orphan")
            .delete_options()
            .unwrap()
            .unwrap();
        assert_eq!(body["gracePeriodSeconds"], 0);
    }
}
