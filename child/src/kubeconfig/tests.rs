use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{Authorization, Secret};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";

const TEXT: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: a
clusters:
- name: one
  cluster: {server: "https://one.example:6443/prefix", certificate-authority: pki/ca.crt}
- name: bad
  cluster: {server: "https://bad.example", certificate-authority-data: "%%%"}
users:
- name: jane
  user: {client-certificate: pki/jane.crt, client-key: pki/jane.key}
- name: token
  user: {token: 123456}
- name: old
  user: {auth-provider: {name: gcp, config: {a: b}}}
- name: plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: bin/login
      args: null
      env: [{name: A, value: b}]
      installHint: brew install login
      provideClusterInfo: true
      interactiveMode: IfAvailable
contexts:
- name: a
  context: {cluster: one, user: jane, namespace: shop}
- name: b
  context: {cluster: nowhere, user: jane}
- name: c
  context: {cluster: one, user: nobody}
- name: d
  context: {cluster: bad, user: token}
- name: e
  context: {cluster: one, user: old}
- name: f
  context: {cluster: one, user: plugin}
"#;

/// The kubeconfig above with its files, in a folder.
fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("pki")).expect("a folder");
    for (name, content) in [
        ("pki/ca.crt", PEM),
        ("pki/jane.crt", PEM),
        ("pki/jane.key", KEY),
        ("config", TEXT),
    ] {
        fs::write(folder.path().join(name), content).expect("written");
    }
    let path = folder.path().join("config");
    (folder, path)
}

fn error_of<T>(result: Result<T, KubeconfigError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn a_context_is_flattened() {
    let (folder, path) = written();
    let flat = Kubeconfig::load(&path)
        .expect("loaded")
        .flatten(None)
        .expect("flattened");
    drop(folder);
    let again = Kubeconfig::parse(&flat.to_yaml(), "flat").expect("parsed");
    assert_eq!(again, flat);
    assert_eq!(
        (again.clusters.len(), again.users.len(), again.contexts.len()),
        (1, 1, 1)
    );
    let selected = again.select(None).expect("selected");
    assert_eq!(selected.context.namespace.as_deref(), Some("shop"));
    assert_eq!(selected.server().expect("a URL").path(), "/prefix");
    assert_eq!(
        selected.certificate_authority().expect("read").expect("there"),
        PEM.as_bytes()
    );
    let certificate = selected
        .credentials()
        .expect("credentials")
        .certificate
        .expect("a certificate");
    assert_eq!((certificate.certificate.as_str(), certificate.key.expose()), (PEM, KEY));
}

#[test]
fn errors_say_what_to_do() {
    let (folder, path) = written();
    let config = Kubeconfig::load(&path).expect("loaded");
    assert_eq!(
        error_of(config.select(Some("z"))),
        "there is no context \"z\"; it has a, b, c, d, e, f"
    );
    assert!(error_of(config.select(Some("b"))).contains("names the cluster \"nowhere\""));
    assert!(error_of(config.select(Some("c"))).contains("names the user \"nobody\""));
    assert!(error_of(config.flatten(Some("d"))).contains("certificate-authority-data: not base64"));
    let old = config.select(Some("e")).expect("selected").credentials();
    assert!(error_of(old).contains("use an exec plugin"));
    fs::write(folder.path().join("pki/ca.crt"), "nonsense").expect("written");
    assert!(error_of(config.flatten(Some("a"))).contains("certificate-authority: not PEM"));
    fs::remove_file(folder.path().join("pki/ca.crt")).expect("removed");
    assert!(error_of(config.flatten(Some("a"))).contains("pki/ca.crt"));
    assert!(error_of(Kubeconfig::load(Path::new("/nonexistent/config"))).starts_with("/nonexistent/config: "));
    assert!(error_of(Kubeconfig::parse("clusters: 3", "x")).starts_with("x: not a kubeconfig"));
    assert!(error_of(Kubeconfig::default().select(None)).contains("no current-context"));
    assert!(error_of(Kubeconfig::load_all(&["/nonexistent/config".into()])).contains("looked for /nonexistent/config"));
}

#[test]
fn tokens_and_plugins_are_understood() {
    let (folder, path) = written();
    let config = Kubeconfig::load(&path).expect("loaded");
    let token = config
        .select(Some("d"))
        .expect("selected")
        .credentials()
        .expect("credentials");
    assert_eq!(token.authorization, Authorization::Token(Secret::new("123456")));
    let plugin = config
        .select(Some("f"))
        .expect("selected")
        .credentials()
        .expect("credentials");
    let Authorization::Exec(plugin) = plugin.authorization else {
        panic!("not a plugin")
    };
    assert_eq!(plugin.command, folder.path().join("bin/login").display().to_string());
    assert_eq!(plugin.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(
        plugin.cluster.expect("told")["server"],
        "https://one.example:6443/prefix"
    );
}

#[test]
fn of_several_files_the_first_wins() {
    let (folder, path) = written();
    let other = folder.path().join("other");
    fs::write(
        &other,
        "clusters:\n- {name: one, cluster: {server: 'https://two.example'}}\n- {name: two, cluster: {server: 'https://two.example'}}\nusers: null\ncurrent-context: z\n",
    )
    .expect("written");
    let paths = default_paths(
        Some(
            std::env::join_paths([&path, &folder.path().join("missing"), &other])
                .expect("a list")
                .as_os_str(),
        ),
        Some(Path::new("/home/x")),
    );
    let config = Kubeconfig::load_all(&paths).expect("loaded");
    assert_eq!(config.current_context, "a");
    assert_eq!(config.clusters.len(), 3);
    assert!(config.clusters[0].cluster.server.starts_with("https://one"));
    assert_eq!(
        default_paths(None, Some(Path::new("/home/x"))),
        [Path::new("/home/x/.kube/config")]
    );
}

#[test]
fn merging_keeps_what_it_does_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/config");
    let mut additions = Kubeconfig {
        clusters: vec![NamedCluster {
            name: "umbra".into(),
            cluster: Cluster {
                server: "https://hub.example".into(),
                ..Cluster::default()
            },
        }],
        current_context: "umbra".into(),
        ..Kubeconfig::default()
    };
    merge_into(&path, &additions).expect("created");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    fs::write(
        &path,
        "current-context: mine\nextensions: [{name: x, extension: {deep: [1, 'on', '007']}}]\nclusters:\n- {name: keep, cluster: {server: 'https://k', odd: true}}\n- {name: umbra, cluster: {server: 'https://stale'}}\n",
    )
    .expect("written");
    additions.current_context.clear();
    merge_into(&path, &additions).expect("merged");
    let text = fs::read_to_string(&path).expect("read");
    let value: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(
        value["extensions"][0]["extension"]["deep"],
        serde_json::json!([1, "on", "007"])
    );
    assert_eq!(value["clusters"][0]["cluster"]["odd"], true);
    assert_eq!(value["clusters"].as_array().map(Vec::len), Some(2));
    assert_eq!(value["clusters"][1]["cluster"]["server"], "https://hub.example");
    assert_eq!(value["current-context"], "mine");
    // Nothing is left behind, and a lock is respected.
    assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("read").count(), 1);
    fs::write(folder.path().join("new/config.lock"), "").expect("written");
    assert!(error_of(merge_into(&path, &additions)).contains("somebody else"));
}
