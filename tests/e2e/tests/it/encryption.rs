//! Encryption at rest: what is in the files of a hub, and how keys change.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::{self, Hub};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::fleet::{placement, wait_for_condition};
use crate::namespace_everywhere;

/// Two secrets of 32 bytes.
const SECRETS: [&str; 2] = [
    "b25lLW9uZS1vbmUtb25lLW9uZS1vbmUtb25lLW9uZS0=",
    "dHdvLXR3by10d28tdHdvLXR3by10d28tdHdvLXR3by0=",
];

/// The files below a folder that contain a text, as it is or in base64 at any place of a longer one.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut needles = vec![text.as_bytes().to_vec()];
    for skipped in 0..3 {
        // What surrounds the text decides on the first and the last characters, so only those in between are looked for.
        let encoded = BASE64.encode(&text.as_bytes()[skipped..]);
        let whole = (text.len() - skipped) / 3 * 4;
        needles.push(encoded.as_bytes()[..whole].to_vec());
    }
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).expect("a readable file");
                if needles.iter().any(|needle| contains(&bytes, needle)) {
                    found.push(path);
                }
            }
        }
    }
    found
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|byte| *byte == first) {
        if rest[start..].starts_with(needle) {
            return true;
        }
        rest = &rest[start + 1..];
    }
    false
}

/// A text that is nowhere else.
fn unique(what: &str) -> String {
    let random: [u64; 2] =
        std::array::from_fn(|_| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), what));
    format!("{what}-{:016x}{:016x}", random[0], random[1])
}

fn secret(name: &str, text: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{password: {text}}}\n")
}

fn password(kubectl: &Kubectl, name: &str) -> String {
    let encoded = kubectl.path(["secret", name], "{.data.password}");
    String::from_utf8(BASE64.decode(&encoded).unwrap_or_else(|_| panic!("{encoded}"))).expect("text")
}

#[test]
fn secrets_are_nowhere_in_the_files_of_a_hub() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("storage.encryption");
    let namespace = "encrypted";
    namespace_everywhere(&world, namespace);
    let (on_hub, in_fleet, patched) = (unique("hub"), unique("fleet"), unique("patch"));
    let (plain, binary) = (unique("plain"), unique("binary"));

    let root = world.hub.root();
    root.apply(&secret("hidden", &on_hub));
    root.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: open}}\ndata: {{text: {plain}}}\nbinaryData: {{bytes: {}}}\n",
        BASE64.encode(&binary)
    ));
    let fleet = world.hub.fleet();
    fleet.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"
    ));
    let fleet = fleet.namespace(namespace);
    fleet.apply(&secret("placed", &in_fleet));
    fleet.apply(&format!(
        "apiVersion: umbra.dev/v1alpha1
kind: Override
metadata: {{name: password}}
spec:
  resources: [{{apiVersion: v1, kind: Secret}}]
  patches: [{{type: MergePatch, value: {{data: {{extra: {}}}}}}}]
",
        BASE64.encode(&patched)
    ));
    fleet.apply(&placement("secrets", "Secret", ""));
    wait_for_condition(&fleet, "placement secrets", "Applied", "True");
    for child in &world.children {
        assert_eq!(password(&child.kubectl().namespace(namespace), "placed"), in_fleet);
    }
    assert_eq!(password(&root, "hidden"), on_hub);

    let folder = world.hub.folder();
    for control in [&plain, &binary] {
        let found = files_with(folder, control);
        assert_eq!(found, [folder.join("store.redb")], "the search finds what is there");
    }
    for hidden in [&on_hub, &in_fleet, &patched] {
        assert_eq!(files_with(folder, hidden), Vec::<PathBuf>::new(), "{hidden}");
    }
    let mode = std::fs::metadata(folder.join("encryption.yaml")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    root.ok("delete secret/hidden configmap/open");
    fleet.ok("delete placement/secrets override/password secret/placed");
    item.pass("a Secret of the hub, one of a fleet with its renderings, and a patch are in no file; a ConfigMap is");
}

/// A configuration of encryption for Secrets; `identity` is plain.
fn configuration(providers: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n".to_owned();
    for (name, secret) in providers {
        text.push_str(&if *name == "identity" {
            "  - identity: {}\n".to_owned()
        } else {
            format!("  - aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}\n")
        });
    }
    text
}

#[test]
fn keys_change_without_losing_a_secret() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let item = Item::open("storage.rotation");
    let path = environment::folder("keys").join("encryption.yaml");
    let file = path.to_string_lossy().into_owned();
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let [one, two] = [("one", SECRETS[0]), ("two", SECRETS[1])];
    let identity = ("identity", "");
    let text = unique("rotated");

    // Plain at first: what the search looks for later can be found.
    write(&configuration(&[identity]));
    // States are kept for a second, so that nobody waits for ten minutes until a key can go.
    let flags = ["--encryption-provider-config", &file, "--history", "1s"];
    let hub = Hub::start(programs, &flags);
    hub.root().apply(&secret("db", &text));
    assert_eq!(files_with(hub.folder(), &text), [hub.folder().join("store.redb")]);

    let restart = |hub: &Hub, providers: &[(&str, &str)]| {
        let (status, process) = hub.stop();
        assert!(status.success(), "{}", process.output());
        write(&configuration(providers));
        hub.start_again();
        assert_eq!(password(&hub.root(), "db"), text);
    };
    let says = |hub: &Hub, words: &str| {
        wait::for_text(words, || hub.output(), |output| output.contains(words));
    };
    restart(&hub, &[one, identity]);
    says(&hub, "1 values were rewritten");
    // It is plain nowhere any more that can be read: without `identity`, plain values are refused.
    restart(&hub, &[one]);
    restart(&hub, &[two, one]);
    says(&hub, "the key one is not needed any more and can be removed from");
    restart(&hub, &[two]);

    let refused = |hub: &Hub, text: &str, words: &[&str]| {
        write(text);
        let mut command = hub::umbra(programs);
        command
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(hub.folder())
            .args(flags);
        let error = Outcome::of(command, "").expect_failure();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    };
    let (status, process) = hub.stop();
    assert!(status.success(), "{}", process.output());
    let missing = ["\"two\"", "not configured", "configured: one", &file, "Add the key"];
    refused(&hub, &configuration(&[one, identity]), &missing);
    let wrong = ["the secret of the key \"two\" is not the one", &file, "backup"];
    refused(&hub, &configuration(&[("two", SECRETS[0])]), &wrong);
    let faulty =
        "apiVersion: v1\nkind: EncryptionConfiguration\nresources:\n- resources: [Secrets]\n  providers: [kms: {}]\n";
    let faults = [
        "--encryption-provider-config",
        "line 1, column 13",
        "line 4, column 15",
        "line 5, column 15",
    ];
    refused(&hub, faulty, &faults);

    write(&configuration(&[two]));
    hub.start_again();
    assert_eq!(password(&hub.root(), "db"), text);
    item.pass(
        "plain, key one, key two; one was told to be free; a missing and a wrong key are refused with what to do",
    );
}
