//! The objects of fleets in the cluster, taken out by whoever leaves: each only where it is that of its rendering.

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use umbra_api::rendering::Rendering;
use umbra_child::{Child, ChildError};
use umbra_controllers::fleet::leaving::{has_object, is_ours, unmark, why_kept};

use super::report::{Cleaned, Kept};
use crate::join::child::{get, is_segment};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Objects that are taken out at a time, as the hub does.
const AT_ONCE: usize = 8;

/// An object of the cluster.
#[derive(Debug)]
pub(super) struct Target<'a> {
    rendering: &'a Rendering,
    path: String,
}

/// What has become of one.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// It is not there, or is somebody else's.
    Nothing,
    Deleted,
    Released,
}

impl<'a> Target<'a> {
    /// The object of a rendering; `None` where it has none.
    fn of(rendering: &'a Rendering) -> Option<Self> {
        let template = &rendering.spec.template;
        let (resource, _) = template.resource.split_once('.').unwrap_or((&template.resource, ""));
        let group_version = match template.api_version.contains('/') {
            true => format!("/apis/{}", template.api_version),
            false => format!("/api/{}", template.api_version),
        };
        let (namespace, name) = (template.namespace.as_str(), template.name.as_str());
        let sound = is_segment(name) && (namespace.is_empty() || is_segment(namespace));
        let path = match namespace {
            "" => format!("{group_version}/{resource}/{name}"),
            namespace => format!("{group_version}/namespaces/{namespace}/{resource}/{name}"),
        };
        (sound && has_object(rendering)).then_some(Self { rendering, path })
    }

    async fn take_out(&self, child: &Child) -> Result<Became, ChildError> {
        let live: Value = match get(child, &self.path).await {
            Err(error) if is_gone(&error) => return Ok(Became::Nothing),
            live => live?,
        };
        if !is_ours(self.rendering, &live) {
            return Ok(Became::Nothing);
        }
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
        let (sent, became) = match why_kept(self.rendering) {
            Some(_) => {
                let patch = unmark(uid).to_string();
                let sent = child.request_json(Method::PATCH, &self.path, MERGE_PATCH, patch).await;
                (sent, Became::Released)
            }
            None => {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
                    "preconditions": {"uid": uid}});
                let sent = child.request_json(Method::DELETE, &self.path, JSON, options.to_string());
                (sent.await, Became::Deleted)
            }
        };
        match sent {
            Err(error) if is_gone(&error) => Ok(Became::Nothing),
            sent => sent.map(|_| became),
        }
    }
}

/// Whether an object is not there, or another one by now.
fn is_gone(error: &ChildError) -> bool {
    matches!(error, ChildError::Status { code, .. } if matches!(code.as_u16(), 404 | 409))
}

/// Takes out what is the renderings', and writes down what became of each.
pub(super) async fn take_out(child: &Child, renderings: &[Rendering], cleaned: &mut Cleaned) {
    let targets = renderings.iter().filter_map(Target::of);
    let mut all = futures::stream::iter(targets)
        .map(|target| async move { (target.rendering, target.take_out(child).await) })
        .buffered(AT_ONCE);
    while let Some((rendering, became)) = all.next().await {
        record(rendering, became, cleaned);
    }
}

fn record(rendering: &Rendering, became: Result<Became, ChildError>, cleaned: &mut Cleaned) {
    let shown = shown(rendering);
    match (became, why_kept(rendering)) {
        (Ok(Became::Nothing), _) => {}
        (Ok(Became::Deleted), _) => cleaned.placed.push(shown),
        (Ok(Became::Released), why) => cleaned.keep(shown, why),
        (Err(error), None) => {
            let failed = Err::<(), _>(error).with_context(|| format!("{shown} cannot be deleted"));
            cleaned.failed.extend(failed.err());
            cleaned.remaining.push(command(rendering));
        }
        (Err(error), why) => {
            let failed = Err::<(), _>(error).with_context(|| format!("the label of {shown} cannot be removed"));
            cleaned.failed.extend(failed.err());
            cleaned.keep(shown, why);
        }
    }
}

/// Writes down what the hub's fleets have withdrawn.
pub(super) fn were_withdrawn(renderings: &[&Rendering], cleaned: &mut Cleaned) {
    for rendering in renderings.iter().filter(|one| was_placed(one)) {
        match why_kept(rendering) {
            None => cleaned.placed.push(shown(rendering)),
            why => cleaned.keep(shown(rendering), why),
        }
    }
}

