use super::*;

/// A file of a kubeconfig.
pub(crate) fn file(path: &str, text: &str) -> File {
    File {
        path: path.into(),
        content: parse(text).unwrap(),
    }
}

#[test]
fn a_root_of_a_hub_leads_to_the_hub() {
    let cases = [
        ("https://hub:6443", "https://hub:6443"),
        ("https://hub/k8s/c-1/", "https://hub/k8s/c-1"),
        ("https://hub/apis/umbra.dev/v1alpha1/views/all/proxy", "https://hub"),
        (
            "https://hub/k8s/c-1/apis/umbra.dev/v1alpha1/managedclusters/a/proxy/",
            "https://hub/k8s/c-1",
        ),
        (
            "https://hub/apis/umbra.dev/v1alpha1/views/all",
            "https://hub/apis/umbra.dev/v1alpha1/views/all",
        ),
    ];
    for (server, hub) in cases {
        assert_eq!(hub_url(server), hub);
    }
}

#[test]
fn names_begin_with_the_hubs_also_from_a_context_of_a_root() {
    let beginning = |name: &str, path: &str| {
        let text = format!(
            "{{current-context: {name}, contexts: [{{name: {name}, context: {{cluster: c, user: u}}}}], users: [{{name: u}}],
             clusters: [{{name: c, cluster: {{server: 'https://hub{path}'}}}}]}}"
        );
        let source = Source::of(vec![file("/a/config", &text)]);
        source.choose(None).unwrap().beginning().to_owned()
    };
    let view = "/apis/umbra.dev/v1alpha1/views/all/proxy";
    assert_eq!(beginning("prod-view-all", view), "prod");
    assert_eq!(beginning("umbra-view", view), "umbra");
    assert_eq!(beginning("mine", view), "mine");
    assert_eq!(beginning("prod-view-all", ""), "prod-view-all");
}

#[test]
fn of_several_files_the_first_wins_and_says_where_an_entry_is() {
    let source = Source::of(vec![
        file(
            "/a/config",
            "{current-context: '', contexts: [{name: one, context: {cluster: c, user: u}}], users: null}",
        ),
        file(
            "/b/config",
            "{current-context: one, contexts: [{name: one, context: {cluster: x, user: x}}],
             clusters: [{name: c, cluster: {server: 'https://c', certificate-authority: pki/ca.crt}}],
             users: [{name: u, user: {exec: {command: ./login, apiVersion: v1}}}]}",
        ),
    ]);
    let chosen = source.choose(None).unwrap();
    assert_eq!(
        (chosen.context.name.as_str(), chosen.hub.as_str()),
        ("one", "https://c")
    );
    assert_eq!(chosen.context.file, Path::new("/a/config"));
    assert_eq!(chosen.cluster.file, Path::new("/b/config"));
    let error = source.choose(Some("two")).unwrap_err().to_string();
    assert!(error.contains("it has one"), "{error}");
}

#[test]
fn paths_are_right_wherever_an_entry_is_written() {
    let entry = |list, fields: Value| Entry {
        list,
        name: "x".to_owned(),
        file: "/home/a/.kube/config".into(),
        fields: fields.as_object().unwrap().clone(),
    };
    let cluster = entry(
        List::Clusters,
        json!({"certificate-authority": "../pki/ca.crt", "server": "s"}),
    );
    let ca = |folder: Option<&str>| {
        let moved = cluster.moved_to(folder.map(Path::new));
        moved["certificate-authority"].as_str().unwrap().to_owned()
    };
    assert_eq!(ca(Some("/home/a/.kube")), "../pki/ca.crt");
    assert_eq!(ca(Some("/home/a")), "pki/ca.crt");
    assert_eq!(ca(Some("/home/b")), "/home/a/pki/ca.crt");
    assert_eq!(ca(None), "/home/a/pki/ca.crt");
    let user = entry(
        List::Users,
        json!({"client-certificate": "c.crt", "client-key": "/k", "tokenFile": "", "exec": {"command": "./login", "env": null}}),
    );
    let moved = Value::Object(user.moved_to(None));
    assert_eq!(moved["client-certificate"], "/home/a/.kube/c.crt");
    assert_eq!((&moved["client-key"], &moved["tokenFile"]), (&json!("/k"), &json!("")));
    assert_eq!(moved["exec"]["command"], "/home/a/.kube/login");
    let in_path = entry(List::Users, json!({"exec": {"command": "login"}})).moved_to(None);
    assert_eq!(in_path["exec"]["command"], "login");
}
