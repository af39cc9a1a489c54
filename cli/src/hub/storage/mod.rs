//! Opens what the flags say: the store of this hub, with encryption at rest.
//!
//! The flags are those of kube-apiserver where it has the same ones. What contradicts itself or cannot be read is told all at
//! once, before anything is opened.

mod encryption;
mod etcd;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_storage::encryption::{Encrypted, RewriteOptions};
use umbra_storage::etcd::{Etcd, EtcdOptions};
use umbra_storage::{Embedded, OpenError, Options, Store};

use crate::up::data_dir::DataDir;
use encryption::Provider;
use etcd::EtcdArguments;

/// How long the lock of a process that is gone may stay: the kernel closes its files within a second or two.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Where objects are stored, and how.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Storage")]
pub(crate) struct StorageArguments {
    #[command(flatten)]
    etcd: EtcdArguments,
    /// An EncryptionConfiguration of Kubernetes with the providers aesgcm and identity: what is encrypted at rest, and with
    /// which keys. The first provider encrypts, all of them decrypt [default: encryption.yaml in the data directory, made at
    /// the first start, encrypts Secrets; with `umbra serve` on etcd that of the Secret umbra-encryption].
    #[arg(long, env = "UMBRA_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    /// How long states stay readable and watches can be resumed, such as 90s, 10m or 1h.
    #[arg(
        long,
        env = "UMBRA_HISTORY",
        default_value = "10m",
        value_name = "DURATION",
        value_parser = history
    )]
    history: Duration,
}

/// A second is the least that compaction can keep apart.
fn history(text: &str) -> Result<Duration, String> {
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let duration = parsed
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration >= Duration::from_secs(1));
    duration.ok_or_else(|| "a duration of at least one second is needed, such as 90s, 10m or 1h".to_owned())
}

/// What the flags come down to.
struct Plan {
    backend: BackendPlan,
    encryption: Provider,
}

enum BackendPlan {
    Embedded(PathBuf, Options),
    Etcd(Box<EtcdOptions>),
}

impl StorageArguments {
    /// Finds what is wrong with the flags, without opening anything.
    ///
    /// # Errors
    /// With all of it.
    pub(crate) fn check(&self, data: &DataDir) -> Result<()> {
        self.plan(data).map(drop)
    }

    /// Whether other replicas of the hub will need the keys that this one encrypts with, and no file is named that has them.
    pub(crate) fn needs_shared_keys(&self) -> bool {
        self.etcd.is_given() && self.encryption_provider_config.is_none()
    }

    /// Whether other replicas may work on the same store.
    pub(crate) fn is_shared(&self) -> bool {
        self.etcd.is_given()
    }

    fn plan(&self, data: &DataDir) -> Result<Plan> {
        let mut faults = Vec::new();
        let backend = self.etcd.options(self.history, &mut faults);
        let encryption = Provider::new(self.encryption_provider_config.as_deref(), data, &mut faults);
        match encryption {
            Some(encryption) if faults.is_empty() => Ok(Plan {
                backend: match backend {
                    Some(options) => BackendPlan::Etcd(Box::new(options)),
                    None => BackendPlan::Embedded(data.store(), self.embedded()),
                },
                encryption,
            }),
            _ => bail!(
                "the store cannot be opened as the flags say:\n- {}",
                faults.join("\n- ")
            ),
        }
    }

    fn embedded(&self) -> Options {
        let mut options = Options::default();
        options.history = Some(self.history);
        options.compaction_interval = options.compaction_interval.min(self.history);
        options
    }
}

/// The store of a hub.
pub(crate) struct HubStore {
    encrypted: Encrypted,
    encryption: Provider,
    backend: Backend,
    history: Duration,
}

enum Backend {
    Embedded(Embedded),
    Etcd {
        /// What works for the store, apart from the hub's own tasks, which need it until their end.
        tracker: TaskTracker,
        cancel: CancellationToken,
    },
}

