//! Connections and streams: `log`, `exec`, `attach`, `portforward`, `proxy`. The name in the path becomes the child's, and
//! everything else travels as it came.
//!
//! Redirects through a `proxy` name the object as the child knows it: kube-apiserver's own from `…/proxy` to `…/proxy/`, and
//! those of the program behind it, below which kube-apiserver puts them (`Transport.rewriteURL` of
//! `k8s.io/apimachinery/pkg/util/proxy`). In the view they get the cluster, or they would lead nowhere, or to an object of
//! another cluster.

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_child::proxy::{self, ProxyOptions};

use super::exchange::escape;
use super::resource::ViewResource;
use super::target::Target;
use crate::child_errors::{child_status_in_view, read_only};
use crate::request::RequestContext;
use crate::resource::Body;

impl ViewResource {
    /// Sends a connection on to the cluster that the name says.
    pub(super) async fn connect_through(
        &self,
        context: &RequestContext,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let info = &context.info;
        let (target, name) = self.target_of_connection(context).await?;
        self.demand(context, &info.verb, &info.subresource, info.namespace(), &name)
            .await?;
        let reads_log = info.subresource == "log" && info.verb == "get";
        if !reads_log && self.services.is_read_only(&target.cluster) {
            return Err(read_only(&target.cluster));
        }
        let child = self.services.child(&target.cluster)?;
        let uri = rename(request.uri(), info, &name)
            .ok_or_else(|| Status::bad_request("the path of the request cannot be sent on"))?;
        *request.uri_mut() = uri;
        let options = ProxyOptions {
            prefix: context.prefix.to_string(),
        };
        let mut response = proxy::forward(&child, request, &context.user, &options)
            .await
            .map_err(|error| self.qualified_status(child_status_in_view(&error), &target))?;
        if let Some(location) = qualified_location(&response, &context.prefix, &target.cluster) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    /// What the connection is to, and how the path of the child says it.
    async fn target_of_connection(&self, context: &RequestContext) -> Result<(Target, String), Status> {
        let info = &context.info;
        // The last `@` splits, whether the port is before it or after: `web:80@east`, `web@east:80`.
        let qualified = QualifiedName::parse(&info.name).filter(|named| !named.cluster.contains(':'));
        let text = qualified.map_or(info.name.as_str(), |named| named.name);
        let Some(proxied) = ProxyName::parse(text).filter(|_| info.subresource == "proxy") else {
            let target = self.resolve(context, info.namespace(), &info.name).await?;
            let name = target.name.clone();
            return Ok((target, name));
        };
        let target = match qualified {
            Some(named) => self.target(named.cluster, proxied.name)?,
            None => self.resolve(context, info.namespace(), proxied.name).await?,
        };
        let name = proxied.of(&target.name);
        Ok((target, name))
    }
}

/// A name with a scheme and a port, as proxies have it (`SplitSchemeNamePort` of `k8s.io/apimachinery/pkg/util/net`):
/// `https:web@east:443` is `https:web:443` of east.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProxyName<'a> {
    scheme: Option<&'a str>,
    name: &'a str,
    port: Option<&'a str>,
}

impl<'a> ProxyName<'a> {
    /// `None` for what kube-apiserver does not take.
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => (None, *name, None),
            [name, port] => (None, *name, Some(*port)),
            [scheme @ ("" | "http" | "https"), name, port] => (Some(*scheme), *name, Some(*port)),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }

    /// The same scheme and port of another name.
    fn of(self, name: &str) -> String {
        let scheme = self.scheme.map(|scheme| format!("{scheme}:")).unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}{name}{port}")
    }
}

/// Where a redirect of a cluster leads in the view; `None` where that needs no change.
fn qualified_location(response: &Response<Body>, prefix: &str, cluster: &str) -> Option<HeaderValue> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let below = location.strip_prefix(prefix)?;
    let (path, rest) = below.split_at(below.find(['?', '#']).unwrap_or(below.len()));
    let info = RequestInfo::parse("GET", path, "");
    if info.subresource != "proxy" {
        return None;
    }
    let proxied = ProxyName::parse(&info.name).filter(|proxied| QualifiedName::parse(proxied.name).is_none())?;
    let name = proxied.name;
    let qualified = proxied.of(&QualifiedName { name, cluster }.to_string());
    let path = with_name(path, &info, &qualified)?;
    HeaderValue::try_from(format!("{prefix}{path}{rest}")).ok()
}

