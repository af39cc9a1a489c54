//! Connections and streams: `log`, `exec`, `attach`, `portforward`, `proxy`. The name in the path becomes the child's, and
//! everything else travels as it came.

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
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
        let target = self.target_of_connection(context).await?;
        self.demand(context, &info.verb, &info.subresource, info.namespace(), &target.name)
            .await?;
        let reads_log = info.subresource == "log" && info.verb == "get";
        if !reads_log && self.services.is_read_only(&target.cluster) {
            return Err(read_only(&target.cluster));
        }
        let child = self.services.child(&target.cluster)?;
        let uri = rename(request.uri(), info, &target.name)
            .ok_or_else(|| Status::bad_request("the path of the request cannot be sent on"))?;
        *request.uri_mut() = uri;
        let options = ProxyOptions {
            prefix: context.prefix.to_string(),
        };
        proxy::forward(&child, request, &context.user, &options)
            .await
            .map_err(|error| self.qualified_status(child_status_in_view(&error), &target))
    }

    async fn target_of_connection(&self, context: &RequestContext) -> Result<Target, Status> {
        let info = &context.info;
        match with_port(&info.name).filter(|_| info.subresource == "proxy") {
            Some((name, cluster)) => self.target(cluster, &name),
            None => self.resolve(context, info.namespace(), &info.name).await,
        }
    }
}

/// A name with a port, as proxies have it: `https:web@east:443` is `https:web:443` of east.
fn with_port(name: &str) -> Option<(String, &str)> {
    let (before, after) = name.rsplit_once('@')?;
    let (cluster, port) = after.split_once(':')?;
    QualifiedName::parse(&name[..name.len() - port.len() - 1])?;
    Some((format!("{before}:{port}"), cluster))
}

/// The same URI with another name in the place of the object's. What follows the name is not touched.
fn rename(uri: &Uri, info: &RequestInfo, name: &str) -> Option<Uri> {
    let path = uri.path();
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
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let renamed = format!("{}{}{}{query}", &path[..start], escape(name), &path[end..]);
    PathAndQuery::try_from(renamed).ok().map(Uri::from)
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
    fn ports_stay_with_the_name() {
        assert_eq!(
            with_port("https:web@east:443"),
            Some(("https:web:443".to_owned(), "east"))
        );
        assert_eq!(with_port("web@east"), None);
        assert_eq!(with_port("https:web:443"), None);
    }
}
