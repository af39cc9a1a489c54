//! Specs of Kubernetes' own end-to-end suite, as `tests/kube` builds them, against any API server that a context names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::environment::{self, Programs};
use crate::process::Process;

/// Specs that run at once. They mostly wait.
const AT_ONCE: usize = 8;

/// What no cluster of `tests/kube` can do, so that the suite does not wait for it, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (r"\[Slow\]", "takes minutes"),
    (r"\[Serial\]|\[Disruptive\]|\[Flaky\]", "wants the cluster for itself"),
    (r"\[Feature:|\[FeatureGate:|\[Alpha|\[Beta", "is not on by default"),
    (
        r"AdmissionWebhook|ConversionWebhook|MUST list and watch custom resources|Sample API Server",
        "calls a server in a pod",
    ),
    (
        r"Update Demo|Guestbook|Kubectl logs|Port forwarding|OIDC discovery|in-cluster config",
        "runs programs of images",
    ),
    (
        r"projected service account token|API token into pods|ownership and permission|NodeAuthenticator|by-node",
        "mounts volumes",
    ),
    (r"persistent volume claim", "provisions volumes"),
    (
        r"type check|apply changes to a resourcequota status|create services for rc",
        "waits for a controller that does not run",
    ),
];

/// What passes against a cluster and cannot through a root, by what the end of the name is, and why.
pub const NOT_THROUGH_A_ROOT: &[(&str, &str)] = &[
    (
        "should support building a client with a CSR",
        "proves itself with a certificate of the cluster's authority, which no hub trusts",
    ),
    (
        "should support exec through kubectl proxy",
        "runs kubectl proxy without --append-server-path, which leaves out the path of the server",
    ),
];

/// Runs the specs whose names `focus` matches, a regular expression, and says how each that ran ended: `passed`, `failed`, or
/// otherwise. One that fails is tried once more, as Kubernetes' own jobs do where a machine is busy.
///
/// # Panics
/// Where the suite does not end within an hour, or leaves no report.
#[must_use]
#[track_caller]
pub fn run(programs: &Programs, kubeconfig: &Path, context: &str, focus: &str) -> BTreeMap<String, String> {
    run_at_once(AT_ONCE, programs, kubeconfig, context, focus)
}

/// Runs the specs of these names, one after the other.
///
/// # Panics
/// As [`run`].
#[must_use]
#[track_caller]
pub fn run_alone(programs: &Programs, kubeconfig: &Path, context: &str, names: &[&str]) -> BTreeMap<String, String> {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    run_at_once(1, programs, kubeconfig, context, &format!("({})$", names.join("|")))
}

/// A regular expression for a text.
fn quoted(text: &str) -> String {
    let special = |letter: char| letter.is_ascii_punctuation();
    let letters = text.chars().map(|letter| match special(letter) {
        true => format!("\\{letter}"),
        false => letter.to_string(),
    });
    letters.collect()
}

fn run_at_once(
    at_once: usize,
    programs: &Programs,
    kubeconfig: &Path,
    context: &str,
    focus: &str,
) -> BTreeMap<String, String> {
    let folder = environment::folder("specs");
    let bin = programs.kubectl.parent().expect("a program is in a folder");
    let skip: Vec<&str> = LEFT_OUT.iter().map(|(pattern, _)| *pattern).collect();
    let mut command = Command::new(bin.join("ginkgo"));
    command
        .env("HOME", environment::home())
        .env_remove("KUBECONFIG")
        .current_dir(&folder)
        .arg(format!("--procs={at_once}"))
        .args([
            "--no-color",
            "--silence-skips",
            "--flake-attempts=2",
            "--timeout=1h",
            "--json-report=report.json",
        ])
        .arg(format!("--focus={focus}"))
        .arg(format!("--skip={}", skip.join("|")))
        .arg(bin.join("specs.test"))
        .args(["--", "--provider=skeleton", "--context", context, "--kubeconfig"])
        .arg(kubeconfig)
        .arg("--kubectl-path")
        .arg(&programs.kubectl);
    let mut process = Process::start(command, Some(""));
    process.wait(Duration::from_secs(3600));
    let output = process.output();
    let log = folder.join("output.log");
    std::fs::write(&log, &output).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let report = std::fs::read(folder.join("report.json")).unwrap_or_else(|error| panic!("{error}: {output}"));
    let report: Value = serde_json::from_slice(&report).unwrap_or_else(|error| panic!("{error}: {output}"));
    let specs = report[0]["SpecReports"].as_array().into_iter().flatten();
    let ran = specs.filter(|spec| spec["LeafNodeType"] == "It" && spec["State"] != "skipped");
    ran.map(|spec| (name(spec), spec["State"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// The texts of a spec and of what it is in.
fn name(spec: &Value) -> String {
    let around = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let texts: Vec<&str> = around
        .chain([&spec["LeafNodeText"]])
        .filter_map(Value::as_str)
        .collect();
    texts.join(" ")
}