/// The same URI with another name in the place of the object's. What follows the name is not touched.
fn rename(uri: &Uri, info: &RequestInfo, name: &str) -> Option<Uri> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let renamed = format!("{}{query}", with_name(uri.path(), info, name)?);
    PathAndQuery::try_from(renamed).ok().map(Uri::from)
}

/// The same path with another name in the place of the object's.
fn with_name(path: &str, info: &RequestInfo, name: &str) -> Option<String> {
    // api/v1 or apis/group/version, then the namespace, then the resource.
    let before = if info.group.is_empty() { 2 } else { 3 } + if info.namespace().is_some() { 2 } else { 0 } + 1;
    let mut seen = 0;
    let mut start = None;
    let mut offset = 0;
    for segment in path.split('/') {
        if !segment.is_empty() {
            if seen == before {
                start = Some((offset, offset + segment.len()));
                break;
            }
            seen += 1;
        }
        offset += segment.len() + 1;
    }
    let (start, end) = start?;
    Some(format!("{}{}{}", &path[..start], escape(name), &path[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_changes() {
        for (path, name, wanted) in [
            (
                "/api/v1/namespaces/shop/pods/web-1%40east/exec?command=ls&command=a%20b",
                "web-1",
                "/api/v1/namespaces/shop/pods/web-1/exec?command=ls&command=a%20b",
            ),
            (
                "/api/v1/namespaces/a@b/services/x@east/proxy/a%2Fb//c@d",
                "x",
                "/api/v1/namespaces/a@b/services/x/proxy/a%2Fb//c@d",
            ),
            ("/api/v1/nodes/n1@east/proxy/logs", "n1", "/api/v1/nodes/n1/proxy/logs"),
            ("/apis/g/v1//things/t@e/log", "t", "/apis/g/v1//things/t/log"),
        ] {
            let uri: Uri = path.parse().unwrap();
            let info = RequestInfo::parse("GET", uri.path(), "");
            assert_eq!(rename(&uri, &info, name).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn schemes_and_ports_stay_with_the_name() {
        for (text, name) in [
            ("web@east", "web@east"),
            ("web", "web"),
            ("web@east:80", "web@east"),
            ("https:web@east:443", "web@east"),
            ("http:web:", "web"),
            (":web:http", "web"),
        ] {
            let parsed = ProxyName::parse(text).unwrap();
            assert_eq!((parsed.name, parsed.of(name).as_str()), (name, text));
        }
        for text in ["", ":80", "ftp:web:21", "https:web:443:x"] {
            assert_eq!(ProxyName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn redirects_stay_in_the_cluster() {
        const SHOP: &str = "/api/v1/namespaces/shop";
        let located = |location: &str| {
            let response = Response::builder().status(301).header(LOCATION, location);
            let response = response.body(umbra_child::empty()).unwrap();
            let location = qualified_location(&response, "/root", "east");
            location.map(|location| location.to_str().unwrap().to_owned())
        };
        for (location, wanted) in [
            ("services/web/proxy/", "services/web@east/proxy/"),
            (
                "services/https:web:443/proxy/a/web?b=/c#d",
                "services/https:web@east:443/proxy/a/web?b=/c#d",
            ),
            ("pods/other:80/proxy", "pods/other@east:80/proxy"),
        ] {
            let wanted = Some(format!("/root{SHOP}/{wanted}"));
            assert_eq!(located(&format!("/root{SHOP}/{location}")), wanted);
        }
        let node = located("/root/api/v1/nodes/n1/proxy/logs/");
        assert_eq!(node.as_deref(), Some("/root/api/v1/nodes/n1@east/proxy/logs/"));
        for unchanged in [
            "/root/api/v1/namespaces/shop/services/web@west/proxy/",
            "/root/api/v1/namespaces/shop/services/web",
            "/root/api/v1/namespaces/shop/services/a:b:c:d/proxy/",
            "/elsewhere/api/v1/namespaces/shop/services/web/proxy/",
            "https://example.com/root/api/v1/namespaces/shop/services/web/proxy/",
            "relative",
            "/root",
        ] {
            assert_eq!(located(unchanged), None, "{unchanged}");
        }
    }
}
