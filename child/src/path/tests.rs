use proptest::prelude::*;
use umbra_apimachinery::request::RequestInfo;
use umbra_show::Item;

use super::*;

fn refused(path: &str) -> &'static str {
    normalise(path).expect_err(path).reason
}

#[test]
fn what_is_legitimate_stays_as_it_is() {
    for path in [
        "/",
        "/api/v1/namespaces/default/pods/web-1/log",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        "/api/v1/namespaces/a/services/https:web:443/proxy/files/a%2Fb//c",
        "/api/v1/nodes/n1/proxy/logs//x",
        "/api/v1/namespaces/a/configmaps/a...b",
        "/api/v1/namespaces/a/configmaps/%252e%252e",
    ] {
        assert!(
            matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path),
            "{path}"
        );
    }
}

#[test]
fn escapes_are_refused() {
    for path in [
        "/api/v1/../../metrics",
        "/api/v1/%2e%2e/x",
        "/api/v1/.%2E",
        "/.",
        "/api/v1/namespaces/a/pods/b/proxy/../../c",
        "/api/v1/namespaces/a/pods/b/proxy/x%2f%2e%2e%2fc",
        "/api/v1/namespaces/a/pods/b/proxy/..\\c",
        "/api/v1/namespaces/a/pods/b/proxy/x%5c..%5cc",
        "/api/v1/namespaces/a/pods/b/proxy/..;a=b/c",
        "/api/v1/namespaces/a/pods/b/proxy/%2e%2e%3b/c",
        "/api/v1/namespaces/a/pods/b/proxy/%c0%ae%c0%ae/c",
        "/api/v1/namespaces/a/pods/b/proxy/x%e0%80%af%e0%80%ae.%c0%afc",
        "/api/v1/..;/x",
    ] {
        assert_eq!(refused(path), "it contains a dot segment", "{path}");
    }
    assert_eq!(refused("/api%2fv1/secrets"), "it contains an encoded slash");
    assert_eq!(refused("/apis/x/proxy/a%2fb"), "it contains an encoded slash");
    assert_eq!(refused("/api/v1/a%00"), "it contains an encoded control character");
    assert_eq!(
        refused("/api/v1/namespaces/a/pods/b/proxy/x%0d%0aImpersonate-User:%20root"),
        "it contains an encoded control character"
    );
    assert_eq!(refused("/api/v1/a%c0%ae"), "it is not UTF-8");
    assert_eq!(refused("/api/v1/%70roxy/a%2fb"), "it contains an encoded slash");
    assert_eq!(refused("/api/v1/a%zz"), "it contains a broken percent escape");
    assert_eq!(refused("/api/v1/a%2"), "it contains a broken percent escape");
    assert_eq!(refused("api"), "it does not start with a slash");
}

#[test]
fn repeated_slashes_collapse() {
    assert_eq!(normalise("//evil.example/api").expect("valid"), "/evil.example/api");
    assert_eq!(normalise("/api///v1//pods").expect("valid"), "/api/v1/pods");
    assert_eq!(
        normalise("/api//v1/nodes/n/proxy//x").expect("valid"),
        "/api/v1/nodes/n/proxy//x"
    );
}

/// What kube-apiserver makes of a path: `net/url` decodes it once, `RequestInfoFactory.NewRequestInfo` splits it. Group,
/// version, namespace, resource, name, subresource; `None` for what is no resource.
fn read_by_kube_apiserver(path: &str) -> Option<[String; 6]> {
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .expect("what passes is UTF-8 where it matters");
    let parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
    let (group, parts) = match parts.as_slice() {
        ["api", _, _, ..] => ("", &parts[1..]),
        ["apis", group, _, _, ..] => (*group, &parts[2..]),
        _ => return None,
    };
    let (version, mut parts) = (parts[0], &parts[1..]);
    let mut namespace = "";
    if parts[0] == "namespaces" && parts.len() > 1 {
        namespace = parts[1];
        if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
            parts = &parts[2..];
        }
    }
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    Some([group, version, namespace, part(0), part(1), part(2)].map(str::to_owned))
}

/// What the hub makes of the path that it is sent, which access, audit and metrics go by.
fn read_by_the_hub(path: &str) -> Option<[String; 6]> {
    let info = RequestInfo::parse("GET", path, "");
    info.is_resource_request.then_some([
        info.group,
        info.version,
        info.namespace,
        info.resource,
        info.name,
        info.subresource,
    ])
}

/// `path.Clean` of Go.
fn cleaned(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Paths made of what tells implementations apart.
fn paths() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "//",
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "pods",
        "services",
        "nodes",
        "a",
        "b",
        "proxy",
        "exec",
        "status",
        "watch",
        "%70roxy",
        "prox%79",
        "p%6fds",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%00",
        "%0d%0a",
        "%252e%252e",
        "%252f",
        "%c0%ae",
        "%c0%af",
        "%e9",
        "%c3%a9",
        "..;x",
        ";a=b",
        "%3b",
        "%",
        "*",
        "@",
        ":",
        "+",
        "~",
        "/api/v1/namespaces/a/pods/b/proxy",
        "/api/v1/nodes/n/proxy/",
        "/apis/umbra.dev/v1alpha1/managedclusters/a/proxy",
    ]);
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What is forwarded is, read by the child, what the hub has judged it by; and nothing on the way that cleans paths makes
/// another of it.
#[test]
fn what_passes_is_what_was_authorised() {
    let item = Item::open("children.proxying.paths");
    let (cases, passing) = (4096, std::cell::Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let checked = runner.run(&paths(), |path| {
        let Ok(passed) = normalise(&path) else { return Ok(()) };
        passing.set(passing.get() + 1);
        let (api, _) = passed.split_at(proxied_tail(&passed));
        let judged = read_by_the_hub(&path[..proxied_tail(&path)]);
        prop_assert_eq!(read_by_kube_apiserver(api), judged, "{} of {}", passed, path);

        let decoded: Cow<'_, [u8]> = percent_decode_str(&passed).into();
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        prop_assert!(
            decoded.split('/').all(|segment| segment != "." && segment != ".."),
            "{}",
            passed
        );
        prop_assert!(!passed.starts_with("//"));
        let again = normalise(&passed).expect("what passed once passes again");
        prop_assert_eq!(again.as_ref(), passed.as_ref());

        // A server whose API begins further down is not left, whatever stands in front of it cleans.
        let below = cleaned(&format!("/k8s/clusters/c1{decoded}"));
        prop_assert!(
            below == "/k8s/clusters/c1" || below.starts_with("/k8s/clusters/c1/"),
            "{}",
            below
        );
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        passing.get() > cases / 50,
        "only {} of {cases} paths passed",
        passing.get()
    );
    item.pass(&format!("{cases} paths, of which {} pass", passing.get()));
}
