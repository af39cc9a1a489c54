//! What the flags say of TLS, HTTP/2, limits and the division of work; their faults.

use std::time::Duration;

use umbra_api::cluster::Sync;
use umbra_apiserver::Limits;
use umbra_apiserver::server::ServerOptions;
use umbra_auth::tls::{CipherSuite, TlsOptions, TlsVersion};
use umbra_controllers::copy::is_pattern;

use super::flags::{ControllerArguments, LimitArguments, ServingArguments};

/// More would have clients open connections all the time (`--goaway-chance` of kube-apiserver has the same bound).
const GOAWAY_CHANCE: f64 = 0.02;

/// How connections are served and ended.
pub(super) fn server(serving: &ServingArguments, limits: &LimitArguments, faults: &mut Vec<String>) -> ServerOptions {
    let defaults = ServerOptions::default();
    let chance = limits.goaway_chance.unwrap_or(defaults.goaway_chance);
    if !(0.0..=GOAWAY_CHANCE).contains(&chance) {
        faults.push(format!("--goaway-chance {chance} is not between 0 and {GOAWAY_CHANCE}"));
    }
    let streams = limits.http2_max_streams_per_connection;
    if streams == Some(0) {
        faults.push("--http2-max-streams-per-connection 0 would serve nothing".to_owned());
    }
    if serving.disable_http2_serving {
        for (flag, given) in [
            ("--http2-max-streams-per-connection", streams.is_some()),
            ("--goaway-chance", limits.goaway_chance.is_some()),
        ] {
            if given {
                faults.push(format!("{flag} is of no use with --disable-http2-serving"));
            }
        }
    }
    ServerOptions {
        shutdown_delay: serving.shutdown_delay_duration,
        http2: !serving.disable_http2_serving,
        http2_streams: streams.unwrap_or(defaults.http2_streams),
        goaway_chance: chance,
        ..defaults
    }
}

/// What TLS is offered.
pub(super) fn tls(serving: &ServingArguments, faults: &mut Vec<String>) -> TlsOptions {
    let mut cipher_suites = Vec::new();
    for name in serving.tls_cipher_suites.iter().flatten() {
        match CipherSuite::by_name(name) {
            Some(suite) => cipher_suites.push(suite),
            None => {
                let names: Vec<String> = CipherSuite::all().into_iter().map(CipherSuite::name).collect();
                faults.push(format!(
                    "--tls-cipher-suites: there is no {name}, but {}",
                    names.join(", ")
                ));
            }
        }
    }
    if serving.tls_min_version == TlsVersion::Tls13 && cipher_suites.iter().any(|suite| !suite.is_of_tls13()) {
        faults.push(
            "--tls-cipher-suites names suites of TLS 1.2, which --tls-min-version VersionTLS13 does not speak"
                .to_owned(),
        );
    }
    TlsOptions {
        minimum: serving.tls_min_version,
        cipher_suites,
    }
}

/// What one request may take.
pub(super) fn requests(arguments: &LimitArguments, faults: &mut Vec<String>) -> Limits {
    for (flag, nothing) in [
        ("--max-requests-inflight", arguments.max_requests_inflight == 0),
        (
            "--max-mutating-requests-inflight",
            arguments.max_mutating_requests_inflight == 0,
        ),
        ("--request-timeout", arguments.request_timeout.is_zero()),
        ("--min-request-timeout", arguments.min_request_timeout == 0),
        ("--max-request-body-bytes", arguments.max_request_body_bytes == 0),
    ] {
        if nothing {
            faults.push(format!("{flag} 0 would serve nothing"));
        }
    }
    Limits {
        request_timeout: arguments.request_timeout,
        watch_timeout: Duration::from_secs(arguments.min_request_timeout),
        body_bytes: arguments.max_request_body_bytes,
    }
}

/// What is copied of every cluster, and what of none.
pub(super) fn sync(arguments: &ControllerArguments, faults: &mut Vec<String>) -> Sync {
    for (flag, patterns) in [
        ("--sync-include", &arguments.sync_include),
        ("--sync-exclude", &arguments.sync_exclude),
    ] {
        for pattern in patterns.iter().filter(|pattern| !is_pattern(pattern)) {
            faults.push(format!(
                "{flag}: {pattern:?} is no pattern of resources such as pods, deployments.apps, *.apps or *"
            ));
        }
    }
    for pattern in &arguments.sync_include {
        if arguments.sync_exclude.contains(pattern) {
            faults.push(format!("--sync-include and --sync-exclude both name {pattern}"));
        }
    }
    Sync {
        include: arguments.sync_include.clone(),
        exclude: arguments.sync_exclude.clone(),
    }
}
