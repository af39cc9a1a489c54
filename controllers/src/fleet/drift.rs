//! Whether the object that a cluster has is still what was applied.

use serde_json::Value;

/// Where an object of a cluster is not as it was asked for: JSON pointer, and what is there instead (`null` for nothing).
pub type Differences = Vec<(String, Value)>;

/// Where `live` is not as `desired` asks. Fields that `desired` does not have are the cluster's own affair, and of metadata
/// only labels and annotations are compared.
///
/// What a cluster writes in another way (`1000m` as `1`), or adds to a list, is a difference too. Such differences are
/// there right after applying and are no drift; whoever compares remembers them.
#[must_use]
pub fn differences(desired: &Value, live: &Value) -> Differences {
    let mut found = Vec::new();
    for (field, value) in desired.as_object().into_iter().flatten() {
        match field.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for map in ["labels", "annotations"] {
                    compare(
                        &value[map],
                        &live["metadata"][map],
                        &format!("/metadata/{map}"),
                        &mut found,
                    );
                }
            }
            _ => compare(value, &live[field], &format!("/{field}"), &mut found),
        }
    }
    found
}

fn compare(desired: &Value, live: &Value, pointer: &str, found: &mut Differences) {
    match (desired, live) {
        (Value::Null, _) => {}
        (Value::Object(desired), Value::Object(live)) => {
            for (field, value) in desired {
                let live = live.get(field).unwrap_or(&Value::Null);
                compare(value, live, &format!("{pointer}/{field}"), found);
            }
        }
        (Value::Object(desired), Value::Null) if desired.is_empty() => {}
        (Value::Array(desired), Value::Null) if desired.is_empty() => {}
        (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
            for (index, (desired, live)) in desired.iter().zip(live).enumerate() {
                compare(desired, live, &format!("{pointer}/{index}"), found);
            }
        }
        _ if desired == live => {}
        _ => found.push((pointer.to_owned(), live.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_asked_for_is_compared_and_nothing_else() {
        let desired = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 2, "list": [{"name": "a", "cpu": "1000m"}], "nothing": null, "empty": {}},
        });
        let mut live = json!({
            "metadata": {"name": "web@east", "uid": "u", "labels": {"app": "web", "more": "1"}},
            "spec": {"replicas": 2, "list": [{"name": "a", "cpu": "1000m", "default": true}], "defaulted": 1},
            "status": {"replicas": 2},
        });
        assert_eq!(differences(&desired, &live), []);
        live["spec"]["replicas"] = 5.into();
        live["spec"]["list"][0]["cpu"] = "1".into();
        live["metadata"]["labels"] = Value::Null;
        let expected = [
            ("/metadata/labels".to_owned(), Value::Null),
            ("/spec/list/0/cpu".to_owned(), json!("1")),
            ("/spec/replicas".to_owned(), json!(5)),
        ];
        assert_eq!(differences(&desired, &live), expected);
        live["spec"]["list"] = json!([]);
        assert!(differences(&desired, &live).contains(&("/spec/list".to_owned(), json!([]))));
    }
}
