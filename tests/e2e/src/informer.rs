//! Following a resource with client-go, as controllers do: the program `informer` of `tests/kube`, and what it tells.
//!
//! What it tells is the evidence: whether a client lists again, and whether what it gets of each object is a history.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::environment::{self, Programs};
use crate::kubectl::Kubectl;
use crate::process::Process;

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A shared informer: it tells what its handlers get.
    Informer,
    /// The reflector that an informer has inside: it tells events as the watch brings them.
    Reflector,
}

/// What it speaks with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// What client-go speaks by default.
    Http2,
    /// With `DISABLE_HTTP2`.
    Http1,
}

/// A running informer.
#[derive(Debug)]
pub struct Informer {
    process: Process,
}

/// One line of what an informer tells. Revisions are zero where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// `REQUEST`, `ADDED`, …: see the program.
    pub kind: String,
    /// Of a request: its query.
    pub query: String,
    /// Of a request: the status of the answer, or 0 where none came.
    pub status: u64,
    /// Of an event: the namespace and the name.
    pub key: String,
    /// Of an event, or of a list: the revision.
    pub revision: u64,
    /// Of an event: the revision of what the store had of the object before.
    pub previous: u64,
    /// Of a list, or of a state: the objects.
    pub objects: Vec<Value>,
}

impl Record {
    /// Reads a line.
    ///
    /// # Panics
    /// Where it is none of the program's.
    #[must_use]
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let revision = |field: &str| text(field).parse().unwrap_or_default();
        Self {
            time: value["time"].as_u64().unwrap_or_default(),
            kind: text("type"),
            query: text("query"),
            status: value["status"].as_u64().unwrap_or_default(),
            key: text("key"),
            revision: revision("resourceVersion"),
            previous: revision("previous"),
            objects: value["objects"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// Whether it is a request for everything there is: a list, or a watch that begins with one.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.kind == "REQUEST" && (!self.query.contains("watch=true") || self.query.contains("sendInitialEvents=true"))
    }

    /// Whether it is a watch that goes on from a revision.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.kind == "REQUEST" && !self.is_list()
    }

    /// Whether it is an event of an object.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.kind.as_str(), "ADDED" | "MODIFIED" | "DELETED" | "MISSED")
    }
}

impl Informer {
    /// Starts one for the ConfigMaps of a namespace, with a context of somebody's kubeconfig.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(
        programs: &Programs,
        user: &Kubectl,
        context: &str,
        namespace: &str,
        form: Form,
        protocol: Protocol,
    ) -> Self {
        let mut command = Command::new(programs.cluster.with_file_name("informer"));
        command.arg("--kubeconfig").arg(user.kubeconfig());
        command.args(["--context", context, "--namespace", namespace, "--v=2"]);
        if form == Form::Reflector {
            command.arg("--reflector");
        }
        command.env("HOME", environment::home()).env_remove("KUBECONFIG");
        match protocol {
            Protocol::Http1 => command.env("DISABLE_HTTP2", "1"),
            Protocol::Http2 => command.env_remove("DISABLE_HTTP2"),
        };
        Self {
            process: Process::start(command, None),
        }
    }

    /// Waits until it has what there is.
    ///
    /// # Panics
    /// Where it does not come to that.
    #[track_caller]
    pub fn wait_until_synced(&mut self) {
        self.process
            .wait_for("the first list", |text| text.contains(r#""type":"SYNCED""#));
    }

    /// What it has told so far.
    ///
    /// # Panics
    /// Where a line is none of the program's.
    #[must_use]
    #[track_caller]
    pub fn records(&self) -> Vec<Record> {
        complete_lines(&self.process.stdout()).map(Record::parse).collect()
    }

    /// What is in its store, by key.
    ///
    /// # Panics
    /// Where it does not answer.
    #[track_caller]
    pub fn state(&mut self) -> BTreeMap<String, Value> {
        let is_state = |line: &&str| line.contains(r#""type":"STATE""#);
        let before = complete_lines(&self.process.stdout()).filter(is_state).count();
        self.process.write("state\n");
        let told = self.process.wait_for("its state", |text| {
            complete_lines(text).filter(is_state).count() > before
        });
        let state = complete_lines(&told).filter(is_state).nth(before);
        let state = Record::parse(state.expect("it has been waited for"));
        state.objects.into_iter().map(|object| (key(&object), object)).collect()
    }

    /// What it has said beside that: client-go's own log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

/// The lines that have come to their ends: the last one may still be on its way.
fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    text.rfind('\n').map(|end| &text[..end]).unwrap_or_default().lines()
}

/// Namespace and name of an object.
fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let field = |name: &str| metadata[name].as_str().unwrap_or_default();
    format!("{}/{}", field("namespace"), field("name"))
}

/// What an informer knew of an object at some time.
#[derive(Debug, Clone, Copy)]
struct Known {
    revision: u64,
    exists: bool,
}

/// What is wrong with what an informer was told, by key: revisions that do not rise, objects that are added twice or
/// changed while they are not there. Empty where it is a history of each object.
#[must_use]
pub fn faults(records: &[Record]) -> Vec<String> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut faults = Vec::new();
    for record in records {
        if record.kind == "REPLACED" {
            replace(&mut known, record, &mut faults);
            continue;
        }
        if !record.is_event() {
            continue;
        }
        let before = known.get(&record.key).copied();
        let exists = before.is_some_and(|known| known.exists);
        let fault = match record.kind.as_str() {
            // A list has told that it is gone, not when.
            "MISSED" => None,
            // What a handler gets of an object that a second list has brought unchanged.
            "MODIFIED" if exists && record.previous == record.revision => None,
            _ if before.is_some_and(|before| record.revision <= before.revision) => Some("goes back"),
            "ADDED" if exists => Some("is added twice"),
            "MODIFIED" | "DELETED" if !exists => Some("is not there"),
            _ => None,
        };
        if let Some(fault) = fault {
            faults.push(format!(
                "{}: {} at {} after {before:?}: {fault}",
                record.key, record.kind, record.revision
            ));
        }
        let revision = record.revision.max(before.map_or(0, |before| before.revision));
        let exists = !matches!(record.kind.as_str(), "DELETED" | "MISSED");
        known.insert(record.key.clone(), Known { revision, exists });
    }
    faults
}

