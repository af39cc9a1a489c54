//! What the kinds of a cluster get that has a network, beyond what every store of them does.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};

use serde_json::{Value, json};
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Cause;
use umbra_registry::generic::StoreApi;
use umbra_registry::generic::strategy::Behavior;

/// The network of services, 10.96.0.0/16 (kubeadm's is larger). No packets go there.
const SERVICE_NETWORK: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const SERVICE_NETWORK_SIZE: u32 = 1 << 16;

/// Services, which get a cluster IP when they are made (`pkg/registry/core/service/storage/alloc.go`).
///
/// Deviation: two services that are made at the same moment may get the same address; only addresses that are stored are
/// known.
pub(crate) struct Services {
    pub(crate) inner: Arc<dyn Behavior>,
    pub(crate) api: Weak<StoreApi>,
}

impl Services {
    fn used(&self) -> HashSet<String> {
        let api = self.api.upgrade();
        let store = api.and_then(|api| api.store(&GroupVersion::new("", "v1").resource("services")));
        let Some(store) = store else { return HashSet::new() };
        let snapshot = store.cache().snapshot();
        let addresses = snapshot
            .iter()
            .filter_map(|service| service.fields.get("spec.clusterIP"));
        addresses.map(str::to_owned).collect()
    }

    fn free_address(&self) -> String {
        let used = self.used();
        let random = || {
            // Neither the network's own address, nor that of the API server, nor the last.
            let offset = rand::random_range(2..SERVICE_NETWORK_SIZE - 1);
            Ipv4Addr::from(SERVICE_NETWORK + offset).to_string()
        };
        // A hundred tries miss only where nearly all are in use; then one is shared.
        let mut candidates = std::iter::repeat_with(random).take(100);
        candidates
            .find(|address| !used.contains(address))
            .unwrap_or_else(random)
    }
}

impl Behavior for Services {
    fn set_defaults(&self, object: &mut Value) {
        self.inner.set_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        self.inner.prepare_for_create(object);
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        if spec["clusterIP"].as_str().unwrap_or_default().is_empty() {
            spec["clusterIP"] = self.free_address().into();
        }
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
        spec["ipFamilies"] = json!(["IPv4"]);
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        self.inner.prepare_for_update(object, old);
        // Who does not name the address keeps it.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if object["spec"][field].is_null()
                && !old["spec"][field].is_null()
                && object["spec"]["type"] != "ExternalName"
            {
                object["spec"][field] = old["spec"][field].clone();
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        self.inner.validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        self.inner.validate_update(object, old)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        self.inner.warnings(object)
    }
}

/// Pods, which run as the service account `default` where they name none (the admission plugin `ServiceAccount`).
pub(crate) struct Pods(pub(crate) Arc<dyn Behavior>);

impl Behavior for Pods {
    fn set_defaults(&self, object: &mut Value) {
        self.0.set_defaults(object);
        let spec = &mut object["spec"];
        if spec.is_object() && spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            spec["serviceAccountName"] = "default".into();
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        self.0.prepare_for_create(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        self.0.prepare_for_update(object, old);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        self.0.validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        self.0.validate_update(object, old)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        self.0.warnings(object)
    }
}
