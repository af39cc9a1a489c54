//! Requests for resources: from path, query and body to one call of a [`Resource`], and from what it gives to an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::status::Status;
use umbra_registry::request::{PatchType, RequestContext};
use umbra_registry::resource::{Body, Resource, WriteOutcome, WriteRequest, WriteVerb};
use umbra_registry::root::Api;

use crate::body;
use crate::filters::{Connection, timed_out};
use crate::negotiation::{Transform, negotiate};
use crate::query::{IncludeObject, Query, check_delete_options};
use crate::representation::Representation;
use crate::respond::{JSON, full, json, success_code, with_type};
use crate::routes::method_not_allowed;
use crate::service::ApiServer;
use crate::watch::{self, EventEncoder};

/// Media types of patches, for messages.
const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Subresources that are connections or streams rather than objects.
const CONNECTIONS: [&str; 6] = ["attach", "exec", "log", "portforward", "proxy", "tunnel"];

/// Whether a subresource is a connection or a stream.
pub(crate) fn is_connection(subresource: &str) -> bool {
    CONNECTIONS.contains(&subresource)
}

/// Serves a request for a resource. The caller has been authorized.
///
/// # Errors
/// Whatever keeps the request from being served.
pub(crate) async fn serve(
    server: &ApiServer,
    api: &dyn Api,
    context: &RequestContext,
    request: Request<Body>,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let info = &context.info;
    if !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    ) {
        return Err(method_not_allowed());
    }
    if info.verb_is_in_path {
        return Err(Status::no_such_path());
    }
    let Some(resource) = api.resource(&info.group_version_resource()) else {
        return review_or_nothing(server, api, context, request).await;
    };
    check_path(context, resource.descriptor(), request.method())?;
    if is_connection(&info.subresource) {
        return resource.connect(context, request).await;
    }
    let representation = Representation {
        negotiated: negotiate(request.headers(), query)?,
        include: IncludeObject::Metadata,
        resource: Arc::clone(&resource),
    };
    let representation = with_table_options(representation, query)?;
    let namespace = info.namespace();
    match info.verb.as_str() {
        "get" => {
            let options = query.get_options()?;
            let object = resource
                .get(context, namespace, &info.name, &info.subresource, &options)
                .await?;
            representation.object(StatusCode::OK, &object)
        }
        "list" => {
            let options = query.list_options(false)?;
            let list = resource.list(context, namespace, &options).await?;
            representation.list(&resource.descriptor().group_version_kind(), list)
        }
        "watch" => {
            let connection = Connection::alone(&request);
            serve_watch(server, &*resource, context, query, representation, connection).await
        }
        _ => {
            let write = read_write(server, context, request, query).await?;
            if is_review(resource.descriptor())
                && let Some(answer) = api.review(context, &write.body).await
            {
                return Ok(json(StatusCode::CREATED, answer?));
            }
            let outcome = resource.write(context, write).await?;
            answer_write(&*resource, &representation, outcome)
        }
    }
}

fn with_table_options(mut representation: Representation, query: &Query) -> Result<Representation, Status> {
    if matches!(representation.negotiated.transform, Transform::Table(_)) {
        representation.include = query.include_object()?;
    }
    Ok(representation)
}

/// Whether the path makes sense for the resource and the verb is served.
fn check_path(context: &RequestContext, descriptor: &ResourceDescriptor, method: &Method) -> Result<(), Status> {
    let info = &context.info;
    let all_namespaces = descriptor.namespaced && info.namespace().is_none();
    if !descriptor.namespaced && info.namespace().is_some() {
        return Err(Status::no_such_path());
    }
    if info.subresource.is_empty() {
        if all_namespaces && !info.name.is_empty() {
            return Err(Status::no_such_path());
        }
        if all_namespaces && !matches!(*method, Method::GET | Method::HEAD) {
            return Err(method_not_allowed());
        }
        if matches!(info.verb.as_str(), "update" | "patch") && info.name.is_empty() {
            return Err(method_not_allowed());
        }
        if info.verb == "create" && !info.name.is_empty() {
            return Err(method_not_allowed());
        }
        if !descriptor.serves(&info.verb) {
            return Err(Status::method_not_supported(&descriptor.group_resource(), &info.verb));
        }
        return Ok(());
    }
    let subresource = descriptor.subresource(&info.subresource);
    let subresource = subresource
        .filter(|_| !all_namespaces)
        .ok_or_else(Status::no_such_path)?;
    if is_connection(&info.subresource) {
        return Ok(());
    }
    if !info.rest.is_empty() {
        return Err(Status::no_such_path());
    }
    if !subresource.verbs.iter().any(|verb| *verb == info.verb) {
        return Err(Status::method_not_supported(&descriptor.group_resource(), &info.verb));
    }
    Ok(())
}

/// Kinds that are created and answered but never stored can do nothing but be created.
fn is_review(descriptor: &ResourceDescriptor) -> bool {
    descriptor.verbs.len() == 1 && descriptor.serves("create")
}

