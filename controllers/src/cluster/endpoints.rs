//! Further endpoints of a cluster: `spec.connection.endpoints`.
//!
//! A credential goes only to servers it was stored for. An endpoint is one of these where the kubeconfig that has the credential
//! names it, as `server` of any of its `clusters`, or where it proves to be the same server: by a certificate for the same name,
//! of the same certificate authority. The platform's roots are no such authority, because they sign for everybody.

use umbra_child::kubeconfig::{Kubeconfig, Selected};
use umbra_child::{ChildConfig, Endpoint};
use url::Url;

/// The endpoints that `urls` name, in their order.
///
/// # Errors
/// A message that says which of them cannot be used, and why.
pub(super) fn alternatives(
    urls: &[String],
    (kubeconfig, selected): (&Kubeconfig, &Selected<'_>),
    stored: &ChildConfig,
    proxy: Option<&Url>,
) -> Result<Vec<Endpoint>, String> {
    let endpoint = |url: &String| {
        let server: Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let same = |one: &&umbra_child::kubeconfig::NamedCluster| {
            one.cluster.server.trim_end_matches('/') == url.trim_end_matches('/')
        };
        match kubeconfig.clusters.iter().find(same) {
            Some(entry) => named(server, entry, selected),
            None => same_server(server, stored, proxy),
        }
        .map_err(|message| format!("{url}: {message}"))
    };
    urls.iter().map(endpoint).collect()
}

/// One that the kubeconfig names, and trusts as that entry says.
fn named(
    server: Url,
    entry: &umbra_child::kubeconfig::NamedCluster,
    selected: &Selected<'_>,
) -> Result<Endpoint, String> {
    let selected = Selected {
        cluster_name: &entry.name,
        cluster: &entry.cluster,
        ..*selected
    };
    let file = entry.cluster.certificate_authority.as_deref().unwrap_or_default();
    if !file.is_empty() {
        return Err(
            "its certificate-authority is a file, which the hub does not read; use certificate-authority-data".into(),
        );
    }
    Ok(Endpoint {
        server,
        certificate_authority: selected.certificate_authority().map_err(|error| error.to_string())?,
        tls_server_name: entry.cluster.tls_server_name.clone().filter(|name| !name.is_empty()),
        insecure_skip_tls_verify: entry.cluster.insecure_skip_tls_verify,
        proxy_url: selected.proxy_url().map_err(|error| error.to_string())?,
    })
}

/// One that has to prove that it is the server of the kubeconfig.
fn same_server(server: Url, stored: &ChildConfig, proxy: Option<&Url>) -> Result<Endpoint, String> {
    let Some(authority) = stored
        .certificate_authority
        .clone()
        .filter(|_| !stored.insecure_skip_tls_verify)
    else {
        return Err(
            "the stored kubeconfig does not name this server, and has no certificate authority that would prove that it is the \
             same one; add it to the clusters of the kubeconfig"
                .into(),
        );
    };
    let host = || {
        stored
            .server
            .host_str()
            .map(|host| host.trim_matches(['[', ']']).to_owned())
    };
    Ok(Endpoint {
        server,
        certificate_authority: Some(authority),
        tls_server_name: stored.tls_server_name.clone().or_else(host),
        insecure_skip_tls_verify: false,
        proxy_url: proxy.cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

    fn endpoints(first: &serde_json::Value, urls: &[&str]) -> Result<Vec<Endpoint>, String> {
        use base64::Engine as _;
        let text = json!({"clusters": [
                {"name": "a", "cluster": first},
                {"name": "b", "cluster": {"server": "https://b.test:6443/", "tls-server-name": "inner.test",
                    "proxy-url": "socks5://p.test:1080"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "a", "user": "u"}}], "current-context": "x"});
        let text = text
            .to_string()
            .replace("PEM", &base64::engine::general_purpose::STANDARD.encode(PEM));
        let kubeconfig = Kubeconfig::parse(&text, "test").unwrap();
        let stored = ChildConfig::from_kubeconfig("east", &kubeconfig, None).unwrap();
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let selected = kubeconfig.select(None).unwrap();
        alternatives(&urls, (&kubeconfig, &selected), &stored, None)
    }

    #[test]
    fn an_endpoint_of_the_kubeconfig_is_trusted_as_it_says() {
        let found = endpoints(&json!({"server": "https://a.test"}), &["https://b.test:6443"]).unwrap();
        assert_eq!(found[0].tls_server_name.as_deref(), Some("inner.test"));
        assert_eq!(
            found[0].proxy_url.as_ref().map(Url::as_str),
            Some("socks5://p.test:1080")
        );
    }

    #[test]
    fn any_other_has_to_prove_that_it_is_the_same_server() {
        let private = json!({"server": "https://a.test", "certificate-authority-data": "PEM"});
        let found = endpoints(&private, &["https://10.0.0.2:6443"]).unwrap();
        assert_eq!(found[0].tls_server_name.as_deref(), Some("a.test"));
        assert_eq!(found[0].certificate_authority.as_deref(), Some(PEM.as_bytes()));
        for open in [
            json!({"server": "https://a.test"}),
            json!({"server": "https://a.test", "insecure-skip-tls-verify": true}),
        ] {
            let refused = endpoints(&open, &["https://evil.test"]).unwrap_err();
            assert!(refused.contains("https://evil.test: "), "{refused}");
        }
        assert!(endpoints(&json!({"server": "https://a.test"}), &["b.test"]).is_err());
    }
}
