//! The APIService that makes kube-apiserver send requests to umbra, and the Service that it names.
//!
//! The reasons are those of `remote_available_controller.go` of kube-aggregator.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition, ServiceReference};
use kube::Api;
use kube::api::ListParams;

use super::asking::{Hub, Read};
use super::finding::Finding;

const API_SERVICE: &str = "api-service";
/// Its name.
pub(super) const NAME: &str = "v1alpha1.umbra.dev";
/// What installs everything.
pub(super) const APPLY: &str = "apply the manifests again (kubectl apply -k manifests/base, or helm upgrade)";

/// What there is to judge.
pub(super) struct Found {
    pub(super) service: Read<Service>,
    pub(super) slices: Read<Vec<EndpointSlice>>,
}

/// The Service that an APIService names, with defaults.
pub(super) fn reference(service: &ServiceReference) -> (&str, &str, i32) {
    let namespace = service.namespace.as_deref().unwrap_or(umbra_api::SYSTEM_NAMESPACE);
    (
        namespace,
        service.name.as_deref().unwrap_or("umbra"),
        service.port.unwrap_or(443),
    )
}

/// Reads the Service and its endpoints.
pub(super) async fn find(hub: &Hub, api_service: &Read<APIService>) -> Option<Found> {
    let Read::There(api_service) = api_service else {
        return None;
    };
    let (namespace, name, _) = reference(api_service.spec.as_ref()?.service.as_ref()?);
    let services: Api<Service> = Api::namespaced(hub.client.clone(), namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(hub.client.clone(), namespace);
    let parameters = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let (service, slices) = tokio::join!(hub.get(services, name), slices.list(&parameters));
    Some(Found {
        service,
        slices: Read::of(slices.map(|list| list.items)),
    })
}

/// What keeps kube-apiserver from reaching umbra, if anything does.
pub(super) fn judge(api_service: &Read<APIService>, found: Option<&Found>) -> Vec<Finding> {
    let api_service = match api_service.known(API_SERVICE, &format!("APIService {NAME}")) {
        Ok(Some(api_service)) => api_service,
        Ok(None) => {
            let message = format!("there is no APIService {NAME}: kube-apiserver sends nothing to umbra");
            return vec![Finding::wrong(
                API_SERVICE,
                message,
                "install umbra: kubectl apply -k manifests/base, or helm install",
            )];
        }
        Err(finding) => return vec![finding],
    };
    let Some(reference) = api_service.spec.as_ref().and_then(|spec| spec.service.as_ref()) else {
        let message = format!("APIService {NAME} names no Service: kube-apiserver serves the group itself, by a CRD");
        let advice = format!("delete the CustomResourceDefinitions of umbra.dev, and {APPLY}");
        return vec![Finding::wrong(API_SERVICE, message, advice)];
    };
    let conditions = api_service
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let available = conditions.and_then(|all| all.iter().find(|one| one.type_ == "Available"));
    let mut findings = vec![availability(available, reference)];
    let said = available.and_then(|one| one.reason.as_deref()).unwrap_or_default();
    // What kube-apiserver has said of the Service is not said twice.
    if let Some(found) = found.filter(|_| !said.starts_with("Service") && !said.contains("Endpoints")) {
        findings.push(endpoints(found, reference));
    }
    findings
}

/// Whether kube-apiserver reaches umbra.
pub(super) fn is_available(api_service: &Read<APIService>) -> bool {
    let Read::There(api_service) = api_service else {
        return false;
    };
    let conditions = api_service
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|one| one.type_ == "Available" && one.status == "True")
}

fn availability(available: Option<&APIServiceCondition>, service: &ServiceReference) -> Finding {
    let Some(available) = available else {
        return Finding::warning(
            API_SERVICE,
            format!("kube-apiserver has not looked at APIService {NAME} yet"),
            "wait a moment; if it stays so, look at the log of kube-apiserver",
        );
    };
    if available.status == "True" {
        return Finding::ok(
            API_SERVICE,
            format!("{NAME} is Available: kube-apiserver reaches umbra"),
        );
    }
    let (reason, said) = (
        available.reason.as_deref().unwrap_or("no reason"),
        available.message.as_deref().unwrap_or_default(),
    );
    let message = format!("{NAME} is not Available ({reason}): {said}");
    Finding::wrong(API_SERVICE, message, advice(reason, said, service))
}

/// What to do, by the reason that kube-apiserver gives.
fn advice(reason: &str, said: &str, service: &ServiceReference) -> String {
    let (namespace, name, port) = reference(service);
    match reason {
        "ServiceNotFound" => APPLY.to_owned(),
        "ServicePortError" => format!("let Service {namespace}/{name} have the port {port}, or APIService {NAME} name another one; {APPLY}"),
        "EndpointsNotFound" | "MissingEndpoints" => format!(
            "no pod of umbra is ready: see below, or kubectl -n {namespace} get pods; the selector of Service {name} has to match them"
        ),
        "ServiceAccessError" | "EndpointsAccessError" => {
            "look at the log of kube-apiserver, which cannot read its own objects".to_owned()
        }
        _ if said.contains("x509") || said.contains("certificate") => format!(
            "the caBundle of APIService {NAME} has to be that of the serving certificate. Umbra writes it itself where it may: see \
             certificates and rbac"
        ),
        _ if said.contains("refused") || said.contains("timeout") || said.contains("deadline") || said.contains("no route") => format!(
            "let kube-apiserver reach the pods behind Service {namespace}/{name}: firewalls and network policies have to let it to the \
             target port; or set hostNetwork where kube-apiserver is outside the pod network"
        ),
        _ if said.contains("401") || said.contains("403") => {
            "umbra does not know kube-apiserver as its front proxy: see front-proxy, and restart umbra if that was changed".to_owned()
        }
        _ => format!("look at umbra's log: kubectl -n {namespace} logs -l {}", super::asking::SELECTOR),
    }
}

