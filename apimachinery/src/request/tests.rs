use super::*;

#[test]
fn roots_are_split_off() {
    let path = "/apis/umbra.dev/v1alpha1/views/all/proxy/api/v1/pods";
    let split = RootPath::split(path);
    assert_eq!(split.root, RootName::View("all"));
    assert_eq!(split.prefix, "/apis/umbra.dev/v1alpha1/views/all/proxy");
    assert_eq!(split.path, "/api/v1/pods");
    assert_eq!(split.root.prefix(), split.prefix);
    assert_eq!(RootPath::split("/apis/umbra.dev/v1alpha1/fleets/a/proxy").path, "/");
}

#[test]
fn paths_that_only_look_like_roots_are_the_hubs() {
    for path in [
        "/api/v1/pods",
        "/apis/umbra.dev/v1alpha1/views/all",
        "/apis/umbra.dev/v1alpha1/views/all/proxyless/api",
        "/apis/umbra.dev/v1alpha1/views//proxy/api",
        "/apis/umbra.dev/v1alpha1/placements/all/proxy/api",
    ] {
        assert_eq!(
            RootPath::split(path),
            RootPath {
                root: RootName::Hub,
                prefix: "",
                path
            }
        );
    }
}

/// Verb, group, namespace, resource, name, subresource, and what follows it.
type Read = [&'static str; 7];

fn check(method: &str, target: &str, wanted: Read) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let info = RequestInfo::parse(method, path, query);
    let read = [
        info.verb.as_str(),
        &info.group,
        &info.namespace,
        &info.resource,
        &info.name,
        &info.subresource,
        &info.rest,
    ];
    assert_eq!(read, wanted, "{method} {target}");
    assert!(info.is_resource_request, "{method} {target}");
}

