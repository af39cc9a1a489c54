//! HTTP: TLS, filters, verbs, watch streams, negotiation, discovery, health.