/// Where the Service leads.
fn endpoints(found: &Found, reference_: &ServiceReference) -> Finding {
    const ENDPOINTS: &str = "endpoints";
    let (namespace, name, _) = reference(reference_);
    let service = match found.service.known(ENDPOINTS, &format!("Service {namespace}/{name}")) {
        Ok(Some(service)) => service,
        Ok(None) => return Finding::wrong(ENDPOINTS, format!("there is no Service {namespace}/{name}"), APPLY),
        Err(finding) => return finding,
    };
    let spec = service.spec.clone().unwrap_or_default();
    if let Some(external) = spec
        .external_name
        .filter(|_| spec.type_.as_deref() == Some("ExternalName"))
    {
        return Finding::ok(ENDPOINTS, format!("Service {namespace}/{name} leads to {external}"));
    }
    let slices = match found
        .slices
        .known(ENDPOINTS, &format!("the endpoints of Service {namespace}/{name}"))
    {
        Ok(slices) => slices.map(Vec::as_slice).unwrap_or_default(),
        Err(finding) => return finding,
    };
    let all: Vec<bool> = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        // Unset means ready (EndpointConditions).
        .map(|endpoint| endpoint.conditions.as_ref().and_then(|one| one.ready).unwrap_or(true))
        .collect();
    let ready = all.iter().filter(|ready| **ready).count();
    let message = format!(
        "Service {namespace}/{name} has {ready} ready endpoints of {}",
        all.len()
    );
    match ready {
        0 => Finding::wrong(
            ENDPOINTS,
            message,
            format!("see deployment, or kubectl -n {namespace} get pods"),
        ),
        ready if ready < all.len() => Finding::warning(ENDPOINTS, message, "see deployment and store"),
        _ => Finding::ok(ENDPOINTS, message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::{Level, levels};
    use super::*;

    fn service(status: &str, reason: &str, message: &str) -> Read<APIService> {
        Read::There(
            serde_json::from_value(json!({
                "metadata": {"name": NAME},
                "spec": {"groupPriorityMinimum": 1, "versionPriority": 1, "service": {"namespace": "umbra-system", "name": "umbra"}},
                "status": {"conditions": [{"type": "Available", "status": status, "reason": reason, "message": message}]},
            }))
            .unwrap(),
        )
    }

    fn found(ready: &[Option<bool>]) -> Found {
        let endpoints: Vec<_> = ready
            .iter()
            .map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}))
            .collect();
        Found {
            service: Read::There(serde_json::from_value(json!({"spec": {"type": "ClusterIP"}})).unwrap()),
            slices: Read::There(vec![
                serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints})).unwrap(),
            ]),
        }
    }

    #[test]
    fn every_reason_of_kube_apiserver_has_its_advice() {
        for (reason, message, part) in [
            ("ServiceNotFound", "", "apply the manifests"),
            ("ServicePortError", "", "port 443"),
            ("MissingEndpoints", "", "get pods"),
            ("EndpointsNotFound", "", "get pods"),
            (
                "FailedDiscoveryCheck",
                "x509: certificate signed by unknown authority",
                "caBundle",
            ),
            (
                "FailedDiscoveryCheck",
                "dial tcp 10.0.0.1:443: connect: connection refused",
                "firewalls",
            ),
            (
                "FailedDiscoveryCheck",
                "bad status from https://10.0.0.1: 401",
                "front proxy",
            ),
            ("FailedDiscoveryCheck", "bad status: 500", "logs -l"),
        ] {
            let findings = judge(&service("False", reason, message), None);
            assert_eq!(levels(&findings), [Level::Wrong]);
            let advice = findings[0].advice.clone().unwrap();
            assert!(advice.contains(part), "{reason} {message}: {advice}");
        }
    }

    #[test]
    fn endpoints_are_counted_unless_they_have_been_complained_of() {
        let good = service("True", "Passed", "");
        assert!(is_available(&good) && !is_available(&Read::Missing));
        let levels = |api: &Read<APIService>, ready: &[Option<bool>]| levels(&judge(api, Some(&found(ready))));
        assert_eq!(levels(&good, &[Some(true), None]), [Level::Ok, Level::Ok]);
        assert_eq!(levels(&good, &[Some(true), Some(false)]), [Level::Ok, Level::Warning]);
        assert_eq!(levels(&good, &[]), [Level::Ok, Level::Wrong]);
        assert_eq!(levels(&service("False", "MissingEndpoints", ""), &[]), [Level::Wrong]);
    }

    #[test]
    fn what_is_missing_or_hidden_is_told_apart() {
        assert_eq!(levels(&judge(&Read::Missing, None)), [Level::Wrong]);
        assert_eq!(
            levels(&judge(&Read::Unknown("no".to_owned()), None)),
            [Level::NotChecked]
        );
        let local = serde_json::from_value(json!({"spec": {"groupPriorityMinimum": 1, "versionPriority": 1}})).unwrap();
        let findings = judge(&Read::There(local), None);
        assert!(findings[0].message.contains("CRD"), "{findings:?}");
    }
}