/// The table of `requestinfo_test.go` (`TestGetAPIRequestInfo`), and what is like it.
#[test]
fn requests_for_resources_are_read_as_kubernetes_reads_them() {
    for (method, target, wanted) in [
        ("GET", "/api/v1/namespaces", ["list", "", "", "namespaces", "", "", ""]),
        (
            "GET",
            "/api/v1/namespaces/a",
            ["get", "", "a", "namespaces", "a", "", ""],
        ),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            ["update", "", "a", "namespaces", "a", "finalize", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/status",
            ["get", "", "a", "namespaces", "a", "status", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods",
            ["list", "", "a", "pods", "", "", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/b",
            ["get", "", "a", "pods", "b", "", ""],
        ),
        (
            "HEAD",
            "/api/v1/namespaces/a/pods/b",
            ["get", "", "a", "pods", "b", "", ""],
        ),
        ("HEAD", "/api/v1/pods", ["list", "", "", "pods", "", "", ""]),
        ("GET", "/api/v1/pods", ["list", "", "", "pods", "", "", ""]),
        ("GET", "/api/v1//pods/", ["list", "", "", "pods", "", "", ""]),
        (
            "POST",
            "/api/v1/namespaces/a/pods",
            ["create", "", "a", "pods", "", "", ""],
        ),
        (
            "PUT",
            "/api/v1/namespaces/a/pods/b",
            ["update", "", "a", "pods", "b", "", ""],
        ),
        (
            "PATCH",
            "/api/v1/namespaces/a/pods/b",
            ["patch", "", "a", "pods", "b", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods/b",
            ["delete", "", "a", "pods", "b", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods",
            ["deletecollection", "", "a", "pods", "", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/pods?fieldSelector=metadata.name=b",
            ["deletecollection", "", "", "pods", "", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/nodes",
            ["deletecollection", "", "", "nodes", "", "", ""],
        ),
        (
            "OPTIONS",
            "/api/v1/namespaces/a/pods",
            ["", "", "a", "pods", "", "", ""],
        ),
        (
            "TRACE",
            "/api/v1/namespaces/a/pods/b",
            ["", "", "a", "pods", "b", "", ""],
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/w%40c/scale",
            ["patch", "apps", "a", "deployments", "w@c", "scale", ""],
        ),
        // Programs that are reached through the API.
        (
            "GET",
            "/api/v1/namespaces/a/pods/b/log?follow=1",
            ["get", "", "a", "pods", "b", "log", ""],
        ),
        (
            "POST",
            "/api/v1/namespaces/a/pods/b/exec?command=ls",
            ["create", "", "a", "pods", "b", "exec", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/b/%65xec",
            ["get", "", "a", "pods", "b", "exec", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/services/https:b:443/proxy/x/y",
            ["get", "", "a", "services", "https:b:443", "proxy", "x/y"],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/services/b/proxy",
            ["delete", "", "a", "services", "b", "proxy", ""],
        ),
        (
            "GET",
            "/api/v1/nodes/n/proxy/stats",
            ["get", "", "", "nodes", "n", "proxy", "stats"],
        ),
        (
            "OPTIONS",
            "/api/v1/namespaces/a/pods/b/proxy/x",
            ["", "", "a", "pods", "b", "proxy", "x"],
        ),
    ] {
        check(method, target, wanted);
        assert!(!RequestInfo::parse(method, target, "").verb_is_in_path);
    }
}

#[test]
fn watches_are_known_however_they_are_asked_for() {
    let pods = |verb| [verb, "", "", "pods", "", "", ""];
    for (query, verb) in [
        ("watch=1", "watch"),
        ("watch=true", "watch"),
        ("watch", "watch"),
        ("watch=", "watch"),
        ("watch=no", "watch"),
        ("watch=f", "watch"),
        ("w%61tch=%31", "watch"),
        ("watch=+false", "watch"),
        ("limit=%zz&watch=1", "watch"),
        ("watch=1&watch=0", "watch"),
        ("watch=0", "list"),
        ("watch=fAlSe", "list"),
        ("watch=%66alse", "list"),
        ("watch=0&watch=1", "list"),
        ("watch=1;a=b", "list"),
        ("watch=%zz", "list"),
        ("Watch=1", "list"),
        ("watcher=1", "list"),
    ] {
        check("GET", &format!("/api/v1/pods?{query}"), pods(verb));
    }
    check("HEAD", "/api/v1/pods?watch=1", pods("watch"));
    check(
        "GET",
        "/api/v1/namespaces/a/pods/b?watch=1",
        ["get", "", "a", "pods", "b", "", ""],
    );
    check("POST", "/api/v1/pods?watch=1", pods("create"));
}

#[test]
fn verbs_may_be_in_the_path() {
    for (method, path, wanted) in [
        ("GET", "/api/v1/watch/pods", ["watch", "", "", "pods", "", "", ""]),
        (
            "GET",
            "/api/v1/watch/namespaces",
            ["watch", "", "", "namespaces", "", "", ""],
        ),
        (
            "GET",
            "/api/v1/watch/namespaces/a",
            ["watch", "", "a", "namespaces", "a", "", ""],
        ),
        (
            "GET",
            "/api/v1/watch/namespaces/a/pods",
            ["watch", "", "a", "pods", "", "", ""],
        ),
        (
            "GET",
            "/api/v1/watch/namespaces/a/pods/b",
            ["watch", "", "a", "pods", "b", "", ""],
        ),
        (
            "GET",
            "/api/v1/%77atch/namespaces/a/pods/b/exec",
            ["watch", "", "a", "pods", "b", "exec", ""],
        ),
        (
            "GET",
            "/apis/apps/v1/watch/deployments",
            ["watch", "apps", "", "deployments", "", "", ""],
        ),
        (
            "POST",
            "/apis/apps/v1/watch/deployments",
            ["watch", "apps", "", "deployments", "", "", ""],
        ),
        (
            "GET",
            "/api/v1/proxy/nodes/n/stats",
            ["proxy", "", "", "nodes", "n", "", "stats"],
        ),
        (
            "POST",
            "/api/v1/proxy/namespaces/a/pods/b/exec",
            ["proxy", "", "a", "pods", "b", "", "exec"],
        ),
    ] {
        check(method, path, wanted);
        assert!(RequestInfo::parse(method, path, "").verb_is_in_path, "{path}");
    }
    // Names, not verbs.
    check(
        "GET",
        "/api/v1/namespaces/watch/pods",
        ["list", "", "watch", "pods", "", "", ""],
    );
    check(
        "GET",
        "/api/v1/namespaces/a/watch",
        ["list", "", "a", "watch", "", "", ""],
    );
    for verb in ["watch", "proxy"] {
        check("GET", &format!("/api/v1/{verb}"), ["get", "", "", "", "", "", ""]);
    }
}

#[test]
fn a_selector_may_leave_one_name() {
    let of = |method: &str, query: &str| RequestInfo::parse(method, "/api/v1/pods", query).selected_name;
    assert_eq!(of("GET", "fieldSelector=metadata.name%3Db"), "b");
    assert_eq!(
        of("GET", "watch=1&fieldSelector=a%3Db,metadata.name%3D%3Dweb%40east"),
        "web@east"
    );
    for query in [
        "fieldSelector=metadata.name!%3Db",
        "fieldSelector=metadata.name%3D..",
        "fieldSelector=metadata.name%3Da%252Fb",
        "fieldSelector=metadata.name%3D",
        "fieldSelector=a&fieldSelector=metadata.name%3Db",
        "labelSelector=metadata.name%3Db",
    ] {
        assert_eq!(of("GET", query), "", "{query}");
    }
    assert_eq!(of("DELETE", "fieldSelector=metadata.name%3Db"), "");
    let watch = RequestInfo::parse("GET", "/api/v1/watch/pods", "fieldSelector=metadata.name%3Db");
    assert_eq!(watch.selected_name, "", "it selects nothing there");
}

#[test]
fn other_paths_have_methods_for_verbs() {
    for path in [
        "/apis/apps/v1",
        "/apis",
        "/api/v1",
        "/version",
        "/",
        "/debug/pprof/profile",
        "/apiserver/v1/pods",
    ] {
        let info = RequestInfo::parse("GET", path, "watch=1");
        assert!(!info.is_resource_request && info.resource.is_empty(), "{path}");
        assert_eq!(info.verb, "get");
    }
    assert_eq!(RequestInfo::parse("OPTIONS", "/version", "").verb, "options");
}
