//! Filling a [`ClientTrust`] from flags and from the hub, once and ever after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use tokio_util::sync::CancellationToken;

use super::config_map::{self, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, Parts, authorities};
use super::{ClientTrust, FollowedFiles, TrustError};
use crate::request_header::{IdentityHeaders, RequestHeaderOptions, RequestHeaderTrust};

/// How long the hub may take to say what is in the ConfigMap.
const READ_DEADLINE: u64 = 10;
/// How long one watch lasts. It is read anew after that, as kube-apiserver does (`FileRefreshDuration`), so that a
/// connection that died unnoticed is found out.
const WATCH_SECONDS: u32 = 60;
/// How much longer the end of a watch may take than it should.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// The longest wait after the first failure to read; doubled with each further one. Waits are random below that.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Where the doubling ends.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Where trust comes from; the flags of kube-apiserver of the same names.
#[derive(Debug, Clone, Default)]
pub struct TrustOptions {
    /// `--client-ca-file`: the authorities whose client certificates name users, instead of the hub's.
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file`: the authorities of front proxies, instead of the hub's.
    pub request_header_client_ca_file: Option<PathBuf>,
    /// `--requestheader-allowed-names`, `--requestheader-*-headers` and the like. They count only with that file: the hub
    /// publishes its own with its own authorities.
    pub request_header: RequestHeaderOptions,
    /// `--authentication-skip-lookup`: the hub is not asked.
    pub skip_lookup: bool,
}

impl TrustOptions {
    /// All that is wrong with the options themselves (`RequestHeaderAuthenticationOptions.Validate`).
    #[must_use]
    pub fn faults(&self) -> Vec<TrustError> {
        let names = IdentityHeaders::new(&self.request_header).err().unwrap_or_default();
        let mut faults: Vec<TrustError> = names.into_iter().map(TrustError::HeaderName).collect();
        if self
            .request_header
            .allowed_names
            .iter()
            .any(|name| name.trim().is_empty())
        {
            faults.push(TrustError::EmptyAllowedName);
        }
        faults
    }
}

/// Keeps a [`ClientTrust`] up to date.
pub struct TrustKeeper {
    trust: ClientTrust,
    options: TrustOptions,
    hub: Option<Api<ConfigMap>>,
    parts: Parts,
}

impl std::fmt::Debug for TrustKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustKeeper")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl TrustKeeper {
    /// Uses the files of `options`, and for what those do not say, unless it is to be skipped, the ConfigMap of the hub
    /// behind `client`.
    #[must_use]
    pub fn new(options: TrustOptions, client: Option<kube::Client>) -> Self {
        let lookup = client.is_some() && !options.skip_lookup;
        let parts = Parts {
            client_ca: lookup && options.client_ca_file.is_none(),
            request_header: lookup && options.request_header_client_ca_file.is_none(),
        };
        Self {
            trust: ClientTrust::default(),
            hub: client
                .filter(|_| parts.any())
                .map(|client| Api::namespaced(client, CONFIG_MAP_NAMESPACE)),
            options,
            parts,
        }
    }

    /// What is kept up to date.
    #[must_use]
    pub fn trust(&self) -> ClientTrust {
        self.trust.clone()
    }

    /// Reads everything once. A hub without the ConfigMap is none with a broken one: it publishes nothing.
    ///
    /// # Errors
    /// All that could not be read or used; the rest is in use. Whether to serve all the same is for the caller to decide
    /// (`--authentication-tolerate-lookup-failure`): who is not believed is refused.
    pub async fn load(&self) -> Result<(), Vec<TrustError>> {
        let faults = self.options.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut errors = Vec::new();
        for file in self.files() {
            let mut files = FollowedFiles::new(vec![file.path().to_owned()]);
            match files.changed().await {
                Ok(contents) => errors.extend(file.apply(contents.unwrap_or_default(), &self.trust).err()),
                Err(error) => errors.push(error),
            }
        }
        if let Some(hub) = &self.hub {
            match read(hub).await {
                Ok(Some(map)) => errors.extend(self.apply(&map.data.unwrap_or_default())),
                Ok(None) => tracing::warn!(
                    "the hub has no ConfigMap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}: nobody is known by certificate"
                ),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Keeps everything up to date until `cancelled`. To be run in a task of the caller's.
    pub async fn follow(self, cancelled: CancellationToken) {
        let files = self.files().into_iter().map(|file| {
            let trust = self.trust.clone();
            let followed = FollowedFiles::new(vec![file.path().to_owned()]);
            followed.follow(cancelled.clone(), move |contents| file.apply(contents, &trust))
        });
        let hub: OptionFuture<_> = self.hub.as_ref().map(|hub| self.follow_hub(hub)).into();
        let hub = cancelled.run_until_cancelled(hub);
        tokio::join!(futures::future::join_all(files), hub);
    }

    fn files(&self) -> Vec<TrustFile> {
        let client = self.options.client_ca_file.clone().map(TrustFile::Clients);
        let proxies = self.options.request_header_client_ca_file.clone();
        let proxies = proxies.map(|path| TrustFile::Proxies(path, self.options.request_header.clone()));
        client.into_iter().chain(proxies).collect()
    }

    fn apply(&self, data: &BTreeMap<String, String>) -> Vec<TrustError> {
        config_map::apply(data, self.parts, &self.trust)
    }

    async fn follow_hub(&self, hub: &Api<ConfigMap>) {
        let mut seen = None;
        let mut longest = FIRST_WAIT;
        loop {
            match self.follow_watch(hub, &mut seen).await {
                Ok(()) => longest = FIRST_WAIT,
                Err(error) => {
                    let reason: &dyn std::error::Error = &error;
                    tracing::warn!(reason, "what the hub published before stays in use");
                    longest = (longest * 2).min(LONGEST_WAIT);
                }
            }
            tokio::time::sleep(longest.mul_f64(rand::random())).await;
        }
    }

    /// Reads the ConfigMap and then its changes, for a minute.
    async fn follow_watch(
        &self,
        hub: &Api<ConfigMap>,
        seen: &mut Option<BTreeMap<String, String>>,
    ) -> Result<(), TrustError> {
        let read = read(hub).await?;
        // Where there is none yet, from the beginning of whatever the server remembers.
        let version = read.as_ref().and_then(|map| map.metadata.resource_version.clone());
        if let Some(map) = read {
            self.use_new(map, seen);
        }
        let unreadable = |source| TrustError::ConfigMap {
            source: Box::new(source),
        };
        let watch = async {
            let parameters = WatchParams::default()
                .fields(&format!("metadata.name={CONFIG_MAP_NAME}"))
                .timeout(WATCH_SECONDS);
            let events = hub.watch(&parameters, version.as_deref().unwrap_or("0")).await?;
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.try_next().await? {
                match event {
                    WatchEvent::Added(map) | WatchEvent::Modified(map) => self.use_new(map, seen),
                    WatchEvent::Deleted(_) => {
                        tracing::warn!("the hub's ConfigMap {CONFIG_MAP_NAME} is gone; what it said stays in use");
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                }
            }
            Ok(())
        };
        let longest = Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_GRACE;
        match tokio::time::timeout(longest, watch).await {
            Ok(ended) => ended.map_err(unreadable),
            // The connection is dead; it is read anew.
            Err(_) => Ok(()),
        }
    }

    fn use_new(&self, map: ConfigMap, seen: &mut Option<BTreeMap<String, String>>) {
        let data = map.data.unwrap_or_default();
        if seen.as_ref() == Some(&data) {
            return;
        }
        let errors = self.apply(&data);
        for error in &errors {
            tracing::warn!(%error, "what the hub published before stays in use");
        }
        if errors.is_empty() {
            tracing::info!("what the hub publishes about clients is in use");
        }
        *seen = Some(data);
    }
}

async fn read(hub: &Api<ConfigMap>) -> Result<Option<ConfigMap>, TrustError> {
    let read = tokio::time::timeout(Duration::from_secs(READ_DEADLINE), hub.get_opt(CONFIG_MAP_NAME)).await;
    let read = read.map_err(|_| TrustError::Deadline(READ_DEADLINE))?;
    read.map_err(|source| TrustError::ConfigMap {
        source: Box::new(source),
    })
}

/// A file of a flag.
enum TrustFile {
    Clients(PathBuf),
    Proxies(PathBuf, RequestHeaderOptions),
}

impl TrustFile {
    fn path(&self) -> &Path {
        match self {
            Self::Clients(path) | Self::Proxies(path, _) => path,
        }
    }

    fn apply(&self, contents: &[Vec<u8>], trust: &ClientTrust) -> Result<(), TrustError> {
        let pem = contents.first().map_or(&[][..], Vec::as_slice);
        let bundle = authorities(self.path().display().to_string(), pem)?;
        match self {
            Self::Clients(_) => trust.client_authorities.replace(bundle),
            Self::Proxies(_, options) => {
                let believed = RequestHeaderTrust::new(bundle, options);
                // [`TrustOptions::faults`] has named all of them.
                let first = |mut names: Vec<_>| TrustError::HeaderName(names.remove(0));
                trust.request_header.replace(believed.map_err(first)?);
            }
        }
        Ok(())
    }
}
