use umbra_apimachinery::request::RequestInfo;

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

/// Who may list one object by its name is let in by what [`RequestInfo`] reads, and served by what is read here.
#[test]
fn what_is_judged_is_what_is_selected() {
    for query in [
        "fieldSelector=metadata.name%3Da",
        "fieldSelector=metadata.namespace!%3D;x&fieldSelector=metadata.name%3Da",
        "fieldSelector=metadata.namespace!%3D%zz&fieldSelector=metadata.name%3Da",
        "field%53elector=metadata.name%3Da&fieldSelector=",
        "watch=0;&watch=1&fieldSelector=metadata.name%3Da",
    ] {
        let info = RequestInfo::parse("GET", "/api/v1/pods", query);
        let options = Query::parse(query).list_options(false).unwrap();
        assert_eq!(info.selected_name, "a", "{query}");
        assert_eq!(options.field_selector, "metadata.name=a", "{query}");
    }
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
}

#[test]
fn parameters_of_a_delete_are_its_options() {
    let options = |query: &str| Query::parse(query).delete_options().unwrap();
    assert_eq!(options("fieldManager=me&timeout=5s"), None);
    assert_eq!(
        options("gracePeriodSeconds=0&propagationPolicy=Orphan&dryRun=All&uid=u-1&resourceVersion=7"),
        Some(json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan",
            "dryRun": ["All"], "preconditions": {"uid": "u-1", "resourceVersion": "7"},
        }))
    );
    assert_eq!(
        options("orphanDependents=false&ignoreStoreReadErrorWithClusterBreakingPotential=true&uid="),
        Some(json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "orphanDependents": false,
            "ignoreStoreReadErrorWithClusterBreakingPotential": true,
        }))
    );
    let no_number = Query::parse("gracePeriodSeconds=soon").delete_options();
    assert_eq!(no_number.unwrap_err().code, 400);
}
