//! The keys that encrypt at rest, without which what is encrypted in etcd cannot be read.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;

use super::asking::Read;
use super::finding::Finding;

const ENCRYPTION: &str = "encryption";
/// The Secret with the keys.
pub(super) const SECRET: &str = "umbra-encryption";
/// The key of the Secret with the configuration.
const CONFIGURATION: &str = "encryption.yaml";
/// The flag, and the variable, that name a file instead.
const NAMED: [&str; 2] = ["--encryption-provider-config", "UMBRA_ENCRYPTION_PROVIDER_CONFIG"];

/// Whether the keys are where a replica looks for them when it starts; `answers` says whether one has started.
pub(super) fn judge(
    namespace: &str,
    secret: &Read<Secret>,
    deployments: &Read<Vec<Deployment>>,
    answers: bool,
) -> Finding {
    let restore = format!(
        "restore Secret {namespace}/{SECRET} from its backup before any replica is restarted: the replicas that run still have the keys, \
         one that starts would make others"
    );
    match secret.known(ENCRYPTION, &format!("Secret {namespace}/{SECRET}")) {
        Err(finding) => finding,
        Ok(Some(secret))
            if secret
                .data
                .as_ref()
                .is_some_and(|data| data.contains_key(CONFIGURATION)) =>
        {
            Finding::ok(
                ENCRYPTION,
                format!("the keys are in Secret {namespace}/{SECRET}; back it up with etcd"),
            )
        }
        Ok(Some(_)) => Finding::wrong(
            ENCRYPTION,
            format!("Secret {namespace}/{SECRET} has no key {CONFIGURATION}"),
            restore,
        ),
        Ok(None) if names_a_file(deployments) => Finding::ok(
            ENCRYPTION,
            "the keys are in the file of --encryption-provider-config; back it up with etcd",
        ),
        Ok(None) if !answers => Finding::warning(
            ENCRYPTION,
            format!("there is no Secret {namespace}/{SECRET}, and no umbra that would have made it"),
            "nothing to do at a first installation; where umbra has run on this etcd before, restore the Secret from its backup first",
        ),
        Ok(None) => Finding::wrong(
            ENCRYPTION,
            format!(
                "there is no Secret {namespace}/{SECRET}: a replica that starts cannot read what is encrypted in etcd"
            ),
            format!(
                "{restore}. Where the store is not etcd, or --encryption-provider-config is given, nothing is missing"
            ),
        ),
    }
}

fn names_a_file(deployments: &Read<Vec<Deployment>>) -> bool {
    let Read::There(deployments) = deployments else {
        return false;
    };
    let pods = deployments.iter().filter_map(|one| one.spec.template.spec.as_ref());
    pods.flat_map(|pod| &pod.containers).any(|container| {
        let words = container.args.iter().chain(&container.command).flatten();
        let variables = container.env.iter().flatten().map(|variable| &variable.name);
        words
            .chain(variables)
            .any(|word| NAMED.iter().any(|named| word.starts_with(named)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn keys_have_to_be_somewhere() {
        let none = Read::There(Vec::new());
        let secret = |value| Read::There(serde_json::from_value::<Secret>(value).unwrap());
        let level = |secret: &Read<Secret>| judge("n", secret, &none, true).level;
        assert_eq!(level(&secret(json!({"data": {"encryption.yaml": "eA=="}}))), Level::Ok);
        assert_eq!(level(&secret(json!({"data": {"other": "eA=="}}))), Level::Wrong);
        assert_eq!(level(&Read::Missing), Level::Wrong);
        assert_eq!(judge("n", &Read::Missing, &none, false).level, Level::Warning);
        assert_eq!(level(&Read::Unknown("no".to_owned())), Level::NotChecked);
        let deployment = serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": {"containers":
            [{"name": "umbra", "args": ["serve", "--encryption-provider-config=/etc/keys.yaml"]}]}}}}));
        assert_eq!(
            judge("n", &Read::Missing, &Read::There(vec![deployment.unwrap()]), true).level,
            Level::Ok
        );
    }
}
