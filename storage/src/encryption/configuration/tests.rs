use super::*;
use crate::encryption::StoredResource;

const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn faults(text: &str) -> Vec<String> {
    let error = EncryptionPolicy::parse(text).unwrap_err();
    error.0.iter().map(ToString::to_string).collect()
}

fn encrypts(policy: &EncryptionPolicy, resource: &str) -> bool {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    policy.encrypts(StoredResource { group, resource })
}

#[test]
fn a_generated_file_encrypts_secrets_and_what_may_hold_them() {
    let policy = EncryptionPolicy::parse(&generate("k1").unwrap()).unwrap();
    for resource in [
        "secrets",
        "renderings.umbra.dev",
        "overrides.umbra.dev",
        "clusteroverrides.umbra.dev",
    ] {
        assert!(encrypts(&policy, resource), "{resource}");
    }
    for resource in ["configmaps", "placements.umbra.dev", "secrets.example.com"] {
        assert!(!encrypts(&policy, resource), "{resource}");
    }
    assert_eq!(policy.keys().len(), 1);
    assert_ne!(generate("k1").unwrap(), generate("k1").unwrap());
}

#[test]
fn earlier_entries_win_and_the_first_provider_writes() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [events, renderings.umbra.dev]
  providers: [{{identity: {{}}}}]
- resources: [pods]
  providers:
  - identity: {{}}
  - aesgcm: {{keys: [{{name: old, secret: {SECRET}}}]}}
- resources: ['*.']
  providers:
  - aesgcm: {{keys: [{{name: new, secret: {SECRET}}}, {{name: old, secret: {SECRET}}}]}}
"
    );
    let policy = EncryptionPolicy::parse(&text).unwrap();
    for (resource, expected) in [
        ("events", false),
        ("pods", false),
        ("secrets", true),
        ("renderings.umbra.dev", false),
        ("overrides.umbra.dev", true),
        ("deployments.apps", false),
    ] {
        assert_eq!(encrypts(&policy, resource), expected, "{resource}");
    }
    let names: Vec<&str> = policy.writing_keys().map(|key| &**key.name()).collect();
    assert_eq!(names, ["new"]);
    assert_eq!(policy.keys().len(), 2, "a key is one key wherever it is written");
}

#[test]
fn json_is_yaml() {
    let text = format!(
        r#"{{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{{"resources":["*.*"],"providers":[{{"aesgcm":{{"keys":[{{"name":"a","secret":"{SECRET}"}}]}}}}]}}]}}"#
    );
    assert!(encrypts(
        &EncryptionPolicy::parse(&text).unwrap(),
        "widgets.example.com"
    ));
}

#[test]
fn all_faults_are_told_at_once_with_their_places() {
    let text = "apiVersion: v1
kind: EncryptionConfiguration
extra: 1
resources:
- resources: [Secrets, '*', pods, '*.']
  providers:
  - aescbc: {keys: []}
  - aesgcm:
      keys:
      - name: a:b
        secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
      - name: short
        secret: c2hvcnQ=
      - name: odd
        secret: '???'
      - secret: 7
  - identity: {a: b}
- providers: no
- resources: [pods]
  providers: []
- 5
";
    let expected = [
        (1, "apiVersion is \"apiserver.config.k8s.io/v1\""),
        (3, "no field \"extra\""),
        (5, "\"Secrets\" is no resource"),
        (5, "`*` is ambiguous"),
        (5, "\"*.\" is also meant by \"pods\""),
        (7, "\"aescbc\" is not supported"),
        (10, "\"a:b\""),
        (13, "32 are needed"),
        (15, "not in base64"),
        (16, "name is missing"),
        (16, "secret is a string, not a number"),
        (17, "identity has no settings"),
        (18, "resources needs at least one item"),
        (18, "providers is a list"),
        (19, "providers needs at least one item"),
        (19, "\"pods\" has no effect"),
        (21, "is a mapping, not a number"),
    ];
    let found = faults(text);
    let mut rest = found.iter();
    for (line, part) in expected {
        let place = format!("line {line}, ");
        assert!(
            rest.any(|fault| fault.starts_with(&place) && fault.contains(part)),
            "line {line}: {part} is not in\n{}",
            found.join("\n")
        );
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
    assert!(!found.join("").contains("MDEyMzQ"), "no secret is told");
}

#[test]
fn a_name_has_one_secret() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{{aesgcm: {{keys: [{{name: a, secret: {SECRET}}}]}}}}]
- resources: [pods]
  providers: [{{aesgcm: {{keys: [{{name: a, secret: {}}}]}}}}]
",
        SECRET.replace("MDEy", "MDAw")
    );
    assert_eq!(
        faults(&text),
        ["line 7, column 39: there are two keys \"a\" with different secrets"]
    );
}

#[test]
fn what_is_no_yaml_is_told_without_its_text() {
    let found = faults("resources: [\n  secret: abc }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!found[0].contains("abc"), "{found:?}");
    assert_eq!(faults("").len(), 1);
}