async fn review_or_nothing(
    server: &ApiServer,
    api: &dyn Api,
    context: &RequestContext,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    if request.method() != Method::POST {
        return Err(Status::no_such_path());
    }
    let (parts, body) = request.into_parts();
    let media_type = body::media_type(&parts.headers);
    let body = body::read(&parts.headers, body, server.limits().body_bytes).await?;
    let body = body::object_to_json(&media_type, body)?;
    match api.review(context, &body).await {
        Some(answer) => Ok(json(StatusCode::CREATED, answer?)),
        None => Err(Status::no_such_path()),
    }
}

async fn serve_watch(
    server: &ApiServer,
    resource: &dyn Resource,
    context: &RequestContext,
    query: &Query,
    representation: Representation,
    connection: Option<CancellationToken>,
) -> Result<Response<Body>, Status> {
    let mut options = query.list_options(true)?;
    let seconds = options.timeout_seconds.unwrap_or_else(|| {
        let jitter: f64 = rand::random();
        server.limits().watch_timeout.mul_f64(1.0 + jitter).as_secs()
    });
    options.timeout_seconds = Some(seconds);
    let begins = resource.watch(context, context.info.namespace(), &options);
    let events = tokio::time::timeout_at(context.deadline, begins)
        .await
        .unwrap_or_else(|_| Err(timed_out()))?;
    let source = server.watchdog().guard(events, connection);
    let encoder = EventEncoder::new(representation, resource.descriptor().group_version_kind());
    let shutdown = server.watches_end().clone().cancelled_owned();
    let body = watch::body(encoder, source, Duration::from_secs(seconds), shutdown);
    Ok(with_type(StatusCode::OK, JSON, body))
}

fn write_verb(context: &RequestContext, media_type: &str) -> Result<WriteVerb, Status> {
    Ok(match context.info.verb.as_str() {
        "create" => WriteVerb::Create,
        "update" => WriteVerb::Update,
        "delete" => WriteVerb::Delete,
        "deletecollection" => WriteVerb::DeleteCollection,
        _ => {
            let patch = PatchType::from_media_type(media_type);
            WriteVerb::Patch(patch.ok_or_else(|| body::unsupported(media_type, PATCH_TYPES))?)
        }
    })
}

async fn read_write(
    server: &ApiServer,
    context: &RequestContext,
    request: Request<Body>,
    query: &Query,
) -> Result<WriteRequest, Status> {
    let info = &context.info;
    let (parts, body) = request.into_parts();
    let media_type = body::media_type(&parts.headers);
    let verb = write_verb(context, &media_type)?;
    let mut options = query.write_options(verb, &context.user_agent)?;
    let body = body::read(&parts.headers, body, server.limits().body_bytes).await?;
    let (body, content_type) = match verb {
        WriteVerb::Patch(_) => (body, media_type),
        WriteVerb::Delete | WriteVerb::DeleteCollection => {
            let body = delete_body(&media_type, body, query)?;
            let says_dry_run = check_delete_options(&body)?;
            let body = if options.dry_run && !says_dry_run {
                with_dry_run(&body)?
            } else {
                body
            };
            options.dry_run |= says_dry_run;
            (body, "application/json".to_owned())
        }
        WriteVerb::Create | WriteVerb::Update => {
            let body = body::object_to_json(&media_type, body)?;
            (body, "application/json".to_owned())
        }
    };
    let list_options = match verb {
        WriteVerb::DeleteCollection => query.list_options(false)?,
        _ => umbra_registry::request::ListOptions::default(),
    };
    Ok(WriteRequest {
        verb,
        namespace: info.namespace().map(str::to_owned),
        name: info.name.clone(),
        subresource: info.subresource.clone(),
        body,
        content_type,
        options,
        list_options,
        query: parts.uri.query().unwrap_or_default().to_owned(),
    })
}

/// `DeleteOptions` come as body or, without one, as parameters.
fn delete_body(media_type: &str, body: Bytes, query: &Query) -> Result<Bytes, Status> {
    if !body.is_empty() {
        return body::object_to_json(media_type, body);
    }
    let options = query.delete_options()?;
    Ok(options.map_or_else(Bytes::new, |options| Bytes::from(options.to_string())))
}

/// `DeleteOptions` with the dry run that the query asks for.
///
/// Deviation: kube-apiserver heeds no parameter where there is a body, so it deletes in spite of `?dryRun=All`. Here a dry
/// run is one wherever it is asked for, and a child that gets the request, too, has to hear of it.
fn with_dry_run(body: &[u8]) -> Result<Bytes, Status> {
    let mut options: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the body is no DeleteOptions: {error}")))?;
    options.insert("dryRun".to_owned(), json!(["All"]));
    Ok(Bytes::from(Value::Object(options).to_string()))
}

fn answer_write(
    resource: &dyn Resource,
    representation: &Representation,
    outcome: WriteOutcome,
) -> Result<Response<Body>, Status> {
    match outcome {
        WriteOutcome::Created(object) => representation.object(StatusCode::CREATED, &object),
        WriteOutcome::Done(object) => representation.object(StatusCode::OK, &object),
        WriteOutcome::Accepted(object) => representation.object(StatusCode::ACCEPTED, &object),
        WriteOutcome::Collection(list) => representation.list(&resource.descriptor().group_version_kind(), list),
        WriteOutcome::Status(status) => Ok(with_type(success_code(&status), JSON, full(status.to_json()))),
    }
}