impl HubStore {
    /// Opens it.
    ///
    /// # Errors
    /// What keeps it from being opened, with the flags that are about it.
    pub(crate) async fn open(arguments: &StorageArguments, data: &DataDir) -> Result<Self> {
        let plan = arguments.plan(data)?;
        let (store, backend): (Arc<dyn Store>, _) = match plan.backend {
            BackendPlan::Embedded(path, options) => {
                let store = open_embedded(&path, &options).await?;
                (Arc::new(store.clone()), Backend::Embedded(store))
            }
            BackendPlan::Etcd(options) => {
                let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
                let store = Etcd::connect(*options, &tracker, cancel.clone()).await;
                let store = store.context("the hub cannot keep its objects in etcd (--etcd-servers)")?;
                (Arc::new(store), Backend::Etcd { tracker, cancel })
            }
        };
        match plan.encryption.open(store).await {
            Ok(encrypted) => Ok(Self {
                encrypted,
                encryption: plan.encryption,
                backend,
                history: arguments.history,
            }),
            Err(error) => {
                backend.close().await;
                Err(error)
            }
        }
    }

    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.encrypted.clone())
    }

    /// What its check of readiness is called: as kube-apiserver calls it, for etcd.
    pub(crate) fn check_name(&self) -> &'static str {
        match &self.backend {
            Backend::Embedded(_) => "store",
            Backend::Etcd { .. } => "etcd",
        }
    }

    /// Whether other replicas of the hub may use it, too.
    pub(crate) fn is_shared(&self) -> bool {
        match &self.backend {
            Backend::Embedded(_) => false,
            Backend::Etcd { .. } => true,
        }
    }

    /// Hands out backups through the data directory until `cancel`. A hub that cannot do it serves all the same, and says so.
    pub(crate) fn hand_out_backups(&self, data: &DataDir, tracker: &TaskTracker, cancel: CancellationToken) {
        match &self.backend {
            Backend::Embedded(store) => {
                let path = data.store();
                let directory = path.parent().unwrap_or(Path::new("."));
                if let Err(error) = crate::backup::server::serve(directory, store.clone(), tracker, cancel) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "`umbra backup` will not work while this hub runs"
                    );
                }
            }
            // etcd has snapshots of its own.
            Backend::Etcd { .. } => {}
        }
    }

    /// Rewrites what is stored otherwise than the configuration of encryption says, until that is done or `cancel`.
    pub(crate) fn rewrite(&self, tracker: &TaskTracker, cancel: CancellationToken) {
        let (encrypted, place) = (self.encrypted.clone(), self.encryption.place());
        let mut options = RewriteOptions::default();
        options.history_interval = options.history_interval.min(self.history);
        tracker.spawn(async move {
            let rewriting = encrypted.rewrite(&options, |event| encryption::tell(&event, &place));
            cancel.run_until_cancelled(rewriting).await;
        });
    }

    /// Closes it, after whatever uses it has ended.
    pub(crate) async fn close(self) {
        self.backend.close().await;
    }
}

impl Backend {
    async fn close(self) {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Etcd { tracker, cancel } => {
                cancel.cancel();
                tracker.close();
                tracker.wait().await;
            }
        }
    }
}

/// Opens the store. A process that was killed a moment ago may still hold the lock until the kernel has cleared it away, so
/// a lock is only believed when it stays.
async fn open_embedded(path: &Path, options: &Options) -> Result<Embedded> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Embedded::open(path, options.clone()).await {
            Err(OpenError::Locked { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(error) => bail!("{}", explain(&error)),
            Ok(store) => return Ok(store),
        }
    }
}

/// The error of opening, with the flag that is about it.
fn explain(error: &OpenError) -> String {
    match error {
        OpenError::Locked { .. } | OpenError::NotAStore { .. } => format!("{error} with --data-dir"),
        other => format!("{other} (the data directory is the one of --data-dir)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser, Debug)]
    struct Command {
        #[command(flatten)]
        storage: StorageArguments,
    }

    fn parse(flags: &[&str]) -> StorageArguments {
        Command::parse_from(std::iter::once(&"umbra").chain(flags)).storage
    }

    fn faults(flags: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        match parse(flags).plan(&data) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_history_is_a_duration() {
        assert_eq!(history("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(history("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "10", "-1s", "0s", "500ms", "soon"] {
            assert!(history(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_contradictions_are_told_at_once() {
        assert_eq!(faults(&[]), "");
        assert_eq!(faults(&["--etcd-servers", "http://127.0.0.1:2379"]), "");
        let text = faults(&[
            "--etcd-certfile",
            "/nowhere/etcd.crt",
            "--etcd-user",
            "umbra",
            "--encryption-provider-config",
            "/nowhere/encryption.yaml",
        ]);
        for part in [
            "--etcd-certfile is of no use without --etcd-servers",
            "--etcd-user is of no use without --etcd-servers",
            "/nowhere/encryption.yaml",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let text = faults(&[
            "--etcd-servers",
            "http://a:2379,https://b:2379,c:2379",
            "--etcd-certfile",
            "/nowhere/etcd.crt",
            "--etcd-user",
            "umbra",
            "--etcd-prefix",
            "umbra/",
        ]);
        for part in [
            "\"c:2379\"",
            "--etcd-cafile is missing",
            "--etcd-keyfile is missing",
            "/nowhere/etcd.crt",
            "password",
            "--etcd-prefix",
            "http://a:2379",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn faults_of_the_encryption_configuration_have_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("configuration.yaml");
        std::fs::write(&path, "apiVersion: v1\nkind: EncryptionConfiguration\nresources: []\n").unwrap();
        let path = path.to_str().unwrap();
        let text = faults(&["--encryption-provider-config", path]);
        for part in [path, "line 1, column 13", "resources needs at least one item"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_hub_makes_its_key_once_and_does_not_go_on_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let path = data.encryption_key_file();
        let arguments = parse(&[]);
        HubStore::open(&arguments, &data).await.unwrap().close().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        HubStore::open(&arguments, &data).await.unwrap().close().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

        std::fs::remove_file(&path).unwrap();
        let error = HubStore::open(&arguments, &data).await.err().unwrap();
        let told = format!("{error:#}");
        assert!(told.contains("encryption.yaml") && told.contains("backup"), "{told}");
        assert!(!path.exists(), "no other key is made");
        std::fs::write(&path, &text).unwrap();
        HubStore::open(&arguments, &data).await.unwrap().close().await;
    }
}