/// Writes down what stays because nothing could be done about it.
pub(super) fn remain(renderings: &[Rendering], cleaned: &mut Cleaned) {
    let deletable = renderings
        .iter()
        .filter(|one| was_placed(one) && why_kept(one).is_none());
    cleaned.remaining.extend(deletable.map(command));
}

/// Whether an object of the cluster has been recorded for it.
fn was_placed(rendering: &Rendering) -> bool {
    rendering.status.as_ref().is_some_and(|status| !status.uid.is_empty())
}

fn shown(rendering: &Rendering) -> String {
    let template = &rendering.spec.template;
    match template.namespace.as_str() {
        "" => format!("{} {}", template.kind, template.name),
        namespace => format!("{} {namespace}/{}", template.kind, template.name),
    }
}

/// What deletes the object, for kubectl.
fn command(rendering: &Rendering) -> String {
    let template = &rendering.spec.template;
    let [resource, name, namespace] =
        [&template.resource, &template.name, &template.namespace].map(|one| shell_word(one));
    match template.namespace.as_str() {
        "" => format!("delete --ignore-not-found {resource} {name}"),
        _ => format!("delete --ignore-not-found -n {namespace} {resource} {name}"),
    }
}

/// A word as a shell reads it: whoever may make objects is not to choose what the administrator pastes.
fn shell_word(word: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-._:@".contains(one);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Cleaned {
    fn keep(&mut self, shown: String, why: Option<&'static str>) {
        let why = why.unwrap_or_default();
        self.kept.push(Kept { shown, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendering(changes: &Value) -> Rendering {
        let mut rendering = json!({"apiVersion": umbra_api::API_VERSION, "kind": "Rendering", "metadata": {"uid": "r1"},
            "spec": {"cluster": "edge", "object": {"kind": "Deployment"}, "template": {"apiVersion": "apps/v1",
                "kind": "Deployment", "resource": "deployments.apps", "namespace": "shop", "name": "web"}},
            "status": {"uid": "u1"}});
        umbra_apimachinery::patch::merge::apply(&mut rendering, changes);
        serde_json::from_value(rendering).unwrap()
    }

    fn path(changes: &Value) -> Option<String> {
        Target::of(&rendering(changes)).map(|target| target.path)
    }

    #[test]
    fn objects_are_found_where_they_were_placed() {
        let web = json!({});
        assert_eq!(
            path(&web).as_deref(),
            Some("/apis/apps/v1/namespaces/shop/deployments/web")
        );
        let shop = json!({"spec": {"template":
            {"apiVersion": "v1", "kind": "Namespace", "resource": "namespaces", "namespace": null, "name": "shop"}}});
        assert_eq!(path(&shop).as_deref(), Some("/api/v1/namespaces/shop"));
        for nothing in [
            json!({"spec": {"object": {"kind": null}}}),
            json!({"spec": {"template": {"name": "../../x"}}}),
            json!({"spec": {"template": {"namespace": "a?b"}}}),
        ] {
            assert_eq!(path(&nothing), None, "{nothing}");
        }
    }

    #[test]
    fn one_refusal_takes_nothing_from_the_lists() {
        let mut cleaned = Cleaned::default();
        let refused = || {
            Err(ChildError::Json {
                cluster: "edge".into(),
                source: serde_json::from_str::<Value>("{").unwrap_err(),
            })
        };
        let orphan = rendering(&json!({"spec": {"onRemove": "Orphan", "template": {"name": "kept"}}}));
        let odd = rendering(&json!({"spec": {"template": {"name": "x;y", "namespace": null}}}));
        record(&rendering(&json!({})), Ok(Became::Deleted), &mut cleaned);
        record(&odd, refused(), &mut cleaned);
        record(&orphan, Ok(Became::Released), &mut cleaned);
        record(&orphan, refused(), &mut cleaned);
        record(&rendering(&json!({})), Ok(Became::Nothing), &mut cleaned);
        assert_eq!(cleaned.placed, ["Deployment shop/web"]);
        assert_eq!(cleaned.remaining, ["delete --ignore-not-found deployments.apps 'x;y'"]);
        assert_eq!((cleaned.kept.len(), cleaned.failed.len()), (2, 2));

        // Of what the hub withdrew, only what was there.
        let (web, never) = (rendering(&json!({})), rendering(&json!({"status": {"uid": null}})));
        let mut cleaned = Cleaned::default();
        were_withdrawn(&[&web, &never, &orphan], &mut cleaned);
        assert_eq!((cleaned.placed.len(), cleaned.kept.len()), (1, 1));
        remain(&[web, never, orphan], &mut cleaned);
        assert_eq!(
            cleaned.remaining,
            ["delete --ignore-not-found -n shop deployments.apps web"]
        );
    }
}
