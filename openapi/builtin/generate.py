#!/usr/bin/env python3
"""Makes builtin.json.gz: schemas and resources of the Kubernetes kinds that Umbra serves itself.

    go mod download k8s.io/kubernetes@v1.36.3
    python3 generate.py "$(go env GOMODCACHE)/k8s.io/kubernetes@v1.36.3"

Input are the OpenAPI v3 documents that Kubernetes checks in (api/openapi-spec/v3, Apache-2.0). Output is one JSON
object, without whitespace, gzipped reproducibly:

    schemas     name -> schema, of all documents together (where two documents have the same name, they agree)
    documents   group version as in a URL ("api/v1", "apis/apps/v1") -> names of its schemas
    resources   what discovery lists: one entry per resource

Descriptions are dropped: they are sentences of others, and nothing but `kubectl explain` shows them. Paths are read for
the resources and then dropped too: Umbra generates its own. Short names and categories are in no document; the tables
below say what discovery of a real server of that version says.
"""

import gzip
import json
import pathlib
import sys

GROUP_VERSIONS = [
    "api/v1",
    "apis/apps/v1",
    "apis/autoscaling/v2",
    "apis/autoscaling/v1",
    "apis/batch/v1",
    "apis/policy/v1",
    "apis/networking.k8s.io/v1",
    "apis/rbac.authorization.k8s.io/v1",
    "apis/storage.k8s.io/v1",
    "apis/scheduling.k8s.io/v1",
    "apis/coordination.k8s.io/v1",
    "apis/discovery.k8s.io/v1",
    "apis/events.k8s.io/v1",
    "apis/authentication.k8s.io/v1",
    "apis/authorization.k8s.io/v1",
    "apis/apiextensions.k8s.io/v1",
]

SHORT_NAMES = {
    "componentstatuses": ["cs"],
    "configmaps": ["cm"],
    "customresourcedefinitions": ["crd", "crds"],
    "cronjobs": ["cj"],
    "daemonsets": ["ds"],
    "deployments": ["deploy"],
    "endpoints": ["ep"],
    "events": ["ev"],
    "horizontalpodautoscalers": ["hpa"],
    "ingresses": ["ing"],
    "ipaddresses": ["ip"],
    "limitranges": ["limits"],
    "namespaces": ["ns"],
    "networkpolicies": ["netpol"],
    "nodes": ["no"],
    "persistentvolumeclaims": ["pvc"],
    "persistentvolumes": ["pv"],
    "poddisruptionbudgets": ["pdb"],
    "pods": ["po"],
    "priorityclasses": ["pc"],
    "replicasets": ["rs"],
    "replicationcontrollers": ["rc"],
    "resourcequotas": ["quota"],
    "serviceaccounts": ["sa"],
    "services": ["svc"],
    "statefulsets": ["sts"],
    "storageclasses": ["sc"],
    "volumeattributesclasses": ["vac"],
}

CATEGORIES = {
    "all": [
        "cronjobs", "daemonsets", "deployments", "horizontalpodautoscalers", "jobs", "pods", "replicasets",
        "replicationcontrollers", "services", "statefulsets",
    ],
    "api-extensions": ["customresourcedefinitions"],
}

# What an operation is called among the verbs of discovery. What connects is called by its method.
VERBS = {
    "get": "get", "list": "list", "post": "create", "put": "update", "patch": "patch", "delete": "delete",
    "deletecollection": "deletecollection", "watch": "watch", "watchlist": "watch",
}
METHODS = {"get": "get", "post": "create", "put": "update", "patch": "patch", "delete": "delete"}


def without_descriptions(schema):
    """A copy of a schema without prose, and without what only prose refers to."""
    result = {}
    for key, value in schema.items():
        if key in ("description", "externalDocs", "x-kubernetes-unions"):
            continue
        if key == "properties":
            value = {name: without_descriptions(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            value = without_descriptions(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            value = [without_descriptions(one) for one in value]
        result[key] = value
    return result


def resources_of(group_version, document):
    """The entries of discovery that the paths of a document amount to."""
    found = {}
    prefix = f"/{group_version}/"
    for path, operations in sorted(document["paths"].items()):
        parts = path[len(prefix):].split("/")
        if parts[0] == "watch":
            parts = parts[1:]
        namespaced = parts[:2] == ["namespaces", "{namespace}"] and len(parts) > 2
        if namespaced:
            parts = parts[2:]
        if not parts[0] or parts[-1] == "{path}":
            continue
        resource, subresource = parts[0], parts[2] if len(parts) > 2 else ""
        for method, operation in operations.items():
            action = operation.get("x-kubernetes-action") if isinstance(operation, dict) else None
            verb = METHODS.get(method) if action == "connect" else VERBS.get(action)
            if not verb:
                continue
            kind = operation["x-kubernetes-group-version-kind"]
            entry = found.setdefault((resource, subresource), {"namespaced": False, "kind": None, "verbs": set()})
            entry["namespaced"] |= namespaced
            entry["verbs"].add(verb)
            if action != "deletecollection":
                entry["kind"] = kind
    group, version = ("", "v1") if group_version == "api/v1" else group_version.split("/")[1:]
    table = []
    for (resource, subresource), entry in sorted(found.items()):
        if subresource:
            continue
        table.append({
            "group": group,
            "version": version,
            "name": resource,
            "singular": entry["kind"]["kind"].lower(),
            "kind": entry["kind"]["kind"],
            "namespaced": entry["namespaced"],
            "shortNames": SHORT_NAMES.get(resource, []) if group != "events.k8s.io" else ["ev"],
            "categories": [name for name, members in CATEGORIES.items() if resource in members],
            "verbs": sorted(entry["verbs"]),
            "subresources": [
                {"name": sub, "kind": one["kind"], "verbs": sorted(one["verbs"])}
                for (parent, sub), one in sorted(found.items()) if parent == resource and sub
            ],
        })
    return table


def main():
    specs = pathlib.Path(sys.argv[1]) / "api" / "openapi-spec" / "v3"
    schemas, documents, resources = {}, {}, []
    for group_version in GROUP_VERSIONS:
        document = json.loads((specs / (group_version.replace("/", "__") + "_openapi.json")).read_text())
        components = {
            name: without_descriptions(schema) for name, schema in document["components"]["schemas"].items()
        }
        for name, schema in components.items():
            # DeleteOptions and WatchEvent name groups of the whole server, which differ by document.
            if name in schemas and "x-kubernetes-group-version-kind" in schema:
                known = schemas[name]["x-kubernetes-group-version-kind"]
                known.extend(kind for kind in schema["x-kubernetes-group-version-kind"] if kind not in known)
                schema["x-kubernetes-group-version-kind"] = known
            if schemas.setdefault(name, schema) != schema:
                raise SystemExit(f"{name} is not the same in every document")
        documents[group_version] = sorted(components)
        resources.extend(resources_of(group_version, document))
    output = {"schemas": schemas, "documents": documents, "resources": resources}
    text = json.dumps(output, separators=(",", ":"), sort_keys=True)
    target = pathlib.Path(__file__).with_name("builtin.json.gz")
    with open(target, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as archive:
        archive.write(text.encode())
    print(f"{len(schemas)} schemas, {len(resources)} resources, {len(text)} bytes, {target.stat().st_size} gzipped")


if __name__ == "__main__":
    main()