fn replace(known: &mut BTreeMap<String, Known>, list: &Record, faults: &mut Vec<String>) {
    for before in known.values_mut() {
        before.exists = false;
    }
    for object in &list.objects {
        let key = key(object);
        let text = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let revision = text.parse().unwrap_or_default();
        match known.get(&key) {
            Some(before) if revision < before.revision => faults.push(format!(
                "{key}: {revision} in a list at {} after {before:?}: goes back",
                list.revision
            )),
            _ => {}
        }
        known.insert(key, Known { revision, exists: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, key: &str, revision: u64) -> Record {
        Record::parse(&format!(
            r#"{{"time":1,"type":"{kind}","key":"{key}","resourceVersion":"{revision}"}}"#
        ))
    }

    fn list(revision: u64, objects: &str) -> Record {
        Record::parse(&format!(
            r#"{{"type":"REPLACED","resourceVersion":"{revision}","objects":[{objects}]}}"#
        ))
    }

    const A_AT_3: &str = r#"{"metadata":{"namespace":"n","name":"a","resourceVersion":"3"}}"#;

    #[test]
    fn a_history_has_no_faults() {
        let records = [
            list(4, A_AT_3),
            event("MODIFIED", "n/a", 5),
            event("ADDED", "n/b", 6),
            event("DELETED", "n/a", 7),
            event("ADDED", "n/a", 8),
        ];
        assert_eq!(faults(&records), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_history_is_told() {
        let again = r#"{"type":"MODIFIED","key":"n/a","resourceVersion":"2","previous":"2"}"#;
        assert_eq!(
            faults(&[event("ADDED", "n/a", 2), Record::parse(again)]),
            Vec::<String>::new()
        );
        let broken: [(&[Record], &str); 7] = [
            (&[Record::parse(again)], "is not there"),
            (&[event("ADDED", "n/a", 2), event("ADDED", "n/a", 3)], "added twice"),
            (&[event("ADDED", "n/a", 2), event("MODIFIED", "n/a", 2)], "goes back"),
            (&[event("ADDED", "n/a", 2), event("DELETED", "n/a", 1)], "goes back"),
            (&[event("MODIFIED", "n/a", 2)], "is not there"),
            (&[list(4, ""), event("DELETED", "n/a", 5)], "is not there"),
            (&[event("ADDED", "n/a", 4), list(5, A_AT_3)], "goes back"),
        ];
        for (records, fault) in broken {
            let found = faults(records);
            assert!(found.len() == 1 && found[0].contains(fault), "{found:?}");
        }
    }

    #[test]
    fn a_watch_that_begins_with_everything_is_a_list() {
        let request = |query: &str| Record::parse(&format!(r#"{{"type":"REQUEST","query":"{query}","status":200}}"#));
        assert!(request("limit=500&resourceVersion=0").is_list());
        assert!(request("allowWatchBookmarks=true&sendInitialEvents=true&watch=true").is_list());
        assert!(!request("allowWatchBookmarks=true&resourceVersion=12&watch=true").is_list());
    }
}
